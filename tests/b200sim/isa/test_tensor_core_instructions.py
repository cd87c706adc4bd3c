"""tcgen05 through PTX: operands, layouts of small exact multiplications, signalling, allocation."""

from __future__ import annotations

import numpy as np
import pytest
from ptx_harness import DYNAMIC, aligned, run_kernel

from b200sim.faults import Fault
from b200sim.machine.schedule import Eager, ProgramOrder, SeededRandom

HEAD = """.reg .b64 %a<6>, %w, %da, %db;
    .reg .b32 %t, %l, %wid, %v, %u, %r, %bar, %s, %tm, %x<70>, %idesc, %row;
.reg .pred %p, %q, %one, %first, %w0, %acc; .reg .b16 %h;
mov.u32 %t, %tid.x; mov.u32 %l, %laneid; mov.u32 %wid, %warpid; mov.u32 %r, %cluster_ctarank;
setp.eq.u32 %first, %t, 0; setp.eq.u32 %one, %l, 0; setp.eq.u32 %w0, %wid, 0; mov.u32 %bar, smem;
add.s32 %s, %bar, 1024;
"""
SETUP = """@%first mbarrier.init.shared.b64 [%bar], 1; @!%w0 bra ALLOCATED;
tcgen05.alloc.cta_group::G.sync.aligned.shared::cta.b32 [smem+16], COLUMNS;
tcgen05.relinquish_alloc_permit.cta_group::G.sync.aligned;
ALLOCATED: bar.sync 0; CLUSTER_SYNC ld.shared.b32 %tm, [smem+16];
"""
FREE = """bar.sync 0; CLUSTER_SYNC @!%w0 bra FREED;
tcgen05.dealloc.cta_group::G.sync.aligned.b32 %tm, COLUMNS; FREED:"""
WAIT = "WAITP: mbarrier.try_wait.parity.shared.b64 %q, [%bar], PARITY, 1000000; @!%q bra WAITP;"
CLUSTER_SYNC = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;"


def run(body: str, arrays, columns: int = 64, pair: bool = False, **launch):
    """128 threads per CTA; arrays are %a0, %a1, ...; `columns` of tensor memory at %tm."""
    parameters = "".join(f"ld.param.u64 %a{i}, [p{i}];\n" for i in range(len(arrays)))
    text = HEAD + parameters + SETUP + body + FREE
    text = text.replace("COLUMNS", str(columns)).replace("cta_group::G", f"cta_group::{1 + pair}")
    text = text.replace("CLUSTER_SYNC", CLUSTER_SYNC if pair else "")
    if pair:
        launch |= {"grid": (2, 1, 1), "cluster": (2, 1, 1)}
    launch.setdefault("shared_bytes", 40 * 1024)
    return run_kernel(text, arrays, shared=DYNAMIC, block=(128, 1, 1), **launch)


def wait(parity: int) -> str:
    return WAIT.replace("WAITP", f"WAIT{parity}").replace("PARITY", str(parity))


def fill_rows(register: str, base: int, rows: int) -> str:
    """Thread t < rows copies its 32-byte row, two 16-byte chunks, to shared memory in 8-row core matrices:
    chunk c of row r at base + (r % 8) * 16 + (r / 8) * 256 + c * 128."""
    return f"""setp.lt.u32 %p, %t, {rows}; @!%p bra FILL{base}; mul.wide.u32 %w, %t, 32;
        add.s64 %w, %w, {register};
    and.b32 %v, %t, 7; shl.b32 %v, %v, 4; shr.u32 %u, %t, 3; shl.b32 %u, %u, 8; add.s32 %v, %v, %u;
    add.s32 %v, %v, %s;
    ld.global.v4.b32 {{%x0, %x1, %x2, %x3}}, [%w]; st.shared.v4.b32 [%v+{base}], {{%x0, %x1, %x2, %x3}};
    ld.global.v4.b32 {{%x0, %x1, %x2, %x3}}, [%w+16];
    st.shared.v4.b32 [%v+{base + 128}], {{%x0, %x1, %x2, %x3}};
    FILL{base}:
    """


