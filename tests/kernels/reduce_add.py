"""Every CTA fills a tile with its number and adds it to the output by a TMA reduction.

`total` is (rows, columns) fp32 and need not be a multiple of the 32x32 tile: what sticks out is dropped.
"""

import cutlass
import cutlass.cute as cute
from cutlass.cute.nvgpu import cpasync

TILE = 32


@cute.kernel
def kernel(reduction: cute.CopyAtom, total: cute.Tensor):
    thread, _, _ = cute.arch.thread_idx()
    column, row, layer = cute.arch.block_idx()
    smem = cutlass.utils.SmemAllocator()
    layout = cute.make_layout((TILE, TILE), stride=(TILE, 1))
    buffer = smem.allocate_tensor(cutlass.Float32, layout, 128)
    for i in cutlass.range(TILE):
        buffer[i, thread] = cutlass.Float32(layer + 1) * cutlass.Float32(i * TILE + thread)
    cute.arch.fence_proxy("async.shared", space="cta")
    cute.arch.sync_warp()
    tile = cute.local_tile(total, (TILE, TILE), (row, column))
    origin, to = cpasync.tma_partition(
        reduction, 0, cute.make_layout(1), cute.group_modes(buffer, 0, 2), cute.group_modes(tile, 0, 2)
    )
    cute.copy(reduction, origin, to)
    cute.arch.cp_async_bulk_commit_group()
    cute.arch.cp_async_bulk_wait_group(0)


@cute.jit
def add(total: cute.Tensor, layers: cutlass.Int32):
    reduction, tiles = cpasync.make_tiled_tma_atom(
        cpasync.CopyReduceBulkTensorTileS2GOp(),
        total,
        cute.make_layout((TILE, TILE), stride=(TILE, 1)),
        (TILE, TILE),
    )
    rows, columns = total.shape
    kernel(reduction, tiles).launch(
        grid=(cute.ceil_div(columns, TILE), cute.ceil_div(rows, TILE), layers), block=(32, 1, 1)
    )
