#!POPCORN leaderboard nvfp4_group_gemm
#!POPCORN gpu H100

"""Grouped NVFP4 GEMM for Hopper (sm_90a): C[g] = (A[g] * SFA[g]) @ (B[g] * SFB[g])^T, all groups at once.

A (M x K) holds tokens, B (N x K) weights, both e2m1 with one e4m3 scale per 16 values along K; C (M x N) is
fp16. Hopper multiplies no 4-bit values, but e2m1 * e4m3 has six significant bits and so is exact in fp16:

* Swapped operands: weights are the A side of wgmma (64 rows each), tokens its B side (any multiple of 8).
* Weights stay 4-bit until they are in registers: each thread widens the values of its wgmma fragment. Shifts
  and masks make e4m3 of four e2m1 at a time (2^6 too small, no matter: sums are multiplied at the end), the
  hardware converts pairs of e4m3 to fp16, and one multiplication brings in the scale. All of it is exact.
* Tokens are needed by every row of tiles, so all CTAs together widen them once, into a workspace that holds
  them as shared memory wants them: swizzled, in tiles, in the order of K in which the weights come out. A
  barrier of the grid follows (a counter in memory); meanwhile the first weights are on their way.
* CTAs are persistent: one warp loads (TMA), two warpgroups multiply, each 64 weight rows of the
  tile. While the tensor core works on 64 of K, the next 64 are widened. The CTAs of a cluster take weight
  rows below each other and share the tokens: each loads a part for all (fp16 tokens from L2 would otherwise
  be the limit). The tiles of each cluster are planned on the host, longest first to whom is free first.

Launches are chained (PDL): a CTA is set up while the previous launch ends, and waits for that end before it
touches any input.

In this file "row" is a weight row (index along N), "token" a row of A (index along M), "unit" 64 of K.
"""

import ctypes
import heapq
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise

import cutlass
import cutlass.cute as cute
import torch
from cutlass import Float32, Int16, Int32, Int64, Uint8
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
CLUSTERS = (1, 2, 4)  # possible numbers of CTAs in a cluster
TILE_ROWS = WARPGROUPS * WARPGROUP_ROWS
MAX_TOKENS = 248  # of a tile: 124 accumulator registers, three slots in shared memory
TOKENS_MULTIPLE = 8
MAX_VARIANTS = 8  # tile heights (tokens) in one kernel

# A scale atom is 128 rows x 64 of K = 128 x 4 scales. Atoms of one block of 128 rows follow each other along
# K. Inside: byte 16 * (row % 32) + 4 * (row / 32) + scale.
ATOM_ROWS = 128
ATOM_BYTES = 512

# Shared memory is a ring of slots. A slot holds a pair of units (the last of a tile may be a single one):
# tokens of each, T rows of 128 B (fp16, 128 B swizzle) | weights of each, 128 rows of 32 B | scales of each
PAIR = 2
TOKEN_BYTES = 2 * UNIT
WEIGHT_BYTES = TILE_ROWS * UNIT // 2
OTHER_BYTES = WEIGHT_BYTES + ATOM_BYTES

HEADER_BYTES = 1024  # mbarriers
WARP_STAGING_BYTES = 1024  # of C: 32 tokens x 16 rows
STAGING_BYTES = WARPGROUPS * 4 * WARP_STAGING_BYTES
SMEM_BYTES = 227 * 1024
MAX_SLOTS = 12
RING_BYTES = SMEM_BYTES - HEADER_BYTES - WARPGROUPS * 4 * WARP_STAGING_BYTES

MULTIPLY_WARPS = 4 * WARPGROUPS
WEIGHTS_WARP = MULTIPLY_WARPS  # loads weights
SCALES_WARP = WEIGHTS_WARP + 1  # loads their scales
TOKENS_WARP = WEIGHTS_WARP + 2  # loads tokens
LOADERS = 3
THREADS = 128 * (WARPGROUPS + 1)
MULTIPLY_REGISTERS = 232
LOAD_REGISTERS = 40

WIDEN_TOKENS = 32  # tokens that a warp widens at a time, one per lane, one unit each

# ---- Encodings ---------------------------------------------------------------------------------------------