def descriptor(register: str, base: int, lbo: int = 128, sbo: int = 256) -> str:
    """No swizzle, version 1; the start address is the CTA-local offset."""
    high = (lbo >> 4 << 16) | (sbo >> 4 << 32) | 1 << 46
    return f"""add.s32 %v, %s, {base}; and.b32 %v, %v, 0x3FFFF; shr.u32 %v, %v, 4; cvt.u64.u32 {register}, %v;
    or.b64 {register}, {register}, {high:#x};
    """


def store_accumulator(columns: int) -> str:
    """Every warp stores its 32 lanes: row (CTA * 128 + thread) of %a2, `columns` words each."""
    registers = ", ".join(f"%x{i}" for i in range(columns))
    stores = "".join(f"st.global.b32 [%w+{4 * i}], %x{i};\n" for i in range(columns))
    return f"""shl.b32 %v, %wid, 21; add.s32 %v, %v, %tm;
    tcgen05.ld.sync.aligned.32x32b.x{columns}.b32 {{{registers}}}, [%v]; tcgen05.wait::ld.sync.aligned;
    mad.lo.s32 %row, %r, 128, %t; mul.wide.u32 %w, %row, {4 * columns}; add.s64 %w, %w, %a2;
    {stores}"""


SCHEDULES = pytest.mark.parametrize(
    "schedule", [ProgramOrder(), Eager(), SeededRandom(2)], ids=["program", "eager", "random"]
)


@SCHEDULES
def test_dense_multiplication(schedule):
    """D = A B^T with fp16 inputs, M 128, N 64, K 16: first into poison without, then with accumulation."""
    rng = np.random.default_rng(0)
    a = aligned(rng.integers(-8, 9, (128, 16)).astype(np.float16))
    b = aligned(rng.integers(-8, 9, (64, 16)).astype(np.float16))
    d = aligned(np.zeros((128, 64), np.float32))
    idesc = 1 << 4 | 64 >> 3 << 17 | 128 >> 4 << 24
    machine = run(
        fill_rows("%a0", 0, 128) + fill_rows("%a1", 4096, 64) + "fence.proxy.async.shared::cta; bar.sync 0;"
        + descriptor("%da", 0) + descriptor("%db", 4096)
        + f"""mov.b32 %idesc, {idesc}; @!%first bra ISSUED; mov.pred %acc, 0;
        tcgen05.mma.cta_group::1.kind::f16 [%tm], %da, %db, %idesc, %acc; mov.pred %acc, -1;
        tcgen05.mma.cta_group::1.kind::f16 [%tm], %da, %db, %idesc, %acc;
        tcgen05.mma.cta_group::1.kind::f16 [%tm], %da, %db, %idesc, %acc;
        tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%bar];
        ISSUED: """ + wait(0) + store_accumulator(64),
        [a, b, d], schedule=schedule,
    )  # fmt: skip
    assert (d == 3 * (a.astype(np.int64) @ b.astype(np.int64).T)).all()
    assert machine.counters.mma_instructions == 3
    assert machine.counters.mma_flops == 3 * 2 * 128 * 64 * 16


