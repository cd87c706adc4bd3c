"""Cluster launch control: a CTA does its own tile, then those of CTAs it keeps from starting.

`visits[tile]` counts how often a tile was done and `owner[tile]` says by which CTA.
"""

import cutlass
import cutlass.cute as cute


@cute.kernel
def kernel(visits: cute.Tensor, owner: cute.Tensor):
    thread, _, _ = cute.arch.thread_idx()
    cta, _, _ = cute.arch.block_idx()
    smem = cutlass.utils.SmemAllocator()
    response = smem.allocate_array(cutlass.Int32, 4, byte_alignment=16)
    barrier = smem.allocate_array(cutlass.Int64, 1)
    if thread == 0:
        cute.arch.mbarrier_init(barrier, 1)
        cute.arch.mbarrier_init_fence()
    cute.arch.sync_threads()
    tile = cta
    phase = cutlass.Int32(0)
    more = cutlass.Int32(1)
    while more > 0:
        if thread == 0:
            cute.arch.mbarrier_arrive_and_expect_tx(barrier, 16)
            cute.arch.issue_clc_query(barrier, response)
            visits[tile] = visits[tile] + 1
            owner[tile] = cta
        cute.arch.mbarrier_wait(barrier, phase)
        tile, _, _, more = cute.arch.clc_response(response)
        cute.arch.fence_proxy("async.shared", space="cta")
        cute.arch.sync_threads()
        phase = phase ^ 1


@cute.jit
def run(visits: cute.Tensor, owner: cute.Tensor):
    kernel(visits, owner).launch(
        grid=(cute.size(visits, mode=[0]), 1, 1), block=(32, 1, 1), cluster=(1, 1, 1)
    )
