"""Numerics of one wgmma.mma_async: D (64 x N) = A (64 x K) B (N x K)^T (+ D), K = 32 bytes.

PTX leaves order and rounding open (9.7.15.5.2). Simulated is the model of Hopper in microsoft/MMA-Sim
(mmasim/simulator/nv_ptx.py, class wgmma, reported bit-exact on an H100), which is `dense`'s rule: products
exact, all K of them and D aligned to the largest exponent, truncated there at F fractional bits, added, and
the sum truncated toward zero to fp32 or rounded to nearest even to f16. Products with a zero factor are left
out, which MMA-Sim does not do. Of 33.8 million sums of all formats below, an H200 gave 30,267 otherwise than
MMA-Sim, and those are the ones that this changes (docs/hopper.md, "Simulator against silicon").

* f16, bf16, tf32: F = 25. tf32 operands are truncated (their last 13 bits are not looked at).
* e4m3, e5m2: F = 13, and an fp32 result keeps 13 fraction bits. Sums of fp8 products lose bits here that they
  keep on a B200.

Where it is provably exact and cannot differ from the rule, the sum is one fp32 matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from b200sim.tensor_core import dense
from b200sim.tensor_core.formats import MINI_FLOATS, VALUES
from b200sim.tensor_core.rounding import lowest_bit_exponent
from b200sim.tensor_core.wgmma_layouts import ROWS

K_OF = {"f16": 16, "bf16": 16, "tf32": 8, "e4m3": 32, "e5m2": 32}
_FP8 = ("e4m3", "e5m2")
_NO_BITS = 9999  # lowest bit of a zero
_SPECIAL = -9999  # "lowest bit" of an infinity or NaN: never exact


@dataclass(frozen=True)
class Shape:
    """What an instruction computes, from its mnemonic."""

    n: int
    k: int
    d_format: str
    a_format: str
    b_format: str

    @property
    def fraction_bits(self) -> int:
        return 13 if self.a_format in _FP8 else 25

    @property
    def result_bits(self) -> int:
        return 13 if self.a_format in _FP8 else 23

    @property
    def flops(self) -> int:
        return 2 * ROWS * self.n * self.k

    @property
    def name(self) -> str:
        return f"m64n{self.n}k{self.k}.{self.d_format}.{self.a_format}.{self.b_format}"


@dataclass
class Accumulators:
    """D, float32 or float16 (64, N). Every element is a multiple of 2**unit, none larger than `bound`, where
    that is known."""

    matrix: np.ndarray
    unit: int | None = None
    bound: float = np.inf

    def known_unit(self) -> int:
        """The unit of an fp32 D, found if it was not known; _SPECIAL with an infinity or NaN."""
        if self.unit is None:
            self.measure_bound()
            if np.isfinite(self.bound):
                lowest = lowest_bit_exponent(self.matrix.astype(np.float64))
                self.unit = _NO_BITS if lowest is None else lowest
            else:
                self.unit = _SPECIAL
        return self.unit

    def measure_bound(self) -> None:
        self.bound = float(np.abs(self.matrix).max())


def multiply_accumulate(
    shape: Shape,
    a: np.ndarray,
    b: np.ndarray,
    c: Accumulators | None,
    negate_a: bool = False,
    negate_b: bool = False,
) -> Accumulators:
    """One instruction on uint8 rows, A (64, 32) and B (N, 32); `c`: D before, None if scale-d is false."""
    negate = negate_a != negate_b  # of finite factors; a NaN has one pattern whatever its sign
    exact = _exact(shape, a, b, c, negate) if shape.d_format == "f32" and shape.k > 8 else None
    if exact is not None:
        return exact
    left, right = dense.factor(a, shape.a_format, negate_a), dense.factor(b, shape.b_format, negate_b)
    before = None if c is None else c.matrix
    return Accumulators(
        dense.multiply_accumulate(left, right, before, shape.d_format, shape.fraction_bits, shape.result_bits)
    )


def _exact(
    shape: Shape, a: np.ndarray, b: np.ndarray, c: Accumulators | None, negate: bool
) -> Accumulators | None:
    """The result by a plain fp32 product, or None where that might differ from the rule.

    All terms are multiples of 2**unit, no sum is larger than `bound`. If bound, counted in units, fits a
    result's significand, no addition rounds and no result is truncated; if no term's exponent is above
    unit + F, none loses a bit to alignment.
    """
    left, right = _Decoded(a, shape.a_format), _Decoded(b, shape.b_format)
    unit, bound = left.unit + right.unit, shape.k * left.largest * right.largest
    if c is not None:
        unit = min(unit, c.known_unit())
    # Far from fp32's ends; special values have the unit _SPECIAL.
    if unit < -120 or left.top + right.top - shape.fraction_bits > unit:
        return None
    limit = 2.0 ** min(unit + shape.result_bits + 1, 100)
    if c is not None:
        if bound + c.bound >= limit:
            c.measure_bound()  # what is known is a sum of bounds
        bound += c.bound
    if bound >= limit:
        return None
    product = left.values @ right.values.T
    if negate:
        np.negative(product, out=product)
    if c is not None:
        product += c.matrix
    product += np.float32(0.0)  # -0 -> +0
    return Accumulators(product, unit, bound)


class _Decoded:
    """A or B in fp32: values (rows, K), a unit that all are multiples of, the largest magnitude, and the
    largest exponent that the rule can give one (subnormals count at the smallest normal's)."""

    def __init__(self, rows: np.ndarray, format_: str) -> None:
        values, lowest, minimum = _tables(format_)
        codes = rows if format_ in _FP8 else rows.view(np.uint16)
        self.values = values.take(codes)
        self.unit = int(lowest.take(codes).min())
        if self.unit == _SPECIAL:
            self.largest, self.top = 0.0, 0
            return
        self.largest = float(np.abs(self.values).max())
        self.top = max(int(np.frexp(self.largest)[1]) - 1, minimum) if self.largest else minimum


@lru_cache(maxsize=8)
def _tables(format_: str) -> tuple[np.ndarray, np.ndarray, int]:
    """By code: value (float32), exponent of the lowest set bit (int16); the smallest normal's exponent."""
    if format_ in _FP8:
        values, minimum = VALUES[format_], MINI_FLOATS[format_].min_exponent
    else:
        codes = np.arange(1 << 16, dtype=np.uint16)
        if format_ == "f16":
            values, minimum = codes.view(np.float16).astype(np.float32), -14
        else:
            values, minimum = (codes.astype(np.uint32) << np.uint32(16)).view(np.float32), -126
    finite = np.isfinite(values)
    mantissa, exponent = np.frexp(np.where(finite, values, 1.0).astype(np.float64))
    integer = np.abs(np.ldexp(mantissa, 24)).astype(np.int64)
    lowest = np.frexp((integer & -integer).astype(np.float64))[1] - 1 + exponent - 24
    lowest = np.where(values == 0, _NO_BITS, np.where(finite, lowest, _SPECIAL)).astype(np.int16)
    return np.where(finite, values, np.float32(0)).astype(np.float32), lowest, minimum
