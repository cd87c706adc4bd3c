"""cvt, mov and packing against Python integers and exact fractions."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import exact_floats as xf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ptx_harness import each_way, lanes, to_signed
from test_floating import column

QUICK = settings(max_examples=8, deadline=None)
WIDTHS = (8, 16, 32, 64)


def register(bits: int) -> int:
    return max(bits, 16)


def integers(bits: int) -> st.SearchStrategy[list[int]]:
    def row(seed):
        rng = random.Random(seed)
        top = 1 << bits
        special = [0, 1, top - 1, top // 2, top // 2 - 1]
        return [
            rng.choice([*special, rng.randrange(top), rng.randrange(top) >> bits // 2]) for _ in range(32)
        ]

    return st.integers(0, 2**32).map(row)


@pytest.mark.parametrize("source", [f"{s}{b}" for s in "us" for b in WIDTHS])
@pytest.mark.parametrize("to", [f"{s}{b}" for s in "us" for b in WIDTHS])
def test_between_integers(to, source):
    to_bits, from_bits = int(to[1:]), int(source[1:])

    @settings(max_examples=2, deadline=None)
    @given(integers(register(from_bits)))
    def check(a):
        def oracle(x, wide):
            x %= 1 << from_bits
            x = to_signed(x, from_bits) if source[0] == "s" else x
            x %= 1 << to_bits
            return (to_signed(x, to_bits) if to[0] == "s" else x) % (1 << wide)

        for wide in sorted({register(to_bits), max(32, to_bits)}):
            each_way(
                f"cvt.{to}.{source} {{d}}, {{a}};", wide, [(register(from_bits), a)],
                lambda x, wide=wide: oracle(x, wide),
            )  # fmt: skip

    check()


@pytest.mark.parametrize("to", ["f16", "f32", "f64"])
@pytest.mark.parametrize("source", ["u16", "s16", "u32", "s32", "u64", "s64"])
def test_integer_to_float(to, source):
    if to == "f16" and source[1:] == "64":
        pytest.skip("refused as unsupported")
    form, bits = {"f16": xf.F16, "f32": xf.F32, "f64": xf.F64}[to], int(source[1:])

    @QUICK
    @given(integers(bits))
    def check(a):
        each_way(
            f"cvt.rn.{to}.{source} {{d}}, {{a}};", form.bits, [(bits, a)],
            lambda x: form.encode(Fraction(to_signed(x, bits) if source[0] == "s" else x)),
        )  # fmt: skip

    check()


ROUNDING = {"rni": lambda v: Fraction(round(v)), "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}


@pytest.mark.parametrize("mode", ROUNDING)
@pytest.mark.parametrize("to", ["u16", "s16", "u32", "s32", "u64", "s64", "s8"])
def test_float_to_integer(mode, to):
    bits = int(to[1:])
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if to[0] == "s" else (0, 2**bits - 1)

    def oracle(x):
        value = xf.F32.decode(x)
        if value == "nan":
            return 2**63 if bits == 64 else 0
        if isinstance(value, str):
            return (high if value == "inf" else low) % 2 ** register(bits)
        return min(max(int(ROUNDING[mode](value)), low), high) % 2 ** register(bits)

    @settings(max_examples=4, deadline=None)
    @given(column(xf.F32))
    def check(a):
        a[:6] = [xf.F32.encode(Fraction(v)) for v in (2.5, -2.5, 0.5, -1.5, 1e9, -3e9)]
        each_way(f"cvt.{mode}.{to}.f32 {{d}}, {{a}};", register(bits), [(32, a)], oracle)

    check()


FORMS = {"f16": xf.F16, "bf16": xf.BF16, "f32": xf.F32, "f64": xf.F64}
PAIRS = [("f16", "f32"), ("bf16", "f32"), ("f32", "f16"), ("f32", "bf16"), ("f64", "f32"), ("f32", "f64"),
         ("f16", "f64"), ("f64", "f16"), ("bf16", "f16")]  # fmt: skip


@pytest.mark.parametrize(("to", "source"), PAIRS)
def test_between_floats(to, source):
    form, origin = FORMS[to], FORMS[source]
    rounding = ".rn" if form.bits < origin.bits or to == "bf16" else ""

    def oracle(x):
        value = origin.decode(x)
        if value == "nan" and (to, source) == ("f32", "bf16"):  # sign and payload stay, as on an H200
            return x << 16
        if value == "nan" and (to, source) == ("f32", "f64"):
            return x >> 63 << 31 | 0x7FC00000 | x >> 29 & 0x3FFFFF
        return form.encode(value, bool(origin.sign(x)))

    @QUICK
    @given(column(origin))
    def check(a):
        if to == "f64":
            a = [0 if origin.decode(x) == "nan" else x for x in a]  # f64 keeps a payload that PTX leaves open
        each_way(f"cvt{rounding}.{to}.{source} {{d}}, {{a}};", form.bits, [(origin.bits, a)], oracle)

    check()


@QUICK
@given(column(xf.F32))
def test_rounding_to_integer_within_a_format_and_flushing(a):
    def rounded(x, mode):
        value = xf.F32.decode(x)
        if isinstance(value, str):
            return xf.F32.encode(value)
        return xf.F32.encode(Fraction(ROUNDING[mode](value)), bool(x >> 31))

    for mode in ROUNDING:
        each_way(f"cvt.{mode}.f32.f32 {{d}}, {{a}};", 32, [(32, a)], lambda x, mode=mode: rounded(x, mode))
    each_way(
        "cvt.rn.ftz.f16.f32 {d}, {a};", 16, [(32, a)],
        lambda x: xf.F16.encode(xf.F32.decode(xf.flushed(xf.F32, x)), bool(x >> 31)),
    )  # fmt: skip

    def saturated(x):
        value = xf.F32.decode(x)
        if value == "nan" or value == "-inf" or (value != "inf" and value <= 0):
            return 0
        return xf.F32.encode(Fraction(1) if value == "inf" else min(value, Fraction(1)))

    each_way("cvt.sat.f32.f32 {d}, {a};", 32, [(32, a)], saturated)


NARROW = {
    "f16x2": (xf.F16, 16), "bf16x2": (xf.BF16, 16), "e4m3x2": (xf.E4M3, 8), "e5m2x2": (xf.E5M2, 8),
    "e2m1x2": (xf.E2M1, 4), "e2m3x2": (xf.E2M3, 8), "e3m2x2": (xf.E3M2, 8),
}  # fmt: skip


@pytest.mark.parametrize("relu", ["", ".relu"])
@pytest.mark.parametrize("saturate", ["", ".satfinite"])
@pytest.mark.parametrize("to", NARROW)
def test_narrow_pairs(to, saturate, relu):
    form, width = NARROW[to]
    if width < 16 and not saturate:
        pytest.skip("the small formats always saturate")
    out = max(2 * width, 8)

    def single(x):
        value = xf.F32.decode(x)
        if relu and (value == "-inf" or (not isinstance(value, str) and value <= 0)):
            return 0
        return form.encode(value, bool(x >> 31), bool(saturate))

    @settings(max_examples=20, deadline=None)
    @given(column(xf.F32), column(xf.F32))
    def check(a, b):
        # Midpoints between neighbours of the format, where ties go to even.
        for i in range(0, 16, 2):
            low = (i * 37 + a[0]) % form.largest
            a[i] = xf.F32.encode((form.decode(low) + form.decode(low + 1)) / 2)
        each_way(
            f"cvt.rn{saturate}{relu}.{to}.f32 {{d}}, {{a}}, {{b}};", out, [(32, a), (32, b)],
            lambda x, y: single(x) << width | single(y),
        )  # fmt: skip

    check()


@pytest.mark.parametrize("source", ["e4m3x2", "e5m2x2", "e2m1x2"])
def test_widen_pairs_all_codes(source):
    form = {"e4m3x2": xf.E4M3, "e5m2x2": xf.E5M2_IEEE, "e2m1x2": xf.E2M1}[source]
    width = form.bits
    for start in range(0, 1 << width, 32):
        a = [(start + i) % (1 << width) | ((start + 7 * i) % (1 << width)) << width for i in range(32)]

        def single(code):
            return xf.F16.encode(form.decode(code), bool(form.sign(code)))

        each_way(
            f"cvt.rn.f16x2.{source} {{d}}, {{a}};", 32, [(2 * width, a)],
            lambda x: single(x >> width) << 16 | single(x % (1 << width)),
        )  # fmt: skip


@QUICK
@given(integers(64), integers(32), integers(32))
def test_pack_and_unpack(a, low, high):
    each_way("mov.b64 {{{d0}, {d1}}}, {a};", [32, 32], [(64, a)], lambda x: (x % 2**32, x >> 32))
    each_way("mov.b64 {d}, {{{a}, {b}}};", 64, [(32, low), (32, high)], lambda x, y: x | y << 32)
    each_way("mov.b32 {{{d0}, {d1}}}, {a};", [16, 16], [(32, low)], lambda x: (x % 2**16, x >> 16))
    each_way("mov.b32 {{_, {d}}}, {a};", 16, [(32, low)], lambda x: x >> 16)
    four = [(16, [x >> s & 0xFFFF for x in a]) for s in (0, 16, 32, 48)]
    each_way(
        "mov.b64 {d}, {{{a}, {b}, {c}, {e}}};", 64, four, lambda w, x, y, z: w | x << 16 | y << 32 | z << 48,
        uniform=[(), (0,), (1, 2, 3), (0, 1, 2, 3)],
    )  # fmt: skip
    bytes_of = [(8, [x >> s & 0xFF for x in low]) for s in (0, 8, 16, 24)]
    each_way(
        "mov.b32 {d}, {{{a}, {b}, {c}, {e}}};", 32, bytes_of,
        lambda w, x, y, z: w | x << 8 | y << 16 | z << 24,
        uniform=[(), (0,), (0, 1, 2, 3)],
    )  # fmt: skip
    each_way("mov.b32 {d}, {a};", 32, [(32, low)], lambda x: x)


@pytest.mark.parametrize("uniform", [False, True])
def test_128_bit_registers(uniform):
    wide = [(i * 0x1234567_89ABCDEF_02468ACE_13579BDF) % 2**128 for i in range(1, 33)]
    value = wide[5] if uniform else wide
    found = lanes(
        "mov.b128 {%lo, %hi}, %w; mov.b128 %x, {%hi, %lo}; setp.lt.u32 %p, %lane, 7; "
        "@%p mov.b128 %x, {%lo, %lo};",
        {"%lo": 64, "%hi": 64, "%x": 128}, {"%w": (128, value)}, declare=".reg .pred %p;",
    )  # fmt: skip
    for i in range(32):
        w = wide[5] if uniform else wide[i]
        lo, hi = w % 2**64, w >> 64
        assert (found["%lo"][i], found["%hi"][i]) == (lo, hi)
        assert found["%x"][i] == (lo | lo << 64 if i < 7 else hi | lo << 64)
