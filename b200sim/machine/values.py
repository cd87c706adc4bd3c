"""How register values look while a warp runs.

A register holds one value for the whole warp while all lanes agree, a Python int, and a numpy vector of 32
unsigned lanes where they may differ. Ints and lanes are bit patterns of the register's width; signed and
floating-point views are taken where an instruction asks for them. A predicate is an int whose bit i is
lane i, so its logic is plain integer logic.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

LANES = 32
FULL = 0xFFFFFFFF  # all 32 lanes

Vector = NDArray[Any]  # unsigned
Value = int | Vector

UNSIGNED: dict[int, np.dtype[Any]] = {
    8: np.dtype("u1"),
    16: np.dtype("u2"),
    32: np.dtype("u4"),
    64: np.dtype("u8"),
}
SIGNED: dict[int, np.dtype[Any]] = {
    8: np.dtype("i1"),
    16: np.dtype("i2"),
    32: np.dtype("i4"),
    64: np.dtype("i8"),
}
FLOAT: dict[int, np.dtype[Any]] = {16: np.dtype("f2"), 32: np.dtype("f4"), 64: np.dtype("f8")}

LANE_INDEX = np.arange(LANES, dtype=np.uint32)


def width_mask(bits: int) -> int:
    return (1 << bits) - 1


@lru_cache(maxsize=4096)
def lane_array(mask: int) -> NDArray[np.bool_]:
    """Lane mask to bool[32]. Shared between callers: do not write into it."""
    array = np.unpackbits(np.frombuffer(mask.to_bytes(4, "little"), np.uint8), bitorder="little").astype(bool)
    array.setflags(write=False)
    return array


def lane_mask(lanes: NDArray[np.bool_]) -> int:
    """bool[32] to lane mask."""
    return int.from_bytes(np.packbits(lanes, bitorder="little").tobytes(), "little")


def lowest_lane(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


@overload
def signed(value: int, bits: int) -> int: ...
@overload
def signed(value: Vector, bits: int) -> Vector: ...
def signed(value: Value, bits: int) -> Value:
    """Two's complement reading of a `bits` wide pattern."""
    if type(value) is int:
        return value - ((value >> (bits - 1)) << bits)
    return value.view(SIGNED[bits])  # type: ignore[union-attr]


def pattern(value: Value, bits: int) -> Value:
    """Any integer reading back to its `bits` wide pattern."""
    if type(value) is int:
        return value & ((1 << bits) - 1)
    if value.dtype.itemsize * 8 == bits:  # type: ignore[union-attr]
        return value.view(UNSIGNED[bits])  # type: ignore[union-attr]
    return value.astype(UNSIGNED[bits])  # type: ignore[union-attr]


def spread(value: Value, bits: int) -> Vector:
    """The value as a vector of 32 lanes."""
    if type(value) is int:
        return np.full(LANES, value, UNSIGNED[bits])
    return value  # type: ignore[return-value]


def floats(value: Value, bits: int) -> NDArray[np.floating]:
    """The value as floating-point lanes: shape (32,), or (1,) where all lanes agree."""
    if type(value) is int:
        return np.array([value], UNSIGNED[bits]).view(FLOAT[bits])
    return value.view(FLOAT[bits])  # type: ignore[union-attr]


def from_lanes(lanes: NDArray, bits: int) -> Value:
    """The bit patterns of an array made from `floats`: back to an int if it has one element."""
    raw = lanes.view(UNSIGNED[bits])
    return int(raw[0]) if raw.size == 1 else raw


def lane(value: Value, index: int) -> int:
    """The value that one lane sees."""
    return value if type(value) is int else int(value[index])  # type: ignore[index]


def per_lane(compute: Callable[..., int], bits: int) -> Callable[..., Value]:
    """Lift a function of ints, with a result of `bits` bits, to values that may differ between lanes."""

    def lifted(*values: Value) -> Value:
        if all(type(value) is int for value in values):
            return compute(*values)
        columns = [[value] * LANES if type(value) is int else value.tolist() for value in values]  # type: ignore[union-attr]
        return np.array([compute(*row) for row in zip(*columns, strict=True)], UNSIGNED[bits])

    return lifted
