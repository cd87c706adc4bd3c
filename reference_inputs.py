"""Inputs of the problem: the official random draws, and two harder distributions.

- "official": what the competition draws. e2m1 codes with bit 2 cleared (0, ±0.5, ±1, ±1.5), scales 1 or 2;
  padding of the reordered scales: 1 or 2.
- "full": every e2m1 code, every finite unsigned e4m3 scale (0x00..0x7E: zero, subnormals, 448). Of every
  eight rows of an operand, one (index 7 mod 8) draws from all scales, one (3 mod 8) from zero, the subnormals
  and the two smallest binades, the others from scales up to 4: results overflow float16 where two loud rows
  meet, are about 1 where two quiet rows meet, and are ordinary elsewhere. Padding: any of these scales.
- "nan_padding": official values, but the padding of the reordered scales (rows past m or n up to a multiple
  of 128, scales past k/16 up to a multiple of 4) holds NaN bytes, 0x7F and 0xFF in turn. A kernel may load
  padding, but no padding may reach a result.

Negative scales do not occur: the tensor cores read scales as UE4M3 and ignore bit 7.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

DISTRIBUTIONS = ("official", "full", "nan_padding")

_KEPT_BITS = 0b1011_1011  # of each nibble: the sign and the two low bits
_FINITE_SCALES = 0x7F  # bytes 0x00..0x7E
_ORDINARY_SCALES = 0x49  # bytes 0x00..0x48: up to 4.0
_QUIET_SCALES = 0x18  # bytes 0x00..0x17: up to 15 * 2**-8

Operand = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def draw_values(rows: int, k: int, distribution: str, device: torch.device) -> torch.Tensor:
    """float4_e2m1fn_x2 (rows, k/2, 1), strides (k/2, 1, rows*k/2)."""
    if distribution == "full":
        packed = torch.randint(256, size=(1, rows, k // 2), dtype=torch.uint8, device=device)
    else:
        # The official generator never draws 255; the mask folds it onto other bytes anyway.
        packed = torch.randint(255, size=(1, rows, k // 2), dtype=torch.uint8, device=device) & _KEPT_BITS
    return packed.permute(1, 2, 0).view(torch.float4_e2m1fn_x2)


def draw_scales(rows: int, k: int, distribution: str) -> torch.Tensor:
    """float8_e4m3fn (rows, k/16, 1) on the CPU, strides (k/16, 1, rows*k/16)."""
    shape = (1, rows, ceil_div(k, 16))
    if distribution == "full":
        scales = torch.randint(_ORDINARY_SCALES, shape, dtype=torch.uint8)
        for first, limit in ((3, _QUIET_SCALES), (7, _FINITE_SCALES)):
            scales[:, first::8] = torch.randint(limit, scales[:, first::8].shape, dtype=torch.uint8)
        scales = scales.view(torch.float8_e4m3fn)
    else:
        scales = torch.randint(1, 3, shape, dtype=torch.int8).to(torch.float8_e4m3fn)
    return scales.permute(1, 2, 0)


def draw_padding(shape: tuple[int, ...], distribution: str, device: torch.device) -> torch.Tensor:
    """uint8 of `shape`: what the reordered scale tensor holds before the real scales are written over it."""
    if distribution == "nan_padding":
        count = torch.Size(shape).numel()
        return (torch.arange(count, device=device) % 2 * 0x80 + 0x7F).to(torch.uint8).reshape(shape)
    if distribution == "full":
        return torch.randint(_FINITE_SCALES, shape, dtype=torch.uint8, device=device)
    ones_and_twos = torch.randint(1, 3, shape, dtype=torch.int8, device=device)
    return ones_and_twos.to(torch.float8_e4m3fn).view(torch.uint8)


def reorder_scales(scales: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
    """Scales (rows, k/16, l) in the 128x4 blocked layout of cuBLAS and the tensor cores.

    `padding` is uint8 (l, ceil(rows/128), ceil(k/64), 32, 4, 4), contiguous, on the target device; it becomes
    the memory of the result: float8_e4m3fn (32, 4, rest_rows, 4, rest_k, l), where the scale of (row, block)
    lies at byte ((row//128)*rest_k + block//4)*512 + (row%32)*16 + (row%128//32)*4 + block%4.
    Source: cuBLAS documentation, "1D block scaling factors layout".
    """
    rows, blocks, _ = scales.shape
    batch, rest_rows, rest_k = padding.shape[:3]
    # (l, rest_rows, rest_k, 32, 4, 4) -> (l, rest_rows, 4, 32, rest_k, 4): rows and blocks in plain order
    plain = padding.permute(0, 1, 4, 3, 2, 5).reshape(batch, rest_rows * 128, rest_k * 4)
    plain[:, :rows, :blocks] = scales.view(torch.uint8).permute(2, 0, 1).to(padding.device)
    padding.copy_(plain.reshape(batch, rest_rows, 4, 32, rest_k, 4).permute(0, 1, 4, 3, 2, 5))
    return padding.view(torch.float8_e4m3fn).permute(3, 4, 1, 5, 2, 0)


def draw_reordered(scales: torch.Tensor, distribution: str, device: torch.device) -> torch.Tensor:
    """`reorder_scales` over freshly drawn padding."""
    rows, blocks, batch = scales.shape
    shape = (batch, ceil_div(rows, 128), ceil_div(blocks, 4), 32, 4, 4)
    return reorder_scales(scales, draw_padding(shape, distribution, device))


def check_sizes(m: Sequence[int], n: Sequence[int], k: Sequence[int], g: int, distribution: str) -> None:
    """Raise ValueError naming the field and group if these sizes are not a case of this problem."""
    if g < 1:
        raise ValueError(f"g = {g}: at least one group is needed")
    for name, sizes, step in (("m", m, 1), ("n", n, 8), ("k", k, 64)):
        if len(sizes) != g:
            raise ValueError(f"{name} has {len(sizes)} entries for g = {g} groups")
        for group, size in enumerate(sizes):
            if size < step or size % step:
                raise ValueError(f"{name}[{group}] = {size}: expected a positive multiple of {step}")
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"distribution {distribution!r}: expected one of {', '.join(DISTRIBUTIONS)}")
