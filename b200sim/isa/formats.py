"""Rounding fp32 lanes to narrower floating-point formats (PTX ISA 9.7.9.21)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from b200sim.faults import Unsupported
from b200sim.isa.rounding import narrowed

Lanes = NDArray[np.float32]
Codes = NDArray[np.unsignedinteger]


def narrow_float(name: str, saturate: bool, rounding: str = "rn") -> tuple[Callable[[Lanes], Codes], int]:
    """The function from fp32 lanes to codes of format `name`, to nearest even or toward zero (`rz`, of f16
    and bf16 alone), and its width in bits.

    f16 and bf16 overflow to infinity unless `saturate`; the 8- and 4-bit formats have no infinity and
    always saturate. NaN becomes the format's NaN, or +6 for e2m1, which has none.
    """
    if rounding == "rz":
        return (lambda x: _truncated(x, name, saturate)), 16
    if name == "f16":
        return (lambda x: _half(x, saturate)), 16
    if name == "bf16":
        return (lambda x: _brain(x, saturate)), 16
    if name in ("e4m3", "e5m2", "e2m1", "e2m3", "e3m2"):
        table = _small_format(name)
        return (lambda x: _nearest(x, table)), {"e4m3": 8, "e5m2": 8, "e2m1": 4, "e2m3": 8, "e3m2": 8}[name]
    raise Unsupported(f"conversion to {name}")


def half_codes(name: str) -> tuple[NDArray[np.uint16], int]:
    """fp16 patterns of all codes of a small format, exact, and the width of a code in bits."""
    table = _small_format(name)
    magnitudes = np.full(table.sign_bit, np.nan)
    magnitudes[: len(table.values)] = table.values
    if name == "e5m2":
        magnitudes[len(table.values)] = np.inf
    codes = _half(np.concatenate([magnitudes, -magnitudes]).astype(np.float32), False)
    return codes.astype(np.uint16), table.sign_bit.bit_length()


def scale_codes(x: Lanes, up: bool, saturate: bool) -> Codes:
    """ue8m0: the exponent of |x|, rounded up to a power of two or down; 0 stands for 2^-127 and all below,
    255 for NaN and, unless `saturate`, for what is too large (cuda_fp8.hpp, __nv_cvt_float_to_e8m0)."""
    word = np.ascontiguousarray(x).view(np.uint32) & np.uint32(0x7FFFFFFF)
    exponent = word >> np.uint32(23)
    if up:
        above = (word & np.uint32(0x7FFFFF) != 0) & (word > 0x00400000) & (word < 0x7F800000)
        exponent = exponent + above
    if saturate:
        exponent = np.where((exponent == 255) & ~np.isnan(x), np.uint32(254), exponent)
    return exponent.astype(np.uint8)


def _truncated(x: Lanes, name: str, saturate: bool) -> Codes:
    """fp32 to f16 or bf16 toward zero: finite numbers stay finite."""
    if name == "f16":
        codes = np.ascontiguousarray(narrowed(x.astype(np.float64), np.float16, "rz")).view(np.uint16)
        infinity = 0x7C00
    else:
        codes, infinity = (np.ascontiguousarray(x).view(np.uint32) >> 16).astype(np.uint16), 0x7F80
    if saturate:
        codes = np.where(codes & 0x7FFF == infinity, codes - np.uint16(1), codes)
    return np.where(np.isnan(x), np.uint16(0x7FFF), codes)


def _half(x: Lanes, saturate: bool) -> Codes:
    if saturate:
        x = np.clip(x, -65504, 65504)
    with np.errstate(over="ignore"):
        codes: Codes = x.astype(np.float16).view(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FFF), codes)


def _brain(x: Lanes, saturate: bool) -> Codes:
    word = x.view(np.uint32)
    codes = ((word + 0x7FFF + (word >> 16 & 1)) >> 16).astype(np.uint16)
    if saturate:
        largest = np.where(word >> 31, 0xFF7F, 0x7F7F).astype(np.uint16)
        codes = np.where(codes & 0x7FFF == 0x7F80, largest, codes)
    return np.where(np.isnan(x), np.uint16(0x7FFF), codes)


class _Table:
    """The non-negative finite values of a small format in order; a value's index is its code."""

    def __init__(self, values: list[float], sign_bit: int, nan_code: int) -> None:
        self.values = np.array(values)
        self.middles = (self.values[1:] + self.values[:-1]) / 2
        self.sign_bit = sign_bit
        self.nan_code = nan_code


def _small_format(name: str) -> _Table:
    exponent_bits, mantissa_bits = int(name[1]), int(name[3])
    bias = (1 << exponent_bits - 1) - 1
    codes = 1 << exponent_bits + mantissa_bits
    values = []
    for code in range(codes):
        exponent, mantissa = code >> mantissa_bits, code & ((1 << mantissa_bits) - 1)
        fraction = mantissa / (1 << mantissa_bits)
        values.append(
            2.0 ** (1 - bias) * fraction if exponent == 0 else 2.0 ** (exponent - bias) * (1 + fraction)
        )
    finite = {"e4m3": codes - 1, "e5m2": codes - 4}.get(name, codes)
    nan_code = {"e4m3": 0x7F, "e5m2": 0x7F}.get(name, codes - 1)
    return _Table(values[:finite], codes, nan_code)


def _nearest(x: Lanes, table: _Table) -> Codes:
    magnitude = np.abs(x.astype(np.float64))
    below = np.searchsorted(table.middles, magnitude, side="left")
    on_middle = (below < len(table.middles)) & (
        table.middles[np.minimum(below, len(table.middles) - 1)] == magnitude
    )
    code = np.where(on_middle & (below % 2 == 1), below + 1, below)  # a tie goes to the even code
    code = np.where(np.signbit(x), code | table.sign_bit, code)
    return np.where(np.isnan(x), table.nan_code, code).astype(np.uint8)
