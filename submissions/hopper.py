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
  barrier of the grid follows (a counter in memory). What it takes is hidden: each CTA also widens the head of
  its first tile, a few stages, for itself, and multiplies that meanwhile.
* CTAs are persistent: two warps load (TMA), three warpgroups multiply, each 64 weight rows of the tile. While
  the tensor core works on 64 of K, the next 64 are widened. The two CTAs of a cluster take weight rows below
  each other and share the tokens: each loads half of them for both.
* The host plans who does what. Where whole tiles would leave CTAs idle, some are cut along K: each CTA but
  one leaves its sums in the workspace, and the one that began the tile adds them to its own, in order.

Launches are chained (PDL): a CTA is set up while the previous launch ends, and waits for that end before it
touches any input.

In this file "row" is a weight row (index along N), "token" a row of A (index along M), "stage" 128 of K,
"wide" means fp16.
"""

import ctypes
import heapq
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import chain, combinations_with_replacement, pairwise, takewhile

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
HALF_STEPS = 4  # wgmmas of half a stage, which is widened at a time
MMA_K = 16
WARPGROUP_ROWS = 64
WARPGROUPS = 3  # that multiply
CLUSTER = 2  # CTAs with weight rows below each other, which share their tokens
CTA_ROWS = WARPGROUPS * WARPGROUP_ROWS
TILE_ROWS = CLUSTER * CTA_ROWS
MAX_TOKENS = 192  # of a tile: 96 accumulator registers
TOKENS_MULTIPLE = 8
MAX_VARIANTS = 8  # tile heights (tokens) in one kernel

# A scale atom is 128 rows x 64 of K = 128 x 4 scales. Atoms of one block of 128 rows follow each other along
# K. Inside: byte 16 * (row % 32) + 4 * (row / 32) + scale.
ATOM_ROWS = 128
ATOM_K = 64
ATOM_BYTES = 512
ATOM_WORDS = ATOM_BYTES // 4

# Two rings in shared memory, each slot one stage (T: the tile's tokens; of small tiles more slots fit):
#   tokens   2 x T rows of 128 B (fp16, 128 B swizzle): the even blocks of 16 of K, the odd ones
#   weights  192 rows of 64 B | scales: 2 x 2 atoms (rows x K)
PACKED_ROW_BYTES = STAGE // 2
SCALE_BYTES = 4 * ATOM_BYTES
WEIGHT_BYTES = CTA_ROWS * PACKED_ROW_BYTES
WEIGHT_SLOT_BYTES = WEIGHT_BYTES + SCALE_BYTES
TOKEN_ROW_BYTES = 128
TOKEN_BYTES = 2 * TOKEN_ROW_BYTES  # of a stage

HEADER_BYTES = 1024  # mbarriers
STAGED_TOKENS = 32  # of C at a time, 64 rows (128 B) each
STAGING_BYTES = STAGED_TOKENS * 2 * WARPGROUP_ROWS
SMEM_BYTES = 227 * 1024
MIN_TOKEN_SLOTS = 3
MAX_TOKEN_SLOTS = 8
MAX_WEIGHT_SLOTS = 4

MULTIPLY_WARPS = 4 * WARPGROUPS
WEIGHTS_WARP = MULTIPLY_WARPS  # loads weights
TOKENS_WARP = WEIGHTS_WARP + 1  # loads tokens
THREADS = 128 * (WARPGROUPS + 1)
MULTIPLY_REGISTERS = 160
OTHER_REGISTERS = 32

# Tokens are widened by the multiplying warps, 8 at a time, two stages of them: 4 swizzle atoms of 1 KB.
WIDEN_TOKENS = 8
WIDEN_STAGES = 2
WIDEN_BATCH = 3  # of these, whose loads are under way together
HEAD_NS = 3200  # of multiplications before the first tokens from the workspace are there
SCRATCH_BYTES = 4096

# Named barriers
TOKENS_ARE_WIDE = 1
ALL_MULTIPLY = 2
FIRST_WARPGROUP_BARRIER = 3

# A part of a tile's sums in the workspace: flags, one per warp, then per 8 tokens 16 B of each thread
FLAG_BYTES = 4 * MULTIPLY_WARPS
PIECE_BYTES = 16 * 32 * MULTIPLY_WARPS
ADD_BATCH = 12  # pieces under way at a time

# ---- Encodings ---------------------------------------------------------------------------------------------

# Bytes of a register: e2m1's sign and magnitude in the place of e4m3's sign, low exponent bits, high mantissa
# bit
SIGNS = -0x77777778  # 0x88888888, of all eight values
MAGNITUDES = 0x1C1C1C1C
BIAS = 2.0**12  # 2^6 for weights and tokens each

# wgmma shared memory descriptor without its address: K-major, 128 B swizzle, 8 rows = 1024 B
TOKENS_DESCRIPTOR = 1 << 62 | (1024 >> 4) << 32 | 1 << 16
STEP_FIELD = 2 * MMA_K >> 4

# Cost model for the plan, in ns: least, and per token. Fitted to the times of 528 CTAs on an H200.
STAGE_NS = 400, 4.2
TENSOR_CORE_NS = 0, 6.9  # of a stage: 3 x 8 wgmmas of half a cycle per token
STORE_NS = 2000, 4.6  # sums to C, and the first stage on its way
WRITE_NS = 1400, 20  # sums to the workspace, likewise
ADD_NS = 200, 8.7  # and from there
MIN_CUT_STAGES = 2
MAX_TILES_TO_SEARCH = 1024
LIMIT_STEP = 1.0025  # from one end that is tried to the next
WORTH_CUTTING = 0.99  # of the time that whole tiles take: by less the model may err
SLACK = 0.97  # a worker with so much of the limit is full: the rest is too little for a piece
MAX_SET = 3  # whole tiles that are looked for together

EVICT_FIRST = 0x12F0_0000_0000_0000
EVICT_LAST = 0x14F0_0000_0000_0000


@dataclass(frozen=True)
class Config:
    """What the kernel is compiled for: the tokens of a tile, group by group."""

    heights: tuple[int, ...]

    @property
    def groups(self) -> int:
        return len(self.heights)

    @property
    def variants(self) -> tuple[int, ...]:
        return tuple(sorted(set(self.heights)))

    @property
    def max_height(self) -> int:
        return max(self.heights)

    @property
    def weight_slots(self) -> int:
        """As many as leave room for MIN_TOKEN_SLOTS stages of the largest tile's tokens."""
        others = (
            HEADER_BYTES + 2 * WARPGROUPS * STAGING_BYTES + MIN_TOKEN_SLOTS * self.max_height * TOKEN_BYTES
        )
        return min((SMEM_BYTES - others) // WEIGHT_SLOT_BYTES, MAX_WEIGHT_SLOTS)

    @property
    def token_ring_bytes(self) -> int:
        others = HEADER_BYTES + 2 * WARPGROUPS * STAGING_BYTES + self.weight_slots * WEIGHT_SLOT_BYTES
        return (SMEM_BYTES - others) // 1024 * 1024

    def token_slots(self, height: int) -> int:
        return min(self.token_ring_bytes // (height * TOKEN_BYTES), MAX_TOKEN_SLOTS)

    def head_stages(self, height: int) -> int:
        """How many of its first tile a CTA widens itself: to be busy until others' tokens are there, if there
        are slots."""
        items = -(-HEAD_NS // (WIDEN_STAGES * stage_ns(height)))
        return WIDEN_STAGES * int(min(items, self.token_slots(height) // WIDEN_STAGES))


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
def store_words(place: str, address, words: list[Int32], *, loc=None, ip=None) -> None:
    """16 B to `place` (st.`place`)."""
    kind = "l" if isinstance(address, Int64) else "r"
    ptx(f"st.{place}.v4.b32 [$0], {{$1, $2, $3, $4}};", f"{kind},r,r,r,r", [address, *words], loc=loc, ip=ip)


@dsl_user_op
def store_floats(address: Int64, four: list[Float32], *, loc=None, ip=None) -> None:
    """To global memory."""
    ptx("st.global.v4.f32 [$0], {$1, $2, $3, $4};", "l,f,f,f,f", [address, *four], loc=loc, ip=ip)


@dsl_user_op
def load_floats(address: Int64, *, loc=None, ip=None) -> list[Float32]:
    """Four from global memory, not from L1: another SM may just have written them."""
    text = "ld.relaxed.gpu.global.v4.f32 {$0, $1, $2, $3}, [$4];"
    result = ptx(text, "=f,=f,=f,=f,l", [address], structure("f32", 4), loc=loc, ip=ip)
    return fields(Float32, result, 4, loc=loc, ip=ip)


@dsl_user_op
def select_bits(a: Int32, mask: int, b: Int32, *, loc=None, ip=None) -> Int32:
    """a where the mask has ones, b elsewhere."""
    return pure("lop3.b32 $0, $1, $2, $3, 0xE2;", "=r,r,r,r", [a, mask, b], loc=loc, ip=ip)


@dsl_user_op
def and_bits(a: Int32, b: int, *, loc=None, ip=None) -> Int32:
    """(Opaque: of `(a & b) << 4` the compiler makes a second `and`.)"""
    return pure("and.b32 $0, $1, $2;", "=r,r,r", [a, b], loc=loc, ip=ip)


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
def arrive(barrier: Int32, *, loc=None, ip=None) -> None:
    ptx("mbarrier.arrive.shared::cta.b64 _, [$0];", "r", [barrier], loc=loc, ip=ip)


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
def load_bytes_for_all(smem, address, count, barrier, policy, *, loc=None, ip=None) -> None:
    """Global memory to the same place in each CTA of the cluster, and to its barrier."""
    text = (
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint"
        " [$0], [$1], $2, [$3], $4, $5;"
    )
    operands = [smem, address, count, barrier, Int16((1 << CLUSTER) - 1), Int64(policy)]
    ptx(text, "r,l,r,r,h,l", operands, loc=loc, ip=ip)


@dsl_user_op
def cross_proxy_fence(*, loc=None, ip=None) -> None:
    """This thread's accesses to shared memory come before later bulk copies there."""
    ptx("fence.proxy.async.shared::cta;", "", loc=loc, ip=ip)


@dsl_user_op
def prefetch(address: Int64, *, loc=None, ip=None) -> None:
    """A line into L2. Nothing is read: what the previous launch may still write stays valid."""
    ptx("prefetch.global.L2 [$0];", "l", [address], loc=loc, ip=ip)


@dsl_user_op
def arrivals_when_all_met(counter: Int64, ctas: Int32, *, loc=None, ip=None) -> Int32:
    """What the counter will say. It grows by `ctas` with each launch; this CTA has not arrived yet."""
    text = (
        "{ .reg .b32 seen; ld.relaxed.gpu.global.b32 seen, [$1]; div.u32 seen, seen, $2;"
        " mad.lo.u32 $0, seen, $2, $2; }"
    )
    return Int32(ptx(text, "=r,l,r", [counter, ctas], Int32.mlir_type, loc=loc, ip=ip))


@dsl_user_op
def meet_grid(counter: Int64, all_met: Int32, *, loc=None, ip=None) -> None:
    """One thread of each CTA, after a barrier of the CTA: until those of all CTAs are here. What their
    CTAs wrote before may then be read by bulk copies."""
    text = (
        "{ .reg .pred more; .reg .b32 seen; red.release.gpu.global.add.u32 [$0], 1;"
        " AGAIN: ld.acquire.gpu.global.b32 seen, [$0]; sub.s32 seen, seen, $1; setp.lt.s32 more, seen, 0;"
        " @more bra AGAIN; fence.proxy.async; }"
    )
    ptx(text, "l,r", [counter, all_met], loc=loc, ip=ip)


@dsl_user_op
def raise_flag(flag: Int64, *, loc=None, ip=None) -> None:
    """What the threads of this warp wrote, before they met, is there for who sees the flag."""
    ptx("st.release.gpu.global.b32 [$0], 1;", "l", [flag], loc=loc, ip=ip)


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
    descriptor = first + 4 * HALF_STEPS

    def one(height: int) -> list[str]:
        registers = ", ".join(f"${i}" for i in range(height // 2))
        lines = ["wgmma.fence.sync.aligned;"]
        for step in range(HALF_STEPS):
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

    lines = [f"{{ .reg .b64 d<{HALF_STEPS}>; .reg .b32 low<{HALF_STEPS}>; .reg .pred p;"]
    for step in range(HALF_STEPS):
        lines.append(f"add.s32 low{step}, ${descriptor}, {step * STEP_FIELD};")
        lines.append(f"mov.b64 d{step}, {{low{step}, {TOKENS_DESCRIPTOR >> 32}}};")
    lines += [*choose(0, len(variants)), "wgmma.wait_group.sync.aligned 1; }"]
    operands = [*weights, tokens, variant]
    update(sums, " ".join(lines), "r," * (4 * HALF_STEPS) + "r,r", operands, loc=loc, ip=ip)


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


@dsl_user_op
def meet_warpgroup(warpgroup: Int32, *, loc=None, ip=None) -> None:
    """Barrier of its four warps."""
    text = f"{{ .reg .b32 id; add.s32 id, $0, {FIRST_WARPGROUP_BARRIER}; bar.sync id, 128; }}"
    ptx(text, "r", [warpgroup], loc=loc, ip=ip)


# ---- Widening ----------------------------------------------------------------------------------------------


def widen(word: Int32) -> list[Int32]:
    """Eight e2m1 as pairs of fp16, times 2^-6: values 1 and 3, 5 and 7, 0 and 2, 4 and 6."""
    signs = and_bits(word, SIGNS)
    high = select_bits(word >> 2, MAGNITUDES, signs)
    low = select_bits(word << 2, MAGNITUDES, signs << 4)
    return [*e4m3_to_halves(high), *e4m3_to_halves(low)]


def widen_scaled(words: list[Int32], scale: Int32) -> list[Int32]:
    """16 values of one row, which share a scale, as 8 registers: 2 per wgmma."""
    return [multiply_halves(pair, scale) for word in words for pair in widen(word)]


# ---- Device: who works on what -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Numbers of one group. atoms: along K. tokens: where they lie in the workspace, fp16. items: of
    WIDEN_TOKENS x WIDEN_STAGES to widen, before this group."""

    m: Int32
    n: Int32
    atoms: Int32
    height: Int32
    items: Int32
    tokens: Int64
    a: Int64
    sfa: Int64
    c: Int64

    @property
    def stages(self) -> Int32:
        return (self.atoms + 1) // 2


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


def height_of_variant(config: Config, variant: Int32) -> Int32:
    return by_variant(config, variant, lambda height: height)


SEGMENT_WORDS = 8
WRITES = -1  # as `adds`


@dataclass(frozen=True)
class Segment:
    """Stages of a tile that one CTA works on. group -1: none. adds: how many parts from `part` on, sums of
    other CTAs in the workspace, this one adds to its own; WRITES if it leaves its own there, as `part`."""

    group: Int32
    row: Int32
    token: Int32
    variant: Int32
    stage: Int32
    stages: Int32
    part: Int32
    adds: Int32


@cute.jit
def segment_address(schedule: Int64, turn: Int32):
    entry = turn * (cute.arch.grid_dim()[0] // CLUSTER) + cute.arch.block_idx()[0] // CLUSTER
    return schedule + Int64(entry) * (4 * SEGMENT_WORDS)


@cute.jit
def segment_words(schedule: Int64, turn: Int32):
    """A segment of this CTA's cluster, on its way."""
    address = segment_address(schedule, turn)
    return load_words("global.nc", address, 4) + load_words("global.nc", address + 16, 4)


def as_segment(words: list[Int32]) -> Segment:
    """What a warp of this CTA works on: the cluster's segment, its own rows and parts."""
    group, row, token, variant, stage, stages, part, adds = map(cute.arch.make_warp_uniform, words)
    rank = cute.arch.block_idx_in_cluster()
    row, part = row + rank * CTA_ROWS, part * CLUSTER + rank
    return Segment(group, row, token, variant, stage, stages, part, adds)


@cute.jit
def segment_of(schedule: Int64, turn: Int32):
    return as_segment(segment_words(schedule, turn))


@dataclass(frozen=True)
class Ring:
    """Slots in shared memory, and two barriers for each (addresses of the first): full, empty."""

    full: Int32
    empty: Int32
    start: Int32


@dataclass(frozen=True)
class Shared:
    tokens: Ring
    weights: Ring
    staging: Int32  # of C


def shared_memory(config: Config, start: Int32) -> Shared:
    """From `start`: barriers | tokens | weights | staging. (wgmma's swizzle wants 1024 B alignment.)"""
    tokens = start + HEADER_BYTES
    weights = tokens + config.token_ring_bytes
    staging = weights + config.weight_slots * WEIGHT_SLOT_BYTES
    full, empty = start, start + 8 * MAX_TOKEN_SLOTS
    weights_full, weights_empty = (
        start + 16 * MAX_TOKEN_SLOTS,
        start + 16 * MAX_TOKEN_SLOTS + 8 * MAX_WEIGHT_SLOTS,
    )
    return Shared(Ring(full, empty, tokens), Ring(weights_full, weights_empty, weights), staging)


# A role's place in a ring is a slot and `parities`: bit i is what the next wait at slot i's barrier is for.
PRODUCER_PARITIES = (1 << max(MAX_TOKEN_SLOTS, MAX_WEIGHT_SLOTS)) - 1  # a fresh barrier counts as complete
CONSUMER_PARITIES = 0


@cute.jit
def wait_at(barriers: Int32, slot: Int32, parities: Int32):
    wait(barriers + slot * 8, (parities >> slot) & 1)


@cute.jit
def advance(slots, slot: Int32, parities: Int32):
    """To the next of `slots` slots."""
    parities ^= 1 << slot
    slot += 1
    if slot == slots:
        slot = Int32(0)
    return slot, parities


# ---- Device: loading ---------------------------------------------------------------------------------------


@cute.jit
def load_weights(config: cutlass.Constexpr, schedule, turns, descriptors, ring):
    """A warp keeps the ring of weights full. (All of it walks the loop, so that addresses are uniform.)"""
    slot, parities = Int32(0), Int32(PRODUCER_PARITIES)
    for turn in cutlass.range(turns, unroll=1):
        segment = segment_of(schedule, turn)
        if segment.group >= 0:
            values = descriptors + Int64(segment.group) * (DESCRIPTORS * DESCRIPTOR_BYTES)
            scales = values + DESCRIPTOR_BYTES
            atom_row = segment.row // ATOM_ROWS
            for i in cutlass.range(segment.stages, unroll=1):
                stage = segment.stage + i
                full, smem = ring.full + slot * 8, ring.start + slot * WEIGHT_SLOT_BYTES
                wait_at(ring.empty, slot, parities)
                with cute.arch.elect_one():
                    expect(full, Int32(WEIGHT_SLOT_BYTES))
                    load_box(smem, values, stage * PACKED_ROW_BYTES, segment.row, full, EVICT_FIRST)
                    load_box(
                        smem + WEIGHT_BYTES, scales, stage * (2 * ATOM_WORDS), atom_row, full, EVICT_FIRST
                    )
                slot, parities = advance(config.weight_slots, slot, parities)


@cute.jit
def load_tokens(config: cutlass.Constexpr, groups, schedule, turns, ring):
    """A warp keeps the ring of tokens full: each CTA of the cluster loads a share, for all."""
    rank = cute.arch.make_warp_uniform(cute.arch.block_idx_in_cluster())
    parities = Int32(PRODUCER_PARITIES)
    for turn in cutlass.range(turns, unroll=1):
        segment = segment_of(schedule, turn)
        if segment.group >= 0:
            # Slots of this segment lie across those of the last one: all must be empty.
            if turn > 0:  # (Head stages are none that this warp filled.)
                for i in cutlass.range_constexpr(MAX_TOKEN_SLOTS):
                    wait_at(ring.empty, Int32(i), parities)
            group = pick(groups, segment.group)
            stage_bytes = group.height * TOKEN_BYTES
            share = stage_bytes // CLUSTER
            tile = segment.token // group.height
            source = group.tokens + Int64(tile * group.stages + segment.stage) * Int64(stage_bytes)
            source += Int64(rank * share)
            slots = by_variant(config, segment.variant, config.token_slots)
            head = cutlass.select_(turn == 0, head_of(config, segment), Int32(0))
            source += Int64(head) * Int64(stage_bytes)
            slot = cutlass.select_(head == slots, Int32(0), head)
            parities ^= (1 << head) - 1  # not empty
            for _ in cutlass.range(head, segment.stages, unroll=1):
                full, smem = ring.full + slot * 8, ring.start + slot * stage_bytes + rank * share
                wait_at(ring.empty, slot, parities)
                with cute.arch.elect_one():
                    expect(full, stage_bytes)
                    load_bytes_for_all(smem, source, share, full, EVICT_LAST)
                source += Int64(stage_bytes)
                slot, parities = advance(slots, slot, parities)


# ---- Device: tokens to fp16 --------------------------------------------------------------------------------


@cute.jit
def widen_tokens(config: cutlass.Constexpr, groups, items: Int32, scratch: Int32):
    """The multiplying warps of all CTAs: tokens to fp16, in the workspace as shared memory wants them.

    An item is 8 tokens x 2 stages. A lane has a token, a stage and of it the even or the odd blocks (of 16
    values). These 64 values are put in the order in which wgmma meets the weights: of the four blocks, each
    has two words of eight, each gives four pairs; 16-byte chunk 4 * word + pair holds that pair of all
    four. (Blocks 2 i and 2 i + 1 of weights are in the i-th thread of four.) The 8 tokens are a swizzle
    atom of 1 KB; shared memory turns rows per lane into lines for all lanes.
    """
    warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
    lane = cute.arch.lane_idx()
    ctas = cute.arch.grid_dim()[0]
    scratch += warp * SCRATCH_BYTES
    row, odd, second = lane % 8, lane // 8 % 2, lane // 16
    first = warp * ctas + cute.arch.block_idx()[0]
    stride = ctas * MULTIPLY_WARPS
    for start in cutlass.range(first, items, WIDEN_BATCH * stride, unroll=1):
        places = [item_of(config, groups, start + i * stride) for i in range(WIDEN_BATCH)]
        fetched = [
            fetch_token(group, block * WIDEN_TOKENS + row, stage + second, odd)
            for group, block, stage in places
        ]
        for i in cutlass.range_constexpr(WIDEN_BATCH):
            if start + i * stride < items:
                group, block, stage = places[i]
                cute.arch.sync_warp()
                store_chunks(scratch + lane * TOKEN_ROW_BYTES, row, *fetched[i], odd)
                cute.arch.sync_warp()
                tile = block * WIDEN_TOKENS // group.height
                first_row = block * WIDEN_TOKENS - tile * group.height
                for atom in cutlass.range_constexpr(2 * WIDEN_STAGES):
                    at_stage = stage + atom // 2
                    if at_stage < group.stages:
                        rows = ((tile * group.stages + at_stage) * 2 + atom % 2) * group.height + first_row
                        target = group.tokens + Int64(rows) * TOKEN_ROW_BYTES + Int64(lane * 16)
                        for part in cutlass.range_constexpr(2):
                            values = load_words("shared", scratch + atom * 1024 + part * 512 + lane * 16, 4)
                            store_words("global", target + part * 512, values)


@cute.jit
def widen_head(config: cutlass.Constexpr, groups, segment, ring):
    """The same for the first stages of this CTA's first tile, right into its ring: these are multiplied while
    the grid meets and the other tokens are on their way."""
    warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
    lane = cute.arch.lane_idx()
    row, odd, second = lane % 8, lane // 8 % 2, lane // 16
    group = pick(groups, segment.group)
    head = head_of(config, segment)
    blocks = group.height // WIDEN_TOKENS
    items = [
        height // WIDEN_TOKENS * (config.head_stages(height) // WIDEN_STAGES) for height in config.variants
    ]
    rounds = -(-max(items) // MULTIPLY_WARPS)
    places, fetched = [], []
    for i in cutlass.range_constexpr(rounds):
        item = warp + i * MULTIPLY_WARPS
        column = item // blocks
        first_row, stage = (item - column * blocks) * WIDEN_TOKENS, column * WIDEN_STAGES + second
        # What lies beyond the head is not fetched, as if it were beyond the last token.
        token = cutlass.select_(stage < head, segment.token + first_row + row, group.m)
        places.append((first_row, stage))
        fetched.append(fetch_token(group, token, segment.stage + stage, odd))
    cute.arch.barrier(barrier_id=ALL_MULTIPLY, number_of_threads=32 * MULTIPLY_WARPS)  # scratch is not in use
    for i in cutlass.range_constexpr(rounds):
        first_row, stage = places[i]
        if stage < head:
            rows = (2 * stage + odd) * group.height + first_row + row
            store_chunks(ring.start + rows * TOKEN_ROW_BYTES, row, *fetched[i], odd)
    cross_proxy_fence()
    cute.arch.barrier(barrier_id=ALL_MULTIPLY, number_of_threads=32 * MULTIPLY_WARPS)


def head_of(config: Config, segment: Segment) -> Int32:
    """How many stages of a CTA's first segment it widens itself."""
    if_long = by_variant(config, segment.variant, config.head_stages)
    return cutlass.select_(segment.group >= 0, cutlass.min(if_long, segment.stages), Int32(0))


def store_chunks(address: Int32, row: Int32, words, scales, odd: Int32) -> None:
    """A token's 64 values as the eight chunks of a row of 128 B, swizzled."""
    for chunk, pairs in enumerate(widen_blocks(words, scales, odd)):
        store_words("shared", address + (chunk ^ row) * 16, pairs)


def item_of(config: Config, groups, item: Int32):
    """Its group, which 8 tokens there, first of two stages."""
    index = Int32(0)
    for g in range(1, config.groups):
        index += Int32(item >= groups[g][4])
    group = pick(groups, index)
    columns = (group.stages + (WIDEN_STAGES - 1)) // WIDEN_STAGES
    block = (item - group.items) // columns
    return group, block, ((item - group.items) - block * columns) * WIDEN_STAGES


@cute.jit
def prefetch_tokens(config: cutlass.Constexpr, groups, items: Int32):
    """What a warp will widen, into L2: while the previous launch ends."""
    lane = cute.arch.lane_idx()
    ctas = cute.arch.grid_dim()[0]
    first = cute.arch.make_warp_uniform(cute.arch.warp_idx()) * ctas + cute.arch.block_idx()[0]
    for item in cutlass.range(first, items, ctas * MULTIPLY_WARPS, unroll=1):
        group, block, stage = item_of(config, groups, item)
        token, at = block * WIDEN_TOKENS + lane % 8, stage + lane // 16
        if token < group.m and at < group.stages:
            source, scale = places_of(group, token, at)
            prefetch(source)
            prefetch(scale)


def places_of(group: Group, token: Int32, stage: Int32) -> tuple[Int64, Int64]:
    """Addresses of a token's stage and of its scales (in the first of two atoms)."""
    source = group.a + Int64(token) * Int64(group.atoms * (ATOM_K // 2)) + Int64(stage * PACKED_ROW_BYTES)
    atom = Int64(token // ATOM_ROWS) * Int64(group.atoms) + Int64(2 * stage)
    return source, group.sfa + atom * ATOM_BYTES + Int64(scale_at(token))


@cute.jit
def fetch_token(group, token: Int32, stage: Int32, odd: Int32):
    """Four blocks of two words, and scales of all eight. Zeros beyond the token's end."""
    words = [Int32(0) for _ in range(8)]
    scales = [Int32(0) for _ in range(2)]
    if token < group.m and stage < group.stages:
        source, scale = places_of(group, token, stage)
        source += Int64(odd * 8)
        words[0:4] = load_words("global.nc", source, 2) + load_words("global.nc", source + 16, 2)
        scales[0] = load_word("global.nc.b32", scale)
        if 2 * stage + 1 < group.atoms:
            words[4:8] = load_words("global.nc", source + 32, 2) + load_words("global.nc", source + 48, 2)
            scales[1] = load_word("global.nc.b32", scale + ATOM_BYTES)
    return [words[2 * i : 2 * i + 2] for i in range(4)], scales


def widen_blocks(words: list[list[Int32]], scales: list[Int32], odd: Int32) -> list[list[Int32]]:
    """Eight chunks of a pair of each of four blocks. scales: eight, those of the four are every other."""
    four = permute_bytes(scales[0], scales[1], 0x6420 + odd * 0x1111)
    both = (scales_to_halves(four), scales_to_halves(four >> 16))
    blocks = []
    for block in range(4):
        halves = both[block // 2]
        scale = permute_bytes(halves, halves, 0x3232 if block % 2 else 0x1010)
        blocks.append(widen_scaled(words[block], scale))
    return [list(chunk) for chunk in zip(*blocks, strict=True)]


# ---- Device: the multiplication ----------------------------------------------------------------------------


@cute.jit
def multiply_tiles(config: cutlass.Constexpr, groups, schedule, turns, words, parts, shared):
    """Three warpgroups, 64 rows each."""
    weights, tokens = shared.weights, shared.tokens
    warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
    lane = cute.arch.lane_idx()
    # Where a thread's fragment lies in a stage: rows r and r + 8, of each the i-th of four 16 B (two blocks)
    fragment_row, i = warp * 16 + lane // 4, lane % 4
    weights_in = weights.start + fragment_row * PACKED_ROW_BYTES + i * 16
    # Tokens come from all CTAs of the cluster, so all must know that a slot is empty.
    tokens_empty = in_cta(tokens.empty, lane % CLUSTER)

    weight_slot, weight_parities = Int32(0), Int32(CONSUMER_PARITIES)
    token_parities = Int32(CONSUMER_PARITIES) | ((1 << head_of(config, as_segment(words))) - 1)  # is there
    for turn in cutlass.range(turns, unroll=1):
        segment = as_segment(words)
        if segment.group >= 0:
            half = height_of_variant(config, segment.variant) * TOKEN_ROW_BYTES
            # As the result of a shuffle, it is not chosen again in each stage.
            token_slots = cute.arch.make_warp_uniform(by_variant(config, segment.variant, config.token_slots))
            scale_row = segment.row % ATOM_ROWS + fragment_row
            scales_in = (
                weights.start + WEIGHT_BYTES + scale_row // ATOM_ROWS * (2 * ATOM_BYTES) + scale_at(scale_row)
            )
            scales_in += i // 2 * ATOM_BYTES + i % 2 * 2
            sums = cute.make_rmem_tensor(config.max_height // 2, Float32)
            sums.fill(0.0)

            token_slot = last = Int32(0)
            wait_at(weights.full, weight_slot, weight_parities)
            start = weight_slot * WEIGHT_SLOT_BYTES
            upper, lower, scales = load_fragment(weights_in + start, scales_in + start)
            for stage in cutlass.range(segment.stages, unroll=1):
                at = ((tokens.start + token_slot * (2 * half)) >> 4) | (TOKENS_DESCRIPTOR & 0xFFFFFFFF)
                even = widen_fragment(upper[:2], lower[:2], scales[0])
                wait_at(tokens.full, token_slot, token_parities)
                multiply(sums, even, at, segment.variant, config.variants)
                if lane < CLUSTER and stage > 0:
                    arrive_in_cluster(tokens_empty + last * 8)

                odd = widen_fragment(upper[2:], lower[2:], scales[1])
                if lane == 0:
                    arrive(weights.empty + weight_slot * 8)
                weight_slot, weight_parities = advance(config.weight_slots, weight_slot, weight_parities)
                if stage + 1 < segment.stages:  # its values are on their way before they are needed
                    wait_at(weights.full, weight_slot, weight_parities)
                    start = weight_slot * WEIGHT_SLOT_BYTES
                    upper, lower, scales = load_fragment(weights_in + start, scales_in + start)
                multiply(sums, odd, at + (half >> 4), segment.variant, config.variants)
                last = token_slot
                token_slot, token_parities = advance(token_slots, token_slot, token_parities)
            words = segment_words(schedule, cutlass.min(turn + 1, turns - 1))  # while sums are stored
            finish(sums)
            if lane < CLUSTER:
                arrive_in_cluster(tokens_empty + last * 8)
            complete(config, sums, groups, segment, parts, shared.staging, warp, lane)


def scale_at(row: Int32) -> Int32:
    """Where a row's scales lie in an atom."""
    return 16 * (row % 32) + 4 * (row // 32 % 4)


def load_fragment(weights: Int32, scales: Int32):
    """A thread's share of 64 rows x 128 of K, packed: four words of row r, of row r + 8, and the scales as
    fp16, by blocks: those of row r and of row r + 8, doubled."""
    upper = load_words("shared", weights, 4)
    lower = load_words("shared", weights + 8 * PACKED_ROW_BYTES, 4)
    both = [scales_to_halves(load_word("shared.u16", scales + 8 * 16 * i)) for i in range(2)]
    doubled = [[permute_bytes(halves, halves, selector) for halves in both] for selector in (0x1010, 0x3232)]
    return upper, lower, doubled


def widen_fragment(upper: list[Int32], lower: list[Int32], scales: list[Int32]) -> list[Int32]:
    """A block of each of two rows as four wgmmas want them: (row, k), (row + 8, k), (row, k + 8),
    (row + 8, k + 8) per step."""
    pairs = zip(widen_scaled(upper, scales[0]), widen_scaled(lower, scales[1]), strict=True)
    return [half for pair in pairs for half in pair]


@cute.jit
def complete(config: cutlass.Constexpr, sums, groups, segment, parts, staging, warp, lane):
    """Sums to C, or to the workspace for another CTA, or first the others' to them."""
    height = height_of_variant(config, segment.variant)
    if segment.adds == WRITES:
        write_part(config, sums, height, parts, segment.part, warp, lane)
    else:
        for i in cutlass.range(segment.adds, unroll=1):
            add_part(config, sums, height, parts, segment.part + i * CLUSTER, warp, lane)
        store_tile(config, sums, pick(groups, segment.group), segment, height, staging, warp, lane)


def part_bytes(config: Config) -> int:
    return FLAG_BYTES + config.max_height // 8 * PIECE_BYTES


@cute.jit
def part_place(config: cutlass.Constexpr, parts: Int64, part: Int32, warp: Int32, lane: Int32):
    """Addresses of the warp's flag and of the thread's first 16 B."""
    start = parts + Int64(part) * part_bytes(config)
    return start + Int64(warp * 4), start + Int64(FLAG_BYTES + (warp * 32 + lane) * 16)


@cute.jit
def write_part(config: cutlass.Constexpr, sums, height, parts, part, warp, lane):
    flag, place = part_place(config, parts, part, warp, lane)
    for i in cutlass.range_constexpr(config.max_height // 8):
        if 8 * i < height:
            store_floats(place + i * PIECE_BYTES, [sums[4 * i + j] for j in range(4)])
    cute.arch.sync_warp()
    if lane == 0:
        raise_flag(flag)


@cute.jit
def add_part(config: cutlass.Constexpr, sums, height, parts, part, warp, lane):
    flag, place = part_place(config, parts, part, warp, lane)
    await_flag(flag)
    for first in cutlass.range_constexpr(0, config.max_height // 8, ADD_BATCH):
        if 8 * first < height:  # pieces beyond the height, in the last batch, are never used
            last = min(first + ADD_BATCH, config.max_height // 8)
            pieces = [load_floats(place + i * PIECE_BYTES) for i in range(first, last)]
            for i, piece in enumerate(pieces):
                for j in cutlass.range_constexpr(4):
                    sums[4 * (first + i) + j] += piece[j]
    cute.arch.sync_warp()
    if lane == 0:
        lower_flag(flag)


@cute.jit
def store_tile(config: cutlass.Constexpr, sums, group, segment, height, staging, warp, lane):
    """A warpgroup's 64 rows (128 B of a row of C): 32 tokens at a time through shared memory, two buffers.
    There a token is a row of 128 B, 16-byte chunk i at i ^ (token % 8)."""
    warpgroup, thread = warp // 4, warp % 4 * 32 + lane
    staging += warpgroup * (2 * STAGING_BYTES)
    row, token = segment.row + warpgroup * WARPGROUP_ROWS, segment.token
    matrix, matrix_row = lane // 8, lane % 8
    target = staging + (8 * (matrix // 2) + matrix_row) * 128
    target += ((2 * (warp % 4) + matrix % 2) ^ matrix_row) * 16
    limit = cutlass.min(group.m, token + height)
    meet_warpgroup(warpgroup)  # the last tile's reads are over
    for first in cutlass.range_constexpr(0, config.max_height, STAGED_TOKENS):
        if token + first < limit:
            buffer = first // STAGED_TOKENS % 2 * STAGING_BYTES
            blocks = min(STAGED_TOKENS, config.max_height - first) // 8
            words = pack_blocks(sums, first // 2, 4 * blocks)
            store_transposed(target + buffer, words[:4])
            if cutlass.const_expr(blocks > 2):
                store_transposed(target + buffer + 16 * 128, words[4:])
            meet_warpgroup(warpgroup)
            for part in cutlass.range_constexpr((blocks + 1) // 2):
                staged, chunk = part * 16 + thread // 8, thread % 8
                values = load_words(
                    "shared", staging + buffer + staged * 128 + (chunk ^ (staged % 8)) * 16, 4
                )
                at_token, at_row = token + first + staged, row + chunk * 8
                if at_token < limit and at_row < group.n:
                    place = group.c + (Int64(at_token) * Int64(group.n) + Int64(at_row)) * 2
                    store_words("global", place, values)


def pack_blocks(sums, first: int, count: int) -> list[Int32]:
    return [pack_fp16(sums[i] * BIAS, sums[i + 1] * BIAS) for i in range(first, first + count, 2)]


def init_barriers(barriers: cute.Pointer) -> None:
    for slots, releases in (
        (MAX_TOKEN_SLOTS, MULTIPLY_WARPS * CLUSTER),
        (MAX_WEIGHT_SLOTS, MULTIPLY_WARPS),
    ):
        for i in range(slots):
            cute.arch.mbarrier_init(barriers + i, 1)
            cute.arch.mbarrier_init(barriers + slots + i, releases)
        barriers += 2 * slots


@cute.kernel
def grouped_gemm(
    config: cutlass.Constexpr,
    descriptors,
    groups,
    turns: Int32,
    items: Int32,
    schedule: Int64,
    counter: Int64,
    parts: Int64,
):
    warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())
    descriptors = descriptor_address(descriptors[0])
    barriers = cute.arch.get_dyn_smem(Int64, alignment=1024)
    # As the result of a shuffle, the address is not computed again at each use.
    shared = shared_memory(config, cute.arch.make_warp_uniform(barriers.toint()))

    if warp == WEIGHTS_WARP:
        with cute.arch.elect_one():
            init_barriers(barriers)
            cute.arch.mbarrier_init_fence()
            prefetch(segment_address(schedule, Int32(0)))
    cute.arch.griddepcontrol_launch_dependents()
    cute.arch.cluster_arrive_relaxed()
    cute.arch.cluster_wait()
    if warp < MULTIPLY_WARPS:
        prefetch_tokens(config, groups, items)
    cute.arch.griddepcontrol_wait()

    if warp >= MULTIPLY_WARPS:
        cute.arch.setmaxregister_decrease(OTHER_REGISTERS)
        if warp == WEIGHTS_WARP:
            load_weights(config, schedule, turns, descriptors, shared.weights)
        elif warp == TOKENS_WARP:
            all_met = arrivals_when_all_met(counter, cute.arch.grid_dim()[0])
            cute.arch.barrier(barrier_id=TOKENS_ARE_WIDE, number_of_threads=32 * (MULTIPLY_WARPS + 1))
            with cute.arch.elect_one():
                meet_grid(counter, all_met)
            cute.arch.sync_warp()
            load_tokens(config, groups, schedule, turns, shared.tokens)
    else:
        cute.arch.setmaxregister_increase(MULTIPLY_REGISTERS)
        words = segment_words(schedule, Int32(0))
        widen_tokens(config, groups, items, shared.tokens.start)
        cross_proxy_fence()
        cute.arch.barrier_arrive(barrier_id=TOKENS_ARE_WIDE, number_of_threads=32 * (MULTIPLY_WARPS + 1))
        widen_head(config, groups, as_segment(words), shared.tokens)
        multiply_tiles(config, groups, schedule, turns, words, parts, shared)

    # No CTA may leave while another still writes to its shared memory or arrives at its barriers.
    cute.arch.cluster_arrive_relaxed()
    cute.arch.cluster_wait()


# ---- Compiled host code: descriptors and launch ------------------------------------------------------------

DESCRIPTORS = 2  # of a group: b, sfb
DESCRIPTOR_BYTES = 128


def encode_weights(address: Int64, rows: Int32, k: Int32) -> cute.CopyAtom:
    """Descriptor of a row-major (rows x k / 2) matrix of bytes: boxes of 192 x 64. What lies beyond the
    matrix loads as zero."""
    pointer = cute.make_ptr(Uint8, address, cute.AddressSpace.gmem, assumed_align=16)
    width = cute.assume(k // 2, K_MULTIPLE // 2)
    matrix = cute.make_tensor(pointer, cute.make_layout((rows, width), stride=(width, 1)))
    tile = (CTA_ROWS, PACKED_ROW_BYTES)
    layout = cute.make_layout(tile, stride=(PACKED_ROW_BYTES, 1))
    atom, _ = cpasync.make_tiled_tma_atom(cpasync.CopyBulkTensorTileG2SOp(), matrix, layout, tile)
    return atom


def encode_scales(address: Int64, rows: Int32, k: Int32) -> cute.CopyAtom:
    """Descriptor of scales as a matrix of words, a row of atoms in each of its rows: boxes of 2 x 2 atoms.
    What lies beyond loads as zero."""
    pointer = cute.make_ptr(Int32, address, cute.AddressSpace.gmem, assumed_align=16)
    width = cute.assume(k // ATOM_K * ATOM_WORDS, ATOM_WORDS)
    matrix = cute.make_tensor(
        pointer, cute.make_layout((cute.ceil_div(rows, ATOM_ROWS), width), stride=(width, 1))
    )
    tile = (2, 2 * ATOM_WORDS)
    layout = cute.make_layout(tile, stride=(2 * ATOM_WORDS, 1))
    atom, _ = cpasync.make_tiled_tma_atom(cpasync.CopyBulkTensorTileG2SOp(), matrix, layout, tile)
    return atom


COMMON_NUMBERS = 4  # CTAs, turns, items, KB of the workspace before parts
GROUP_NUMBERS = 5  # m, n, k, items before this group, KB of the workspace before its tokens
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
    ctas, turns, items, parts_at = numbers[:COMMON_NUMBERS]
    maps, groups = [], []
    for g, height in enumerate(config.heights):
        m, n, k, items_before, tokens_at = numbers[COMMON_NUMBERS + GROUP_NUMBERS * g :][:GROUP_NUMBERS]
        a, b, sfa, sfb, c = addresses[GROUP_ADDRESSES * g :][:GROUP_ADDRESSES]
        maps += [encode_weights(b, n, k), encode_scales(sfb, n, k)]
        tokens = workspace + Int64(tokens_at) * 1024
        groups.append((m, n, k // ATOM_K, Int32(height), items_before, tokens, a, sfa, c))
    parts = workspace + Int64(parts_at) * 1024
    grouped_gemm(config, tuple(maps), tuple(groups), turns, items, schedule, workspace, parts).launch(
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
    return -(-k // STAGE)


def height_of(m: int, tiles: int) -> int:
    """Tokens of a tile if a group's M tokens make so many tiles."""
    return -(-m // (tiles * TOKENS_MULTIPLE)) * TOKENS_MULTIPLE


def stage_ns(height: int) -> float:
    return max(least + per_token * height for least, per_token in (STAGE_NS, TENSOR_CORE_NS))


def few_heights(heights: list[int]) -> tuple[int, ...]:
    """At most MAX_VARIANTS different ones: the closest become one."""
    while len(set(heights)) > MAX_VARIANTS:
        low, high = min(pairwise(sorted(set(heights))), key=lambda pair: pair[1] / pair[0])
        heights = [high if height == low else height for height in heights]
    return tuple(heights)


@dataclass(frozen=True)
class Tile:
    group: int
    row: int
    token: int
    stages: int
    height: int

    def part_ns(self, part: tuple[float, float]) -> float:
        return part[0] + part[1] * self.height

    @property
    def stage_ns(self) -> float:
        return stage_ns(self.height)

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
        tile = self.tile
        ends = [WRITE_NS] if self.first else [STORE_NS] if self.last == tile.stages else [STORE_NS, ADD_NS]
        return (self.last - self.first) * tile.stage_ns + sum(map(tile.part_ns, ends))


def tiles_of(sizes: Sizes, heights: tuple[int, ...]) -> list[Tile]:
    """Those with the same weights follow each other."""
    return [
        Tile(g, row, token, stages_of(k), height)
        for g, ((m, n, k, _), height) in enumerate(zip(sizes, heights, strict=True))
        for row in range(0, n, TILE_ROWS)
        for token in range(0, m, height)
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
        return int(ns // tile.stage_ns)


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
        return [worker.writes + worker.others for worker in crew if worker.writes or worker.others]
    return None


def free_ns(worker: Worker) -> float:
    return worker.free


def cut(tile: Tile, crew: list[Worker], limit: float) -> bool:
    """Give a tile to as few workers as possible: those with the most time left, but of those that can do the
    last piece the one with the least. False if it does not fit."""
    crew = sorted(crew, key=free_ns, reverse=True)
    for adds in range(1, min(len(crew), tile.stages // MIN_CUT_STAGES)):
        rooms = [worker.room(tile, limit, part, adds) for part, worker in enumerate(crew[: adds + 1])]
        if min(rooms) < MIN_CUT_STAGES:
            return False
        if sum(rooms) >= tile.stages:
            break
    else:
        return False
    first = 0
    for part in range(adds):
        last = min(first + rooms[part], tile.stages - MIN_CUT_STAGES * (adds - part))
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


def segments(pieces: list[list[Piece]], variants: list[int]) -> list[list[tuple[int, ...]]]:
    """The schedule's entries, worker by worker. Who begins a tile completes it: the first part that it adds
    starts where it stops. variants: of each group."""
    places = part_places(pieces)
    numbers = {place: number for number, place in enumerate(places)}
    cuts = Counter(place[:3] for place in places)

    def entry(piece: Piece) -> tuple[int, ...]:
        place, part, adds = place_of(piece.tile), 0, 0
        if piece.first > 0:
            part, adds = numbers[(*place, piece.first)], WRITES
        elif piece.last < piece.tile.stages:
            part, adds = numbers[(*place, piece.last)], cuts[place]
        stages = piece.last - piece.first
        return (*place, variants[piece.tile.group], piece.first, stages, part, adds)

    return [[entry(piece) for piece in mine] for mine in pieces]


class Plan:
    """How problems of given sizes are run."""

    def __init__(self, sizes: Sizes, clusters: int) -> None:
        check_sizes(sizes)
        heights, pieces = choose(sizes, clusters)
        self.config = Config(heights)
        self.expected = tuple(expected_tensors(*size[:3]) for size in sizes)
        variants = [self.config.variants.index(height) for height in heights]
        entries = segments(pieces, variants)
        turns = max(map(len, entries))
        per_group, used, items = [], 1, 0  # KB; the first one is the counter's
        for (m, n, k, _), height in zip(sizes, heights, strict=True):
            per_group += [m, n, k, items, used]
            items += -(-m // WIDEN_TOKENS) * -(-stages_of(k) // WIDEN_STAGES)
            used += -(-m // height) * stages_of(k) * height * TOKEN_BYTES // 1024
        self.numbers = [len(entries) * CLUSTER, turns, items, used, *per_group]
        parts = parts_of(pieces) * CLUSTER
        self.workspace_bytes = used * 1024 + parts * part_bytes(self.config)
        none = (-1, *[0] * (SEGMENT_WORDS - 1))
        self.table = [mine[turn] if turn < len(mine) else none for turn in range(turns) for mine in entries]


def choose(sizes: Sizes, workers: int) -> tuple[tuple[int, ...], list[list[Piece]]]:
    """Heights of the groups' tiles, and who does what. Tried are tiles of at most so many tokens, those with
    the least work first."""
    tried: dict[tuple[int, ...], list[Tile]] = {}
    for limit in range(MAX_TOKENS, 32, -TOKENS_MULTIPLE):
        heights = few_heights([height_of(m, -(-m // limit)) for m, _, _, _ in sizes])
        tiles = tiles_of(sizes, heights)
        if not tried or len(tiles) <= MAX_TILES_TO_SEARCH:
            tried.setdefault(heights, tiles)

    whole = {heights: whole_tiles(tiles, workers) for heights, tiles in tried.items()}
    best = min(whole, key=lambda heights: whole[heights][0])
    end, pieces = whole[best]
    below = WORTH_CUTTING * end
    for heights, tiles in sorted(tried.items(), key=lambda item: least_ns(item[1], workers)):
        found = plan_tiles(tiles, workers, below) if len(tiles) <= MAX_TILES_TO_SEARCH else None
        if found:
            best, (below, pieces) = heights, found
    return best, pieces


@lru_cache(maxsize=64)
def planned(sizes: Sizes, device: int) -> tuple[Plan, torch.Tensor, torch.Tensor]:
    """The plan, its schedule, and a workspace on the device, all flags down."""
    plan = Plan(sizes, cutlass.utils.HardwareInfo(device).get_max_active_clusters(CLUSTER))
    schedule = torch.tensor(plan.table, dtype=torch.int32).to("cuda")
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
