"""Rates of a B200 that the models use. Every number was measured by the source named with it, none here.

Sources: SA = SemiAnalysisAI/microbench-blackwell (CSV files, B200), QRC = ademeure/QuickRunCUDA (B300 notes),
GN = gau-nernst (traces of matrix multiplications on B200).
"""

from __future__ import annotations

CLOCK_HZ = 1.85e9  # sustained; SA saw 1.92 to 1.98 GHz under ncu, B300 sustains 1.94

DRAM_BYTES_PER_S = 7.2e12  # SA tma2d_tput: 7.05 to 7.26 TB/s from 64 KB in flight per SM on
SM_INGEST_BYTES_PER_S = 113e9  # SA tma2dmcast: 16.9 TB/s delivered to 148 SMs with 16-way sharing
L2_BYTES_PER_S = 14e12  # SA tma2dmcast: 12.4 TB/s with 2-way, 14.6 with 4-way sharing
SMEM_BYTES_PER_CYCLE = 128  # QRC, 97.5 % reached

TMA_ISSUE_CYCLES = 50  # QRC: 48 to 50 per instruction
TMA_LATENCY_CYCLES = 1413  # SA compare_mem_latency: 1 KB box from cold DRAM, all SMs
TMA_L2_LATENCY_CYCLES = 600  # fit to SA's main loop: 470 round trip, 350 more from the other die
SCALE_COPY_CYCLES = 16  # inferred: 512 B read, 2 KB written to tensor memory
INSTRUCTION_CYCLES = 2.0  # one warp alone on its scheduler; inferred
TENSOR_LOAD_CYCLES = 60  # SA/QRC: 32x32b.x32 of a warp, with its wait
STORE_DRAIN_CYCLES = 500  # a store to L2 and its acknowledgement; inferred from 300 (L2 hit) and queueing
COMMIT_CYCLES = 170  # SA lat_results: 2-SM M256 latency is N / 2 + 170 cycles
CLUSTER_BARRIER_CYCLES = 190  # QRC: cluster.sync 373 to 380 for arrive and wait of both

#: Cycles between starts of tcgen05.mma with K = 64 (kind::mxf4nvf4), M = 256 on a CTA pair (SA mxf4 sweeps).
_PAIR_CYCLES = ((64, 43.5), (80, 46.2), (96, 49.5), (112, 56.2), (128, 64.2), (256, 128.2))


def mma_cycles(m: int, n: int) -> float:
    """Initiation interval of one MMA of M x N x 64; M = 256 is a CTA pair, M = 128 one CTA."""
    if m != 256:
        return max(n / 2, 32 + n / 4)
    below = _PAIR_CYCLES[0]
    if n <= below[0]:
        return below[1]
    for above in _PAIR_CYCLES[1:]:
        if n <= above[0]:
            share = (n - below[0]) / (above[0] - below[0])
            return below[1] + share * (above[1] - below[1])
        below = above
    raise ValueError(f"no MMA has N = {n}")


def microseconds(cycles: float) -> float:
    return cycles / CLOCK_HZ * 1e6
