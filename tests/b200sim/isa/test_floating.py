"""Floating-point instructions against exact fractions rounded once."""

from __future__ import annotations

import random
from fractions import Fraction

import exact_floats as xf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ptx_harness import FULL, each_way, lanes

from b200sim.faults import Unsupported

QUICK = settings(max_examples=8, deadline=None)


def patterns(form: xf.Format, seed: int) -> list[int]:
    """32 patterns: special values, neighbours of powers of two, subnormals, anything;
    all close enough to interact."""
    rng = random.Random(seed)
    sign = 1 << form.bits - 1
    special = [0, 1, form.largest, form.largest + 1, form.nan, 1 << form.mantissa, (1 << form.mantissa) - 1]
    one = form.bias << form.mantissa
    rows = []
    for _ in range(32):
        pick = rng.random()
        if pick < 0.25:
            code = rng.choice(special)
        elif pick < 0.7:
            code = (
                one + (rng.randrange(-14, 14) << form.mantissa) + rng.choice([-2, -1, 0, 1, 2, 12345 % sign])
            )
        else:
            code = rng.randrange(sign)
        rows.append(code % sign | (sign if rng.random() < 0.5 else 0))
    return rows


def column(form: xf.Format) -> st.SearchStrategy[list[int]]:
    return st.integers(0, 2**32).map(lambda seed: patterns(form, seed))


def one(form: xf.Format) -> int:
    return form.bias << form.mantissa


def oracle_of(name: str, form: xf.Format, ftz: bool):
    sign = 1 << form.bits - 1
    minus_zero = sign
    if name == "add":
        return lambda a, b: xf.fused(form, a, one(form), b, ftz)
    if name == "sub":
        return lambda a, b: xf.fused(form, a, one(form), b ^ sign, ftz)
    if name == "mul":
        return lambda a, b: xf.fused(form, a, b, minus_zero if (a ^ b) & sign else 0, ftz)
    return lambda a, b, c: xf.fused(form, a, b, c, ftz)


@pytest.mark.parametrize("kind", ["f16", "f32", "f32.ftz"])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "fma"])
def test_one_rounding(name, kind):
    form, ftz = (xf.F16 if kind == "f16" else xf.F32), kind.endswith("ftz")
    modifiers = "rn.ftz.f32" if ftz else f"rn.{kind}"
    bits = form.bits
    oracle = oracle_of(name, form, ftz)

    @QUICK
    @given(column(form), column(form), column(form))
    def check(a, b, c):
        operands = [(bits, a), (bits, b), (bits, c)][: 3 if name == "fma" else 2]
        places = ", ".join(["{d}", "{a}", "{b}", "{c}"][: len(operands) + 1])
        each_way(f"{name}.{modifiers} {places};", bits, operands, oracle)

    check()


def directed(name: str, form: xf.Format, direction: str):
    sign = 1 << form.bits - 1
    if name == "add":
        return lambda a, b: xf.fused(form, a, one(form), b, direction=direction)
    if name == "sub":
        return lambda a, b: xf.fused(form, a, one(form), b ^ sign, direction=direction)
    if name == "mul":  # an addend that is a zero of the product's sign
        return lambda a, b: xf.fused(form, a, b, (a ^ b) & sign, direction=direction)
    return lambda a, b, c: xf.fused(form, a, b, c, direction=direction)


@pytest.mark.parametrize("direction", ["rz", "rm", "rp"])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "fma"])
def test_directed_rounding_of_fp32(name, direction):
    oracle = directed(name, xf.F32, direction)

    @QUICK
    @given(column(xf.F32), column(xf.F32), column(xf.F32))
    def check(a, b, c):
        operands = [(32, a), (32, b), (32, c)][: 3 if name == "fma" else 2]
        places = ", ".join(["{d}", "{a}", "{b}", "{c}"][: len(operands) + 1])
        each_way(f"{name}.{direction}.f32 {places};", 32, operands, oracle)

    check()


def same_fp64(found: int, wanted: int) -> bool:
    """fp64 keeps the payload of a NaN, which the oracle does not follow."""
    return found == wanted or (xf.F64.decode(found) == "nan" and xf.F64.decode(wanted) == "nan")


