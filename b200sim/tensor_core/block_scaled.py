"""Numerics of one tcgen05.mma.block_scale instruction with 4-bit operands (kind::mxf4nvf4, kind::mxf4).

    D[m,n] = C[m,n] + sum_j SFA[m,j] SFB[n,j] sum_{i<16} A[m,16j+i] B[n,16j+i]        j = 0..3, K = 64

The rule, from microsoft/MMA-Sim (which reports bit equality with B200): the four inner sums are exact; a
term is sum * significand(SFA) * significand(SFB) at exponent e(SFA) + e(SFB), whatever the size of the sum;
C counts at its own exponent, zero C at -126; all are aligned to the largest of the five exponents,
truncated at 35 fractional bits, added, and truncated toward zero to fp32. A NaN scale or a NaN C gives
0x7FFFFFFF.

Three ways to the same bits, from fast to slow, each taken only where it is provably exact:
1. one float32 GEMM of scaled operands, if every partial sum fits 24 bits and no term can lose a bit to
   alignment;
2. the same in float64 (53 bits);
3. the rule itself, vectorised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from b200sim.tensor_core.formats import SCALE_EXPONENTS, SCALE_VALUES, ZERO_EXPONENT, unpack_e2m1
from b200sim.tensor_core.rounding import NAN_F32, add_toward_zero, toward_zero_f32

BLOCK = 16
BLOCKS = 4
K = BLOCK * BLOCKS
FRACTION_BITS = 35

# 64 products of two e2m1 numbers, in units of 0.25: each is at most 6 * 6 / 0.25.
_PRODUCT_UNITS = K * 144
_F32_EXACT = 1 << 24

# UE4M3 scales as integers in units of 2**-9: their OR shows the lowest bit in use and bounds the largest.
_UE4M3_UNIT = -9
_UE4M3_INTEGERS = (np.nan_to_num(SCALE_VALUES["ue4m3"], nan=0.0) * 2.0**-_UE4M3_UNIT).astype(np.int32)
_NAN_CODE = {"ue4m3": 0x7F, "ue8m0": 0xFF}
_CODE_MASK = {"ue4m3": 0x7F, "ue8m0": 0xFF}


@dataclass
class Operand:
    """A or B of one instruction: `rows` rows of 64 elements and 4 scales.

    elements float32 (rows, 64), unscaled; codes uint8 (rows, 4), with 1.0 in the place of NaN;
    nan_rows: indices of rows with a NaN scale; unit: exponent of the lowest bit in use by any scale;
    ratio: no scale is larger than ratio * 2**unit.
    """

    elements: np.ndarray
    codes: np.ndarray
    scale_format: str
    nan_rows: np.ndarray | None
    unit: int
    ratio: int

    @property
    def top(self) -> int:
        """No scale's exponent is above this."""
        return self.unit + max(self.ratio, 1).bit_length() - 1

    def scaled(self, dtype: type) -> np.ndarray:
        """Elements times scales, exact: at most 2 + 4 significant bits."""
        scales = SCALE_VALUES[self.scale_format][self.codes].astype(dtype, copy=False)
        product = self.elements.reshape(-1, BLOCKS, BLOCK) * scales[:, :, None]
        return product.reshape(-1, K)


def decode(packed: np.ndarray, negate: bool = False) -> np.ndarray:
    """float32 (rows, 64) from uint8 (rows, 32) of packed e2m1."""
    elements = unpack_e2m1(packed)
    return -elements if negate else elements


def operand(elements: np.ndarray, codes: np.ndarray, scale_format: str) -> Operand:
    """`elements` float32 (rows, 64), `codes` uint8 (rows, 4): one scale per 16 elements."""
    nan = (codes & _CODE_MASK[scale_format]) == _NAN_CODE[scale_format]
    nan_rows = None
    if nan.any():
        nan_rows = np.flatnonzero(nan.any(axis=1))
        codes = np.where(
            nan, np.uint8(0x38 if scale_format == "ue4m3" else 127), codes
        )  # 1.0: a tame stand-in
    if scale_format == "ue4m3":
        used = int(np.bitwise_or.reduce(_UE4M3_INTEGERS[codes], axis=None))
        low = (used & -used).bit_length() - 1 if used else 0
        unit, ratio = _UE4M3_UNIT + low, used >> low
    else:
        smallest = int(codes.min())
        unit, ratio = smallest - 127, 1 << int(codes.max()) - smallest
    return Operand(elements, codes, scale_format, nan_rows, unit, ratio)


def multiply_accumulate(a: Operand, b: Operand, c: np.ndarray | None) -> np.ndarray:
    """One instruction: float32 (M, N) from A (M rows), B (N rows) and C float32 (M, N) or None for no C."""
    if c is not None and (a.nan_rows is not None or b.nan_rows is not None):
        c = _without_nan_rows(a, b, c)
    result = _exact(a, b, c)
    if result is None:
        result = by_the_rule(a, b, c)
    bits = result.view(np.uint32)
    if a.nan_rows is not None:
        bits[a.nan_rows] = NAN_F32
    if b.nan_rows is not None:
        bits[:, b.nan_rows] = NAN_F32
    return result


