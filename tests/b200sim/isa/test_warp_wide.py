"""Instructions in which lanes talk to each other, against the pseudo-code of the PTX manual."""

from __future__ import annotations

import random
import struct

import pytest
from ptx_harness import FULL, OLD, lanes, to_signed

from b200sim.faults import Fault

RNG = random.Random(3)
MASKS = [FULL, 0x0F0F0001, 0x00000400]


def bits(mask: int) -> list[int]:
    return [mask >> i & 1 for i in range(32)]


def in_branch(snippet: str, mask: int) -> str:
    """The snippet run by the lanes of `mask` only, which are the lanes that hold %active."""
    return f"@!%active bra SKIP;\n{snippet.replace('MEMBERS', hex(mask))}\nSKIP:"


def shuffled(mode: str, values: list[int], lane: int, b: int, c: int) -> tuple[int, bool]:
    """PTX ISA 9.7.9.6."""
    segment, clamp = c >> 8 & 31, c & 31
    maximum = lane & segment | clamp & ~segment
    minimum = lane & segment
    b &= 31
    if mode == "up":
        j, valid = lane - b, lane - b >= maximum
    elif mode == "down":
        j, valid = lane + b, lane + b <= maximum
    elif mode == "bfly":
        j, valid = lane ^ b, lane ^ b <= maximum
    else:
        j = minimum | b & ~segment
        valid = j <= maximum
    return values[j if valid else lane], valid


