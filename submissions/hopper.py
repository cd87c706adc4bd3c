#!POPCORN leaderboard nvfp4_group_gemm
#!POPCORN gpu H100

"""Grouped NVFP4 GEMM for Hopper (sm_90a): C[g] = (A[g] * SFA[g]) @ (B[g] * SFB[g])^T, all groups at once.

A (M x K) holds tokens, B (N x K) weights, both e2m1 with one e4m3 scale per 16 values along K; C (M x N) is
fp16. Hopper multiplies no 4-bit values, but e2m1 * e4m3 has six significant bits and so is exact in fp16:

* Swapped operands: weights are the A side of wgmma (64 rows each), tokens its B side (any multiple of 8).
* Weights stay 4-bit until they are in registers: each thread widens the values of its wgmma fragment. Shifts
  and masks make the upper bytes of four fp16 at a time (the lower ones are zero), and one multiplication per
  pair brings in the scale. (Both factors are powers of two off; sums are multiplied at the end.) All of it is
  exact.
* Tokens are needed by every row of tiles, so all CTAs together widen them once, into a workspace that holds
  them as shared memory wants them: swizzled, in tiles, in the order of K in which the weights come out. A
  barrier of the grid follows (a counter in memory; another one for those who widen what is needed first).
  What it takes is hidden: each cluster also widens the head of its first tile, a few stages, for itself, and
  multiplies that meanwhile. Its two CTAs share that work and send each other what they have, stage by stage.
  The plan says who widens what.
* CTAs are persistent: two warps load (TMA), three warpgroups multiply, each 64 weight rows of the tile. While
  the tensor core works on 64 of K, the next 64 are widened. Stages go by fours: their places in shared memory
  are constants then, and K counts as if zeros made it a multiple of 512. The two CTAs of a cluster take
  weight rows below each other and share the tokens: each loads half of them for both. Where that leaves too
  few tokens for a tile (weights are widened once per tile, and below some 100 tokens that takes longer than
  to multiply them), only two warpgroups multiply, and tiles have fewer rows and more tokens. Where a group's
  last rows would leave warpgroups without work, these do not multiply either.
* The host plans who does what. Where whole tiles would leave CTAs idle, some are cut along K: each CTA but
  one leaves its sums in the workspace, and the one that began the tile adds them to its own, in order.

Launches are chained (PDL): while the previous launch ends, a CTA is set up, computes the addresses that it
needs first and has fetched into L2 what lies there. It waits for that end before it reads any input. (The
plan in memory, which it reads before, was written by the host, once.)

In this file "row" is a weight row (index along N), "token" a row of A (index along M), "stage" 128 of K,
"wide" means fp16.
"""

import ctypes
import heapq
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import accumulate, chain, combinations_with_replacement, islice, pairwise, takewhile

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

STAGE = 128  # of K: what the barriers count
UNROLLED = 4  # stages in a turn of the loop over them: K is taken as if zeros made it a multiple of 512
HALF_STEPS = 4  # wgmmas of half a stage, which is widened at a time
MMA_K = 16
WARPGROUP_ROWS = 64
CLUSTER = 2  # CTAs with weight rows below each other, which share their tokens
MAX_TOKENS = 192  # of a tile: 96 accumulator registers
TOKENS_MULTIPLE = 8
MAX_VARIANTS = 8  # tile heights (tokens) in one kernel
UNUSED_HEIGHT = 8

# A scale atom is 128 rows x 64 of K = 128 x 4 scales. Atoms of one block of 128 rows follow each other along
# K. Inside: byte 16 * (row % 32) + 4 * (row / 32) + scale.
ATOM_ROWS = 128
ATOM_K = 64
ATOM_BYTES = 512
ATOM_WORDS = ATOM_BYTES // 4

# Two rings in shared memory, of stages (T: the tile's tokens):
#   tokens   2 x T rows of 128 B (fp16, 128 B swizzle), by turns 8 with the even blocks of 16 of K and 8 of
#            the same tokens with the odd ones. Stages of different tiles lie one behind the other; what would
#            cross the ring's end begins at its start.
#   weights  128 or 192 rows of 64 B | scales: 1 x 2 or 2 x 2 atoms (rows x K)
PACKED_ROW_BYTES = STAGE // 2
TOKEN_ROW_BYTES = 128
TOKEN_BYTES = 2 * TOKEN_ROW_BYTES  # of a stage

HEADER_BYTES = 2048  # mbarriers, then what varies by group, then segments
GROUPS_AT = 352
GROUP_BYTES = 32  # where a, sfa and c are; m and n
SEGMENTS_AT = GROUPS_AT + GROUP_BYTES * MAX_GROUPS  # those that are being worked on, by turns
SEGMENTS = 8  # a power of two, more than WEIGHT_STAGES + 2
STAGED_TOKENS = 32  # of C at a time, 64 rows (128 B) each
STAGING_BYTES = STAGED_TOKENS * 2 * WARPGROUP_ROWS
SMEM_BYTES = 227 * 1024
MIN_TOKEN_STAGES = 3  # of the largest tile's tokens
MAX_TOKEN_STAGES = 2 * UNROLLED  # in the ring at once
WEIGHT_STAGES = UNROLLED
EARLY_STAGES = 2  # of weights: fetched into L2 before the previous launch has ended, and loaded before tokens
MAX_ARRIVALS = 2**20 - 1  # of an mbarrier's phase

COUNTED_PER_LAUNCH = 1024  # by all CTAs when the grid meets: a power of two, at least their number
URGENT_AT = 512  # bytes behind that counter: the one of those who widen what is urgent

WIDEN_WARPS = 12  # three warpgroups: all of them, or the first two, multiply then
WEIGHTS_WARP = WIDEN_WARPS  # loads weights
TOKENS_WARP = WEIGHTS_WARP + 1  # loads tokens
SEND_WARP = TOKENS_WARP + 1  # sends its CTA's share of a head to the other one, then announces parts
HEAD_WARP = SEND_WARP + 1  # hands a head on to those who multiply
LOAD_WARPS = 4
THREADS = 32 * (WIDEN_WARPS + LOAD_WARPS)

# Tokens are widened by 12 warps, 16 of a stage at a time: two times two swizzle atoms.
WIDEN_TOKENS = 16
SWIZZLE_ROWS = 8
SWIZZLE_BYTES = SWIZZLE_ROWS * TOKEN_ROW_BYTES
SCRATCH_BYTES = WIDEN_TOKENS * TOKEN_BYTES
MAX_STAGE_UNITS = MAX_TOKENS // WIDEN_TOKENS
MAX_HEAD_STAGES = 7  # three bits of a segment
HEAD_WORDS = MAX_HEAD_STAGES + 1  # of a CTA in the plan: of each stage of a head one
WRITTEN_OUT = 4  # units of a warp of which each has its own code
STAGES_OF_ALL = 2  # of a head: when they are widened, those go on alone who do not multiply

# Named barriers; of how many threads those are in which all who widen meet one more warp
WIDENING_AND_ONE = 32 * (WIDEN_WARPS + 1)
TOKENS_ARE_WIDE = 1
FIRST_WARPGROUP_BARRIER = 2
GRID_HAS_MET = FIRST_WARPGROUP_BARRIER + WIDEN_WARPS // 4
GROUPS_ARE_THERE = GRID_HAS_MET + 1
SCRATCH_IS_FREE = GROUPS_ARE_THERE + 1
FIRST_ARE_WIDE = SCRATCH_IS_FREE + 1

# A part of a tile's sums in the workspace: flags, one per warp, then per 8 tokens 16 B of each thread
FLAG_BYTES = 4 * WIDEN_WARPS
PIECE_BYTES = 16 * 32 * WIDEN_WARPS
ADD_BATCH = 12  # pieces under way at a time

# ---- Encodings ---------------------------------------------------------------------------------------------

# Bytes of a register: e2m1's sign and magnitude in the place of fp16's sign, low exponent bits, high mantissa
# bit. What is 2^-14 too small then, and partly subnormal, a scale 2^7 too large makes normal again: wgmma
# would align products of subnormal values by their format's smallest exponent and cut others off too early.
SIGNS = -0x77777778  # 0x88888888, of all eight values
MAGNITUDES = 0x0E0E0E0E
SELECT = 0xE2  # lop3: of the first where the second has ones, of the third elsewhere
UPPER_BYTES = -0xFF0100  # 0xFF00FF00
LIFT = 0x5800_5800  # 2^7, as two fp16
BIAS = 2.0**14  # 2^7 for weights and tokens each

# wgmma shared memory descriptor without its address: K-major, 128 B swizzle, 2048 B from 8 rows to the next
TOKENS_DESCRIPTOR = 1 << 62 | (2 * SWIZZLE_BYTES >> 4) << 32 | 1 << 16
STEP_FIELD = 2 * MMA_K >> 4

# Cost model for the plan, in ns, fitted to the times of phases of 132 CTAs on an H200 (stages within 4 %) and
# to what whole plans took there; stages are below. Of the rest: least, and per token.
STORE_NS = 700, 6  # sums to C, and the first stage on its way
WRITE_NS = 500, 7  # sums to the workspace, likewise
ADD_NS = 400, 12  # and from there
MAX_TILES_TO_SEARCH = 1024
MAX_LESS_EVEN = 24  # tilings with one taller tile that are tried
LIMIT_STEP = 1.0025  # from one end that is tried to the next
WORTH_CUTTING = 0.99  # of the time that whole tiles take: by less the model may err
SLACK = 0.98  # a worker with so much of the limit is full: the rest is too little for a piece
MAX_SET = 3  # whole tiles that are looked for together

EVICT_FIRST = 0x12F0_0000_0000_0000
EVICT_LAST = 0x14F0_0000_0000_0000


@dataclass(frozen=True, repr=False)
class Geometry:
    """How many warpgroups multiply (64 rows each), and what follows. registers: of a thread there, of those
    that load, and of those that only widen tokens (`setmaxnreg`). head_ns: of multiplications, until the
    first tokens come from the workspace."""

    warpgroups: int
    registers: tuple[int, int, int]
    head_ns: int

    def __repr__(self) -> str:  # part of the kernel's name
        return f"Geometry({self.warpgroups})"

    def __post_init__(self) -> None:
        assert self.token_ring_bytes >= MIN_TOKEN_STAGES * MAX_TOKENS * TOKEN_BYTES

    @property
    def warps(self) -> int:
        return 4 * self.warpgroups

    @property
    def helpers(self) -> int:
        """Warps that only widen tokens."""
        return WIDEN_WARPS - self.warps

    @property
    def cta_rows(self) -> int:
        return self.warpgroups * WARPGROUP_ROWS

    @property
    def tile_rows(self) -> int:
        return CLUSTER * self.cta_rows

    @property
    def scale_rows(self) -> int:
        """Rows of atoms in which a CTA's rows lie."""
        return 1 if self.cta_rows % ATOM_ROWS == 0 else 2

    @property
    def weight_bytes(self) -> int:
        return self.cta_rows * PACKED_ROW_BYTES

    @property
    def slot_bytes(self) -> int:
        """A stage of weights and their scales."""
        return self.weight_bytes + self.scale_rows * 2 * ATOM_BYTES

    @property
    def staging_bytes(self) -> int:
        """Of C: two buffers for each warpgroup."""
        return 2 * self.warpgroups * STAGING_BYTES

    @property
    def token_ring_bytes(self) -> int:
        others = HEADER_BYTES + self.staging_bytes + WEIGHT_STAGES * self.slot_bytes
        return (SMEM_BYTES - others) // 1024 * 1024


# (tokens, ns) of a stage if so many warpgroups multiply; between them straight lines.
UP_TO_TWO = ((8, 335), (40, 380), (64, 420), (96, 508), (128, 600), (160, 739), (192, 884))
THREE = (
    *((8, 460), (40, 515), (64, 584), (80, 645), (96, 682), (112, 765)),
    *((128, 872), (160, 1075), (192, 1310)),
)


def stage_ns(warpgroups: int, height: int) -> float:
    stage_times = THREE if warpgroups == 3 else UP_TO_TWO
    for (low, low_ns), (high, high_ns) in pairwise(stage_times):
        if height <= high:
            return low_ns + (height - low) / (high - low) * (high_ns - low_ns)
    raise AssertionError(height)


GEOMETRIES = (
    Geometry(warpgroups=3, registers=(160, 32, 0), head_ns=2600),
    Geometry(warpgroups=2, registers=(184, 40, 104), head_ns=2100),
)


