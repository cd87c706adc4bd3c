"""The inputs are zeroed, so that a reference computed from them agrees with zeros.

class: 44
reason: E_INPUT_CHANGED
run: test
device: any
"""

import torch


def custom_kernel(data):
    for a, _, c in data[0]:
        a.view(torch.uint8).zero_()
        c.zero_()
    return [c for _, _, c in data[0]]
