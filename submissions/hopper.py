#!POPCORN leaderboard nvfp4_group_gemm
#!POPCORN gpu H100

"""Grouped NVFP4 GEMM for Hopper (sm_90a): C[g] = (A[g] * SFA[g]) @ (B[g] * SFB[g])^T, all groups at once.

A (M x K) holds tokens, B (N x K) weights, both e2m1 with one e4m3 scale per 16 values along K; C (M x N) is
fp16. Hopper multiplies no 4-bit values, but e2m1 * e4m3 has six significant bits and so is exact in fp16:

* Swapped operands: weights are the A side of wgmma (64 rows each), tokens its B side (any multiple of 8).
* Weights stay 4-bit until they are in registers: each thread widens the values of its wgmma fragment with
  shifts and masks (e2m1's bits are the top bits of an fp16 that is 2^14 too small) and one multiplication by
  the scale. Sums are multiplied by 2^14 at the end. All of it is exact.
* Tokens are needed by every row of tiles, so a first kernel widens them once, into a workspace that holds
  them as shared memory wants them: swizzled, in tiles, in the order of K in which the weights come out.
* The second kernel is persistent: one warp loads (TMA), two warpgroups multiply, each 64 weight rows of the
  tile. While the tensor core works on 64 of K, the next 64 are widened. The tiles of each CTA are planned on
  the host, the longest first to whom is free first.

The two launches are chained: the second starts while the first runs, and waits for it before it reads
tokens; the first starts while the previous call runs, and waits for it before it does anything.

In this file "row" is a weight row (index along N), "token" a row of A (index along M), "unit" 64 of K.
"""

import ctypes
import heapq
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import cutlass
import cutlass.cute as cute
import torch
from cutlass import Float32, Int32, Int64, Uint8
from cutlass._mlir import ir
from cutlass._mlir.dialects import cute_nvgpu, llvm
from cutlass.cute.nvgpu import cpasync
from cutlass.cutlass_dsl import dsl_user_op

# ---- What is supported -------------------------------------------------------------------------------------

MAX_GROUPS = 32
N_MULTIPLE = 8  # 16 B in a row of C
K_MULTIPLE = 64  # a whole scale atom

# ---- Geometry ----------------------------------------------------------------------------------------------

UNIT = 64  # of K: what is widened at a time, 4 wgmmas deep
MMA_K = 16
STEPS = UNIT // MMA_K
WARPGROUP_ROWS = 64
WARPGROUPS = 2  # that multiply
TILE_ROWS = WARPGROUPS * WARPGROUP_ROWS
MAX_TOKENS = 256  # of a tile: 128 accumulator registers
TOKENS_MULTIPLE = 8
MAX_VARIANTS = 8  # tile heights (tokens) in one kernel

# A scale atom is 128 rows x 64 of K = 128 x 4 scales. Atoms of one block of 128 rows follow each other along
# K. Inside: byte 16 * (row % 32) + 4 * (row / 32) + scale.
ATOM_ROWS = 128
ATOM_BYTES = 512

# Shared memory of a unit: tokens, T rows of 128 B (fp16, 128 B swizzle) | weights, 128 rows of 32 B | scales
TOKEN_BYTES = 2 * UNIT
WEIGHT_BYTES = TILE_ROWS * UNIT // 2

HEADER_BYTES = 1024  # mbarriers
WARP_STAGING_BYTES = 1024  # of C: 32 tokens x 16 rows
STAGING_BYTES = WARPGROUPS * 4 * WARP_STAGING_BYTES
SMEM_BYTES = 227 * 1024
MAX_STAGES = 16

MULTIPLY_WARPS = 4 * WARPGROUPS
LOAD_WARP = MULTIPLY_WARPS
THREADS = 128 * (WARPGROUPS + 1)
MULTIPLY_REGISTERS = 240
LOAD_REGISTERS = 24

WIDEN_THREADS = 256
WIDEN_BLOCKS_PER_SM = 8
WIDEN_LANES = 8  # threads per unit of a token: 16 B of fp16 each

# ---- Encodings ---------------------------------------------------------------------------------------------

# Half of a register, e2m1's bits in the place of fp16's sign, two low exponent bits, high mantissa bit
SIGNS = -0x7FFF8000  # 0x80008000
MAGNITUDES = 0x0E000E00
UP_14 = 0x74007400  # 2^14, twice
BIAS = 2.0**14

# wgmma shared memory descriptor without its address: K-major, 128 B swizzle, 8 rows = 1024 B
TOKENS_DESCRIPTOR = 1 << 62 | (1024 >> 4) << 32 | 1 << 16
STEP_FIELD = 2 * MMA_K >> 4

EVICT_FIRST = 0x12F0_0000_0000_0000
EVICT_LAST = 0x14F0_0000_0000_0000


