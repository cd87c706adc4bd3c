"""Who wrote each cell of global memory last in this launch, and who has read it since.

An allocation costs nothing until the kernel writes to it: reads before that are put on a list, and played
back at the first write. Where operations may meet without being a race (atomic ones, reductions), several
are the last ones; so cells hold the number of a set of acts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from b200sim.sanitizer.locations import Act

if TYPE_CHECKING:
    from b200sim.global_memory import Allocation, GlobalMemory
    from b200sim.tma.tensor_map import TensorMap

GRAIN = 2  # bytes per cell, until somebody writes single bytes
LISTED = 1 << 16  # reads of an allocation that are remembered as a list
Cells = NDArray[np.intp] | slice


@dataclass(frozen=True, slots=True)
class Run:
    """`nbytes` from `address` on."""

    address: int
    nbytes: int

    def cells(self, base: int, grain: int) -> Cells:
        start = self.address - base
        return slice(start // grain, -(-(start + self.nbytes) // grain))


@dataclass(frozen=True, slots=True)
class Lanes:
    """`nbytes` at each of several addresses."""

    addresses: NDArray[np.uint64]
    nbytes: int

    @property
    def address(self) -> int:
        return int(self.addresses[0])

    def cells(self, base: int, grain: int) -> Cells:
        starts = (self.addresses.astype(np.uint64) - np.uint64(base)).astype(np.intp) // grain
        each = self.nbytes // grain
        return starts if each == 1 else (starts[:, None] + np.arange(each)).reshape(-1)


@dataclass(frozen=True, slots=True)
class Box:
    """The part of a tensor map's box that lies inside the tensor. Five coordinates of a rank-2 map are a
    column and four rows: gather4, scatter4."""

    tensor_map: TensorMap
    coords: Sequence[int]

    @property
    def address(self) -> int:
        return self.tensor_map.address

    def cells(self, base: int, grain: int) -> Cells:
        if len(self.coords) == 5 and self.tensor_map.rank == 2:
            column, *rows = self.coords
            return np.concatenate([self._cells((column, row), base, grain) for row in rows])
        return self._cells(self.coords, base, grain)

    def _cells(self, coords: Sequence[int], base: int, grain: int) -> NDArray[np.intp]:
        box = self.tensor_map
        start = box.address - base
        first = max(coords[0], 0) * box.bits // 8
        past = min(coords[0] + box.box_shape[0], box.dims[0]) * box.bits // 8
        offsets = np.arange((start + first) // grain, -(-(start + past) // grain), dtype=np.intp)
        for axis in range(1, box.rank):
            index = coords[axis] + np.arange(box.box_shape[axis]) * box.element_strides[axis]
            index = index[(index >= 0) & (index < box.dims[axis])]
            offsets = ((index * (box.strides[axis - 1] // grain))[:, None] + offsets).reshape(-1)
        return offsets


Span = Run | Lanes | Box


class Sets:
    """Sets of acts by number; a newer act of the same agent takes the place of the older one."""

    def __init__(self) -> None:
        self.members: list[tuple[Act, ...]] = [()]
        self._single: dict[Act, int] = {}
        self._added: dict[tuple[int, Act], int] = {}

    def single(self, act: Act) -> int:
        number = self._single.get(act)
        if number is None:
            number = self._single[act] = len(self.members)
            self.members.append((act,))
        return number

    def add(self, number: int, act: Act) -> int:
        if number == 0:
            return self.single(act)
        found = self._added.get((number, act))
        if found is None:
            old = self.members[number]
            if act in old:
                found = number
            else:
                kept = [m for m in old if m.slot != act.slot or m.ws.agents is not act.ws.agents]
                found = len(self.members)
                self.members.append((*kept, act))
            self._added[number, act] = found
        return found


class Plane:
    """The cells of one allocation."""

    def __init__(self, allocation: Allocation) -> None:
        self.allocation = allocation
        self.grain = GRAIN
        self.reads: list[tuple[Act, Span]] | None = []  # until the first write
        self.writers: NDArray[np.int32] | None = None
        self.readers: NDArray[np.int32] | None = None

    def cells(self, span: Span) -> Cells:
        return span.cells(self.allocation.address, self.grain)

    def refine(self) -> None:
        """From here on one cell per byte."""
        self.writers, self.readers = (
            None if cells is None else np.repeat(cells, self.grain) for cells in (self.writers, self.readers)
        )
        self.grain = 1


class GlobalShadow:
    """`compare(first, second, allocation, offset)` is called for pairs of acts that meet in a cell. If it
    answers that they are no race it is not asked again, as what a thread knows only grows."""

    def __init__(self, memory: GlobalMemory, compare: Callable[[Act, Act, Allocation, int], bool]) -> None:
        self.memory = memory
        self.compare = compare
        self.planes: dict[int, Plane] = {}
        self.sets = Sets()
        self._no_race: set[tuple[int, Act]] = set()
        self.version = 0  # writes so far
        self._last: Allocation | None = None

    def find(self, address: int) -> Allocation | None:
        last = self._last
        if last is None or not last.address <= address < last.end:
            last = self._last = self.memory.find(address)
        return last

    def _plane(self, span: Span) -> Plane | None:
        allocation = self.find(span.address)
        if allocation is None or not allocation.writable:
            return None  # the access faults, or it is an input, which nobody may write
        plane = self.planes.get(allocation.address)
        if plane is None or plane.allocation is not allocation:
            plane = self.planes[allocation.address] = Plane(allocation)
        return plane

    def last_writers(self, address: int) -> tuple[Act, ...]:
        allocation = self.find(address)
        plane = self.planes.get(allocation.address) if allocation else None
        if allocation is None or plane is None or plane.writers is None:
            return ()
        return self.sets.members[int(plane.writers[(address - allocation.address) // plane.grain])]

    # -- accesses -------------------------------------------------------------------------------------

    def read(self, act: Act, span: Span) -> None:
        plane = self._plane(span)
        if plane is None:
            return
        if plane.reads is None:
            self._read(plane, act, span)
            return
        plane.reads.append((act, span))
        if len(plane.reads) > LISTED:
            self._play_back(plane)

    def write(self, act: Act, span: Span) -> None:
        self.version += 1
        plane = self._plane(span)
        if plane is None:
            return
        if plane.reads is not None:
            self._play_back(plane)
        if act.size < plane.grain:
            plane.refine()
        assert plane.writers is not None
        cells = plane.cells(span)
        before = plane.writers[cells]
        if len(before) == 0 or _outside(cells, len(plane.writers)):
            return  # nothing in range; out of bounds: the access itself faults
        self._meet(plane, before, cells, act)
        if plane.readers is not None:
            self._meet(plane, plane.readers[cells], cells, act)
        if act.order.strong:
            self._add(plane.writers, before, cells, act)
            return
        plane.writers[cells] = self.sets.single(act)
        if plane.readers is not None:
            plane.readers[cells] = 0

    # -- inside ---------------------------------------------------------------------------------------

    def _read(self, plane: Plane, act: Act, span: Span) -> None:
        assert plane.writers is not None
        cells = plane.cells(span)
        if _outside(cells, len(plane.writers)):
            return
        before = plane.writers[cells]
        if len(before) == 0:
            return
        self._meet(plane, before, cells, act)
        if plane.readers is None:
            plane.readers = np.zeros_like(plane.writers)
        self._add(plane.readers, plane.readers[cells], cells, act)

    def _play_back(self, plane: Plane) -> None:
        plane.writers = np.zeros(plane.allocation.nbytes // plane.grain + 1, np.int32)
        reads, plane.reads = plane.reads, None
        for act, span in reads or ():
            self._read(plane, act, span)

    def _add(self, target: NDArray[np.int32], before: NDArray[np.int32], cells: Cells, act: Act) -> None:
        first = int(before.flat[0])
        if (before == first).all():
            target[cells] = self.sets.add(first, act)
            return
        numbers, which = np.unique(before, return_inverse=True)
        target[cells] = np.array([self.sets.add(n, act) for n in numbers.tolist()], np.int32)[which]

    def _meet(self, plane: Plane, before: NDArray[np.int32], cells: Cells, act: Act) -> None:
        if not before.any():
            return
        one = int(before.flat[0])
        numbers = [one] if (before == one).all() else np.unique(before).tolist()
        for number in numbers:
            if (number, act) in self._no_race or not number:
                continue
            at = int(np.argmax(before == number))
            cell = (cells.start or 0) + at if isinstance(cells, slice) else int(cells[at])
            others = [first for first in self.sets.members[number] if first is not act]
            fine = [self.compare(first, act, plane.allocation, cell * plane.grain) for first in others]
            if all(fine):
                self._no_race.add((number, act))


def _outside(cells: Cells, count: int) -> bool:
    if isinstance(cells, slice):
        return cells.start < 0 or cells.stop > count
    return len(cells) > 0 and bool(cells.min() < 0 or cells.max() >= count)
