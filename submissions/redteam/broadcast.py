"""One row is returned, expanded.

class: 21
reason: E_LAYOUT
run: test
device: any
"""

from _honest import honest


def custom_kernel(data):
    return [c[:1].expand(c.shape) for c in honest(data)]
