"""CTAs of a cluster hand values around a ring through each other's shared memory.

`result[cta, thread]` is what the left neighbour in the cluster wrote: its own index * 1000 + thread.
"""

import cutlass
import cutlass.cute as cute

THREADS = 64


@cute.kernel
def kernel(result: cute.Tensor, size: cutlass.Constexpr):
    thread, _, _ = cute.arch.thread_idx()
    cta, _, _ = cute.arch.block_idx()
    rank = cute.arch.make_warp_uniform(cute.arch.block_idx_in_cluster())
    smem = cutlass.utils.SmemAllocator()
    barrier = smem.allocate_array(cutlass.Int64, 1)
    inbox = smem.allocate_array(cutlass.Int32, THREADS)
    if thread == 0:
        cute.arch.mbarrier_init(barrier, THREADS)
        cute.arch.mbarrier_init_fence()
    cute.arch.cluster_arrive_relaxed()
    cute.arch.cluster_wait()
    neighbour = (rank + 1) % size
    remote = cute.arch.map_dsmem_ptr(inbox + thread, neighbour)
    cute.arch.store(remote, cutlass.Int32(cta * 1000 + thread), ss="cluster")
    cute.arch.fence_acq_rel_cluster()
    cute.arch.mbarrier_arrive(barrier, neighbour)
    cute.arch.mbarrier_wait(barrier, 0)
    result[cta, thread] = cute.make_tensor(inbox, cute.make_layout(THREADS))[thread]
    cute.arch.cluster_arrive()
    cute.arch.cluster_wait()


@cute.jit
def exchange(result: cute.Tensor, size: cutlass.Constexpr):
    kernel(result, size).launch(
        grid=(cute.size(result, mode=[0]), 1, 1), block=(THREADS, 1, 1), cluster=(size, 1, 1)
    )
