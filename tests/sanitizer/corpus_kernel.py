"""One defect each in the kernel of `victim.py`, as edits of its source."""

from __future__ import annotations

from dataclasses import dataclass

# Two CTA pairs take five tiles between them; more K tiles than stages; tails in M, N and K.
CASE = {"m": [200, 40], "n": [264, 520], "k": [1600, 1280], "seed": 7}
SMS = 4


@dataclass(frozen=True)
class KernelDefect:
    """`find` occurs once in the source; `code` is what the sanitizer must say, under the default schedule or
    (`by_schedules`) under one of several."""

    name: str
    code: str
    find: str
    replace: str
    by_schedules: bool = False


EMPTY_WAIT = "            cute.arch.mbarrier_wait(barriers.empty + stage, parity)\n            if rank == 0:"
TAIL_WAIT = """    for _ in cutlass.range_constexpr(config.stages):
        cute.arch.mbarrier_wait(barriers.empty + stage, parity)
        stage, parity = next_slot(stage, parity, config.stages)
"""
END = """    cute.arch.sync_warp()
    cute.arch.cluster_arrive()
    cute.arch.cluster_wait()
    if warp == MMA_WARP:
        pointer"""

KERNEL_DEFECTS = [
    KernelDefect(
        "stage filled before it is free", "stage_overwritten", EMPTY_WAIT, "            if rank == 0:"
    ),
    KernelDefect(
        "operands used before they have landed",
        "load_not_awaited",
        "            cute.arch.mbarrier_wait(barriers.full + stage, parity)\n",
        "",
    ),
    KernelDefect(
        "accumulator reused before it is stored",
        "tmem_overwritten_while_loading",
        "                cute.arch.mbarrier_wait(barriers.acc_empty + acc, acc_parity)\n",
        "",
    ),
    KernelDefect(
        "accumulator read before it is complete",
        "tmem_before_commit",
        "            cute.arch.mbarrier_wait(barriers.acc_full + acc, parity)\n",
        "",
    ),
    KernelDefect(
        "accumulator committed after the first K tile",
        "tmem_before_commit",
        "if k_tile == tile.k_tiles - 1:",
        "if k_tile == 0:",
    ),
    KernelDefect(
        "no tcgen05.wait::ld", "wait_ld_missing", '    text += " tcgen05.wait::ld.sync.aligned;"\n', ""
    ),
    KernelDefect(
        "MMA of 112 of the 128 tokens that are stored",
        "uninitialised_tensor_memory",
        "1 << 10 | HALF_TOKENS // 8 << 17",
        "1 << 10 | (HALF_TOKENS - 16) // 8 << 17",
    ),
    KernelDefect("CTA leaves while commits are on their way", "peer_exited", TAIL_WAIT, ""),
    KernelDefect(
        "no barrier before the end",
        "tmem_freed_in_use",
        END,
        "    if warp == MMA_WARP:\n        pointer",
    ),
    KernelDefect(
        "expect_tx 16 bytes too many",
        "expect_tx_mismatch",
        "expected_bytes = CTAS * (ROW_TILE_BYTES + SCALE_TILE_BYTES)",
        "expected_bytes = 16 + CTAS * (ROW_TILE_BYTES + SCALE_TILE_BYTES)",
    ),
    KernelDefect(
        "expect_tx 16 bytes too few",
        "expect_tx_mismatch",
        "expected_bytes = CTAS * (ROW_TILE_BYTES + SCALE_TILE_BYTES)",
        "expected_bytes = -16 + CTAS * (ROW_TILE_BYTES + SCALE_TILE_BYTES)",
    ),
    KernelDefect(
        "stage never given back", "deadlock", "            commit((barriers.empty + stage).toint())\n", ""
    ),
    KernelDefect(
        "arrival count of one CTA instead of two",
        "phase_skipped",
        "mbarrier_init(acc_empty + i, CTAS * STORE_WARPS)",
        "mbarrier_init(acc_empty + i, STORE_WARPS)",
    ),
    KernelDefect(
        "arrival count never reached",
        "deadlock",
        "mbarrier_init(acc_empty + i, CTAS * STORE_WARPS)",
        "mbarrier_init(acc_empty + i, CTAS * STORE_WARPS + 1)",
    ),
    KernelDefect(
        "producer starts with the wrong parity",
        "deadlock",
        "    stage, parity = Int32(0), Int32(1)\n",
        "    stage, parity = Int32(0), Int32(0)\n",
    ),
    KernelDefect(
        "consumer starts with the wrong parity",
        "load_not_awaited",
        "    stage, parity = Int32(0), Int32(0)\n    acc, acc_parity",
        "    stage, parity = Int32(0), Int32(1)\n    acc, acc_parity",
    ),
    KernelDefect(
        "store starts with the wrong parity",
        "tmem_before_commit",
        "    acc, parity = Int32(0), Int32(0)\n",
        "    acc, parity = Int32(0), Int32(1)\n",
    ),
    KernelDefect(
        "initialisation of mbarriers not fenced, and a relaxed cluster barrier",
        "mbarrier_init_not_fenced",
        "            cute.arch.mbarrier_init_fence()\n"
        "            prefetch_descriptors(config, work, descriptors)\n"
        "    if warp == MMA_WARP:\n"
        "        cute.arch.alloc_tmem(config.tmem_columns, tmem_slot, is_two_cta=True)\n"
        "        cute.arch.relinquish_tmem_alloc_permit(is_two_cta=True)\n"
        "    cute.arch.sync_warp()\n"
        "    cute.arch.cluster_arrive()\n",
        "            prefetch_descriptors(config, work, descriptors)\n"
        "    if warp == MMA_WARP:\n"
        "        cute.arch.alloc_tmem(config.tmem_columns, tmem_slot, is_two_cta=True)\n"
        "        cute.arch.relinquish_tmem_alloc_permit(is_two_cta=True)\n"
        "    cute.arch.sync_warp()\n"
        "    cute.arch.cluster_arrive_relaxed()\n",
    ),
    KernelDefect(
        "no barrier after the initialisation",
        "mbarrier_uninitialised",
        "    cute.arch.cluster_arrive()\n    cute.arch.cluster_wait()\n    tmem = ",
        "    tmem = ",
    ),
    KernelDefect(
        "tensor memory not freed",
        "tmem_leak",
        "        cute.arch.dealloc_tmem(pointer, config.tmem_columns, is_two_cta=True)",
        "        pass",
    ),
    KernelDefect(
        "accumulator not cleared",
        "uninitialised_tensor_memory",
        "accumulate = Int32(k_tile > 0)",
        "accumulate = Int32(1)",
    ),
    KernelDefect(
        "wrong swizzle in the operand descriptor",
        "swizzle_mismatch",
        "VALUES_DESCRIPTOR = smem_descriptor(16, 8 * K_TILE // 2, 2)",
        "VALUES_DESCRIPTOR = smem_descriptor(16, 8 * K_TILE // 2, 4)",
    ),
    KernelDefect(
        "instruction descriptor for half the tokens",
        "tile_partly_unread",
        "MMA_DESCRIPTOR = 1 << 7 | 1 << 10 | HALF_TOKENS // 8 << 17",
        "MMA_DESCRIPTOR = 1 << 7 | 1 << 10 | HALF_TOKENS // 16 << 17",
    ),
    KernelDefect(
        "half the step along K",
        "tile_partly_unread",
        "VALUES_STEP = smem_field(MMA_K // 2)",
        "VALUES_STEP = smem_field(MMA_K // 4)",
    ),
    KernelDefect(
        "same scale atom for every K block",
        "tile_partly_unread",
        "SCALES_STEP = smem_field(ATOM_BYTES)",
        "SCALES_STEP = 0",
    ),
    KernelDefect(
        "inputs loaded before the predecessor has ended",
        "input_before_dependency",
        "    kind_bytes = config.groups * DESCRIPTOR_BYTES\n    cute.arch.griddepcontrol_wait()\n",
        "    kind_bytes = config.groups * DESCRIPTOR_BYTES\n",
    ),
    KernelDefect(
        "every lane issues the MMAs",
        "issued_by_many_lanes",
        "        with cute.arch.elect_one():\n            issue_mmas(",
        "        if True:\n            issue_mmas(",
    ),
    KernelDefect(
        "two CTA pairs take the same tiles",
        "global_race",
        "    place = cute.arch.block_idx()[0] // CTAS\n",
        "    place = cute.arch.block_idx()[0] // CTAS * 0\n",
    ),
    KernelDefect(
        "half the tensor memory",
        "tmem_outside_allocation",
        "cute.arch.alloc_tmem(config.tmem_columns, tmem_slot, is_two_cta=True)",
        "cute.arch.alloc_tmem(config.tmem_columns // 4, tmem_slot, is_two_cta=True)",
    ),
    KernelDefect(
        "every warp reads the lanes of warp 0",
        "tmem_access_illegal",
        "lanes = tmem + (warp * 32 << 16)",
        "lanes = tmem + (warp * 0 << 16)",
    ),
    KernelDefect(
        "scales loaded onto the tokens",
        "load_overwritten",
        "            row_scales = tokens + config.halves * TOKEN_TILE_BYTES\n",
        "            row_scales = tokens\n",
    ),
    KernelDefect(
        "stages of the MMA lie elsewhere than those of the loads",
        "tile_partly_unread",
        "rows = stages_field + Int64(stage) * smem_field(config.stage_bytes)",
        "rows = stages_field + Int64(stage) * smem_field(config.stage_bytes - 8192)",
    ),
    KernelDefect(
        "bytes complete on the own barrier, not the leader's",
        "expect_tx_mismatch",
        "    leader_full = leader_address(barriers.full.toint())\n",
        "    leader_full = barriers.full.toint()\n",
    ),
    KernelDefect(
        "start coordinate off the 16-byte grid",
        "tma_argument",
        "tma_load(rows, row_map, (k, row), full, EVICT_FIRST)",
        "tma_load(rows, row_map, (k + 8, row), full, EVICT_FIRST)",
    ),
    KernelDefect(
        "tiles off their swizzle atom",
        "swizzle_atom_misaligned",
        "HEADER_BYTES = 1024 ",
        "HEADER_BYTES = 1024 + 128 ",
    ),
    KernelDefect(
        "too little shared memory",
        "shared_out_of_bounds",
        "        smem=config.smem_bytes,\n",
        "        smem=config.smem_bytes - 8192,\n",
    ),
    KernelDefect(
        "no tcgen05.fence after the wait",
        "tcgen05_fence_missing",
        "                acc, acc_parity = next_slot(acc, acc_parity, config.accumulators)\n"
        '        fence("after")\n',
        "                acc, acc_parity = next_slot(acc, acc_parity, config.accumulators)\n",
    ),
]