# Bytes of a register: e2m1's sign and magnitude in the place of e4m3's sign, low exponent bits, high mantissa
# bit
SIGNS = -0x7F7F7F80  # 0x80808080
MAGNITUDES = 0x1C1C1C1C
BIAS = 2.0**12  # 2^6 for weights and tokens each

# wgmma shared memory descriptor without its address: K-major, 128 B swizzle, 8 rows = 1024 B
TOKENS_DESCRIPTOR = 1 << 62 | (1024 >> 4) << 32 | 1 << 16
STEP_FIELD = 2 * MMA_K >> 4

# Cost model for the plan, in cycles
MIN_UNIT_CYCLES = 590
TILE_CYCLES = 3000
L2_BYTES_PER_CYCLE = 60  # per SM
MAX_TILES_TO_SEARCH = 1024

EVICT_FIRST = 0x12F0_0000_0000_0000
EVICT_LAST = 0x14F0_0000_0000_0000


@dataclass(frozen=True)
class Config:
    """What the kernel is compiled for: number of groups, CTAs in a cluster, tiles' numbers of tokens."""

    groups: int
    cluster: int
    variants: tuple[int, ...]

    @property
    def slot_bytes(self) -> int:
        return -(-PAIR * (self.variants[-1] * TOKEN_BYTES + OTHER_BYTES) // 1024) * 1024

    @property
    def slots(self) -> int:
        return min(RING_BYTES // self.slot_bytes, MAX_SLOTS)


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
    text = (
        "{ .reg .b16 low, high; mov.b32 {low, high}, $1; and.b16 low, low, 0x7F7F;"
        " cvt.rn.f16x2.e4m3x2 $0, low; }"
    )
    return pure(text, "=r,r", [pair], loc=loc, ip=ip)


@dsl_user_op
def e4m3_to_halves(four: Int32, *, loc=None, ip=None) -> list[Int32]:
    """Four e4m3 to two pairs of fp16."""
    low = "{ .reg .b16 low, high; mov.b32 {low, high}, $1; cvt.rn.f16x2.e4m3x2 $0, low; }"
    high = "{ .reg .b16 low, high; mov.b32 {low, high}, $1; cvt.rn.f16x2.e4m3x2 $0, high; }"
    return [pure(text, "=r,r", [four], loc=loc, ip=ip) for text in (low, high)]


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
def wait(barrier: Int32, parity: Int32, *, loc=None, ip=None) -> None:
    """Until the phase of that parity is complete. (By address: a DSL pointer costs a detour each time.)"""
    text = (
        "{ .reg .pred done; AGAIN: mbarrier.try_wait.parity.shared::cta.b64 done, [$0], $1;"
        " @!done bra AGAIN; }"
    )
    ptx(text, "r,r", [barrier, parity], loc=loc, ip=ip)


@dsl_user_op
def expect(barrier: Int32, count: Int32, *, loc=None, ip=None) -> None:
    """Arrive, and announce so many bytes."""
    ptx("mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;", "r,r", [barrier, count], loc=loc, ip=ip)


@dsl_user_op
def in_cta(address: Int32, rank: Int32, *, loc=None, ip=None) -> Int32:
    """The same place in the shared memory of another CTA of the cluster."""
    return Int32(
        ptx(
            "mapa.shared::cluster.u32 $0, $1, $2;", "=r,r,r", [address, rank], Int32.mlir_type, loc=loc, ip=ip
        )
    )


@dsl_user_op
def arrive(barrier: Int32, *, loc=None, ip=None) -> None:
    """At a barrier of any CTA of the cluster. (Release at cluster scope would cost a fence of all memory;
    what precedes are reads, complete since their values are in use.)"""
    ptx("mbarrier.arrive.shared::cluster.b64 _, [$0];", "r", [barrier], loc=loc, ip=ip)


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
def load_bytes_for_all(smem, address, count, barrier, policy, mask: int, *, loc=None, ip=None) -> None:
    """Like load_bytes, to the same place and barrier in each CTA of `mask`."""
    text = (
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint"
        " [$0], [$1], $2, [$3], $4, $5;"
    )
    operands = [smem, address, count, barrier, Int16(mask), Int64(policy)]
    ptx(text, "r,l,r,r,h,l", operands, loc=loc, ip=ip)


@dsl_user_op
def multiply(sums, weights, tokens: Int32, variant: Int32, variants, *, loc=None, ip=None) -> None:
    """A warpgroup: sums += weights @ tokens^T for 64 rows x variants[variant] tokens x 64 of K, later. On
    return the multiplication before this one is complete. sums: registers, a 64th of the fragment of
    the largest variant; weights: 16 registers; tokens: shared memory descriptor, lower half.

    The choice of the variant stays inside of one piece of assembly: the compiler then keeps the sums in
    place. With a branch around each variant it runs the multiplications one by one.
    """
    count = cute.size(sums)
    first = 2 * count
    descriptor = first + 4 * STEPS

    def one(height: int) -> list[str]:
        registers = ", ".join(f"${i}" for i in range(height // 2))
        lines = ["wgmma.fence.sync.aligned;"]
        for step in range(STEPS):
            a = ", ".join(f"${first + 4 * step + i}" for i in range(4))
            lines.append(
                f"wgmma.mma_async.sync.aligned.m64n{height}k16.f32.f16.f16 {{{registers}}}, {{{a}}}, d{step},"
                " 1, 1, 1, 0;"
            )
        return [*lines, "wgmma.commit_group.sync.aligned;"]

    def choose(low: int, high: int) -> list[str]:
        if high - low == 1:
            return one(variants[low])
        middle = (low + high) // 2
        test = f"setp.ge.s32 p, ${descriptor + 1}, {middle}; @p bra.uni FROM{middle};"
        below, above = choose(low, middle), choose(middle, high)
        return [test, *below, f"bra.uni UP{middle};", f"FROM{middle}:", *above, f"UP{middle}:"]

    lines = ["{ .reg .b64 d<4>; .reg .b32 low<4>; .reg .pred p;"]
    for step in range(STEPS):
        lines.append(f"add.s32 low{step}, ${descriptor}, {step * STEP_FIELD};")
        lines.append(f"mov.b64 d{step}, {{low{step}, {TOKENS_DESCRIPTOR >> 32}}};")
    lines += [*choose(0, len(variants)), "wgmma.wait_group.sync.aligned 1; }"]
    operands = [*weights, tokens, variant]
    update(sums, " ".join(lines), "r," * (4 * STEPS) + "r,r", operands, loc=loc, ip=ip)


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


def widen(word: Int32) -> list[Int32]:
    """Eight e2m1 as pairs of fp16, times 2^-6: values 1 and 3, 5 and 7, 0 and 2, 4 and 6."""
    high = select_bits(word, SIGNS, (word >> 2) & MAGNITUDES)
    low = select_bits(word << 4, SIGNS, (word << 2) & MAGNITUDES)
    return [*e4m3_to_halves(high), *e4m3_to_halves(low)]


def widen_scaled(words: list[Int32], scale: Int32) -> list[Int32]:
    """16 values of one row, which share a scale, as 8 registers: 2 per wgmma."""
    return [multiply_halves(pair, scale) for word in words for pair in widen(word)]


# ---- Device: tokens to fp16 --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Numbers of one group. `height` tokens per tile; `tokens_at` (KB) in the workspace; `items` (units
    of WIDEN_TOKENS tokens) to widen before this group."""

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
        picked = [cutlass.select_(here, new, old) for new, old in zip(groups[g], picked, strict=True)]
    return Group(*picked)


@cute.jit
def widen_tokens(config: cutlass.Constexpr, groups, items: Int32, workspace: Int64):
    """The multiplying warps of all CTAs: tokens to fp16, a lane one unit of a token.

    In the workspace the values of a unit stand in the order in which wgmma meets the weights. Of the unit's
    four blocks of 16 values, each has two words of eight, each gives four pairs: 16-byte chunk
    4 * word + pair holds that pair of all blocks.
    """
    warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
    lane = cute.arch.lane_idx()
    ctas = cute.arch.grid_dim()[0]
    first = warp * ctas + cute.arch.block_idx()[0]
    for item in cutlass.range(first, items, ctas * MULTIPLY_WARPS, unroll=1):
        index = Int32(0)
        for g in cutlass.range_constexpr(1, config.groups):
            index += Int32(item >= groups[g][5])
        group = pick(groups, index, config.groups)
        block = (item - group.items) // group.units
        unit = (item - group.items) - block * group.units
        token = block * WIDEN_TOKENS + lane
        if token < group.m:
            source = group.a + Int64(token) * Int64(group.units * (UNIT // 2)) + Int64(unit * (UNIT // 2))
            atom = Int64(token // ATOM_ROWS) * Int64(group.units) + Int64(unit)
            place = 16 * lane + 4 * (block % (ATOM_ROWS // WIDEN_TOKENS))
            words = load_words("global", source, 4) + load_words("global", source + 16, 4)
            scales = load_word("global.b32", group.sfa + atom * ATOM_BYTES + Int64(place))

            tile = token // group.height
            row = token - tile * group.height
            image = Int64(tile * group.units + unit) * Int64(group.height) + Int64(row)
            target = workspace + Int64(group.tokens_at) * 1024 + image * TOKEN_BYTES
            for chunk, pairs in enumerate(widen_unit(words, scales)):
                store_words(target + Int64((chunk ^ (row % 8)) * 16), pairs)


def widen_unit(words: list[Int32], scales: Int32) -> list[list[Int32]]:
    """Four blocks of two words, with a scale each, as 8 chunks of a pair of each block."""
    both = (scales_to_halves(scales), scales_to_halves(scales >> 16))
    blocks = []
    for block in range(4):
        halves = both[block // 2]
        scale = permute_bytes(halves, halves, 0x3232 if block % 2 else 0x1010)
        blocks.append(widen_scaled(words[2 * block : 2 * block + 2], scale))
    return [list(chunk) for chunk in zip(*blocks, strict=True)]


@dsl_user_op
def arrive_at_grid(counter: Int64, *, loc=None, ip=None) -> None:
    """One thread of each CTA, after a barrier of the CTA: what its threads wrote is there for all."""
    ptx("red.release.gpu.global.add.u64 [$0], 1;", "l", [counter], loc=loc, ip=ip)


@dsl_user_op
def wait_for_grid(counter: Int64, target: Int64, *, loc=None, ip=None) -> None:
    """Until that many CTAs arrived. What they wrote may then be read by TMA."""
    text = (
        "{ .reg .pred more; .reg .b64 seen; AGAIN: ld.relaxed.gpu.global.b64 seen, [$0];"
        " setp.lt.u64 more, seen, $1; @more bra AGAIN; fence.acq_rel.gpu; fence.proxy.async; }"
    )
    ptx(text, "l,l", [counter, target], loc=loc, ip=ip)


# ---- Device: the multiplication ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Shared:
    """Shared memory. full, empty: barriers load -> multiply and multiply -> load, one per slot; staging: C's;
    ring: the slots."""

    full: Int32
    empty: Int32
    staging: Int32
    ring: Int32


@cute.jit
def next_slot(config: cutlass.Constexpr, slot: Int32, parity: Int32):
    """One step in the ring; the parity of its barriers flips with each round."""
    slot += 1
    if slot == config.slots:
        slot = Int32(0)
        parity ^= 1
    return slot, parity


@cute.jit
def tile_of(config: cutlass.Constexpr, schedule: Int64, turn: Int32):
    """Group (-1: none), first row, tile along the tokens, variant of the cluster's tile in this turn."""
    clusters = cute.arch.grid_dim()[0] // config.cluster
    entry = turn * clusters + cute.arch.block_idx()[0] // config.cluster
    return load_words("global.nc", schedule + Int64(entry) * 16, 4)


@cute.jit
def load_tiles(
    config: cutlass.Constexpr,
    kind: cutlass.Constexpr,
    groups,
    schedule,
    turns,
    descriptors,
    workspace,
    counter,
    launches,
    shared,
    rank,
):
    """One thread of each loading warp: keep its part of the ring's units full."""
    if cutlass.const_expr(kind == WEIGHTS_WARP):
        first = cutlass.max(tile_of(config, schedule, Int32(0))[0], 0)
        prefetch_descriptor(descriptors + Int64(first) * 128)
    cute.arch.griddepcontrol_wait()
    if cutlass.const_expr(kind == TOKENS_WARP):
        wait_for_grid(counter, launches * Int64(cute.arch.grid_dim()[0]))

    slot, parity = Int32(0), Int32(1)  # on a fresh barrier, parity 1 counts as complete
    for turn in cutlass.range(turns, unroll=1):
        index, row, tile, _ = tile_of(config, schedule, turn)
        if index >= 0:
            group = pick(groups, index, config.groups)
            row += rank * TILE_ROWS
            token_bytes = group.height * TOKEN_BYTES
            place = PAIR * token_bytes
            if cutlass.const_expr(kind == WEIGHTS_WARP):
                source = descriptors + Int64(index) * 128
            elif cutlass.const_expr(kind == SCALES_WARP):
                atom_row = cutlass.min(row, group.n - 1) // ATOM_ROWS
                source = group.sfb + Int64(atom_row) * Int64(group.units * ATOM_BYTES)
                place += PAIR * WEIGHT_BYTES
            else:
                source = workspace + Int64(group.tokens_at) * 1024
                source += Int64(tile * group.units) * Int64(token_bytes)

            for unit in cutlass.range(0, group.units, PAIR, unroll=1):
                units = cutlass.min(group.units - unit, PAIR)
                full = shared.full + slot * 8
                smem = shared.ring + slot * config.slot_bytes
                wait(shared.empty + slot * 8, parity)
                if cutlass.const_expr(kind == WEIGHTS_WARP):
                    smem += place
                    expect(full, units * WEIGHT_BYTES)
                    load_box(smem, source, unit * (UNIT // 2), row, full, EVICT_FIRST)
                    if units == PAIR:
                        load_box(
                            smem + WEIGHT_BYTES, source, (unit + 1) * (UNIT // 2), row, full, EVICT_FIRST
                        )
                elif cutlass.const_expr(kind == SCALES_WARP):
                    expect(full, units * ATOM_BYTES)
                    load_bytes(smem + place, source, units * ATOM_BYTES, full, EVICT_FIRST)
                    source += PAIR * ATOM_BYTES
                else:
                    count = units * token_bytes
                    expect(full, count)
                    if cutlass.const_expr(config.cluster == 1):
                        load_bytes(smem, source, count, full, EVICT_LAST)
                    else:
                        part = count // config.cluster
                        mask = (1 << config.cluster) - 1
                        start = source + Int64(rank * part)
                        load_bytes_for_all(smem + rank * part, start, part, full, EVICT_LAST, mask)
                    source += Int64(PAIR * token_bytes)
                slot, parity = next_slot(config, slot, parity)


@cute.jit
def multiply_tiles(config: cutlass.Constexpr, groups, schedule, turns, shared, rank):
    """Two warpgroups, 64 rows each."""
    warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
    lane = cute.arch.lane_idx()
    # Where a thread's fragment lies in a unit: rows r and r + 8, of each the c-th of four 8 B (16 values)
    fragment_row, fragment_k = warp * 16 + lane // 4, lane % 4
    weights_at = fragment_row * (UNIT // 2) + fragment_k * 8
    scales_at = 16 * (fragment_row % 32) + 4 * (fragment_row // 32) + fragment_k

    empty = in_cta(shared.empty, lane % config.cluster)
    releases = lane < config.cluster

    slot, parity = Int32(0), Int32(0)
    for turn in cutlass.range(turns, unroll=1):
        index, row, tile, variant = tile_of(config, schedule, turn)
        if index >= 0:
            group = pick(groups, index, config.groups)
            variant = cute.arch.make_warp_uniform(variant)
            units = cute.arch.make_warp_uniform(group.units)
            token_bytes = cute.arch.make_warp_uniform(group.height) * TOKEN_BYTES
            weights_in = shared.ring + PAIR * token_bytes + weights_at
            scales_in = shared.ring + PAIR * (token_bytes + WEIGHT_BYTES) + scales_at
            tokens_in = (shared.ring >> 4) | (TOKENS_DESCRIPTOR & 0xFFFFFFFF)
            sums = cute.make_rmem_tensor(config.variants[-1] // 2, Float32)
            sums.fill(0.0)

            # Values of the next unit are on their way from shared memory while this one is widened.
            last = slot
            wait(shared.full + slot * 8, parity)
            start = slot * config.slot_bytes
            values = load_fragment(weights_in + start, scales_in + start)
            for pair in cutlass.range(units // PAIR, unroll=1):
                following = load_fragment(weights_in + start + WEIGHT_BYTES, scales_in + start + ATOM_BYTES)
                tokens = tokens_in + (start >> 4)
                multiply(sums, widen_fragment(values), tokens, variant, config.variants)
                if releases and pair > 0:
                    arrive(empty + last * 8)
                last = slot
                slot, parity = next_slot(config, slot, parity)
                values = following
                if PAIR * pair + PAIR < units:
                    wait(shared.full + slot * 8, parity)
                    start = slot * config.slot_bytes
                    values = load_fragment(weights_in + start, scales_in + start)
                multiply(
                    sums, widen_fragment(following), tokens + (token_bytes >> 4), variant, config.variants
                )
            if units % PAIR == 1:
                multiply(sums, widen_fragment(values), tokens_in + (start >> 4), variant, config.variants)
                if releases and units > 1:
                    arrive(empty + last * 8)
                last = slot
                slot, parity = next_slot(config, slot, parity)
            finish(sums)
            if releases:
                arrive(empty + last * 8)
            first_row = row + rank * TILE_ROWS + warp * 16
            store_tile(config, sums, group, first_row, tile * group.height, shared, warp, lane)


@cute.jit
def load_fragment(weights: Int32, scales: Int32):
    """A thread's share of 64 rows x 64 of K, packed: 16 values of row r, of row r + 8, a scale of each."""
    upper = load_words("shared", weights, 2)
    lower = load_words("shared", weights + 8 * UNIT // 2, 2)
    return (
        upper[0],
        upper[1],
        lower[0],
        lower[1],
        load_word("shared.u8", scales),
        load_word("shared.u8", scales + 8 * 16),
    )


def widen_fragment(values) -> list[Int32]:
    """A thread's share as wgmma wants it: (row, k), (row + 8, k), (row, k + 8), (row + 8, k + 8) per step."""
    upper, lower = values[0:2], values[2:4]
    both = scales_to_halves(values[4] | (values[5] << 8))
    upper = widen_scaled(upper, permute_bytes(both, both, 0x1010))
    lower = widen_scaled(lower, permute_bytes(both, both, 0x3232))
    return [half for pair in zip(upper, lower, strict=True) for half in pair]


@cute.jit
def store_tile(config: cutlass.Constexpr, sums, group, row, token, shared, warp, lane):
    """A warp's 16 rows (32 B of a row of C): 32 tokens at a time through shared memory."""
    staging = shared.staging + warp * WARP_STAGING_BYTES
    matrix, matrix_row = lane // 8, lane % 8
    target = staging + (8 * (matrix // 2) + matrix_row) * 32 + 16 * (matrix % 2)
    limit = cutlass.min(group.m, token + group.height)
    for first in cutlass.range_constexpr(0, config.variants[-1], 32):
        if token + first < limit:
            blocks = min(4, (config.variants[-1] - first) // 8)
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
    config: cutlass.Constexpr,
    descriptors,
    groups,
    turns: Int32,
    items: Int32,
    launches: Int64,
    schedule: Int64,
    workspace: Int64,
    counter: Int64,
):
    warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
    rank = cute.arch.make_warp_uniform(cute.arch.block_idx_in_cluster())
    descriptors = descriptor_address(descriptors[0])
    full = cute.arch.get_dyn_smem(Int64, alignment=1024)
    empty = full + config.slots
    # As the result of a shuffle, the address is not computed again at each use.
    start = cute.arch.make_warp_uniform(full.toint())
    staging = start + HEADER_BYTES
    ring = staging + MULTIPLY_WARPS * WARP_STAGING_BYTES
    shared = Shared(start, start + config.slots * 8, staging, ring)

    if warp == WEIGHTS_WARP:
        with cute.arch.elect_one():
            for i in cutlass.range_constexpr(config.slots):
                cute.arch.mbarrier_init(full + i, LOADERS)
                cute.arch.mbarrier_init(empty + i, MULTIPLY_WARPS * config.cluster)
            cute.arch.mbarrier_init_fence()
    cute.arch.griddepcontrol_launch_dependents()
    cute.arch.cluster_arrive_relaxed()
    cute.arch.cluster_wait()

    if warp >= WEIGHTS_WARP:
        cute.arch.setmaxregister_decrease(LOAD_REGISTERS)
        for kind in cutlass.range_constexpr(WEIGHTS_WARP, WEIGHTS_WARP + LOADERS):
            if warp == kind:
                with cute.arch.elect_one():
                    load_tiles(
                        config,
                        kind,
                        groups,
                        schedule,
                        turns,
                        descriptors,
                        workspace,
                        counter,
                        launches,
                        shared,
                        rank,
                    )
        cute.arch.sync_warp()
    else:
        cute.arch.setmaxregister_increase(MULTIPLY_REGISTERS)
        cute.arch.griddepcontrol_wait()
        widen_tokens(config, groups, items, workspace)
        cute.arch.barrier(barrier_id=1, number_of_threads=32 * MULTIPLY_WARPS)
        if cute.arch.thread_idx()[0] == 0:
            arrive_at_grid(counter)
        multiply_tiles(config, groups, schedule, turns, shared, rank)

    # No CTA may leave while another still writes to its shared memory or arrives at its barriers.
    cute.arch.cluster_arrive_relaxed()
    cute.arch.cluster_wait()


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


COMMON_NUMBERS = 3  # CTAs, turns, items
GROUP_NUMBERS = 5  # m, n, k, height, place in the workspace
GROUP_ADDRESSES = 5  # a, b, sfa, sfb, c


class Arguments:
    """Arguments of `launch`: memory that is written anew for each call (the DSL's JIT argument protocol).

    numbers: COMMON_NUMBERS, then GROUP_NUMBERS of each group. addresses: launches so far with this one,
    schedule, workspace, counter, then
    GROUP_ADDRESSES of each group.
    """

    def __init__(self, groups: int) -> None:
        self.numbers = (ctypes.c_int32 * (COMMON_NUMBERS + GROUP_NUMBERS * groups))()
        self.addresses = (ctypes.c_int64 * (4 + GROUP_ADDRESSES * groups))()
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
    numbers, (launches, schedule, workspace, counter, *addresses) = arguments
    ctas, turns, total = numbers[:COMMON_NUMBERS]
    maps, groups = [], []
    items = Int32(0)
    for g in cutlass.range_constexpr(config.groups):
        start = COMMON_NUMBERS + GROUP_NUMBERS * g
        m, n, k, height, tokens_at = numbers[start : start + GROUP_NUMBERS]
        a, b, sfa, sfb, c = addresses[GROUP_ADDRESSES * g : GROUP_ADDRESSES * (g + 1)]
        units = k // UNIT
        maps.append(encode_weights(b, n, k))
        groups.append((m, n, units, height, tokens_at, items, a, sfa, sfb, c))
        items += cute.ceil_div(m, WIDEN_TOKENS) * units
    grouped_gemm(
        config, tuple(maps), tuple(groups), turns, total, launches, schedule, workspace, counter
    ).launch(
        grid=(ctas, 1, 1),
        block=(THREADS, 1, 1),
        cluster=(config.cluster, 1, 1),
        smem=SMEM_BYTES,
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


def tile_cost(tokens: int, units: int, cluster: int) -> int:
    """Cycles of a tile: two warpgroups at tokens / 2 cycles per wgmma, or the widening of the weights, or an
    SM's share of what L2 delivers."""
    traffic = tokens * TOKEN_BYTES // cluster + OTHER_BYTES
    return units * max(4 * tokens, MIN_UNIT_CYCLES, traffic // L2_BYTES_PER_CYCLE) + TILE_CYCLES


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


@dataclass(frozen=True)
class Tiling:
    """CTAs per cluster, how many clusters run at a time, each group's number of tiles along the tokens."""

    sizes: Sizes
    cluster: int
    clusters: int
    counts: tuple[int, ...]

    def heights(self) -> list[int]:
        """Tokens of a tile of each group, of few different numbers."""
        heights = [height_of(m, count) for (m, _, _, _), count in zip(self.sizes, self.counts, strict=True)]
        while len(set(heights)) > MAX_VARIANTS:
            ordered = sorted(set(heights))
            low, high = min(pairwise(ordered), key=lambda pair: pair[1] / pair[0])
            heights = [high if height == low else height for height in heights]
        return heights

    def tiles(self) -> list[tuple[int, int, int, int]]:
        """(group, first row, tile along the tokens, cost) of every tile."""
        rows_per_tile = self.cluster * TILE_ROWS
        return [
            (g, row, tile, tile_cost(height, k // UNIT, self.cluster))
            for g, ((m, n, k, _), height) in enumerate(zip(self.sizes, self.heights(), strict=True))
            for row in range(0, n, rows_per_tile)
            for tile in range(-(-m // height))
        ]

    def cost(self) -> int:
        return spread([cost for *_, cost in self.tiles()], self.clusters)[0]


def choose_tiling(sizes: Sizes, clusters: dict[int, int]) -> Tiling:
    """As few tiles as fit, or a few more if that balances the load better; for each size of cluster."""
    least = tuple(-(-m // MAX_TOKENS) for m, _, _, _ in sizes)
    found = []
    for cluster, count in clusters.items():
        best = Tiling(sizes, cluster, count, least)
        cost = best.cost()
        if len(best.tiles()) <= 4 * MAX_TILES_TO_SEARCH:
            for g in range(len(sizes) if len(best.tiles()) < MAX_TILES_TO_SEARCH else 0):
                for more in (1, 2, 3):
                    counts = (*best.counts[:g], least[g] + more, *best.counts[g + 1 :])
                    tried = Tiling(sizes, cluster, count, counts)
                    if (new := tried.cost()) < cost:
                        best, cost = tried, new
        found.append((cost, best))
    return min(found, key=lambda pair: pair[0])[1]


class Plan:
    """How problems of given sizes are run."""

    def __init__(self, sizes: Sizes, clusters: dict[int, int]) -> None:
        check_sizes(sizes)
        tiling = choose_tiling(sizes, clusters)
        heights = tiling.heights()
        variants = tuple(sorted(set(heights)))
        self.config = Config(len(sizes), tiling.cluster, variants)
        self.expected = tuple(expected_tensors(*size[:3]) for size in sizes)

        per_group, used, items = [], 0, 0
        for (m, n, k, _), height in zip(sizes, heights, strict=True):
            per_group += [m, n, k, height, used // 1024]
            used += -(-m // height) * (k // UNIT) * height * TOKEN_BYTES
            items += -(-m // WIDEN_TOKENS) * (k // UNIT)
        tiles = tiling.tiles()
        _, taken = spread([cost for *_, cost in tiles], tiling.clusters)
        taken = [worker for worker in taken if worker]
        turns = max(map(len, taken))
        self.numbers = [len(taken) * tiling.cluster, turns, items, *per_group]
        self.workspace_bytes = used
        self.launches = 0
        entries = [(g, row, tile, variants.index(heights[g])) for g, row, tile, _ in tiles]
        self.table = [
            entries[worker[turn]] if turn < len(worker) else (-1, 0, 0, 0)
            for turn in range(turns)
            for worker in taken
        ]


@cache
def possible_clusters(device: int) -> dict[int, int]:
    """How many clusters of each size run at a time."""
    hardware = cutlass.utils.HardwareInfo(device)
    return {size: hardware.get_max_active_clusters(size) for size in CLUSTERS}


COUNTER_BYTES = 1024


@lru_cache(maxsize=64)
def planned(sizes: Sizes, device: int) -> tuple[Plan, torch.Tensor, torch.Tensor]:
    """The plan, its schedule, and a workspace on the device that begins with the count of arrivals."""
    plan = Plan(sizes, possible_clusters(device))
    schedule = torch.tensor(plan.table, dtype=torch.int32).to("cuda")
    workspace = torch.zeros(COUNTER_BYTES + plan.workspace_bytes, dtype=torch.uint8, device="cuda")
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
    start = workspace.data_ptr()
    addresses = [plan.launches + 1, schedule.data_ptr(), start + COUNTER_BYTES, start]
    for g, expected in enumerate(plan.expected):
        (a, b, c), (sfa, sfb) = abc[g], scales[g]
        named = zip(OPERANDS, (a, b, sfa, sfb, c), expected, strict=True)
        addresses += [checked_address(tensor, kind, g, name) for name, tensor, kind in named]

    function, arguments = compiled(plan.config)
    arguments.numbers[:] = plan.numbers
    arguments.addresses[:] = addresses
    function(arguments)
    plan.launches += 1
    return [c for _, _, c in abc]
