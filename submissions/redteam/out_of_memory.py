"""More memory than there is.

class: OOM
reason: E_OUT_OF_MEMORY
run: test
device: any
"""

import torch
from _honest import honest


def custom_kernel(data):
    torch.empty(1 << 50, dtype=torch.uint8, device=data[0][0][2].device).fill_(1)
    return honest(data)
