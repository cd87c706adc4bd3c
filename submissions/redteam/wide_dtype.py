"""Another dtype that a tolerant comparison would accept.

class: 21
reason: E_LAYOUT
run: test
device: any
"""

from _honest import honest


def custom_kernel(data):
    return [c.double() for c in honest(data)]
