"""Numerics of the unscaled kinds and of kind::mxf8f6f4 against scalar integer arithmetic."""

from __future__ import annotations

from fractions import Fraction

import mma_oracle as oracle
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from b200sim.tensor_core import dense

TORCH = {
    "f16": (torch.float16, -14),
    "bf16": (torch.bfloat16, -126),
    "e4m3": (torch.float8_e4m3fn, -6),
    "e5m2": (torch.float8_e5m2, -14),
}


def draw(rng: np.random.Generator, format_: str, rows: int, spread: int) -> tuple[np.ndarray, np.ndarray]:
    """Packed uint8 (rows, 32) and the float64 values: normal numbers of widely varying size, some zeros."""
    dtype, _ = TORCH[format_]
    count = 32 // dtype.itemsize
    values = np.ldexp(rng.standard_normal((rows, count)), rng.integers(-spread, spread + 1, (rows, count)))
    values[rng.random((rows, count)) < 0.1] = 0
    tensor = torch.tensor(values).to(dtype)
    return tensor.view(torch.uint8).numpy().copy(), tensor.double().numpy()


def terms(values: np.ndarray, format_: str, scale: int = 0) -> list[oracle.Term]:
    pairs = [oracle.split(Fraction(float(v)), TORCH[format_][1]) for v in values]
    return [(s, e + scale) for s, e in pairs]


def f16_bits(value: Fraction) -> int:
    """Round to nearest even, by comparing with the neighbours on the fp16 grid; magnitudes in range only."""
    if value == 0:
        return 0
    exponent = max(oracle.binary_exponent(value), -14)
    units, rest = divmod(abs(value) * oracle.power(10 - exponent), 1)
    units += int(rest > Fraction(1, 2) or (rest == Fraction(1, 2) and units % 2 == 1))
    if units == 0:
        return 0
    magnitude = units + (exponent + 14 << 10) if units >= 1024 else units
    return (0x8000 if value < 0 else 0) | int(magnitude)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    format_=st.sampled_from(sorted(TORCH)),
    spread=st.sampled_from([0, 2, 5]),
    c_exponent=st.sampled_from([None, -30, -8, 0, 5, 20]),
)
def test_f32_accumulation_matches_the_scalar_rule(
    seed: int, format_: str, spread: int, c_exponent: int | None
) -> None:
    rng = np.random.default_rng(seed)
    (a_bytes, a), (b_bytes, b) = draw(rng, format_, 5, spread), draw(rng, format_, 4, spread)
    c = None
    if c_exponent is not None:
        c = np.ldexp(rng.standard_normal((5, 4)), c_exponent).astype(np.float32)
    result = dense.multiply_accumulate(
        dense.factor(a_bytes, format_), dense.factor(b_bytes, format_), c, "f32"
    )
    for m in range(5):
        for n in range(4):
            before = oracle.split(Fraction(0 if c is None else float(c[m, n])), -126)
            want = oracle.toward_zero_bits(oracle.dense(terms(a[m], format_), terms(b[n], format_), before))
            assert hex(result.view(np.uint32)[m, n]) == hex(want)


@pytest.mark.parametrize("c_exponent", [-12, 0, 6])
def test_f16_accumulation_rounds_to_nearest_even(c_exponent: int) -> None:
    rng = np.random.default_rng(20 + c_exponent)
    (a_bytes, a), (b_bytes, b) = draw(rng, "f16", 12, 2), draw(rng, "f16", 12, 2)
    c = np.ldexp(rng.standard_normal((12, 12)), c_exponent).astype(np.float16)
    result = dense.multiply_accumulate(dense.factor(a_bytes, "f16"), dense.factor(b_bytes, "f16"), c, "f16")
    for m in range(12):
        for n in range(12):
            before = oracle.split(Fraction(float(c[m, n])), -14)
            want = f16_bits(oracle.dense(terms(a[m], "f16"), terms(b[n], "f16"), before))
            assert hex(result.view(np.uint16)[m, n]) == hex(want)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scales=st.sampled_from([(100, 154), (127, 128), (0, 255)]))
def test_mxf8_scales_move_the_exponents(seed: int, scales: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    (a_bytes, a), (b_bytes, b) = draw(rng, "e4m3", 4, 3), draw(rng, "e5m2", 4, 3)
    sfa, sfb = (rng.integers(*scales, (4, 1)).astype(np.uint8) for _ in range(2))
    c = rng.standard_normal((4, 4)).astype(np.float32)
    result = dense.multiply_accumulate(
        dense.factor(a_bytes, "e4m3", scale=sfa), dense.factor(b_bytes, "e5m2", scale=sfb), c, "f32"
    )
    for m in range(4):
        for n in range(4):
            left = terms(a[m], "e4m3", int(sfa[m, 0]) - 127)
            right = terms(b[n], "e5m2", int(sfb[n, 0]) - 127)
            want = oracle.toward_zero_bits(
                oracle.dense(left, right, oracle.split(Fraction(float(c[m, n])), -126))
            )
            assert hex(result.view(np.uint32)[m, n]) == hex(want)


def test_integers_in_floating_point_are_exact() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.integers(-8, 9, (128, 16)) for _ in range(2))
    c = rng.integers(-1000, 1000, (128, 128))
    factors = [dense.factor(x.astype(np.float16).view(np.uint8), "f16") for x in (a, b)]
    got = dense.multiply_accumulate(*factors, c.astype(np.float32), "f32")
    assert np.array_equal(got, a @ b.T + c)


