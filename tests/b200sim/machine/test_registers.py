"""Registers at launch as ptxas gives them out, and the CTA's pool behind setmaxnreg."""

from __future__ import annotations

import re
import subprocess
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ptx_harness import make_grid, module

from b200sim.faults import Fault
from b200sim.gpus import B200, H200
from b200sim.machine.registers import LaunchRegisters, RegisterPool, launch_registers
from b200sim.machine.schedule import Eager, ProgramOrder, SeededRandom
from b200sim.ptx.directives import read_directives
from b200sim.ptx.syntax import Immediate, Instruction
from b200sim.sanitizer import sanitize_grid
from profiling.binary import find_tool

ORDERS = [ProgramOrder, Eager, *(lambda seed=seed: SeededRandom(seed) for seed in range(8))]
HEAD = """.reg .b64 %out, %at; .reg .b32 %t, %w; .reg .pred %p, %q;
ld.param.u64 %out, [p0]; mov.u32 %t, %tid.x; shr.u32 %w, %t, 5; setp.lt.u32 %p, %w, {split};
"""
STORE = "mul.wide.u32 %at, %t, 4; add.s64 %at, %at, %out; st.global.b32 [%at], %t; ret;"


def decrease(count: int) -> str:
    return f"setmaxnreg.dec.sync.aligned.u32 {count};\n"


def increase(count: int) -> str:
    return f"setmaxnreg.inc.sync.aligned.u32 {count};\n"


def run(first: str, rest: str, threads: int, split: int, directives: str | None = None, schedule=None):
    """Warps below `split` do `first`, the others `rest`; then every thread stores its number."""
    directives = f".reqntid {threads}, 1, 1\n.minnctapersm 1" if directives is None else directives
    body = HEAD.format(split=split) + f"@%p bra FIRST;\n{rest}bra JOIN;\nFIRST:\n{first}JOIN:\n{STORE}"
    stored = np.full(threads, -1, np.int32)
    text = module(body, 1, target="sm_90a", directives=directives)
    grid = make_grid(text, [stored], block=(threads, 1, 1), gpu=H200, schedule=schedule)
    grid.run()
    assert stored.tolist() == list(range(threads))
    return grid


def fault_of(*args, **kwargs) -> Fault:
    with pytest.raises(Fault) as caught:
        run(*args, **kwargs)
    return caught.value


# -- at launch --------------------------------------------------------------------------------------------

# "Used N registers" of ptxas 13.0.88 for kernels of three instructions, one of them a setmaxnreg, alike for
# sm_90a and sm_100a. None: C7508, setmaxnreg ignored.
PTXAS = [
    ("", None), (".maxntid 384", None), (".reqntid 384", None), (".minnctapersm 1", None),
    (".reqntid 384 .minnctapersm 1", 168), (".maxntid 384 .minnctapersm 1", 168),
    (".reqntid 16, 8, 5 .minnctapersm 1", 96), (".reqntid 100 .minnctapersm 1", 255),
    *((f".reqntid {threads} .minnctapersm 1", registers) for threads, registers in [
        (32, 255), (256, 255), (288, 168), (320, 168), (416, 128), (512, 128), (576, 96), (640, 96),
        (672, 80), (768, 80), (896, 72), (1024, 64)]),
    *((f".reqntid {threads} .minnctapersm {ctas}", registers) for threads, ctas, registers in [
        (32, 8, 255), (128, 3, 168), (160, 2, 168), (160, 8, 48), (192, 3, 96), (192, 8, 40), (288, 3, 72),
        (33, 12, 80), (1, 32, 64), (40, 8, 128), (97, 16, 32), (1000, 2, 32),
        (97, 17, None), (32, 33, None), (384, 8, None)]),
    (".maxnreg 16", 24), (".maxnreg 100", 100), (".maxnreg 255", 255), (".maxnreg 300", 255),
    (".reqntid 384 .maxnreg 64", 64), (".reqntid 384 .minnctapersm 1 .maxnreg 200", 168),
    (".reqntid 640 .minnctapersm 1 .maxnreg 64", 64), (".maxntid 640 .maxnreg 128", 128),
]  # fmt: skip
# The same with operands of setmaxnreg.inc: a kernel that never wants more starts with no more.
INCREASED = [
    (".reqntid 384 .minnctapersm 1", [232], 168), (".reqntid 384 .minnctapersm 1", [160], 160),
    (".reqntid 384 .minnctapersm 1", [160, 232], 168), (".reqntid 384 .minnctapersm 1", [64, 80], 80),
    (".maxnreg 100", [48], 48), (".maxnreg 300", [240], 240), (".maxnreg 300", [256], 255),
]  # fmt: skip


@pytest.mark.parametrize(
    ("directives", "increases", "registers"), [*((d, [], n) for d, n in PTXAS), *INCREASED]
)
def test_registers_at_launch_are_those_of_ptxas(directives, increases, registers):
    found = launch_registers(read_directives(directives), increases, B200)
    assert (found.per_thread if found else None) == registers


