"""Orders of events: every schedule gives a correct kernel the same result, a seed replays."""

from __future__ import annotations

import mmap
import os
import time

import numpy as np
import pytest
from ptx_harness import DYNAMIC, make_grid, module, run_kernel

from b200sim.faults import Fault
from b200sim.machine.schedule import Eager, ProgramOrder, SeededRandom, schedule
from b200sim.parallel import run_grid

STAGES = 3
TILES = 10

# One warp copies tiles of 128 bytes to a ring of stages, two warps add them up: full and empty barriers.
PIPELINE = f"""
.reg .b64 %in, %out, %w; .reg .b32 %t, %l, %wid, %s, %stage, %phase, %i, %v, %sum, %full, %empty, %buf, %cta;
.reg .pred %p, %q, %one;
ld.param.u64 %in, [p0]; ld.param.u64 %out, [p1]; mov.u32 %t, %tid.x; mov.u32 %l, %laneid;
mov.u32 %wid, %warpid;
mov.u32 %s, smem; mov.u32 %cta, %ctaid.x; setp.eq.u32 %one, %l, 0; setp.ne.u32 %p, %t, 0; @%p bra READY;
mov.b32 %i, 0; INIT: shl.b32 %v, %i, 3; add.s32 %v, %v, %s; mbarrier.init.shared.b64 [%v], 1;
mbarrier.init.shared.b64 [%v+64], 2; add.s32 %i, %i, 1; setp.lt.s32 %p, %i, {STAGES}; @%p bra INIT;
READY: bar.sync 0; mov.b32 %i, 0; mov.b32 %stage, 0; mov.b32 %phase, 0; mov.b32 %sum, 0;
mul.wide.u32 %w, %cta, {TILES * 128}; add.s64 %in, %in, %w; mul.wide.u32 %w, %cta, 256;
add.s64 %out, %out, %w;
setp.ne.u32 %p, %wid, 2; @%p bra CONSUME;
@!%one bra DONE;
PRODUCE: shl.b32 %v, %stage, 3; add.s32 %full, %s, %v; add.s32 %empty, %full, 64; shl.b32 %v, %stage, 7;
add.s32 %buf, %s, %v;
xor.b32 %v, %phase, 1;
PW: mbarrier.try_wait.parity.shared.b64 %q, [%empty], %v, 10000; @!%q bra PW;
mbarrier.arrive.expect_tx.shared.b64 _, [%full], 128;
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%buf+1024], [%in], 128, [%full];
add.s64 %in, %in, 128; add.s32 %stage, %stage, 1; setp.eq.s32 %p, %stage, {STAGES};
@%p xor.b32 %phase, %phase, 1;
@%p mov.b32 %stage, 0; add.s32 %i, %i, 1; setp.lt.s32 %p, %i, {TILES}; @%p bra PRODUCE; bra DONE;
CONSUME: shl.b32 %v, %stage, 3; add.s32 %full, %s, %v; shl.b32 %v, %stage, 7; add.s32 %buf, %s, %v;
CW: mbarrier.try_wait.parity.shared.b64 %q, [%full], %phase; @!%q bra CW;
shl.b32 %v, %l, 2; add.s32 %v, %v, %buf; ld.shared.b32 %v, [%v+1024]; mad.lo.s32 %sum, %sum, 3, %v;
@%one mbarrier.arrive.shared.b64 _, [%full+64];
add.s32 %stage, %stage, 1; setp.eq.s32 %p, %stage, {STAGES}; @%p xor.b32 %phase, %phase, 1;
@%p mov.b32 %stage, 0;
add.s32 %i, %i, 1; setp.lt.s32 %p, %i, {TILES}; @%p bra CONSUME;
mul.wide.u32 %w, %t, 4; add.s64 %w, %w, %out; st.global.b32 [%w], %sum; DONE:
"""


def pipeline_data(ctas: int = 1):
    source = np.random.default_rng(1).integers(0, 1000, (ctas, TILES, 32)).astype(np.uint32)
    expected = np.zeros((ctas, 32), np.uint32)
    for tile in range(TILES):
        expected = expected * 3 + source[:, tile]
    return shared_array(source), np.repeat(expected[:, None], 2, axis=1)


def shared_array(values: np.ndarray) -> np.ndarray:
    """A copy in memory that forked processes share."""
    room = np.frombuffer(mmap.mmap(-1, max(values.nbytes, 1)), values.dtype, values.size).reshape(
        values.shape
    )
    room[...] = values
    return room


ALL = [ProgramOrder, Eager, *(lambda seed=seed: SeededRandom(seed) for seed in range(12))]


@pytest.mark.parametrize("order", ALL)
def test_every_schedule_gives_the_same_result(order):
    source, expected = pipeline_data()
    out = np.zeros((1, 2, 32), np.uint32)
    machine = run_kernel(
        PIPELINE, [source, out], shared=DYNAMIC, shared_bytes=2048, block=(96, 1, 1), schedule=order()
    )
    assert (out == expected).all()
    assert machine.counters.tma_load_bytes == TILES * 128