@SCHEDULES
def test_pair_multiplication(schedule):
    """cta_group::2, M 256: each CTA holds its rows of A and half of B; one commit reaches both CTAs."""
    rng = np.random.default_rng(1)
    a = aligned(rng.integers(-8, 9, (256, 16)).astype(np.float16))
    b = aligned(rng.integers(-8, 9, (64, 16)).astype(np.float16))
    d = aligned(np.zeros((256, 64), np.float32))
    idesc = 1 << 4 | 64 >> 3 << 17 | 256 >> 4 << 24
    run(
        """mul.wide.u32 %w, %r, 4096; add.s64 %a0, %a0, %w; mul.wide.u32 %w, %r, 1024; add.s64 %a1, %a1, %w;
        """ + fill_rows("%a0", 0, 128) + fill_rows("%a1", 4096, 32)
        + "fence.proxy.async.shared::cta; bar.sync 0;" + CLUSTER_SYNC
        + descriptor("%da", 0) + descriptor("%db", 4096)
        + f"""mov.b32 %idesc, {idesc}; setp.eq.u32 %p, %r, 0; and.pred %p, %p, %first; @!%p bra ISSUED;
            mov.pred %acc, 0;
        mov.b16 %h, 3; tcgen05.mma.cta_group::2.kind::f16 [%tm], %da, %db, %idesc, %acc;
        tcgen05.commit.cta_group::2.mbarrier::arrive::one.shared::cluster.multicast::cluster.b64 [%bar], %h;
        ISSUED: """ + wait(0) + store_accumulator(64),
        [a, b, d], pair=True, schedule=schedule,
    )  # fmt: skip
    assert (d == a.astype(np.int64) @ b.astype(np.int64).T).all()


E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])


