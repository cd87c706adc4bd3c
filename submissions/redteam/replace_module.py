"""A module is replaced for whoever imports it next.

class: 24
reason: E_PATCHED
run: test
device: any
"""

import sys
import types

from _honest import honest

fake = types.ModuleType("time")
fake.perf_counter_ns = fake.monotonic_ns = lambda: 0
sys.modules["time"] = fake


def custom_kernel(data):
    return honest(data)
