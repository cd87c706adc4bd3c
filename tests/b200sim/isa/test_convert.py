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

from b200sim.faults import Unsupported

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


@pytest.mark.parametrize("direction", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("to", ["f16", "bf16", "f32", "f64"])
@pytest.mark.parametrize("source", ["u16", "s16", "u32", "s32", "u64", "s64"])
def test_integer_to_float(to, source, direction):
    form, bits = FORMS[to], int(source[1:])

    @QUICK
    @given(integers(bits))
    def check(a):
        each_way(
            f"cvt.{direction}.{to}.{source} {{d}}, {{a}};", form.bits, [(bits, a)],
            lambda x: form.encode(
                Fraction(to_signed(x, bits) if source[0] == "s" else x), direction=direction
            ),
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


SIGNALLING = [0x7FF6CDED6EE2DDAA, 0xFFF0000000000001, 0x7FF0040000000000]  # f64: NaNs that are not quiet
FORMS = {"f16": xf.F16, "bf16": xf.BF16, "f32": xf.F32, "f64": xf.F64}
PAIRS = [("f16", "f32"), ("bf16", "f32"), ("f32", "f16"), ("f32", "bf16"), ("f64", "f32"), ("f32", "f64"),
         ("f16", "f64"), ("f64", "f16"), ("bf16", "f16")]  # fmt: skip


@pytest.mark.parametrize("direction", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize(
    ("to", "source"), [("f16", "f32"), ("bf16", "f32"), ("f32", "f64"), ("f16", "f64"), ("bf16", "f64")]
)
def test_narrowing_in_a_direction(to, source, direction):
    form, origin = FORMS[to], FORMS[source]

    def oracle(x):
        return form.encode(origin.decode(x), bool(origin.sign(x)), direction=direction)

    @QUICK
    @given(column(origin))
    def check(a):
        a = [0 if origin.decode(x) == "nan" else x for x in a]  # test_between_floats has them
        for i in range(0, 16, 2):  # neighbours of numbers of the format, and middles between two
            low = (i * 1237 + a[i]) % form.largest
            middle = origin.encode((form.decode(low) + form.decode(low + 1)) / 2)
            a[i] = middle + i % 3 - 1 | (i % 4 == 0) << origin.bits - 1
        each_way(f"cvt.{direction}.{to}.{source} {{d}}, {{a}};", form.bits, [(origin.bits, a)], oracle)

    check()


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
        if value == "nan" and (to, source) == ("f16", "f64"):
            return x >> 63 << 15 | 0x7E00 | x >> 42 & 0x1FF
        return form.encode(value, bool(origin.sign(x)))

    @QUICK
    @given(column(origin))
    def check(a):
        if to == "f64":
            a = [0 if origin.decode(x) == "nan" else x for x in a]  # f64 keeps a payload that PTX leaves open
        if source == "f64":
            a[:3] = SIGNALLING
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
@pytest.mark.parametrize("direction", ["rn", "rz"])
@pytest.mark.parametrize("to", NARROW)
def test_narrow_pairs(to, direction, saturate, relu):
    form, width = NARROW[to]
    if width < 16 and (not saturate or direction == "rz"):
        pytest.skip("the small formats always saturate, and round to nearest")
    out = max(2 * width, 8)

    def single(x):
        value = xf.F32.decode(x)
        if relu and (value == "-inf" or (not isinstance(value, str) and value <= 0)):
            return 0
        return form.encode(value, bool(x >> 31), bool(saturate), direction)

    @settings(max_examples=20, deadline=None)
    @given(column(xf.F32), column(xf.F32))
    def check(a, b):
        # Midpoints between neighbours of the format, where ties go to even.
        for i in range(0, 16, 2):
            low = (i * 37 + a[0]) % form.largest
            a[i] = xf.F32.encode((form.decode(low) + form.decode(low + 1)) / 2)
        each_way(
            f"cvt.{direction}{saturate}{relu}.{to}.f32 {{d}}, {{a}}, {{b}};", out, [(32, a), (32, b)],
            lambda x, y: single(x) << width | single(y),
        )  # fmt: skip

    check()


@pytest.mark.parametrize("relu", ["", ".relu"])
@pytest.mark.parametrize("source", ["f16x2", "bf16x2"])
@pytest.mark.parametrize("to", ["e4m3x2", "e5m2x2", "e2m1x2", "e2m3x2", "e3m2x2"])
def test_narrow_pairs_of_halves(to, source, relu):
    (form, width), origin = NARROW[to], {"f16x2": xf.F16, "bf16x2": xf.BF16}[source]

    def single(x):
        value = origin.decode(x)
        if relu and (value == "-inf" or (not isinstance(value, str) and value <= 0)):
            return 0
        return form.encode(value, bool(x >> 15), True)

    @QUICK
    @given(column(origin), column(origin))
    def check(a, b):
        pairs = [x << 16 | y for x, y in zip(a, b, strict=True)]
        each_way(
            f"cvt.rn.satfinite{relu}.{to}.{source} {{d}}, {{a}};", max(2 * width, 8), [(32, pairs)],
            lambda x: single(x >> 16) << width | single(x & 0xFFFF),
        )  # fmt: skip

    check()


@pytest.mark.parametrize("saturate", ["", ".satfinite"])
@pytest.mark.parametrize("direction", ["rz", "rp"])
def test_scales_of_powers_of_two(direction, saturate):
    """ue8m0 of |x|: the power of two at or below it, or at or above it, from 2^-127 on."""

    def single(form, x):
        value = form.decode(x)
        if value == "nan":
            return 255
        if isinstance(value, str):
            return 254 if saturate else 255
        value = abs(value)
        code = next((c for c in range(255) if Fraction(2) ** (c - 127) >= value), 255)
        if direction == "rz" and (code == 255 or Fraction(2) ** (code - 127) > value):
            code = max(code - 1, 0)
        return min(code, 254) if saturate else code

    @settings(max_examples=4, deadline=None)
    @given(column(xf.F32), column(xf.F32), column(xf.BF16), column(xf.BF16))
    def check(a, b, c, d):
        a[:4] = [0x00400000, 0x00400001, 0x7F000000, 0x7F000001]
        each_way(
            f"cvt.{direction}{saturate}.ue8m0x2.f32 {{d}}, {{a}}, {{b}};", 16, [(32, a), (32, b)],
            lambda x, y: single(xf.F32, x) << 8 | single(xf.F32, y),
        )  # fmt: skip
        pairs = [x << 16 | y for x, y in zip(c, d, strict=True)]
        each_way(
            f"cvt.{direction}{saturate}.ue8m0x2.bf16x2 {{d}}, {{a}};", 16, [(32, pairs)],
            lambda x: single(xf.BF16, x >> 16) << 8 | single(xf.BF16, x & 0xFFFF),
        )  # fmt: skip

    check()


def test_scales_back_to_numbers():
    def single(code):
        return xf.BF16.nan if code == 255 else xf.BF16.encode(Fraction(2) ** (code - 127))

    for start in range(0, 256, 32):
        a = [(start + i) | (255 - start - i) << 8 for i in range(32)]
        each_way(
            "cvt.rn.bf16x2.ue8m0x2 {d}, {a};", 32, [(16, a)],
            lambda x: single(x >> 8) << 16 | single(x & 0xFF),
        )  # fmt: skip


TF32 = xf.Format(8, 10, True, 0, 0x3FBFF)


@pytest.mark.parametrize("words", ["rn", "rz", "rn.relu", "rna", "rna.satfinite", "rz.relu.satfinite"])
def test_tf32(words):
    def oracle(x):
        value = xf.F32.decode(x)
        if value == "nan":  # as on an H200 (tests/silicon)
            return x >> 13 << 13 if "rna" in words else 0x7FFFE000
        if "relu" in words and x >> 31:
            return 0
        if words.startswith("rna") and not isinstance(value, str):
            code = TF32.encode(abs(value), direction="rz")
            middle = (TF32.decode(code) + TF32.decode(code + 1)) / 2 if code < TF32.largest else None
            step = Fraction(2) ** 117  # from the largest number up to what would come next
            if middle is None:
                middle = TF32.decode(code) + step / 2
            code += abs(value) >= middle
            if code > TF32.largest and "satfinite" in words:
                code = TF32.largest
            return code << 13 | x >> 31 << 31
        return TF32.encode(value, bool(x >> 31), "satfinite" in words, words[:2]) << 13

    @QUICK
    @given(column(xf.F32))
    def check(a):
        a[:6] = [0x3F801000, 0x3F803000, 0xBF801000, 0x7F7FF000, 0x7F7FEFFF, 0x7F7FFFFF]
        each_way(f"cvt.{words}.tf32.f32 {{d}}, {{a}};", 32, [(32, a)], oracle)

    check()


@pytest.mark.parametrize(("to", "source"), [("u8", "s32"), ("s8", "s32"), ("s16", "u32"), ("u32", "s64"),
                                            ("s32", "u64"), ("u64", "s64"), ("u16", "s16")])  # fmt: skip
def test_saturation_between_integers(to, source):
    to_bits, from_bits = int(to[1:]), int(source[1:])
    low, high = (0, 2**to_bits - 1) if to[0] == "u" else (-(2 ** (to_bits - 1)), 2 ** (to_bits - 1) - 1)

    @QUICK
    @given(integers(from_bits))
    def check(a):
        def oracle(x):
            number = to_signed(x, from_bits) if source[0] == "s" else x
            return min(max(number, low), high) % (1 << register(to_bits))

        each_way(f"cvt.sat.{to}.{source} {{d}}, {{a}};", register(to_bits), [(from_bits, a)], oracle)

    check()


@pytest.mark.parametrize("kind", ["u16", "s16", "u8", "s8", "u4", "s4", "u2", "s2"])
def test_clamped_integers_packed_together(kind):
    bits = int(kind[1:])
    low, high = (0, 2**bits - 1) if kind[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)

    def clamp(x):
        return min(max(to_signed(x, 32), low), high) % (1 << bits)

    @QUICK
    @given(integers(32), integers(32), integers(32))
    def check(a, b, c):
        small = [to_signed(x, 32) // 2**26 % 2**32 for x in a]
        if bits == 16:
            each_way(
                f"cvt.pack.sat.{kind}.s32 {{d}}, {{a}}, {{b}};", 32, [(32, a), (32, b)],
                lambda x, y: clamp(x) << 16 | clamp(y),
            )  # fmt: skip
        else:
            each_way(
                f"cvt.pack.sat.{kind}.s32.b32 {{d}}, {{a}}, {{b}}, {{c}};", 32,
                [(32, small), (32, b), (32, c)],
                lambda x, y, z: (z << 2 * bits | clamp(x) << bits | clamp(y)) % 2**32,
            )  # fmt: skip

    check()


@pytest.mark.parametrize(
    "text",
    [
        "cvt.rs.f16x2.f32 %d, %d, %d, %d",
        "cvt.rz.satfinite.e4m3x2.f32 %h, %d, %d",
        "cvt.rn.ue8m0x2.f32 %h, %d, %d",
        "cvt.rn.e4m3.f32 %h, %d",
        "cvt.rn.relu.f32.f64 %d, %q",
        "cvt.rn.satfinite.s2f6x2.f32 %h, %d, %d",
    ],
)
def test_other_conversions_are_refused(text):
    with pytest.raises(Unsupported):
        lanes(text + ";", {"%d": 32, "%h": 16, "%q": 64})


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
