"""Tensor memory of one CTA: 128 lanes x 512 columns of 32-bit cells, its allocator, tcgen05.ld and
tcgen05.st.

Sources: PTX ISA 9.7.16.1 (addressing), 9.7.16.7 (alloc, dealloc), 9.7.16.8 (ld, st, access restrictions); the
register-to-cell maps of the 16-lane shapes follow CUTLASS, include/cute/atom/copy_traits_sm100.hpp.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from b200sim.faults import Fault

LANES = 128
COLUMNS = 512
POISON = 0xFFFFFFFF
ALLOCATION_UNIT = 32

_REGISTERS_PER_NUM = {"32x32b": 1, "16x64b": 1, "16x128b": 2, "16x256b": 4, "16x32bx2": 1}
_COLUMNS_PER_NUM = {"32x32b": 1, "16x64b": 2, "16x128b": 4, "16x256b": 8, "16x32bx2": 1}
_MAX_REGISTERS = 128


def split_address(taddr: int) -> tuple[int, int]:
    """(lane, column) of a tensor memory address: lane << 16 | column.

    Bits 31:30 carry CuTe's sub-word (scale factor) id and are no part of the lane.
    """
    return taddr >> 16 & 0x3FFF, taddr & 0xFFFF


def register_count(shape: str, num: int) -> int:
    """32-bit registers per thread of `tcgen05.ld/st.<shape>.x<num>` (PTX ISA table 49), packed or not."""
    per_num = _REGISTERS_PER_NUM.get(shape)
    if per_num is None:
        raise Fault("tmem_shape", f"shape {shape!r} is none of {', '.join(_REGISTERS_PER_NUM)}")
    registers = per_num * num
    if num < 1 or num & (num - 1) or registers > _MAX_REGISTERS:
        limit = _MAX_REGISTERS // per_num
        raise Fault("tmem_shape", f".{shape}.x{num}: the repeat count must be a power of two up to {limit}")
    return registers


class TensorMemory:
    """The cells of one CTA and who owns which columns.

    `cells` is uint32 (128 lanes, 512 columns), poisoned with 0xFFFFFFFF. Addresses returned and taken are PTX
    addresses: lane << 16 | column.
    """

    def __init__(self) -> None:
        self.cells = np.full((LANES, COLUMNS), POISON, dtype=np.uint32)
        self.allocations: dict[int, int] = {}
        self.relinquished = False
        self._owned = 0  # bit c: column c is allocated

    # ---- allocation (PTX ISA 9.7.16.7)

    def allocate(self, columns: int) -> int | None:
        """tcgen05.alloc: address of the lowest free block aligned to its size; None: wait for a free().

        Faults: tmem_alloc_size, tmem_alloc_after_relinquish.
        """
        if columns not in (32, 64, 128, 256, 512):
            raise Fault("tmem_alloc_size", f"allocating {columns} columns: must be 32, 64, 128, 256 or 512")
        if self.relinquished:
            raise Fault(
                "tmem_alloc_after_relinquish",
                f"allocating {columns} columns after tcgen05.relinquish_alloc_permit gave up the right to",
            )
        block = (1 << columns) - 1
        for column in range(0, COLUMNS, columns):
            if not self._owned & block << column:
                self._owned |= block << column
                self.allocations[column] = columns
                return column
        return None

    def free(self, address: int, columns: int) -> None:
        """tcgen05.dealloc: must name exactly one live allocation. Fault: tmem_free_mismatch."""
        lane, column = split_address(address)
        if lane or self.allocations.get(column) != columns:
            raise Fault(
                "tmem_free_mismatch",
                f"deallocating {columns} columns at {address:#x}: live allocations are {self._describe()}",
            )
        del self.allocations[column]
        self._owned &= ~((1 << columns) - 1 << column)

    def relinquish(self) -> None:
        """tcgen05.relinquish_alloc_permit: no allocation of this CTA may follow."""
        self.relinquished = True

    def check_leaks(self) -> None:
        """Call when the CTA exits: everything must have been deallocated. Fault: tmem_leak."""
        if self.allocations:
            raise Fault("tmem_leak", f"the CTA exits without deallocating {self._describe()}")

    def _describe(self) -> str:
        blocks = [f"columns {c}..{c + n - 1}" for c, n in sorted(self.allocations.items())]
        return ", ".join(blocks) or "none"

    def check_range(self, lane: int, lanes: int, column: int, columns: int, what: str) -> None:
        """Fault unless the rectangle is inside the memory and its columns are allocated.

        Faults: tmem_out_of_range, tmem_not_allocated.
        """
        if lane < 0 or column < 0 or lane + lanes > LANES or column + columns > COLUMNS:
            raise Fault(
                "tmem_out_of_range",
                f"{what}: lanes {lane}..{lane + lanes - 1}, columns {column}..{column + columns - 1} "
                f"leave the {LANES} lanes x {COLUMNS} columns of tensor memory",
            )
        if ((1 << columns) - 1 << column) & ~self._owned:
            raise Fault(
                "tmem_not_allocated",
                f"{what}: columns {column}..{column + columns - 1} are not all allocated; "
                f"allocated: {self._describe()}",
            )

    # ---- tcgen05.ld, tcgen05.st

    def load(
        self, shape: str, num: int, taddr: int, warp: int, pack16: bool = False, half_split: int = 0
    ) -> np.ndarray:
        """tcgen05.ld.<shape>.x<num>[.pack::16b]: uint32 (registers, 32 threads), a fresh array.

        `warp` is the warp's id in its CTA: it reaches lanes 32*(warp % 4) .. +31 only. `half_split` is
        immHalfSplitoff of 16x32bx2. Packing joins the low halves of two adjacent columns, even column low.
        Faults: tmem_shape, tmem_lane_ownership, tmem_out_of_range, tmem_not_allocated.
        """
        lane, column = self._check_access("tcgen05.ld", shape, num, taddr, warp, pack16, half_split)
        if shape == "32x32b" and not pack16:
            return self.cells[lane : lane + 32, column : column + num].T.copy()
        cells = self.cells.reshape(-1)
        first = lane * COLUMNS + column
        if not pack16:
            return cells[cell_indices(shape, num, 1, half_split) + first]
        even = cell_indices(shape, num, 2, half_split) + first
        return (cells[even] & 0xFFFF) | cells[even + 1] << np.uint32(16)

    def store(
        self,
        shape: str,
        num: int,
        taddr: int,
        warp: int,
        registers: np.ndarray,
        unpack16: bool = False,
        half_split: int = 0,
    ) -> None:
        """tcgen05.st.<shape>.x<num>[.unpack::16b]: the reverse of load; `registers` uint32 (registers, 32).

        Unpacking writes each half into the low half of its own column and clears the upper half.
        """
        lane, column = self._check_access("tcgen05.st", shape, num, taddr, warp, unpack16, half_split)
        if shape == "32x32b" and not unpack16:
            self.cells[lane : lane + 32, column : column + num] = registers.T
            return
        cells = self.cells.reshape(-1)
        first = lane * COLUMNS + column
        if not unpack16:
            cells[cell_indices(shape, num, 1, half_split) + first] = registers
            return
        even = cell_indices(shape, num, 2, half_split) + first
        cells[even] = registers & 0xFFFF
        cells[even + 1] = registers >> 16

    def span(
        self, shape: str, num: int, taddr: int, pack16: bool = False, half_split: int = 0
    ) -> list[tuple[int, int, int, int]]:
        """The rectangles (lane, lanes, column, columns) that such a load or store touches."""
        register_count(shape, num)
        lane, column = split_address(taddr)
        columns = _COLUMNS_PER_NUM[shape] * num * (2 if pack16 else 1)
        if shape == "16x32bx2":
            return [(lane, 16, column, columns), (lane, 16, column + half_split, columns)]
        return [(lane, 32 if shape == "32x32b" else 16, column, columns)]

    def _check_access(
        self, what: str, shape: str, num: int, taddr: int, warp: int, pack16: bool, half_split: int
    ) -> tuple[int, int]:
        name = f"{what}.{shape}.x{num}"
        rectangles = self.span(shape, num, taddr, pack16, half_split)
        for lane, lanes, column, columns in rectangles:
            self.check_range(lane, lanes, column, columns, name)
        lane, lanes, column, _ = rectangles[0]
        first = 32 * (warp % 4)
        if lane != first and not (lanes == 16 and lane == first + 16):
            legal = f"{first}" if lanes == 32 else f"{first} or {first + 16}"
            raise Fault(
                "tmem_lane_ownership",
                f"{name} by warp {warp} at lane {lane}: warp {warp % 4} of a warpgroup owns lanes "
                f"{first}..{first + 31}, so the address must name lane {legal}",
            )
        return lane, column


@lru_cache(maxsize=256)
def cell_indices(shape: str, num: int, spread: int, half_split: int) -> np.ndarray:
    """Flat cell index, relative to (lane base, column), of [register, thread].

    `spread` is 2 for packed accesses, whose logical column c lives in columns 2c and 2c+1.
    """
    register = np.arange(register_count(shape, num))[:, None]
    thread = np.arange(32)[None, :]
    split: np.ndarray | int = 0
    if shape == "32x32b":
        lane, column = thread, register
    elif shape == "16x64b":
        lane, column = 8 * (thread & 1) + thread // 4, 2 * register + (thread >> 1 & 1)
    elif shape == "16x128b":
        lane, column = thread // 4 + 8 * (register % 2), 4 * (register // 2) + thread % 4
    elif shape == "16x256b":
        lane = thread // 4 + 8 * (register // 2 % 2)
        column = 8 * (register // 4) + 2 * (thread % 4) + register % 2
    else:  # 16x32bx2: two accesses of 16 lanes, threads 16..31 take the second
        lane, column = thread % 16, register
        split = np.where(thread >= 16, half_split, 0)
    indices = np.asarray(lane * COLUMNS + column * spread + split, dtype=np.intp)
    indices.setflags(write=False)
    return indices
