"""A null pointer is read.

class: segfault
reason: E_CRASH
run: test
device: any
"""

import ctypes


def custom_kernel(data):
    ctypes.string_at(0)
