"""Lanes of a warp are threads: what orders their accesses to shared memory, and what does not."""

# ruff: noqa: E501
from __future__ import annotations

import numpy as np
import pytest

from b200sim.sanitizer.lane_order import LaneOrder
from tests.sanitizer.corpus_small import (
    ALLOC,
    DEALLOC,
    LANE_WORDS,
    ONE_LOADS,
    ONE_WAITS,
    READ_LOADED,
    STORE_T3,
    TWO_WARPS,
    small,
    waiting,
)
from tests.sanitizer.run import run_ptx

WRITE, READ = "st.shared.b32 [%t9], %tid;", "ld.shared.b32 %t3, [%t8];"
ARRIVE = "@%one mbarrier.arrive.shared.b64 _, [%smem];"
NOT, MET = "warp_not_synchronised", "warp_met_without_barrier"


def codes(body: str, start: str = LANE_WORDS, **more) -> set[str]:  # type: ignore[no-untyped-def]
    return run_ptx(small("lanes", "", start + body + STORE_T3, **more)).findings.codes()


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        ("", {NOT}),
        ("bar.warp.sync -1;", set()),
        ("bar.sync 0;", set()),
        ("barrier.cluster.arrive; barrier.cluster.wait;", set()),
        ("barrier.cluster.arrive.relaxed; barrier.cluster.wait;", {NOT}),
        ("shfl.sync.bfly.b32 %t4, %t9, 1, 31, -1;", {MET}),
        ("vote.sync.any.pred %q, %one, -1;", {MET}),
        ("match.any.sync.b32 %t4, %t9, -1;", {MET}),
        ("elect.sync _|%q, -1;", {MET}),
        ("fence.acq_rel.cta;", {NOT}),
        ("bar.arrive 1, 64;", {NOT}),
        ("bar.warp.sync 0xFFFFFFFF;", set()),
    ],
)
def test_what_stands_between_a_write_and_another_lanes_read(between: str, expected: set[str]) -> None:
    assert codes(WRITE + between + READ) == expected


@pytest.mark.parametrize(("mask", "expected"), [("0xFFFF", set()), ("0xFF", {NOT})])
def test_a_barrier_of_some_lanes_orders_these(mask: str, expected: set[str]) -> None:
    """Sixteen lanes exchange in a ring; a barrier of eight leaves the ninth out."""
    ring = LANE_WORDS.replace("and.b32 %t8, %t8, 31;", "and.b32 %t8, %t8, 15;")
    body = f"setp.ge.u32 %p, %tid, 16; @%p bra DONE; {WRITE} setp.ge.u32 %p, %tid, 8; @%p bra REST; bar.warp.sync 0xFF; bra GO; REST: nanosleep.u32 1; GO: {READ}"
    whole = f"setp.ge.u32 %p, %tid, 16; @%p bra DONE; {WRITE} bar.warp.sync 0xFFFF; {READ}"
    assert codes(whole if mask == "0xFFFF" else body, ring) == expected


SILENT = {
    "own word": WRITE + "ld.shared.b32 %t3, [%t9];",
    "own word, twice written": WRITE + WRITE + "ld.shared.b32 %t3, [%t9];",
    "both read": WRITE + "bar.warp.sync -1;" + READ + "ld.shared.b32 %t4, [%t9];",
    "equal lanes store one word": "st.shared.b32 [%smem+1024], 7; bar.warp.sync -1; ld.shared.b32 %t3, [%smem+1024];",
    "atomics": "@%one st.shared.b32 [%smem+1024], 0; bar.warp.sync -1; red.shared.add.u32 [%smem+1024], 1;"
    "atom.shared.add.u32 %t3, [%smem+1024], 1;",
    "strong accesses": "st.relaxed.cta.shared.b32 [%t9], %tid; ld.relaxed.cta.shared.b32 %t3, [%t8];",
    "halves of a word": ".reg .b16 %h; and.b32 %t9, %tid, 31; shl.b32 %t9, %t9, 1; add.s32 %t9, %t9, %smem;"
    "cvt.u16.u32 %h, %tid; st.shared.b16 [%t9+1024], %h; ld.shared.b16 %h, [%t9+1024]; cvt.u32.u16 %t3, %h;",
}  # fmt: skip


@pytest.mark.parametrize("name", SILENT)
def test_what_needs_no_order(name: str) -> None:
    assert codes(SILENT[name]) == set()


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (WRITE + "bar.warp.sync -1;" + ARRIVE, set()),
        (WRITE + ARRIVE, {NOT}),
        (WRITE + "elect.sync _|%one, -1;" + ARRIVE, {MET}),
        (WRITE + ARRIVE + "bar.warp.sync -1;", {NOT}),
        ("@%one st.shared.b32 [%t9], 1;" + ARRIVE, {"uninitialised_shared"}),
    ],
    ids=["barrier", "no barrier", "elect only", "barrier too late", "its own write"],
)
def test_an_arrival_hands_on_what_its_lane_knows(first: str, expected: set[str]) -> None:
    body = first + "bra DONE;\nOTHER:\n" + waiting(1, "%smem") + READ
    assert codes(body, TWO_WARPS, warps=2) == expected


