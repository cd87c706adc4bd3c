"""Scalar arithmetic in Python integers and fractions that the tensor core tests compare against.

Written from the published rule and the formats' definitions, one element at a time, and on purpose unlike
b200sim.tensor_core: no numpy arithmetic, no tables, no floats on the way.
"""

from __future__ import annotations

import struct
from fractions import Fraction

NAN_BITS = 0x7FFFFFFF
Term = tuple[Fraction, int]  # significand, exponent


def power(exponent: int) -> Fraction:
    return Fraction(1 << exponent) if exponent >= 0 else Fraction(1, 1 << -exponent)


def f32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


def bits_of(value: float) -> int:
    return struct.unpack("<I", struct.pack("<f", value))[0]


def binary_exponent(value: Fraction) -> int:
    """e with 2**e <= |value| < 2**(e + 1)."""
    magnitude = abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    return exponent if power(exponent) <= magnitude else exponent - 1


def split(value: Fraction, min_exponent: int) -> Term:
    """Significand and exponent; subnormals keep the format's smallest exponent, zero has -126."""
    if value == 0:
        return value, -126
    exponent = max(binary_exponent(value), min_exponent)
    return value / power(exponent), exponent


def e2m1(code: int) -> Fraction:
    magnitude = [0, 1, 2, 3, 4, 6, 8, 12][code & 7]
    return Fraction(-magnitude if code & 8 else magnitude, 2)


def ue4m3(code: int) -> Fraction | None:
    """None for NaN."""
    exponent, mantissa = code >> 3 & 15, code & 7
    if exponent == 15 and mantissa == 7:
        return None
    return mantissa * power(-9) if exponent == 0 else (8 + mantissa) * power(exponent - 10)


def ue8m0(code: int) -> Fraction | None:
    return None if code == 255 else power(code - 127)


def aligned_sum(terms: list[Term], fraction_bits: int) -> Fraction:
    """All terms truncated toward zero at `fraction_bits` below the largest exponent, then added."""
    highest = max(exponent for _, exponent in terms)
    unit = power(highest - fraction_bits)
    return sum((truncated(s * power(e) / unit) for s, e in terms), Fraction(0)) * unit


def truncated(value: Fraction) -> int:
    quotient = abs(value.numerator) // value.denominator
    return quotient if value >= 0 else -quotient


def toward_zero_bits(value: Fraction) -> int:
    """fp32 bits of `value` truncated toward zero; from 2**128 on infinity."""
    sign = 0x80000000 if value < 0 else 0
    if value == 0:
        return 0
    exponent = max(binary_exponent(value), -126)
    if exponent > 127:
        return sign | 0x7F800000
    units = abs(truncated(value * power(23 - exponent)))
    if units == 0:
        return 0
    return sign | (units + ((exponent + 126) << 23) if units >> 23 else units)


def block_scaled(
    a: list[Fraction],
    b: list[Fraction],
    scales_a: list[Fraction | None],
    scales_b: list[Fraction | None],
    c: float,
    min_exponent: int,
) -> int:
    """fp32 bits of one output of a 4-bit block-scaled instruction; 64 elements and 4 scales a side."""
    if c != c or None in scales_a or None in scales_b:
        return NAN_BITS
    terms = [split(Fraction(c), -126)]
    for j in range(4):
        inner = sum((a[i] * b[i] for i in range(16 * j, 16 * j + 16)), Fraction(0))
        (s0, e0), (s1, e1) = split(scales_a[j], min_exponent), split(scales_b[j], min_exponent)
        terms.append((inner * s0 * s1, e0 + e1))
    return toward_zero_bits(aligned_sum(terms, 35))


def dense(a: list[Term], b: list[Term], c: Term, fraction_bits: int = 25) -> Fraction:
    """The exact value before the last rounding of one output of an unscaled instruction. Products with a zero
    take no part, as an H200 has it (tests/silicon)."""
    products = [(sa * sb, ea + eb) for (sa, ea), (sb, eb) in zip(a, b, strict=True) if sa * sb]
    return aligned_sum([c, *products], fraction_bits)
