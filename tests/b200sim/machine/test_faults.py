"""What a kernel that goes wrong is told: the code, the place, and for a deadlock what is missing."""

from __future__ import annotations

import time

import numpy as np
import pytest
from ptx_harness import DYNAMIC, make_grid, module, run_kernel

from b200sim.faults import Fault
from b200sim.isa.decoder import decode_kernel
from b200sim.machine.schedule import Eager, ProgramOrder, SeededRandom
from b200sim.ptx.parser import parse

HEAD = """.reg .b64 %o; .reg .b32 %v, %wid, %r, %l; .reg .pred %p, %q, %one; mov.u32 %wid, %warpid;
    mov.u32 %l, %laneid;
mov.u32 %r, %cluster_ctarank; setp.eq.u32 %one, %l, 0;
"""
BARRIERS = """setp.ne.u32 %p, %wid, 0; @%p bra INITIALISED; @%one mbarrier.init.shared.b64 [smem], 2;
@%one mbarrier.init.shared.b64 [smem+8], 1; INITIALISED: bar.sync 0;
"""


def fault_of(body: str, arrays=(), threads: int = 64, location: bool = False, **launch) -> Fault:
    text = module(
        HEAD + "".join(f"ld.param.u64 %o, [p{i}];" for i in range(len(arrays))) + body, len(arrays), DYNAMIC
    )
    if location:
        text = '.file 1 "gemm.py"\n' + text
    with pytest.raises(Fault) as caught:
        make_grid(text, arrays, block=(threads, 1, 1), shared_bytes=1024, **launch).run()
    return caught.value


def test_place_names_cta_warp_ptx_line_and_source_line():
    fault = fault_of(
        """.loc 1 20 1
        mov.b32 %v, 3;
        .loc 1 399 7
        setp.eq.u32 %p, %wid, 1; @!%p bra END; ld.shared.b32 %v, [%v];
        END:""",
        grid=(4, 2, 1), cluster=(2, 1, 1), location=True,
    )  # fmt: skip
    assert fault.code == "misaligned"
    assert "CTA (0,0,0) warp 1, gemm.py:399 (PTX line" in str(fault)
    assert "ld.shared.b32 %v, [%v]" in str(fault)


@pytest.mark.parametrize("order", [ProgramOrder, Eager, lambda: SeededRandom(3)])
def test_deadlock_names_the_barrier_its_phase_and_what_it_lacks(order):
    """One arrival of two in phase 1, after a complete phase 0."""
    fault = fault_of(
        BARRIERS + """@%one mbarrier.arrive.shared.b64 _, [smem];
        W0: mbarrier.try_wait.parity.shared.b64 %q, [smem], 0, 1000; @!%q bra W0;
        setp.ne.u32 %p, %wid, 0; @%p bra STUCK; @%one mbarrier.arrive.shared.b64 _, [smem];
        .loc 1 77 0
        STUCK: W1: mbarrier.try_wait.parity.shared.b64 %q, [smem], 1, 1000; @!%q bra W1;""",
        location=True, schedule=order(),
    )  # fmt: skip
    message = str(fault)
    assert fault.code == "deadlock"
    assert (
        "mbarrier at shared offset 0x400 of CTA (0,0,0): phase 1 (parity 1) is incomplete, "
        "it lacks 1 of 2 arrivals" in message
    )
    assert "CTA (0,0,0) warps 0, 1 at gemm.py:77" in message and "mbarrier.try_wait" in message


def test_deadlock_of_missing_bytes_is_the_likely_cause():
    """expect_tx announces 32 bytes, 16 arrive; another warp waits for the first one."""
    source = np.zeros(64, np.uint32)
    start = -source.ctypes.data % 16 // 4
    fault = fault_of(
        BARRIERS + f"""setp.ne.u32 %p, %wid, 0; @%p bra OTHER;
        @%one mbarrier.arrive.expect_tx.shared.b64 _, [smem+8], 32;
        mov.b32 %v, smem;
        @%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%v+64], [%o+{4 * start}],
        16, [%v+8];
        W: mbarrier.try_wait.parity.shared.b64 %q, [smem+8], 0, 1000; @!%q bra W; bar.arrive 1, 64; ret;
        OTHER: bar.sync 1, 64;""",
        [source],
    )  # fmt: skip
    lines = str(fault).split("\n")
    assert fault.code == "deadlock"
    first = next(line for line in lines if "waits for" in line)
    assert "0x408" in first and "it lacks 16 bytes that were expected (expect_tx) and never arrived" in first
    assert "likely cause" in first
    assert any(
        "named barrier 1 of CTA (0,0,0): 32 of 64 threads have arrived (warp 1)" in line for line in lines
    )


def test_deadlock_of_bytes_that_nobody_expected():
    fault = fault_of(
        BARRIERS + """setp.ne.u32 %p, %wid, 0; @%p ret;
            @%one mbarrier.complete_tx.shared::cluster.b64 [smem+8], 64;
        @%one mbarrier.arrive.shared.b64 _, [smem+8];
        W: mbarrier.try_wait.parity.shared.b64 %q, [smem+8], 0, 1000; @!%q bra W;"""
    )  # fmt: skip
    assert "it lacks an expect_tx for 64 bytes that did arrive" in str(fault)
    assert "exited already: CTA (0,0,0) warp 1" in str(fault)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("setp.eq.u32 %p, %wid, 0; @%p bra L; M: bar.sync 2, 96; "
         "L: bar.sync 3, 96;", "32 of 96 threads have arrived"),
        ("setp.eq.u32 %p, %r, 0; @%p barrier.cluster.arrive.aligned; @%p barrier.cluster.wait.aligned; "
         "@!%p bar.sync 1, 96;",
         "cluster barrier: 2 of 4 warps have arrived"),
        ("tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [smem+64], 512; "
         "bar.sync 0;", "no free tensor memory columns"),
        ("mbarrier.init.shared.b64 [smem], 1; L: mbarrier.test_wait.parity.shared.b64 %p, [smem], 0; "
         "@!%p bra L;", "lacks 1 of 1 arrivals"),
    ],
)  # fmt: skip
def test_deadlocks_of_every_kind_of_wait(body, says):
    fault = fault_of(body, grid=(2, 1, 1), cluster=(2, 1, 1))
    assert fault.code == "deadlock"
    assert says in str(fault)