class Recorder:
    """A schedule that notes what another one chose."""

    def __init__(self, inner) -> None:
        self.inner = inner
        self.choices: list[tuple] = []

    def next(self, cluster):
        item = self.inner.next(cluster)
        if item is not None:
            is_warp = hasattr(item, "run")
            self.choices.append(("warp", item.name) if is_warp else (item.kind, item.place, item.issuer.name))
        return item


def choices(order) -> list[tuple]:
    source, _ = pipeline_data()
    recorder = Recorder(order)
    run_kernel(PIPELINE, [source, np.zeros((2, 32), np.uint32)], shared=DYNAMIC, shared_bytes=2048,
               block=(96, 1, 1), schedule=recorder)  # fmt: skip
    return recorder.choices


def test_a_seed_replays_and_seeds_differ():
    runs = [choices(SeededRandom(seed)) for seed in (1, 1, 2, 3, 4)]
    assert runs[0] == runs[1]
    assert len({tuple(run) for run in runs}) == 4
    assert choices(ProgramOrder()) == choices(ProgramOrder())


def test_schedules_differ_in_when_copies_land():
    """Eager: right after the issue. Program order: only when every warp waits."""
    eager, program = choices(Eager()), choices(ProgramOrder())
    first = next(i for i, choice in enumerate(eager) if choice[0] != "warp")
    assert eager[first - 1] == ("warp", "CTA (0,0,0) warp 2")
    kinds = [choice[0] for choice in program]
    first = kinds.index("bulk load")
    assert kinds[first : first + STAGES] == ["bulk load"] * STAGES or kinds[first - 1] == "warp"
    assert len({choice[1] for choice in program[:first]}) == 3  # all three warps ran before the first copy


def test_order_within_a_pipe_is_kept():
    """Random schedules reorder copies, never the operations of one pipe."""
    from b200sim.machine.asynchronous import AsyncOperation

    class Queue:
        runnable = polling = ()

    for seed in range(20):
        cluster = Queue()
        cluster.in_flight = [
            AsyncOperation(f"{pipe}{i}", lambda: None, None, "", pipe=pipe)
            for i in range(4)
            for pipe in ("x", "y", None)
        ]
        order = []
        picker = SeededRandom(seed)
        while cluster.in_flight:
            order.append(picker.next(cluster).kind)
        for pipe in "xy":
            assert [kind for kind in order if kind[0] == pipe] == [f"{pipe}{i}" for i in range(4)]


def test_names():
    assert isinstance(schedule("program-order"), ProgramOrder)
    assert isinstance(schedule("eager"), Eager)
    assert schedule("random", 5).seed == 5
    with pytest.raises(ValueError, match="unknown schedule 'fifo'"):
        schedule("fifo")


# -- warps that poll --------------------------------------------------------------------------------------

POLL = """.reg .b64 %o; .reg .b32 %v, %wid, %bar; .reg .pred %p, %q, %one; ld.param.u64 %o, [p0];
    mov.u32 %wid, %warpid;
mov.u32 %v, %tid.x; setp.eq.u32 %one, %v, 0; mov.u32 %bar, smem; @%one mbarrier.init.shared.b64 [%bar], 1;
bar.sync 0;
@%one mbarrier.arrive.expect_tx.shared.b64 _, [%bar], 16;
@%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%bar+16], [%o], 16, [%bar];
"""


@pytest.mark.parametrize("order", [ProgramOrder, Eager, lambda: SeededRandom(0)])
@pytest.mark.parametrize(
    "loop",
    [
        "L: mbarrier.test_wait.parity.shared.b64 %q, [%bar], 0; @!%q bra L;",
        "L: mbarrier.try_wait.parity.shared.b64 %q, [%bar], 0; @!%q bra L;",
        "L: ld.volatile.shared.b32 %v, [%bar+16]; setp.ne.b32 %p, %v, 7; @%p bra L;",
        "L: nanosleep.u32 5; ld.volatile.shared.b32 %v, [%bar+16]; setp.ne.b32 %p, %v, 7; @%p bra L;",
        "L: mbarrier.test_wait.parity.shared.b64 %q, [%bar], 0; "
        "mbarrier.test_wait.parity.shared.b64 %p, [%bar], 1; @!%q bra L;",
    ],
)
def test_polling_lets_copies_land(loop, order):
    out = np.array([7, 7, 7, 7, 0], np.uint32)
    from ptx_harness import aligned

    out = aligned(out)
    run_kernel(POLL + loop + "ld.shared.b32 %v, [%bar+16]; st.global.b32 [%o+16], %v;", [out], shared=DYNAMIC,
               shared_bytes=64, schedule=order(), deadline=time.monotonic() + 10)  # fmt: skip
    assert out[4] == 7


