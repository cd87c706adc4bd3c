"""Sums and products with one rounding, in every direction that PTX knows (PTX ISA 9.7.3).

For operands up to fp32 the exact result is rounded to odd in double first: a double that is not the exact
value has an odd last bit, so it lies on the same side of every number of the narrower format, and of every
middle between two, as the exact value does (Boldo and Melquiond, 2008). For fp64 it is integers, by lane.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
DIRECTIONS = ("rn", "rz", "rm", "rp")  # to nearest even, toward zero, down, up


def odd_fused(a: Any, b: Any, c: Any) -> Doubles:
    """a * b + c rounded to odd; the operands have at most 24 significant bits."""
    x, y, z = (np.asarray(value, np.float64) for value in (a, b, c))
    product = x * y  # exact
    total = product + z
    back = total - product
    error = (product - (total - back)) + (z - back)  # TwoSum: exact
    bits = np.ascontiguousarray(total).view(np.int64)
    inexact = (error != 0) & np.isfinite(total)
    toward = np.where((error > 0) == (total > 0), 1, -1)
    return np.where(inexact & (bits & 1 == 0), bits + toward, bits).view(np.float64)


def narrowed(exact: Doubles, dtype: Any, direction: str) -> Any:
    """A double, exact or rounded to odd, to fp16 or fp32."""
    with np.errstate(over="ignore"):
        near = exact.astype(dtype)
    if direction == "rn":
        return near
    step_down = near > exact if direction != "rp" else np.zeros(near.shape, bool)
    step_up = near < exact if direction != "rm" else np.zeros(near.shape, bool)
    if direction == "rz":
        step_down, step_up = step_down & (exact > 0), step_up & (exact < 0)
    lower = np.nextafter(near, np.asarray(-np.inf, dtype))
    upper = np.nextafter(near, np.asarray(np.inf, dtype))
    return np.where(step_down, lower, np.where(step_up, upper, near))


def brain_codes(exact: Doubles, direction: str = "rn") -> NDArray[np.uint16]:
    """A double, exact or rounded to odd, to bf16 patterns; NaN is 0x7FFF."""
    with np.errstate(over="ignore"):
        near = exact.astype(np.float32)
    toward_zero = np.where(np.abs(near) > np.abs(exact), np.nextafter(near, np.float32(0)), near)
    word = np.ascontiguousarray(toward_zero).view(np.uint32)
    word = word | (toward_zero != exact)  # to odd
    if direction == "rn":
        word = word + 0x7FFF + (word >> 16 & 1)
    elif direction != "rz":
        away = np.signbit(exact) == (direction == "rm")
        word = np.where(away & np.isfinite(exact), word + 0xFFFF, word)
    codes = (word >> 16).astype(np.uint16)
    return np.where(np.isnan(exact), np.uint16(0x7FFF), codes)


def from_integers(numbers: Any, to: str, direction: str) -> NDArray[np.unsignedinteger]:
    """An array of integers to patterns of f16, bf16, f32 or f64."""
    if to == "f64":
        exact = [_rounded(number, 0, direction) if number else 0.0 for number in numbers.tolist()]
        return np.array(exact, np.float64).view(np.uint64)
    odd = np.array([_odd(number) for number in numbers.tolist()], np.float64)
    if to == "bf16":
        return brain_codes(odd, direction)
    dtype, code = (np.float32, np.uint32) if to == "f32" else (np.float16, np.uint16)
    return np.ascontiguousarray(narrowed(odd, dtype, direction)).view(code)  # type: ignore[no-any-return]


def _odd(number: int) -> float:
    """An integer as a double, rounded to odd."""
    magnitude = abs(number)
    drop = max(magnitude.bit_length() - 53, 0)
    kept = magnitude >> drop | bool(magnitude & (1 << drop) - 1)
    return math.copysign(math.ldexp(kept, drop), number)


def fused(direction: str, dtype: Any) -> Callable[[Any, Any, Any], Any]:
    """a * b + c on arrays of fp16 or fp32 (`dtype`)."""

    def compute(a: Any, b: Any, c: Any) -> Any:
        exact = odd_fused(a, b, c)
        if direction == "rm":  # x - x is -0
            plus = ~(np.signbit(a) ^ np.signbit(b)) & ~np.signbit(c)
            exact = np.where((exact == 0) & ~plus, -0.0, exact)
        return narrowed(exact, dtype, direction)

    return compute


def fused_doubles(direction: str) -> Callable[[Any, Any, Any], Any]:
    """a * b + c on arrays of fp64."""

    def compute(a: Any, b: Any, c: Any) -> Any:
        rows = zip(*(np.broadcast_arrays(a, b, c)), strict=True)
        return np.array([_fused_double(float(x), float(y), float(z), direction) for x, y, z in rows])

    return compute


def _fused_double(a: float, b: float, c: float, direction: str) -> float:
    if not (math.isfinite(a) and math.isfinite(b)):
        return float(np.float64(a) * np.float64(b) + np.float64(c))
    if not math.isfinite(c):
        return c
    product, scale = _times(_parts(a), _parts(b))
    addend, addend_scale = _parts(c)
    low = min(scale, addend_scale)
    total = (product << scale - low) + (addend << addend_scale - low)
    if total == 0:
        sign = math.copysign(1, a) * math.copysign(1, b)
        if sign == math.copysign(1, c):  # also where the product is 0 and c is of its sign
            return math.copysign(0.0, c)
        return -0.0 if direction == "rm" else 0.0
    return _rounded(total, low, direction)


def _parts(value: float) -> tuple[int, int]:
    """(m, e) with value = m * 2^e."""
    mantissa, exponent = math.frexp(value)
    return int(mantissa * 2**53), exponent - 53


def _times(x: tuple[int, int], y: tuple[int, int]) -> tuple[int, int]:
    return x[0] * y[0], x[1] + y[1]


def _rounded(number: int, scale: int, direction: str) -> float:
    """number * 2^scale as fp64; number is not 0."""
    negative, magnitude = number < 0, abs(number)
    drop = max(magnitude.bit_length() - 53, -1074 - scale)
    if drop > 0:
        rest = magnitude & (1 << drop) - 1
        magnitude >>= drop
        scale += drop
        half = 1 << drop - 1
        up = {
            "rn": rest > half or (rest == half and magnitude & 1),
            "rz": False,
            "rm": negative and rest,
            "rp": not negative and rest,
        }[direction]
        magnitude += bool(up)
    try:
        value = math.ldexp(magnitude, scale)
    except OverflowError:
        away = direction == "rn" or direction == ("rm" if negative else "rp")
        value = math.inf if away else math.nextafter(math.inf, 0)
    return -value if negative else value