@pytest.mark.parametrize("direction", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "fma"])
def test_rounding_of_fp64(name, direction):
    oracle = directed(name, xf.F64, direction)

    @QUICK
    @given(column(xf.F64), column(xf.F64), column(xf.F64))
    def check(a, b, c):
        inputs = {"%a": (64, a), "%b": (64, b), "%c": (64, c)}
        rows = (a, b, c) if name == "fma" else (a, b)
        places = ", ".join(["%d", "%a", "%b", "%c"][: len(rows) + 1])
        found = lanes(f"{name}.{direction}.f64 {places};", {"%d": 64}, inputs)["%d"]
        for got, row in zip(found, zip(*rows, strict=True), strict=True):
            assert same_fp64(got, oracle(*row)), (hex(got), [hex(x) for x in row], hex(oracle(*row)))
        one_for_all = {name: (64, values[0]) for name, (_, values) in inputs.items()}
        got = lanes(f"{name}.{direction}.f64 {places};", {"%d": 64}, one_for_all)["%d"][0]
        assert same_fp64(got, oracle(*(row[0] for row in rows)))

    check()


@pytest.mark.parametrize("name", ["add", "sub", "mul", "fma", "fma.relu"])
def test_one_rounding_to_bf16(name):
    opcode, _, relu = name.partition(".")
    exact = directed(opcode, xf.BF16, "rn")

    def oracle(*row):
        result = exact(*row)
        return 0 if relu and xf.BF16.decode(result) != "nan" and result >> 15 else result

    @QUICK
    @given(st.lists(column(xf.BF16), min_size=6, max_size=6))
    def check(columns):
        count = 3 if opcode == "fma" else 2
        places = ", ".join(["{d}", "{a}", "{b}", "{c}"][: count + 1])
        suffix = ".rn" + (".relu" if relu else "")
        each_way(f"{opcode}{suffix}.bf16 {places};", 16, [(16, x) for x in columns[:count]], oracle)
        pairs = [
            [x | y << 16 for x, y in zip(p, q, strict=True)]
            for p, q in zip(columns[:count], columns[3 : 3 + count], strict=True)
        ]

        def both(*row):
            low, high = (oracle(*(x >> shift & 0xFFFF for x in row)) for shift in (0, 16))
            return low | high << 16

        each_way(f"{opcode}{suffix}.bf16x2 {places};", 32, [(32, x) for x in pairs], both)

    check()


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("opcode", ["neg", "abs"])
def test_signs_of_16_bits(opcode, kind):
    form = xf.F16 if kind == "f16" else xf.BF16

    def oracle(x):  # one NaN comes out, as an H200 has it (tests/silicon)
        return form.nan if form.decode(x) == "nan" else x ^ 0x8000 if opcode == "neg" else x & 0x7FFF

    @QUICK
    @given(column(form))
    def check(a):
        each_way(f"{opcode}.{kind} {{d}}, {{a}};", 16, [(16, a)], oracle)
        pairs = [x | y << 16 for x, y in zip(a, reversed(a), strict=True)]
        each_way(
            f"{opcode}.{kind}x2 {{d}}, {{a}};", 32, [(32, pairs)],
            lambda x: oracle(x & 0xFFFF) | oracle(x >> 16) << 16,
        )  # fmt: skip

    check()


def extreme(form: xf.Format, row, largest: bool, nan_wins=False, magnitudes=False, xorsign=False) -> int:
    sign = 1 << form.bits - 1
    codes = [x & ~sign if magnitudes else x for x in row]
    numbers = [x for x in codes if form.decode(x) != "nan"]
    if not numbers or (nan_wins and len(numbers) < len(codes)):
        return form.nan
    infinite = {"inf": Fraction(2) ** 2000, "-inf": -(Fraction(2) ** 2000)}
    values = [form.decode(x) for x in numbers]
    keys = [(infinite.get(v, v), 0 if x & sign else 1, x) for v, x in zip(values, numbers, strict=True)]  # type: ignore[arg-type]
    best = (max if largest else min)(keys)[2]
    if xorsign and sum(x >> form.bits - 1 for x in row) % 2:
        best ^= sign
    return best


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("words", ["", ".NaN", ".xorsign.abs", ".NaN.xorsign.abs"])
@pytest.mark.parametrize("name", ["min", "max"])
def test_extremes(name, words, kind):
    form = {"f32": xf.F32, "f16": xf.F16, "bf16": xf.BF16}[kind]

    @settings(max_examples=4, deadline=None)
    @given(column(form), column(form))
    def check(a, b):
        def oracle(*row):
            return extreme(form, row, name == "max", ".NaN" in words, ".abs" in words, ".xorsign" in words)

        operands = [(form.bits, a), (form.bits, b)]
        each_way(f"{name}{words}.{kind} {{d}}, {{a}}, {{b}};", form.bits, operands, oracle)

    check()


