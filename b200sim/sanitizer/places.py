"""Which lane's register meets which bytes or cells: tcgen05.ld and st, ldmatrix and stmatrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from b200sim.machine.values import lane_mask
from b200sim.tensor_memory import COLUMNS, cell_indices, register_count

if TYPE_CHECKING:
    from b200sim.machine.observer import Rectangle
    from b200sim.ptx.syntax import Instruction

SHAPES = ("32x32b", "16x64b", "16x128b", "16x256b", "16x32bx2")
Cells = tuple[NDArray[np.intp], NDArray[np.intp], int]  # lane and column of each of 32 threads; bits


def tensor_cells(ins: Instruction, bounds: Sequence[Rectangle]) -> Iterator[tuple[int, Cells]]:
    """(register, cells of the 32 threads and the register's bits that lie there) of a tcgen05.ld or st.

    With pack::16b or unpack::16b a register has two cells per thread.
    """
    shape = next(word for word in ins.modifiers if word in SHAPES)
    count = next(int(word[1:]) for word in ins.modifiers if word[0] == "x" and word[1:].isdigit())
    halves = ins.has("pack::16b") or ins.has("unpack::16b")
    first_lane, _, first_column, _ = bounds[0]
    split = bounds[1][2] - first_column if len(bounds) > 1 else 0
    indices = cell_indices(shape, count, 2 if halves else 1, split)
    for register in range(register_count(shape, count)):
        lanes = first_lane + indices[register] // COLUMNS
        columns = first_column + indices[register] % COLUMNS
        if halves:
            yield register, (lanes, columns, 0xFFFF)
            yield register, (lanes, columns + 1, 0xFFFF0000)
        else:
            yield register, (lanes, columns, 0xFFFFFFFF)


def matrix_poison(bad: NDArray[np.bool_], transposed: bool) -> Iterator[tuple[int, int, int]]:
    """ldmatrix: (register, lanes, bits) for the bytes of its rows, (8 * matrices, 16), that are bad."""
    elements = bad.reshape(-1, 8, 8, 2)
    for register, matrix in enumerate(elements[..., 0] | elements[..., 1]):
        pairs = (matrix.T if transposed else matrix).reshape(32, 2)
        for half, bits in enumerate((0xFFFF, 0xFFFF0000)):
            if pairs[:, half].any():
                yield register, lane_mask(pairs[:, half]), bits


def matrix_bytes(lanes: NDArray[np.bool_], bits: int, transposed: bool) -> NDArray[np.bool_]:
    """stmatrix: which bytes of the eight rows of a matrix, (8, 16), its register's lanes and bits go to."""
    pairs = np.stack([lanes & bool(bits & 0xFFFF), lanes & bool(bits >> 16)], axis=1).reshape(8, 8)
    return np.repeat(pairs.T if transposed else pairs, 2, axis=1)
