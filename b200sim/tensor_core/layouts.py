"""Where accumulators and scale factors lie in tensor memory (PTX ISA 9.7.16.10.5 and .7).

Layout A / D (M = 256 over two CTAs, M = 128 in one): row m of the CTA's 128 in lane m, column n in column n.
Layout B (M = 128 over two CTAs): 64 rows per CTA; lanes 0-63 hold columns 0..N/2-1, lanes 64-127 the rest.
Layout F (M = 64 in one CTA): row m in lane m % 16 + 32 * (m / 16), plus 0 or 16.
Scale factor of row x: lane x % 32, column x / 32, repeated in the lane quarters that compute with it.
Layouts of scale factors and of B follow CUTLASS include/cute/atom/mma_traits_sm100_frag.hpp.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from b200sim.faults import Fault, Unsupported
from b200sim.tensor_core.touch import Touch, tensor
from b200sim.tensor_memory import LANES, TensorMemory, split_address


@dataclass(frozen=True)
class Accumulator:
    """The part of D that one CTA holds: `rows` x `columns`, in `layout` "full", "halves" (B) or "quarters"
    (F).
    """

    layout: str
    rows: int
    columns: int
    lane: int
    column: int

    @staticmethod
    def at(address: int, m: int, n: int, cta_group: int) -> Accumulator:
        """Fault mma_lane: the address names a lane that the layout does not start at."""
        lane, column = split_address(address)
        rows = m // cta_group
        layout = "full" if rows == LANES else "halves" if cta_group == 2 else "quarters"
        legal = (0, 16) if layout == "quarters" else (0,)
        if lane not in legal:
            raise Fault(
                "mma_lane",
                f"D at lane {lane}, M = {m}, cta_group::{cta_group}: must be {' or '.join(map(str, legal))}",
            )
        return Accumulator(layout, rows, n, lane, column)

    def rectangles(self) -> list[tuple[int, int, int, int]]:
        if self.layout == "quarters":
            return [(self.lane + 32 * w, 16, self.column, self.columns) for w in range(4)]
        width = self.columns // 2 if self.layout == "halves" else self.columns
        return [(0, LANES, self.column, width)]

    def check(self, memory: TensorMemory) -> None:
        for rectangle in self.rectangles():
            memory.check_range(*rectangle, "D of tcgen05.mma")

    def read(self, memory: TensorMemory) -> np.ndarray:
        """uint32 (rows, columns), contiguous."""
        column, cells = self.column, memory.cells
        if self.layout == "full":
            return cells[:, column : column + self.columns].copy()
        if self.layout == "halves":
            half = cells[:, column : column + self.columns // 2]
            return np.concatenate([half[:64], half[64:]], axis=1)
        quarters = cells.reshape(4, 32, -1)[:, self.lane : self.lane + 16, column : column + self.columns]
        return quarters.reshape(64, self.columns)

    def write(self, memory: TensorMemory, words: np.ndarray) -> None:
        """`words` uint32 (rows, columns)."""
        column, cells = self.column, memory.cells
        if self.layout == "full":
            cells[:, column : column + self.columns] = words
        elif self.layout == "halves":
            width = self.columns // 2
            cells[:64, column : column + width] = words[:, :width]
            cells[64:, column : column + width] = words[:, width:]
        else:
            quarters = cells.reshape(4, 32, -1)[:, self.lane : self.lane + 16, column : column + self.columns]
            quarters[:] = words.reshape(4, 16, self.columns)

    def lane_of_row(self) -> np.ndarray:
        """The lanes (rows, columns or 1) that hold each element, for lane masks."""
        row = np.arange(self.rows)[:, None]
        if self.layout == "halves":
            return row + 64 * (np.arange(self.columns)[None, :] >= self.columns // 2)
        return row if self.layout == "full" else self.lane + row % 16 + 32 * (row // 16)

    def touches(self, cta: int, write: bool) -> list[Touch]:
        return [tensor("D", cta, write, rectangle) for rectangle in self.rectangles()]


@dataclass(frozen=True)
class ScaleFactors:
    """Scale factors of `rows` rows at a tensor memory column; `name` is "SFA" or "SFB".

    `halves`: layout B's SFB, where lanes 0-63 serve the first half of the rows and lanes 64-127 the second.
    """

    name: str
    rows: int
    column: int
    halves: bool = False

    @staticmethod
    def at(name: str, address: int, rows: int, halves: bool = False) -> ScaleFactors:
        lane, column = split_address(address)
        if lane % 32:
            raise Fault("mma_lane", f"{name} at lane {lane}: must be a multiple of 32")
        if lane:
            raise Unsupported(f"{name} at lane {lane}: only scale factors at lane 0 are simulated")
        return ScaleFactors(name, rows, column, halves)

    def rectangle(self) -> tuple[int, int, int, int]:
        """B's factors are fetched for 64 rows at a time (ptxas guards 2 * ceil(N / 64) columns)."""
        per_half = self.rows // 2 if self.halves else self.rows
        columns = -(-per_half // 32)
        return 0, LANES, self.column, columns if self.halves else columns + columns % 2

    def read(self, memory: TensorMemory, first_byte: int, count: int) -> np.ndarray:
        """uint8 (rows, count): bytes first_byte.. of each row's word. Fault: scale_factor_copies_differ."""
        _, _, column, columns = rectangle = self.rectangle()
        memory.check_range(*rectangle, f"{self.name} of tcgen05.mma")
        copies = memory.cells[:, column : column + columns].reshape(4, 32, columns).transpose(0, 2, 1)
        words = np.ascontiguousarray(copies).reshape(4, 32 * columns)
        if self.halves:
            half = self.rows // 2
            words = words[:, :half].reshape(2, 2, half).transpose(1, 0, 2).reshape(2, self.rows)
        else:
            words = words[:, : self.rows]
        chosen = words.view(np.uint8).reshape(len(words), self.rows, 4)[:, :, first_byte : first_byte + count]
        if not (chosen[1:] == chosen[0]).all():
            self._report(chosen, first_byte)
        return chosen[0]

    def _report(self, chosen: np.ndarray, first_byte: int) -> None:
        copy, row, byte = np.argwhere(chosen != chosen[0])[0].tolist()
        quarters = self._quarters(row)
        raise Fault(
            "scale_factor_copies_differ",
            f"{self.name} of row {row}, byte {first_byte + byte}: {chosen[0, row, byte]:#04x} in lanes "
            f"{32 * quarters[0]}.. but {chosen[copy, row, byte]:#04x} in lanes {32 * quarters[copy]}..; the "
            "lane quarters must hold equal copies",
        )

    def _quarters(self, row: int) -> tuple[int, ...]:
        if not self.halves:
            return 0, 1, 2, 3
        return (0, 1) if row < self.rows // 2 else (2, 3)

    def touches(self, cta: int) -> list[Touch]:
        return [tensor(self.name, cta, False, self.rectangle())]
