"""Hypothesis strategies for tensor maps and the boxes copied through them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from tile_model import BITS, SPANS, taken

from b200sim.tma.tensor_map import ElementType, Swizzle, TensorMap

PLAIN_TYPES = [t for t in ElementType if t not in (ElementType.B4X16_P64, ElementType.B6X16_P32)]
SHARED_BYTES = 0x400 + 24 * 1024
MARGIN = 512  # poisoned bytes before and after the tensor


@dataclass
class Case:
    """A tensor map over fresh memory, start coordinates and a shared address."""

    tensor_map: TensorMap
    coords: tuple[int, ...]
    offset: int
    arena: np.ndarray  # MARGIN bytes, the tensor, MARGIN bytes; random contents
    shared: np.ndarray

    @property
    def tensor_bytes(self) -> int:
        return self.arena.size - 2 * MARGIN


def aligned(nbytes: int, alignment: int = 1024) -> np.ndarray:
    raw = np.zeros(nbytes + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + nbytes]


@st.composite
def cases(draw, types=PLAIN_TYPES, negative=True, max_elements=1200):
    element = draw(st.sampled_from(types))
    bits = BITS[int(element)]
    swizzle = draw(st.sampled_from(list(Swizzle)))
    per_chunk = 128 // bits
    widest = min(SPANS.get(int(swizzle), 128) // 16, 256 // per_chunk)
    box = [per_chunk * draw(st.integers(1, widest))]
    even = 2 if element is ElementType.B4X16 else 1
    dims = [even * draw(st.integers(1, 2 * box[0] // even + 1))]
    rank = draw(st.integers(1, 5))
    # The engine ignores the element stride of dimension 0.
    strides, steps, size = [], [draw(st.sampled_from([1, 1, 2]))], -(-dims[0] * bits // 128) * 16
    budget = min(max_elements // box[0], 150)  # rows; 150 swizzled ones fit the shared memory
    for _ in range(1, rank):
        size += 16 * draw(st.integers(0, 2))
        strides.append(size)
        steps.append(draw(st.sampled_from([1, 1, 1, 2, 3, 8])))
        count = draw(st.integers(1, max(min(budget, 9), 1)))
        budget //= count
        box.append(count * steps[-1])
        dims.append(draw(st.integers(1, min((count - 1) * steps[-1] + 3, 12 if size < 20000 else 2))))
        size *= dims[-1]
    coords = []
    for d, (n, limit) in enumerate(zip(box, dims, strict=True)):
        unit = per_chunk if d == 0 else 1
        lowest = -((n - 1) // unit) if negative else 0
        touching = st.integers(lowest, (limit - 1) // unit)
        inside = st.integers(0, max((limit - n) // unit, 0))
        anywhere = st.integers(2 * lowest, limit // unit + 1)
        pick = draw(st.integers(0, 9))
        coords.append(unit * draw(anywhere if pick == 9 else inside if pick >= 5 else touching))
    floats = element.name in ("F16", "BF16", "F32", "F32_FTZ", "F64")
    nan_fill = floats and draw(st.booleans())

    arena = aligned(2 * MARGIN + max(size, 16))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    arena[:] = rng.integers(0, 256, arena.size, dtype=np.uint8)
    tensor_map = TensorMap(
        arena.ctypes.data + MARGIN,
        element,
        tuple(dims),
        tuple(strides),
        tuple(box),
        tuple(steps),
        swizzle,
        nan_fill=nan_fill,
    )
    shared = aligned(SHARED_BYTES)
    shared[:] = rng.integers(0, 256, shared.size, dtype=np.uint8)
    rows = int(np.prod(taken(tensor_map)[1:]))
    footprint = rows * SPANS.get(int(swizzle), tensor_map.row_bytes)
    room = (SHARED_BYTES - footprint) // 128
    offset = 128 * draw(st.integers(8, min(room, 40)))
    return Case(tensor_map, tuple(coords), offset, arena, shared)
