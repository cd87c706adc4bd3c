"""Rounding shared by the tensor core's summation rules.

The rule (microsoft/MMA-Sim, mmasim/simulator/arithmetic.py, measured bit by bit on B200): all terms of one
output are aligned to the largest exponent among them, truncated toward zero at a fixed number of fractional
bits, added exactly, and the sum is truncated toward zero to fp32 (rounded to nearest even for f16).
"""

from __future__ import annotations

import numpy as np

NAN_F32 = np.uint32(0x7FFFFFFF)  # the one NaN that tensor cores write
NAN_F16 = np.uint16(0x7FFF)
_MIN_EXPONENT_F32 = -126


def toward_zero_f32(exact: np.ndarray, fraction_bits: int = 23) -> np.ndarray:
    """float32 of float64 `exact`, truncated toward zero to so many fraction bits. Zero is always +0.

    MMA-Sim truncates the significand and converts: magnitudes from 2**128 on become infinite, those below
    2**128 never do.
    """
    exponent = np.maximum(np.frexp(exact)[1] - 1, _MIN_EXPONENT_F32)
    steps = np.trunc(np.ldexp(exact, fraction_bits - exponent))
    with np.errstate(over="ignore"):
        return np.asarray((np.ldexp(steps, exponent - fraction_bits) + 0.0).astype(np.float32))


def add_toward_zero(c: np.ndarray, p: np.ndarray) -> np.ndarray:
    """c + p truncated toward zero, for finite float32 arrays whose sum does not overflow.

    The sum is rounded to nearest first; where its error says that the exact value lies nearer to zero, the
    last place is stepped back. The error term is Knuth's TwoSum, exact in any binary arithmetic.
    """
    total = c + p
    back = total - c
    if np.array_equal(back, p) and np.array_equal(total - p, c):
        return total  # exact everywhere: the larger summand's difference test is FastTwoSum's
    error = (c - (total - back)) + (p - back)
    bits = total.view(np.int32)
    bits -= ((error < 0) & (total > 0)) | ((error > 0) & (total < 0))
    return total


def lowest_bit_exponent(values: np.ndarray) -> int | None:
    """Smallest exponent of a set bit over all nonzero values of float64 data; None if all are zero."""
    mantissa, exponent = np.frexp(values[values != 0])
    if not mantissa.size:
        return None
    integer = np.ldexp(mantissa, 53).astype(np.int64)
    return int((np.frexp((integer & -integer).astype(np.float64))[1] - 1 + exponent - 53).min())