@pytest.mark.parametrize("order", [ProgramOrder, Eager, lambda: SeededRandom(0)])
def test_clusters_that_wait_for_each_other_through_global_memory(order):
    """CTA 0 spins until the last CTA has counted up: all of them have to move on."""
    out = np.zeros(2, np.uint32)
    run_kernel(
        """.reg .b64 %o; .reg .b32 %v, %c; .reg .pred %p; ld.param.u64 %o, [p0]; mov.u32 %c, %ctaid.x;
            setp.ne.u32 %p, %c, 0;
        @%p bra COUNT; SPIN: ld.acquire.gpu.global.b32 %v, [%o]; setp.lt.u32 %p, %v, 96; @%p bra SPIN;
        st.global.b32 [%o+4], %v; ret; COUNT: red.release.gpu.global.add.u32 [%o], 1;""",
        [out], grid=(4, 1, 1), schedule=order(), deadline=time.monotonic() + 10,
    )  # fmt: skip
    assert out.tolist() == [96, 96]


# -- several processes ------------------------------------------------------------------------------------


def launch(body: str, arrays, ctas: int, threads: int = 96):
    return make_grid(
        module(body, len(arrays), DYNAMIC),
        arrays,
        shared_bytes=2048,
        block=(threads, 1, 1),
        grid=(ctas, 1, 1),
    )


def children() -> set[str]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return set(file.read().split())


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_give_the_same_memory_and_counters(processes):
    source, expected = pipeline_data(7)
    results = []
    for count in (1, processes):
        out = shared_array(np.zeros((7, 2, 32), np.uint32))
        machine = launch(PIPELINE, [source, out], 7)
        before = children()
        assert run_grid(machine, count) == count
        assert children() == before
        assert (out == expected).all()
        results.append(
            {name: value for name, value in machine.counters.as_dict().items() if "seconds" not in name}
        )
    assert results[0] == results[1]


@pytest.mark.parametrize("faulty", range(4))
def test_a_fault_in_any_process_surfaces_and_no_process_stays(faulty):
    out = shared_array(np.zeros(8, np.uint32))
    machine = launch(
        f""".reg .b64 %o; .reg .b32 %c; .reg .pred %p; ld.param.u64 %o, [p0]; mov.u32 %c, %ctaid.x;
        setp.eq.u32 %p, %c, {faulty}; @%p st.global.b32 [%o+4096], %c;""",
        [out], 4,
    )  # fmt: skip
    before = children()
    with pytest.raises(Fault) as caught:
        run_grid(machine, 2)
    assert caught.value.code == "global_out_of_bounds"
    assert f"CTA ({faulty},0,0) warp" in str(caught.value) and "PTX line" in str(caught.value)
    assert children() == before


def test_a_child_that_never_ends_is_stopped_by_the_time_limit():
    out = shared_array(np.zeros(8, np.uint32))
    text = module(
        ".reg .b32 %c; .reg .pred %p; mov.u32 %c, %ctaid.x; setp.eq.u32 %p, %c, 1; L: @%p bra L;", 1
    )
    machine = make_grid(text, [out], grid=(4, 1, 1), deadline=time.monotonic() + 0.3)
    before = children()
    with pytest.raises(Fault) as caught:
        run_grid(machine, 2)
    assert caught.value.code == "time_limit"
    assert children() == before


@pytest.mark.parametrize(
    "body",
    [
        "red.global.add.u32 [%o], 1;",
        "atom.add.u32 %c, [%o], 1;",
        "ld.acquire.gpu.global.b32 %c, [%o];",
        "ld.relaxed.gpu.b32 %c, [%o];",
        "@%p cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%o], [smem], 16;",
    ],
)
def test_clusters_that_may_talk_to_each_other_stay_in_one_process(body):
    out = shared_array(np.zeros(8, np.uint32))
    machine = launch(
        f".reg .b64 %o; .reg .b32 %c; .reg .pred %p; mov.pred %p, 0; ld.param.u64 %o, [p0]; {body}",
        [out],
        4,
        32,
    )
    assert run_grid(machine, 2) == 1


def test_private_memory_keeps_a_launch_in_one_process():
    machine = launch(
        ".reg .b64 %o; ld.param.u64 %o, [p0]; st.global.b32 [%o], 1;", [np.zeros(8, np.uint32)], 4, 32
    )
    assert run_grid(machine, 2) == 1


@pytest.mark.parametrize("name", ["starve:0", "starve-late:0", "starve:1"])
def test_a_starved_warp_runs_when_the_others_only_poll(name):
    """Warp 1 asks for what warp 0 will write: no schedule may let it ask for ever."""
    out = np.zeros(1, np.uint32)
    body = """.reg .b64 %a; .reg .b32 %t, %v; .reg .pred %p; ld.param.u64 %a, [p0];
        mov.u32 %t, %tid.x; setp.ge.u32 %p, %t, 32; @%p bra ASK;
        st.relaxed.gpu.global.b32 [%a], 7; ret;
        ASK: ld.relaxed.gpu.global.b32 %v, [%a]; setp.ne.u32 %p, %v, 7; @%p bra ASK;
        ret;"""
    run_kernel(body, [out], block=(64, 1, 1), schedule=schedule(name), deadline=time.monotonic() + 30)
    assert out[0] == 7