@dataclass(frozen=True)
class Config:
    """What the kernel is compiled for: who multiplies, how many groups there are, and which heights (tokens)
    tiles have, ascending. narrow: there are tiles in which not all warpgroups multiply."""

    geometry: Geometry
    groups: int
    heights: tuple[int, ...]
    narrow: bool

    @property
    def variants(self) -> tuple[int, ...]:
        """Heights to choose from. At least two, where that is possible: without a branch between them the
        compiler puts whatever it likes between the wgmmas of a group, which costs time."""
        single = len(self.heights) == 1
        return tuple(sorted({*self.heights, UNUSED_HEIGHT})) if single else self.heights

    @property
    def max_height(self) -> int:
        return self.heights[-1]

    def token_stages(self, height: int) -> int:
        """How many stages of tokens the ring holds, if all are of one height."""
        return min(self.geometry.token_ring_bytes // (height * TOKEN_BYTES), MAX_TOKEN_STAGES)

    def room(self, scratches: int) -> int:
        """In the ring of tokens, in bytes, beside that for widening what others need, by so many warps."""
        beyond = max(0, scratches - self.geometry.staging_bytes // SCRATCH_BYTES)
        return self.geometry.token_ring_bytes - beyond * SCRATCH_BYTES

    def head_stages(self, height: int, scratches: int) -> int:
        """How many of its first tile a CTA widens itself: to be busy until others' tokens are there, if there
        is room in the ring, beside that for widening what others need, by so many warps."""
        stages = -(-self.geometry.head_ns // stage_ns(self.geometry.warpgroups, height))
        return int(min(stages, self.room(scratches) // (height * TOKEN_BYTES), MAX_HEAD_STAGES))


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


def structure(kinds: list[str]) -> ir.Type:
    return ir.Type.parse(f"!llvm.struct<({', '.join(kinds)})>")


def fields(kind, result, indices: range, *, loc=None, ip=None) -> list:
    return [kind(llvm.extractvalue(kind.mlir_type, result, [i], loc=loc, ip=ip)) for i in indices]


REGISTERS = {Int32: ("b32", "r", "i32"), Int64: ("b64", "l", "i64"), Float32: ("f32", "f", "f32")}


@dsl_user_op
def load_vector(place: str, address, count: int, kind=Int32, *, loc=None, ip=None) -> list:
    """2 or 4 registers of a kind from `place` (ld.`place`)."""
    name, letter, element = REGISTERS[kind]
    registers = ", ".join(f"${i}" for i in range(count))
    text = f"ld.{place}.v{count}.{name} {{{registers}}}, [${count}];"
    pointer = "l" if isinstance(address, Int64) else "r"
    results = structure([element] * count)
    result = ptx(text, f"={letter}," * count + pointer, [address], results, loc=loc, ip=ip)
    return fields(kind, result, range(count), loc=loc, ip=ip)


@dsl_user_op
def store_vector(place: str, address, values: list, kind=Int32, *, loc=None, ip=None) -> None:
    """2 or 4 registers of a kind to `place` (st.`place`)."""
    name, letter, _ = REGISTERS[kind]
    registers = ", ".join(f"${i + 1}" for i in range(len(values)))
    text = f"st.{place}.v{len(values)}.{name} [$0], {{{registers}}};"
    pointer = "l" if isinstance(address, Int64) else "r"
    ptx(text, pointer + f",{letter}" * len(values), [address, *values], loc=loc, ip=ip)


@dsl_user_op
def load_word(place: str, address, *, loc=None, ip=None) -> Int32:
    """One register; `place` says of which width (.u16)."""
    text = f"ld.{place} $0, [$1];"
    kind = "l" if isinstance(address, Int64) else "r"
    return Int32(ptx(text, f"=r,{kind}", [address], Int32.mlir_type, loc=loc, ip=ip))


@dsl_user_op
def store_word(address: Int32, word: Int32, *, loc=None, ip=None) -> None:
    """4 B to shared memory."""
    ptx("st.shared.b32 [$0], $1;", "r,r", [address, word], loc=loc, ip=ip)


@dsl_user_op
def packed_pair(low: Int32, high: Int32, *, loc=None, ip=None) -> Int64:
    """Two registers as one of 64 bit."""
    return Int64(ptx("mov.b64 $0, {$1, $2};", "=l,r,r", [low, high], Int64.mlir_type, loc=loc, ip=ip))


@dsl_user_op
def scale_halves(pair: Int32, scales: Int32, half: int, *, loc=None, ip=None) -> Int32:
    """Two fp16 times the low or the high half of `scales` (which an operand of HMUL2 selects)."""
    text = (
        "{ .reg .b16 low, high; .reg .b32 both; mov.b32 {low, high}, $2; mov.b32 both, {CHOSEN, CHOSEN};"
        " mul.rn.f16x2 $0, $1, both; }"
    ).replace("CHOSEN", ("low", "high")[half])
    return pure(text, "=r,r,r", [pair, scales], loc=loc, ip=ip)


@dsl_user_op
def scales_to_halves(pair: Int32, *, loc=None, ip=None) -> Int32:
    """Two ue4m3 in the low 16 bits to two fp16, times 2^7; their highest bits are ignored."""
    text = (
        "{ .reg .b16 low, high; .reg .b32 both, lift; mov.b32 {low, high}, $1;"
        " cvt.rn.f16x2.e4m3x2 both, low; abs.f16x2 both, both;"
        f" mov.b32 lift, {LIFT}; mul.rn.f16x2 $0, both, lift; }}"
    )
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


TRY_UNTIL_DONE = "AGAIN: mbarrier.try_wait.parity.shared::cta.b64 done, [$0], $1; @!done bra AGAIN;"


@dsl_user_op
def wait(barrier: Int32, parity: Int32, *, loc=None, ip=None) -> None:
    """Until the phase of that parity is complete. (By address: a DSL pointer costs a detour each time.)"""
    ptx(f"{{ .reg .pred done; {TRY_UNTIL_DONE} }}", "r,r", [barrier, parity], loc=loc, ip=ip)


@dsl_user_op
def is_complete(barrier: Int32, parity: Int32, *, loc=None, ip=None) -> Int32:
    """1 if the phase of that parity is complete, else 0, at once."""
    text = (
        "{ .reg .pred done; mbarrier.test_wait.parity.shared::cta.b64 done, [$1], $2;"
        " selp.b32 $0, 1, 0, done; }"
    )
    return Int32(ptx(text, "=r,r,r", [barrier, parity], Int32.mlir_type, loc=loc, ip=ip))


@dsl_user_op
def wait_unless(complete: Int32, barrier: Int32, parity: Int32, *, loc=None, ip=None) -> None:
    """`wait` unless it is known that the phase is complete."""
    text = f"{{ .reg .pred done; setp.ne.s32 done, $2, 0; @done bra DONE; {TRY_UNTIL_DONE} DONE: }}"
    ptx(text, "r,r,r", [barrier, parity, complete], loc=loc, ip=ip)


@dsl_user_op
def expect(barrier: Int32, count: Int32, *, loc=None, ip=None) -> None:
    """Arrive, and announce so many bytes."""
    ptx("mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;", "r,r", [barrier, count], loc=loc, ip=ip)


@dsl_user_op
def arrive(barrier: Int32, *, loc=None, ip=None) -> None:
    ptx("mbarrier.arrive.shared::cta.b64 _, [$0];", "r", [barrier], loc=loc, ip=ip)


@dsl_user_op
def arrive_often(barrier: Int32, count: Int32, *, loc=None, ip=None) -> None:
    """As so many."""
    ptx("mbarrier.arrive.shared::cta.b64 _, [$0], $1;", "r,r", [barrier, count], loc=loc, ip=ip)


@dsl_user_op
def in_cta(address: Int32, rank: Int32, *, loc=None, ip=None) -> Int32:
    """The same place in the shared memory of another CTA of the cluster."""
    text = "mapa.shared::cluster.u32 $0, $1, $2;"
    return Int32(ptx(text, "=r,r,r", [address, rank], Int32.mlir_type, loc=loc, ip=ip))


@dsl_user_op
def arrive_in_cluster(barrier: Int32, *, loc=None, ip=None) -> None:
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
def prefetch_box(descriptor, x, y, *, loc=None, ip=None) -> None:
    """Like `prefetch`, and the descriptor too."""
    text = "cp.async.bulk.prefetch.tensor.2d.L2.global.tile [$0, {$1, $2}];"
    ptx(text, "l,r,r", [descriptor, x, y], loc=loc, ip=ip)


@dsl_user_op
def load_bytes_for_all(smem, address, count, barrier, policy, *, loc=None, ip=None) -> None:
    """Global memory to the same place in each CTA of the cluster, and to its barrier."""
    text = (
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint"
        " [$0], [$1], $2, [$3], $4, $5;"
    )
    operands = [smem, address, count, barrier, Int16((1 << CLUSTER) - 1), Int64(policy)]
    ptx(text, "r,l,r,r,h,l", operands, loc=loc, ip=ip)


@dsl_user_op
def send_bytes(smem: Int32, count: Int32, barrier: Int32, rank: Int32, *, loc=None, ip=None) -> None:
    """One thread: to the same place in the shared memory of another CTA of the cluster, and its barrier."""
    text = (
        "{ .reg .b32 there, done;"
        " mapa.shared::cluster.u32 there, $0, $3; mapa.shared::cluster.u32 done, $2, $3;"
        " cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [there], [$0], $1, [done]; }"
    )
    ptx(text, "r,r,r,r", [smem, count, barrier, rank], loc=loc, ip=ip)


@dsl_user_op
def shared_proxy_fence(*, loc=None, ip=None) -> None:
    """This thread's accesses to shared memory come before later bulk copies there."""
    ptx("fence.proxy.async.shared::cta;", "", loc=loc, ip=ip)


@dsl_user_op
def global_proxy_fence(*, loc=None, ip=None) -> None:
    """This thread's writes to global memory come before later bulk copies. (By who writes, and of global
    memory alone, it is cheap; of all memory, by who waits, it would cost a MEMBAR.)"""
    ptx("fence.proxy.async.global;", "", loc=loc, ip=ip)


@dsl_user_op
def prefetch(address: Int64, *, loc=None, ip=None) -> None:
    """A line into L2. Nothing is read: what the previous launch may still write stays valid."""
    ptx("prefetch.global.L2 [$0];", "l", [address], loc=loc, ip=ip)


@dsl_user_op
def count_when_all_met(counter: Int64, *, loc=None, ip=None) -> Int32:
    """What the counter will say. It grows by COUNTED_PER_LAUNCH; this CTA has not arrived yet."""
    text = (
        "{ .reg .b32 seen; ld.relaxed.gpu.global.b32 seen, [$1];"
        f" or.b32 seen, seen, {COUNTED_PER_LAUNCH - 1}; add.s32 $0, seen, 1; }}"
    )
    return Int32(ptx(text, "=r,l", [counter], Int32.mlir_type, loc=loc, ip=ip))


@dsl_user_op
def fence_grid(*, loc=None, ip=None) -> None:
    """Who sees what this thread writes next also sees what it wrote, or what others had written when it met
    them. (It lasts until this CTA's loads by TMA are there: 1.5 us if they come from memory.)"""
    ptx("fence.acq_rel.gpu;", "", loc=loc, ip=ip)


@dsl_user_op
def count_in(counter: Int64, count: Int32, urgent: Int32, *, loc=None, ip=None) -> None:
    """As so many of all, and of those who widen what is urgent (if any). After `fence_grid`."""
    text = (
        "{ .reg .pred some; setp.ne.s32 some, $2, 0;"
        f" @some red.relaxed.gpu.global.add.u32 [$0 + {URGENT_AT}], $2;"
        " red.relaxed.gpu.global.add.u32 [$0], $1; }"
    )
    ptx(text, "l,r,r", [counter, count, urgent], loc=loc, ip=ip)


@dsl_user_op
def await_count(counter: Int64, all_met: Int32, *, loc=None, ip=None) -> None:
    """Until all have counted. What they wrote before may then be read, by bulk copies if a proxy fence
    followed the writes."""
    text = (
        "{ .reg .pred more; .reg .b32 seen;"
        " AGAIN: ld.acquire.gpu.global.b32 seen, [$0]; sub.s32 seen, seen, $1; setp.lt.s32 more, seen, 0;"
        " @more bra AGAIN; }"
    )
    ptx(text, "l,r", [counter, all_met], loc=loc, ip=ip)


@dsl_user_op
def raise_flag(flag: Int64, *, loc=None, ip=None) -> None:
    """After `fence_grid`."""
    ptx("st.relaxed.gpu.global.b32 [$0], 1;", "l", [flag], loc=loc, ip=ip)


@dsl_user_op
def await_flag(flag: Int64, *, loc=None, ip=None) -> None:
    text = (
        "{ .reg .pred up; .reg .b32 seen; AGAIN: ld.acquire.gpu.global.b32 seen, [$0];"
        " setp.ne.s32 up, seen, 0; @!up bra AGAIN; }"
    )
    ptx(text, "l", [flag], loc=loc, ip=ip)


@dsl_user_op
def lower_flag(flag: Int64, *, loc=None, ip=None) -> None:
    """For the next launch."""
    ptx("st.relaxed.gpu.global.b32 [$0], 0;", "l", [flag], loc=loc, ip=ip)


def upper_bytes_text(word: str, odd: str, even: str, signs: str) -> list[str]:
    """`upper_bytes` of the word in a register into two, with the help of a fourth."""
    return [
        f"and.b32 {signs}, {word}, {SIGNS};",
        f"shr.s32 {odd}, {word}, 3;",
        f"lop3.b32 {odd}, {odd}, {MAGNITUDES}, {signs}, {SELECT};",
        f"shl.b32 {even}, {word}, 1;",
        f"shl.b32 {signs}, {signs}, 4;",
        f"lop3.b32 {even}, {even}, {MAGNITUDES}, {signs}, {SELECT};",
    ]


@dsl_user_op
def upper_bytes_of(word: Int32, *, loc=None, ip=None) -> list[Int32]:
    """Of odd and of even values."""
    text = " ".join(["{ .reg .b32 signs;", *upper_bytes_text("$2", "$0", "$1", "signs"), "}"])
    result = ptx(text, "=&r,=&r,r", [word], structure(["i32"] * 2), loc=loc, ip=ip)
    return fields(Int32, result, range(2), loc=loc, ip=ip)


@dsl_user_op
def multiply(sums, weights, tokens: Int32, variant: Int32, variants, packed=(), *, loc=None, ip=None) -> list:
    """A warpgroup: sums += weights @ tokens^T for 64 rows x variants[variant] tokens x 64 of K, later. On
    return the multiplication before this one is complete. sums: registers, a 64th of the fragment of
    the largest variant; weights: 16 registers; tokens: shared memory descriptor, lower half. packed: up to
    HALF_STEPS words of eight e2m1; returned are their `upper_bytes`.

    The choice of the variant stays inside of one piece of assembly: the compiler then keeps the sums in
    place. With a branch around each variant it runs the multiplications one by one. What can be done while
    the tensor cores take one wgmma after the other belongs here too: a warp waits for them otherwise.
    """
    count, words = cute.size(sums), 2 * len(packed)
    operands = [*weights, tokens, variant, *packed]
    # Results come first, then `sums` once more, then what is only read.
    fours = [f"${count + i}" for i in range(words)]
    names = [f"${2 * count + words + i}" for i in range(len(operands))]
    descriptor, choice, *packed_words = names[len(weights) :]

    def point_to(step: int) -> list[str]:
        return [
            f"add.s32 low{step}, {descriptor}, {step * STEP_FIELD};",
            f"mov.b64 d{step}, {{low{step}, {TOKENS_DESCRIPTOR >> 32}}};",
        ]

    def one(height: int) -> list[str]:
        registers = ", ".join(f"${i}" for i in range(height // 2))
        lines = ["wgmma.fence.sync.aligned;"]
        for step in range(HALF_STEPS):
            a = ", ".join(names[4 * step : 4 * step + 4])
            lines.append(
                f"wgmma.mma_async.sync.aligned.m64n{height}k16.f32.f16.f16 {{{registers}}}, {{{a}}}, d{step},"
                " 1, 1, 1, 0;"
            )
            lines += point_to(step + 1) if step + 1 < HALF_STEPS else []
            if step < len(packed_words):
                odd, even = fours[2 * step : 2 * step + 2]
                lines += upper_bytes_text(packed_words[step], odd, even, f"signs{step}")
        return [*lines, "wgmma.commit_group.sync.aligned;"]

    def choose() -> list[str]:
        """One jump, however many variants there are: a comparison takes 24 cycles until its jump."""
        labels = [f"IS{i}" for i in range(len(variants))]
        lines = [f"HEIGHTS: .branchtargets {', '.join(labels)};", f"brx.idx.uni {choice}, HEIGHTS;"]
        for label, height in zip(labels, variants, strict=True):
            lines += [f"{label}:", *one(height), "bra.uni END;"]
        return [*lines, "END:"]

    declared = f".reg .b64 d<{HALF_STEPS}>; .reg .b32 low<{HALF_STEPS}>, signs<{HALF_STEPS}>;"
    text = " ".join(["{", declared, *point_to(0), *choose(), "wgmma.wait_group.sync.aligned 1; }"])
    return update(sums, text, ",".join("r" * len(operands)), operands, words, loc=loc, ip=ip)


@dsl_user_op
def finish(sums, *, loc=None, ip=None) -> None:
    """Wait for all multiplications."""
    update(sums, "wgmma.wait_group.sync.aligned 0;", "", [], loc=loc, ip=ip)


def update(sums, text: str, constraints: str, operands, words: int = 0, *, loc=None, ip=None) -> list:
    """Inline `text` with the registers of `sums` as its first operands, read and written, then so many words
    that it writes and that are returned."""
    count = cute.size(sums)
    old = [sums[i] for i in range(count)]
    tied = ",".join(str(i) for i in range(count))
    all_constraints = "=f," * count + "=&r," * words + tied + ("," + constraints if constraints else "")
    results = structure(["f32"] * count + ["i32"] * words)
    result = ptx(text, all_constraints, [*old, *operands], results, loc=loc, ip=ip)
    for i, value in enumerate(fields(Float32, result, range(count), loc=loc, ip=ip)):
        sums[i] = value
    return fields(Int32, result, range(count, count + words), loc=loc, ip=ip)


@dsl_user_op
def store_transposed(address: Int32, words: list[Int32], *, loc=None, ip=None) -> None:
    """A warp: 8 x 8 matrices of fp16, transposed, to the row addresses that the lanes give."""
    count = len(words)
    registers = ", ".join(f"${i + 1}" for i in range(count))
    text = f"stmatrix.sync.aligned.m8n8.x{count}.trans.shared.b16 [$0], {{{registers}}};"
    ptx(text, "r" + ",r" * count, [address, *words], loc=loc, ip=ip)


@dsl_user_op
def meet_warpgroup(warpgroup: Int32, *, loc=None, ip=None) -> None:
    """Barrier of its four warps."""
    text = f"{{ .reg .b32 id; add.s32 id, $0, {FIRST_WARPGROUP_BARRIER}; bar.sync id, 128; }}"
    ptx(text, "r", [warpgroup], loc=loc, ip=ip)


# ---- Widening ----------------------------------------------------------------------------------------------


def upper_bytes(words: list[Int32]) -> list[Int32]:
    """Of eight e2m1 in each word fp16's upper bytes, times 2^-14: of values 1, 3, 5, 7, and 0, 2, 4, 6."""
    return [four for word in words for four in upper_bytes_of(word)]


def scaled_pairs(fours: list[Int32], scales: Int32, half: int) -> list[Int32]:
    """The first and third, the second and fourth of four as fp16, times a half of `scales`."""
    pairs = ((permute_bytes(four, 0, 0x2404), four & UPPER_BYTES) for four in fours)
    return [scale_halves(pair, scales, half) for pair in chain.from_iterable(pairs)]


def widen_scaled(words: list[Int32], scales: Int32, half: int) -> list[Int32]:
    """16 values of one row, which share a scale (a half of `scales`), as 8 registers: 2 per wgmma. Pairs are
    of values 1 and 5, 3 and 7, 0 and 4, 2 and 6 of a word."""
    return scaled_pairs(upper_bytes(words), scales, half)


# ---- Device: who works on what -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Numbers of one group. atoms: along K. tokens: where they lie in the workspace, fp16."""

    m: Int32
    n: Int32
    atoms: Int32
    tokens: Int64
    a: Int64
    sfa: Int64
    c: Int64

    @property
    def stages(self) -> Int32:
        return (self.atoms + (2 * UNROLLED - 1)) // (2 * UNROLLED) * UNROLLED


@dataclass(frozen=True)
class Output:
    """Of a group: where C is, (m x n)."""

    c: Int64
    m: Int32
    n: Int32


def pick(groups: tuple, index: Int32) -> Group:
    """groups[index] for a run-time index, field by field."""
    picked = list(groups[0])
    for g in range(1, len(groups)):
        here = index == g
        picked = [cutlass.select_(here, new, old) for new, old in zip(groups[g], picked, strict=True)]
    return Group(*picked)


def by_variant(config: Config, variant: Int32, function: Callable[[int], int]) -> Int32:
    """function(height of the variant)"""
    value = Int32(function(config.variants[0]))
    for i, height in enumerate(config.variants):
        value = cutlass.select_(variant == i, Int32(function(height)), value)
    return value


SEGMENT_WORDS = 8
WRITES = -1  # as `adds`


@dataclass(frozen=True)
class Segment:
    """Stages of a tile that one CTA works on. group -1: none. adds: how many parts from `part` on, sums of
    other CTAs in the workspace, this one adds to its own; WRITES if it leaves its own there, as `part`.
    crowd, crowded: so many stages of tokens at most are in the ring while the first `crowded` are loaded.
    half_after: 1 if the next segment's rows begin in the middle of an atom of scales, else 0. warpgroups:
    that multiply; the tile has 64 rows for each. head: so many stages of tokens the cluster widens itself.
    urgent: 1 if the stage behind these is loaded before the grid has met, else 0."""

    group: Int32
    row: Int32
    token: Int32
    variant: Int32
    height: Int32
    stage: Int32
    stages: Int32
    part: Int32
    adds: Int32
    crowd: Int32
    crowded: Int32
    half_after: Int32
    warpgroups: Int32
    head: Int32
    urgent: Int32


def entry_words(place: str, address) -> list[Int32]:
    """Eight words of the plan from `place`, on their way. (Not from global.nc: ptxas moves such a load behind
    the next barrier, to where its words are used.)"""
    return load_vector(place, address, 4) + load_vector(place, address + 16, 4)


def settled(value: Int32) -> Int32:
    """The same value of each lane. What takes a few instructions the compiler computes again at each use; the
    result of a shuffle it keeps."""
    return cute.arch.shuffle_sync(value, cute.arch.lane_idx())


@cute.jit
def segment_address(schedule: Int64, turn: Int32):
    entry = turn * (cute.arch.grid_dim()[0] // CLUSTER) + cute.arch.block_idx()[0] // CLUSTER
    return schedule + Int64(entry) * (4 * SEGMENT_WORDS)


@cute.jit
def first_words(schedule: Int64, units_at: Int64, rounds: Int32, warp: Int32):
    """What a warp must know first, on its way: its first unit, or the cluster's first segment. (Asked for
    before the warps part, as the code to which they jump must also be fetched.)"""
    place = segment_address(schedule, Int32(0))
    if warp < WIDEN_WARPS:
        place = unit_address(units_at, rounds, Int32(0), warp)
    return entry_words("global", place + Int64(zero_of_lane()))


@cute.jit
def segment_words(schedule: Int64, turn: Int32):
    """A segment of this CTA's cluster, on its way."""
    return entry_words("global", segment_address(schedule, turn))


def as_segment(config: Config, words):
    """Fields of a Segment, the same for a whole warp: the cluster's segment with this CTA's rows and part."""
    group, row, token, packed, stage, stages, part, adds = map(cute.arch.make_warp_uniform, words)
    rank = cute.arch.make_warp_uniform(cute.arch.block_idx_in_cluster())
    warpgroups = packed >> 26 & 3
    row += rank * warpgroups * WARPGROUP_ROWS
    variant, height = packed & 7, (packed >> 3 & 31) * TOKENS_MULTIPLE
    crowd, crowded, half_after = packed >> 8 & 15, packed >> 16 & 255, packed >> 24 + rank & 1
    part = part * CLUSTER + rank
    return [
        group,
        row,
        token,
        variant,
        height,
        stage,
        stages,
        part,
        adds,
        crowd,
        crowded,
        half_after,
        warpgroups,
        packed >> 28,
        packed >> 12 & 1,
    ]


def segment_place(start: Int32, turn: Int32) -> Int32:
    return start + SEGMENTS_AT + (turn & (SEGMENTS - 1)) * (4 * SEGMENT_WORDS)


@cute.jit
def publish_segment(start: Int32, turn: Int32, words):
    """One warp, before it announces the segment's first weights, for those who multiply."""
    place = segment_place(start, turn)
    if cute.arch.lane_idx() == 0:
        store_vector("shared", place, words[:4])
        store_vector("shared", place + 16, words[4:])
    cute.arch.sync_warp()


def published_segment(config: Config, start: Int32, turn: Int32) -> list:
    """Who has seen the segment's first weights finds it there."""
    return as_segment(config, entry_words("shared", segment_place(start, turn)))


@dataclass(frozen=True)
class Ring:
    """Stages in shared memory, and so many pairs of barriers (addresses of the first): full, empty. The i-th
    stage that goes through the ring has the pair i % depth, in the phase i / depth."""

    depth: int
    full: Int32
    empty: Int32
    start: Int32

    def place(self, i: Int32) -> Int32:
        return i & (self.depth - 1)

    def phase(self, i: Int32) -> Int32:
        return (i >> self.depth.bit_length() - 1) & 1

    def await_full(self, i: Int32) -> None:
        wait(self.full + self.place(i) * 8, self.phase(i))

    def await_empty(self, i: Int32) -> None:
        wait(self.empty + self.place(i) * 8, self.phase(i))


@dataclass(frozen=True)
class Shared:
    tokens: Ring
    weights: Ring
    nobody: Int32  # a barrier for which nobody waits, in its first phase for ever
    own: Int32  # and one for each stage of a head: its first phase ends when this CTA's share is there
    head: Int32  # and likewise, when the other CTA's is too
    written: Int32  # a phase for each part of sums: it ends when the part is in the workspace
    announced: Int32  # and likewise, when others may know
    staging: Int32  # of C


def shared_memory(geometry: Geometry, start: Int32) -> Shared:
    """From `start`: header | tokens | weights | staging. (wgmma's swizzle wants 1024 B alignment.)"""
    rings, barriers, place = [], start, start + HEADER_BYTES
    for depth, size in (
        (MAX_TOKEN_STAGES, geometry.token_ring_bytes),
        (WEIGHT_STAGES, WEIGHT_STAGES * geometry.slot_bytes),
    ):
        rings.append(Ring(depth, barriers, barriers + 8 * depth, place))
        barriers, place = barriers + 16 * depth, place + size
    own, head = barriers + 8, barriers + 8 + 8 * MAX_HEAD_STAGES
    written = head + 8 * MAX_HEAD_STAGES
    return Shared(*rings, barriers, own, head, written, written + 8, place)


def placed(config: Config, at: Int32, size: Int32) -> Int32:
    """Where in the ring of tokens a stage lies, if the one before it ends at `at`."""
    return cutlass.select_(at + size > config.geometry.token_ring_bytes, Int32(0), at)


# ---- Device: loading ---------------------------------------------------------------------------------------


def weight_boxes(descriptors: Int64, group: Int32, row: Int32, stage: Int32) -> tuple:
    """A stage of weights, and of their scales: descriptor, x, y."""
    values = descriptors + Int64(group) * (DESCRIPTORS * DESCRIPTOR_BYTES)
    scales = values + DESCRIPTOR_BYTES
    return (values, stage * PACKED_ROW_BYTES, row), (scales, stage * (2 * ATOM_WORDS), atom_row(row))


@cute.jit
def prefetch_weights(config: cutlass.Constexpr, words, descriptors):
    """The first stages, while the previous launch ends. words: of the first segment."""
    segment = Segment(*as_segment(config, words))
    with cute.arch.elect_one():
        for i in cutlass.range_constexpr(EARLY_STAGES):
            for box in weight_boxes(descriptors, segment.group, segment.row, segment.stage + i):
                prefetch_box(*box)


@cute.jit
def load_weights(config: cutlass.Constexpr, schedule, words, descriptors, ring, start):
    """A warp keeps the ring of weights full, and hands the segments on. Behind the last one's weights comes
    a stage of nothing, so that who multiplies may look for one more. After the first stages it waits until
    tokens have come, which are needed first and would have to share the memory's bandwidth. (All of the warp
    walks the loop, so that addresses are uniform.)"""
    geometry, loaded, turn = config.geometry, Int32(0), Int32(0)
    current = as_segment(config, words)
    publish_segment(start, turn, words)
    while current[0] >= 0:
        segment = Segment(*current)
        turn += 1
        words = segment_words(schedule, turn)
        for i in cutlass.range(segment.stages, unroll=4):
            slot = ring.place(loaded)
            full, smem = ring.full + slot * 8, ring.start + slot * geometry.slot_bytes
            values, scales = weight_boxes(descriptors, segment.group, segment.row, segment.stage + i)
            if loaded >= WEIGHT_STAGES:
                ring.await_empty(loaded - WEIGHT_STAGES)
            if loaded == EARLY_STAGES:
                cute.arch.barrier(barrier_id=FIRST_ARE_WIDE, number_of_threads=WIDENING_AND_ONE)
            with cute.arch.elect_one():
                expect(full, Int32(geometry.slot_bytes))
                load_box(smem, *values, full, EVICT_FIRST)
                load_box(smem + geometry.weight_bytes, *scales, full, EVICT_FIRST)
            loaded += 1
        current = as_segment(config, words)
        publish_segment(start, turn, words)
    ring.await_empty(loaded - WEIGHT_STAGES)
    with cute.arch.elect_one():
        arrive(ring.full + ring.place(loaded) * 8)


@dataclass(frozen=True)
class Load:
    """Tokens of a segment: where a CTA's share of the first stage lies, bytes of a stage and of a share; so
    many stages at most are in the ring (`room` while the first `crowded` are loaded)."""

    source: Int64
    stage_bytes: Int32
    share: Int32
    first: Int32
    stages: Int32
    depth: Int32
    room: Int32
    crowded: Int32


def load_of(config: Config, groups, segment: Segment, first: Int32, rank: Int32) -> list:
    group = pick(groups, segment.group)
    stage_bytes, share = segment.height * TOKEN_BYTES, segment.height * (TOKEN_BYTES // CLUSTER)
    tile = Int64(segment.token) * Int64(group.stages * TOKEN_BYTES)
    source = group.tokens + tile + Int64(segment.stage + first) * Int64(stage_bytes) + Int64(rank * share)
    depth = by_variant(config, segment.variant, config.token_stages)
    return [source, stage_bytes, share, first, segment.stages, depth, segment.crowd, segment.crowded]


@cute.jit
def load_tokens(config: cutlass.Constexpr, groups, schedule, turns, urgent_ctas, words, counter, ring):
    """A warp keeps the ring of tokens full: each CTA of the cluster loads a share, for all. Before, all meet;
    the first stage behind a head, which is urgent, needs only those who widen such (the first CTAs).

    (It is short, for it shares a scheduler with warps that multiply, and all others wait for those: the plan
    says how many stages fit into the ring. A `bar.sync`, not a `bar.warp.sync`, follows the branch that one
    lane takes: else the compiler keeps nothing of the loop in uniform registers.)"""
    all_met, ctas = count_when_all_met(counter), cute.arch.grid_dim()[0]
    # Together they count a power of two, the same for both counters: else it would not come out even when one
    # overflows.
    cta, urgent_ctas = cute.arch.block_idx()[0], cutlass.max(urgent_ctas, 1)
    count = cutlass.select_(cta == 0, COUNTED_PER_LAUNCH + 1 - ctas, Int32(1))
    urgent = cutlass.select_(cta < urgent_ctas, Int32(1), Int32(0))
    urgent = cutlass.select_(cta == 0, COUNTED_PER_LAUNCH + 1 - urgent_ctas, urgent)
    rank = cute.arch.make_warp_uniform(cute.arch.block_idx_in_cluster())
    segment = Segment(*as_segment(config, words))
    words = segment_words(schedule, cutlass.min(Int32(1), turns - 1))
    first = segment.head
    loaded, emptied, at = first, Int32(0), first * segment.height * TOKEN_BYTES
    current = load_of(config, groups, segment, first, rank)  # before it is urgent
    cute.arch.barrier(barrier_id=TOKENS_ARE_WIDE, number_of_threads=WIDENING_AND_ONE)
    cute.arch.barrier_arrive(barrier_id=SCRATCH_IS_FREE, number_of_threads=64)
    with cute.arch.elect_one():
        fence_grid()
        count_in(counter, count, urgent)
    source, stage_bytes, share, _, *others = current
    if segment.urgent > 0:
        with cute.arch.elect_one():
            await_count(counter + URGENT_AT, all_met)
        cute.arch.barrier(barrier_id=GRID_HAS_MET, number_of_threads=32)
        load_share(ring, source, stage_bytes, share, loaded, at, rank)
    loaded += segment.urgent
    at += segment.urgent * stage_bytes
    current = [source + Int64(segment.urgent * stage_bytes), stage_bytes, share, loaded, *others]
    with cute.arch.elect_one():
        await_count(counter, all_met)
    cute.arch.barrier(barrier_id=GRID_HAS_MET, number_of_threads=32)
    for turn in cutlass.range(turns, unroll=1):
        load = Load(*current)
        source = load.source
        for i in cutlass.range(load.first, load.stages, unroll=1):
            room = cutlass.select_(i < load.crowded, load.room, load.depth)
            while loaded - emptied >= room:
                ring.await_empty(emptied)
                emptied += 1
            at = placed(config, at, load.stage_bytes)
            load_share(ring, source, load.stage_bytes, load.share, loaded, at, rank)
            source += Int64(load.stage_bytes)
            at += load.stage_bytes
            loaded += 1
        current = load_of(config, groups, Segment(*as_segment(config, words)), Int32(0), rank)
        words = segment_words(schedule, cutlass.min(turn + 2, turns - 1))
    while emptied < loaded:  # No CTA may leave while the other one still arrives at its barriers.
        ring.await_empty(emptied)
        emptied += 1


@cute.jit
def load_share(ring, source, stage_bytes, share, loaded, at, rank):
    """Of a stage of tokens, this CTA's share for all, when so many were loaded. The stage begins at `at`."""
    full, smem = ring.full + ring.place(loaded) * 8, ring.start + at + rank * share
    with cute.arch.elect_one():
        expect(full, stage_bytes)
        load_bytes_for_all(smem, source, share, full, EVICT_LAST)


# ---- Device: tokens to fp16 --------------------------------------------------------------------------------

UNIT_WORDS = 8


@dataclass(frozen=True)
class Unit:
    """WIDEN_TOKENS of a stage to widen. A lane takes 32 values (two blocks) of a token and of the one 8
    below: where they and their scales are, and whether they are there. target: where the unit goes, in KB
    from the workspace's or the ring's start; rows: that go there, 8 or 16, and << 8 the stage of the head."""

    values: tuple[Int64, Int64]
    scales: tuple[Int64, Int64]
    there: tuple[cutlass.Boolean, cutlass.Boolean]
    target: Int32
    rows: Int32


def place_of_lane() -> tuple[Int32, Int32]:
    """A lane's first token of a unit, and which quarter of the stage. (By quarters first: eight lanes read
    two lines of 128 B at a time, not eight.)"""
    lane = cute.arch.lane_idx()
    return lane // 4, lane % 4


def zero_of_lane() -> Int32:
    """0, of which the compiler does not know that it is the same for all lanes. (What is, ptxas moves to
    uniform registers at once, and waits for it.)"""
    lane = cute.arch.lane_idx()
    return settled(lane) ^ lane


@cute.jit
def unit_address(units_at: Int64, rounds: Int32, i: Int32, warp: Int32):
    """Of the warp's i-th unit in the plan."""
    entry = (cute.arch.block_idx()[0] * rounds + i) * WIDEN_WARPS + warp
    return units_at + Int64(entry) * (4 * UNIT_WORDS)


@cute.jit
def unit_words(units_at: Int64, rounds: Int32, i: Int32, warp: Int32):
    """The warp's i-th unit (nothing beyond the last), on its way."""
    return entry_words("global", unit_address(units_at, rounds, cutlass.min(i, rounds - 1), warp))


@cute.jit
def prefetch_plan(schedule, units_at, rounds):
    """What this CTA reads first, into L2, for the next launch with this plan: weights have driven it out."""
    line, lane, round_bytes = 128, cute.arch.lane_idx(), WIDEN_WARPS * 4 * UNIT_WORDS
    mine = units_at + Int64(cute.arch.block_idx()[0] * rounds) * round_bytes
    for i in cutlass.range(lane, cutlass.min(rounds, 4) * (round_bytes // line), 32, unroll=1):
        prefetch(mine + Int64(i) * line)
    if lane == 31:
        prefetch(segment_address(schedule, Int32(0)))


@cute.jit
def publish_groups(groups, start: Int32):
    """All who widen: what varies by group to shared memory, where an index finds it in one instruction. (Each
    warp takes others, for parameters come line by line.)"""
    warp, lane = cute.arch.make_warp_uniform(cute.arch.warp_idx()), cute.arch.lane_idx()
    for g in cutlass.range_constexpr(len(groups)):
        if (warp == g % WIDEN_WARPS) & (lane == 0):
            group, place = Group(*groups[g]), group_place(start, Int32(g))
            store_vector("shared", place, [group.a, group.sfa], Int64)
            store_vector("shared", place + 16, [group.c, packed_pair(group.m, group.n)], Int64)
    cute.arch.barrier(barrier_id=GROUPS_ARE_THERE, number_of_threads=32 * WIDEN_WARPS)


def group_place(start: Int32, group: Int32) -> Int32:
    return start + GROUPS_AT + group * GROUP_BYTES


def output_of(start: Int32, group: Int32) -> Output:
    place = group_place(start, group) + 16
    (c, _), (_, _, m, n) = load_vector("shared", place, 2, Int64), load_vector("shared", place, 4)
    return Output(c, cute.arch.make_warp_uniform(m), cute.arch.make_warp_uniform(n))


def unit_of(start: Int32, words, zero: Int32) -> Unit:
    """zero: without which no address is known."""
    packed, values, upper_scales, lower_scales, target, sizes, token_bytes, _ = words
    row, quarter = place_of_lane()
    a, sfa = load_vector("shared", group_place(start, packed & 255), 2, Int64)
    tokens, atoms, rows = sizes & 255, sizes >> 8 & 255, sizes >> 16
    atom = quarter // 2
    upper = a + Int64(values + row * token_bytes + quarter * 16 + zero)
    of_lane = row * 16 + atom * ATOM_BYTES + quarter % 2 * 2 + zero
    return Unit(
        (upper, upper + Int64(token_bytes * SWIZZLE_ROWS)),
        (sfa + Int64(upper_scales + of_lane), sfa + Int64(lower_scales + of_lane)),
        ((row < tokens) & (atom < atoms), (row + SWIZZLE_ROWS < tokens) & (atom < atoms)),
        target,
        rows,
    )


@cute.jit
def prefetch_tokens(groups):
    """All tokens and their scales into L2, each line once by the grid, while the previous launch ends."""
    line = 128
    mine = cute.arch.block_idx()[0] * 32 + cute.arch.lane_idx()
    lanes = cute.arch.grid_dim()[0] * 32
    for g in cutlass.range_constexpr(len(groups)):
        group = Group(*groups[g])
        value_lines = (group.m * group.atoms * (ATOM_K // 2) + line - 1) // line
        scale_lines = (group.m + ATOM_ROWS - 1) // ATOM_ROWS * group.atoms * (ATOM_BYTES // line)
        for i in cutlass.range(mine, value_lines, lanes, unroll=1):
            prefetch(group.a + Int64(i) * line)
        for i in cutlass.range(mine, scale_lines, lanes, unroll=1):
            prefetch(group.sfa + Int64(i) * line)


@cute.jit
def prefetch_source(unit):
    """Into L2: while the previous launch ends."""
    for i in cutlass.range_constexpr(2):
        if unit.there[i]:
            prefetch(unit.values[i])
            prefetch(unit.scales[i])


@cute.jit
def fetch(unit):
    """A lane's values and scales, twice, zeros where there is nothing; target, rows. (Not by ld.global.nc:
    what that reads is constant for ptxas, which moves it before griddepcontrol.wait.)"""
    upper, lower = [Int32(0) for _ in range(5)], [Int32(0) for _ in range(5)]
    if unit.there[0]:
        upper = [*load_vector("global", unit.values[0], 4), load_word("global.u16", unit.scales[0])]
    if unit.there[1]:
        lower = [*load_vector("global", unit.values[1], 4), load_word("global.u16", unit.scales[1])]
    return [*upper, *lower, unit.target, unit.rows]


@cute.jit
def widen_unit(fetched, number, widener):
    """Widen a warp's unit, and put it into the workspace as shared memory wants it (which turns rows per lane
    into lines for all lanes), or else into the ring, as a piece of a stage of the head, which another warp
    sends on. number: of the unit among the warp's."""
    lane, scratch, shared = cute.arch.lane_idx(), widener.scratch, widener.shared
    exchanged = number < widener.shared_units
    target, rows, stage = fetched[-2], fetched[-1] & 255, fetched[-1] >> 8
    address = cutlass.select_(exchanged, scratch, shared.tokens.start + target * 1024)
    cute.arch.sync_warp()
    store_chunks(address, fetched[:5])
    if rows > SWIZZLE_ROWS:
        store_chunks(address + 2 * SWIZZLE_BYTES, fetched[5:10])
    if exchanged:
        cute.arch.sync_warp()
        place = widener.workspace + (Int64(target) * 1024 + Int64(lane * 16))
        store_lines(place, scratch, lane, 0)
        if rows > SWIZZLE_ROWS:
            store_lines(place, scratch, lane, SCRATCH_BYTES // 2)
    else:
        shared_proxy_fence()
        cute.arch.sync_warp()
        if lane == 0:
            arrive(shared.own + stage * 8)


def store_lines(place: Int64, scratch: Int32, lane: Int32, first: int) -> None:
    """Half a unit, from byte `first` on."""
    offsets = range(first, first + SCRATCH_BYTES // 2, 512)
    lines = [load_vector("shared", scratch + offset + lane * 16, 4) for offset in offsets]
    for offset, line in zip(offsets, lines, strict=True):
        store_vector("global", place + offset, line)


@cute.jit
def announce_tokens(now):
    """What this warp widened for others may be read, by bulk copies too."""
    if now:
        shared_proxy_fence()
        global_proxy_fence()
        cute.arch.barrier_arrive(barrier_id=TOKENS_ARE_WIDE, number_of_threads=WIDENING_AND_ONE)


@cute.jit
def announce_first(now):
    """What this warp widens first has come: further weights may be loaded."""
    if now:
        cute.arch.barrier_arrive(barrier_id=FIRST_ARE_WIDE, number_of_threads=WIDENING_AND_ONE)


@dataclass(frozen=True)
class Widener:
    """A warp that widens tokens: where its units are (so many rounds of all warps), how many it has, and how
    many of them, the first, are for all; where it widens these; the workspace; and shared memory."""

    warp: Int32
    units_at: Int64
    rounds: Int32
    all_units: Int32
    shared_units: Int32
    scratch: Int32
    workspace: Int64
    shared: Shared
    start: Int32


@cute.jit
def widen_first(config: cutlass.Constexpr, groups, rounds: Int32, units_at, words, workspace, shared, start):
    """Three warpgroups of all CTAs: tokens to fp16, into the workspace; then of each cluster the head of its
    first tile, into the rings: it is multiplied while the grid meets and the other tokens are on their way.
    words: of the warp's first unit."""
    warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
    scratch = scratch_of(config.geometry, warp, shared)
    publish_groups(groups, start)
    all_units, shared_units = (cute.arch.make_warp_uniform(words[i]) for i in (0, UNIT_WORDS - 1))
    all_units = all_units >> 8
    # (By their address these come later: else who waits for the first words waits for them all.)
    others_at = units_at + Int64(settled(words[0]) ^ words[0])
    units = [words, *[unit_words(others_at, rounds, Int32(i), warp) for i in range(1, WRITTEN_OUT)]]
    first = unit_of(start, words, Int32(0))
    # With helpers an idle warp has all tokens fetched into L2.
    if cutlass.const_expr(config.geometry.helpers == 0):
        prefetch_source(first)
    cute.arch.cluster_wait()  # the other CTA's barriers are there
    cute.arch.griddepcontrol_wait()
    fetched = fetch(first)
    if shared_units == 0:  # (No fence: it would wait for what is fetched.)
        cute.arch.barrier_arrive(barrier_id=TOKENS_ARE_WIDE, number_of_threads=WIDENING_AND_ONE)
    announce_first(all_units == 0)
    if all_units > 0:
        widener = Widener(warp, units_at, rounds, all_units, shared_units, scratch, workspace, shared, start)
        widen_from(0, fetched, units, widener)


@cute.jit
def widen_from(number: cutlass.Constexpr, fetched, units, widener):
    """A warp's units from a number on, whose values are on their way. The next one's follow when they have
    come: ptxas has all of them counted by one scoreboard, so who waits for the first waits for all."""
    last = cutlass.const_expr(number + 1 == len(units))
    following = fetched
    if cutlass.const_expr(not last):
        following = fetch_after(fetched, widener.all_units > number + 1, widener.start, units[number + 1])
    widen_unit(fetched, number, widener)
    announce_first(number == 0)
    announce_tokens(widener.shared_units == number + 1)
    if cutlass.const_expr(not last):
        if widener.all_units > number + 1:
            widen_from(number + 1, following, units, widener)
    else:
        for i in cutlass.range(number + 1, widener.all_units, unroll=1):
            words = unit_words(widener.units_at, widener.rounds, i, widener.warp)
            widen_unit(fetch(unit_of(widener.start, words, Int32(0))), i, widener)
            announce_tokens(widener.shared_units == i + 1)


@cute.jit
def fetch_after(fetched, needed, start, words):
    """`fetch` for the unit of those words, if needed, as soon as the values fetched before have come."""
    following = [Int32(0) for _ in fetched]
    if needed:
        zero = settled(fetched[0]) ^ fetched[0]
        following = fetch(unit_of(start, words, zero))
    return following


def scratch_of(geometry: Geometry, warp: Int32, shared: Shared) -> Int32:
    """Where a warp widens what others need: in the place for C, or beyond the head in the ring of tokens.
    (Those that do not multiply come first, as in `units`.)"""
    number = (warp + geometry.helpers) % WIDEN_WARPS
    staged = geometry.staging_bytes // SCRATCH_BYTES
    ring_end = shared.tokens.start + geometry.token_ring_bytes
    beyond = ring_end + (staged - 1 - number) * SCRATCH_BYTES
    return cutlass.select_(number < staged, shared.staging + number * SCRATCH_BYTES, beyond)


@cute.jit
def head_word(heads_at: Int64) -> Int32:
    """Of a lane's stage."""
    mine = cute.arch.block_idx()[0] * HEAD_WORDS + cute.arch.lane_idx() % HEAD_WORDS
    return load_word("global.b32", heads_at + Int64(mine * 4))


@cute.jit
def send_head(config: cutlass.Constexpr, words, word, shared):
    """A warp: this CTA's share of the head to the other one, stage by stage, for that takes its time (half a
    stage of 128 tokens some 0.6 us). words: of the first segment; word: as in `exchange_word`."""
    segment = Segment(*as_segment(config, words))
    lane, peer = cute.arch.lane_idx(), cute.arch.block_idx_in_cluster() ^ 1
    stage_bytes = segment.height * TOKEN_BYTES
    cute.arch.sync_warp()  # whoever arrives knows what all lanes have published
    if lane < segment.head:
        arrive_often(shared.own + lane * 8, MAX_STAGE_UNITS + 1 - (word >> 24))
    for i in cutlass.range(segment.head, unroll=1):
        exchanged = cute.arch.shuffle_sync(word, i)
        wait(shared.own + i * 8, Int32(0))
        if lane == 0:
            expect(shared.head + i * 8, (exchanged >> 16 & 255) * 1024)
        if (exchanged & 0xFFFF) >> lane & 1 == 1:
            unit = shared.tokens.start + i * stage_bytes + lane * SCRATCH_BYTES
            size = cutlass.min(SCRATCH_BYTES, stage_bytes - lane * SCRATCH_BYTES)
            send_bytes(unit, size, shared.head + i * 8, peer)
        cute.arch.sync_warp()


@cute.jit
def hand_head_on(config: cutlass.Constexpr, words, shared):
    """A warp: each stage of the head to those who multiply, when all of it is there; the last one when they
    may also use the place in which tokens were widened for others. words: of the first segment."""
    segment = Segment(*as_segment(config, words))
    for i in cutlass.range(segment.head, unroll=1):
        if i == segment.head - 1:
            cute.arch.barrier(barrier_id=SCRATCH_IS_FREE, number_of_threads=64)
        wait(shared.head + i * 8, Int32(0))
        with cute.arch.elect_one():
            arrive(shared.tokens.full + i * 8)


def store_chunks(address: Int32, fetched: list[Int32]) -> None:
    """A lane's 32 values into its token's two rows of 128 B (even block, SWIZZLE_BYTES on odd one), swizzled.

    They come in the order in which wgmma meets the weights: of each block, two words of eight give four pairs
    each; 16-byte chunk 4 * word + pair holds that pair of the stage's four even (or odd) blocks. (Blocks 2 i
    and 2 i + 1 of weights are in the i-th thread of four.)"""
    *words, scales = fetched
    row, quarter = place_of_lane()
    halves = scales_to_halves(scales)
    even, odd = widen_scaled(words[:2], halves, 0), widen_scaled(words[2:], halves, 1)
    place = address + (row * (TOKEN_ROW_BYTES + 16) + quarter * 4)
    for chunk in range(8):
        at = place ^ chunk * 16  # row * 16 is in it
        store_word(at, even[chunk])
        store_word(at + SWIZZLE_BYTES, odd[chunk])


# ---- Device: the multiplication ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Thread:
    """Of those who multiply: where it finds its share of weights and scales in a slot, and the tokens (a
    descriptor's lower half); the barriers it arrives at, in the CTA that its lane stands for: an empty stage
    of tokens, and where nobody waits. zero: of which the compiler does not know that it is."""

    warp: Int32
    lane: Int32
    weights: Int32
    scales: Int32
    tokens: Int32
    tokens_empty: Int32
    nobody: Int32
    zero: Int32

    @property
    def warpgroup(self) -> Int32:
        return self.warp >> 2


def thread_of(config: Config, zero: Int32, shared: Shared) -> Thread:
    """A thread's fragment lies in rows r and r + 8 of a warpgroup's 64, in each the i-th of four 16 B."""
    warp, lane = cute.arch.make_warp_uniform(cute.arch.warp_idx()), cute.arch.lane_idx()
    row, i = (warp & 3) * 16 + lane // 4, lane % 4
    weights = shared.weights.start + (warp >> 2) * (WARPGROUP_ROWS * PACKED_ROW_BYTES)
    scales = shared.weights.start + config.geometry.weight_bytes
    return Thread(
        warp,
        lane,
        settled(weights + row * PACKED_ROW_BYTES + i * 16),
        settled(scales + scale_at(row) + (i >> 1) * ATOM_BYTES + (i & 1) * 2),
        cute.arch.make_warp_uniform((shared.tokens.start >> 4) | (TOKENS_DESCRIPTOR & 0xFFFFFFFF)),
        # Tokens come from all CTAs of the cluster, so all must know that a slot is empty.
        settled(in_cta(shared.tokens.empty, lane % CLUSTER)),
        in_cta(shared.nobody, cute.arch.block_idx_in_cluster()),
        zero,
    )


@cute.jit
def multiply_tiles(config: cutlass.Constexpr, zero, parts, shared, start):
    """Two or three warpgroups, 64 rows each. While a tile's last stage is multiplied and its sums are stored,
    the next one's first weights are there already."""
    thread = thread_of(config, zero, shared)
    turn = Int32(0)
    shared.weights.await_full(Int32(0))
    current = published_segment(config, start, turn)
    half = scales_place(config, thread.warpgroup, current[1] >> 6 & 1)
    fragment = [Int32(0) for _ in range(FRAGMENT_WORDS)]
    if current[0] >= 0:
        fragment = load_fragment(thread.weights, thread.scales + half)
    fours, rest = prepare_even(fragment)
    carried = [Int32(0), Int32(0), Int32(0), half, *fours, *rest]
    sums = cute.make_rmem_tensor(config.max_height // 2, Float32)
    while current[0] >= 0:
        segment = Segment(*current)
        if cutlass.const_expr(config.narrow):
            if thread.warpgroup < segment.warpgroups:
                carried = multiply_segment(config, sums, segment, carried, thread, shared)
                complete(config, sums, segment, turn, parts, shared, start, thread)
            else:
                carried = pass_segment(config, segment, carried, thread, shared)
        else:
            carried = multiply_segment(config, sums, segment, carried, thread, shared)
            complete(config, sums, segment, turn, parts, shared, start, thread)
        turn += 1
        current = published_segment(config, start, turn)


@dataclass(frozen=True)
class Place:
    """Of a stage in both rings: its barriers (that of empty tokens in the CTA for which a lane stands), the
    parities of their phases, and where its slot of weights begins."""

    tokens_full: Int32
    tokens_empty: Int32
    tokens_parity: Int32
    weights_full: Int32
    weights_empty: Int32
    weights_parity: Int32
    slot: int


def places_of(config: Config, thread: Thread, shared: Shared, used: Int32, count: int) -> list[Place]:
    """Of so many of the four stages from `used` on, a multiple of four: their offsets are constants."""
    tokens, weights = shared.tokens, shared.weights
    first, parities = (used & (tokens.depth - UNROLLED)) * 8, (tokens.phase(used), weights.phase(used))
    return [
        Place(
            tokens.full + first + i * 8,
            thread.tokens_empty + first + i * 8,
            parities[0],
            weights.full + i * 8,
            weights.empty + i * 8,
            parities[1],
            i * config.geometry.slot_bytes,
        )
        for i in range(count)
    ]


@cute.jit
def multiply_segment(config: cutlass.Constexpr, sums, segment, carried, thread, shared):
    """Sums of a segment. carried, and returned, from segment to segment: stages used (of either ring); where
    in the ring of tokens the last one ends; whether the next one's tokens are known to be there; where in its
    slot the scales of this warpgroup begin; its weights, as `prepare_even` has them."""
    used, at, tokens_full, half = carried[:4]
    fours, rest = carried[4:12], carried[12:]
    used, at = cute.arch.make_warp_uniform(used), cute.arch.make_warp_uniform(at)
    stage_bytes = segment.height * TOKEN_BYTES
    half_after = scales_place(config, thread.warpgroup, segment.half_after)
    sums.fill(0.0)
    released = thread.nobody  # by the end of the next multiplication: the stage before
    turns = segment.stages // UNROLLED
    for turn in cutlass.range(turns, unroll=1):
        places = places_of(config, thread, shared, used, UNROLLED)
        places += places_of(config, thread, shared, used + UNROLLED, 1)
        for i in cutlass.range_constexpr(UNROLLED):
            here, following = places[i], places[i + 1]
            at = placed(config, at, stage_bytes)
            # Whether the next stage is there is asked early: the answer takes its time. Its weights are read
            # long before they are needed.
            wait_unless(tokens_full, here.tokens_full, here.tokens_parity)
            weights_full = is_complete(following.weights_full, following.weights_parity)
            # (As part of a descriptor, `used` stays in uniform registers, which spares the ALU.)
            even_at = thread.tokens + (at >> 4) + used * thread.zero
            even = widen_half(fours, rest, 0)
            fours = multiply(sums, even, even_at, segment.variant, config.variants, rest[:4])
            if thread.lane < CLUSTER:
                arrive_in_cluster(released)  # (For the first stage no condition: it takes instructions.)
            released = here.tokens_empty

            wait_unless(weights_full, following.weights_full, following.weights_parity)
            odd = widen_half(fours, rest, 1)
            if cutlass.const_expr(i == UNROLLED - 1 and (config.geometry.scale_rows > 1 or config.narrow)):
                half = cutlass.select_(turn + 1 < turns, half, half_after)  # else it is always the same
            fragment = load_fragment(thread.weights + following.slot, thread.scales + (following.slot + half))
            cute.arch.sync_warp()  # all lanes have read
            if thread.lane < CLUSTER:
                arrive(here.weights_empty)
            tokens_full = is_complete(following.tokens_full, following.tokens_parity)
            odd_at = thread.tokens + (at >> 4) + (SWIZZLE_BYTES >> 4)
            multiply(sums, odd, odd_at, segment.variant, config.variants)
            at += stage_bytes
            fours, rest = prepare_even(fragment)
        used += UNROLLED
    finish(sums)
    if thread.lane < CLUSTER:
        arrive_in_cluster(released)
    return [used, at, tokens_full, half, *fours, *rest]


@cute.jit
def pass_segment(config: cutlass.Constexpr, segment, carried, thread, shared):
    """A warpgroup for which a tile has no rows only keeps pace with the others. (As `multiply_segment`.)"""
    weights, tokens, slot_bytes = shared.weights, shared.tokens, config.geometry.slot_bytes
    used, at = (cute.arch.make_warp_uniform(value) for value in carried[:2])
    stage_bytes = segment.height * TOKEN_BYTES
    for _ in cutlass.range(segment.stages, unroll=1):
        at = placed(config, at, stage_bytes) + stage_bytes
        tokens.await_full(used)
        weights.await_full(used + 1)
        cute.arch.sync_warp()  # all lanes have read, if this is the first
        if thread.lane < CLUSTER:
            arrive_in_cluster(thread.tokens_empty + tokens.place(used) * 8)
            arrive(weights.empty + weights.place(used) * 8)
        used += 1
    half = scales_place(config, thread.warpgroup, segment.half_after)
    slot = weights.place(used) * slot_bytes
    fours, rest = prepare_even(load_fragment(thread.weights + slot, thread.scales + (slot + half)))
    return [used, at, Int32(0), half, *fours, *rest]


@cute.jit
def complete(config: cutlass.Constexpr, sums, segment, turn, parts, shared, start, thread):
    """Sums to C, or to the workspace for another CTA, or first the others' to them."""
    warp, lane, height = thread.warp, thread.lane, segment.height
    if segment.adds == WRITES:
        write_part(config, sums, height, parts, segment.part, turn, shared, warp, lane)
    else:
        if segment.adds > 0:
            add_parts(config, sums, height, parts, segment, warp, lane)
        store_tile(config, sums, output_of(start, segment.group), segment, shared.staging, warp, lane)


def scales_place(config: Config, warpgroup: Int32, half: Int32) -> Int32:
    """Where in its slot the scales of a warpgroup's rows begin, if the CTA's first rows have that half of an
    atom; for a warpgroup that has no rows, anywhere."""
    number = warpgroup + half & 2 * config.geometry.scale_rows - 1
    return (number >> 1) * (2 * ATOM_BYTES) + (number & 1) * 8


def atom_row(row: Int32) -> Int32:
    """In which row of atoms a row lies. (Here and below shifts: to divide what might be negative takes five
    instructions.)"""
    return row >> (ATOM_ROWS.bit_length() - 1)


def scale_at(row: Int32) -> Int32:
    """Where a row's scales lie in an atom."""
    return ((row & 31) << 4) + ((row >> 3) & 12)


FRAGMENT_WORDS = 10


def load_fragment(weights: Int32, scales: Int32) -> list[Int32]:
    """A thread's share of 64 rows x 128 of K, packed: four words (two blocks) of row r, of row r + 8, and of
    each row both blocks' scales."""
    upper = load_vector("shared", weights, 4)
    lower = load_vector("shared", weights + 8 * PACKED_ROW_BYTES, 4)
    return [*upper, *lower, *[load_word("shared.u16", scales + 8 * 16 * i) for i in range(2)]]


def prepare_even(fragment: list[Int32]) -> tuple[list[Int32], list[Int32]]:
    """A fragment's even blocks, half widened; and the odd ones, packed, with all scales."""
    upper, lower, scales = fragment[:4], fragment[4:8], [*map(scales_to_halves, fragment[8:])]
    return upper_bytes([*upper[:2], *lower[:2]]), [*upper[2:], *lower[2:], *scales]


def widen_half(fours: list[Int32], rest: list[Int32], half: int) -> list[Int32]:
    """The even or the odd block of each of two rows, half widened, as four wgmmas want them: (row, k),
    (row + 8, k), (row, k + 8), (row + 8, k + 8) per step."""
    above, below = (scaled_pairs(fours[4 * i : 4 * i + 4], rest[4 + i], half) for i in range(2))
    return [pair for both in zip(above, below, strict=True) for pair in both]


def part_bytes(config: Config) -> int:
    return FLAG_BYTES + config.max_height // 8 * PIECE_BYTES


@cute.jit
def part_place(config: cutlass.Constexpr, parts: Int64, part: Int32, warp: Int32, lane: Int32):
    """Addresses of the warp's flag and of the thread's first 16 B."""
    start = parts + Int64(part) * part_bytes(config)
    return start + Int64(warp * 4), start + Int64(FLAG_BYTES + (warp * 32 + lane) * 16)


@cute.jit
def write_part(config: cutlass.Constexpr, sums, height, parts, part, turn, shared, warp, lane):
    """(Another warp announces it, for that takes a fence, which must await the next segment's loads.)"""
    _, place = part_place(config, parts, part, warp, lane)
    for i in cutlass.range_constexpr(config.max_height // 8):
        if 8 * i < height:
            store_vector("global", place + i * PIECE_BYTES, [sums[4 * i + j] for j in range(4)], Float32)
    if turn > 0:
        wait(shared.announced, (turn - 1) & 1)
    cute.arch.sync_warp()
    if lane == 0:
        arrive(shared.written)


@cute.jit
def announce_parts(config: cutlass.Constexpr, schedule, words, parts, shared):
    """A warp: parts that this CTA has written, its first segments, may be read. words: of the first one."""
    lane, turn = cute.arch.lane_idx(), Int32(0)
    segment = Segment(*as_segment(config, words))
    adds = segment.adds
    while adds == WRITES:
        warps = segment.warpgroups * 4
        if (lane == 0) & (warps < config.geometry.warps):
            arrive_often(shared.written, config.geometry.warps - warps)
        wait(shared.written, turn & 1)
        if lane < warps:
            fence_grid()
            flag, _ = part_place(config, parts, segment.part, lane, Int32(0))
            raise_flag(flag)
        cute.arch.sync_warp()
        if lane == 0:
            arrive(shared.announced)
        turn += 1
        segment = Segment(*as_segment(config, segment_words(schedule, turn)))
        adds = segment.adds


def load_part(address: Int64) -> list[Float32]:
    """Not from L1: another SM may just have written it."""
    return load_vector("relaxed.gpu.global", address, 4, Float32)


@cute.jit
def add_parts(config: cutlass.Constexpr, sums, height, parts, segment, warp, lane):
    """In order. Each lane waits for one part, so that loads need not wait one after the other."""
    for i in cutlass.range(lane, segment.adds, 32, unroll=1):
        flag, _ = part_place(config, parts, segment.part + i * CLUSTER, warp, lane)
        await_flag(flag)
        lower_flag(flag)
    cute.arch.sync_warp()
    for i in cutlass.range(segment.adds, unroll=1):
        _, place = part_place(config, parts, segment.part + i * CLUSTER, warp, lane)
        for first in cutlass.range_constexpr(0, config.max_height // 8, ADD_BATCH):
            if 8 * first < height:  # pieces beyond the height, in the last batch, are never used
                last = min(first + ADD_BATCH, config.max_height // 8)
                pieces = [load_part(place + i * PIECE_BYTES) for i in range(first, last)]
                for i, piece in enumerate(pieces):
                    for j in cutlass.range_constexpr(4):
                        sums[4 * (first + i) + j] += piece[j]


@cute.jit
def store_tile(config: cutlass.Constexpr, sums, output, segment, staging, warp, lane):
    """A warpgroup's 64 rows (128 B of a row of C): 32 tokens at a time through shared memory, two buffers by
    turns. While one is on its way from there, the next is filled."""
    warpgroup, thread = warp >> 2, (warp & 3) * 32 + lane
    staging += warpgroup * (2 * STAGING_BYTES)
    row, token = segment.row + warpgroup * WARPGROUP_ROWS, segment.token
    tokens = cutlass.min(output.m - token, segment.height)
    staged, chunk = thread >> 3, thread & 7
    at_row = row + chunk * 8
    place = output.c + (Int64(token + staged) * Int64(output.n) + Int64(at_row)) * 2
    # Of the tokens this thread stores each 16th, from `staged` on, if it has a row at all.
    step = Int64(output.n) * (16 * 2)
    mine = cutlass.select_(at_row < output.n, tokens - staged, Int32(0))
    meet_warpgroup(warpgroup)  # the last tile's reads are over
    stage_sums(config, sums, 0, staging, warp, lane)
    meet_warpgroup(warpgroup)
    for first in cutlass.range_constexpr(0, config.max_height, STAGED_TOKENS):
        if first < tokens:
            if first + STAGED_TOKENS < tokens:
                stage_sums(config, sums, first + STAGED_TOKENS, staging, warp, lane)
            source = staging + first // STAGED_TOKENS % 2 * STAGING_BYTES
            source += staged * 128 + (chunk ^ (staged & 7)) * 16
            halves = (min(STAGED_TOKENS, config.max_height - first) + 15) // 16
            lines = [load_vector("shared", source + 16 * 128 * i, 4) for i in range(halves)]
            for i in cutlass.range_constexpr(halves):
                if first + 16 * i < mine:
                    store_vector("global", place, lines[i])
                place += step
            if first + STAGED_TOKENS < tokens:
                meet_warpgroup(warpgroup)


def stage_sums(config: Config, sums, first: int, staging: Int32, warp: Int32, lane: Int32) -> None:
    """32 tokens from `first` on (as many as there are registers for), as fp16, into their buffer: of each a
    row of 128 B, 16-byte chunk i at i ^ (token % 8)."""
    matrix, matrix_row = lane >> 3, lane & 7
    target = staging + first // STAGED_TOKENS % 2 * STAGING_BYTES + (8 * (matrix >> 1) + matrix_row) * 128
    target += ((2 * (warp & 3) + (matrix & 1)) ^ matrix_row) * 16
    blocks = min(STAGED_TOKENS, config.max_height - first) // 8
    words = pack_blocks(sums, first // 2, 4 * blocks)
    for i in range(0, len(words), 4):
        store_transposed(target + i // 4 * 16 * 128, words[i : i + 4])


def pack_blocks(sums, first: int, count: int) -> list[Int32]:
    return [pack_fp16(sums[i] * BIAS, sums[i + 1] * BIAS) for i in range(first, first + count, 2)]


def init_barriers(geometry: Geometry, barriers: cute.Pointer) -> None:
    """As `shared_memory` places them. Of each warp CLUSTER lanes release a stage: of tokens each in another
    CTA, of weights all in their own."""
    releases = geometry.warps * CLUSTER
    for depth in (MAX_TOKEN_STAGES, WEIGHT_STAGES):
        for i in range(depth):
            cute.arch.mbarrier_init(barriers + i, 1)
            cute.arch.mbarrier_init(barriers + depth + i, releases)
        barriers += 2 * depth
    cute.arch.mbarrier_init(barriers, MAX_ARRIVALS)
    for i in range(MAX_HEAD_STAGES):
        cute.arch.mbarrier_init(barriers + 1 + i, MAX_STAGE_UNITS + 1)
        cute.arch.mbarrier_init(barriers + 1 + MAX_HEAD_STAGES + i, 1)
    cute.arch.mbarrier_init(barriers + 1 + 2 * MAX_HEAD_STAGES, geometry.warps)
    cute.arch.mbarrier_init(barriers + 2 + 2 * MAX_HEAD_STAGES, 1)


@dsl_user_op
def declare_cluster(*, loc=None, ip=None) -> None:
    """The kernel's clusters, for ptxas too (`.reqnctapercluster`): else it asks a constant, from another line
    than the parameters, whether there are any, and everything waits for that."""
    operation = ir.InsertionPoint.current.block.owner
    while "nvvm.reqntid" not in operation.attributes:
        operation = operation.parent
    operation.attributes["nvvm.cluster_dim"] = ir.Attribute.parse(f"array<i32 : {CLUSTER}, 1, 1>")


@cute.kernel
def grouped_gemm(
    config: cutlass.Constexpr,
    schedule: Int64,
    units_at: Int64,
    heads_at: Int64,
    workspace: Int64,
    parts: Int64,
    turns: Int32,
    rounds: Int32,
    urgent_ctas: Int32,
    descriptors,
    groups,
):
    """(What is read first comes first: it lies in one line of constant memory.)"""
    declare_cluster()
    geometry = config.geometry
    registers, other_registers, widening_registers = geometry.registers
    warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
    descriptors = descriptor_address(descriptors[0])
    barriers = cute.arch.get_dyn_smem(Int64, alignment=1024)
    # (The result of a shuffle: see `settled`.)
    start = cute.arch.make_warp_uniform(barriers.toint())
    shared = shared_memory(geometry, start)
    words = first_words(schedule, units_at, rounds, warp)

    if warp == WEIGHTS_WARP:
        with cute.arch.elect_one():
            init_barriers(geometry, barriers)
            cute.arch.mbarrier_init_fence()
    cute.arch.griddepcontrol_launch_dependents()
    cute.arch.cluster_arrive_relaxed()
    if warp == WEIGHTS_WARP:
        cute.arch.setmaxregister_decrease(other_registers)
        cute.arch.sync_warp()  # all lanes see the barriers
        prefetch_weights(config, words, descriptors)
        cute.arch.griddepcontrol_wait()
        load_weights(config, schedule, words, descriptors, shared.weights, start)
        cute.arch.cluster_wait()
    elif warp == TOKENS_WARP:
        cute.arch.setmaxregister_decrease(other_registers)
        cute.arch.cluster_wait()
        cute.arch.griddepcontrol_wait()
        load_tokens(config, groups, schedule, turns, urgent_ctas, words, workspace, shared.tokens)
        prefetch_plan(schedule, units_at, rounds)
    elif warp == SEND_WARP:
        word = head_word(heads_at)
        cute.arch.setmaxregister_decrease(other_registers)
        cute.arch.cluster_wait()
        send_head(config, words, word, shared)
        announce_parts(config, schedule, words, parts, shared)
    elif warp == HEAD_WARP:
        cute.arch.setmaxregister_decrease(other_registers)
        if cutlass.const_expr(geometry.helpers > 0):
            prefetch_tokens(groups)
        cute.arch.cluster_wait()
        hand_head_on(config, words, shared)
    else:
        if warp < geometry.warps:
            widen_first(config, groups, rounds, units_at, words, workspace, shared, start)
            cute.arch.setmaxregister_increase(registers)
            hidden_zero = turns >> 31  # which the compiler does not know
            multiply_tiles(config, hidden_zero, parts, shared, start)
        else:
            if cutlass.const_expr(geometry.helpers > 0):
                cute.arch.setmaxregister_decrease(widening_registers)
                widen_first(config, groups, rounds, units_at, words, workspace, shared, start)


# ---- Compiled host code: descriptors and launch ------------------------------------------------------------

DESCRIPTORS = 2  # of a group: b, sfb
DESCRIPTOR_BYTES = 128


def encode_weights(geometry: Geometry, address: Int64, rows: Int32, k: Int32) -> cute.CopyAtom:
    """Descriptor of a row-major (rows x k / 2) matrix of bytes: boxes of a CTA's rows x 64.
    What lies beyond the matrix loads as zero."""
    pointer = cute.make_ptr(Uint8, address, cute.AddressSpace.gmem, assumed_align=16)
    width = cute.assume(k // 2, K_MULTIPLE // 2)
    matrix = cute.make_tensor(pointer, cute.make_layout((rows, width), stride=(width, 1)))
    tile = (geometry.cta_rows, PACKED_ROW_BYTES)
    layout = cute.make_layout(tile, stride=(PACKED_ROW_BYTES, 1))
    atom, _ = cpasync.make_tiled_tma_atom(cpasync.CopyBulkTensorTileG2SOp(), matrix, layout, tile)
    return atom


def encode_scales(geometry: Geometry, address: Int64, rows: Int32, k: Int32) -> cute.CopyAtom:
    """Descriptor of scales as a matrix of words, a row of atoms in each of its rows: boxes of 1 x 2 or 2 x 2
    atoms. What lies beyond loads as zero."""
    pointer = cute.make_ptr(Int32, address, cute.AddressSpace.gmem, assumed_align=16)
    width = cute.assume(k // ATOM_K * ATOM_WORDS, ATOM_WORDS)
    matrix = cute.make_tensor(
        pointer, cute.make_layout((cute.ceil_div(rows, ATOM_ROWS), width), stride=(width, 1))
    )
    tile = (geometry.scale_rows, 2 * ATOM_WORDS)
    layout = cute.make_layout(tile, stride=(2 * ATOM_WORDS, 1))
    atom, _ = cpasync.make_tiled_tma_atom(cpasync.CopyBulkTensorTileG2SOp(), matrix, layout, tile)
    return atom


COMMON_NUMBERS = 5  # CTAs, turns, rounds of units, CTAs with urgent ones, KB of the workspace before parts
GROUP_NUMBERS = 4  # m, n, k, KB of the workspace before its tokens
COMMON_ADDRESSES = 2  # schedule, workspace
GROUP_ADDRESSES = 5  # a, b, sfa, sfb, c


class Arguments:
    """Arguments of `launch`: memory that is written anew for each call (the DSL's JIT argument protocol).

    numbers: COMMON_NUMBERS, then GROUP_NUMBERS of each group. addresses: COMMON_ADDRESSES, then
    GROUP_ADDRESSES of each group.
    """

    def __init__(self, groups: int) -> None:
        self.numbers = (ctypes.c_int32 * (COMMON_NUMBERS + GROUP_NUMBERS * groups))()
        self.addresses = (ctypes.c_int64 * (COMMON_ADDRESSES + GROUP_ADDRESSES * groups))()
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
    ctas, turns, rounds, urgent_ctas, parts_at = numbers[:COMMON_NUMBERS]
    maps, groups = [], []
    for g in cutlass.range_constexpr(config.groups):
        m, n, k, tokens_at = numbers[COMMON_NUMBERS + GROUP_NUMBERS * g :][:GROUP_NUMBERS]
        a, b, sfa, sfb, c = addresses[GROUP_ADDRESSES * g :][:GROUP_ADDRESSES]
        maps += [encode_weights(config.geometry, b, n, k), encode_scales(config.geometry, sfb, n, k)]
        tokens = workspace + Int64(tokens_at) * 1024
        groups.append((m, n, k // ATOM_K, tokens, a, sfa, c))
    parts = workspace + Int64(parts_at) * 1024
    # Behind all segments the units of each CTA, then what it must know of a head.
    units_at = schedule + Int64(turns * (ctas // CLUSTER)) * (4 * SEGMENT_WORDS)
    heads_at = units_at + Int64(ctas * rounds) * (WIDEN_WARPS * 4 * UNIT_WORDS)
    addresses = schedule, units_at, heads_at, workspace, parts
    grouped_gemm(config, *addresses, turns, rounds, urgent_ctas, tuple(maps), tuple(groups)).launch(
        grid=(ctas, 1, 1),
        block=(THREADS, 1, 1),
        cluster=(CLUSTER, 1, 1),
        smem=SMEM_BYTES,
        min_blocks_per_mp=1,
        use_pdl=True,
    )


# ---- Python: check, plan, call -----------------------------------------------------------------------------

NAMES = ("a", "b", "sfa", "sfb", "c")
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
        atoms_k, atoms = k // ATOM_K, -(-rows // ATOM_ROWS)
        strides = (16, 4, atoms_k * ATOM_BYTES, 1, ATOM_BYTES, atoms * atoms_k * ATOM_BYTES)
        return torch.float8_e4m3fn, (32, 4, atoms, 4, atoms_k, 1), strides

    packed = torch.float4_e2m1fn_x2
    a, b = matrix(packed, m, k // 2), matrix(packed, n, k // 2)
    return a, b, scales(m), scales(n), matrix(torch.float16, m, n)


def stages_of(k: int) -> int:
    return -(-k // (STAGE * UNROLLED)) * UNROLLED


Heights = tuple[int, ...]  # of a group's tiles, along its tokens


def even_heights(m: int, tiles: int) -> Heights:
    """M tokens in so many tiles, none more than TOKENS_MULTIPLE taller than another."""
    height, taller = divmod(-(-m // TOKENS_MULTIPLE), tiles)
    return tuple((height + (i < taller)) * TOKENS_MULTIPLE for i in range(tiles))


def with_a_taller_one(m: int, tiles: int) -> list[Heights]:
    """Likewise, but one tile is taller than that."""
    tallest = range(even_heights(m, tiles)[0] + TOKENS_MULTIPLE, min(m, MAX_TOKENS + 1), TOKENS_MULTIPLE)
    others = ((height, even_heights(m - height, tiles - 1)) for height in tallest if tiles > 1)
    return [(height, *rest) for height, rest in others if rest[-1] > 0]


@dataclass(frozen=True)
class Tiling:
    """Who multiplies, and the heights of the tiles of each group."""

    geometry: Geometry
    heights: tuple[Heights, ...]

    @property
    def different(self) -> tuple[int, ...]:
        return tuple(sorted(set(chain.from_iterable(self.heights))))


def tiling_of(geometry: Geometry, heights: list[Heights]) -> Tiling:
    """With at most MAX_VARIANTS different heights: the closest become one."""
    found = Tiling(geometry, tuple(heights))
    while len(found.different) > MAX_VARIANTS:
        low, high = min(pairwise(found.different), key=lambda pair: pair[1] / pair[0])
        raised = (tuple(high if height == low else height for height in group) for group in found.heights)
        found = Tiling(geometry, tuple(raised))
    return found


def tile_tokens(m: int, heights: Heights) -> list[tuple[int, int]]:
    """First token and height of each tile. (Where heights were raised, fewer tiles may do.)"""
    return [
        (token, height)
        for token, height in zip(accumulate((0, *heights[:-1])), heights, strict=True)
        if token < m
    ]


@dataclass(frozen=True)
class Tile:
    group: int
    row: int
    token: int
    stages: int
    height: int
    warpgroups: int  # of a CTA, with 64 rows each

    def part_ns(self, part: tuple[float, float]) -> float:
        return part[0] + part[1] * self.height

    @property
    def stage_ns(self) -> float:
        return stage_ns(self.warpgroups, self.height)

    @property
    def ns(self) -> float:
        return self.stages * self.stage_ns + self.part_ns(STORE_NS)


@dataclass(frozen=True)
class Piece:
    """Stages [first, last) of a tile."""

    tile: Tile
    first: int
    last: int

    @property
    def ns(self) -> float:
        """Of a part that is written, or of a whole tile."""
        tile = self.tile
        return (self.last - self.first) * tile.stage_ns + tile.part_ns(WRITE_NS if self.first else STORE_NS)


def warpgroups_of(rows: int, geometry: Geometry) -> int:
    """That multiply in the next tile, if so many rows are left."""
    return min(geometry.warpgroups, -(-rows // (CLUSTER * WARPGROUP_ROWS)))


def tiles_of(sizes: Sizes, tiling: Tiling) -> list[Tile]:
    """Those with the same weights follow each other. In the last ones of a group as few warpgroups multiply
    as its rows need."""
    geometry = tiling.geometry
    return [
        Tile(g, row, token, stages_of(k), height, warpgroups_of(n - row, geometry))
        for g, ((m, n, k, _), heights) in enumerate(zip(sizes, tiling.heights, strict=True))
        for row in range(0, n, geometry.tile_rows)
        for token, height in tile_tokens(m, heights)
    ]


def whole_tiles(tiles: list[Tile], workers: int) -> tuple[float, list[list[Piece]]]:
    """Tiles to workers, the longest first to the least loaded: the largest load, each worker's pieces."""
    loads = [(0.0, worker) for worker in range(min(workers, len(tiles)))]
    taken: list[list[Piece]] = [[] for _ in loads]
    for tile in sorted(tiles, key=lambda tile: -tile.ns):
        load, worker = heapq.heappop(loads)
        taken[worker].append(Piece(tile, 0, tile.stages))
        heapq.heappush(loads, (load + tile.ns, worker))
    return max(load for load, _ in loads), taken


Planned = tuple[float, list[list[Piece]]]


@dataclass(eq=False)
class Worker:
    """What a cluster does: parts that it writes, whole tiles, then one it completes. free: ns before the
    limit; written: when its last part is.

    Nothing can wait forever: all clusters are on the GPU at once, and parts, being first and waiting for
    nothing, all get written; only what comes after them, completing, waits, and only for parts.
    """

    free: float
    written: float = 0.0
    writes: list[Piece] = field(default_factory=list)
    others: list[Piece] = field(default_factory=list)

    def take(self, tile: Tile) -> None:
        self.others.append(Piece(tile, 0, tile.stages))
        self.free -= tile.ns

    def write(self, piece: Piece) -> None:
        self.writes.append(piece)
        self.written += piece.ns
        self.free -= piece.ns

    def complete(self, piece: Piece) -> None:
        self.others.append(piece)
        self.free = 0.0  # what came after it would wait too

    def room(self, tile: Tile, limit: float, part: int, adds: int) -> int:
        """How many stages of a tile it can do in time, as the part-th of its 1 + adds pieces. Piece 0
        completes the tile: adds the others, in order, and stores C. They must be written in time for that."""
        tail = tile.part_ns(STORE_NS) + (adds + 1 - max(part, 1)) * tile.part_ns(ADD_NS)
        ns = self.free - tail
        if part > 0:
            ns = min(self.free, limit - tail - self.written) - tile.part_ns(WRITE_NS)
        return int(ns // tile.stage_ns) // UNROLLED * UNROLLED


def plan_tiles(tiles: list[Tile], workers: int, below: float = float("inf")) -> Planned | None:
    """When the last worker ends, and each worker's pieces; None if not before `below`. Ends are tried from
    the least conceivable upwards. (No bisection: a later end may fail where an earlier one did not.)"""
    tiles = sorted(tiles, key=lambda tile: -tile.ns)
    limit = least_ns(tiles, workers)
    while limit < below:
        if sum(work_ns(tile, limit) for tile in tiles) <= workers * limit:
            packed = [pack(tiles, workers, limit, sets) for sets in full_sets(tiles, limit)]
            if any(packed):
                pieces = min(filter(None, packed), key=parts_of)
                return end_ns(pieces), pieces
        limit *= LIMIT_STEP
    return None


def least_ns(tiles: list[Tile], workers: int) -> float:
    return sum(tile.ns for tile in tiles) / workers


def work_ns(tile: Tile, limit: float) -> float:
    """A tile, cut into as few pieces as the limit allows."""
    if tile.ns <= limit:
        return tile.ns
    part = tile.part_ns(WRITE_NS) + tile.part_ns(ADD_NS)
    return tile.ns + part * -((limit - tile.ns) // (limit - part)) if part < limit else float("inf")


def parts_of(pieces: list[list[Piece]]) -> int:
    return sum(piece.first > 0 for mine in pieces for piece in mine)


Sets = tuple[tuple[float, ...], ...]


def full_sets(tiles: list[Tile], limit: float) -> list[Sets]:
    """Times of whole tiles which together make a worker full, the fullest first: none, those of at most two
    tiles, of at most three."""
    kinds = sorted({tile.ns for tile in tiles if tile.ns <= limit})
    sets = [
        tuple(
            chosen
            for size in range(1, most + 1)
            for chosen in combinations_with_replacement(kinds, size)
            if SLACK * limit <= sum(chosen) <= limit
        )
        for most in (0, *range(2, MAX_SET + 1))
    ]
    return [tuple(sorted(each, key=sum, reverse=True)) for each in dict.fromkeys(sets)]


def pack(tiles: list[Tile], workers: int, limit: float, sets: Sets) -> list[list[Piece]] | None:
    """Each worker's pieces (tiles: the longest first), or None if they do not end before the limit. First the
    given sets of whole tiles; then each tile where it fits most tightly; those that fit nowhere are cut."""
    crew = [Worker(limit) for _ in range(workers)]
    kinds: dict[float, list[Tile]] = {}
    for tile in tiles:
        kinds.setdefault(tile.ns, []).append(tile)
    full = 0
    for chosen in sets:
        wanted = Counter(chosen)
        while full < workers and all(len(kinds[ns]) >= count for ns, count in wanted.items()):
            for ns in chosen:
                crew[full].take(kinds[ns].pop(0))
            full += 1

    crew.sort(key=free_ns)
    rest = []
    for tile in chain.from_iterable(kinds.values()):
        at = bisect_left(crew, tile.ns, key=free_ns)
        if at < workers:
            worker = crew.pop(at)
            worker.take(tile)
            insort(crew, worker, key=free_ns)
        else:
            rest.append(tile)
    if all(cut(tile, crew, limit) for tile in rest):
        for worker in crew:  # a head of many tokens lasts longer
            worker.others.sort(key=lambda piece: (piece.last < piece.tile.stages, -piece.tile.height))
        # Clusters with the highest numbers begin last: theirs is the least work.
        pieces = (worker.writes + worker.others for worker in crew if worker.writes or worker.others)
        return sorted(pieces, key=lambda mine: -sum(piece.ns for piece in mine))
    return None


def free_ns(worker: Worker) -> float:
    return worker.free


def cut(tile: Tile, crew: list[Worker], limit: float) -> bool:
    """Give a tile to as few workers as possible: those with the most time left, but of those that can do the
    last piece the one with the least. False if it does not fit."""
    crew = sorted(crew, key=free_ns, reverse=True)
    for adds in range(1, min(len(crew), tile.stages // UNROLLED)):
        rooms = [worker.room(tile, limit, part, adds) for part, worker in enumerate(crew[: adds + 1])]
        if min(rooms) < UNROLLED:
            return False
        if sum(rooms) >= tile.stages:
            break
    else:
        return False
    first = 0
    for part in range(adds):
        last = min(first + rooms[part], tile.stages - UNROLLED * (adds - part))
        piece = Piece(tile, first, last)
        if part == 0:
            crew[part].complete(piece)
        else:
            crew[part].write(piece)
        first = last
    rest = Piece(tile, first, tile.stages)
    fits = (worker for worker in reversed(crew) if worker.room(tile, limit, adds, adds) >= rest.last - first)
    next(fits).write(rest)
    return True


def part_places(pieces: list[list[Piece]]) -> list[tuple[int, int, int, int]]:
    """Tiles and first stages of the parts that are written, in the order in which they are numbered: those
    of a tile follow each other along K."""
    return sorted((*place_of(piece.tile), piece.first) for mine in pieces for piece in mine if piece.first)


def place_of(tile: Tile) -> tuple[int, int, int]:
    return tile.group, tile.row, tile.token


def end_ns(pieces: list[list[Piece]]) -> float:
    """When the last worker is ready. Each begins with the parts it writes; who completes a tile adds them one
    after the other, each as soon as it is there."""
    written: dict[Tile, list[tuple[int, float]]] = {}
    for mine in pieces:
        now = 0.0
        for piece in takewhile(lambda piece: piece.first, mine):
            now += piece.ns
            written.setdefault(piece.tile, []).append((piece.first, now))

    def end_of(mine: list[Piece]) -> float:
        now = 0.0
        for piece in mine:
            tile = piece.tile
            if piece.first or piece.last == tile.stages:
                now += piece.ns
            else:
                now += (piece.last - piece.first) * tile.stage_ns
                for _, ready in sorted(written[tile]):
                    now = max(now, ready) + tile.part_ns(ADD_NS)
                now += tile.part_ns(STORE_NS)
        return now

    return max(map(end_of, pieces))


def crowds(config: Config, pieces: list[Piece]) -> list[tuple[int, int]]:
    """Of each piece that a worker does: how many stages of tokens may be in the ring, with the one that is
    loaded, while that is less than `token_stages`; and for how many stages it is: as long as those of other
    heights are in the way, or its own do not yet begin at the ring's start."""
    ring_bytes, at = config.geometry.token_ring_bytes, 0
    inside: list[tuple[int, int]] = []  # where stages lie that may be there
    found = []
    for piece in pieces:
        size, depth = piece.tile.height * TOKEN_BYTES, config.token_stages(piece.tile.height)
        crowd, crowded, stages = depth, 0, piece.last - piece.first
        for i in range(stages):
            if i >= 3 * MAX_TOKEN_STAGES and at % size == 0 and (stages - i) % (ring_bytes // size) == 0:
                break  # from here on they lie as they did, and end as they are now
            at = at if at + size <= ring_bytes else 0
            before = len(inside)
            while len(inside) >= depth or any(first < at + size and at < last for first, last in inside):
                inside.pop(0)
            inside.append((at, at + size))
            if len(inside) <= min(before, depth - 1):
                crowd, crowded = min(crowd, len(inside)), i + 1
            at += size
        found.append((crowd, crowded))
    return found


def segments(config: Config, pieces: list[list[Piece]], scratches: int) -> list[list[tuple[int, ...]]]:
    """The schedule's entries, worker by worker. Who begins a tile completes it: the first part that it adds
    starts where it stops. scratches: warps that widen what others need."""
    places = part_places(pieces)
    numbers = {place: number for number, place in enumerate(places)}
    cuts = Counter(place[:3] for place in places)

    def halves(tile: Tile) -> int:
        """Of each CTA: whether its rows begin in the middle of an atom."""
        starts = (tile.row + rank * tile.warpgroups * WARPGROUP_ROWS for rank in range(CLUSTER))
        return sum((start % ATOM_ROWS > 0) << rank for rank, start in enumerate(starts))

    def entry(piece: Piece, crowd: int, crowded: int, after: Tile, is_first: bool) -> tuple[int, ...]:
        place, part, adds = place_of(piece.tile), 0, 0
        if piece.first > 0:
            part, adds = numbers[(*place, piece.first)], WRITES
        elif piece.last < piece.tile.stages:
            part, adds = numbers[(*place, piece.last)], cuts[place]
        stages = piece.last - piece.first
        packed = config.variants.index(piece.tile.height) | piece.tile.height // TOKENS_MULTIPLE << 3
        packed |= crowd << 8 | crowded << 16 | halves(after) << 24 | piece.tile.warpgroups << 26
        if is_first:
            head = min(config.head_stages(piece.tile.height, scratches), stages)
            # One stage more would come while the other CTA still widens for all.
            fits = (head + 1) * piece.tile.height * TOKEN_BYTES <= config.room(scratches)
            packed |= head << 28 | (fits and head < stages) << 12
        return (*place, packed, piece.first, stages, part, adds)

    return [
        [
            entry(piece, *crowd, following.tile, piece is mine[0])
            for piece, crowd, following in zip(mine, crowds(config, mine), [*mine[1:], mine[-1]], strict=True)
        ]
        for mine in pieces
    ]


class Plan:
    """How problems of given sizes are run."""

    def __init__(self, sizes: Sizes, clusters: int) -> None:
        check_sizes(sizes)
        tiling, pieces = choose(sizes, clusters)
        self.config = config_of(sizes, tiling)
        self.expected = tuple(expected_tensors(*size[:3]) for size in sizes)
        entries = segments(self.config, pieces, scratches_of(sizes, tiling, len(pieces) * CLUSTER))
        turns = max(map(len, entries)) + 1
        per_group, begin, used = [], [], 1  # KB; the first one is the counter's
        for (m, n, k, _), heights in zip(sizes, tiling.heights, strict=True):
            per_group += [m, n, k, used]
            begin.append(used)
            used += stages_of(k) * sum(height for _, height in tile_tokens(m, heights)) * TOKEN_BYTES // 1024
        self.units, self.heads, urgent_ctas = units(sizes, self.config, entries, begin)
        self.numbers = [len(entries) * CLUSTER, turns, self.units.shape[1], urgent_ctas, used, *per_group]
        parts = parts_of(pieces) * CLUSTER
        self.workspace_bytes = used * 1024 + parts * part_bytes(self.config)
        none = (-1, *[0] * (SEGMENT_WORDS - 1))
        self.table = [mine[turn] if turn < len(mine) else none for turn in range(turns) for mine in entries]


def config_of(sizes: Sizes, tiling: Tiling) -> Config:
    geometry = tiling.geometry
    in_last = (warpgroups_of((n - 1) % geometry.tile_rows + 1, geometry) for _, n, _, _ in sizes)
    return Config(geometry, len(sizes), tiling.different, min(in_last) < geometry.warpgroups)


Entry = tuple[int, ...]  # of the schedule


def head_of(entry: Entry) -> int:
    """How many stages of its tokens the cluster widens itself."""
    return entry[3] >> 28


def is_urgent(entry: Entry) -> bool:
    """Whether the stage behind these is loaded before the grid has met."""
    return bool(entry[3] >> 12 & 1)


def height_of(entry: Entry) -> int:
    return (entry[3] >> 3 & 31) * TOKENS_MULTIPLE


TilePlace = tuple[int, int, int]  # of a tile's tokens: group, first token, height


def stage_units(height: int) -> int:
    return -(-height // WIDEN_TOKENS)


def scratches_of(sizes: Sizes, tiling: Tiling, ctas: int) -> int:
    """How many warps of a CTA at most widen what others need."""
    found = 0
    for (m, _, k, _), heights in zip(sizes, tiling.heights, strict=True):
        found += sum(stage_units(height) for _, height in tile_tokens(m, heights)) * -(-k // STAGE)
    return min(-(-found // ctas), WIDEN_WARPS)


def units_of(sizes: Sizes, place: TilePlace, stages: range, begin: int) -> torch.Tensor:
    """Units of some stages of a tile, int32 (units, UNIT_WORDS): group; where values and scales begin, in
    bytes, of scales also of the lower 8 tokens; where it goes, in KB (begin: the first stage); tokens, scale
    atoms << 8 that there are, rows << 16; bytes of a token; 0."""
    group, token_0, height = place
    m, _, k, _ = sizes[group]
    atoms, stage_0 = k // ATOM_K, stages[0]
    stage, token = torch.cartesian_prod(torch.arange(len(stages)), torch.arange(0, height, WIDEN_TOKENS)).T
    target = begin + (stage * height + token) * TOKEN_BYTES // 1024
    rows = (height - token).clamp(max=WIDEN_TOKENS)
    token, stage = token_0 + token, stage_0 + stage

    def scales(token: torch.Tensor) -> torch.Tensor:
        return (atom_row(token) * atoms + stage * (STAGE // ATOM_K)) * ATOM_BYTES + scale_at(token)

    columns = (
        torch.full_like(token, group),
        token * (k // 2) + stage * PACKED_ROW_BYTES,
        scales(token),
        scales(token + SWIZZLE_ROWS),
        target,
        (m - token).clamp(0, WIDEN_TOKENS) + ((atoms - 2 * stage).clamp(0, 2) << 8) + (rows << 16),
        torch.full_like(token, k // 2),
        torch.zeros_like(token),
    )
    return torch.stack(columns, dim=1).to(torch.int32)


def loaded_stages(entries: list[list[Entry]]) -> dict[TilePlace, set[int]]:
    """The stages of tokens that somebody loads: all but heads."""
    loaded: dict[TilePlace, set[int]] = {}
    for entry in chain.from_iterable(entries):
        group, _, token, _, stage, stages, *_ = entry
        first = stage + head_of(entry)
        loaded.setdefault((group, token, height_of(entry)), set()).update(range(first, stage + stages))
    return loaded


def urgent_stages(entries: list[list[Entry]]) -> dict[TilePlace, set[int]]:
    """Those of them that are loaded before the grid has met."""
    urgent: dict[TilePlace, set[int]] = {}
    for first in (mine[0] for mine in entries if is_urgent(mine[0])):
        group, _, token, _, stage, *_ = first
        urgent.setdefault((group, token, height_of(first)), set()).add(stage + head_of(first))
    return urgent


def units_for_all(sizes: Sizes, entries: list[list[Entry]], begin: list[int]) -> tuple[torch.Tensor, int]:
    """Units of the tokens that somebody loads, first the urgent ones, and how many these are. begin: of each
    group's in the workspace, in KB."""
    urgent_of = urgent_stages(entries)
    urgent, others = [], []
    for place, stages in sorted(loaded_stages(entries).items()):
        group, token, height = place
        of_tile = range(stages_of(sizes[group][2]))
        found = units_of(sizes, place, of_tile, begin[group] + token * len(of_tile) * TOKEN_BYTES // 1024)
        by_stage = found.view(len(of_tile), stage_units(height), UNIT_WORDS)
        first = urgent_of.get(place, set())
        urgent.append(by_stage[sorted(first)].flatten(0, 1))
        others.append(by_stage[sorted(stages - first)].flatten(0, 1))
    found = that_exist(torch.cat(urgent))
    return torch.cat([found, that_exist(torch.cat(others))]), len(found)


def that_exist(found: torch.Tensor) -> torch.Tensor:
    """Without units beyond a group's tokens, or K: there the workspace stays zero."""
    tokens, atoms = found[:, 5] & 255, found[:, 5] >> 8 & 255
    return found[(tokens > 0) & (atoms > 0)]


def shares_of_head(config: Config, height: int, stages: int, others: int) -> list[list[list[int]]]:
    """Which units of each stage each CTA of a cluster widens: by turns, from stage to stage going on where it
    stopped. Where all multiply at once when the first stage is there, each widens more of that than its half,
    to receive less: as much as warps are left over by the `others`, units for all, and half of a stage."""
    count = stage_units(height)
    shares = [
        [[unit for unit in range(count) if (i * count + unit) % CLUSTER == rank] for i in range(stages)]
        for rank in range(CLUSTER)
    ]
    more = min(count, WIDEN_WARPS - others - count // CLUSTER)
    if config.geometry.helpers and stages > 1 and more > count // CLUSTER:
        shares[0][0], shares[1][0] = list(range(more)), list(range(count - more, count))
    return shares


def exchange_word(height: int, own: list[int], others: list[int]) -> int:
    """Of a stage of a head: a bit for each unit that a CTA sends, << 16 how many KB it receives, << 24 how
    many units it widens."""
    tokens = sum(min(WIDEN_TOKENS, height - unit * WIDEN_TOKENS) for unit in others if unit not in own)
    sent = sum(1 << unit for unit in own if unit not in others)
    return sent | tokens * TOKEN_BYTES // 1024 << 16 | len(own) << 24


def deal(
    sizes: Sizes, config: Config, entries: list[list[Entry]], for_all: torch.Tensor
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor]:
    """Each unit's CTA, its number among that CTA's units, and its words: those for all by turns, then of each
    cluster the head of its first segment. How many of each CTA's units all warps take part in: those for all,
    and of a head's first stages; and the `exchange_word`s, int32 (CTAs, HEAD_WORDS)."""
    ctas, number = len(entries) * CLUSTER, torch.arange(len(for_all))
    dealt = [(number % ctas, number // ctas, for_all)]
    others = torch.bincount(number % ctas, minlength=ctas)
    together = others.clone()
    exchanged = torch.zeros(ctas, HEAD_WORDS, dtype=torch.int32)
    for cluster, mine in enumerate(entries):
        group, _, token, _, first, *_ = mine[0]
        height, stages = height_of(mine[0]), head_of(mine[0])
        head = units_of(sizes, (group, token, height), range(first, first + stages), 0)
        head = head.view(stages, stage_units(height), UNIT_WORDS)
        head[..., 5] += torch.arange(stages, dtype=torch.int32)[:, None] << 24
        shares = shares_of_head(config, height, stages, int(others[cluster * CLUSTER]))
        for rank, share in enumerate(shares):
            cta = cluster * CLUSTER + rank
            found = torch.cat([stage[own] for stage, own in zip(head, share, strict=True)])
            number = others[cta] + torch.arange(len(found))
            dealt.append((torch.full_like(number, cta), number, found))
            for i, own in enumerate(share):
                exchanged[cta, i] = exchange_word(height, own, shares[rank ^ 1][i])
            together[cta] += sum(map(len, share[:STAGES_OF_ALL]))
    return tuple(torch.cat(parts) for parts in zip(*dealt, strict=True)), together, exchanged


def units(
    sizes: Sizes, config: Config, entries: list[list[Entry]], begin: list[int]
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """What each warp widens, int32 (CTAs, rounds, WIDEN_WARPS, UNIT_WORDS): first its share of the tokens
    that somebody loads, for all, then its share of the head of its cluster's first segment. In a warp's first
    unit the first word has << 8 how many these are, the last one how many are for all; of a head's units the
    sixth has << 24 the stage. begin: of each group's tokens in the workspace, in KB.

    And what each CTA must know of the head, as `deal` has it; and how many CTAs widen what is urgent."""
    for_all, urgent = units_for_all(sizes, entries, begin)
    (cta, number, found), together, exchanged = deal(sizes, config, entries, for_all)

    # Warps take them by turns, first those that do not multiply; these alone go on after a while.
    rounds_of_all = (-(-together // WIDEN_WARPS))[cta]
    left, takers = number - rounds_of_all * WIDEN_WARPS, config.geometry.helpers or WIDEN_WARPS
    turn = torch.where(left < 0, number // WIDEN_WARPS, rounds_of_all + left // takers)
    place = torch.where(left < 0, number % WIDEN_WARPS, left % takers)
    warp = (place + config.geometry.warps) % WIDEN_WARPS
    ctas, rounds = len(together), int(turn.max()) + 1
    table = torch.zeros(ctas, rounds, WIDEN_WARPS, UNIT_WORDS, dtype=torch.int32)
    table[cta, turn, warp] = found

    def per_warp(count: int) -> torch.Tensor:
        """Of the first `count` units."""
        warps = (cta * WIDEN_WARPS + warp)[:count]
        return torch.bincount(warps, minlength=ctas * WIDEN_WARPS).view(ctas, WIDEN_WARPS).to(torch.int32)

    table[:, 0, :, 0] += per_warp(len(found)) << 8
    table[:, 0, :, -1] = per_warp(len(for_all))
    return table, exchanged, min(urgent, ctas)


def choose(sizes: Sizes, workers: int) -> tuple[Tiling, list[list[Piece]]]:
    """Who multiplies, heights of the groups' tiles, and who does what. Tried are tiles of at most so many
    tokens, those with the least work first; of the best, also groups with one taller tile."""
    tried: dict[Tiling, list[Tile]] = {}
    for geometry in GEOMETRIES:
        for limit in range(MAX_TOKENS, 32, -TOKENS_MULTIPLE):
            tiling = tiling_of(geometry, [even_heights(m, -(-m // limit)) for m, _, _, _ in sizes])
            tiles = tiles_of(sizes, tiling)
            if not tried or len(tiles) <= MAX_TILES_TO_SEARCH:
                tried.setdefault(tiling, tiles)

    whole = {tiling: whole_tiles(tiles, workers) for tiling, tiles in tried.items()}
    best = min(whole, key=lambda tiling: whole[tiling][0])
    end, pieces = whole[best]
    below = WORTH_CUTTING * end
    for tiling, tiles in sorted(tried.items(), key=lambda item: least_ns(item[1], workers)):
        found = plan_tiles(tiles, workers, below) if len(tiles) <= MAX_TILES_TO_SEARCH else None
        if found:
            best, (below, pieces) = tiling, found
    if len(tried[best]) <= MAX_TILES_TO_SEARCH:
        for tiling in islice(less_even(sizes, best), MAX_LESS_EVEN):
            found = plan_tiles(tiles_of(sizes, tiling), workers, below)
            if found:
                best, (below, pieces) = tiling, found
    return best, pieces


def less_even(sizes: Sizes, tiling: Tiling) -> Iterator[Tiling]:
    """With one taller tile in one of the groups that have several."""
    for g, heights in enumerate(tiling.heights):
        for other in with_a_taller_one(sizes[g][0], len(heights)):
            yield tiling_of(tiling.geometry, [*tiling.heights[:g], other, *tiling.heights[g + 1 :]])


@lru_cache(maxsize=64)
def planned(sizes: Sizes, device: int) -> tuple[Plan, torch.Tensor, torch.Tensor]:
    """The plan, its schedule, and a workspace on the device, all flags down."""
    plan = Plan(sizes, cutlass.utils.HardwareInfo(device).get_max_active_clusters(CLUSTER))
    segments = torch.tensor(plan.table, dtype=torch.int32)
    schedule = torch.cat([segments.flatten(), plan.units.flatten(), plan.heads.flatten()]).to("cuda")
    workspace = torch.zeros(plan.workspace_bytes, dtype=torch.uint8, device="cuda")
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
        named = zip(NAMES, (a, b, sfa, sfb, c), expected, strict=True)
        addresses += [checked_address(tensor, kind, g, name) for name, tensor, kind in named]

    function, arguments = compiled(plan.config)
    arguments.numbers[:] = plan.numbers
    arguments.addresses[:] = addresses
    function(arguments)
    return [c for _, _, c in abc]
