"""The control: right, and nothing else. It must pass.

class: none
reason: PASS
run: test
device: any
"""

from _honest import honest


def custom_kernel(data):
    return honest(data)