def test_ptxas_here_agrees(tmp_path):
    """The installed one, on the tables above and block sizes that are not in them."""
    ptxas = find_tool("ptxas")
    if ptxas is None:
        pytest.skip("needs ptxas (from CUDA or the triton package)")
    sizes = [(f".maxntid {n} .minnctapersm {1 + n % 3}", []) for n in range(40, 1024, 71)]
    for directives, increases in [*((d, []) for d, _ in PTXAS), *((d, i) for d, i, _ in INCREASED), *sizes]:
        work = "".join(map(increase, increases)) + decrease(24) + STORE
        text = module(HEAD.format(split=1) + work, 1, target="sm_90a", directives=directives)
        (tmp_path / "kernel.ptx").write_text(text)
        command = [ptxas, "-v", "-arch=sm_90a", "kernel.ptx", "-o", "kernel.cubin"]
        log = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stderr
        found = launch_registers(read_directives(directives), increases, B200)
        if found is None:
            assert "'setmaxnreg' ignored; unable to determine register count at entry" in log, directives
        else:
            assert "ignored;" not in log and f"Used {found.per_thread} registers" in log, (directives, log)


def test_a_cta_that_no_sm_can_hold():
    fault = fault_of("", increase(200), 640, 0, ".maxnreg 104")
    assert fault.code == "launch_registers"
    assert (
        "20 warps per CTA with 104 registers per thread (.maxnreg 104); an SM of a H200 has" in fault.message
    )
    assert "enough for 96 per thread" in fault.message
    run("", increase(96), 640, 0, ".maxnreg 96")


# -- the pool ---------------------------------------------------------------------------------------------


def a_warp(index: int):
    return SimpleNamespace(
        index=index, blocked_on=None, cta=SimpleNamespace(cluster=SimpleNamespace(runnable=deque()))
    )


def asking(action: str, count: int) -> Instruction:
    return Instruction("setmaxnreg", (action, "sync"), (Immediate(count),), None, 7, None, "setmaxnreg")


def test_a_pool_gives_what_was_given_and_no_more():
    pool, (giver, taker) = RegisterPool("CTA", LaunchRegisters(168, "test"), 2), map(a_warp, range(2))
    assert not pool.acquire(taker, 232, asking("inc", 232)) and taker.blocked_on is pool
    assert pool.describe() == "registers: warps 1 ask for 2,048 more, the pool of CTA holds 0"
    pool.release(giver, 112, asking("dec", 112))
    assert taker.blocked_on is None and list(taker.cta.cluster.runnable) == [taker]
    assert not pool.acquire(taker, 232, asking("inc", 232)), "56 of the 64 are there"
    pool.release(giver, 104, asking("dec", 104))
    assert pool.acquire(taker, 232, asking("inc", 232))
    assert (pool.held, pool.free, pool.wanted) == ([104, 232], 0, {})


def test_registers_are_handed_out_by_eight():
    """255 and 100 per thread are 256 and 104 of a warp's lanes, so an increase to these takes nothing."""
    for launched, held in ((255, 256), (100, 104)):
        pool = RegisterPool("CTA", LaunchRegisters(launched, "test"), 1)
        assert pool.acquire(a_warp(0), held, asking("inc", held))
        assert (pool.held, pool.free) == ([held], 0)


