"""Part of L2 is reserved for inputs that survive the flush.

class: 54
reason: E_L2_PERSISTING
run: benchmark
device: cuda
"""

import ctypes

from _honest import honest

CU_LIMIT_PERSISTING_L2_CACHE_SIZE = 6


def custom_kernel(data):
    ctypes.CDLL("libcuda.so.1").cuCtxSetLimit(CU_LIMIT_PERSISTING_L2_CACHE_SIZE, ctypes.c_size_t(16 << 20))
    return honest(data)
