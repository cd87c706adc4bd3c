"""Exact arithmetic on NVFP4 operands: decode, multiply without rounding, round once to float16.

NVFP4 stores e2m1 values (two to a byte, low nibble first) with one e4m3 scale for every 16 along K:

    value(row, k) = e2m1(row, k) * e4m3(row, k // 16)

Every dequantised value is an integer number of units of 2**-10 (0.5 * 2**-9) and at most 6 * 448 = 2688, with
at most 6 significant bits (2 from e2m1, 4 from e4m3). The widths of K, the scales that occur and these facts
bound every partial sum, in any order of summation; `exact_gemm` picks the cheapest arithmetic in which a sum
below that bound cannot round.
"""

from __future__ import annotations

import math

import numpy as np
import torch

SCALE_VECTOR = 16  # e2m1 values that share one scale
E2M1_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # codes 0..7; codes 8..15 are their negatives
E2M1_UNIT, E2M1_MAX = 0.5, 6.0
FP16_OVERFLOW = 65520.0  # the tie between 65504 and 65536; from here on round-to-nearest-even gives infinity

_LIMB_BITS = 11
_MAX_K = 1 << 20  # beyond this the integer sums of the two-limb path could leave int64


def e2m1_pairs() -> np.ndarray:
    """float32 (256, 2): the two e2m1 values in every byte, element 2i in the low nibble (cuBLAS, torch)."""
    values = np.array(E2M1_VALUES + tuple(-v for v in E2M1_VALUES), dtype=np.float32)
    codes = np.arange(256)
    return np.stack([values[codes & 15], values[codes >> 4]], axis=1)