@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(3, 32)), max_size=60), st.sampled_from([96, 128, 255])
)
@settings(max_examples=100, deadline=None)
def test_registers_are_neither_made_nor_lost(steps, launched):
    pool, warps = RegisterPool("CTA", LaunchRegisters(launched, "test"), 8), [a_warp(i) for i in range(8)]
    total = 8 * -(-launched // 8) * 8
    for index, eighth in steps:
        warp, count, before = warps[index], 8 * eighth, pool.held[index]
        if warp.blocked_on:
            continue
        if count <= before:
            pool.release(warp, count, asking("dec", count))
        else:
            enough = count - before <= pool.free
            assert pool.acquire(warp, count, asking("inc", count)) == enough
            assert (warp.blocked_on is pool) == (not enough)
        assert pool.free + sum(pool.held) == total and pool.free >= 0


# -- kernels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_two_multiplying_warpgroups_and_a_loading_one(order):
    """168 x 384 = 64,512 = 128 x 40 + 256 x 232: CUTLASS' Hopper kernels. Who increases may come first."""
    grid = run(increase(232), decrease(40), 384, 8, schedule=order())
    assert grid.registers.per_thread == 168 and grid.notes == []


@pytest.mark.parametrize("order", ORDERS)
def test_640_threads_that_an_h200_never_ends(order):
    """96 x 640 = 61,440 < 128 x 64 + 512 x 112 = 65,536, although an SM has just that many."""
    fault = fault_of(increase(112), decrease(64), 640, 16, schedule=order())
    told = fault.message
    assert fault.code == "deadlock"
    waiting = re.search(r"registers: warps (.*) ask for 4,096 more, the pool of CTA \(0,0,0\) holds 0", told)
    assert waiting, told
    for line in (
        "registers of CTA (0,0,0): launched with 96 per thread (.reqntid 640, .minnctapersm 1), 61,440 ",
        f"96 per thread: warps {waiting[1]}, which wait for 112\n",
        "64 per thread: warps 16-19\n",
        "asked for in all: 65,536, 4,096 too many; would fit: 104 for the 16 warps at 112, or 32 for the 4 ",
    ):
        assert line in told, told


@pytest.mark.parametrize("counts", [(104, 64), (112, 32)])
def test_what_the_report_says_would_fit_does(counts):
    high, low = counts
    run(increase(high), decrease(low), 640, 16)


def test_registers_come_back_and_go_out_again():
    """Two rounds, ordered by barriers: 168 to 232, back to 96, and the other warpgroup from 40 to 256."""
    barrier = "bar.sync 0;\n"
    first = increase(232) + barrier + decrease(80) + barrier
    grid = run(first, decrease(104) + barrier + increase(256) + barrier, 256, 4, ".maxnreg 168")
    assert grid.notes == []


def test_a_decrease_that_comes_too_late():
    """The loading warpgroup waits at a barrier for those that wait for its registers."""
    barrier = "bar.sync 0;\n"
    fault = fault_of(increase(232) + barrier, barrier + decrease(40), 384, 8)
    assert fault.code == "deadlock"
    assert "168 per thread: warps 0-7, which wait for 232" in fault.message
    assert "168 per thread: warps 8-11\n" in fault.message
    assert "named barrier 0 of CTA (0,0,0): 128 of 384 threads have arrived" in fault.message


def test_registers_of_an_exited_warp_stay_away():
    fault = fault_of(increase(232), "ret;\n", 256, 4, ".maxnreg 168")
    assert fault.code == "deadlock" and "exited already: CTA (0,0,0) warps 4, 5, 6, 7" in fault.message


def test_each_cta_has_its_own_pool():
    body = HEAD.format(split=0) + "mov.u32 %w, %cluster_ctarank; setp.eq.u32 %p, %w, 0; @%p bra GIVE;\n"
    body += increase(232) + "bra END;\nGIVE:\n" + decrease(40) + "END: ret;"
    text = module(body, 1, directives=".maxnreg 128")
    with pytest.raises(Fault, match=r"\[deadlock\](.|\n)*pool of CTA \(1,0,0\) holds 0"):
        make_grid(text, [np.zeros(1)], grid=(2, 1, 1), cluster=(2, 1, 1), block=(128, 1, 1)).run()


@pytest.mark.parametrize(
    ("first", "rest", "words"),
    [
        (increase(232), increase(160), "setmaxnreg.inc to 160: the warp has 168 registers per thread"),
        (increase(232), decrease(176), "setmaxnreg.dec to 176: the warp has 168 registers per thread"),
        (increase(168), decrease(40) + decrease(48), "setmaxnreg.dec to 48: the warp has 40 registers"),
    ],
)
def test_the_wrong_direction(first, rest, words):
    fault = fault_of(first, rest, 384, 4)
    assert fault.code == "setmaxnreg_direction" and fault.message.startswith(words)
    since = "PTX line" if "has 40" in words else "the launch: .reqntid 384, .minnctapersm 1"
    assert f"since {since}" in fault.message and "undefined" in fault.message


def test_without_a_register_count_it_has_no_effect():
    """ptxas drops the instructions: the kernel runs, however much it asks for, and a note says so."""
    grid = run(increase(256), increase(256), 640, 16, ".reqntid 640, 1, 1")
    (note,) = grid.notes
    assert "setmaxnreg has no effect" in note and "C7508" in note and "min_blocks_per_mp=1" in note
    assert run("", "", 640, 16, ".reqntid 640, 1, 1").notes == []


def test_warps_of_a_warpgroup_that_differ():
    """Undefined by the manual, done by official kernels: a note."""
    grid = run(decrease(96), decrease(24), 128, 2)
    (note,) = grid.notes
    assert note.startswith(
        "warps 0 and 2 belong to one warpgroup and differ in setmaxnreg: dec 96 and dec 24;"
    )
    (note,) = run(decrease(96), "", 384, 5).notes
    assert "warps 4 and 5" in note and "dec 96 and none" in note
    assert run(decrease(96), "", 384, 4).notes == []


# -- watched ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("high", "codes"), [(104, set()), (112, {"deadlock"})])
def test_the_sanitizer_sees_what_the_machine_sees(high, codes):
    body = HEAD.format(split=16) + f"@%p bra FIRST;\n{decrease(64)}bra JOIN;\nFIRST:\n{increase(high)}JOIN:\n"
    text = module(body + STORE, 1, target="sm_90a", directives=".reqntid 640, 1, 1\n.minnctapersm 1")

    def grid(order):
        return make_grid(text, [np.zeros(640, np.int32)], block=(640, 1, 1), gpu=H200, schedule=order)

    report = sanitize_grid(grid, schedules=4)
    assert {finding.code for finding in report.findings} == codes
    for finding in report.findings:
        assert "ask for 4,096 more" in finding.detail and "would fit: 104" in finding.detail
