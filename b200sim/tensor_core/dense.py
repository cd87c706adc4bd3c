"""Numerics of tcgen05.mma without block scaling, of kind::mxf8f6f4, whose single scale per row joins the
exponent, and of wgmma.

The rule, from microsoft/MMA-Sim (which reports bit equality with B200): every product of one output counts
with its exact significand at exponent e(a) + e(b), plus those of the scales, where subnormal factors have
their format's smallest exponent; C at its own exponent, zero at -126. All are aligned to the largest
exponent, truncated at a number of fractional bits (25 in tcgen05.mma), added, and the sum truncated toward
zero to fp32 or rounded to nearest even to f16. NaN is 0x7FFFFFFF or 0x7FFF; infinities follow IEEE. kind::i8
is plain integer arithmetic.

Unlike there, a product with a zero factor takes no part in the alignment. MMA-Sim lets it count at -126 plus
the other factor's exponent, and wgmma on an H200 does not (tests/silicon, "denormalised"): a large factor
beside a zero would cost small products their last bits. That a B200 does as the H200 is assumed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from b200sim.tensor_core.formats import (
    MINI_FLOATS,
    SCALE_EXPONENTS,
    SCALE_VALUES,
    VALUES,
    ZERO_EXPONENT,
    exponents,
    unpack_containers,
)
from b200sim.tensor_core.rounding import NAN_F16, NAN_F32, lowest_bit_exponent, toward_zero_f32

FRACTION_BITS = 25
ABSENT = -9999  # a zero factor's exponent: with any other one below all that is not zero
_MIN_EXPONENTS = {"f16": -14, "bf16": -126, "tf32": -126, "f32": -126, "u8": 0, "s8": 0}
_CONTAINER_BITS = {"e4m3": 8, "e5m2": 8, "e2m3": 6, "e3m2": 6, "e2m1": 4}


@dataclass
class Factor:
    """A or B: float64 values (rows, K), exact, and the int32 exponents that the rule aligns by, ABSENT for
    zeros."""

    values: np.ndarray
    exponents: np.ndarray


def factor(packed: np.ndarray, format_: str, negate: bool = False, scale: np.ndarray | None = None) -> Factor:
    """Decode uint8 (rows, 32); `scale`: UE8M0 codes (rows, 1) that multiply the whole row."""
    values = _decode(packed, format_)
    if negate:
        values = -values
    minimum = MINI_FLOATS[format_].min_exponent if format_ in MINI_FLOATS else _MIN_EXPONENTS[format_]
    exponent = exponents(values, minimum)
    if scale is not None:
        values = values * SCALE_VALUES["ue8m0"][scale].astype(np.float64)
        exponent += SCALE_EXPONENTS["ue8m0"][scale]
    exponent[values == 0] = ABSENT
    return Factor(values, exponent)


def _decode(packed: np.ndarray, format_: str) -> np.ndarray:
    if format_ in MINI_FLOATS:
        return VALUES[format_][unpack_containers(packed, _CONTAINER_BITS[format_])].astype(np.float64)
    if format_ == "f16":
        return packed.view(np.float16).astype(np.float64)
    if format_ == "bf16":
        return (packed.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    if format_ == "tf32":  # fp32 whose last 13 bits are not looked at
        return (packed.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)
    return packed.view(np.int8 if format_ == "s8" else np.uint8).astype(np.float64)


def accumulator(cells: np.ndarray, d_format: str) -> np.ndarray:
    """C from uint32 cells: float64 for f32 and f16 (the low half of its cell), int64 for s32."""
    if d_format == "f32":
        return cells.view(np.float32).astype(np.float64)
    if d_format == "f16":
        return (cells & 0xFFFF).astype(np.uint16).view(np.float16).astype(np.float64)
    return cells.view(np.int32).astype(np.int64)


def words(result: np.ndarray) -> np.ndarray:
    """uint32 cells of a float32 or float16 result; the upper half of an f16 cell is written as zero
    (assumed).
    """
    if result.dtype == np.float16:
        return result.view(np.uint16).astype(np.uint32)
    return result.view(np.uint32)


def multiply_accumulate(
    a: Factor,
    b: Factor,
    c: np.ndarray | None,
    d_format: str,
    fraction_bits: int = FRACTION_BITS,
    result_bits: int = 23,
) -> np.ndarray:
    """float32 or float16 (M, N) of one instruction; `c` (M, N) of any float dtype, or None.

    `fraction_bits` are kept when terms are aligned, `result_bits` of an fp32 result's fraction.
    """
    if c is not None:
        c = c.astype(np.float64, copy=False)
    special = _not_finite(a, b, c)
    if special is not None:
        a, b = (Factor(np.nan_to_num(f.values, posinf=0, neginf=0), f.exponents) for f in (a, b))
        c = None if c is None else np.nan_to_num(c, posinf=0, neginf=0)
    exact = _exact_sum(a, b, c, d_format, fraction_bits)
    total = _sum_by_the_rule(a, b, c, d_format, fraction_bits) if exact is None else exact
    if d_format == "f32":
        result = toward_zero_f32(total, result_bits)
    else:
        with np.errstate(over="ignore"):
            result = total.astype(np.float16) + np.float16(0)  # -0 -> +0
    if special is not None:
        _overlay(result, special)
    return result


def _not_finite(a: Factor, b: Factor, c: np.ndarray | None) -> np.ndarray | None:
    """The IEEE result where an infinity or NaN takes part, zero elsewhere; None if none does."""
    if all(np.isfinite(x).all() for x in (a.values, b.values)) and (c is None or np.isfinite(c).all()):
        return None
    with np.errstate(invalid="ignore"):
        total = a.values @ b.values.T
        if c is not None:
            total += c
    return np.where(np.isfinite(total), 0.0, total)


def _overlay(result: np.ndarray, special: np.ndarray) -> None:
    infinite = np.isinf(special)
    result[infinite] = special[infinite]
    if result.dtype == np.float16:
        result.view(np.uint16)[np.isnan(special)] = NAN_F16
    else:
        result.view(np.uint32)[np.isnan(special)] = NAN_F32


def _exact_sum(
    a: Factor, b: Factor, c: np.ndarray | None, d_format: str, fraction_bits: int
) -> np.ndarray | None:
    """float64 A B^T + C if nothing can be lost to alignment or to float64, else None."""
    top = max(int(a.exponents.max()) + int(b.exponents.max()), ZERO_EXPONENT)
    low_a, low_b = lowest_bit_exponent(a.values), lowest_bit_exponent(b.values)
    highest = top
    if c is not None:
        c_top = int(exponents(c, _MIN_EXPONENTS[d_format]).max())
        units = np.ldexp(c, fraction_bits - top)
        if not np.array_equal(np.trunc(units), units):
            return None
        highest = max(top, c_top)
    if low_a is not None and low_b is not None and low_a + low_b < highest - fraction_bits:
        return None
    # With F = fraction_bits: no bit lies below 2**(highest - F), except those of C's own 24, none of which is
    # below 2**(top - F).
    product = a.values @ b.values.T
    return product if c is None else product + c


def _sum_by_the_rule(
    a: Factor, b: Factor, c: np.ndarray | None, d_format: str, fraction_bits: int
) -> np.ndarray:
    """float64 (M, N): the aligned, truncated sum."""
    count = a.values.shape[1]
    exponent_a = a.exponents.T.astype(np.float64)[:, :, None]
    exponent_b = b.exponents.T.astype(np.float64)[:, None, :]
    if c is None:
        highest = np.full((len(a.values), len(b.values)), float(ZERO_EXPONENT))
    else:
        highest = exponents(c, _MIN_EXPONENTS[d_format]).astype(np.float64)
    for k in range(count):
        np.maximum(highest, exponent_a[k] + exponent_b[k], out=highest)
    shift = fraction_bits - highest.astype(np.int32)
    unit = np.ldexp(1.0, shift)
    total = np.zeros_like(highest) if c is None else np.trunc(c * unit)
    columns_a, columns_b = np.ascontiguousarray(a.values.T), np.ascontiguousarray(b.values.T)
    term = np.empty_like(highest)
    for k in range(count):
        np.multiply(columns_a[k][:, None], columns_b[k][None, :], out=term)
        term *= unit
        total += np.trunc(term, out=term)
    return np.ldexp(total, -shift)


def multiply_accumulate_integers(a: Factor, b: Factor, c: np.ndarray | None, saturate: bool) -> np.ndarray:
    """uint32 cells of the s32 result: clamped if `saturate`, else modulo 2**32."""
    total = (a.values @ b.values.T).astype(np.int64)
    if c is not None:
        total = total + c
    if saturate:
        total = np.clip(total, -(1 << 31), (1 << 31) - 1)
    return (total & 0xFFFFFFFF).astype(np.uint32)