@pytest.mark.parametrize("name", ["min", "max"])
def test_a_number_wins_against_a_signalling_nan_in_all_lanes(name):
    """Found by test_extremes: the same operands in all lanes are computed as one."""
    for a, b in ((0xEBAA9455, 0xFFA012F7), (0xFFA012F7, 0xEBAA9455)):
        operands = [(32, [a] * 32), (32, [b] * 32)]
        each_way(f"{name}.f32 {{d}}, {{a}}, {{b}};", 32, operands, lambda *_: 0xEBAA9455)


@QUICK
@given(column(xf.F32), column(xf.F32), column(xf.F32))
def test_extremes_of_three(a, b, c):
    operands = [(32, a), (32, b), (32, c)]
    each_way("max.NaN.f32 {d}, {a}, {b}, {c};", 32, operands, lambda *row: extreme(xf.F32, row, True, True))
    each_way(
        "min.abs.f32 {d}, {a}, {b}, {c};",
        32,
        operands,
        lambda *row: extreme(xf.F32, row, False, magnitudes=True),
    )


@QUICK
@given(column(xf.F32), column(xf.F32))
def test_saturation(a, b):
    def oracle(x, y):
        value = xf.F32.decode(xf.fused(xf.F32, x, one(xf.F32), y))
        if value in ("nan", "-inf"):
            return 0
        return one(xf.F32) if value == "inf" or value >= 1 else xf.F32.encode(max(value, Fraction(0)))

    each_way("add.sat.f32 {d}, {a}, {b};", 32, [(32, a), (32, b)], oracle)


@pytest.mark.parametrize(
    "text",
    [
        "add.rz.f16 %h, %h, %h",
        "add.rm.bf16 %h, %h, %h",
        "add.f32.bf16 %d, %h, %d",
        "div.rz.f32 %d, %d, %d",
        "fma.rn.relu.f32 %d, %d, %d, %d",
        "add.sat.bf16 %h, %h, %h",
        "add.relu.f16 %h, %h, %h",
        "div.bf16 %h, %h, %h",
        "max.xorsign.f32 %d, %d, %d",
        "min.NaN.abs.f64 %q, %q, %q",
    ],
)
def test_what_ptx_does_not_have_or_we_do_not_is_refused(text):
    with pytest.raises(Unsupported):
        lanes(text + ";", {"%d": 32, "%h": 16, "%q": 64})


@QUICK
@given(column(xf.F32), column(xf.F32), st.booleans())
def test_minimum_maximum(a, b, ftz):
    def smaller(x, y, largest):
        if ftz:
            x, y = xf.flushed(xf.F32, x), xf.flushed(xf.F32, y)
        u, v = xf.F32.decode(x), xf.F32.decode(y)
        if "nan" in (u, v):
            return xf.F32.nan if u == v else (y if u == "nan" else x)
        key = {"inf": Fraction(2) ** 200, "-inf": -(Fraction(2) ** 200)}
        order = sorted([(key.get(u, u), -(x >> 31), x), (key.get(v, v), -(y >> 31), y)])
        return order[largest][2]

    word = ".ftz" if ftz else ""
    each_way(f"min{word}.f32 {{d}}, {{a}}, {{b}};", 32, [(32, a), (32, b)], lambda x, y: smaller(x, y, 0))
    each_way(f"max{word}.f32 {{d}}, {{a}}, {{b}};", 32, [(32, a), (32, b)], lambda x, y: smaller(x, y, 1))


@QUICK
@given(column(xf.F32))
def test_signs(a):
    def bits_or_nan(x, result):  # one NaN comes out, as an H200 has it (tests/silicon)
        return xf.F32.nan if xf.F32.decode(x) == "nan" else result

    each_way("neg.f32 {d}, {a};", 32, [(32, a)], lambda x: bits_or_nan(x, x ^ 1 << 31))
    each_way("abs.f32 {d}, {a};", 32, [(32, a)], lambda x: bits_or_nan(x, x & 0x7FFFFFFF))


@QUICK
@given(column(xf.F64))
def test_signs_of_doubles(a):
    def unless_nan(x, result):  # it passes through, as on an H200
        return x if xf.F64.decode(x) == "nan" else result

    each_way("neg.f64 {d}, {a};", 64, [(64, a)], lambda x: unless_nan(x, x ^ 1 << 63))
    each_way("abs.f64 {d}, {a};", 64, [(64, a)], lambda x: unless_nan(x, x & (1 << 63) - 1))


