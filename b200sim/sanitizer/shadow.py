"""Shadow memory: per cell, who wrote it last and who has read it since, as epochs.

Shared memory has one cell per 4 bytes; tensor memory one per column and 16 lanes. A selection of cells is a
slice, an index array or a tuple of slices, whatever numpy takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

WORD = 4
LANES_PER_CELL = 16
Selection = Any
Row = NDArray[np.int32]


class Cells:
    """`shape` cells. Access ids refer to the sanitizer's list of accesses; 0 is none."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.writer = np.zeros(shape, np.int32)
        self.written_at = np.zeros(shape, np.int32)
        self.written_by = np.zeros(shape, np.int32)
        self.readers: dict[int, tuple[NDArray[np.int32], NDArray[np.int32]]] = {}  # slot: clocks, ids
        self.unread = np.zeros(shape, bool)  # filled by a load and not read since

    def unordered_writes(self, where: Selection, known: Row) -> list[int]:
        """Ids of the last writes there that are not in `known`."""
        late = known[self.writer[where]] < self.written_at[where]
        return np.unique(self.written_by[where][late]).tolist() if late.any() else []

    def unordered_reads(self, where: Selection, known: Row) -> list[int]:
        """Ids of reads there that are not in `known`."""
        found: list[int] = []
        for slot, (clocks, ids) in self.readers.items():
            late = clocks[where] > known[slot]
            if late.any():
                found += np.unique(ids[where][late]).tolist()
        return found

    def write(self, where: Selection, slot: int, clock: int, access: int) -> None:
        self.writer[where] = slot
        self.written_at[where] = clock
        self.written_by[where] = access
        self.unread[where] = False

    def read(self, where: Selection, slot: int, clock: int, access: int) -> None:
        reader = self.readers.get(slot)
        if reader is None:
            reader = self.readers[slot] = np.zeros(self.shape, np.int32), np.zeros(self.shape, np.int32)
        reader[0][where] = clock
        reader[1][where] = access
        self.unread[where] = False

    def forget(self, where: Selection) -> None:
        """Nobody has touched these cells, as far as anyone cares."""
        self.writer[where] = 0
        self.written_at[where] = 0
        self.written_by[where] = 0
        for clocks, _ in self.readers.values():
            clocks[where] = 0


class SharedCells(Cells):
    """A CTA's shared memory, with a bit per byte that says whether it was ever written."""

    def __init__(self, nbytes: int) -> None:
        super().__init__((-(-nbytes // WORD),))
        self.valid = np.zeros(self.shape[0] * WORD, bool)
        self.valid_words = self.valid.view(np.uint32)
        self.brought: NDArray[np.int32] | None = None  # who brought what lies in words with no defined value

    def poison(self, offsets: NDArray[np.intp], origin: int) -> None:
        """Bytes that were written with a value that nobody has defined."""
        if self.brought is None:
            self.brought = np.zeros(self.shape, np.int32)
        self.valid[offsets] = False
        self.brought[offsets // WORD] = origin

    def uninitialised(self, words: Selection) -> int:
        """How many of these words have a byte that nobody wrote."""
        whole = self.valid_words[words] == 0x01010101
        return int(whole.size - np.count_nonzero(whole))


class TensorCells(Cells):
    """A CTA's tensor memory: (column, lane / 16)."""

    def __init__(self) -> None:
        super().__init__((512, 128 // LANES_PER_CELL))
        self.valid = np.zeros(self.shape, bool)
        self.brought: NDArray[np.int32] | None = None  # (column, lane): who brought an undefined value there

    def define(self, where: Selection) -> None:
        self.valid[where] = True
        if self.brought is not None:
            self.brought[_lanes(where)] = 0

    def poison(self, columns: NDArray[np.intp], lanes: NDArray[np.intp], origin: int) -> None:
        """Cells that were written with a value that nobody has defined."""
        if self.brought is None:
            self.brought = np.zeros((512, 128), np.int32)
        self.brought[columns, lanes] = origin

    def all_defined(self, where: Selection) -> bool:
        brought = self.brought
        return bool(self.valid[where].all()) and (brought is None or not brought[_lanes(where)].any())

    def undefined(self, columns: NDArray[np.intp], lanes: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Cell by cell."""
        bad = ~self.valid[columns, lanes // LANES_PER_CELL]
        return bad if self.brought is None else bad | (self.brought[columns, lanes] > 0)


def words(start: int, size: int) -> slice:
    return slice(start // WORD, -(-(start + size) // WORD))


def words_of_chunks(chunks: NDArray[np.intp]) -> NDArray[np.intp]:
    """Words of 16-byte chunks given by their byte offsets."""
    return (chunks.reshape(-1, 1) // WORD + np.arange(16 // WORD)).reshape(-1)


def _lanes(where: tuple[slice, slice]) -> tuple[slice, slice]:
    """A rectangle of cells, its second axis in lanes."""
    columns, cells = where
    return columns, slice(cells.start * LANES_PER_CELL, cells.stop * LANES_PER_CELL)


def rectangle(lane: int, lanes: int, column: int, columns: int) -> tuple[slice, slice]:
    last = -(-(lane + lanes) // LANES_PER_CELL)
    return slice(column, column + columns), slice(lane // LANES_PER_CELL, last)
