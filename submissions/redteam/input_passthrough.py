"""Memory of an input is returned.

class: 45
reason: E_ALIAS
run: test
device: any
"""

import torch


def custom_kernel(data):
    outputs = []
    for a, b, c in data[0]:
        source = max((a, b), key=torch.Tensor.numel)
        flat = torch.empty(0, dtype=torch.uint8, device=c.device).set_(source.untyped_storage())
        outputs.append(flat[: 2 * c.numel()].view(torch.float16).as_strided(c.shape, c.stride()))
    return outputs
