"""The control through both timing lanes. It must pass.

class: none
reason: PASS
run: benchmark
device: any
"""

from _honest import honest


def custom_kernel(data):
    return honest(data)