@pytest.mark.parametrize("zero_in", ["a", "b"])
@pytest.mark.parametrize("c_exponent", range(-45, -30))
def test_a_zero_factor_costs_no_bits_whatever_the_other_one_is(zero_in: str, c_exponent: int) -> None:
    """0 * 2**124 + 2**-133 * 2**112 + C. Aligned by the zero's product, at -126 + 124, C below 2**-27 would
    be lost; by the subnormal's, at -126 + 112, what lies below 2**-39 is."""
    a, b = np.zeros((1, 16)), np.zeros((1, 16))
    a[0, :2], b[0, :2] = [0.0, 2.0**-133], [2.0**124, 2.0**112]
    if zero_in == "b":
        a, b = b, a
    factors = [
        dense.factor((x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8), "bf16")
        for x in (a, b)
    ]
    c = 2.0**c_exponent
    got = dense.multiply_accumulate(*factors, np.array([[c]], np.float32), "f32")
    assert got[0, 0] == 2.0**-21 + (c if c_exponent >= -39 else 0)


@pytest.mark.parametrize("shift", range(-12, -1))
def test_small_products_beside_cancelling_large_ones(shift: int) -> None:
    """2**20 - 2**20 + 2**shift + C: what lies below 2**(20 - 25) is gone although it would fit the result."""
    a, b = np.zeros((1, 16), dtype=np.float16), np.ones((1, 16), dtype=np.float16)
    a[0, :3], b[0, :2] = [1024, -1024, 2.0**shift], 1024
    factors = [dense.factor(x.view(np.uint8), "f16") for x in (a, b)]
    for c in (0.0, 2.0**shift, 2.0**30):
        got = dense.multiply_accumulate(*factors, np.array([[c]], dtype=np.float32), "f32")
        pairs = [terms(x[0], "f16") for x in (a, b)]
        want = oracle.dense(*pairs, oracle.split(Fraction(c), -126))
        assert hex(got.view(np.uint32)[0, 0]) == hex(oracle.toward_zero_bits(want))
    assert (dense.multiply_accumulate(*factors, None, "f32")[0, 0] == 0) == (shift < -5)


def test_negation_and_tf32_truncation() -> None:
    one = np.zeros((1, 32), dtype=np.uint8)
    one.view(np.float32)[0, 0] = 1 + 2.0**-10 + 2.0**-11 + 2.0**-23  # the last two are beyond tf32's 10 bits
    two = np.zeros((1, 32), dtype=np.uint8)
    two.view(np.float32)[0, 0] = 2
    result = dense.multiply_accumulate(
        dense.factor(one, "tf32", negate=True), dense.factor(two, "tf32"), None, "f32"
    )
    assert float(result[0, 0]) == -(2 + 2.0**-9)


@pytest.mark.parametrize(("d_format", "nan"), [("f32", 0x7FFFFFFF), ("f16", 0x7FFF)])
def test_infinities_and_nans(d_format: str, nan: int) -> None:
    """Rows of A: inf, inf and -inf, NaN, plain ones; B has ones, and a column of zeros against inf."""
    a = np.ones((4, 16), dtype=np.float16)
    a[0, 3], a[1, 3], a[1, 5], a[2, 0] = np.inf, np.inf, -np.inf, np.nan
    b = np.ones((2, 16), dtype=np.float16)
    b[1, 3] = 0
    c = np.zeros((4, 2), dtype=np.float64)
    c[3, 1] = -np.inf
    factors = [dense.factor(x.view(np.uint8), "f16") for x in (a, b)]
    cells = dense.words(dense.multiply_accumulate(*factors, c, d_format))
    infinity = 0x7F800000 if d_format == "f32" else 0x7C00
    sixteen = oracle.bits_of(16.0) if d_format == "f32" else int(np.float16(16).view(np.uint16))
    minus = 0xFF800000 if d_format == "f32" else 0xFC00
    # a[1] . b[1]: inf * 0 is NaN already
    assert cells.tolist() == [[infinity, nan], [nan, nan], [nan, nan], [sixteen, minus]]


@pytest.mark.parametrize("saturate", [False, True])
def test_integer_kind(saturate: bool) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(-128, 128, (4, 32)), rng.integers(0, 256, (3, 32))
    c = np.array([[2**31 - 1] * 3, [-(2**31)] * 3, [0] * 3, [5] * 3])
    factors = (
        dense.factor(a.astype(np.int8).view(np.uint8), "s8"),
        dense.factor(b.astype(np.uint8), "u8"),
    )
    cells = dense.multiply_accumulate_integers(*factors, c, saturate)
    for m in range(4):
        for n in range(3):
            total = sum(int(x) * int(y) for x, y in zip(a[m], b[n], strict=True)) + int(c[m, n])
            if saturate:
                total = max(-(2**31), min(2**31 - 1, total))
            assert int(cells[m, n]) == total % 2**32
