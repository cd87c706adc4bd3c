#!POPCORN leaderboard nvfp4_group_gemm
#!POPCORN gpu B200

"""Grouped NVFP4 GEMM for B200: C[g] = (A[g] * SFA[g]) @ (B[g] * SFB[g])^T, all groups in one launch.

A (M x K) holds tokens, B (N x K) weights, both e2m1 with one e4m3 scale per 16 values along K; C (M x N) is
fp16. A few hundred tokens meet large weights: the job is to pull the weights out of DRAM, once.

* Swapped operands: the weights are the M side of the MMA, the tokens its N side, so a short M wastes little.
* Two CTAs share each MMA (cta_group::2: 256 weight rows x 128 tokens x 64 of K). A CTA holds its own 128
  weight rows but only half of the tokens.
* An output tile is 256 weight rows x 128 tokens, or x 256 tokens as two halves that share the weights in
  shared memory. A half without a token is neither loaded nor multiplied; the MMAs of a group's last half are
  only as wide as its tokens, rounded up to 16, and the two CTAs share these tokens evenly.
* Persistent and warp-specialised: each CTA pair walks its tiles in a static order; in each CTA one thread of
  warp 8 loads (TMA), in the leader CTA one thread of warp 9 issues the MMAs, warps 0-7 store.

      global --TMA--> stages in shared memory --MMA--> accumulators in tensor memory --ld, st--> global
                 ^ full / empty barriers ^        ^ acc_full / acc_empty barriers ^

* Launches overlap: CTAs of the next one come in, onto idle SMs or, where tiles are single, beside running
  CTAs, set themselves up, and wait for the end of this one before they touch global memory.
* TMA descriptors are encoded by the compiled host code on each call and are kernel parameters: nothing is
  copied to the device, allocated, or updated on the device. M, N, K and pointers are run-time values; a
  kernel is compiled once per (number of groups, tokens per tile).

In this file "row" is a weight row (index along N), "token" a row of A (index along M).
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cutlass
import cutlass.cute as cute
import torch
from cutlass import Float4E2M1FN, Float32, Int16, Int32, Int64
from cutlass._mlir import ir
from cutlass._mlir.dialects import cute_nvgpu, llvm
from cutlass.cute.nvgpu import cpasync, tcgen05
from cutlass.cutlass_dsl import dsl_user_op

# ---- What is supported -------------------------------------------------------------------------------------

MAX_GROUPS = 32  # kernel parameters: 5 descriptors x 128 B and 6 numbers per group
N_MULTIPLE = 8  # 16 B in a row of C
K_MULTIPLE = 64  # a whole scale atom
SIZE_LIMIT = 2**30  # of M, N, K: 32-bit indices

# ---- Tile geometry -----------------------------------------------------------------------------------------

CTAS = 2  # CTAs of a cluster = CTAs of an MMA
CTA_ROWS = 128  # weight rows of a CTA = lanes of tensor memory
TILE_ROWS = CTAS * CTA_ROWS
HALF_TOKENS = 128  # tokens of an MMA
CTA_TOKENS = HALF_TOKENS // CTAS  # of these, tokens whose values lie in one CTA
TOKEN_STEP = 16  # an MMA of two CTAs takes a multiple of 16 tokens
MMA_K = 64
K_TILE = 256  # elements of K per stage: rows of 128 B, as wide as the 128 B swizzle
K_BLOCKS = K_TILE // MMA_K

# A scale atom is 128 rows (or tokens) x 64 of K = 128 x 4 scales. Atoms of one block of 128 rows follow each
# other along K. Inside: byte 16 * (row % 32) + 4 * (row / 32) + scale.
ATOM_ROWS = 128
ATOM_BYTES = ATOM_ROWS * MMA_K // 16

# Shared memory of a stage: rows | tokens of each half | scales of the rows | scales of each half's tokens
ROW_TILE_BYTES = CTA_ROWS * K_TILE // 2  # 16 KB, 128 B per row, swizzled
TOKEN_TILE_BYTES = CTA_TOKENS * K_TILE // 2  # 8 KB, likewise
SCALE_TILE_BYTES = K_BLOCKS * ATOM_BYTES  # 2 KB, of 128 rows or tokens

BARRIER_BYTES = 8
HEADER_BYTES = 1024  # mbarriers and the tensor memory address, ahead of the stages
SMEM_PER_SM = 228 * 1024
SMEM_RESERVED_PER_CTA = 1024
# A kernel of single tiles takes half an SM, so that the next launch is set up beside it. With 1 it has 8
# stages instead of 4, and the next launch is set up only as its CTAs leave.
SINGLE_TILE_CTAS_PER_SM = 2

# Tensor memory columns: accumulators (lane = row, column = token, fp32), scales of the rows, scales of each
# half's tokens (128 x 4 per K block are 32 lanes x 16 B, i.e. 4 columns).
ACC_COLUMNS = HALF_TOKENS
ATOM_COLUMNS = ATOM_BYTES // 32 // 4
SCALE_COLUMNS = K_BLOCKS * ATOM_COLUMNS
LOAD_COLUMNS = 32  # accumulator columns per tcgen05.ld

# ---- Warp roles --------------------------------------------------------------------------------------------

LANE_QUARTERS = 4  # warp w can read lanes 32 (w % 4) .. 32 (w % 4) + 31 of tensor memory
STORE_WARPS = 8  # two per quarter, which take turns along the tokens
LOAD_WARP = STORE_WARPS
MMA_WARP = STORE_WARPS + 1
THREADS = 32 * (STORE_WARPS + 2)

# ---- Encodings of the hardware -----------------------------------------------------------------------------

DESCRIPTOR_BYTES = 128  # of a TMA descriptor
BOTH_CTAS = 0b11  # multicast mask

# L2 eviction policies: a weight is read once, a token again by each column of tiles.
EVICT_FIRST = 0x12F0_0000_0000_0000
EVICT_LAST = 0x14F0_0000_0000_0000


def smem_field(nbytes: int) -> int:
    """Bytes in the unit of shared memory descriptors, 16 B."""
    return nbytes >> 4


def smem_descriptor(leading_bytes: int, stride_bytes: int, swizzle: int) -> int:
    """tcgen05 shared memory descriptor without its start address (PTX ISA, tcgen05 matrix descriptor)."""
    return smem_field(leading_bytes) << 16 | smem_field(stride_bytes) << 32 | 1 << 46 | swizzle << 61


# K-major values: groups of 8 rows are 1024 B apart, 128 B swizzle (the leading offset is unused)
VALUES_DESCRIPTOR = smem_descriptor(16, 8 * K_TILE // 2, 2)
VALUES_STEP = smem_field(MMA_K // 2)  # to the next K block
# Scale atom as 32 rows of 16 B, groups of 8 rows 128 B apart, no swizzle
SCALES_DESCRIPTOR = smem_descriptor(16, 8 * 16, 0)
SCALES_STEP = smem_field(ATOM_BYTES)

# Instruction descriptor of kind::mxf4nvf4: e2m1 values (bits 7 and 10), N / 8 from bit 17 (added at run
# time), UE4M3 scales (bit 23 = 0), M / 16 from bit 24
MMA_DESCRIPTOR = 1 << 7 | 1 << 10 | TILE_ROWS // 16 << 24


@dataclass(frozen=True)
class Config:
    """What a kernel is compiled for. `halves` is the number of 128-token halves of a full tile, 1 or 2.

    One half: the host picks it when no CTA pair has a second tile. It takes half of the tensor memory.
    """

    groups: int
    halves: int

    @property
    def ctas_per_sm(self) -> int:
        return SINGLE_TILE_CTAS_PER_SM if self.halves == 1 else 1

    @property
    def stage_bytes(self) -> int:
        """28 KB or 38 KB."""
        return ROW_TILE_BYTES + SCALE_TILE_BYTES + self.halves * (TOKEN_TILE_BYTES + SCALE_TILE_BYTES)

    @property
    def stages(self) -> int:
        """4 of 28 KB in half an SM, or 5 of 38 KB."""
        smem = SMEM_PER_SM // self.ctas_per_sm - SMEM_RESERVED_PER_CTA - HEADER_BYTES
        return smem // self.stage_bytes

    @property
    def accumulators(self) -> int:
        """Each for one half. With 3, the next tile starts while this one is stored."""
        return 1 if self.halves == 1 else 3

    @property
    def tmem_columns(self) -> int:
        """128 + 16 + 16 or 3 * 128 + 16 + 2 * 16, rounded up to a power of two: 256 or 512."""
        used = self.accumulators * ACC_COLUMNS + (1 + self.halves) * SCALE_COLUMNS
        return 1 << (used - 1).bit_length()

    @property
    def smem_bytes(self) -> int:
        return HEADER_BYTES + self.stages * self.stage_bytes


# ---- PTX for which the DSL has no form, or one with an election per instruction ----------------------------
# For one elected thread unless said otherwise.


def ptx(text: str, constraints: str, operands=(), result: ir.Type | None = None, *, loc=None, ip=None):
    """Inline `text`. Constraints as in LLVM: h, r, l, f for 16, 32, 64 bit and float, "=" for results."""
    numbers = [Int32(operand) if isinstance(operand, int) else operand for operand in operands]
    values = [number.ir_value(loc=loc, ip=ip) for number in numbers]
    return llvm.inline_asm(result, values, text, constraints, has_side_effects=True, loc=loc, ip=ip)


@dsl_user_op
def leader_address(address: Int32, *, loc=None, ip=None) -> Int32:
    """The same place in the shared memory of the pair's leader CTA (rank 0), which issues the MMAs."""
    text = "mapa.shared::cluster.u32 $0, $1, 0;"
    return Int32(ptx(text, "=r,r", [address], Int32.mlir_type, loc=loc, ip=ip))


