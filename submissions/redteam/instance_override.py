"""Methods of the returned object itself are replaced.

class: 13
reason: E_TYPE
run: test
device: any
"""

import torch
from _honest import honest


def custom_kernel(data):
    outputs = [c for _, _, c in data[0]]
    for c in outputs:
        c.cpu = lambda data=data, c=c: (honest(data), torch.Tensor.cpu(c))[1]
    return outputs
