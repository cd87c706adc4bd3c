"""What a tensor core instruction touches, for observers. Built only when someone asks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Touch:
    """One operand in one CTA.

    operand: "A", "B", "D", "SFA", "SFB", "source", "destination"; cta: index into the instruction's CTAs.
    space "shared": `chunks` holds the CTA-local byte offsets of the 16-byte granules, [start, start + size)
    bounds them. space "tensor": a rectangle of lanes and columns.
    """

    operand: str
    space: str
    cta: int
    write: bool
    chunks: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.intp), compare=False)
    lane: int = 0
    lanes: int = 0
    column: int = 0
    columns: int = 0

    @property
    def start(self) -> int:
        return int(self.chunks.min()) if self.chunks.size else 0

    @property
    def size(self) -> int:
        return int(self.chunks.max()) + 16 - self.start if self.chunks.size else 0


def shared(operand: str, cta: int, chunks: np.ndarray) -> Touch:
    return Touch(operand, "shared", cta, False, chunks=chunks)


def tensor(operand: str, cta: int, write: bool, rectangle: tuple[int, int, int, int]) -> Touch:
    lane, lanes, column, columns = rectangle
    return Touch(operand, "tensor", cta, write, lane=lane, lanes=lanes, column=column, columns=columns)