@dsl_user_op
def descriptor_address(atom: cute.CopyAtom, *, loc=None, ip=None) -> Int64:
    """Generic address of a TMA descriptor that is a kernel parameter."""
    pointer = ir.Type.parse("!cute.ptr<!cute_nvgpu.tma_descriptor_tiled, generic, align<128>>")
    executable = cute_nvgpu.atom_make_exec_tma(atom._trait.value, loc=loc, ip=ip)
    return cute_nvgpu.get_tma_desc_addr(pointer, executable, loc=loc, ip=ip).toint(loc=loc, ip=ip)


@dsl_user_op
def prefetch_descriptor(descriptor: Int64, *, loc=None, ip=None) -> None:
    ptx("prefetch.tensormap [$0];", "l", [descriptor], loc=loc, ip=ip)


@dsl_user_op
def tma_load(smem, descriptor, coordinates, barrier, policy, multicast=False, *, loc=None, ip=None) -> None:
    """Load the box at `coordinates` into this CTA's shared memory, or with `multicast` into both CTAs'. The
    bytes, of each destination, complete on `barrier` in the leader CTA."""
    rank = len(coordinates)
    box = ", ".join(f"${3 + i}" for i in range(rank))
    text = (
        f"cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        f"{'.multicast::cluster' if multicast else ''}.cta_group::2.L2::cache_hint"
        f" [$0], [$1, {{{box}}}], [$2], {f'${4 + rank}, ' if multicast else ''}${3 + rank};"
    )
    constraints = "r,l,r," + "r," * rank + ("l,h" if multicast else "l")
    operands = [smem, descriptor, barrier, *coordinates, Int64(policy)]
    ptx(text, constraints, operands + ([Int16(BOTH_CTAS)] if multicast else []), loc=loc, ip=ip)


