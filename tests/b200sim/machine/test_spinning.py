"""Warps that poll memory forever are a deadlock; warps that poll for long, or give up, are none."""

import time

import numpy as np
import pytest

from b200sim.faults import Fault
from b200sim.gpus import B200
from b200sim.machine.grid import Grid
from tests.b200sim.ptx_harness import make_grid, module

START = """
.reg .b32 %r<8>, %rank; .reg .b64 %a, %t<4>; .reg .pred %p;
ld.param.u64 %a, [p0]; mov.u32 %rank, %ctaid.x; mov.u32 %r0, 0;
"""
POLL = "POLL: ld.acquire.gpu.global.b32 %r1, [%a]; setp.eq.u32 %p, %r1, 0; @%p bra POLL;"
SET = "st.release.gpu.global.b32 [%a], 1;"
PRODUCER = "setp.ne.u32 %p, %rank, 0; @%p bra POLL; {work} bra DONE;"


def launch(body: str, ctas: int = 2, **options) -> Grid:  # type: ignore[no-untyped-def]
    memory = np.zeros(64, np.uint32)
    text = module(f"{START}\n{body}\nDONE: ret;", 1)
    return make_grid(text, [memory], grid=(ctas, 1, 1), deadline=time.monotonic() + 30, **options)


def fault_of(body: str, ctas: int = 2, **options) -> Fault:  # type: ignore[no-untyped-def]
    with pytest.raises(Fault) as caught:
        launch(body, ctas, **options).run()
    return caught.value


@pytest.mark.parametrize(
    "poll",
    [
        POLL,
        POLL.replace("ld.acquire.gpu", "ld.volatile"),
        POLL.replace("@%p", "nanosleep.u32 100; @%p"),
        POLL.replace("@%p", "fence.acq_rel.gpu; @%p"),
        "POLL: atom.acquire.gpu.global.cas.b32 %r1, [%a], 7, 8; setp.ne.u32 %p, %r1, 7; @%p bra POLL;",
        POLL.replace("POLL:", "POLL: add.u32 %r2, %r2, 1; and.b32 %r2, %r2, 7;"),
    ],
    ids=["acquire", "volatile", "nanosleep", "fence", "cas", "counter that comes round"],
)
def test_polling_for_what_nobody_writes_is_a_deadlock(poll: str) -> None:
    fault = fault_of("mov.u32 %r2, 0;" + PRODUCER.format(work="") + poll)
    assert fault.code == "deadlock"
    assert "CTA (1,0,0) warp 0 at PTX line" in fault.message
    assert "reads 4 bytes of global memory" in fault.message
    assert "(array 0+0x0) again and again, which hold 0x0" in fault.message


def test_who_waits_at_a_barrier_is_named_too() -> None:
    body = "mov.u32 %r3, %tid.x; setp.gt.u32 %p, %r3, 31; @%p bra MEET;" + POLL + "MEET: bar.sync 0;"
    fault = fault_of(body, 1, block=(64, 1, 1))
    assert fault.code == "deadlock" and "named barrier 0 of CTA (0,0,0): 32 of 64 threads" in fault.message


def test_a_grid_barrier_of_more_ctas_than_fit_is_a_deadlock() -> None:
    body = "red.release.gpu.global.add.u32 [%a], 1;" + POLL.replace(
        "setp.eq.u32 %p, %r1, 0", "setp.ne.u32 %p, %r1, 96"
    )
    assert "1 cluster(s) have not started" in fault_of(body, 3, gpu=B200.with_sms(2)).message
    launch(body, 3, gpu=B200.with_sms(3)).run()


LONG = "WORK: add.u32 %r0, %r0, 1; setp.ne.u32 %p, %r0, {turns}; @%p bra WORK;"
READS = LONG.replace("setp", "ld.relaxed.gpu.global.b32 %r1, [%a+4]; setp")


@pytest.mark.parametrize("work", [LONG, READS], ids=["counts", "reads"])
def test_a_producer_that_takes_long_is_waited_for(work: str) -> None:
    grid = launch(PRODUCER.format(work=work.format(turns=60_000) + SET) + POLL)
    grid.run()
    assert grid.observer is None


def test_who_gives_up_is_no_deadlock() -> None:
    poll = "POLL: ld.relaxed.gpu.global.b32 %r1, [%a];"
    launch(f"{poll} add.u32 %r0, %r0, 1; setp.ne.u32 %p, %r0, 60000; @%p bra POLL;", 1).run()
    passed = "mov.u64 %t1, %clock64; sub.u64 %t1, %t1, %t0; setp.lt.u64 %p, %t1, 500; @%p bra POLL;"
    launch(f"mov.u64 %t0, %clock64; {poll} nanosleep.u32 9; {passed}").run()


def test_a_loop_that_writes_or_reads_nothing_runs_into_the_time_limit() -> None:
    """Whether such a loop ends is not asked."""
    for body in ("FOREVER: bra FOREVER;", "FOREVER: st.relaxed.gpu.global.b32 [%a], 0; bra FOREVER;"):
        grid = launch(body, 1)
        grid.deadline = time.monotonic() + 0.5
        with pytest.raises(Fault) as caught:
            grid.run()
        assert caught.value.code == "time_limit"
