"""What every thread of a warp has for itself: `.local` variables, and the `.param` variables of calls."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from b200sim.machine.values import FULL, LANE_INDEX, LANES, Value, lane_array, lowest_lane

POISON = 0xFF  # before the kernel writes it: NaN as e4m3, fp16 and fp32


class ThreadMemory:
    """`nbytes` bytes for each of the 32 lanes. Offsets are in bytes and must be in range and aligned."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.bytes: NDArray[np.uint8] = np.full((LANES, -(-nbytes // 8) * 8), POISON, np.uint8)
        self.views: dict[int, NDArray[np.unsignedinteger]] = {
            size: self.bytes.view(f"u{size}") for size in (1, 2, 4, 8)
        }

    def read(self, offset: Value, size: int, mask: int) -> Value:
        """`size` bytes at an offset of each lane in `mask`; an int if these lanes hold the same."""
        words = self.views[size]
        if type(offset) is int:
            values = words[:, offset // size]
        else:
            if mask != FULL:  # the others read what the first one reads
                offset = np.where(lane_array(mask), offset, offset[lowest_lane(mask)])  # type: ignore[index]
            values = words[LANE_INDEX, offset // size]
        found = values if mask == FULL else values[lane_array(mask)]
        return int(found[0]) if (found == found[0]).all() else values.copy()

    def write(self, offset: Value, value: Value, size: int, mask: int) -> None:
        """The low `size` bytes of `value` at an offset of each lane in `mask`."""
        words = self.views[size]
        if type(value) is int:
            value &= (1 << 8 * size) - 1
        elif value.itemsize != size:  # type: ignore[union-attr]
            value = value.astype(words.dtype)  # type: ignore[union-attr]
        if mask == FULL and type(offset) is int:
            words[:, offset // size] = value
            return
        active = lane_array(mask)
        index = offset // size
        columns = index if type(index) is int else index[active]  # type: ignore[index]
        words[LANE_INDEX[active], columns] = value if type(value) is int else value[active]  # type: ignore[index]


NO_MEMORY = ThreadMemory(0)
