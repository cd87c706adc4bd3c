"""The .local space: every thread's own bytes, through .local and generic addresses."""

from __future__ import annotations

import random

import numpy as np
import pytest
from ptx_harness import lanes, run_kernel

from b200sim.faults import Fault
from b200sim.machine.thread_memory import POISON

DEPOT = ".local .align 16 .b8 depot[64]; .reg .b64 %SPL, %SP; mov.u64 %SPL, depot; cvta.local.u64 %SP, %SPL;"
LANES = list(range(32))
POISON32 = POISON * 0x01010101


def some(bits: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.getrandbits(bits) for _ in LANES]


@pytest.mark.parametrize("space, base", [(".local", "%SPL"), ("", "%SP")])
def test_what_a_thread_stores_it_finds_again(space, base):
    a, b = some(32, 1), some(64, 2)
    found = lanes(
        f"st{space}.b32 [{base}+4], %a; st{space}.b64 [{base}+16], %b; st{space}.b16 [{base}+2], 0x1234;"
        f"ld{space}.v2.b32 {{%x, %y}}, [{base}]; ld{space}.b64 %z, [{base}+16]; ld{space}.u8 %w, [{base}+17];"
        f"ld{space}.s8 %s, [{base}+19];",
        {"%x": 32, "%y": 32, "%z": 64, "%w": 16, "%s": 32},
        {"%a": (32, a), "%b": (64, b)},
        declare=DEPOT,
    )
    assert found["%x"] == [0x1234 << 16 | POISON * 0x0101] * 32
    assert found["%y"] == a
    assert found["%z"] == b
    assert found["%w"] == [value >> 8 & 0xFF for value in b]
    signed = [(value >> 24 & 0xFF) - (value >> 24 & 0x80) * 2 for value in b]
    assert found["%s"] == [value & 0xFFFFFFFF for value in signed]


def test_addresses_that_differ_between_lanes():
    """Lane i writes slot i % 16 and reads slot (i + 1) % 16, which only its neighbour in value wrote."""
    slot = [4 * (i % 16) for i in LANES]
    other = [4 * ((i + 1) % 16) for i in LANES]
    found = lanes(
        "add.u64 %p, %SPL, %slot; add.u64 %q, %SPL, %other; st.local.b32 [%p], %v;"
        "ld.local.b32 %x, [%p]; ld.local.b32 %y, [%q];",
        {"%x": 32, "%y": 32},
        {"%slot": (64, slot), "%other": (64, other), "%v": (32, some(32, 3))},
        declare=DEPOT + ".reg .b64 %p, %q;",
    )
    assert found["%x"] == some(32, 3)
    assert found["%y"] == [POISON32] * 32


@pytest.mark.parametrize("values", [77, some(32, 4)])
def test_a_partial_warp_writes_and_reads_only_its_lanes(values):
    mask = 0x0F0F1234
    found = lanes(
        "setp.ne.b32 %p, %m, 0; st.local.b32 [%SPL], 5; @%p st.local.b32 [%SPL], %v;"
        "ld.local.b32 %x, [%SPL]; @!%p ld.local.b32 %y, [%SPL];",
        {"%x": 32, "%y": 32},
        {"%v": (32, values), "%m": (32, [mask >> i & 1 for i in LANES])},
        declare=DEPOT + ".reg .pred %p;",
    )
    row = [values] * 32 if isinstance(values, int) else values
    assert found["%x"] == [row[i] if mask >> i & 1 else 5 for i in LANES]
    assert found["%y"] == [0xA5A5A5A5 if mask >> i & 1 else 5 for i in LANES]


def test_warps_have_memory_of_their_own():

    out = np.zeros(64, np.uint32)
    run_kernel(
        DEPOT
        + ".reg .b64 %o, %t; .reg .b32 %r, %x; mov.u32 %r, %tid.x; st.local.b32 [%SPL+8], %r; bar.sync 0;"
        "ld.local.b32 %x, [%SPL+8]; ld.param.u64 %o, [p0]; mul.wide.u32 %t, %r, 4; add.u64 %o, %o, %t;"
        "st.global.b32 [%o], %x; ret;",
        [out],
        block=(64, 1, 1),
    )
    assert out.tolist() == list(range(64))


@pytest.mark.parametrize(
    "access, lane_offset, thread, offset",
    [
        ("st.local.b32 [%p+64], 0;", 0, "(0, 0, 0)", "0x40"),
        ("ld.local.b32 %x, [%p+-4];", 0, "(0, 0, 0)", "-0x4"),
        ("ld.local.v2.b32 {%x, %x}, [%p+56];", 8, "(1, 0, 0)", "0x40"),
        ("st.b32 [%q], 0;", 16, "(4, 0, 0)", "0x40"),
    ],
)
def test_out_of_bounds_names_thread_and_offset(access, lane_offset, thread, offset):
    with pytest.raises(Fault) as caught:
        lanes(
            f"mul.lo.u64 %l, %laneof, {lane_offset}; add.u64 %p, %SPL, %l; add.u64 %q, %SP, %l; {access}",
            {"%x": 32},
            {"%laneof": (64, LANES)},
            declare=DEPOT + ".reg .b64 %p, %q, %l;",
        )
    assert caught.value.code == "local_out_of_bounds"
    assert f"offset {offset} of thread {thread}" in str(caught.value)
    assert "64 bytes of local memory" in str(caught.value)


def test_a_generic_address_says_its_space():
    found = lanes(
        "isspacep.local %a, %SP; isspacep.global %b, %SP; isspacep.shared %c, %SP; cvta.to.local.u64 %d, %SP;"
        "sub.u64 %d, %d, %SPL;",
        {"%a": 1, "%b": 1, "%c": 1, "%d": 64},
        declare=DEPOT,
    )
    assert (found["%a"][0], found["%b"][0], found["%c"][0], found["%d"][0]) == (1, 0, 0, 0)


def test_others_cannot_reach_it():
    with pytest.raises(Fault, match="not_shared"):
        lanes("atom.add.u32 %x, [%SP], 1;", {"%x": 32}, declare=DEPOT)