@SCHEDULES
def test_block_scaled_multiplication(schedule):
    """mxf4nvf4 with scales copied by tcgen05.cp behind which the mma waits in its pipe."""
    rng = np.random.default_rng(2)
    codes = [rng.integers(0, 16, (rows, 64)) for rows in (128, 64)]
    a, b = (aligned((c[:, ::2] | c[:, 1::2] << 4).astype(np.uint8)) for c in codes)
    scales = rng.choice([0x38, 0x40, 0x30, 0x3C], (2, 128, 4)).astype(np.uint8)  # e4m3 1, 2, 0.5, 1.5
    value = {0x38: 1, 0x40: 2, 0x30: 0.5, 0x3C: 1.5}
    blocks = np.zeros((2, 512), np.uint8)
    for which, x, j in np.ndindex(2, 128, 4):
        blocks[which, x % 32 * 16 + x // 32 * 4 + j] = scales[which, x, j]
    d = aligned(np.zeros((128, 64), np.float32))
    idesc = 1 << 7 | 1 << 10 | 64 >> 3 << 17 | 128 >> 4 << 24
    machine = run(
        fill_rows("%a0", 0, 128) + fill_rows("%a1", 4096, 64)
        + """mul.wide.u32 %w, %t, 8; add.s64 %w, %w, %a3; ld.global.v2.b32 {%x0, %x1}, [%w];
            shl.b32 %v, %t, 3;
        add.s32 %v, %v, %s; st.shared.v2.b32 [%v+8192], {%x0, %x1}; fence.proxy.async.shared::cta; bar.sync 0;
        """ + descriptor("%da", 8192, 16, 128) + descriptor("%db", 8704, 16, 128)
        + """add.s32 %x0, %tm, 64; add.s32 %x1, %tm, 68; @!%first bra COPIED;
        tcgen05.cp.cta_group::1.32x128b.warpx4 [%x0], %da;
        tcgen05.cp.cta_group::1.32x128b.warpx4 [%x1], %db; COPIED:
        """ + descriptor("%da", 0) + descriptor("%db", 4096)
        + f"""mov.b32 %idesc, {idesc}; @!%first bra ISSUED; setp.ne.u32 %acc, %t, 0;
        tcgen05.mma.cta_group::1.kind::mxf4nvf4.block_scale.scale_vec::4X [%tm], %da, %db, %idesc, [%x0],
        [%x1], %acc;
        tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%bar]; ISSUED: """
        + wait(0) + store_accumulator(64),
        [a, b, d, aligned(blocks)], columns=128, schedule=schedule,
    )  # fmt: skip
    factors = [np.vectorize(value.get)(s).repeat(16, axis=1) for s in scales]
    dense = [E2M1[c] * f[: len(c)] for c, f in zip(codes, factors, strict=True)]
    assert (d == dense[0] @ dense[1].T).all()  # multiples of 1/16 below 2^20: exact in fp32 and fp64
    assert machine.counters.scale_copies == 2


@pytest.mark.parametrize(
    ("shape", "count", "registers"),
    [("32x32b", 4, 4), ("16x64b", 4, 4), ("16x128b", 2, 4), ("16x256b", 1, 4)],
)
def test_store_and_load_registers(shape, count, registers):
    """What tcgen05.st wrote, tcgen05.ld reads back; a loaded register does not change when the cells do."""
    out = aligned(np.zeros((128, 2, registers), np.uint32))
    names = ", ".join(f"%x{i}" for i in range(registers))
    again = ", ".join(f"%x{i + 20}" for i in range(registers))
    values = "".join(f"mad.lo.s32 %x{i}, %t, 1000, {i};" for i in range(registers))
    stores = "".join(
        f"st.global.b32 [%w+{4 * i}], %x{i + 20}; st.global.b32 [%w+{4 * (i + registers)}], %x{i + 40};"
        for i in range(registers)
    )
    later = ", ".join(f"%x{i + 40}" for i in range(registers))
    run(
        f"""{values} shl.b32 %v, %wid, 21; add.s32 %v, %v, %tm;
        tcgen05.st.sync.aligned.{shape}.x{count}.b32 [%v], {{{names}}}; tcgen05.wait::st.sync.aligned;
        tcgen05.ld.sync.aligned.{shape}.x{count}.b32 {{{again}}}, [%v]; tcgen05.wait::ld.sync.aligned;
        mov.b32 %u, 7; tcgen05.st.sync.aligned.{shape}.x{count}.b32 [%v], {{{", ".join(["%u"] * registers)}}};
        tcgen05.wait::st.sync.aligned; tcgen05.ld.sync.aligned.{shape}.x{count}.b32 {{{later}}}, [%v];
        mul.wide.u32 %w, %t, {8 * registers}; add.s64 %w, %w, %a0; {stores}""",
        [out],
    )  # fmt: skip
    assert (out[:, 0] == np.arange(128)[:, None] * 1000 + np.arange(registers)).all()
    assert (out[:, 1] == 7).all()


def test_allocation_blocks_until_columns_are_free():
    """Warp 1 wants all columns that warp 0 has; it gets them when warp 0 gives them back."""
    out = np.zeros(2, np.uint32)
    run_kernel(
        """.reg .b64 %o; .reg .b32 %wid, %v; .reg .pred %p; ld.param.u64 %o, [p0]; mov.u32 %wid, %warpid;
        setp.eq.u32 %p, %wid, 1; @%p bra SECOND;
        tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [smem], 512; bar.sync 1, 64;
        ld.shared.b32 %v, [smem];
        nanosleep.u32 10; nanosleep.u32 10; st.shared.b32 [smem+8], 1;
        tcgen05.dealloc.cta_group::1.sync.aligned.b32 %v, 512; ret;
        SECOND: bar.sync 1, 64; tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [smem+4], 256;
        ld.shared.b32 %v, [smem+8]; st.global.b32 [%o], %v; ld.shared.b32 %v, [smem+4];
        st.global.b32 [%o+4], %v;
        tcgen05.dealloc.cta_group::1.sync.aligned.b32 %v, 256;""",
        [out], shared=DYNAMIC, shared_bytes=64, block=(64, 1, 1),
    )  # fmt: skip
    assert out.tolist() == [1, 0]


PAIR_ALLOC = "tcgen05.alloc.cta_group::2.sync.aligned.shared::cta.b32 [smem], {columns};"
PAIR_BODY = """.reg .b64 %o; .reg .b32 %r, %v, %u; .reg .pred %p; ld.param.u64 %o, [p0];
mov.u32 %r, %cluster_ctarank; mapa.shared::cluster.u32 %u, smem, 0;
setp.eq.u32 %p, %r, 1; @!%p bra ALLOC;
{late} mov.u32 %v, 7; st.shared::cluster.b32 [%u+8], %v;
ALLOC: {alloc} ld.shared.b32 %v, [smem+8]; setp.eq.u32 %p, %r, 0; @%p st.global.b32 [%o], %v;
barrier.cluster.arrive; barrier.cluster.wait; ld.shared.b32 %v, [smem];
tcgen05.dealloc.cta_group::2.sync.aligned.b32 %v, 64;"""


def run_pair(alloc: str, late: str = "nanosleep.u32 10; nanosleep.u32 10;", **launch) -> int:
    out = np.zeros(1, np.uint32)
    body = PAIR_BODY.replace("{late}", late).replace("{alloc}", alloc)
    launch = {"grid": (2, 1, 1), "cluster": (2, 1, 1), **launch}
    run_kernel(body, [out], shared=DYNAMIC, shared_bytes=64, block=(32, 1, 1), **launch)
    return int(out[0])


@pytest.mark.parametrize("schedule", [ProgramOrder, Eager, lambda: SeededRandom(3)])
def test_a_pair_allocates_together(schedule):
    """CTA 0 has its columns no earlier than CTA 1 has asked: it sees what CTA 1 wrote before."""
    assert run_pair(PAIR_ALLOC.format(columns=64), schedule=schedule()) == 7


def test_a_pair_must_agree():
    with pytest.raises(Fault) as caught:
        run_pair("@%p mov.u32 %u, 32; @!%p mov.u32 %u, 64;" + PAIR_ALLOC.format(columns="%u"))
    assert caught.value.code == "tmem_alloc_pair" and "64 and 32" in str(caught.value)
    with pytest.raises(Fault) as caught:
        run_pair(PAIR_ALLOC.format(columns=64), late="ret;")
    assert caught.value.code == "deadlock" and "rank 0 of the pair asked" in str(caught.value)
    with pytest.raises(Fault) as caught:
        run_pair(PAIR_ALLOC.format(columns=64), grid=(1, 1, 1), cluster=(1, 1, 1))
    assert caught.value.code == "cta_pair"


@pytest.mark.parametrize(
    ("code", "body"),
    [
        ("tmem_alloc_size", "tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [smem+32], 48;"),
        ("tmem_alloc_after_relinquish",
         "tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [smem+32], 32;"),
        ("tmem_free_mismatch", "tcgen05.dealloc.cta_group::1.sync.aligned.b32 %tm, 32;"),
        ("tmem_not_allocated", "add.s32 %v, %tm, 61; "
                               "tcgen05.ld.sync.aligned.32x32b.x4.b32 {%x0, %x1, %x2, %x3}, [%v];"),
        ("divergent_aligned", "@%one tcgen05.ld.sync.aligned.32x32b.x1.b32 {%x0}, [%tm]; bar.warp.sync -1;"),
        ("not_uniform", "add.s32 %v, %tm, %l; tcgen05.ld.sync.aligned.32x32b.x1.b32 {%x0}, [%v];"),
        ("cta_pair", "@%one tcgen05.mma.cta_group::2.kind::f16 [%tm], %da, %db, %idesc, %one;"),
        ("unsupported", "tcgen05.ld.red.sync.aligned.32x32b.x2.min.u32 {%x0, %x1}, %x2, [%tm];"),
        ("mbarrier_uninitialised",
         "@%first tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%bar+8];"),
    ],
)  # fmt: skip
def test_misuse(code, body):
    if code == "divergent_aligned":
        body = body.replace("@%one tcgen05", "setp.lt.u32 %p, %l, 9; @%p tcgen05")
    with pytest.raises(Fault) as caught:
        run(f"mov.b64 %da, 0; mov.b64 %db, 0; mov.b32 %idesc, 0; @!%w0 bra SKIP; "
            f"{body} SKIP:", [np.zeros(1, np.uint32)],
            schedule=Eager())  # fmt: skip
    assert caught.value.code == code


def test_tensor_memory_must_be_given_back():
    with pytest.raises(Fault) as caught:
        run_kernel(
            "tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [smem], 32;",
            [],
            shared=DYNAMIC,
            shared_bytes=64,
        )
    assert caught.value.code == "tmem_leak"
    assert "CTA (0,0,0)" in str(caught.value)