def _without_nan_rows(a: Operand, b: Operand, c: np.ndarray) -> np.ndarray:
    """C with zeros where the output is NaN anyway: NaN padding rows leave the others on a fast way."""
    c = c.copy()
    if a.nan_rows is not None:
        c[a.nan_rows] = 0
    if b.nan_rows is not None:
        c[:, b.nan_rows] = 0
    return c


def _exact(a: Operand, b: Operand, c: np.ndarray | None) -> np.ndarray | None:
    """The result by a plain GEMM, or None where that might differ from the rule."""
    top = a.top + b.top  # no block exponent is above
    bottom = a.unit + b.unit - 2  # every term is a multiple of 2**bottom
    c_top = None if c is None else _accumulator_exponent(c, top)
    if c is not None and c_top is None:
        return None
    highest = top if c_top is None else max(top, c_top)
    if bottom < highest - FRACTION_BITS or highest > 100:
        return None
    if min(a.unit, b.unit) < -60 or max(a.top, b.top) > 60:
        return None  # scaled operands or products might leave float32's range
    if _PRODUCT_UNITS * a.ratio * b.ratio < _F32_EXACT:
        product = a.scaled(np.float32) @ b.scaled(np.float32).T
        product += np.float32(0.0)  # -0 -> +0
        return product if c is None else add_toward_zero(c, product)
    # Exact in 53 bits. The product: from 2**bottom >= 2**(top - 35) to 64 * 36 * 2**(top + 2). With C: C has
    # 24 bits, none below 2**(top - 35), and the product none below 2**(exponent of the largest C - 35).
    exact = a.scaled(np.float64) @ b.scaled(np.float64).T
    if c is not None:
        exact += c
    return toward_zero_f32(exact)


def _accumulator_exponent(c: np.ndarray, top: int) -> int | None:
    """The largest exponent of C; None if C is not finite or alignment to 2**top could cost it bits."""
    doubled = c.view(np.uint32) << np.uint32(1)  # drops the sign: exponent in bits 31:24
    largest = int(doubled.max())
    if largest >= 0xFF000000:
        return None
    least = (top - FRACTION_BITS + 23 + 127) << 24  # from this magnitude on, the last place is kept
    if least > 0 and int((doubled - np.uint32(1)).min()) < least - 1:  # zero wraps to the largest
        with np.errstate(over="ignore"):
            units = np.ldexp(c, min(FRACTION_BITS - top, 120))
        if not np.array_equal(np.trunc(units), units):
            return None
    return (largest >> 24) - 127 if largest >> 24 else ZERO_EXPONENT


def by_the_rule(a: Operand, b: Operand, c: np.ndarray | None) -> np.ndarray:
    """The summation rule term by term, float32 (M, N); rows with NaN scales are the caller's business."""
    exponent_a, exponent_b = _scale_exponents(a), _scale_exponents(b)
    significant_a, significant_b = _with_significands(a, exponent_a), _with_significands(b, exponent_b)
    block_exponents = exponent_a.T[:, :, None] + exponent_b.T[:, None, :]
    highest = block_exponents.max(axis=0)
    if c is None:
        np.maximum(highest, ZERO_EXPONENT, out=highest)
    else:
        wide = c.astype(np.float64)
        exponent_c = np.maximum(np.frexp(wide)[1] - 1, ZERO_EXPONENT)
        exponent_c[c == 0] = ZERO_EXPONENT
        np.maximum(highest, exponent_c, out=highest)
    total = np.zeros(highest.shape) if c is None else np.trunc(np.ldexp(wide, FRACTION_BITS - highest))
    for block in range(BLOCKS):
        # Units of 2**-8 below 2**13: exact in float32.
        term = (significant_a[:, block] @ significant_b[:, block].T).astype(np.float64)
        total += np.trunc(np.ldexp(term, FRACTION_BITS + block_exponents[block] - highest))
    result = toward_zero_f32(np.ldexp(total, highest - FRACTION_BITS))
    if c is not None:
        result.view(np.uint32)[np.isnan(c)] = NAN_F32
    return result


def _scale_exponents(operand: Operand) -> np.ndarray:
    """int32 (rows, 4)."""
    return SCALE_EXPONENTS[operand.scale_format][operand.codes]


def _with_significands(operand: Operand, exponents: np.ndarray) -> np.ndarray:
    """float32 (rows, 4, 16): elements times their scale's significand."""
    scales = SCALE_VALUES[operand.scale_format][operand.codes].astype(np.float64)
    significands = np.ldexp(scales, -exponents).astype(np.float32)
    return operand.elements.reshape(-1, BLOCKS, BLOCK) * significands[:, :, None]