@dsl_user_op
def copy_scales(columns: Int32, descriptor: Int64, *, loc=None, ip=None) -> None:
    """A scale atom from shared to tensor memory, in both CTAs: 4 columns of 32 lanes, in each quarter of the
    lanes."""
    ptx("tcgen05.cp.cta_group::2.32x128b.warpx4 [$0], $1;", "r,l", [columns, descriptor], loc=loc, ip=ip)


@dsl_user_op
def multiply(
    kind, acc, rows, tokens, row_scales, token_scales, accumulate, when=1, reuse="", *, loc=None, ip=None
) -> None:
    """If `when`: 256 rows x up to 128 tokens x 64 of K, acc = (accumulate ? acc : 0) + rows @ tokens^T, with
    scales. `kind` is the instruction descriptor; `reuse` says what the collector buffer, which holds the rows
    of one MMA, is used for: "fill" it or take from it for the last time ("lastuse")."""
    collector = f".collector::a::{reuse}" if reuse else ""
    text = (
        "{ .reg .pred p, q; setp.ne.b32 p, $6, 0; setp.ne.b32 q, $7, 0; @q tcgen05.mma.cta_group::2"
        f".kind::mxf4nvf4.block_scale.scale_vec::4X{collector} [$0], $1, $2, $3, [$4], [$5], p; }}"
    )
    operands = [acc, rows, tokens, kind, row_scales, token_scales, accumulate, when]
    ptx(text, "r,l,l,r,r,r,r,r", operands, loc=loc, ip=ip)


@dsl_user_op
def commit(barrier: Int32, *, loc=None, ip=None) -> None:
    """Arrive at `barrier` in both CTAs when all copies and MMAs this thread has issued are complete."""
    text = (
        "tcgen05.commit.cta_group::2.mbarrier::arrive::one.shared::cluster.multicast::cluster.b64 [$0], $1;"
    )
    ptx(text, "r,h", [barrier, Int16(BOTH_CTAS)], loc=loc, ip=ip)


@dsl_user_op
def fence(when: str, *, loc=None, ip=None) -> None:
    """Any thread: tensor memory accesses stay "after" the wait above or "before" the arrival below."""
    ptx(f"tcgen05.fence::{when}_thread_sync;", "", loc=loc, ip=ip)


@dsl_user_op
def load_accumulator(address: Int32, *, loc=None, ip=None) -> list[Float32]:
    """Whole warp: 32 accumulator columns (tokens) of the thread's lane (row). The address is the warp's first
    lane and the first column."""
    floats = LOAD_COLUMNS
    registers = ", ".join(f"${i}" for i in range(floats))
    text = f"tcgen05.ld.sync.aligned.32x32b.x{floats}.b32 {{{registers}}}, [${floats}];"
    text += " tcgen05.wait::ld.sync.aligned;"
    struct = ir.Type.parse(f"!llvm.struct<({', '.join(['f32'] * floats)})>")
    result = ptx(text, "=f," * floats + "r", [address], struct, loc=loc, ip=ip)
    return [Float32(llvm.extractvalue(Float32.mlir_type, result, [i], loc=loc, ip=ip)) for i in range(floats)]


@dsl_user_op
def pack_fp16(low: Float32, high: Float32, *, loc=None, ip=None) -> Int32:
    """Any thread: two values rounded to fp16, `low` in the lower half."""
    operands = [high, low]
    return Int32(ptx("cvt.rn.f16x2.f32 $0, $1, $2;", "=r,f,f", operands, Int32.mlir_type, loc=loc, ip=ip))


@dsl_user_op
def permute_bytes(a: Int32, b: Int32, selector: Int32, *, loc=None, ip=None) -> Int32:
    """Any thread: byte i of the result is byte (nibble i of the selector) of b : a."""
    operands = [a, b, selector]
    return Int32(ptx("prmt.b32 $0, $1, $2, $3;", "=r,r,r,r", operands, Int32.mlir_type, loc=loc, ip=ip))


@dsl_user_op
def store_if_more(count: Int32, than: int, address: Int64, value: Int32, *, loc=None, ip=None) -> None:
    """Any thread: store 4 B if count > than."""
    text = f"{{ .reg .pred p; setp.gt.s32 p, $0, {than}; @p st.global.b32 [$1], $2; }}"
    ptx(text, "r,l,r", [count, address, value], loc=loc, ip=ip)


