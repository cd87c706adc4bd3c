"""tcgen05.cp (shared memory to tensor memory) and tcgen05.shift (PTX ISA 9.7.16.9).

Lane maps follow CUTLASS include/cute/atom/copy_traits_sm100.hpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from b200sim.faults import Fault, Unsupported
from b200sim.tensor_core.descriptors import SmemDescriptor, chunk_offsets
from b200sim.tensor_core.touch import Touch, shared, tensor
from b200sim.tensor_memory import LANES, TensorMemory, split_address

# shape -> (rows, bytes per row, legal multicast)
_SHAPES: dict[str, tuple[int, int, tuple[str | None, ...]]] = {
    "128x256b": (128, 32, (None,)),
    "128x128b": (128, 16, (None,)),
    "64x128b": (64, 16, ("warpx2::02_13", "warpx2::01_23")),
    "32x128b": (32, 16, ("warpx4",)),
    "4x256b": (4, 32, (None,)),
}
_SHIFTED_COLUMNS = 8  # 32 bytes


class CtaMemories(Protocol):
    smem: np.ndarray
    tmem: TensorMemory


def copy_to_tensor_memory(
    ctas: Sequence[CtaMemories],
    *,
    shape: str,
    multicast: str | None,
    address: int,
    descriptor: int,
    formats: str | None = None,
    touched: list[Touch] | None = None,
) -> None:
    """tcgen05.cp: each CTA copies rows of its own shared memory, through the same descriptor, into its own
    lanes.

    Row r, byte b goes to column + b / 4, byte b % 4 of the lanes that _destination_lanes names.
    Faults: cp_shape, cp_multicast, cp_lane, smem_out_of_bounds, tmem_*; Unsupported: decompression.
    """
    if formats:
        raise Unsupported(f"tcgen05.cp.{shape}{formats}: decompression while copying")
    if shape not in _SHAPES:
        raise Fault("cp_shape", f"tcgen05.cp shape {shape!r} is none of {', '.join(_SHAPES)}")
    rows, row_bytes, legal = _SHAPES[shape]
    if multicast not in legal:
        raise Fault(
            "cp_multicast",
            f"tcgen05.cp.{shape} with multicast {multicast}: must be {' or '.join(str(m) for m in legal)}",
        )
    lane, column = split_address(address)
    if lane >= 32 if shape == "4x256b" else lane != 0:
        raise Fault("cp_lane", f"tcgen05.cp.{shape} to lane {lane}: the destination must start at lane 0")
    source = SmemDescriptor.decode(descriptor)
    columns = row_bytes // 4
    if touched is not None:
        touched += copy_touches(len(ctas), shape, address, descriptor)
    for cta in ctas:
        for rectangle in _rectangles(shape, lane, column, columns):
            cta.tmem.check_range(*rectangle, f"destination of tcgen05.cp.{shape}")
        words = source.read_rows(cta.smem, rows, row_bytes, f"source of tcgen05.cp.{shape}").view(np.uint32)
        cells = cta.tmem.cells[:, column : column + columns]
        if shape == "4x256b":
            cells[lane::32] = words
        elif multicast == "warpx2::01_23":
            cells.reshape(2, 2, 32, columns)[:] = words.reshape(2, 1, 32, columns)
        else:
            cells.reshape(LANES // rows, rows, columns)[:] = words


def copy_touches(group: int, shape: str, address: int, descriptor: int) -> list[Touch]:
    """What a copy reads and writes in each of `group` CTAs."""
    rows, row_bytes, _ = _SHAPES[shape]
    lane, column = split_address(address)
    chunks = chunk_offsets(SmemDescriptor.decode(descriptor), False, rows, row_bytes)
    touched = []
    for i in range(group):
        touched.append(shared("source", i, chunks))
        touched += [
            tensor("destination", i, True, r) for r in _rectangles(shape, lane, column, row_bytes // 4)
        ]
    return touched


def shift_touches(group: int, address: int) -> list[Touch]:
    lane, column = split_address(address)
    touched = []
    for i in range(group):
        touched.append(tensor("source", i, False, (lane + 1, 31, column, _SHIFTED_COLUMNS)))
        touched.append(tensor("destination", i, True, (lane, 31, column, _SHIFTED_COLUMNS)))
    return touched


def _rectangles(shape: str, lane: int, column: int, columns: int) -> list[tuple[int, int, int, int]]:
    if shape == "4x256b":
        return [(lane + 32 * quarter, 1, column, columns) for quarter in range(4)]
    return [(0, LANES, column, columns)]


def shift_down(ctas: Sequence[CtaMemories], *, address: int, touched: list[Touch] | None = None) -> None:
    """tcgen05.shift.down: in 32 lanes and 8 columns, every row but the last takes the next row's value.

    Inferred from the PTX text ("downwards across all the rows, except the last", shape 31x256b) and from
    tcgen05.cp.4x256b, which CUTLASS documents as refilling the last row of each quarter afterwards.
    """
    lane, column = split_address(address)
    if lane % 32:
        raise Fault("shift_lane", f"tcgen05.shift at lane {lane}: must be a multiple of 32")
    if touched is not None:
        touched += shift_touches(len(ctas), address)
    for i, cta in enumerate(ctas):
        cta.tmem.check_range(lane, 32, column, _SHIFTED_COLUMNS, "tcgen05.shift")
        if touched is not None:
            touched.append(tensor("source", i, False, (lane + 1, 31, column, _SHIFTED_COLUMNS)))
            touched.append(tensor("destination", i, True, (lane, 31, column, _SHIFTED_COLUMNS)))
        cells = cta.tmem.cells[lane : lane + 32, column : column + _SHIFTED_COLUMNS]
        cells[:-1] = cells[1:].copy()