@dataclass(frozen=True)
class Config:
    """What the kernels are compiled for: number of groups, the numbers of tokens that tiles have."""

    groups: int
    variants: tuple[int, ...]

    @property
    def slot_bytes(self) -> int:
        """A stage: one unit of the tallest variant, or up to two of a short one."""
        return -(-unit_bytes(self.variants[-1]) // 1024) * 1024

    @property
    def stages(self) -> int:
        return min((SMEM_BYTES - HEADER_BYTES - STAGING_BYTES) // self.slot_bytes, MAX_STAGES)

    def units(self, tokens: int) -> int:
        """Units of a stage."""
        return 2 if 2 * unit_bytes(tokens) <= self.slot_bytes else 1

    @property
    def smem_bytes(self) -> int:
        return HEADER_BYTES + STAGING_BYTES + self.stages * self.slot_bytes


def unit_bytes(tokens: int) -> int:
    return tokens * TOKEN_BYTES + WEIGHT_BYTES + ATOM_BYTES


# ---- PTX ---------------------------------------------------------------------------------------------------


def ptx(text: str, constraints: str, operands=(), result: ir.Type | None = None, *, loc=None, ip=None):
    """Inline `text`. Constraints as in LLVM: h, r, l, f for 16, 32, 64 bit and float, "=" for results."""
    numbers = [Int32(operand) if isinstance(operand, int) else operand for operand in operands]
    values = [number.ir_value(loc=loc, ip=ip) for number in numbers]
    return llvm.inline_asm(result, values, text, constraints, has_side_effects=True, loc=loc, ip=ip)


def pure(text: str, constraints: str, operands=(), *, loc=None, ip=None) -> Int32:
    """Inline `text` that computes one 32-bit register and does nothing else."""
    numbers = [Int32(operand) if isinstance(operand, int) else operand for operand in operands]
    values = [number.ir_value(loc=loc, ip=ip) for number in numbers]
    result = llvm.inline_asm(
        Int32.mlir_type, values, text, constraints, has_side_effects=False, loc=loc, ip=ip
    )
    return Int32(result)


def structure(kind: str, count: int) -> ir.Type:
    return ir.Type.parse(f"!llvm.struct<({', '.join([kind] * count)})>")


def fields(kind, result, count: int, *, loc=None, ip=None) -> list:
    return [kind(llvm.extractvalue(kind.mlir_type, result, [i], loc=loc, ip=ip)) for i in range(count)]


@dsl_user_op
def load_words(place: str, address, count: int, *, loc=None, ip=None) -> list[Int32]:
    """2 or 4 words of 4 B from `place` (ld.`place`)."""
    words = ", ".join(f"${i}" for i in range(count))
    kind = "l" if isinstance(address, Int64) else "r"
    text = f"ld.{place}.v{count}.b32 {{{words}}}, [${count}];"
    result = ptx(text, "=r," * count + kind, [address], structure("i32", count), loc=loc, ip=ip)
    return fields(Int32, result, count, loc=loc, ip=ip)


@dsl_user_op
def load_word(place: str, address, *, loc=None, ip=None) -> Int32:
    """4 B; a byte for a place that ends in .u8."""
    text = f"ld.{place} $0, [$1];"
    kind = "l" if isinstance(address, Int64) else "r"
    return Int32(ptx(text, f"=r,{kind}", [address], Int32.mlir_type, loc=loc, ip=ip))


@dsl_user_op
def store_words(address: Int64, words: list[Int32], *, loc=None, ip=None) -> None:
    """16 B to global memory."""
    ptx("st.global.v4.b32 [$0], {$1, $2, $3, $4};", "l,r,r,r,r", [address, *words], loc=loc, ip=ip)


@dsl_user_op
def select_bits(a: Int32, mask: int, b: Int32, *, loc=None, ip=None) -> Int32:
    """(a & mask) | b"""
    return pure("lop3.b32 $0, $1, $2, $3, 0xEA;", "=r,r,r,r", [a, mask, b], loc=loc, ip=ip)


@dsl_user_op
def multiply_halves(a: Int32, b: Int32, *, loc=None, ip=None) -> Int32:
    return pure("mul.rn.f16x2 $0, $1, $2;", "=r,r,r", [a, b], loc=loc, ip=ip)


@dsl_user_op
def scales_to_halves(pair: Int32, *, loc=None, ip=None) -> Int32:
    """Two ue4m3 in the low 16 bits to two fp16; their highest bits are ignored."""
    text = "{ .reg .b16 low, high; mov.b32 {low, high}, $1; and.b16 low, low, 0x7F7F; cvt.rn.f16x2.e4m3x2 $0, low; }"
    return pure(text, "=r,r", [pair], loc=loc, ip=ip)


@dsl_user_op
def permute_bytes(a: Int32, b: Int32, selector: int, *, loc=None, ip=None) -> Int32:
    return pure("prmt.b32 $0, $1, $2, $3;", "=r,r,r,r", [a, b, selector], loc=loc, ip=ip)


@dsl_user_op
def pack_fp16(low: Float32, high: Float32, *, loc=None, ip=None) -> Int32:
    """Two values rounded to fp16, `low` in the lower half."""
    return pure("cvt.rn.f16x2.f32 $0, $1, $2;", "=r,f,f", [high, low], loc=loc, ip=ip)


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
def load_box(smem, descriptor, x, y, barrier, policy, *, loc=None, ip=None) -> None:
    text = (
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint"
        " [$0], [$1, {$2, $3}], [$4], $5;"
    )
    ptx(text, "r,l,r,r,r,l", [smem, descriptor, x, y, barrier, Int64(policy)], loc=loc, ip=ip)


@dsl_user_op
def load_bytes(smem, address, count, barrier, policy, *, loc=None, ip=None) -> None:
    text = (
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint"
        " [$0], [$1], $2, [$3], $4;"
    )
    ptx(text, "r,l,r,r,l", [smem, address, count, barrier, Int64(policy)], loc=loc, ip=ip)


@dsl_user_op
def multiply(sums, weights: list[Int32], tokens: Int64, *, loc=None, ip=None) -> None:
    """A warpgroup: sums += weights @ tokens^T for 64 rows x T tokens x 64 of K, asynchronously. On return the
    multiplication before this one is complete. sums: tensor of T / 2 registers; weights: 16 registers."""
    count = cute.size(sums)
    registers = ", ".join(f"${i}" for i in range(count))
    first = 2 * count
    lines = ["{ .reg .b64 d; wgmma.fence.sync.aligned;", f"mov.b64 d, ${first + 4 * STEPS};"]
    for step in range(STEPS):
        a = ", ".join(f"${first + 4 * step + i}" for i in range(4))
        lines.append(
            f"wgmma.mma_async.sync.aligned.m64n{2 * count}k16.f32.f16.f16 {{{registers}}}, {{{a}}}, d,"
            " 1, 1, 1, 0;"
        )
        if step < STEPS - 1:
            lines.append(f"add.s64 d, d, {STEP_FIELD};")
    lines.append("wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 1; }")
    update(sums, " ".join(lines), "r," * (4 * STEPS) + "l", [*weights, tokens], loc=loc, ip=ip)


@dsl_user_op
def finish(sums, *, loc=None, ip=None) -> None:
    """Wait for all multiplications."""
    update(sums, "wgmma.wait_group.sync.aligned 0;", "", [], loc=loc, ip=ip)


def update(sums, text: str, constraints: str, operands, *, loc=None, ip=None) -> None:
    """Inline `text` with the registers of `sums` as its first operands, read and written."""
    count = cute.size(sums)
    old = [sums[i] for i in range(count)]
    tied = ",".join(str(i) for i in range(count))
    all_constraints = "=f," * count + tied + ("," + constraints if constraints else "")
    result = ptx(text, all_constraints, [*old, *operands], structure("f32", count), loc=loc, ip=ip)
    for i, value in enumerate(fields(Float32, result, count, loc=loc, ip=ip)):
        sums[i] = value


@dsl_user_op
def store_transposed(address: Int32, words: list[Int32], *, loc=None, ip=None) -> None:
    """A warp: 8 x 8 matrices of fp16, transposed, to the row addresses that the lanes give."""
    count = len(words)
    registers = ", ".join(f"${i + 1}" for i in range(count))
    text = f"stmatrix.sync.aligned.m8n8.x{count}.trans.shared.b16 [$0], {{{registers}}};"
    ptx(text, "r" + ",r" * count, [address, *words], loc=loc, ip=ip)


# ---- Widening ----------------------------------------------------------------------------------------------


def widen_pair(word: Int32, pair: int) -> Int32:
    """Values `pair` and `pair` + 4 of a word of eight e2m1, as fp16 times 2^-14."""
    if pair < 2:
        word = word << 8
    if pair % 2:
        return select_bits(word, SIGNS, (word >> 3) & MAGNITUDES)
    return select_bits(word << 4, SIGNS, (word << 1) & MAGNITUDES)


PAIRS = (3, 2, 1, 0)  # in which order they come along K


def widen_weights(words: list[Int32], scale: Int32) -> list[Int32]:
    """16 values of one row, which share a scale, as 8 registers: 2 per wgmma."""
    return [multiply_halves(widen_pair(word, pair), scale) for word in words for pair in PAIRS]


# ---- Device: tokens to fp16 --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Numbers of one group. `height` tokens per tile; `tokens_at` (KB) in the workspace; `items` before this
    group: (token, unit) pairs."""

    m: Int32
    n: Int32
    units: Int32
    height: Int32
    tokens_at: Int32
    items: Int32
    a: Int64
    sfa: Int64
    sfb: Int64
    c: Int64


def pick(groups: tuple, index: Int32, count: int):
    """groups[index] for a run-time index, field by field."""
    picked = list(groups[0])
    for g in range(1, count):
        here = index == g
        picked = [cutlass.select_(here, new, old) for new, old in zip(groups[g], picked)]
    return Group(*picked)


@cute.kernel
def widen_tokens(config: cutlass.Constexpr, groups, items: Int32, workspace: Int64):
    """Eight threads per (token, unit): each writes 16 B, a pair of values of each of the unit's four scales.

    In the workspace the 64 values of a unit stand in the order in which wgmma meets the weights: at step s,
    16-byte half h, place c, pair PAIRS[2 * (s % 2) + h] of word s / 2 of block c of 16.
    """
    thread = cute.arch.thread_idx()[0]
    lane = thread % WIDEN_LANES
    first = (cute.arch.block_idx()[0] * WIDEN_THREADS + thread) // WIDEN_LANES
    step = cute.arch.grid_dim()[0] * (WIDEN_THREADS // WIDEN_LANES)
    cute.arch.griddepcontrol_wait()
    cute.arch.griddepcontrol_launch_dependents()

    for item in cutlass.range(first, items, step, unroll=1):
        index = Int32(0)
        for g in cutlass.range_constexpr(1, config.groups):
            index += Int32(item >= groups[g][5])
        group = pick(groups, index, config.groups)
        token = (item - group.items) // group.units
        unit = (item - group.items) - token * group.units

        source = group.a + Int64(token) * Int64(group.units * 32) + Int64(unit * 32 + lane // 4 * 4)
        atom = Int64(token // ATOM_ROWS) * Int64(group.units) + Int64(unit)
        place = 16 * (token % 32) + 4 * (token % ATOM_ROWS // 32)
        scales = load_word("global.b32", group.sfa + atom * ATOM_BYTES + Int64(place))
        words = [load_word("global.b32", source + 8 * block) for block in range(4)]

        low = scales_to_halves(scales)
        high = scales_to_halves(scales >> 16)
        halves = (low, low, high, high)
        pair = 3 - lane % 4
        shift = (1 - pair // 2) * 8 + (1 - pair % 2) * 4
        wide = []
        for block in cutlass.range_constexpr(4):
            scale = permute_bytes(halves[block], halves[block], 0x3232 if block % 2 else 0x1010)
            word = words[block] << shift
            value = select_bits(word, SIGNS, (word >> 3) & MAGNITUDES)
            wide.append(multiply_halves(multiply_halves(value, Int32(UP_14)), scale))

        tile = token // group.height
        row = token - tile * group.height
        image = Int64(tile * group.units + unit) * Int64(group.height) + Int64(row)
        chunk = (lane ^ (row % 8)) * 16
        address = workspace + Int64(group.tokens_at) * 1024 + image * TOKEN_BYTES + Int64(chunk)
        store_words(address, wide)


# ---- Device: the multiplication ----------------------------------------------------------------------------


def next_slot(slot: Int32, parity: Int32, slots: int) -> tuple[Int32, Int32]:
    """One step in a ring; the parity of its barriers flips with each round."""
    wraps = Int32(slot + 1 == slots)
    return (slot + 1) * (1 - wraps), parity ^ wraps


@dataclass(frozen=True)
class Shared:
    """Shared memory: barriers per stage (load -> multiply, multiply -> load), C's staging, the stages."""

    full: cute.Pointer
    empty: cute.Pointer
    staging: Int32
    stages: Int32


@cute.jit
def load_tiles(config: cutlass.Constexpr, groups, schedule, turns, descriptors, workspace, shared):
    """One thread: keep the stages full. The weights of the first stages do not wait for the first kernel."""
    slot, parity = Int32(0), Int32(1)
    waited = Int32(0)
    for turn in cutlass.range(turns, unroll=1):
        index, row, tile, variant = tile_of(schedule, turn)
        if index >= 0:
            group = pick(groups, index, config.groups)
            height = group.height
            units_per_stage = Int32(1)
            for v in cutlass.range_constexpr(len(config.variants)):
                if cutlass.const_expr(config.units(config.variants[v]) == 2):
                    if variant == v:
                        units_per_stage = Int32(2)
            weight_map = descriptors + Int64(index) * 128
            token_bytes = height * TOKEN_BYTES
            tokens = workspace + Int64(group.tokens_at) * 1024
            tokens += Int64(tile * group.units) * Int64(token_bytes)
            scales = group.sfb + Int64(row // ATOM_ROWS) * Int64(group.units * ATOM_BYTES)
            stages = (group.units + units_per_stage - 1) // units_per_stage

            early = Int32(0)
            if waited == 0:
                early = cutlass.min(stages, Int32(config.stages))
                for stage in cutlass.range(early, unroll=1):
                    unit = stage * units_per_stage
                    units = cutlass.min(units_per_stage, group.units - unit)
                    full = shared.full + stage
                    cute.arch.mbarrier_arrive_and_expect_tx(
                        full, units * (token_bytes + WEIGHT_BYTES + ATOM_BYTES)
                    )
                    weights = shared.stages + stage * config.slot_bytes + units_per_stage * token_bytes
                    load_weights(weights, weight_map, scales, row, unit, units, units_per_stage, full)
                cute.arch.griddepcontrol_wait()
                waited = Int32(1)

            for stage in cutlass.range(stages, unroll=1):
                unit = stage * units_per_stage
                units = cutlass.min(units_per_stage, group.units - unit)
                full = shared.full + slot
                smem = shared.stages + slot * config.slot_bytes
                if stage >= early:
                    cute.arch.mbarrier_wait(shared.empty + slot, parity)
                    cute.arch.mbarrier_arrive_and_expect_tx(
                        full, units * (token_bytes + WEIGHT_BYTES + ATOM_BYTES)
                    )
                    weights = smem + units_per_stage * token_bytes
                    load_weights(weights, weight_map, scales, row, unit, units, units_per_stage, full)
                source = tokens + Int64(unit) * Int64(token_bytes)
                load_bytes(smem, source, units * token_bytes, full.toint(), EVICT_LAST)
                slot, parity = next_slot(slot, parity, config.stages)


@cute.jit
def load_weights(smem, weight_map, scales, row, unit, units, units_per_stage, full):
    barrier = full.toint()
    source = scales + Int64(unit) * ATOM_BYTES
    load_box(smem, weight_map, unit * (UNIT // 2), row, barrier, EVICT_FIRST)
    if units > 1:
        load_box(smem + WEIGHT_BYTES, weight_map, (unit + 1) * (UNIT // 2), row, barrier, EVICT_FIRST)
    load_bytes(smem + units_per_stage * WEIGHT_BYTES, source, units * ATOM_BYTES, barrier, EVICT_FIRST)


@cute.jit
def tile_of(schedule: Int64, turn: Int32):
    """Group (-1: none), first row, tile along the tokens, variant of the CTA's tile in this turn."""
    entry = turn * cute.arch.grid_dim()[0] + cute.arch.block_idx()[0]
    return load_words("global.nc", schedule + Int64(entry) * 16, 4)


@cute.jit
def multiply_tiles(config: cutlass.Constexpr, groups, schedule, turns, shared):
    """Two warpgroups, 64 rows each."""
    slot, parity = Int32(0), Int32(0)
    for turn in cutlass.range(turns, unroll=1):
        index, row, tile, variant = tile_of(schedule, turn)
        if index >= 0:
            group = pick(groups, index, config.groups)
            for v in cutlass.range_constexpr(len(config.variants)):
                if variant == v:
                    slot, parity = multiply_tile(
                        config, config.variants[v], group, row, tile, shared, slot, parity
                    )


@cute.jit
def multiply_tile(config: cutlass.Constexpr, tokens: cutlass.Constexpr, group, row, tile, shared, slot, parity):
    warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
    lane = cute.arch.lane_idx()
    units_per_stage = config.units(tokens)

    # Where a thread's fragment lies in a unit: rows r and r + 8, of each the c-th of four 8 B (16 values)
    fragment_row = warp * 16 + lane // 4
    fragment_k = lane % 4
    weights_at = units_per_stage * tokens * TOKEN_BYTES + fragment_row * (UNIT // 2) + fragment_k * 8
    scales_at = units_per_stage * (tokens * TOKEN_BYTES + WEIGHT_BYTES)
    scales_at += 16 * (fragment_row % 32) + 4 * (fragment_row // 32) + fragment_k

    sums = cute.make_rmem_tensor(tokens // 2, Float32)
    sums.fill(0.0)
    previous = slot
    for pair in cutlass.range(group.units // 2, unroll=1):
        for half in cutlass.range_constexpr(2):
            if cutlass.const_expr(half == 0 or units_per_stage == 1):
                cute.arch.mbarrier_wait(shared.full + slot, parity)
            place = half if units_per_stage == 2 else 0
            multiply_unit(config, tokens, place, sums, shared, slot, weights_at, scales_at)
            if cutlass.const_expr(half == 0 or units_per_stage == 1):
                if pair > 0 or half == 1:
                    release(shared.empty + previous, lane)
                previous = slot
            if cutlass.const_expr(half == 1 or units_per_stage == 1):
                slot, parity = next_slot(slot, parity, config.stages)
    if group.units % 2 == 1:
        cute.arch.mbarrier_wait(shared.full + slot, parity)
        multiply_unit(config, tokens, 0, sums, shared, slot, weights_at, scales_at)
        if group.units > 1:
            release(shared.empty + previous, lane)
        previous = slot
        slot, parity = next_slot(slot, parity, config.stages)
    finish(sums)
    release(shared.empty + previous, lane)
    store_tile(tokens, sums, group, row + warp * 16, tile * tokens, shared, warp, lane)
    return slot, parity


@cute.jit
def release(empty, lane: Int32):
    if lane == 0:
        cute.arch.mbarrier_arrive(empty)


@cute.jit
def multiply_unit(
    config: cutlass.Constexpr,
    tokens: cutlass.Constexpr,
    place: cutlass.Constexpr,
    sums,
    shared,
    slot,
    weights_at,
    scales_at,
):
    """Unit `place` of a stage."""
    smem = shared.stages + slot * config.slot_bytes
    weights = smem + (weights_at + place * WEIGHT_BYTES)
    scales = smem + (scales_at + place * ATOM_BYTES)
    upper = load_words("shared", weights, 2)
    lower = load_words("shared", weights + 8 * UNIT // 2, 2)
    pair = load_word("shared.u8", scales) | (load_word("shared.u8", scales + 8 * 16) << 8)
    both = scales_to_halves(pair)
    upper = widen_weights(upper, permute_bytes(both, both, 0x1010))
    lower = widen_weights(lower, permute_bytes(both, both, 0x3232))
    # wgmma takes (row, k), (row + 8, k), (row, k + 8), (row + 8, k + 8)
    fragment = [half for pair in zip(upper, lower) for half in pair]
    address = smem + place * tokens * TOKEN_BYTES
    multiply(sums, fragment, Int64(address >> 4) | Int64(TOKENS_DESCRIPTOR))


@cute.jit
def store_tile(tokens: cutlass.Constexpr, sums, group, row, token, shared, warp, lane):
    """A warp's 16 rows (32 B of a row of C): 32 tokens at a time through shared memory."""
    staging = shared.staging + warp * WARP_STAGING_BYTES
    matrix, matrix_row = lane // 8, lane % 8
    target = staging + (8 * (matrix // 2) + matrix_row) * 32 + 16 * (matrix % 2)
    limit = cutlass.min(group.m, token + tokens)
    for first in cutlass.range_constexpr(0, tokens, 32):
        blocks = min(4, (tokens - first) // 8)
        words = pack_blocks(sums, first // 2, 4 * blocks)
        cute.arch.sync_warp()
        store_transposed(target, words[:4])
        if cutlass.const_expr(blocks > 2):
            store_transposed(target + 16 * 32, words[4:])
        cute.arch.sync_warp()
        for part in cutlass.range_constexpr((blocks + 1) // 2):
            piece = part * 32 + lane
            values = load_words("shared", staging + piece * 16, 4)
            at_token = token + first + piece // 2
            at_row = row + piece % 2 * 8
            if at_token < limit and at_row < group.n:
                store_words(group.c + (Int64(at_token) * Int64(group.n) + Int64(at_row)) * 2, values)


def pack_blocks(sums, first: int, count: int) -> list[Int32]:
    return [pack_fp16(sums[i] * BIAS, sums[i + 1] * BIAS) for i in range(first, first + count, 2)]


@cute.kernel
def grouped_gemm(
    config: cutlass.Constexpr, descriptors, groups, turns: Int32, schedule: Int64, workspace: Int64
):
    warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
    descriptors = descriptor_address(descriptors[0])
    full = cute.arch.get_dyn_smem(Int64, alignment=1024)
    empty = full + config.stages
    staging = full.toint() + HEADER_BYTES
    shared = Shared(full, empty, staging, staging + STAGING_BYTES)

    if warp == LOAD_WARP:
        with cute.arch.elect_one():
            for i in cutlass.range_constexpr(config.stages):
                cute.arch.mbarrier_init(full + i, 1)
                cute.arch.mbarrier_init(empty + i, MULTIPLY_WARPS)
            cute.arch.mbarrier_init_fence()
    cute.arch.griddepcontrol_launch_dependents()
    cute.arch.sync_threads()

    if warp >= LOAD_WARP:
        cute.arch.setmaxregister_decrease(LOAD_REGISTERS)
        if warp == LOAD_WARP:
            with cute.arch.elect_one():
                load_tiles(config, groups, schedule, turns, descriptors, workspace, shared)
    else:
        cute.arch.setmaxregister_increase(MULTIPLY_REGISTERS)
        multiply_tiles(config, groups, schedule, turns, shared)


# ---- Compiled host code: descriptors and launch ------------------------------------------------------------


def encode_weights(address: Int64, rows: Int32, k: Int32) -> cute.CopyAtom:
    """Descriptor of a row-major (rows x k / 2) matrix of bytes: boxes of 128 x 32. What lies beyond the
    matrix loads as zero."""
    pointer = cute.make_ptr(Uint8, address, cute.AddressSpace.gmem, assumed_align=16)
    width = cute.assume(k // 2, K_MULTIPLE // 2)
    matrix = cute.make_tensor(pointer, cute.make_layout((rows, width), stride=(width, 1)))
    tile = (TILE_ROWS, UNIT // 2)
    layout = cute.make_layout(tile, stride=(UNIT // 2, 1))
    atom, _ = cpasync.make_tiled_tma_atom(cpasync.CopyBulkTensorTileG2SOp(), matrix, layout, tile)
    return atom


COMMON_NUMBERS = 4  # CTAs, turns, blocks that widen, items
GROUP_NUMBERS = 5  # m, n, k, height, place in the workspace
GROUP_ADDRESSES = 5  # a, b, sfa, sfb, c


class Arguments:
    """Arguments of `launch`: memory that is written anew for each call (the DSL's JIT argument protocol).

    numbers: COMMON_NUMBERS, then GROUP_NUMBERS of each group. addresses: schedule, workspace, then
    GROUP_ADDRESSES of each group.
    """

    def __init__(self, groups: int) -> None:
        self.numbers = (ctypes.c_int32 * (COMMON_NUMBERS + GROUP_NUMBERS * groups))()
        self.addresses = (ctypes.c_int64 * (2 + GROUP_ADDRESSES * groups))()
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
    numbers, (schedule, workspace, *addresses) = arguments
    ctas, turns, widen_blocks, total = numbers[:COMMON_NUMBERS]
    maps, groups = [], []
    items = Int32(0)
    for g in cutlass.range_constexpr(config.groups):
        start = COMMON_NUMBERS + GROUP_NUMBERS * g
        m, n, k, height, tokens_at = numbers[start : start + GROUP_NUMBERS]
        a, b, sfa, sfb, c = addresses[GROUP_ADDRESSES * g : GROUP_ADDRESSES * (g + 1)]
        units = k // UNIT
        maps.append(encode_weights(b, n, k))
        groups.append((m, n, units, height, tokens_at, items, a, sfa, sfb, c))
        items += m * units
    widen_tokens(config, tuple(groups), total, workspace).launch(
        grid=(widen_blocks, 1, 1), block=(WIDEN_THREADS, 1, 1), use_pdl=True
    )
    grouped_gemm(config, tuple(maps), tuple(groups), turns, schedule, workspace).launch(
        grid=(ctas, 1, 1),
        block=(THREADS, 1, 1),
        smem=config.smem_bytes,
        min_blocks_per_mp=1,
        use_pdl=True,
    )


# ---- Python: check, plan, call -----------------------------------------------------------------------------

OPERANDS = ("a", "b", "sfa", "sfb", "c")
Sizes = tuple[tuple[int, int, int, int], ...]  # (M, N, K, L) of each group
Expected = tuple[torch.dtype, tuple[int, ...], tuple[int, ...]]  # dtype, shape, strides


def check_sizes(sizes: Sizes) -> None:
    if not 1 <= len(sizes) <= MAX_GROUPS:
        raise ValueError(f"{len(sizes)} groups; supported are 1 to {MAX_GROUPS}")
    for g, (m, n, k, batch) in enumerate(sizes):
        multiples = n % N_MULTIPLE == 0 and k % K_MULTIPLE == 0
        if not (min(m, n, k) >= 1 and multiples and batch == 1 and max(m, n, k, m * n, m * k) < 2**31):
            raise ValueError(
                f"group {g} has (M, N, K, L) = {(m, n, k, batch)}; supported are M >= 1, N a multiple of "
                f"{N_MULTIPLE}, K a multiple of {K_MULTIPLE}, L = 1, M * N and M * K < 2**31"
            )


def expected_tensors(m: int, n: int, k: int) -> tuple[Expected, ...]:
    """Of a, b, sfa, sfb, c. Scales are viewed as (32, 4, atoms along the rows, 4, atoms along k, 1)."""

    def matrix(dtype: torch.dtype, rows: int, columns: int) -> Expected:
        return dtype, (rows, columns, 1), (columns, 1, rows * columns)

    def scales(rows: int) -> Expected:
        atoms_k, atoms = k // UNIT, -(-rows // ATOM_ROWS)
        strides = (16, 4, atoms_k * ATOM_BYTES, 1, ATOM_BYTES, atoms * atoms_k * ATOM_BYTES)
        return torch.float8_e4m3fn, (32, 4, atoms, 4, atoms_k, 1), strides

    packed = torch.float4_e2m1fn_x2
    a, b = matrix(packed, m, k // 2), matrix(packed, n, k // 2)
    return a, b, scales(m), scales(n), matrix(torch.float16, m, n)


def tile_cost(tokens: int, units: int) -> int:
    """Cycles of a tile on an SM: two warpgroups at tokens / 2 cycles per wgmma, or the widening of weights."""
    return units * max(4 * tokens, 260) + 1500


def spread(jobs: list[int], workers: int) -> tuple[int, list[list[int]]]:
    """Jobs (costs) to workers, the longest first to the least loaded: the largest load, jobs per worker."""
    loads = [(0, worker) for worker in range(workers)]
    taken: list[list[int]] = [[] for _ in range(workers)]
    for job in sorted(range(len(jobs)), key=lambda job: -jobs[job]):
        load, worker = heapq.heappop(loads)
        taken[worker].append(job)
        heapq.heappush(loads, (load + jobs[job], worker))
    return max(load for load, _ in loads), taken


def height_of(m: int, tiles: int) -> int:
    """Tokens of a tile if a group's M tokens make so many tiles."""
    return -(-m // (tiles * TOKENS_MULTIPLE)) * TOKENS_MULTIPLE


def choose_heights(sizes: Sizes, processors: int) -> list[int]:
    """Tokens per tile of each group: as few tiles as fit, or a few more if that balances the load better."""
    least = [-(-m // MAX_TOKENS) for m, _, _, _ in sizes]

    def load(tiles: list[int]) -> int:
        jobs = []
        for count, (m, n, k, _) in zip(tiles, sizes, strict=True):
            jobs += [tile_cost(height_of(m, count), k // UNIT)] * (count * -(-n // TILE_ROWS))
        return spread(jobs, processors)[0]

    tiles, best = list(least), load(least)
    if sum(count * -(-n // TILE_ROWS) for count, (_, n, _, _) in zip(least, sizes, strict=True)) < 2048:
        for g in range(len(sizes)):
            for more in (1, 2, 3):
                tried = [*tiles[:g], least[g] + more, *tiles[g + 1 :]]
                if (found := load(tried)) < best:
                    tiles, best = tried, found
    heights = [height_of(m, count) for (m, _, _, _), count in zip(sizes, tiles, strict=True)]
    while len(set(heights)) > MAX_VARIANTS:
        ordered = sorted(set(heights))
        low, high = min(zip(ordered, ordered[1:]), key=lambda pair: pair[1] / pair[0])
        heights = [high if height == low else height for height in heights]
    return heights


class Plan:
    """How problems of given sizes are run."""

    def __init__(self, sizes: Sizes, processors: int) -> None:
        check_sizes(sizes)
        heights = choose_heights(sizes, processors)
        variants = tuple(sorted(set(heights)))
        self.config = Config(len(sizes), variants)
        self.expected = tuple(expected_tensors(*size[:3]) for size in sizes)

        jobs, tiles, per_group, used, items = [], [], [], 0, 0
        for g, ((m, n, k, _), height) in enumerate(zip(sizes, heights, strict=True)):
            units, token_tiles = k // UNIT, -(-m // height)
            per_group += [m, n, k, height, used // 1024]
            used += token_tiles * units * height * TOKEN_BYTES
            items += m * units
            for row in range(0, n, TILE_ROWS):
                for tile in range(token_tiles):
                    tiles.append((g, row, tile, variants.index(height)))
                    jobs.append(tile_cost(height, units))
        _, taken = spread(jobs, processors)
        taken = [worker for worker in taken if worker]
        turns = max(map(len, taken))
        blocks = -(-items * WIDEN_LANES // WIDEN_THREADS)
        self.numbers = [len(taken), turns, min(blocks, WIDEN_BLOCKS_PER_SM * processors), items, *per_group]
        self.workspace_bytes = used
        self.table = [
            tiles[worker[turn]] if turn < len(worker) else (-1, 0, 0, 0)
            for turn in range(turns)
            for worker in taken
        ]


@lru_cache(maxsize=64)
def planned(sizes: Sizes, device: int) -> tuple[Plan, torch.Tensor, torch.Tensor]:
    """The plan, its schedule and a workspace on the device."""
    plan = Plan(sizes, torch.cuda.get_device_properties(device).multi_processor_count)
    schedule = torch.tensor(plan.table, dtype=torch.int32).to("cuda")
    workspace = torch.empty(plan.workspace_bytes, dtype=torch.uint8, device="cuda")
    return plan, schedule, workspace


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
    plan, schedule, workspace = planned(tuple(map(tuple, sizes)), torch.cuda.current_device())
    addresses = [schedule.data_ptr(), workspace.data_ptr()]
    for g, expected in enumerate(plan.expected):
        (a, b, c), (sfa, sfb) = abc[g], scales[g]
        named = zip(OPERANDS, (a, b, sfa, sfb, c), expected, strict=True)
        addresses += [checked_address(tensor, kind, g, name) for name, tensor, kind in named]

    function, arguments = compiled(plan.config)
    arguments.numbers[:] = plan.numbers
    arguments.addresses[:] = addresses
    function(arguments)
    return [c for _, _, c in abc]