# ---- Device: the walk over tiles ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """All tiles of the launch. problems[g] = (first tile, tiles along the tokens, K tiles, M, N, address of
    C) of group g. Tiles are numbered group after group, along the tokens first, so that those that share
    weights run side by side. `turns` is the number of tiles of a CTA pair, or of some pairs one less."""

    problems: tuple
    tiles: Int32
    turns: Int32


@dataclass(frozen=True)
class Tile:
    group: Int32
    row: Int32  # its first row (column of C)
    token: Int32  # its first token (row of C)
    halves: Int32  # halves with a token
    last_tokens: Int32  # of the last of these, rounded up to 16; one before it is full
    k_tiles: Int32
    m: Int32
    n: Int32
    c: Int64


@cute.jit
def tile_index(turn: Int32):
    """The tile this CTA pair takes in its `turn`-th turn. Groups come sorted by falling M and every other
    turn runs backwards, which gives a pair with a long tile a short one next."""
    pairs = cute.arch.grid_dim()[0] // CTAS
    place = cute.arch.block_idx()[0] // CTAS
    if turn % 2 == 1:
        place = pairs - 1 - place
    return turn * pairs + place


@cute.jit
def count_turns(work: Work):
    """Number of tiles of this CTA pair: only the last turn can lack tiles."""
    turns = work.turns
    if tile_index(turns - 1) >= work.tiles:
        turns -= 1
    return turns


@cute.jit
def find_tile(config: cutlass.Constexpr, work: Work, index: Int32):
    group = Int32(0)
    first, token_tiles, k_tiles, m, n, c = work.problems[0]
    for g in cutlass.range_constexpr(1, config.groups):
        if index >= work.problems[g][0]:
            group = Int32(g)
            first, token_tiles, k_tiles, m, n, c = work.problems[g]
    row_tile = (index - first) // token_tiles
    token_tile = (index - first) - row_tile * token_tiles
    token = token_tile * (config.halves * HALF_TOKENS)
    halves = 1 + (config.halves - 1) * Int32(m - token > HALF_TOKENS)
    last_tokens = cutlass.min(round_up(m - token - (halves - 1) * HALF_TOKENS, TOKEN_STEP), HALF_TOKENS)
    return Tile(group, row_tile * TILE_ROWS, token, halves, last_tokens, k_tiles, m, n, c)


def round_up(number: Int32, step: int) -> Int32:
    return (number + step - 1) // step * step


def next_slot(slot: Int32, parity: Int32, slots: int) -> tuple[Int32, Int32]:
    """One step in a ring; the parity of its barriers flips with each round."""
    if slots == 1:
        return slot, parity ^ 1
    wraps = Int32(slot + 1 == slots)
    return (slot + 1) * (1 - wraps), parity ^ wraps


# ---- Device: the three roles -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Barriers:
    """mbarriers of a CTA. `full` and `acc_empty` are used in the leader CTA only, on behalf of both CTAs."""

    full: cute.Pointer  # [stages] load -> MMA: the stage's bytes have landed in both CTAs
    empty: cute.Pointer  # [stages] MMA -> load: the MMAs that read the stage are complete
    acc_full: cute.Pointer  # [accumulators] MMA -> store: the accumulator is complete
    acc_empty: cute.Pointer  # [accumulators] store -> MMA: all store warps of both CTAs have read it


@cute.jit
def operand_descriptors(config: cutlass.Constexpr, descriptors: Int64, group: Int32, rank: Int32):
    """Descriptors of rows, of this CTA's tokens, of row scales and of token scales. The parameters lie one
    behind the other, `groups` of each kind; there are tokens for rank 0 and tokens for rank 1."""
    first = descriptors + Int64(group) * DESCRIPTOR_BYTES
    kind = config.groups * DESCRIPTOR_BYTES
    return first, first + Int64(1 + rank) * kind, first + 3 * kind, first + 4 * kind


@cute.jit
def prefetch_descriptors(config: cutlass.Constexpr, work: Work, descriptors: Int64, rank: Int32):
    """Fetch the descriptors of the first tile's group ahead of their use."""
    group = find_tile(config, work, tile_index(Int32(0))).group
    for descriptor in operand_descriptors(config, descriptors, group, rank):
        prefetch_descriptor(descriptor)


