"""Two CTAs of a cluster each load half of a tile into both (TMA multicast), then each stores the whole tile.

`source` is (tiles * 64, 64) fp16, row-major; `copies` is (2, tiles * 64, 64): copy r is what CTA r stored.
"""

import cutlass
import cutlass.cute as cute
from cutlass.cute.nvgpu import cpasync

ROWS, COLUMNS = 64, 64
BYTES = ROWS * COLUMNS * 2


@cute.kernel
def kernel(load: cute.CopyAtom, source: cute.Tensor, store: cute.CopyAtom, copies: cute.Tensor):
    tile = cute.arch.block_idx()[1]
    rank = cute.arch.make_warp_uniform(cute.arch.block_idx_in_cluster())
    warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
    smem = cutlass.utils.SmemAllocator()
    barrier = smem.allocate_array(cutlass.Int64, 1)
    buffer = smem.allocate_tensor(
        cutlass.Float16, cute.make_layout((ROWS, COLUMNS), stride=(COLUMNS, 1)), 1024
    )

    if warp == 0:
        with cute.arch.elect_one():
            cute.arch.mbarrier_init(barrier, 1)
            cute.arch.mbarrier_init_fence()
    cute.arch.cluster_arrive()
    cute.arch.cluster_wait()
    if warp == 0:
        with cute.arch.elect_one():
            cute.arch.mbarrier_arrive_and_expect_tx(barrier, BYTES)
        half_buffer = cute.local_tile(buffer, (ROWS // 2, COLUMNS), (rank, 0))
        half_source = cute.local_tile(source, (ROWS // 2, COLUMNS), (2 * tile + rank, 0))
        to, origin = cpasync.tma_partition(
            load,
            0,
            cute.make_layout(1),
            cute.group_modes(half_buffer, 0, 2),
            cute.group_modes(half_source, 0, 2),
        )
        cute.copy(load, origin, to, tma_bar_ptr=barrier, mcast_mask=cutlass.Int16(3))
        cute.arch.mbarrier_wait(barrier, 0)
        whole = cute.local_tile(copies, (ROWS, COLUMNS, 1), (tile, 0, rank))
        origin, to = cpasync.tma_partition(
            store, 0, cute.make_layout(1), cute.group_modes(buffer, 0, 2), cute.group_modes(whole, 0, 3)
        )
        cute.copy(store, origin, to)
        cute.arch.cp_async_bulk_commit_group()
        cute.arch.cp_async_bulk_wait_group(0, read=True)
    cute.arch.cluster_arrive()
    cute.arch.cluster_wait()


@cute.jit
def copy(source: cute.Tensor, copies: cute.Tensor):
    row_major = cute.make_layout((ROWS, COLUMNS), stride=(COLUMNS, 1))
    half = cute.make_layout((ROWS // 2, COLUMNS), stride=(COLUMNS, 1))
    load, source = cpasync.make_tiled_tma_atom(
        cpasync.CopyBulkTensorTileG2SMulticastOp(), source, half, (ROWS // 2, COLUMNS)
    )
    store, copies = cpasync.make_tiled_tma_atom(
        cpasync.CopyBulkTensorTileS2GOp(), copies, row_major, (ROWS, COLUMNS)
    )
    tiles = cute.size(source, mode=[0]) // ROWS
    kernel(load, source, store, copies).launch(grid=(2, tiles, 1), block=(64, 1, 1), cluster=(2, 1, 1))
