"""wgmma through PTX: operands, order of asynchronous work, and what a kernel must not do."""

from __future__ import annotations

import numpy as np
import pytest
from ptx_harness import DYNAMIC, aligned, run_kernel

from b200sim.faults import Fault
from b200sim.machine.schedule import Eager, ProgramOrder, SeededRandom

TARGET = "sm_90a"
SHARED = 64 * 1024
A_AT, B_AT = 1024, 17 * 1024  # in dynamic shared memory, unswizzled K-major: 8 rows x 16 B, SBO 256, LBO 128
DESCRIPTOR = 256 >> 4 << 32 | 128 >> 4 << 16
SCHEDULES = [ProgramOrder, Eager, lambda: SeededRandom(1), lambda: SeededRandom(2)]


def registers(prefix: str, count: int) -> str:
    return "{" + ", ".join(f"%{prefix}{i}" for i in range(count)) + "}"


def image(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What goes to dynamic shared memory: the rows of A and B, 32 bytes each, as core matrices."""
    memory = np.zeros(SHARED, np.uint8)
    for rows, start in ((a, A_AT), (b, B_AT)):
        packed = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), 2, 16)
        for r, row in enumerate(packed):
            for half in range(2):
                at = start + r % 8 * 16 + r // 8 * 256 + half * 128
                memory[at : at + 16] = row[half]
    return memory


def a_fragments(a: np.ndarray) -> np.ndarray:
    """uint32 (threads, 4): word w of a row holds its bytes 4 w .. 4 w + 3 (any type, 32 bytes a row)."""
    words = np.ascontiguousarray(a).view(np.uint32).reshape(64, 8)
    fragments = np.zeros((128, 4), np.uint32)
    for thread in range(128):
        warp, lane = divmod(thread, 32)
        for r in range(4):
            fragments[thread, r] = words[16 * warp + lane // 4 + 8 * (r % 2), lane % 4 + 4 * (r // 2)]
    return fragments


def d_of(threads: np.ndarray, n: int) -> np.ndarray:
    """float (64, n) from (threads, n / 2) elements."""
    matrix = np.zeros((64, n), threads.dtype)
    for thread in range(128):
        warp, lane = divmod(thread, 32)
        for i in range(n // 2):
            row, column = 16 * warp + lane // 4 + 8 * (i // 2 % 2), 8 * (i // 4) + 2 * (lane % 4) + i % 2
            matrix[row, column] = threads[thread, i]
    return matrix


def prologue(n: int, d_registers: int) -> str:
    """Copies p0 to shared memory, loads A fragments (p1) and D (p2, a thread's registers in a row)."""
    loads = "".join(f"ld.global.b32 %d{i}, [%dat+{4 * i}];\n" for i in range(d_registers))
    return f"""
.reg .b64 %a<4>, %w, %dat, %da, %db;
.reg .b32 %t, %l, %i, %s, %x<4>, %f<8>, %d<{d_registers}>, %e<160>, %v, %lo;
.reg .b16 %h<4>; .reg .pred %p, %q;
ld.param.u64 %a0, [p0]; ld.param.u64 %a1, [p1]; ld.param.u64 %a2, [p2];
mov.u32 %t, %tid.x; mov.u32 %l, %laneid; mov.u32 %s, smem;
mov.u32 %i, %t;
COPY: mul.wide.u32 %w, %i, 16; add.s64 %w, %w, %a0; ld.global.v4.b32 {{%x0, %x1, %x2, %x3}}, [%w];
shl.b32 %v, %i, 4; add.s32 %v, %v, %s; st.shared.v4.b32 [%v], {{%x0, %x1, %x2, %x3}};
add.s32 %i, %i, 128; setp.lt.u32 %p, %i, {SHARED // 16}; @%p bra COPY;
fence.proxy.async; bar.sync 0;
mul.wide.u32 %w, %t, 16; add.s64 %w, %w, %a1; ld.global.v4.b32 {registers("f", 4)}, [%w];
mul.wide.u32 %dat, %t, {4 * d_registers}; add.s64 %dat, %dat, %a2;
{loads}
add.s32 %v, %s, {A_AT}; shr.u32 %v, %v, 4; mov.u32 %lo, {DESCRIPTOR & 0xFFFFFFFF}; or.b32 %v, %v, %lo;
mov.b64 %da, {{%v, {DESCRIPTOR >> 32}}};
add.s32 %v, %s, {B_AT}; shr.u32 %v, %v, 4; or.b32 %v, %v, %lo; mov.b64 %db, {{%v, {DESCRIPTOR >> 32}}};
"""


def epilogue(d_registers: int) -> str:
    return "".join(f"st.global.b32 [%dat+{4 * i}], %d{i};\n" for i in range(d_registers)) + "ret;"


def run(body: str, a, b, d, *, threads: int = 128, **launch) -> np.ndarray:
    """`body` between prologue and epilogue; D (128, registers) as uint32 afterwards."""
    count = d.shape[1]
    result = aligned(np.ascontiguousarray(d))
    arrays = [aligned(image(a, b)), aligned(a_fragments(a)), result]
    text = prologue(len(b), count) + body + epilogue(count)
    run_kernel(
        text, arrays, shared=DYNAMIC, target=TARGET, block=(threads, 1, 1), shared_bytes=SHARED, **launch
    )
    return result


def mma(types: str, d: int, a: str = "%da", tail: str = "1, 1, 1, 0, 0", name: str = "d") -> str:
    return f"wgmma.mma_async.sync.aligned.{types} {registers(name, d)}, {a}, %db, {tail};\n"


FENCE, COMMIT = "wgmma.fence.sync.aligned;\n", "wgmma.commit_group.sync.aligned;\n"
F16 = "m64n{n}k16.f32.f16.f16"
FROM_REGISTERS = {"a": registers("f", 4), "tail": "1, 1, 1, 0"}


def wait(count: int) -> str:
    return f"wgmma.wait_group.sync.aligned {count};\n"


def whole(*instructions: str) -> str:
    return FENCE + "".join(instructions) + COMMIT + wait(0)


def integers(seed: int, rows: int, k: int = 16, dtype=np.float16) -> np.ndarray:
    return np.random.default_rng(seed).integers(-8, 9, (rows, k)).astype(dtype)


def sums(a, b) -> np.ndarray:
    return a.astype(np.int64) @ b.astype(np.int64).T


# -- values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [8, 24, 256])
@pytest.mark.parametrize("source", ["shared", "registers"])
@pytest.mark.parametrize("schedule", SCHEDULES[:2])
def test_half_precision_products(n, source, schedule):
    a, b = integers(n, 64), integers(n + 1, n)
    start = np.random.default_rng(3).integers(-99, 99, (128, n // 2)).astype(np.float32)
    options = FROM_REGISTERS if source == "registers" else {}
    words = run(
        whole(mma(F16.format(n=n), n // 2, **options)), a, b, start.view(np.uint32), schedule=schedule()
    )
    assert np.array_equal(d_of(words.view(np.float32), n), d_of(start, n) + sums(a, b))


@pytest.mark.parametrize(
    ("tail", "sign", "keeps"),
    [("0, 1, 1, 0, 0", 1, 0), ("1, -1, 1, 0, 0", -1, 1), ("1, 1, -1, 0, 0", -1, 1),
     ("%p, -1, -1, 0, 0", 1, 0), ("!%p, 1, 1, 0, 0", 1, 1)],
)  # fmt: skip
def test_scale_d_and_signs(tail, sign, keeps):
    a, b, start = integers(1, 64), integers(2, 16), np.full((128, 8), 1000, np.float32)
    body = "setp.ne.u32 %p, %t, %t;\n" + whole(mma(F16.format(n=16), 8, tail=tail))
    words = run(body, a, b, start.view(np.uint32))
    assert np.array_equal(d_of(words.view(np.float32), 16), 1000 * keeps + sign * sums(a, b))


def test_half_precision_accumulators():
    a, b = integers(4, 64), integers(5, 24)
    start = np.full((128, 12), 7, np.float16)
    words = run(whole(mma("m64n24k16.f16.f16.f16", 6)), a, b, start.view(np.uint32))
    assert np.array_equal(d_of(words.view(np.float16), 24), 7 + sums(a, b))


@pytest.mark.parametrize("source", ["shared", "registers"])
def test_brain_floats(source):
    a, b = integers(6, 64), integers(7, 16)
    brain = [(x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) for x in (a, b)]
    options = FROM_REGISTERS if source == "registers" else {}
    words = run(whole(mma("m64n16k16.f32.bf16.bf16", 8, **options)), *brain, np.zeros((128, 8), np.uint32))
    assert np.array_equal(d_of(words.view(np.float32), 16), sums(a, b))


@pytest.mark.parametrize("source", ["shared", "registers"])
def test_tf32_and_fp8(source):
    a_place = registers("f", 4) if source == "registers" else "%da"
    zero = np.zeros((128, 8), np.uint32)
    a, b = integers(8, 64, 8, np.float32), integers(9, 16, 8, np.float32)
    words = run(whole(mma("m64n16k8.f32.tf32.tf32", 8, a_place, "1, 1, 1")), a, b, zero)
    assert np.array_equal(d_of(words.view(np.float32), 16), sums(a, b))
    # e4m3 of -2 .. 2 and e5m2 of the same
    e4m3 = np.array([0xC0, 0xB8, 0x00, 0x38, 0x40], np.uint8)
    e5m2 = np.array([0xC0, 0xBC, 0x00, 0x3C, 0x40], np.uint8)
    a, b = (np.random.default_rng(seed).integers(-2, 3, (rows, 32)) for seed, rows in ((1, 64), (2, 16)))
    words = run(whole(mma("m64n16k32.f32.e4m3.e5m2", 8, a_place, "1, 1, -1")), e4m3[a + 2], e5m2[b + 2], zero)
    assert np.array_equal(d_of(words.view(np.float32), 16), -sums(a, b))


@pytest.mark.parametrize("which", ["a", "b"])
def test_transposed_operands(which):
    """An MN-major operand without swizzle: 8 elements of one k side by side, k and k + 1 16 bytes apart, LBO
    from k to k + 8, SBO from one eight of M or N to the next."""
    a, b = integers(10, 64), integers(11, 16)
    operand = a if which == "a" else b
    stored = np.ascontiguousarray(
        operand.reshape(-1, 8, 2, 8).transpose(0, 2, 3, 1)
    )  # eights, k / 8, k % 8, eight
    rows = np.ascontiguousarray(stored.reshape(-1, 2, 8, 16 // 2).transpose(0, 2, 1, 3)).reshape(-1, 16)
    tail = "1, 1, 1, 1, 0" if which == "a" else "1, 1, 1, 0, 1"
    args = (rows, b) if which == "a" else (a, rows)
    words = run(whole(mma(F16.format(n=16), 8, tail=tail)), *args, np.zeros((128, 8), np.uint32))
    assert np.array_equal(d_of(words.view(np.float32), 16), sums(a, b))


# -- order ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_groups_complete_in_order_and_accumulate(schedule):
    """Two accumulators, three groups; the first is read while the second is under way."""
    a, b = integers(12, 64), integers(13, 16)
    body = f"""{"".join(f"mov.b32 %e{i}, 0f42C80000;" for i in range(8))}
{FENCE}{mma(F16.format(n=16), 8)}{mma(F16.format(n=16), 8)}{COMMIT}
{mma(F16.format(n=16), 8, name="e", **FROM_REGISTERS)}{COMMIT}{wait(1)}
{"".join(f"add.f32 %d{i}, %d{i}, 0f3F800000;" for i in range(8))}
{wait(0)}{"".join(f"add.f32 %d{i}, %d{i}, %e{i};" for i in range(8))}
"""
    words = run(body, a, b, np.zeros((128, 8), np.uint32), schedule=schedule())
    assert np.array_equal(d_of(words.view(np.float32), 16), 2 * sums(a, b) + 1 + 100 + sums(a, b))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_accumulators_may_be_renamed_in_flight(schedule):
    """What compilers leave between one multiplication and the next."""
    a, b = integers(14, 64), integers(15, 16)
    moved = "".join(f"mov.b32 {{%h0, %h1}}, %d{i}; mov.b32 %e{i}, {{%h0, %h1}};" for i in range(4))
    back = "".join(f"mov.b32 %d{i}, %e{i};" for i in range(4))
    step = mma("m64n16k16.f16.f16.f16", 4)
    body = FENCE + step + COMMIT + moved + back + FENCE + step + COMMIT + wait(0)
    words = run(body, a, b, np.zeros((128, 4), np.uint32), schedule=schedule())
    assert np.array_equal(d_of(words.view(np.float16), 16), 2 * sums(a, b))


def test_accumulators_may_be_set_after_the_fence():
    """As NVVM leaves it: constants have no place of their own."""
    a, b = integers(20, 64), integers(21, 16)
    sets = "mov.b32 %d0, 0f42C80000;" + "".join(f"mov.b32 %d{i}, %d0;" for i in range(1, 8))
    body = FENCE + sets + mma(F16.format(n=16), 8) + COMMIT + wait(0)
    words = run(body, a, b, np.zeros((128, 8), np.uint32))
    assert np.array_equal(d_of(words.view(np.float32), 16), 100 + sums(a, b))


def test_a_copy_made_in_flight_keeps_the_value_of_its_time():
    a, b = integers(16, 64), integers(17, 16)
    step = mma(F16.format(n=16), 8)
    copies = "".join(f"mov.b32 %e{i}, %d{i};" for i in range(8))
    take = "".join(f"mov.b32 %d{i}, %e{i};" for i in range(8))
    words = run(
        FENCE + step + COMMIT + copies + step + COMMIT + wait(0) + take, a, b, np.zeros((128, 8), np.uint32)
    )
    assert np.array_equal(d_of(words.view(np.float32), 16), sums(a, b))


def test_two_warpgroups_have_accumulators_of_their_own():
    a, b = integers(18, 64), integers(19, 16)
    start = np.zeros((256, 8), np.float32)
    start[128:] = 50
    result = aligned(start.view(np.uint32))
    arrays = [aligned(image(a, b)), aligned(np.tile(a_fragments(a), (2, 1))), result]
    text = prologue(16, 8) + whole(mma(F16.format(n=16), 8, **FROM_REGISTERS)) + epilogue(8)
    run_kernel(text, arrays, shared=DYNAMIC, target=TARGET, block=(256, 1, 1), shared_bytes=SHARED)
    for group in range(2):
        words = result[128 * group : 128 * group + 128].view(np.float32)
        assert np.array_equal(d_of(words, 16), 50 * group + sums(a, b))


def test_counted_as_work():
    a, b = integers(1, 64), integers(2, 16)
    arrays = [aligned(image(a, b)), aligned(a_fragments(a)), aligned(np.zeros((128, 8), np.uint32))]
    text = prologue(16, 8) + whole(mma(F16.format(n=16), 8) * 3) + epilogue(8)
    machine = run_kernel(text, arrays, shared=DYNAMIC, target=TARGET, block=(128, 1, 1), shared_bytes=SHARED)
    assert machine.counters.mma_instructions == 3
    assert machine.counters.mma_flops == 3 * 2 * 64 * 16 * 16


# -- what must not be -------------------------------------------------------------------------------------

STEP = mma(F16.format(n=16), 8)
FROM_A = mma(F16.format(n=16), 8, **FROM_REGISTERS)
DONE = COMMIT + wait(0)
READ, WRITE = "add.f32 %e0, %d0, %d0;\n", "mov.b32 %d3, 0f00000000;\n"


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (STEP + COMMIT + wait(0), "wgmma_fence", "is the warp's first: wgmma.fence is missing"),
        (FENCE + "add.f32 %d1, %d1, %d1;\n" + STEP, "wgmma_fence", "registers that the warp touched"),
        (FENCE + "add.s32 %f2, %f2, 1;\n" + FROM_A, "wgmma_fence", "registers that the warp touched"),
        (whole(STEP) + READ + STEP, "wgmma_fence", "registers that the warp touched"),
        (FENCE + STEP + READ, "wgmma_register", "wgmma.commit_group and wgmma.wait_group that covers it"),
        (FENCE + STEP + COMMIT + READ, "wgmma_register", "add.f32 touches a register that is an acc"),
        (FENCE + STEP + COMMIT + WRITE, "wgmma_register", "mov.b32 touches a register that is an acc"),
        (FENCE + (STEP + COMMIT) * 2 + wait(1) + READ, "wgmma_register", "a wgmma.wait_group that covers it"),
        (FENCE + STEP + wait(0) + READ, "wgmma_register", "wgmma.commit_group"),
        (FENCE + FROM_A + COMMIT + "add.s32 %f2, %f2, 1;", "wgmma_register", "part of the A fragment"),
        (FENCE + FROM_A + COMMIT + "add.s32 %v, %f3, 1;", "wgmma_register", "part of the A fragment"),
        (FENCE + STEP + COMMIT + "mov.b32 %e0, %d0; add.f32 %e1, %e0, %e0;", "wgmma_register", "add.f32"),
        (FENCE + STEP + COMMIT + "st.global.b32 [%dat], %d0;", "wgmma_register", "st.global.b32"),
        (
            FENCE + STEP + mma(F16.format(n=8), 4) + COMMIT + wait(0),
            "wgmma_fence", "accumulates into registers of a wgmma of another shape",
        ),
        (
            FENCE + STEP + mma(F16.format(n=16), 8, "{%d0, %d1, %d2, %d3}", "1, 1, 1, 0", "e"),
            "wgmma_register", "an accumulator",
        ),
        (
            FENCE + STEP + "mov.b32 %f1, %d1;\n" + mma(F16.format(n=8), 4, name="e", **FROM_REGISTERS),
            "wgmma_register", "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 touches",
        ),
        ("@%p bra ON;\n" + FENCE + "ON: bar.sync 0;\n", "divergent_aligned", "wgmma.fence"),
        (FENCE + mma(F16.format(n=16), 8, tail="%p, 1, 1, 0, 0"), "not_uniform", "scale-d"),
        (
            "shr.u32 %v, %t, 6; cvt.u64.u32 %w, %v; add.s64 %db, %db, %w;" + whole(STEP),
            "wgmma_operands", "the matrix descriptor of B is",
        ),
        (
            "setp.lt.u32 %q, %t, 64;" + FENCE + f"@%q bra ONE;\n{STEP}bra TWO;\nONE: {STEP}TWO:\n{DONE}",
            "wgmma_operands", "issues another wgmma.mma_async",
        ),
    ],
)  # fmt: skip
def test_faults(body, code, words):
    prepared = "setp.lt.u32 %p, %l, 5;\n" + body
    with pytest.raises(Fault) as caught:
        run(prepared, integers(1, 64), integers(2, 16), np.zeros((128, 8), np.uint32))
    assert caught.value.code == code
    assert words in caught.value.message
    assert "PTX line" in str(caught.value)


def test_fewer_than_four_warps():
    with pytest.raises(Fault) as caught:
        run(whole(STEP), integers(1, 64), integers(2, 16), np.zeros((128, 8), np.uint32), threads=96)
    assert caught.value.code == "wgmma_warpgroup"
    assert "has 3" in caught.value.message


def test_a_warp_that_stays_away_is_named():
    body = FENCE + f"setp.lt.u32 %q, %t, 64; @!%q bra AWAY;\n{STEP}{COMMIT}{wait(0)}AWAY: bar.sync 0;\n"
    with pytest.raises(Fault) as caught:
        run(body, integers(1, 64), integers(2, 16), np.zeros((128, 8), np.uint32))
    assert caught.value.code == "deadlock"
    assert "which warps [2, 3] of its warpgroup have not issued" in caught.value.message


@pytest.mark.parametrize(
    ("instruction", "words"),
    [
        (mma("m64n16k32.s32.s8.s8", 8, tail="1"), "s8"),
        (STEP.replace("mma_async", "mma_async.sp"), "modifier .sp"),
        (mma("m64n16k32.f32.f16.f16", 8), "no such combination"),
        (mma("m64n12k16.f32.f16.f16", 6), "no such combination"),
        (mma("m64n16k16.f16.bf16.bf16", 4), "no such combination"),
        (mma("m64n16k16.f32.f16.f16", 7), "D has 7 registers, must have 8"),
        (mma("m64n16k16.f32.f16.f16", 8, tail="1, 1, 1"), "operands"),
        (mma("m64n16k16.f32.f16.f16", 8, tail="1, 2, 1, 0, 0"), "must be the constant 1 or -1"),
        ("wgmma.wait_group.sync.aligned %v;", "must be the constant"),
    ],
)  # fmt: skip
def test_unknown_forms_stop_with_their_name(instruction, words):
    with pytest.raises(Fault) as caught:
        run(FENCE + instruction, integers(1, 64), integers(2, 16), np.zeros((128, 8), np.uint32))
    assert caught.value.code == "unsupported"
    assert words in caught.value.message
    assert "PTX line" in str(caught.value)


@pytest.mark.parametrize(
    ("target", "instruction"),
    [("sm_100a", "wgmma.fence.sync.aligned;"), ("sm_90a", "tcgen05.wait::ld.sync.aligned;")],
)
def test_instructions_of_another_architecture(target, instruction):
    with pytest.raises(Fault, match=f"the module's target is {target}") as caught:
        run_kernel(instruction + "ret;", target=target)
    assert caught.value.code == "wrong_target"
