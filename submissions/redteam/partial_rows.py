"""The last row of every group is left out.

class: 50
reason: E_NOT_WRITTEN
run: test
device: any
"""

from _honest import honest


def custom_kernel(data):
    kept = [c.clone() for _, _, c in data[0]]
    outputs = honest(data)
    for c, before in zip(outputs, kept, strict=True):
        c[-1:] = before[-1:]
    return outputs
