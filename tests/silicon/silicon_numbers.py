"""Operands of wgmma whose products and sums show how a tensor core aligns, truncates and rounds.

A kind of operands is a function (random, formats of A, B and D, K, N) -> codes of A (64, K), B (N, K) and
D (64, N).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ROWS = 64
Random = np.random.Generator
Codes = np.ndarray  # unsigned integers, the bit patterns of numbers
Operands = tuple[Codes, Codes, Codes]


@dataclass(frozen=True)
class Format:
    """Sign, exponent, mantissa; `unused` low bits that the tensor core does not look at."""

    exponent_bits: int
    mantissa_bits: int
    storage: int
    unused: int = 0
    infinities: bool = True

    @property
    def bias(self) -> int:
        return (1 << self.exponent_bits - 1) - 1

    @property
    def low(self) -> int:
        """Exponent of the smallest normal number."""
        return 1 - self.bias

    @property
    def high(self) -> int:
        """Of the largest number."""
        return self.bias + (not self.infinities)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(f"u{self.storage // 8}")

    def codes(self, negative: Codes, exponent: Codes, fraction: Codes) -> Codes:
        """(-1)^negative (1 + fraction) 2^exponent, truncated to the format; exponents are held inside its
        range of normal and subnormal numbers."""
        exponent = np.minimum(exponent, self.high)
        mantissa = np.floor(fraction * 2.0**self.mantissa_bits).astype(np.int64)
        if not self.infinities:  # all ones is NaN
            mantissa = np.where(
                exponent == self.high, np.minimum(mantissa, (1 << self.mantissa_bits) - 2), mantissa
            )
        shift = np.clip(self.low - exponent, 0, self.mantissa_bits + 1)
        whole = (1 << self.mantissa_bits) + mantissa
        field = np.where(shift > 0, whole >> shift, mantissa + (exponent + self.bias << self.mantissa_bits))
        return self.place(field, negative)

    def place(self, field: Codes, negative: Codes) -> Codes:
        """Exponent and mantissa, and sign, in their bits."""
        sign = np.asarray(negative, np.int64) << self.exponent_bits + self.mantissa_bits
        return ((np.asarray(field, np.int64) | sign) << self.unused).astype(self.dtype)

    def specials(self) -> Codes:
        """Zeros, infinities, NaNs, the smallest and the largest numbers, of both signs."""
        top = ((1 << self.exponent_bits) - 1) << self.mantissa_bits
        ones = (1 << self.mantissa_bits) - 1
        if self.infinities:
            fields = [0, 1, ones, ones + 1, top - 1, top, top, top + 1, top + ones]
        else:
            fields = [0, 1, ones, ones + 1, top + ones - 1, top + ones]
        return np.concatenate([self.place(np.array(fields), sign) for sign in (0, 1)])


FORMATS = {
    "f16": Format(5, 10, 16),
    "bf16": Format(8, 7, 16),
    "tf32": Format(8, 10, 32, unused=13),
    "e4m3": Format(4, 3, 8, infinities=False),
    "e5m2": Format(5, 2, 8),
    "f32": Format(8, 23, 32),
}


def within(random: Random, format_: Format, shape: tuple[int, int], low: int, high: int) -> Codes:
    """Random signs and mantissas, exponents low..high as far as the format has them."""
    low, high = max(low, format_.low - format_.mantissa_bits), min(high, format_.high)
    return format_.codes(
        random.integers(0, 2, shape), random.integers(min(low, high), high + 1, shape), random.random(shape)
    )


def powers(format_: Format, exponent: Codes, negative: Codes) -> Codes:
    return format_.codes(negative, exponent, np.zeros(np.shape(exponent)))


def negated(format_: Format, codes: Codes) -> Codes:
    return codes ^ format_.dtype.type(1 << format_.storage - 1)


def similar(random: Random, a: Format, b: Format, d: Format, k: int, n: int) -> Operands:
    return (
        within(random, a, (ROWS, k), -2, 2),
        within(random, b, (n, k), -2, 2),
        within(random, d, (ROWS, n), -2, 5),
    )


def spread(random: Random, a: Format, b: Format, d: Format, k: int, n: int) -> Operands:
    return (
        within(random, a, (ROWS, k), -14, 14),
        within(random, b, (n, k), -10, 10),
        within(random, d, (ROWS, n), -40, 30),
    )


def patterns(random: Random, a: Format, b: Format, d: Format, k: int, n: int) -> Operands:
    """All exponents; products may overflow, no operand is infinite or NaN."""
    return tuple(  # type: ignore[return-value]
        within(random, f, shape, -200, 200) for f, shape in ((a, (ROWS, k)), (b, (n, k)), (d, (ROWS, n)))
    )


def specials(random: Random, a: Format, b: Format, d: Format, k: int, n: int) -> Operands:
    """Few infinities, NaNs, zeros and extremes among ordinary numbers."""
    found = []
    for codes, format_, rate in zip(
        similar(random, a, b, d, k, n), (a, b, d), (0.7 / k, 0.7 / k, 0.2), strict=True
    ):
        chosen = random.choice(format_.specials(), codes.shape)
        found.append(np.where(random.random(codes.shape) < rate, chosen, codes))
    return tuple(found)  # type: ignore[return-value]


def cancelling(random: Random, a: Format, b: Format, d: Format, k: int, n: int) -> Operands:
    """Products in pairs of opposite sign; in some the second one is a last place off. D cancels nothing."""
    left, right = within(random, a, (ROWS, k), -8, 8), within(random, b, (n, k), -4, 4)
    left[:, 1::2] = left[:, ::2]
    right[:, 1::2] = negated(b, right[:, ::2])
    odd = random.random((n, k // 2)) < 0.2
    right[:, 1::2] ^= odd.astype(b.dtype) << b.dtype.type(b.unused)
    order = random.permutation(k)
    return left[:, order], right[:, order], within(random, d, (ROWS, n), -20, 0)


def ladder(random: Random, a: Format, b: Format, d: Format, k: int, n: int) -> Operands:
    """One large product, one that gets smaller from row to row, at random places; D zero or any size."""
    left, right = np.zeros((ROWS, k), a.dtype), np.zeros((n, k), b.dtype)
    large, small = random.choice(k, 2, replace=False)
    row, column = np.arange(ROWS), np.arange(n)
    left[:, large] = a.codes(row % 2, np.full(ROWS, 6), random.random(ROWS))
    right[:, large] = b.codes(column // 2 % 2, np.full(n, 5), random.random(n))
    left[:, small] = a.codes(row // 2 % 2, 6 - row // 4, random.random(ROWS))
    right[:, small] = b.codes(column % 2, 3 - column % 8, random.random(n))
    before = within(random, d, (ROWS, n), -30, 30)
    before[:, ::2] = 0
    return left, right, before


def stairs(random: Random, a: Format, b: Format, d: Format, k: int, n: int) -> Operands:
    """D gets smaller from row to row against products of one size."""
    before = d.codes(
        random.integers(0, 2, (ROWS, n)),
        np.broadcast_to(30 - np.arange(ROWS)[:, None], (ROWS, n)),
        random.random((ROWS, n)),
    )
    left, right = within(random, a, (ROWS, k), 0, 1), within(random, b, (n, k), 0, 1)
    left[:, random.random(k) < 0.7] = 0
    return left, right, before


def subnormal(random: Random, a: Format, b: Format, d: Format, k: int, n: int) -> Operands:
    """Subnormal operands, and products and sums at the lower end of D."""
    low = a.low - a.mantissa_bits
    wanted = -152 if a.exponent_bits == 8 and d.exponent_bits == 8 else b.low - b.mantissa_bits
    first = wanted - low if a.exponent_bits == 8 else wanted
    return (
        within(random, a, (ROWS, k), low, a.low + 1),
        within(random, b, (n, k), first, first + 12),
        within(random, d, (ROWS, n), -149, -120 if d.exponent_bits == 8 else d.low),
    )


def denormalised(random: Random, a: Format, b: Format, d: Format, k: int, n: int) -> Operands:
    """Subnormal A, and D so small that the alignment decides how much of it stays."""
    low = a.low - a.mantissa_bits
    size = 8 if a.exponent_bits < 8 else 112  # of the smallest B
    first = max(-size, b.low) if a.exponent_bits < 8 else size
    left = within(random, a, (ROWS, k), low, a.low + 1)
    left[:, random.random(k) < 0.6] = 0
    bottom = low + first - 25 if a.mantissa_bits > 3 else low + first - 13
    before = within(random, d, (ROWS, n), bottom, bottom + 22)
    return left, within(random, b, (n, k), first, first + 4), before


def overflowing(random: Random, a: Format, b: Format, d: Format, k: int, n: int) -> Operands:
    """Products and sums at the upper end of D, as far as the operands reach it."""
    top = min(a.high + b.high, d.high + 1)
    half = min(a.high, top // 2 + 1)
    before = within(random, d, (ROWS, n), d.high - 3, d.high)
    before[:, ::4] = 0
    left, right = (
        within(random, a, (ROWS, k), half - 1, half),
        within(random, b, (n, k), top - half - 2, top - half),
    )
    left[:, random.random(k) < 0.5] = 0
    return left, right, before


def zeros(random: Random, a: Format, b: Format, d: Format, k: int, n: int) -> Operands:
    """Zeros of both signs times large numbers beside small products: do zeros count in the alignment?"""
    left, right = within(random, a, (ROWS, k), -13, -9), within(random, b, (n, k), -13, -9)
    large_a, large_b = (
        powers(f, np.full(s, 14), random.integers(0, 2, s)) for f, s in ((a, (ROWS, k)), (b, (n, k)))
    )
    zero_a, zero_b = (
        f.place(np.zeros(s, int), random.integers(0, 2, s)) for f, s in ((a, (ROWS, k)), (b, (n, k)))
    )
    which = np.arange(k) % 4
    left = np.select([which == 0, which == 1], [large_a, zero_a], left)
    right = np.select([which == 0, which == 1], [zero_b, large_b], right)
    left[::8], before = zero_a[::8], within(random, d, (ROWS, n), -40, -20)
    before[:, ::2] = d.place(np.zeros((ROWS, n // 2), int), random.integers(0, 2, (ROWS, n // 2)))
    order = random.permutation(k)
    return left[:, order].astype(a.dtype), right[:, order].astype(b.dtype), before


def carrying(random: Random, a: Format, b: Format, d: Format, k: int, n: int) -> Operands:
    """All products large and of one sign, so that the sum is wider than any of them."""
    ones = (1 << 20) / (1 << 20) - 2.0**-20
    left = a.codes(np.zeros((ROWS, k), int), random.integers(0, 2, (ROWS, k)), np.full((ROWS, k), ones))
    right = b.codes(np.zeros((n, k), int), random.integers(0, 2, (n, k)), np.full((n, k), ones))
    right[1::2] = negated(b, right[1::2])
    left[:, ::3] = within(random, a, (ROWS, len(range(0, k, 3))), -10, 1) & a.dtype.type(
        (1 << a.storage - 1) - 1
    )
    return left, right, within(random, d, (ROWS, n), -3, 6)


def halfway(random: Random, a: Format, b: Format, d: Format, k: int, n: int) -> Operands:
    """D plus powers of two around half of its last place."""
    left = powers(a, np.zeros((ROWS, k), int), random.integers(0, 2, (ROWS, k)))
    last = d.mantissa_bits + 1
    exponents = random.choice([-last - 2, -last - 1, -last, -last + 1, -13, -14, -15], (n, k))
    if b.exponent_bits < 8:  # both factors have to be small to get there
        left = powers(a, np.full((ROWS, k), -6), random.integers(0, 2, (ROWS, k)))
        exponents = np.maximum(exponents + 6, b.low - b.mantissa_bits)
    right = powers(b, exponents, random.integers(0, 2, (n, k)))
    left[:, random.random(k) < 0.6] = 0
    return left, right, within(random, d, (ROWS, n), -1, 1)


def pseudo_random_low_bits(random: Random, a: Format, b: Format, d: Format, k: int, n: int) -> Operands:
    """Bits set that the tensor core must not look at (tf32)."""
    left, right, before = similar(random, a, b, d, k, n)
    for codes, format_ in ((left, a), (right, b)):
        codes |= random.integers(0, 1 << format_.unused, codes.shape).astype(codes.dtype)
    return left, right, before


Kind = Callable[[Random, Format, Format, Format, int, int], Operands]
KINDS: dict[str, Kind] = {
    "similar": similar, "spread": spread, "patterns": patterns, "specials": specials,
    "cancelling": cancelling, "ladder": ladder, "stairs": stairs, "subnormal": subnormal,
    "overflowing": overflowing, "zeros": zeros, "carrying": carrying, "halfway": halfway,
    "denormalised": denormalised,
}  # fmt: skip
