"""Python's clocks stand still.

class: 29
reason: E_PATCHED
run: test
device: any
"""

import time

from _honest import honest

time.perf_counter = time.perf_counter_ns = time.monotonic = lambda: 0


def custom_kernel(data):
    return honest(data)