def dequantise(packed: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """float32 (rows, k) on the device of `packed`: exact, since 6 significant bits fit in float32's 24.

    `packed` is float4_e2m1fn_x2 or uint8 (rows, k/2), `scales` float8_e4m3fn (rows, k/16) on any device.
    """
    rows, half = packed.shape
    codes = packed.view(torch.uint8)
    if packed.device.type == "cpu":
        # One lookup of 8 bytes per packed byte: numpy's `take` is several times faster here than torch's.
        table = e2m1_pairs().view(np.complex64).reshape(256)
        values = torch.from_numpy(table.take(codes.contiguous().numpy()).view(np.float32))
    else:
        values = torch.from_numpy(e2m1_pairs()).to(packed.device)[codes.long()]
    blocks = values.reshape(rows, half * 2 // SCALE_VECTOR, SCALE_VECTOR)
    return blocks.mul_(scales.to(packed.device).float().unsqueeze(-1)).reshape(rows, half * 2)


def scale_range(scales: torch.Tensor) -> tuple[float, float]:
    """(unit, largest) of the scales that occur: all are integer multiples of the power of two `unit`.

    Raises ValueError if a scale is NaN (bytes 0x7F, 0xFF): there is no exact answer then.
    """
    present = torch.bincount(scales.view(torch.uint8).reshape(-1).int(), minlength=256).nonzero().reshape(-1)
    values = present.to(torch.uint8).view(torch.float8_e4m3fn).double().abs().tolist()
    if any(math.isnan(v) for v in values):
        raise ValueError("a scale inside the problem is NaN (byte 0x7F or 0xFF): no exact result exists")
    ticks = [int(v * 512) for v in values if v]  # e4m3 is a multiple of 2**-9
    unit = min((t & -t for t in ticks), default=512) / 512
    return unit, max(values, default=0.0)


def sum_bound(k: int, scales_a: torch.Tensor, scales_b: torch.Tensor) -> int:
    """Upper bound of |any partial sum of any subset of the products|, in units of the products' common unit.

    A sum of integers below 2**24 (2**53) is exact in float32 (float64) in any order, fused or not, rounded
    to nearest or truncated. For the official inputs (scales 1 and 2) this is 144 * 4 * k: float32 is exact
    up to k = 29127.
    """
    unit_a, max_a = scale_range(scales_a)
    unit_b, max_b = scale_range(scales_b)
    return int(k * (E2M1_MAX / E2M1_UNIT) ** 2 * (max_a / unit_a) * (max_b / unit_b))


def float32_sums_are_exact(k: int, scales_a: torch.Tensor, scales_b: torch.Tensor) -> bool:
    """True if a kernel that accumulates in float32, in whatever order, owes the bit-exact result."""
    return sum_bound(k, scales_a, scales_b) <= 1 << 24


def exact_gemm(
    a: torch.Tensor, scales_a: torch.Tensor, b: torch.Tensor, scales_b: torch.Tensor
) -> torch.Tensor:
    """A @ B.T, exact: float32 or float64 (m, n) on the device of `a`, in which no sum was ever rounded.

    `a` (m, k/2) and `b` (n, k/2) are packed e2m1, `scales_a` (m, k/16) and `scales_b` (n, k/16) e4m3.

    With `bound` from `sum_bound`:
    - bound <= 2**24: float32 GEMM on the CPU. All partial sums are integers (in units) below 2**24. BLAS may
      even drop the operands to bfloat16: their 6 significant bits fit. (Not on CUDA, where the process under
      test may have changed how float32 products are made; float64 is used there.)
    - bound <= 2**53: float64 GEMM, by the same argument.
    - above: A is split into two limbs, A = high * 2**11 + low in units of 2**-10. Each limb is at most 2**11,
      |B| <= 2688 * 2**10 < 2**21.4 units, so a limb's products with B sum below 2**53 for every k <= 2**20:
      two exact float64 GEMMs, combined in int64. Sums of 2**53 units (2**33 as a value) and more are clamped
      to that: both are infinite in float16.

    Raises ValueError for a NaN scale and for k > 2**20.
    """
    k = a.shape[1] * 2
    if k > _MAX_K:
        raise ValueError(f"k = {k}: exact sums are proven only up to k = {_MAX_K}")
    bound = sum_bound(k, scales_a, scales_b)
    left, right = dequantise(a, scales_a), dequantise(b, scales_b)
    if bound <= 1 << 24 and a.device.type == "cpu":
        return left @ right.T
    if bound <= 1 << 53:
        return left.double() @ right.double().T
    units_a, units_b = left.double().mul_(1024), right.double().mul_(1024).T
    high = torch.floor(units_a / (1 << _LIMB_BITS))
    low = units_a - high * (1 << _LIMB_BITS)
    total = ((high @ units_b).long() << _LIMB_BITS) + (low @ units_b).long()
    return total.clamp_(-(1 << 53), 1 << 53).double() * 2.0**-20


def absolute_gemm(
    a: torch.Tensor, scales_a: torch.Tensor, b: torch.Tensor, scales_b: torch.Tensor
) -> torch.Tensor:
    """|A| @ |B|.T in float64, good to k * 2**-53: the size that rounding errors of a kernel scale with."""
    return dequantise(a, scales_a).abs().double() @ dequantise(b, scales_b).abs().double().T


def round_to_float16(exact: torch.Tensor) -> torch.Tensor:
    """Round float32 or float64 values once, to nearest even; from 65520 on the result is infinite.

    torch converts float64 to float16 through float32, which rounds twice. Here such a value is first rounded
    to float16's own grid in float64 (scaling by powers of two and `round` are exact), so that the
    conversions have nothing left to round. A zero becomes +0.
    """
    if exact.dtype == torch.float32:
        return exact.half() + 0.0
    values = exact
    exponent = (
        torch.frexp(values).exponent.clamp(min=-13) - 11
    )  # of float16's unit at |value|; subnormals 2**-24
    grid = (exponent.long() + 1023 << 52).view(torch.float64)  # 2.0**exponent, from its bits
    return (torch.round(values / grid) * grid + 0.0).float().half()