def test_waits_that_give_up_are_no_deadlock():
    """A try_wait whose time limit passes answers false, and the kernel goes on."""
    out = np.zeros(1, np.uint32)
    run_kernel(
        HEAD + BARRIERS + """ld.param.u64 %o, [p0];
            mbarrier.try_wait.parity.shared.b64 %q, [smem], 0, 100; @%q trap;
        mbarrier.try_wait.parity.shared.b64 %q, [smem], 0; @%q trap; st.global.b32 [%o], 4;""",
        [out], shared=DYNAMIC, shared_bytes=64,
    )  # fmt: skip
    assert out[0] == 4


@pytest.mark.parametrize(
    "loop", ["L: bra L;", "L: add.s32 %v, %v, 1; @%one bra L;", "L: nanosleep.u32 9; bra.uni L;"]
)
def test_time_limit(loop):
    started = time.monotonic()
    fault = fault_of(f"mov.b32 %v, 0; {loop} bar.sync 0;", deadline=started + 0.1)
    assert fault.code == "time_limit"
    assert "CTA (0,0,0) warp" in str(fault) and "PTX line" in str(fault)
    assert time.monotonic() - started < 2


def test_trap():
    fault = fault_of("setp.eq.u32 %p, %wid, 1; @%p trap;")
    assert fault.code == "trap" and "warp 1" in str(fault)


def test_faults_of_asynchronous_work_name_who_asked():
    """The copy runs long after its issue; the place is the issuing instruction."""
    fault = fault_of(
        """.loc 1 5 0
        mov.b32 %v, smem; setp.eq.u32 %p, %wid, 1; and.pred %p, %p, %one;
        @%p cp.async.bulk.global.shared::cta.bulk_group [%o+16384], [%v], 16;
        .loc 1 6 0
        cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;""",
        [np.zeros(4, np.uint32)], location=True,
    )  # fmt: skip
    assert fault.code == "global_out_of_bounds"
    assert "CTA (0,0,0) warp 1, gemm.py:5" in str(fault) and "cp.async.bulk.global" in str(fault)


@pytest.mark.parametrize(
    ("code", "launch"),
    [
        ("launch_shape", {"grid": (3, 1, 1), "cluster": (2, 1, 1)}),
        ("launch_shape", {"grid": (0, 1, 1)}),
        ("launch_shape", {"block": (32, 33, 1)}),
        ("launch_shape", {"block": (0, 1, 1)}),
        ("launch_shape", {"grid": (32, 1, 1), "cluster": (32, 1, 1)}),
        ("launch_shape", {"grid": (1, 65536, 1)}),
        ("launch_shared", {"shared_bytes": 227 * 1024 + 1}),
    ],
)
def test_bad_launches(code, launch):
    with pytest.raises(Fault) as caught:
        run_kernel("ret;", [], **launch)
    assert caught.value.code == code


def test_largest_shared_memory():
    found = np.zeros(2, np.uint32)
    run_kernel(
        """.reg .b64 %o; .reg .b32 %v; ld.param.u64 %o, [p0]; st.shared.b32 [smem+232444], 6;
            ld.shared.b32 %v, [smem+232444];
        st.global.b32 [%o], %v; ld.shared.b32 %v, [smem]; st.global.b32 [%o+4], %v;""",
        [found], shared=DYNAMIC, shared_bytes=227 * 1024,
    )  # fmt: skip
    assert found.tolist() == [6, 0xFFFFFFFF]  # what was never written is poison


def test_writes_to_kernel_parameters_and_inputs():
    fault = fault_of(
        "mov.b64 %o, p0; cvta.param.u64 %o, %o; st.global.b32 [%o], 1;", [np.zeros(1, np.uint32)]
    )
    assert fault.code == "global_write_to_input"


def test_simulator_errors_name_the_instruction(monkeypatch):
    """A mistake of the simulator itself is told apart from a fault, and where it happened."""
    decoded = decode_kernel(parse(module(".reg .b32 %v; mov.b32 %v, 1; add.s32 %v, %v, 1; ret;"))["kernel"])

    def broken(warp):
        raise ValueError("oops")

    decoded.blocks[0].operations[1] = broken
    monkeypatch.setattr("ptx_harness.program", lambda text: decoded)
    with pytest.raises(
        RuntimeError, match=r"simulator error at CTA \(0,0,0\) warp 0, PTX line .*add.s32.*oops"
    ):
        run_kernel("ret;")


def test_setmaxnreg_range():
    for operand in ("260", "16", "28", "%v"):
        assert fault_of(f"setmaxnreg.inc.sync.aligned.u32 {operand};").code == "setmaxnreg"
    assert (
        fault_of("setp.lt.u32 %p, %l, 3; @%p setmaxnreg.dec.sync.aligned.u32 40; bar.sync 0;").code
        == "divergent_aligned"
    )
