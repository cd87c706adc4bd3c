#!POPCORN leaderboard nvfp4_group_gemm
#!POPCORN gpu B200

"""Grouped NVFP4 GEMM for B200: C[g] = (A[g] * SFA[g]) @ (B[g] * SFB[g])^T, one launch for all groups.

A (M x K) holds the tokens, B (N x K) the weights, both e2m1 with one e4m3 scale per 16 values along K; C (M x N)
is fp16. A few hundred tokens meet large weights, so the job is to pull the weights out of DRAM once.

* Swapped operands: the weights are the M side of the MMA, the tokens its N side, so that a short M costs little.
* Two CTAs share one tcgen05.mma (cta_group::2, 256 weight rows x 128 tokens x K = 64): each CTA holds its own
  128 weight rows and half of the tokens, hence token traffic is halved.
* An output tile is 256 weight rows x 128 tokens, or x 256 tokens as two halves that share the weights in shared
  memory; a half with no token is neither loaded nor multiplied.
* Persistent, warp-specialised: warps 0-3 store tiles, warp 4 issues TMA loads, warp 5 issues MMAs. Each CTA pair
  walks its own tiles in a static order. A ring of stages (K = 256 each) joins load and MMA, a ring of tensor memory
  accumulators joins MMA and store.
* TMA descriptors for A, B, SFA, SFB of each group are encoded by the compiled host code on each call and travel as
  kernel parameters: no copies to the device, no allocation, no device-side descriptor update. M, N, K and pointers
  are run-time values; a kernel is compiled once per (number of groups, token halves).

"Row" below means a weight row (index along N), "token" a row of A (index along M).
"""

import ctypes
from dataclasses import dataclass
from functools import cache

import cutlass
import cutlass.cute as cute
import torch
from cutlass import Float4E2M1FN, Float8E4M3FN, Float16, Float32, Int16, Int32, Int64
from cutlass._mlir import ir
from cutlass._mlir.dialects import cute_nvgpu, llvm
from cutlass.cute.nvgpu import cpasync, tcgen05
from cutlass.cutlass_dsl import dsl_user_op
from cutlass.utils import SmemAllocator

# ---------------------------------------------------------------------------------------------------------------------
# Problem limits
# ---------------------------------------------------------------------------------------------------------------------

MAX_GROUPS = 32  # 4 descriptors x 128 B per group; kernel parameters end at 32,764 B
N_MULTIPLE = 8
K_MULTIPLE = 64

# ---------------------------------------------------------------------------------------------------------------------
# Tile geometry
# ---------------------------------------------------------------------------------------------------------------------

CTAS = 2  # CTAs of a cluster = CTAs of one MMA
MMA_K = 64  # elements of K per tcgen05.mma of 4-bit data
K_TILE = 256  # elements of K per stage: 128 B, the width of a SWIZZLE_128B row
K_BLOCKS = K_TILE // MMA_K
CTA_ROWS = 128  # weight rows per CTA = lanes of tensor memory
TILE_ROWS = CTAS * CTA_ROWS
HALF_TOKENS = 128  # tokens per MMA
CTA_TOKENS = HALF_TOKENS // CTAS  # tokens of a half whose data lie in one CTA

