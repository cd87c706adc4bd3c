"""Sums of one wgmma against scalar integer arithmetic: order, truncation, the fast way and the rule."""

from __future__ import annotations

from fractions import Fraction

import mma_oracle as oracle
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from b200sim.tensor_core.wgmma import Accumulators, Shape, multiply_accumulate

TYPES = {
    "f16": (torch.float16, -14, 25, 23),
    "bf16": (torch.bfloat16, -126, 25, 23),
    "tf32": (torch.float32, -126, 25, 23),
    "e4m3": (torch.float8_e4m3fn, -6, 13, 13),
    "e5m2": (torch.float8_e5m2, -14, 13, 13),
}  # dtype, smallest normal exponent, fraction bits of the alignment, of an fp32 result
K = {"f16": 16, "bf16": 16, "tf32": 8, "e4m3": 32, "e5m2": 32}
ROWS, COLUMNS = 64, 8
CHECKED = [(0, 0), (5, 3), (31, 7), (63, 1)]


def draw(rng: np.random.Generator, format_: str, rows: int, spread: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (rows, 32) and the values: normal numbers of widely varying size, some zeros."""
    dtype = TYPES[format_][0]
    shape = rows, K[format_]
    values = np.ldexp(rng.standard_normal(shape), rng.integers(-spread, spread + 1, shape))
    values[rng.random(shape) < 0.1] = 0
    tensor = torch.tensor(values).to(dtype)
    packed = tensor.view(torch.uint8).numpy().reshape(rows, 32).copy()
    if format_ == "tf32":  # what the tensor core sees of it
        tensor = torch.tensor(tensor.numpy().view(np.int32) >> 13 << 13).view(torch.float32)
    return packed, tensor.double().numpy()


def terms(values: np.ndarray, format_: str) -> list[oracle.Term]:
    return [oracle.split(Fraction(float(v)), TYPES[format_][1]) for v in values]


def fp32_bits(value: Fraction, fraction_bits: int) -> int:
    """Truncated toward zero to so many fraction bits."""
    return oracle.toward_zero_bits(value) >> 23 - fraction_bits << 23 - fraction_bits


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    formats=st.sampled_from([(f, f) for f in TYPES] + [("e4m3", "e5m2"), ("e5m2", "e4m3")]),
    spread=st.sampled_from([0, 2, 5]),
    c_exponent=st.sampled_from([None, -30, -8, 0, 5, 20]),
    negate=st.tuples(st.booleans(), st.booleans()),
)
def test_fp32_sums_match_the_scalar_rule(seed, formats, spread, c_exponent, negate):
    rng = np.random.default_rng(seed)
    (a_bytes, a), (b_bytes, b) = (
        draw(rng, format_, rows, spread) for format_, rows in zip(formats, (ROWS, COLUMNS), strict=True)
    )
    c = None
    if c_exponent is not None:
        c = np.ldexp(rng.standard_normal((ROWS, COLUMNS)), c_exponent).astype(np.float32)
    shape = Shape(COLUMNS, K[formats[0]], "f32", *formats)
    before = None if c is None else Accumulators(c)
    result = multiply_accumulate(shape, a_bytes, b_bytes, before, *negate).matrix
    _, _, aligned_bits, result_bits = TYPES[formats[0]]
    signs = [-1 if flag else 1 for flag in negate]
    for m, n in CHECKED:
        start = oracle.split(Fraction(0 if c is None else float(c[m, n])), -126)
        left, right = terms(signs[0] * a[m], formats[0]), terms(signs[1] * b[n], formats[1])
        want = fp32_bits(oracle.dense(left, right, start, aligned_bits), result_bits)
        assert hex(result.view(np.uint32)[m, n]) == hex(want)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    format_=st.sampled_from(["f16", "bf16", "e4m3", "e5m2"]),
    steps=st.integers(1, 6),
    bits=st.integers(1, 4),
    shift=st.integers(-6, 6),
)
def test_chains_of_products_on_a_grid(seed, format_, steps, bits, shift):
    """Small integers times a power of two: many of these sums take the fast way, some just leave it."""
    rng = np.random.default_rng(seed)
    dtype, _, aligned_bits, result_bits = TYPES[format_]
    shape = Shape(COLUMNS, K[format_], "f32", format_, format_)
    held: Accumulators | None = None
    expected = {place: Fraction(0) for place in CHECKED}
    for step in range(steps):
        # Every other step is larger, so that sums grow out of the range in which all is exact.
        factor = 2.0 ** (shift + (5 if step % 2 else 0))
        values = [
            torch.tensor(rng.integers(-(2**bits) + 1, 2**bits, (rows, shape.k)) * factor).to(dtype)
            for rows in (ROWS, COLUMNS)
        ]
        a, b = (value.double().numpy() for value in values)
        packed = [value.view(torch.uint8).numpy().reshape(-1, 32) for value in values]
        held = multiply_accumulate(shape, *packed, held)
        for m, n in CHECKED:
            start = oracle.split(expected[m, n], -126)
            exact = oracle.dense(terms(a[m], format_), terms(b[n], format_), start, aligned_bits)
            word = fp32_bits(exact, result_bits)
            assert hex(held.matrix.view(np.uint32)[m, n]) == hex(word)
            expected[m, n] = Fraction(float(np.uint32(word).view(np.float32)))


@pytest.mark.parametrize("format_", ["f16", "e4m3"])
def test_half_precision_sums_round_to_nearest_even(format_):
    rng = np.random.default_rng(7)
    (a_bytes, a), (b_bytes, b) = draw(rng, format_, ROWS, 1), draw(rng, format_, COLUMNS, 1)
    c = rng.standard_normal((ROWS, COLUMNS)).astype(np.float16)
    shape = Shape(COLUMNS, K[format_], "f16", format_, format_)
    result = multiply_accumulate(shape, a_bytes, b_bytes, Accumulators(c)).matrix
    for m in range(ROWS):
        for n in range(COLUMNS):
            start = oracle.split(Fraction(float(c[m, n])), -14)
            exact = oracle.dense(terms(a[m], format_), terms(b[n], format_), start, TYPES[format_][2])
            below, above = (np.nextafter(result[m, n], np.float16(end)) for end in (-np.inf, np.inf))
            error = abs(Fraction(float(result[m, n])) - exact)
            for other in (below, above):
                distance = abs(Fraction(float(other)) - exact)
                assert error < distance or (error == distance and result.view(np.uint16)[m, n] % 2 == 0)


def test_fp8_sums_lose_what_lies_13_bits_below_the_largest_term():
    one = np.zeros((ROWS, 32), np.uint8)
    one[:, :2] = torch.tensor([256.0, 1.0]).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    for small, kept in ((2.0**-5, True), (2.0**-6, False)):
        two = np.zeros((COLUMNS, 32), np.uint8)
        two[:, :2] = torch.tensor([1.0, small]).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
        shape = Shape(COLUMNS, 32, "f32", "e4m3", "e4m3")
        result = multiply_accumulate(shape, one, two, None).matrix
        assert (result == 256 + (small if kept else 0)).all()


@pytest.mark.parametrize(("value", "bits"), [("inf", 0x7F800000), ("-inf", 0xFF800000), ("nan", 0x7FFFFFFF)])
def test_special_values(value, bits):
    a, b = np.zeros((ROWS, 16), np.float16), np.ones((COLUMNS, 16), np.float16)
    a[3, 5] = float(value)
    shape = Shape(COLUMNS, 16, "f32", "f16", "f16")
    first = multiply_accumulate(shape, a.view(np.uint8), b.view(np.uint8), None)
    a[3, 5] = 1
    second = multiply_accumulate(shape, a.view(np.uint8), b.view(np.uint8), first)
    for result, others in ((first, 0.0), (second, 0.0)):
        assert (result.matrix.view(np.uint32)[3] == bits).all()
        assert (np.delete(result.matrix, 3, axis=0) == others).all()


def test_a_zero_sum_is_positive():
    a, b = np.full((ROWS, 16), -1, np.float16), np.zeros((COLUMNS, 16), np.float16)
    before = Accumulators(np.full((ROWS, COLUMNS), -0.0, np.float32))
    shape = Shape(COLUMNS, 16, "f32", "f16", "f16")
    assert (
        multiply_accumulate(shape, a.view(np.uint8), b.view(np.uint8), before).matrix.view(np.uint32) == 0
    ).all()
