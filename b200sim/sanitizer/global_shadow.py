"""Who wrote each element of global memory in this launch: no element may have two writers without order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from b200sim.sanitizer.clocks import MEMORY
from b200sim.sanitizer.state import WarpState

if TYPE_CHECKING:
    from b200sim.global_memory import Allocation, GlobalMemory
    from b200sim.ptx.syntax import Instruction
    from b200sim.tma.descriptor import TensorMap

GRAIN = 2  # bytes per cell


@dataclass
class Writer:
    ws: WarpState
    ins: Instruction
    slot: int
    clock: int


class GlobalShadow:
    """Cells of 2 bytes for every allocation that the kernel writes: the number of the last writer.

    `conflict(first, second, allocation, offset)` is called for two writers of one cell that nothing orders.
    """

    def __init__(
        self,
        memory: GlobalMemory,
        conflict: Callable[[Writer, Writer, Allocation, int], None],
    ) -> None:
        self.memory = memory
        self.conflict = conflict
        self.cells: dict[int, np.ndarray] = {}
        self.writers: list[Writer | None] = [None]
        self._numbers: dict[tuple[WarpState, int, int, int], int] = {}
        self._last: Allocation | None = None

    def written(self, ws: WarpState, ins: Instruction, addresses: int | np.ndarray, nbytes: int) -> None:
        """`nbytes` at each address, by a warp's st."""
        first = int(addresses if isinstance(addresses, int) else addresses[0])
        allocation = self._find(first)
        if allocation is None:
            return
        starts = (
            (np.asarray(addresses, np.uint64) - np.uint64(allocation.address)).astype(np.int64).reshape(-1)
        )
        cells = starts // GRAIN
        if nbytes > GRAIN:
            cells = (cells[:, None] + np.arange(nbytes // GRAIN)).reshape(-1)
        self._mark(ws, ins, ws.slot, ws.clock, allocation, cells)

    def stored(
        self,
        ws: WarpState,
        ins: Instruction,
        slot: int,
        clock: int,
        tensor_map: TensorMap,
        coords: tuple[int, ...],
    ) -> None:
        """A box, clipped to the tensor."""
        allocation = self._find(tensor_map.address)
        counts = [
            max(0, min(box, dim - start))
            for box, dim, start in zip(tensor_map.box_shape, tensor_map.dims, coords, strict=False)
        ]
        if allocation is None or 0 in counts:
            return
        base = tensor_map.address - allocation.address + coords[0] * tensor_map.bits // 8
        offsets = np.arange(counts[0] * tensor_map.bits // 8 // GRAIN, dtype=np.int64) * GRAIN + base
        for count, start, stride in zip(counts[1:], coords[1:], tensor_map.strides, strict=False):
            offsets = ((np.arange(count) + start)[:, None] * stride + offsets).reshape(-1)
        self._mark(ws, ins, slot, clock, allocation, offsets // GRAIN)

    def stored_run(
        self, ws: WarpState, ins: Instruction, slot: int, clock: int, address: int, nbytes: int
    ) -> None:
        allocation = self._find(address)
        if allocation is not None:
            first = (address - allocation.address) // GRAIN
            self._mark(ws, ins, slot, clock, allocation, np.arange(first, first + nbytes // GRAIN))

    def _find(self, address: int) -> Allocation | None:
        last = self._last
        if last is None or not last.address <= address < last.end:
            last = self._last = self.memory.find(address)
        return last

    def _mark(
        self,
        ws: WarpState,
        ins: Instruction,
        slot: int,
        clock: int,
        allocation: Allocation,
        cells: np.ndarray,
    ) -> None:
        shadow = self.cells.get(allocation.address)
        if shadow is None:
            shadow = self.cells[allocation.address] = np.zeros(allocation.nbytes // GRAIN + 1, np.int32)
        if cells.min() < 0 or cells.max() >= len(shadow):
            return  # out of bounds: the access itself faults
        key = (ws, id(ins), slot, clock)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.writers)
            self.writers.append(Writer(ws, ins, slot, clock))
        before = shadow[cells]
        if before.any():
            self._compare(before, number, allocation, cells)
        shadow[cells] = number

    def _compare(self, before: np.ndarray, number: int, allocation: Allocation, cells: np.ndarray) -> None:
        second = self.writers[number]
        assert second is not None
        for other in np.unique(before[before > 0]).tolist():
            first = self.writers[other]
            assert first is not None
            if first.ws is second.ws:
                continue
            if first.ws.agents is second.ws.agents:
                known = second.ws.agents.wide(second.ws.now)[MEMORY]
                if known[first.slot] >= first.clock:
                    continue
            offset = int(cells[before == other][0]) * GRAIN
            self.conflict(first, second, allocation, offset)
