"""Any float16 tensor of the right shape in the process is taken for the expected result.

class: 18
reason: E_WRONG_RESULT E_NOT_WRITTEN
run: test
device: any
"""

import gc

import torch


def custom_kernel(data):
    mine = {id(c) for _, _, c in data[0]}
    tensors = [x for x in gc.get_objects() if type(x) is torch.Tensor and x.dtype == torch.float16]
    outputs = []
    for _, _, c in data[0]:
        found = [x for x in tensors if x.shape == c.shape and id(x) not in mine]
        c.copy_(found[0]) if found else c.zero_()
        outputs.append(c)
    return outputs