@QUICK
@given(column(xf.F32), column(xf.F32))
def test_division_and_root(a, b):
    def quotient(x, y):
        u, v = xf.F32.decode(x), xf.F32.decode(y)
        sign = (x ^ y) >> 31
        infinity = "-inf" if sign else "inf"
        if "nan" in (u, v) or (u == 0 and v == 0) or (isinstance(u, str) and isinstance(v, str)):
            return xf.F32.nan
        if isinstance(u, str) or v == 0:
            return xf.F32.encode(infinity)
        return xf.F32.encode(Fraction(0) if isinstance(v, str) else u / v, bool(sign))

    each_way("div.rn.f32 {d}, {a}, {b};", 32, [(32, a), (32, b)], quotient)
    each_way("rcp.rn.f32 {d}, {a};", 32, [(32, a)], lambda x: quotient(one(xf.F32), x))
    squares = [xf.F32.encode(Fraction(n, 7) ** 2) for n in range(32)]
    found = lanes("sqrt.rn.f32 %d, %a;", {"%d": 32}, {"%a": (32, squares)})["%d"]
    for got, square in zip(found, squares, strict=True):
        # The root is right if its neighbours' midpoints square to either side.
        low, high = (xf.F32.decode(got + k) for k in (-1, 1)) if got else (Fraction(0), Fraction(1, 2**140))
        middle, value = xf.F32.decode(got), xf.F32.decode(square)
        assert ((low + middle) / 2) ** 2 <= value <= ((high + middle) / 2) ** 2


@QUICK
@given(column(xf.F32), column(xf.F32), column(xf.F32), column(xf.F32))
def test_packed_pairs(a, b, c, d):
    joined = [[x | y << 32 for x, y in zip(p, q, strict=True)] for p, q in ((a, b), (c, d))]
    for name in ("add", "mul"):
        single = oracle_of(name, xf.F32, False)
        each_way(
            f"{name}.rn.f32x2 {{d}}, {{a}}, {{b}};", 64, [(64, joined[0]), (64, joined[1])],
            lambda x, y, single=single: single(x & FULL, y & FULL) | single(x >> 32, y >> 32) << 32,
        )  # fmt: skip
    each_way(
        "fma.rn.f32x2 {d}, {a}, {b}, {c};", 64, [(64, joined[0]), (64, joined[1]), (64, joined[0])],
        lambda x, y, z: xf.fused(xf.F32, x & FULL, y & FULL, z & FULL)
        | xf.fused(xf.F32, x >> 32, y >> 32, z >> 32) << 32,
    )  # fmt: skip


@QUICK
@given(column(xf.F16), column(xf.F16), column(xf.F16), column(xf.F16))
def test_packed_halves(a, b, c, d):
    joined = [[x | y << 16 for x, y in zip(p, q, strict=True)] for p, q in ((a, b), (c, d))]
    single = oracle_of("add", xf.F16, False)
    each_way(
        "add.rn.f16x2 {d}, {a}, {b};", 32, [(32, joined[0]), (32, joined[1])],
        lambda x, y: single(x & 0xFFFF, y & 0xFFFF) | single(x >> 16, y >> 16) << 16,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "inputs", "expected"),
    [
        ("ex2", [0, 1, -3, 10], [1, 2, Fraction(1, 8), 1024]),
        ("lg2", [1, 8, Fraction(1, 4)], [0, 3, -2]),
        ("rsqrt", [4, Fraction(1, 16)], [Fraction(1, 2), 4]),
    ],
)
def test_approximations_are_exact_where_the_result_is(name, inputs, expected):
    code = [xf.F32.encode(Fraction(v)) for v in inputs] * 16
    found = lanes(f"{name}.approx.ftz.f32 %d, %a;", {"%d": 32}, {"%a": (32, code[:32])})["%d"]
    assert found[: len(expected)] == [xf.F32.encode(Fraction(v)) for v in expected]


COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


@pytest.mark.parametrize("name", [*COMPARE, *(f"{c}u" for c in COMPARE), "num", "nan"])
def test_float_comparisons(name):
    @settings(max_examples=4, deadline=None)
    @given(column(xf.F32), column(xf.F32))
    def check(a, b):
        def oracle(x, y):
            u, v = xf.F32.decode(x), xf.F32.decode(y)
            nan = "nan" in (u, v)
            if name in ("num", "nan"):
                return int(nan == (name == "nan"))
            if nan:
                return int(len(name) == 3)
            key = {"inf": Fraction(2) ** 200, "-inf": -(Fraction(2) ** 200)}
            return int(eval(f"u {COMPARE[name[:2]]} v", {"u": key.get(u, u), "v": key.get(v, v)}))

        each_way(f"setp.{name}.f32 {{d}}, {{a}}, {{b}};", 1, [(32, a), (32, b)], oracle)

    check()