@pytest.mark.parametrize(
    ("then", "expected"), [("", set()), (ARRIVE, {NOT}), ("bar.warp.sync -1;" + ARRIVE, set())]
)
def test_a_known_false_alarm(then: str, expected: set[str]) -> None:
    """All lanes hand on what they wrote, and the other warp waits for it. A later arrival of one lane says
    that it does not know of the others' words: a warp has one clock, so these count as newer, for all."""
    body = WRITE + "bar.arrive 1, 64;" + then + "bra DONE;\nOTHER: bar.sync 1, 64; nanosleep.u32 100;" + READ
    assert codes(body, TWO_WARPS, warps=2) == expected


def test_lanes_meet_on_an_mbarrier() -> None:
    """Every lane arrives; who sees the phase knows what all of them wrote."""
    start = TWO_WARPS.replace("[%smem], 1;", "[%smem], 32;")
    body = (
        WRITE
        + "mbarrier.arrive.shared.b64 _, [%smem];\n"
        + waiting(1, "%smem")
        + READ
        + STORE_T3
        + "OTHER:\n"
    )
    assert run_ptx(small("lanes", "", start + body, warps=2)).findings.codes() == set()
    half = body.replace("mbarrier.arrive.shared", "@%one mbarrier.arrive.shared")
    one = start.replace("[%smem], 32;", "[%smem], 1;")
    assert run_ptx(small("lanes", "", one + half, warps=2)).findings.codes() == {NOT}


def test_a_load_into_what_other_lanes_have_read() -> None:
    """The lane that fills a stage again must know that the other lanes have read it."""
    again = (
        "mov.u32 %t3, %tid; @%one mbarrier.init.shared.b64 [%smem], 1; fence.mbarrier_init.release.cluster; ld.param.u64 %a, [p0];"
        "@%one st.shared.b32 [%smem+2048], 1; bar.warp.sync -1; ld.shared.b32 %t3, [%smem+2048];"
        "fence.proxy.async.shared::cta; BARRIER @!%one bra L8; mbarrier.arrive.expect_tx.shared.b64 _, [%smem], 16; add.s32 %t6, %smem, 2048;"
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%t6], [%a], 16, [%smem];\nL8: "
        + waiting(1, "%smem") + "ld.shared.v4.b32 {%t4, %t5, %t6, %t7}, [%smem+2048];"
    )  # fmt: skip
    assert codes(again.replace("BARRIER", "bar.warp.sync -1;")) == set()
    assert codes(again.replace("BARRIER", "")) == {NOT}


@pytest.mark.parametrize(
    ("after", "expected"),
    [("", {NOT}), ("bar.warp.sync -1;", set()), ("bar.sync 0;", set()), ("@%one bar.warp.sync 1;", {NOT})],
)
def test_what_one_lane_has_waited_for(after: str, expected: set[str]) -> None:
    body = LANE_WORDS + ONE_LOADS + ONE_WAITS + after + READ_LOADED
    assert run_ptx(small("lanes", "", body)).findings.codes() == expected


@pytest.mark.parametrize(("between", "expected"), [("", {NOT}), ("elect.sync _|%q, -1;", set())])
def test_a_read_is_over_when_the_lanes_have_met(between: str, expected: set[str]) -> None:
    body = WRITE + "bar.warp.sync -1;" + READ + between + "st.shared.b32 [%t9], 5;"
    assert codes(body) == expected


def test_lanes_that_wait_themselves_need_no_barrier() -> None:
    body = LANE_WORDS + ONE_LOADS + "bar.warp.sync -1;" + waiting(1, "%smem") + READ_LOADED
    assert run_ptx(small("lanes", "", body)).findings.codes() == set()
    read = "ld.shared.b32 %t3, [%smem+1024];\nWAITED:\n"
    body = LANE_WORDS + ONE_LOADS + ONE_WAITS.replace("WAITED:\n", read)
    assert run_ptx(small("lanes", "", body)).findings.codes() <= {"tile_partly_unread"}


def test_an_aligned_instruction_writes_for_the_whole_warp() -> None:
    assert run_ptx(small("alloc", "", ALLOC + DEALLOC, warps=4)).findings.codes() == set()


def test_lane_order() -> None:
    order = LaneOrder()
    order.join(0b0011, 0b1111, 5)
    known = np.asarray(order.orders(5))
    assert known[0, 1] and known[1, 0] and not known[2, 0] and not known[0, 2]
    order.join(0b0110, 0b1111, 8)  # 1 and 2 meet: 2 learns of 0 up to 5
    known = np.asarray(order.orders(5))
    assert known[2, 0] and not known[0, 2]
    assert np.asarray(order.orders(8))[2, 1] and not np.asarray(order.orders(8))[2, 0]
    order.learn(0b1000, 0b1111, 7)
    assert np.asarray(order.orders(7))[3].all() and not np.asarray(order.orders(8))[3].any()
    order.join(0b1111, 0b1111, 9)
    assert order.orders(9) is True and order.orders(10) is False
