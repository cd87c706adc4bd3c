"""A tensor subclass that computes when the checker touches it.

class: 12
reason: E_TYPE
run: test
device: any
"""

import torch
from _honest import honest


class Lazy(torch.Tensor):
    """Computes when somebody looks."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), options=None):
        honest(cls.data)
        return super().__torch_function__(function, types, arguments, options or {})


def custom_kernel(data):
    Lazy.data = data
    return [c.as_subclass(Lazy) for _, _, c in data[0]]
