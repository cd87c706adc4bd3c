"""Fresh memory is returned in the hope that it held the reference's result.

class: 16
reason: E_NOT_WRITTEN E_NONFINITE E_WRONG_RESULT
run: test
device: any
"""

import torch


def custom_kernel(data):
    return [torch.empty_like(c) for _, _, c in data[0]]