@cute.jit
def load_tiles(config: cutlass.Constexpr, work: Work, descriptors: Int64, barriers, stages, rank):
    """One thread of each CTA: keep the stages full. A CTA loads its 128 rows, their scales, and its part of
    the tokens of each half. Both CTAs need the scales of all tokens: each loads half of them for both."""
    leader_full = leader_address(barriers.full.toint())
    cute.arch.griddepcontrol_wait()
    # The launch before is over. The next may come in: into the half of each SM that this one leaves free.
    cute.arch.griddepcontrol_launch_dependents()

    # On a fresh barrier, parity 1 counts as complete: the stages start out empty.
    stage, parity = Int32(0), Int32(1)
    for turn in cutlass.range(count_turns(work), unroll=1):
        tile = find_tile(config, work, tile_index(turn))
        maps = operand_descriptors(config, descriptors, tile.group, rank)
        row_map, token_map, row_scale_map, token_scale_map = maps
        row = tile.row + rank * CTA_ROWS
        half_bytes = CTAS * (TOKEN_TILE_BYTES + SCALE_TILE_BYTES)
        expected_bytes = CTAS * (ROW_TILE_BYTES + SCALE_TILE_BYTES) + tile.halves * half_bytes

        for k_tile in cutlass.range(tile.k_tiles, unroll=1):
            k, atom = k_tile * K_TILE, k_tile * K_BLOCKS
            full = leader_full + stage * BARRIER_BYTES
            rows = stages + stage * config.stage_bytes
            tokens = rows + ROW_TILE_BYTES
            row_scales = tokens + config.halves * TOKEN_TILE_BYTES
            token_scales = row_scales + SCALE_TILE_BYTES

            cute.arch.mbarrier_wait(barriers.empty + stage, parity)
            if rank == 0:
                cute.arch.mbarrier_arrive_and_expect_tx(barriers.full + stage, expected_bytes)
            tma_load(rows, row_map, (k, row), full, EVICT_FIRST)
            tma_load(row_scales, row_scale_map, (0, atom, row // ATOM_ROWS), full, EVICT_FIRST)
            for half in cutlass.range_constexpr(config.halves):
                if half < tile.halves:
                    smem = tokens + half * TOKEN_TILE_BYTES
                    token = tile.token + half * HALF_TOKENS + rank * (half_tokens(tile, half) // CTAS)
                    tma_load(smem, token_map, (k, token), full, EVICT_LAST)
                    smem = token_scales + half * SCALE_TILE_BYTES + rank * (SCALE_TILE_BYTES // CTAS)
                    atom_row = tile.token // ATOM_ROWS + half
                    box = (0, atom + rank * (K_BLOCKS // CTAS), atom_row)
                    tma_load(smem, token_scale_map, box, full, EVICT_LAST, multicast=True)
            stage, parity = next_slot(stage, parity, config.stages)

    # The MMAs of the leader read this CTA's stages and arrive at its barriers: wait for the last of them.
    for _ in cutlass.range_constexpr(config.stages):
        cute.arch.mbarrier_wait(barriers.empty + stage, parity)
        stage, parity = next_slot(stage, parity, config.stages)


def half_tokens(tile: Tile, half: int) -> Int32:
    """Tokens that the MMAs of this half take."""
    is_last = Int32(half + 1 == tile.halves)
    return HALF_TOKENS + is_last * (tile.last_tokens - HALF_TOKENS)


@cute.jit
def issue_mmas(config: cutlass.Constexpr, work: Work, barriers, stages: Int32, tmem: Int32):
    """One thread of the leader CTA: per stage, copy the scales to tensor memory and multiply. The halves take
    turns: the second finds the rows in the collector buffer, which saves a third of shared memory reads."""
    row_scale_columns = tmem + config.accumulators * ACC_COLUMNS
    token_scale_columns = row_scale_columns + SCALE_COLUMNS
    stages_field = Int64(smem_field(stages & 0xFFFFFF))  # CTA-local: without the CTA's rank in bits 24 and up

    stage, parity = Int32(0), Int32(0)
    acc, acc_parity = Int32(0), Int32(1)
    for turn in cutlass.range(count_turns(work), unroll=1):
        tile = find_tile(config, work, tile_index(turn))
        accs, kinds = [], []
        for half in cutlass.range_constexpr(config.halves):
            accs.append(acc)
            kinds.append(MMA_DESCRIPTOR + (half_tokens(tile, half) // 8 << 17))
            if half < tile.halves:
                cute.arch.mbarrier_wait(barriers.acc_empty + acc, acc_parity)
                acc, acc_parity = next_slot(acc, acc_parity, config.accumulators)
        fence("after")

        for k_tile in cutlass.range(tile.k_tiles, unroll=1):
            rows = stages_field + Int64(stage) * smem_field(config.stage_bytes)
            tokens = rows + smem_field(ROW_TILE_BYTES)
            row_scales = tokens + smem_field(config.halves * TOKEN_TILE_BYTES)
            token_scales = row_scales + smem_field(SCALE_TILE_BYTES)

            cute.arch.mbarrier_wait(barriers.full + stage, parity)
            copy_scale_tile(row_scale_columns, row_scales)
            for half in cutlass.range_constexpr(config.halves):
                if half < tile.halves:
                    scales = token_scales + half * smem_field(SCALE_TILE_BYTES)
                    copy_scale_tile(token_scale_columns + half * SCALE_COLUMNS, scales)
            for block in cutlass.range_constexpr(K_BLOCKS):
                values = VALUES_DESCRIPTOR + block * VALUES_STEP
                for half in cutlass.range_constexpr(config.halves):
                    multiply(
                        kinds[half],
                        tmem + accs[half] * ACC_COLUMNS,
                        rows + values,
                        tokens + (half * smem_field(TOKEN_TILE_BYTES) + values),
                        row_scale_columns + block * ATOM_COLUMNS,
                        token_scale_columns + half * SCALE_COLUMNS + block * ATOM_COLUMNS,
                        accumulate=Int32(k_tile > 0) if block == 0 else 1,
                        when=1 if half == 0 else Int32(tile.halves > half),
                        reuse="" if config.halves == 1 else ("fill", "lastuse")[half],
                    )
            if k_tile == tile.k_tiles - 1:
                for half in cutlass.range_constexpr(config.halves):
                    if half < tile.halves:
                        commit((barriers.acc_full + accs[half]).toint())
            commit((barriers.empty + stage).toint())
            stage, parity = next_slot(stage, parity, config.stages)


def copy_scale_tile(columns: Int32, field: Int64) -> None:
    """The scales of 128 rows or tokens x 256 of K: 2 KB, atom by atom."""
    for block in range(K_BLOCKS):
        copy_scales(columns + block * ATOM_COLUMNS, field + (SCALES_DESCRIPTOR + block * SCALES_STEP))


@cute.jit
def store_tiles(config: cutlass.Constexpr, work: Work, barriers, tmem: Int32, rank: Int32):
    """Eight warps of each CTA: accumulators to C. A thread has 32 tokens (rows of C) of its row (column)."""
    warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
    lane = cute.arch.lane_idx()
    quarter, turns = warp % LANE_QUARTERS, STORE_WARPS // LANE_QUARTERS
    lanes = tmem + (quarter * 32 << 16)  # tensor memory address: lane << 16 | column
    first_column = warp // LANE_QUARTERS * LOAD_COLUMNS
    cute.arch.griddepcontrol_wait()

    acc, parity = Int32(0), Int32(0)
    for turn in cutlass.range(count_turns(work), unroll=1):
        tile = find_tile(config, work, tile_index(turn))
        row = tile.row + rank * CTA_ROWS + quarter * 32 + lane
        for half in cutlass.range(tile.halves, unroll=1):
            token = tile.token + half * HALF_TOKENS
            tokens = cutlass.min(tile.m - token, HALF_TOKENS)
            cute.arch.mbarrier_wait(barriers.acc_full + acc, parity)
            fence("after")
            for column in cutlass.range(first_column, tokens, turns * LOAD_COLUMNS, unroll=1):
                values = load_accumulator(lanes + acc * ACC_COLUMNS + column)
                store_columns(values, tile, row, lane, token + column)
            fence("before")
            cute.arch.sync_warp()
            with cute.arch.elect_one():
                cute.arch.mbarrier_arrive(barriers.acc_empty + acc, 0)
            acc, parity = next_slot(acc, parity, config.accumulators)


def store_columns(values: list[Float32], tile: Tile, row: Int32, lane: Int32, token: Int32) -> None:
    """Store C[token + i, row] = values[i], each warp store as 2 tokens x 32 rows: two runs of 64 B.

    Lanes 2j and 2j + 1 swap halves: the even lane then has both rows of token i, the odd lane of i + 1.
    """
    odd = lane & 1
    selector = 0x5410 + odd * (0x3276 - 0x5410)  # even: theirs.low : mine.low, odd: mine.high : theirs.high
    tokens = tile.m * Int32(row < tile.n) - (token + odd)  # none for a row beyond N
    address = tile.c + (Int64(token + odd) * Int64(tile.n) + Int64(row - odd)) * 2
    for i in range(0, len(values), 2):
        mine = pack_fp16(values[i], values[i + 1])
        theirs = cute.arch.shuffle_sync_bfly(mine, 1)
        store_if_more(tokens, i, address + Int64(tile.n) * (2 * i), permute_bytes(mine, theirs, selector))


@cute.kernel
def grouped_gemm(config: cutlass.Constexpr, maps, problems, tiles: Int32, turns: Int32):
    """Grid: CTA pairs. maps: descriptors, see `operand_descriptors`; maps[i][g] is number i * groups + g."""
    run_pair(config, Work(problems, tiles, turns), descriptor_address(maps[0][0]))


@cute.jit
def run_pair(config: cutlass.Constexpr, work: Work, descriptors: Int64):
    """All warps of a CTA pair, which has at least one tile: set up, play the roles, clean up."""
    warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
    rank = cute.arch.make_warp_uniform(cute.arch.block_idx_in_cluster())

    full = cute.arch.get_dyn_smem(Int64, alignment=1024)  # the header begins with the barriers
    stages = full.toint() + HEADER_BYTES
    empty = full + config.stages
    acc_full = empty + config.stages
    acc_empty = acc_full + config.accumulators
    barriers = Barriers(full, empty, acc_full, acc_empty)
    tmem_slot = cute.recast_ptr(acc_empty + config.accumulators, dtype=Int32)

    if warp == LOAD_WARP:
        with cute.arch.elect_one():
            for i in cutlass.range_constexpr(config.stages):
                cute.arch.mbarrier_init(full + i, 1)
                cute.arch.mbarrier_init(empty + i, 1)
            for i in cutlass.range_constexpr(config.accumulators):
                cute.arch.mbarrier_init(acc_full + i, 1)
                cute.arch.mbarrier_init(acc_empty + i, CTAS * STORE_WARPS)
            cute.arch.mbarrier_init_fence()
    cute.arch.sync_warp()
    cute.arch.cluster_arrive()
    # Until the other CTA is there: fetch descriptors, allocate tensor memory (slow: the CTAs shake hands).
    if warp == LOAD_WARP:
        with cute.arch.elect_one():
            prefetch_descriptors(config, work, descriptors, rank)
    if warp == MMA_WARP:
        cute.arch.alloc_tmem(config.tmem_columns, tmem_slot, is_two_cta=True)
        cute.arch.relinquish_tmem_alloc_permit(is_two_cta=True)
    cute.arch.sync_warp()
    cute.arch.cluster_wait()

    cute.arch.cluster_arrive()  # tensor memory is allocated; loads need not wait for that
    if warp == LOAD_WARP:
        with cute.arch.elect_one():
            load_tiles(config, work, descriptors, barriers, stages, rank)
    cute.arch.sync_warp()
    cute.arch.cluster_wait()
    tmem = cute.arch.make_warp_uniform(tmem_slot[0])
    if warp == MMA_WARP and rank == 0:
        with cute.arch.elect_one():
            issue_mmas(config, work, barriers, stages, tmem)
    if warp < STORE_WARPS:
        store_tiles(config, work, barriers, tmem, rank)

    # No CTA may leave, or free its tensor memory, while the other still works with it.
    cute.arch.sync_warp()
    cute.arch.cluster_arrive()
    cute.arch.cluster_wait()
    if warp == MMA_WARP:
        pointer = cute.arch.retrieve_tmem_ptr(Float32, 16, tmem_slot)
        cute.arch.dealloc_tmem(pointer, config.tmem_columns, is_two_cta=True)


# ---- Compiled host code: descriptors and launch ------------------------------------------------------------


def encode_values(address: Int64, rows: Int32, k: Int32, box_rows: int) -> cute.CopyAtom:
    """Descriptor of a row-major (rows x k) e2m1 matrix: boxes of box_rows x 256 (128 B), 128 B swizzle. What
    lies beyond the matrix loads as zero."""
    pointer = cute.make_ptr(Float4E2M1FN, address, cute.AddressSpace.gmem, assumed_align=16)
    k = cute.assume(k, K_MULTIPLE)
    matrix = cute.make_tensor(pointer, cute.make_layout((rows, k), stride=(k, 1)))
    swizzle = tcgen05.make_smem_layout_atom(tcgen05.SmemLayoutAtomKind.K_SW128, Float4E2M1FN)
    tile = (box_rows, K_TILE)
    operation = cpasync.CopyBulkTensorTileG2SOp(tcgen05.CtaGroup.TWO)
    atom, _ = cpasync.make_tiled_tma_atom(operation, matrix, cute.tile_to_shape(swizzle, tile, (0, 1)), tile)
    return atom


def encode_scales(address: Int64, rows: Int32, k: Int32, box_atoms: int) -> cute.CopyAtom:
    """Descriptor of the scales of a (rows x k) matrix as (bytes of an atom, atoms along k, atoms along the
    rows), in units of 2 B: boxes of box_atoms atoms along k. Atoms beyond the last load as zero."""
    pointer = cute.make_ptr(Int16, address, cute.AddressSpace.gmem, assumed_align=16)
    words, atoms_k = ATOM_BYTES // 2, k // MMA_K
    shape = (words, atoms_k, cute.ceil_div(rows, ATOM_ROWS))
    scales = cute.make_tensor(pointer, cute.make_layout(shape, stride=(1, words, words * atoms_k)))
    tile = (words, box_atoms, 1)
    operation = cpasync.CopyBulkTensorTileG2SOp(tcgen05.CtaGroup.TWO)
    atom, _ = cpasync.make_tiled_tma_atom(operation, scales, cute.make_layout(tile), tile)
    return atom


class Arguments:
    """Arguments of `launch`: memory that is written anew for each call (the DSL's JIT argument protocol).

    numbers: CTA pairs, then m, n, k of each group. addresses: a, b, sfa, sfb, c of each group.
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
    (pairs, *sizes), addresses = arguments
    maps, problems = [[], [], [], [], []], []
    tiles = Int32(0)
    for g in cutlass.range_constexpr(config.groups):
        m, n, k = sizes[3 * g : 3 * g + 3]
        a, b, sfa, sfb, c = addresses[5 * g : 5 * g + 5]
        # CTA 0 takes the first part of each half. Its tokens end where, in the last half, the other's begin.
        last_half = (m - 1) // HALF_TOKENS * HALF_TOKENS
        end_of_first = last_half + round_up(m - last_half, TOKEN_STEP) // CTAS
        maps[0].append(encode_values(b, n, k, CTA_ROWS))
        maps[1].append(encode_values(a, cutlass.min(end_of_first, m), k, CTA_TOKENS))
        maps[2].append(encode_values(a, m, k, CTA_TOKENS))
        maps[3].append(encode_scales(sfb, n, k, K_BLOCKS))
        maps[4].append(encode_scales(sfa, m, k, K_BLOCKS // CTAS))
        token_tiles = cute.ceil_div(m, config.halves * HALF_TOKENS)
        problems.append((tiles, token_tiles, cute.ceil_div(k, K_TILE), m, n, c))
        tiles += token_tiles * cute.ceil_div(n, TILE_ROWS)
    maps = tuple(tuple(kind) for kind in maps)
    grouped_gemm(config, maps, tuple(problems), tiles, cute.ceil_div(tiles, pairs)).launch(
        grid=(pairs * CTAS, 1, 1),
        block=(THREADS, 1, 1),
        cluster=(CTAS, 1, 1),
        smem=config.smem_bytes,
        min_blocks_per_mp=1,  # registers: ptxas' own limit is 64; with the 72 it takes two CTAs fit as well
        use_pdl=True,
    )


# ---- Python: check, plan, call -----------------------------------------------------------------------------

OPERANDS = ("a", "b", "sfa", "sfb", "c")
Sizes = tuple[tuple[int, int, int, int], ...]  # (M, N, K, L) of each group
Expected = tuple[torch.dtype, tuple[int, ...], tuple[int, ...]]  # dtype, shape, strides


@dataclass(frozen=True)
class Plan:
    """How problems of given sizes are run. `order` is that of the groups, falling M; `numbers` and `expected`
    (a, b, sfa, sfb, c of each group) follow it."""

    config: Config
    order: tuple[int, ...]
    numbers: tuple[int, ...]  # as in Arguments
    expected: tuple[tuple[Expected, ...], ...]


def check_sizes(sizes: Sizes) -> None:
    if not 1 <= len(sizes) <= MAX_GROUPS:
        raise ValueError(f"{len(sizes)} groups; supported are 1 to {MAX_GROUPS}")
    for g, (m, n, k, batch) in enumerate(sizes):
        multiples = n % N_MULTIPLE == 0 and k % K_MULTIPLE == 0
        if not (min(m, n, k) >= 1 and multiples and batch == 1 and max(m, n, k) < SIZE_LIMIT):
            raise ValueError(
                f"group {g} has (M, N, K, L) = {(m, n, k, batch)}; supported are M >= 1, N a multiple of "
                f"{N_MULTIPLE}, K a multiple of {K_MULTIPLE}, each < {SIZE_LIMIT}, and L = 1"
            )


def expected_tensors(m: int, n: int, k: int) -> tuple[Expected, ...]:
    """Of a, b, sfa, sfb, c. Scales are viewed as (32, 4, atoms along the rows, 4, atoms along k, 1)."""

    def matrix(dtype: torch.dtype, rows: int, columns: int) -> Expected:
        return dtype, (rows, columns, 1), (columns, 1, rows * columns)

    def scales(rows: int) -> Expected:
        atoms_k, atoms = k // MMA_K, -(-rows // ATOM_ROWS)
        strides = (16, 4, atoms_k * ATOM_BYTES, 1, ATOM_BYTES, atoms * atoms_k * ATOM_BYTES)
        return torch.float8_e4m3fn, (32, 4, atoms, 4, atoms_k, 1), strides

    packed = torch.float4_e2m1fn_x2
    a, b = matrix(packed, m, k // 2), matrix(packed, n, k // 2)
    return a, b, scales(m), scales(n), matrix(torch.float16, m, n)


@cache
def plan(sizes: Sizes, processors: int) -> Plan:
    """Tiles of 128 tokens if each CTA pair then has at most one, else of 256. As few turns as the device's
    pairs allow, then as few pairs as those turns need: each has a tile."""
    check_sizes(sizes)
    most_pairs = processors // CTAS

    def tiles(halves: int) -> int:
        return sum(-(-m // (halves * HALF_TOKENS)) * -(-n // TILE_ROWS) for m, n, _, _ in sizes)

    halves = 1 if tiles(1) <= most_pairs else 2
    turns = -(-tiles(halves) // most_pairs)
    pairs = -(-tiles(halves) // turns)
    order = tuple(sorted(range(len(sizes)), key=lambda g: -sizes[g][0]))
    numbers = (pairs, *(number for g in order for number in sizes[g][:3]))
    expected = tuple(expected_tensors(*sizes[g][:3]) for g in order)
    return Plan(Config(len(sizes), halves), order, numbers, expected)


@cache
def processor_count() -> int:
    return torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count


@cache
def compiled(config: Config) -> tuple[Callable[[Arguments], None], Arguments]:
    arguments = Arguments(config.groups)
    return cute.compile(launch, config, arguments), arguments


def checked_address(tensor: torch.Tensor, expected: Expected, group: int, name: str) -> int:
    """The tensor's address; ValueError if it is not as expected. Strides of dimensions of size 1 are free."""
    dtype, shape, strides = expected
    address = tensor.data_ptr()
    if tensor.dtype == dtype and tensor.shape == shape and tensor.is_cuda and address % 16 == 0:
        given = tensor.stride()
        if given == strides or all(given[i] == strides[i] for i, size in enumerate(shape) if size > 1):
            return address
    raise ValueError(
        f"{name} of group {group} is {tensor.dtype}, shape {tuple(tensor.shape)}, strides {tensor.stride()}, "
        f"on {tensor.device}, {address % 16} bytes past 16 B alignment; supported is {dtype}, shape {shape}, "
        f"strides {strides}, on a CUDA device, aligned to 16 B"
    )


def custom_kernel(data: tuple) -> list[torch.Tensor]:
    """Run the grouped GEMM; returns the list of all c, which are written in place.

    data = (abc, _, scales, sizes): abc[g] = a (m, k / 2, 1) and b (n, k / 2, 1) float4_e2m1fn_x2, c (m, n, 1)
    float16; scales[g] = (sfa, sfb) float8_e4m3fn as in `expected_tensors`; sizes[g] = (m, n, k, 1).

    Raises:
        ValueError: sizes or tensors are not supported; the message says what is.
    """
    abc, _, scales, sizes = data
    if not len(abc) == len(scales) == len(sizes):
        counts = f"{len(abc)} (a, b, c), {len(scales)} (sfa, sfb), {len(sizes)} sizes"
        raise ValueError(f"{counts}; supported are equally many")
    todo = plan(tuple(map(tuple, sizes)), processor_count())
    addresses = []
    for g, expected in zip(todo.order, todo.expected, strict=True):
        (a, b, c), (sfa, sfb) = abc[g], scales[g]
        named = zip(OPERANDS, (a, b, sfa, sfb, c), expected, strict=True)
        addresses += [checked_address(tensor, kind, g, name) for name, tensor, kind in named]

    function, arguments = compiled(todo.config)
    arguments.numbers[:] = todo.numbers
    arguments.addresses[:] = addresses
    function(arguments)
    return [c for _, _, c in abc]