@pytest.mark.parametrize("mode", ["idx", "up", "down", "bfly"])
@pytest.mark.parametrize("width", [32, 16, 8, 4])
def test_shuffle(mode, width):
    values = [RNG.getrandbits(32) for _ in range(32)]
    segment = (32 - width) << 8
    for clamp in (31, 0, width // 2):
        for by in (0, 1, 3, 7, 31, 33, [RNG.randrange(32) for _ in range(32)]):
            if mode == "up" and clamp:
                continue  # c is 0 for up
            c = segment | clamp
            column = by if isinstance(by, list) else [by] * 32
            inputs = {"%a": (32, values), "%b": (32, by)}
            found = lanes(f"shfl.sync.{mode}.b32 %d|%p, %a, %b, {c}, -1;", {"%d": 32, "%p": 1}, inputs)
            for lane in range(32):
                value, valid = shuffled(mode, values, lane, column[lane], c)
                assert (found["%d"][lane], found["%p"][lane]) == (value, valid), (mode, clamp, by, lane)


@pytest.mark.parametrize("mask", MASKS)
def test_shuffle_among_some_lanes(mask):
    values = [RNG.getrandbits(32) for _ in range(32)]
    source = (mask & -mask).bit_length() - 1
    found = lanes(
        in_branch(f"shfl.sync.idx.b32 %d, %a, {source}, 31, MEMBERS;", mask), {"%d": 32},
        {"%a": (32, values), "%active": (1, bits(mask))},
    )  # fmt: skip
    assert found["%d"] == [values[source] if mask >> i & 1 else OLD[32] for i in range(32)]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("flip", ["", "!"])
def test_votes(mask, flip):
    for predicate in (0, FULL, mask, mask & 0x00FF00FF, RNG.getrandbits(32)):
        yes = (predicate ^ (FULL if flip else 0)) & mask
        found = lanes(
            in_branch(
                f"""vote.sync.ballot.b32 %d, {flip}%p, MEMBERS; vote.sync.any.pred %any, {flip}%p, MEMBERS;
                vote.sync.all.pred %all, {flip}%p, MEMBERS; vote.sync.uni.pred %uni, {flip}%p, MEMBERS;
                activemask.b32 %m;""", mask),
            {"%d": 32, "%any": 1, "%all": 1, "%uni": 1, "%m": 32},
            {"%p": (1, bits(predicate)), "%active": (1, bits(mask))},
        )  # fmt: skip
        for lane in range(32):
            on = mask >> lane & 1
            assert found["%d"][lane] == (yes if on else OLD[32])
            assert found["%m"][lane] == (mask if on else OLD[32])
            assert found["%any"][lane] == (on and yes != 0)
            assert found["%all"][lane] == (on and yes == mask)
            assert found["%uni"][lane] == (on and yes in (0, mask))


REDUCE = {
    "add.s32": sum, "add.u32": sum, "min.u32": min, "max.u32": max,
    "min.s32": lambda v: min(v, key=lambda x: to_signed(x, 32)),
    "max.s32": lambda v: max(v, key=lambda x: to_signed(x, 32)),
}  # fmt: skip


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", [*REDUCE, "and.b32", "or.b32", "xor.b32"])
@pytest.mark.parametrize("uniform", [False, True])
def test_reductions(mask, name, uniform):
    values = [RNG.choice([RNG.getrandbits(32), FULL - RNG.randrange(9), RNG.randrange(9)]) for _ in range(32)]
    if uniform:
        values = [values[0]] * 32
    chosen = [v for i, v in enumerate(values) if mask >> i & 1]
    if name in REDUCE:
        expected = REDUCE[name](chosen) % 2**32
    else:
        expected = chosen[0]
        for v in chosen[1:]:
            expected = {"and": expected & v, "or": expected | v, "xor": expected ^ v}[name[:-4]]
    found = lanes(
        in_branch(f"redux.sync.{name} %d, %a, MEMBERS;", mask), {"%d": 32},
        {"%a": (32, values[0] if uniform else values), "%active": (1, bits(mask))},
    )  # fmt: skip
    assert found["%d"] == [expected if mask >> i & 1 else OLD[32] for i in range(32)]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("width", [32, 64])
def test_match(mask, width):
    values = [RNG.choice([1, 2, 1 << width - 1]) for _ in range(32)]
    for row in (values, [9] * 32):
        found = lanes(
            in_branch(
                f"match.any.sync.b{width} %d, %a, MEMBERS; "
                f"match.all.sync.b{width} %e|%p, %a, MEMBERS;", mask),
            {"%d": 32, "%e": 32, "%p": 1}, {"%a": (width, row), "%active": (1, bits(mask))},
        )  # fmt: skip
        same = len({v for i, v in enumerate(row) if mask >> i & 1}) == 1
        for lane in range(32):
            if mask >> lane & 1:
                group = sum(1 << i for i in range(32) if mask >> i & 1 and row[i] == row[lane])
                assert found["%d"][lane] == group
                assert (found["%e"][lane], found["%p"][lane]) == ((mask, 1) if same else (0, 0))
            else:
                assert found["%d"][lane] == OLD[32]


@pytest.mark.parametrize("mask", MASKS)
def test_elect_takes_one_lane_and_always_the_same(mask):
    found = lanes(
        in_branch("elect.sync %d|%p, MEMBERS; elect.sync _|%q, MEMBERS; bar.warp.sync MEMBERS;", mask),
        {"%d": 32, "%p": 1, "%q": 1}, {"%active": (1, bits(mask))},
    )  # fmt: skip
    leader = (mask & -mask).bit_length() - 1
    assert found["%p"] == found["%q"] == bits(mask & -mask)
    assert found["%d"] == [leader if mask >> i & 1 else OLD[32] for i in range(32)]


def test_lanes_that_run_elsewhere_are_waited_for():
    """The block that all lanes must reach comes first in the text;
    half of them come back to it from below."""
    found = lanes(
        """mov.b32 %x, %lane; @%odd bra LATER;
        MEET: shfl.sync.bfly.b32 %d, %x, 1, 31, -1; bra END;
        LATER: add.s32 %x, %x, 100; bra MEET;
        END: bar.warp.sync -1;""",
        {"%d": 32}, {"%odd": (1, [0, 1] * 16)}, declare=".reg .b32 %x;",
    )  # fmt: skip
    assert found["%d"] == [(i ^ 1) + (100 if (i ^ 1) & 1 else 0) for i in range(32)]


@pytest.mark.parametrize(
    ("code", "snippet"),
    [
        ("member_mask", "shfl.sync.idx.b32 %d, %a, 0, 31, 0x0000FFFF;"),
        ("divergent_sync", "@%p exit_other; @%p vote.sync.ballot.b32 %d, %p, -1;"),
        ("divergent_sync", "@!%p bra L; bar.warp.sync -1; L: @%p bra M; vote.sync.all.pred %p, %p, -1; M:"),
        ("shfl_inactive", "@!%p bra L; shfl.sync.idx.b32 %d, %a, 31, 31, 0xFFFF; L:"),
    ],
)
def test_lanes_that_cannot_take_part(code, snippet):
    snippet = snippet.replace("@%p exit_other; ", "")
    with pytest.raises(Fault) as caught:
        lanes(snippet, {"%d": 32}, {"%a": (32, list(range(32))), "%p": (1, bits(0xFFFF))})
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["min", "max"])
@pytest.mark.parametrize("words", ["", ".abs", ".NaN", ".abs.NaN"])
def test_extremes_of_floats(name, words):
    def number(code: int) -> float:
        return struct.unpack("<f", struct.pack("<I", code))[0]

    def key(code: int) -> tuple[float, int]:
        return number(code), -(code >> 31)  # -0 is smaller than +0

    rng = random.Random(name + words)
    for mask in MASKS:
        for pool in ([0, 1 << 31, 0x3F800000, 0xBF800000], None, [0x7FC12345, 0xFFC00000]):
            codes = [rng.choice(pool) if pool else rng.getrandbits(32) for _ in range(32)]
            if pool is None and rng.random() < 0.5:
                codes[mask.bit_length() - 1] = 0xFFFFFFFF
            mine = [code for code, active in zip(codes, bits(mask), strict=True) if active]
            part = [code & (0x7FFFFFFF if ".abs" in words else FULL) for code in mine]
            numbers = [code for code in part if number(code) == number(code)]
            if not numbers or (".NaN" in words and len(numbers) < len(part)):
                want = 0x7FFFFFFF
            else:
                want = (min if name == "min" else max)(numbers, key=key)
            found = lanes(
                in_branch(f"redux.sync.{name}{words}.f32 %d, %a, MEMBERS;", mask),
                {"%d": 32},
                {"%a": (32, codes), "%active": (1, bits(mask))},
            )["%d"]
            assert found == [want if active else OLD[32] for active in bits(mask)]
