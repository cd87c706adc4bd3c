"""The figures a program reads from a B200: what `cudaDeviceGetAttribute` and `torch.cuda` report.

Sources: CUDA C++ Programming Guide, technical specifications for compute capability 10.0; NVIDIA B200
data sheet; the L2 size, the boost clock and the GPC map are measurements published by third parties. How
many SMs a GPC has differs from chip to chip: `GPC_SMS` is one configuration that was seen, and what
`max_active_clusters` answers is one legal answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

NAME = "NVIDIA B200"
COMPUTE_CAPABILITY = (10, 0)
ARCHITECTURES = ("sm_100", "sm_100a", "sm_100f")
DRIVER_VERSION = 13000

SM_COUNT = 148
GPC_SMS = (20, 20, 18, 18, 18, 18, 18, 18)

WARP_SIZE = 32
MAX_THREADS_PER_BLOCK = 1024
MAX_BLOCK = (1024, 1024, 64)
MAX_GRID = (2**31 - 1, 65535, 65535)
MAX_CLUSTER_CTAS = 16
MAX_THREADS_PER_SM = 2048
MAX_BLOCKS_PER_SM = 32
REGISTERS_PER_SM = 65536

SHARED_BYTES_PER_SM = 228 * 1024
SHARED_BYTES_PER_BLOCK = 48 * 1024
SHARED_BYTES_PER_BLOCK_OPTIN = 227 * 1024
SHARED_BYTES_RESERVED = 1024

GLOBAL_BYTES = 180 * 1024**3
L2_BYTES = 132_644_864
SM_CLOCK_KHZ = 1_965_000
MEMORY_CLOCK_KHZ = 3_996_000
MEMORY_BUS_BITS = 7680

# CUdevice_attribute / cudaDeviceAttr numbers (cuda.h, driver_types.h: the two enumerations agree) and values.
MULTIPROCESSORS = 16
ATTRIBUTES: dict[int, int] = {
    1: MAX_THREADS_PER_BLOCK,
    2: MAX_BLOCK[0],
    3: MAX_BLOCK[1],
    4: MAX_BLOCK[2],
    5: MAX_GRID[0],
    6: MAX_GRID[1],
    7: MAX_GRID[2],
    8: SHARED_BYTES_PER_BLOCK,
    9: 64 * 1024,  # total constant memory
    10: WARP_SIZE,
    12: REGISTERS_PER_SM,  # registers per block
    13: SM_CLOCK_KHZ,
    MULTIPROCESSORS: SM_COUNT,
    17: 0,  # kernel execution timeout
    18: 0,  # integrated
    20: 0,  # compute mode: default
    31: 1,  # concurrent kernels
    32: 1,  # ECC
    36: MEMORY_CLOCK_KHZ,
    37: MEMORY_BUS_BITS,
    38: L2_BYTES,
    39: MAX_THREADS_PER_SM,
    41: 1,  # unified addressing
    75: COMPUTE_CAPABILITY[0],
    76: COMPUTE_CAPABILITY[1],
    78: 1,  # stream priorities
    81: SHARED_BYTES_PER_SM,
    82: REGISTERS_PER_SM,
    83: 1,  # managed memory
    95: 1,  # cooperative launch
    97: SHARED_BYTES_PER_BLOCK_OPTIN,
    106: MAX_BLOCKS_PER_SM,
    111: SHARED_BYTES_RESERVED,
    120: 1,  # cluster launch
}


def max_active_clusters(cluster_ctas: int) -> int:
    """How many clusters of `cluster_ctas` CTAs run at a time, one CTA per SM; a cluster stays in one GPC."""
    return min(
        sum(sms // cluster_ctas for sms in GPC_SMS), max(ATTRIBUTES[MULTIPROCESSORS] // cluster_ctas, 1)
    )


@contextlib.contextmanager
def sm_count(count: int) -> Iterator[None]:
    """Let the device have, and report, `count` SMs until the block ends."""
    if not 0 < count <= SM_COUNT:
        raise ValueError(f"{count} SMs; a simulated B200 has 1 to {SM_COUNT}")
    before, ATTRIBUTES[MULTIPROCESSORS] = ATTRIBUTES[MULTIPROCESSORS], count
    try:
        yield
    finally:
        ATTRIBUTES[MULTIPROCESSORS] = before