# Scale factors come in atoms of 128 rows x 64 elements of K: 128 x 4 bytes = 512 B, and the atoms of one
# block of 128 rows follow each other along K.
ATOM_ROWS = 128
ATOM_BYTES = ATOM_ROWS * (MMA_K // 16)

ROW_TILE_BYTES = CTA_ROWS * K_TILE // 2  # 16 KB
TOKEN_TILE_BYTES = CTA_TOKENS * K_TILE // 2  # 8 KB per half
SCALE_TILE_BYTES = K_BLOCKS * ATOM_BYTES  # 2 KB, of the CTA's rows or of one half's tokens

BARRIER_BYTES = 1024  # mbarriers and the tensor memory address, ahead of the stages
BARRIER_SIZE = 8
DESCRIPTOR_BYTES = 128
SMEM_PER_SM = 228 * 1024
SMEM_PER_CTA_RESERVED = 1024

# Tensor memory columns: an accumulator has one fp32 column per token, a scale tile 4 bytes per row and K block
# in 32 lanes, i.e. 4 columns per K block.
ACC_COLUMNS = HALF_TOKENS
SCALE_COLUMNS = K_BLOCKS * ATOM_BYTES // (32 * 4)
LOAD_COLUMNS = 32  # columns per tcgen05.ld

# ---------------------------------------------------------------------------------------------------------------------
# Warp roles
# ---------------------------------------------------------------------------------------------------------------------

STORE_WARPS = 4  # tcgen05.ld lets warp w read lanes 32w .. 32w+31
LOAD_WARP = 4
MMA_WARP = 5
THREADS = 32 * 6

# ---------------------------------------------------------------------------------------------------------------------
# Encodings of the hardware
# ---------------------------------------------------------------------------------------------------------------------

# L2 eviction policies (createpolicy encodings): weights are read once, tokens again by each column of tiles.
EVICT_FIRST = 0x12F0_0000_0000_0000
EVICT_LAST = 0x14F0_0000_0000_0000


def smem_descriptor(leading_bytes: int, stride_bytes: int, swizzle: int) -> int:
    """Constant part of a tcgen05 shared memory descriptor (PTX ISA, "Shared memory descriptor")."""
    return (leading_bytes >> 4) << 16 | (stride_bytes >> 4) << 32 | 1 << 46 | swizzle << 61


# K-major 4-bit operand, rows of 128 B, groups of 8 rows 1024 B apart, 128 B swizzle (leading offset unused)
OPERAND_DESCRIPTOR = smem_descriptor(16, 8 * K_TILE // 2, 2)
# Scale atom: 32 rows of 16 B, groups of 8 rows 128 B apart, no swizzle
SCALE_DESCRIPTOR = smem_descriptor(16, 8 * 16, 0)
# Steps of one K block in the address field, which counts 16 B
OPERAND_STEP = MMA_K // 2 >> 4
SCALE_STEP = ATOM_BYTES >> 4

# Instruction descriptor of kind::mxf4nvf4: e2m1 operands (bits 7 and 10), N >> 3 at bit 17, UE4M3 scales
# (bit 23 = 0), M >> 4 at bit 24.
MMA_DESCRIPTOR = 1 << 7 | 1 << 10 | (HALF_TOKENS >> 3) << 17 | (TILE_ROWS >> 4) << 24


@dataclass(frozen=True)
class Config:
    """What a kernel is compiled for. `halves` is the number of 128-token halves of a full tile (1 or 2)."""

    groups: int
    halves: int

    @property
    def stage_bytes(self) -> int:
        """Shared memory of one stage: rows | tokens of each half | row scales | token scales of each half."""
        return ROW_TILE_BYTES + SCALE_TILE_BYTES + self.halves * (TOKEN_TILE_BYTES + SCALE_TILE_BYTES)

    @property
    def stages(self) -> int:
        """Two halves: all of the SM (5 x 38 KB). One half: half of the SM (4 x 28 KB), so that the CTAs of the
        next launch, released early, find room beside those of this one."""
        ctas_per_sm = 1 if self.halves == 2 else 2
        return (SMEM_PER_SM // ctas_per_sm - SMEM_PER_CTA_RESERVED - BARRIER_BYTES) // self.stage_bytes

    @property
    def accumulators(self) -> int:
        """Two halves: three, so that the next tile starts while this one is stored. One half: the host picks it
        only when no CTA has a second tile."""
        return 3 if self.halves == 2 else 1

    @property
    def tmem_columns(self) -> int:
        """Power of two. Two halves: 3 x 128 + 16 + 2 x 16 -> 512; one half: 128 + 16 + 16 -> 256 (half the SM)."""
        used = self.accumulators * ACC_COLUMNS + (1 + self.halves) * SCALE_COLUMNS
        return 1 << (used - 1).bit_length()

    @property
    def smem_bytes(self) -> int:
        return BARRIER_BYTES + self.stages * self.stage_bytes


# ---------------------------------------------------------------------------------------------------------------------
# PTX that the DSL has no (efficient) form for. All of it is executed by one elected thread.
# ---------------------------------------------------------------------------------------------------------------------


def _ptx(text: str, constraints: str, operands: list, result: ir.Type | None = None, *, loc=None, ip=None):
    numbers = [Int32(operand) if isinstance(operand, int) else operand for operand in operands]
    values = [number.ir_value(loc=loc, ip=ip) for number in numbers]
    return llvm.inline_asm(
        result,
        values,
        text,
        constraints,
        has_side_effects=True,
        is_align_stack=False,
        asm_dialect=llvm.AsmDialect.AD_ATT,
        loc=loc,
        ip=ip,
    )


@dsl_user_op
def leader_address(address: Int32, *, loc=None, ip=None) -> Int32:
    """Address of the same shared memory location in the pair's even CTA, which issues the MMAs."""
    text = "mapa.shared::cluster.u32 $0, $1, 0;"
    return Int32(_ptx(text, "=r,r", [address], Int32.mlir_type, loc=loc, ip=ip))


@dsl_user_op
def prefetch_descriptor(descriptor: Int64, *, loc=None, ip=None) -> None:
    _ptx("prefetch.tensormap [$0];", "l", [descriptor], loc=loc, ip=ip)


@dsl_user_op
def tma_load_2d(smem, descriptor, x, y, barrier, policy, *, loc=None, ip=None) -> None:
    """Box at (x, y) -> this CTA's shared memory; completes bytes on `barrier` of the leader CTA."""
    _ptx(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.cta_group::2"
        ".L2::cache_hint [$0], [$1, {$2, $3}], [$4], $5;",
        "r,l,r,r,r,l",
        [smem, descriptor, x, y, barrier, Int64(policy)],
        loc=loc,
        ip=ip,
    )


@dsl_user_op
def tma_load_3d(smem, descriptor, x, y, z, barrier, policy, *, loc=None, ip=None) -> None:
    """As tma_load_2d for a box at (x, y, z)."""
    _ptx(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.cta_group::2"
        ".L2::cache_hint [$0], [$1, {$2, $3, $4}], [$5], $6;",
        "r,l,r,r,r,r,l",
        [smem, descriptor, x, y, z, barrier, Int64(policy)],
        loc=loc,
        ip=ip,
    )


@dsl_user_op
def tma_load_3d_both(smem, descriptor, x, y, z, barrier, policy, *, loc=None, ip=None) -> None:
    """As tma_load_3d, but the box lands in both CTAs of the pair; twice its bytes complete on the leader's barrier."""
    _ptx(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster"
        ".cta_group::2.L2::cache_hint [$0], [$1, {$2, $3, $4}], [$5], $6, $7;",
        "r,l,r,r,r,r,h,l",
        [smem, descriptor, x, y, z, barrier, Int16(0b11), Int64(policy)],
        loc=loc,
        ip=ip,
    )


@dsl_user_op
def copy_scales(columns: Int32, descriptor: Int64, *, loc=None, ip=None) -> None:
    """One scale atom, shared -> tensor memory of both CTAs: 4 columns, repeated in each quarter of the lanes."""
    _ptx("tcgen05.cp.cta_group::2.32x128b.warpx4 [$0], $1;", "r,l", [columns, descriptor], loc=loc, ip=ip)


@dsl_user_op
def multiply(acc, rows, tokens, row_scales, token_scales, accumulate, *, loc=None, ip=None) -> None:
    """256 rows x 128 tokens x K = 64 on both CTAs: acc = (accumulate ? acc : 0) + rows @ tokens^T, scaled."""
    _ptx(
        "{ .reg .pred p; setp.ne.b32 p, $6, 0;"
        " tcgen05.mma.cta_group::2.kind::mxf4nvf4.block_scale.scale_vec::4X [$0], $1, $2, $3, [$4], [$5], p; }",
        "r,l,l,r,r,r,r",
        [acc, rows, tokens, Int32(MMA_DESCRIPTOR), row_scales, token_scales, Int32(accumulate)],
        loc=loc,
        ip=ip,
    )


@dsl_user_op
def commit(barrier: Int32, *, loc=None, ip=None) -> None:
    """Arrive on `barrier` of both CTAs when all earlier copies and MMAs of this thread are complete."""
    _ptx(
        "tcgen05.commit.cta_group::2.mbarrier::arrive::one.shared::cluster.multicast::cluster.b64 [$0], $1;",
        "r,h",
        [barrier, Int16(0b11)],
        loc=loc,
        ip=ip,
    )


@dsl_user_op
def fence_after_wait(*, loc=None, ip=None) -> None:
    _ptx("tcgen05.fence::after_thread_sync;", "", [], loc=loc, ip=ip)


@dsl_user_op
def fence_before_arrive(*, loc=None, ip=None) -> None:
    _ptx("tcgen05.fence::before_thread_sync;", "", [], loc=loc, ip=ip)


@dsl_user_op
def descriptor_address(atom: cute.CopyAtom, *, loc=None, ip=None) -> Int64:
    """Generic address of a TMA descriptor that came as a kernel parameter."""
    pointer_type = ir.Type.parse("!cute.ptr<!cute_nvgpu.tma_descriptor_tiled, generic, align<128>>")
    executable = cute_nvgpu.atom_make_exec_tma(atom._trait.value, loc=loc, ip=ip)
    pointer = cute_nvgpu.get_tma_desc_addr(pointer_type, executable, loc=loc, ip=ip)
    return pointer.toint(loc=loc, ip=ip)


@dsl_user_op
def load_accumulator(address: Int32, *, loc=None, ip=None) -> list[Float32]:
    """32 columns (tokens) of the calling thread's lane (weight row); `address` = first column, lane of the warp."""
    count = LOAD_COLUMNS
    struct = ir.Type.parse(f"!llvm.struct<({', '.join(['f32'] * count)})>")
    registers = ", ".join(f"${i}" for i in range(count))
    text = f"tcgen05.ld.sync.aligned.32x32b.x{count}.b32 {{{registers}}}, [${count}]; tcgen05.wait::ld.sync.aligned;"
    result = _ptx(text, "=f," * count + "r", [address], struct, loc=loc, ip=ip)
    return [Float32(llvm.extractvalue(Float32.mlir_type, result, [i], loc=loc, ip=ip)) for i in range(count)]


# ---------------------------------------------------------------------------------------------------------------------
# Device: the walk over tiles
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """One group, as run-time kernel parameters. Its tiles are numbered from `first_tile`, token tiles fastest, so
    that pairs that need the same weights run side by side."""

    first_tile: Int32
    token_tiles: Int32
    k_tiles: Int32
    m: Int32
    n: Int32
    c: Int64


@dataclass(frozen=True)
class Tile:
    group: Int32
    row: Int32  # first weight row (column of C)
    token: Int32  # first token (row of C)
    halves: Int32  # 128-token halves that have a token
    k_tiles: Int32
    m: Int32
    n: Int32
    c: Int64


@cute.jit
def tile_index(wave: Int32):
    """Tile that this CTA pair takes in its `wave`-th turn. Groups come sorted by size, and every other wave runs
    backwards, which pairs long tiles with short ones."""
    pair = cute.arch.block_idx()[0] // CTAS
    pairs = cute.arch.grid_dim()[0] // CTAS
    turn = pair
    if wave % 2 == 1:
        turn = pairs - 1 - pair
    return wave * pairs + turn


@cute.jit
def count_tiles(total: Int32):
    """Number of tiles of this CTA pair: only the last wave can be incomplete."""
    pairs = cute.arch.grid_dim()[0] // CTAS
    waves = (total + pairs - 1) // pairs
    tiles = waves
    if tile_index(waves - 1) >= total:
        tiles = waves - 1
    return tiles


@cute.jit
def find_tile(config: cutlass.Constexpr, problems, index: Int32):
    group = Int32(0)
    first_tile, token_tiles, k_tiles, m, n, c = problems[0]
    for g in cutlass.range_constexpr(1, config.groups):
        if index >= problems[g][0]:
            group = Int32(g)
            first_tile, token_tiles, k_tiles, m, n, c = problems[g]
    row_tile = (index - first_tile) // token_tiles
    token_tile = (index - first_tile) - row_tile * token_tiles
    token = token_tile * (config.halves * HALF_TOKENS)
    halves = Int32(1)
    if cutlass.const_expr(config.halves == 2):
        if m - token > HALF_TOKENS:
            halves = Int32(2)
    return Tile(group, row_tile * TILE_ROWS, token, halves, k_tiles, m, n, c)


def advance(index: Int32, parity: Int32, size: int):
    """Next slot of a ring of `size` slots; the parity flips on each round."""
    if size == 1:
        return index, parity ^ 1
    wraps = Int32(index + 1 == size)
    return (index + 1) * (1 - wraps), parity ^ wraps


# ---------------------------------------------------------------------------------------------------------------------
# Device: the three roles
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Barriers:
    """mbarriers of one CTA. `full` and `acc_empty` are used in the leader CTA only, on behalf of both."""

    full: cute.Pointer  # [stages] the stage's bytes have landed in both CTAs: load -> MMA
    empty: cute.Pointer  # [stages] its MMAs are complete: MMA -> load
    acc_full: cute.Pointer  # [accumulators] the accumulator is complete: MMA -> store
    acc_empty: cute.Pointer  # [accumulators] it has been read by the store warps of both CTAs: store -> MMA


@cute.jit
def load_tiles(config: cutlass.Constexpr, problems, total: Int32, descriptors: Int64, barriers, stages, rank: Int32):
    """One thread per CTA: keep the ring of stages full. Each CTA loads its 128 rows and their scales, its 64 tokens
    of each half, and half of the token scales, which it multicasts to both CTAs."""
    full_of_leader = leader_address(barriers.full.toint())
    cute.arch.griddepcontrol_wait()

    stage, parity = Int32(0), Int32(1)
    for wave in cutlass.range(count_tiles(total), unroll=1):
        tile = find_tile(config, problems, tile_index(wave))
        row_map = descriptors + Int64(tile.group) * DESCRIPTOR_BYTES
        token_map = row_map + config.groups * DESCRIPTOR_BYTES
        row_scale_map = token_map + config.groups * DESCRIPTOR_BYTES
        token_scale_map = row_scale_map + config.groups * DESCRIPTOR_BYTES
        row = tile.row + rank * CTA_ROWS
        token = tile.token + rank * CTA_TOKENS
        half_bytes = CTAS * (TOKEN_TILE_BYTES + SCALE_TILE_BYTES)
        stage_bytes = CTAS * (ROW_TILE_BYTES + SCALE_TILE_BYTES) + tile.halves * half_bytes

        for k_tile in cutlass.range(tile.k_tiles, unroll=1):
            k, atom = k_tile * K_TILE, k_tile * K_BLOCKS
            cute.arch.mbarrier_wait(barriers.empty + stage, parity)
            if rank == 0:
                cute.arch.mbarrier_arrive_and_expect_tx(barriers.full + stage, stage_bytes)
            full = full_of_leader + stage * BARRIER_SIZE
            rows = stages + stage * config.stage_bytes
            tokens = rows + ROW_TILE_BYTES
            row_scales = tokens + config.halves * TOKEN_TILE_BYTES
            token_scales = row_scales + SCALE_TILE_BYTES

            tma_load_2d(rows, row_map, k, row, full, EVICT_FIRST)
            tma_load_3d(row_scales, row_scale_map, 0, atom, row // ATOM_ROWS, full, EVICT_FIRST)
            for half in cutlass.range_constexpr(config.halves):
                if half < tile.halves:
                    smem = tokens + half * TOKEN_TILE_BYTES
                    tma_load_2d(smem, token_map, k, token + half * HALF_TOKENS, full, EVICT_LAST)
                    smem = token_scales + half * SCALE_TILE_BYTES + rank * (SCALE_TILE_BYTES // CTAS)
                    atom_row = tile.token // ATOM_ROWS + half
                    my_atom = atom + rank * (K_BLOCKS // CTAS)
                    tma_load_3d_both(smem, token_scale_map, 0, my_atom, atom_row, full, EVICT_LAST)
            stage, parity = advance(stage, parity, config.stages)

    # Leave only when the MMAs that read this CTA's shared memory, and their arrivals on it, are done.
    for _ in cutlass.range_constexpr(config.stages):
        cute.arch.mbarrier_wait(barriers.empty + stage, parity)
        stage, parity = advance(stage, parity, config.stages)


@cute.jit
def issue_mmas(config: cutlass.Constexpr, problems, total: Int32, barriers, stages, tmem: Int32):
    """One thread per CTA pair: scales to tensor memory, then one MMA per K block and half."""
    row_scale_columns = tmem + config.accumulators * ACC_COLUMNS
    token_scale_columns = row_scale_columns + SCALE_COLUMNS
    stages_field = Int64((stages & 0x3FFFF) >> 4)  # CTA-local address in units of 16 B

    stage, parity = Int32(0), Int32(0)
    acc, acc_parity = Int32(0), Int32(1)
    for wave in cutlass.range(count_tiles(total), unroll=1):
        tile = find_tile(config, problems, tile_index(wave))
        accs = []
        for half in cutlass.range_constexpr(config.halves):
            accs.append(acc)
            if half < tile.halves:
                cute.arch.mbarrier_wait(barriers.acc_empty + acc, acc_parity)
                acc, acc_parity = advance(acc, acc_parity, config.accumulators)
        fence_after_wait()

        for k_tile in cutlass.range(tile.k_tiles, unroll=1):
            cute.arch.mbarrier_wait(barriers.full + stage, parity)
            rows = stages_field + Int64(stage * (config.stage_bytes >> 4))
            tokens = rows + (ROW_TILE_BYTES >> 4)
            row_scales = tokens + (config.halves * TOKEN_TILE_BYTES >> 4)
            token_scales = row_scales + (SCALE_TILE_BYTES >> 4)

            copy_scale_tile(row_scale_columns, row_scales)
            for half in cutlass.range_constexpr(config.halves):
                if half < tile.halves:
                    columns = token_scale_columns + half * SCALE_COLUMNS
                    copy_scale_tile(columns, token_scales + half * (SCALE_TILE_BYTES >> 4))
                    half_tokens = tokens + half * (TOKEN_TILE_BYTES >> 4)
                    for block in cutlass.range_constexpr(K_BLOCKS):
                        accumulate = 1
                        if cutlass.const_expr(block == 0):
                            accumulate = Int32(k_tile > 0)
                        multiply(
                            tmem + accs[half] * ACC_COLUMNS,
                            rows + (OPERAND_DESCRIPTOR + block * OPERAND_STEP),
                            half_tokens + (OPERAND_DESCRIPTOR + block * OPERAND_STEP),
                            row_scale_columns + block * (SCALE_COLUMNS // K_BLOCKS),
                            columns + block * (SCALE_COLUMNS // K_BLOCKS),
                            accumulate,
                        )
                    if k_tile == tile.k_tiles - 1:
                        commit((barriers.acc_full + accs[half]).toint())
            commit((barriers.empty + stage).toint())
            stage, parity = advance(stage, parity, config.stages)


def copy_scale_tile(columns: Int32, field: Int64) -> None:
    """Scales of 128 rows x K = 256: 2 KB of shared memory to 16 columns, atom by atom."""
    for block in range(K_BLOCKS):
        copy_scales(columns + block * (SCALE_COLUMNS // K_BLOCKS), field + (SCALE_DESCRIPTOR + block * SCALE_STEP))


@cute.jit
def store_tiles(config: cutlass.Constexpr, problems, total: Int32, barriers, tmem: Int32, rank: Int32):
    """Four warps per CTA: thread = weight row, register = token. A warp stores 32 neighbouring columns of one row of C
    (64 B) at a time."""
    warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
    lane = cute.arch.lane_idx()
    lanes = tmem + (warp * 32 << 16)  # tensor memory address: lane << 16 | column
    cute.arch.griddepcontrol_wait()

    acc, parity = Int32(0), Int32(0)
    for wave in cutlass.range(count_tiles(total), unroll=1):
        tile = find_tile(config, problems, tile_index(wave))
        row = tile.row + rank * CTA_ROWS + warp * 32 + lane
        c = cute.make_tensor(
            cute.make_ptr(Float16, tile.c, cute.AddressSpace.gmem, assumed_align=16),
            cute.make_layout((tile.m, tile.n), stride=(tile.n, 1)),
        )
        for half in cutlass.range(tile.halves, unroll=1):
            cute.arch.mbarrier_wait(barriers.acc_full + acc, parity)
            fence_after_wait()
            first = tile.token + half * HALF_TOKENS
            valid = cutlass.min(tile.m - first, HALF_TOKENS)
            for chunk in cutlass.range((valid + LOAD_COLUMNS - 1) // LOAD_COLUMNS, unroll=1):
                column = chunk * LOAD_COLUMNS
                values = load_accumulator(lanes + acc * ACC_COLUMNS + column)
                if row < tile.n:
                    for i in cutlass.range_constexpr(LOAD_COLUMNS):
                        if column + i < valid:
                            c[first + column + i, row] = values[i].to(Float16)
            fence_before_arrive()
            cute.arch.sync_warp()
            with cute.arch.elect_one():
                cute.arch.mbarrier_arrive(barriers.acc_empty + acc, 0)
            acc, parity = advance(acc, parity, config.accumulators)


@cute.kernel
def grouped_gemm(config: cutlass.Constexpr, maps, problems, total: Int32):
    warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
    rank = cute.arch.make_warp_uniform(cute.arch.block_idx_in_cluster())
    descriptors = descriptor_address(maps[0][0])

    # Shared memory: barriers, address of the tensor memory | stages, each rows | tokens | row scales | token scales
    smem = SmemAllocator().allocate(config.smem_bytes, 1024)
    stages = smem.toint() + BARRIER_BYTES
    full = cute.recast_ptr(smem, dtype=Int64)
    empty = full + config.stages
    acc_full = empty + config.stages
    acc_empty = acc_full + config.accumulators
    barriers = Barriers(full, empty, acc_full, acc_empty)
    tmem_slot = cute.recast_ptr(acc_empty + config.accumulators, dtype=Int32)

    # The next launch may start now; it waits for the end of this one before it touches global memory.
    cute.arch.griddepcontrol_launch_dependents()
    if warp == LOAD_WARP:
        with cute.arch.elect_one():
            for i in range(config.stages):
                cute.arch.mbarrier_init(full + i, 1)
                cute.arch.mbarrier_init(empty + i, 1)
            for i in range(config.accumulators):
                cute.arch.mbarrier_init(acc_full + i, 1)
                cute.arch.mbarrier_init(acc_empty + i, CTAS * STORE_WARPS)
            cute.arch.mbarrier_init_fence()
    if warp == MMA_WARP:
        cute.arch.alloc_tmem(config.tmem_columns, tmem_slot, is_two_cta=True)
        cute.arch.relinquish_tmem_alloc_permit(is_two_cta=True)
    cute.arch.cluster_arrive()
    cute.arch.cluster_wait()
    tmem = cute.arch.make_warp_uniform(tmem_slot[0])

    if warp == LOAD_WARP:
        with cute.arch.elect_one():
            load_tiles(config, problems, total, descriptors, barriers, stages, rank)
    if warp == MMA_WARP:
        if rank == 0:
            with cute.arch.elect_one():
                issue_mmas(config, problems, total, barriers, stages, tmem)
    if warp < STORE_WARPS:
        store_tiles(config, problems, total, barriers, tmem, rank)

    cute.arch.sync_warp()

    # Neither CTA of the pair may leave or free its tensor memory while the other still works on it.
    cute.arch.cluster_arrive()
    cute.arch.cluster_wait()
    if warp == MMA_WARP:
        pointer = cute.arch.retrieve_tmem_ptr(Float32, 16, tmem_slot)
        cute.arch.dealloc_tmem(pointer, config.tmem_columns, is_two_cta=True)


# ---------------------------------------------------------------------------------------------------------------------
# Compiled host code: descriptors and launch
# ---------------------------------------------------------------------------------------------------------------------


def encode_operand(address: Int64, rows: Int32, k: Int32, box_rows: int) -> cute.CopyAtom:
    """Descriptor of a row-major (rows x k) e2m1 matrix; box = box_rows x 256 elements (128 B), 128 B swizzle.
    Elements beyond `rows` or `k` load as zero."""
    pointer = cute.make_ptr(Float4E2M1FN, address, cute.AddressSpace.gmem, assumed_align=16)
    k = cute.assume(k, K_MULTIPLE)
    matrix = cute.make_tensor(pointer, cute.make_layout((rows, k), stride=(k, 1)))
    swizzled_rows = tcgen05.make_smem_layout_atom(tcgen05.SmemLayoutAtomKind.K_SW128, Float4E2M1FN)
    box = cute.tile_to_shape(swizzled_rows, (box_rows, K_TILE), (0, 1))
    operation = cpasync.CopyBulkTensorTileG2SOp(tcgen05.CtaGroup.TWO)
    atom, _ = cpasync.make_tiled_tma_atom(operation, matrix, box, (box_rows, K_TILE))
    return atom


def encode_scales(address: Int64, rows: Int32, k: Int32, box_atoms: int) -> cute.CopyAtom:
    """Descriptor of the scale factors of a (rows x k) matrix, seen as (512 B of an atom, atoms along K, atoms along
    the rows); box = box_atoms atoms along K. Atoms beyond the tensor load as zero."""
    pointer = cute.make_ptr(Int16, address, cute.AddressSpace.gmem, assumed_align=16)
    words = ATOM_BYTES // 2
    shape = (words, k // MMA_K, cute.ceil_div(rows, ATOM_ROWS))
    matrix = cute.make_tensor(pointer, cute.make_layout(shape, stride=(1, words, words * (k // MMA_K))))
    box = cute.make_layout((words, box_atoms, 1))
    operation = cpasync.CopyBulkTensorTileG2SOp(tcgen05.CtaGroup.TWO)
    atom, _ = cpasync.make_tiled_tma_atom(operation, matrix, box, (words, box_atoms, 1))
    return atom


class Arguments:
    """Run-time arguments of `launch`, in memory that is written anew on each call (JIT argument protocol of the DSL).

    numbers (int32): CTA pairs, then m, n, k of each group. addresses (int64): a, b, sfa, sfb, c of each group.
    """

    def __init__(self, groups: int) -> None:
        self.numbers = (ctypes.c_int32 * (1 + 3 * groups))()
        self.addresses = (ctypes.c_int64 * (5 * groups))()
        self._pointers = [
            ctypes.addressof(array) + i * ctypes.sizeof(array._type_)
            for array in (self.numbers, self.addresses)
            for i in range(len(array))
        ]

    def __c_pointers__(self) -> list[int]:
        return self._pointers

    def __get_mlir_types__(self) -> list[ir.Type]:
        return [Int32.mlir_type] * len(self.numbers) + [Int64.mlir_type] * len(self.addresses)

    def __new_from_mlir_values__(self, values: list[ir.Value]) -> tuple[list[Int32], list[Int64]]:
        split = len(self.numbers)
        return [Int32(value) for value in values[:split]], [Int64(value) for value in values[split:]]


@cute.jit
def launch(config: cutlass.Constexpr, arguments: Arguments):
    """Compiled host code: encode the descriptors of all groups and launch. Tiles are numbered group after group."""
    (pairs, *sizes), addresses = arguments
    row_maps, token_maps, row_scale_maps, token_scale_maps, problems = [], [], [], [], []
    total = Int32(0)
    for g in cutlass.range_constexpr(config.groups):
        m, n, k = sizes[3 * g : 3 * g + 3]
        a, b, sfa, sfb, c = addresses[5 * g : 5 * g + 5]
        row_maps.append(encode_operand(b, n, k, CTA_ROWS))
        token_maps.append(encode_operand(a, m, k, CTA_TOKENS))
        row_scale_maps.append(encode_scales(sfb, n, k, K_BLOCKS))
        token_scale_maps.append(encode_scales(sfa, m, k, K_BLOCKS // CTAS))
        token_tiles = cute.ceil_div(m, config.halves * HALF_TOKENS)
        problems.append((total, token_tiles, cute.ceil_div(k, K_TILE), m, n, c))
        total = total + token_tiles * cute.ceil_div(n, TILE_ROWS)
    maps = (tuple(row_maps), tuple(token_maps), tuple(row_scale_maps), tuple(token_scale_maps))
    grouped_gemm(config, maps, tuple(problems), total).launch(
        grid=(pairs * CTAS, 1, 1),
        block=(THREADS, 1, 1),
        cluster=(CTAS, 1, 1),
        use_pdl=True,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Python: checks, plan, call
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """How a list of problem sizes is run. Groups go by falling number of tokens, so that the small ones come last."""

    config: Config
    order: tuple[int, ...]
    numbers: tuple[int, ...]  # as in Arguments


def check_sizes(sizes: tuple[tuple[int, int, int, int], ...]) -> None:
    if not 1 <= len(sizes) <= MAX_GROUPS:
        raise ValueError(f"{len(sizes)} groups given; 1 to {MAX_GROUPS} groups are supported")
    for g, (m, n, k, l) in enumerate(sizes):
        supported = m >= 1 and n >= N_MULTIPLE and n % N_MULTIPLE == 0 and k >= K_MULTIPLE and k % K_MULTIPLE == 0
        if not supported or l != 1 or m * n >= 2**31 or max(m, n, k) >= 2**30:
            raise ValueError(
                f"group {g} has (M, N, K, L) = {(m, n, k, l)}; supported are M >= 1, N a multiple of {N_MULTIPLE}, "
                f"K a multiple of {K_MULTIPLE}, L = 1, with M * N < 2**31"
            )


@cache
def plan(sizes: tuple[tuple[int, int, int, int], ...], processors: int) -> Plan:
    """Tiles of 128 tokens if that gives each CTA pair at most one tile, else of 256 tokens. Fewest turns first, then
    as few pairs as need that many turns."""
    check_sizes(sizes)
    most_pairs = processors // CTAS

    def tiles(halves: int) -> int:
        return sum(-(-m // (halves * HALF_TOKENS)) * -(-n // TILE_ROWS) for m, n, _, _ in sizes)

    halves = 1 if tiles(1) <= most_pairs else 2
    turns = -(-tiles(halves) // most_pairs)
    pairs = -(-tiles(halves) // turns)
    order = tuple(sorted(range(len(sizes)), key=lambda g: -sizes[g][0]))
    numbers = (pairs, *(number for g in order for number in sizes[g][:3]))
    return Plan(Config(len(sizes), halves), order, numbers)


@cache
def compiled(config: Config) -> tuple[cutlass.base_dsl.jit_executor.JitCompiledFunction, Arguments]:
    arguments = Arguments(config.groups)
    return cute.compile(launch, config, arguments), arguments


@cache
def expected_tensors(m: int, n: int, k: int):
    """(dtype, shape, strides) of a, b, sfa, sfb, c of one group. Scales are viewed as (32, 4, blocks of 128 rows,
    4, blocks of 64 along K, 1) with the memory order of the atoms."""

    def scales(rows: int):
        atoms_k, atoms_rows = k // MMA_K, -(-rows // ATOM_ROWS)
        strides = (16, 4, ATOM_BYTES * atoms_k, 1, ATOM_BYTES, ATOM_BYTES * atoms_k * atoms_rows)
        return torch.float8_e4m3fn, (32, 4, atoms_rows, 4, atoms_k, 1), strides

    def matrix(dtype: torch.dtype, rows: int, columns: int):
        return dtype, (rows, columns, 1), (columns, 1, rows * columns)

    packed = torch.float4_e2m1fn_x2
    a, b, c = matrix(packed, m, k // 2), matrix(packed, n, k // 2), matrix(torch.float16, m, n)
    return a, b, scales(m), scales(n), c


def check_tensor(name: str, tensor: torch.Tensor, dtype: torch.dtype, shape: tuple, strides: tuple) -> None:
    same_strides = all(s == t for s, t, size in zip(tensor.stride(), strides, shape) if size > 1)
    if tensor.dtype == dtype and tensor.shape == shape and same_strides and tensor.is_cuda:
        if tensor.data_ptr() % 16 == 0:
            return
    raise ValueError(
        f"{name} is {tensor.dtype}, shape {tuple(tensor.shape)}, strides {tuple(tensor.stride())}, on {tensor.device}, "
        f"address % 16 = {tensor.data_ptr() % 16}; supported is {dtype}, shape {shape}, strides {strides}, "
        "on a CUDA device, address % 16 = 0"
    )


def custom_kernel(data):
    """Run the grouped GEMM on (abc, scales, reordered scales, problem sizes); returns the list of c, written in place.

    abc[g] = (a (m, k/2, 1), b (n, k/2, 1), both float4_e2m1fn_x2, c (m, n, 1) float16); reordered scales[g] =
    (sfa, sfb), float8_e4m3fn (32, 4, ceil(rows / 128), 4, k / 64, 1); problem sizes[g] = (m, n, k, 1).

    Raises:
        ValueError: the input is not of the supported sizes, types or layouts.
    """
    abc, _, scales, sizes = data
    if not len(abc) == len(scales) == len(sizes):
        raise ValueError(f"{len(abc)} (a, b, c), {len(scales)} (sfa, sfb), {len(sizes)} sizes; supported: equally many")
    todo = plan(tuple(map(tuple, sizes)), processor_count())
    addresses = []
    for g in todo.order:
        m, n, k, _ = sizes[g]
        (a, b, c), (sfa, sfb) = abc[g], scales[g]
        tensors = (a, b, sfa, sfb, c)
        for name, tensor, expected in zip(("a", "b", "sfa", "sfb", "c"), tensors, expected_tensors(m, n, k)):
            check_tensor(f"{name} of group {g}", tensor, *expected)
            addresses.append(tensor.data_ptr())

    function, arguments = compiled(todo.config)
    arguments.numbers[:] = todo.numbers
    arguments.addresses[:] = addresses
    function(arguments)
    return [c for _, _, c in abc]


@cache
def processor_count() -> int:
    return torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count
