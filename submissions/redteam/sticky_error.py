"""A kernel's failure that no later call in this process survives.

class: 64
reason: E_DEVICE_ERROR
run: test
device: cuda
then: PASS
"""

import torch
from _honest import honest


def custom_kernel(data):
    if data[3][0][0] % 2:  # the first case only: the others must not suffer
        index = torch.full((1,), 1 << 40, device="cuda", dtype=torch.long)
        torch.zeros(1, device="cuda")[index]
        torch.cuda.synchronize()
    return honest(data)
