"""Tile-mode tensor copies of the TMA engine: boxes of global memory and their place in shared memory.

A load is `load_box` (once) and `place` (in every destination CTA); a store is `collect` and `store_box` or
`reduce_box`. Between the two halves a box travels in *linear box order*: dimension 0 fastest, rows of
`row_bytes` without gaps. All functions act at once; when they run is the scheduler's business.

Rules and sources (PTX ISA 5.5.3, 5.5.7, 9.7.9.27; those marked * were also seen on an H200):
  - element b of the box is global element coords + b * element_stride; outside [0, dim) a load fills with
    zero (or the OOB-NaN) and a store writes nothing; the box may lie outside altogether *
  - a store or reduction clips dimension 0 at 16 bytes: if the tensor's rows end within a 16-byte chunk, the
    rest of that chunk, which belongs to the padding, is written too *
  - shared byte address a = destination + linear offset, its 16-byte chunk XORed with address bits 7 and up:
    32B: a ^ (a>>7 & 1)<<4, 64B: a ^ (a>>7 & 3)<<4, 128B: a ^ (a>>7 & 7)<<4, where a is the *absolute*
    address in the CTA's shared memory, not relative to the tile *. Rows of a swizzled box lie one swizzle
    span apart, also where they are shorter *
  - the shared address is a multiple of 128, swizzled or not *
  - illegal instructions: a start coordinate of dimension 0 that is no multiple of 16 bytes *, another number
    of coordinates than the map's rank *, a negative coordinate of a store or reduction *
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from b200sim.faults import Fault, Unsupported
from b200sim.global_memory import RAW_DTYPES, Array, Bytes, GlobalMemory
from b200sim.tma.reduction import reduce_into
from b200sim.tma.tensor_map import Atomicity, Swizzle, TensorMap

CHUNK = RAW_DTYPES[16]
RESERVED_SHARED_BYTES = 0x400
SHARED_ALIGNMENT = 128

# The OOB-NaN is this 16-bit pattern whatever the element type: f32 gets 0x7FF77FF7.
_OOB_NAN = np.uint16(0x7FF7)


# ---- checks ----


def check(
    tensor_map: TensorMap, coords: Sequence[int], offset: int, smem_bytes: int, *, store: bool = False
) -> None:
    """Everything that can be refused when a tile copy is issued.

    coords: start per dimension, as many as the opcode's .Nd says; offset: CTA-local shared address;
    smem_bytes: size of the CTA's shared memory, the reserved first KiB included.
    Faults: tma_rank, tma_bad_coordinate, tma_negative_store, tma_misaligned, smem_out_of_bounds.
    """
    check_coords(tensor_map, coords, store)
    _check_shared(tensor_map, offset, tensor_map.shared_bytes, smem_bytes)


def check_coords(tensor_map: TensorMap, coords: Sequence[int], store: bool = False) -> None:
    """Faults: tma_rank, tma_bad_coordinate, tma_negative_store."""
    if len(coords) != tensor_map.rank:
        raise Fault("tma_rank", f"{len(coords)} coordinates for a tensor map of rank {tensor_map.rank}")
    if coords[0] * tensor_map.bits % 128:
        raise Fault(
            "tma_bad_coordinate",
            f"start coordinate {coords[0]} of dimension 0 is {coords[0] * tensor_map.bits / 8:g} bytes "
            f"({tensor_map.element.name}); must be a multiple of 16 bytes",
        )
    if store and min(coords) < 0:
        raise Fault("tma_negative_store", f"store at negative coordinates {tuple(coords)}")


def _check_shared(tensor_map: TensorMap, offset: int, nbytes: int, smem_bytes: int) -> None:
    if offset % SHARED_ALIGNMENT:
        raise Fault(
            "tma_misaligned",
            f"box at shared address {offset:#x}, which is not a multiple of {SHARED_ALIGNMENT}",
        )
    if offset < RESERVED_SHARED_BYTES or offset + nbytes > smem_bytes:
        raise Fault(
            "smem_out_of_bounds",
            f"box of {nbytes} bytes at shared address {offset:#x}; the CTA has "
            f"[{RESERVED_SHARED_BYTES:#x}, {smem_bytes:#x})",
        )


# ---- shared memory side ----


@lru_cache(maxsize=4096)
def _chunk_order(
    swizzle: Swizzle, atomicity: Atomicity, phase: int, rows: int, row_bytes: int, pitch: int
) -> npt.NDArray[np.intp]:
    """Position, in 16-byte chunks from the destination, of each chunk of a box of `rows` rows. `phase`: the
    destination modulo 1024, the largest repeat of a pattern. The XOR never leaves the pitch of a row."""
    chunks = np.arange(row_bytes // 16, dtype=np.intp) * 16
    address = (phase + np.arange(rows, dtype=np.intp)[:, None] * pitch + chunks).reshape(-1)
    line = address >> 7
    if atomicity is Atomicity.B32:
        swizzled = address ^ (line & 3) << 5
    elif atomicity is Atomicity.B64:
        swizzled = address ^ (line & 1) << 6
    else:
        swizzled = address ^ (line & (1 << swizzle) - 1) << 4
    order = (swizzled - phase) >> 4
    order.flags.writeable = False
    return order


def _order(tensor_map: TensorMap, offset: int, nbytes: int) -> npt.NDArray[np.intp]:
    row = tensor_map.row_bytes
    return _chunk_order(
        tensor_map.swizzle, tensor_map.atomicity, offset & 1023, nbytes // row, row, tensor_map.pitch
    )


def place(smem: Bytes, offset: int, box: Bytes, tensor_map: TensorMap) -> None:
    """Write a box (linear box order, uint8) into a CTA's shared memory at `offset`, swizzled. The gaps after
    rows shorter than the swizzle span keep what they hold.

    Faults: tma_misaligned, smem_out_of_bounds.
    """
    start, stop = shared_range(tensor_map, offset, box.size)
    _check_shared(tensor_map, offset, stop - start, smem.size)
    if tensor_map.swizzle is Swizzle.NONE:
        smem[start:stop] = box
        return
    order = _order(tensor_map, offset, box.size)
    target = smem[start:stop].view(CHUNK)
    if target.size == order.size:
        # Full rows: the XOR permutes the range and is its own inverse.
        box.view(CHUNK).take(order, 0, target, "clip")
    else:
        target[order] = box.view(CHUNK)


def collect(smem: Bytes, offset: int, tensor_map: TensorMap, nbytes: int | None = None) -> Bytes:
    """Read a box back from shared memory: uint8[box_bytes] in linear box order, a copy. The inverse of
    `place`. `nbytes` only for boxes of another size (scatter4)."""
    nbytes = tensor_map.box_bytes if nbytes is None else nbytes
    start, stop = shared_range(tensor_map, offset, nbytes)
    _check_shared(tensor_map, offset, stop - start, smem.size)
    if tensor_map.swizzle is Swizzle.NONE:
        return smem[start:stop].copy()
    return smem[start:stop].view(CHUNK).take(_order(tensor_map, offset, nbytes)).view(np.uint8)


def shared_range(tensor_map: TensorMap, offset: int, nbytes: int | None = None) -> tuple[int, int]:
    """[start, stop) of the shared memory that a box at `offset` takes up; `nbytes` as in collect."""
    if nbytes is None:
        return offset, offset + tensor_map.shared_bytes
    return offset, offset + nbytes // tensor_map.row_bytes * tensor_map.pitch


# ---- global memory side ----


def load_box(tensor_map: TensorMap, coords: Sequence[int], memory: GlobalMemory) -> Bytes:
    """Fetch one box: a fresh uint8[box_bytes] in linear box order.

    Faults: tma_rank, tma_bad_coordinate, and those of GlobalMemory for in-range elements that lie in no
    allocation (a tensor map that describes more than its tensor).
    """
    check_coords(tensor_map, coords, False)
    source = _whole_view(tensor_map, coords, memory, False)
    if source is not None:
        box = source.copy().reshape(-1).view(np.uint8)
        return _round_to_tf32(box) if tensor_map.tf32 else box
    first, counts = _clip(tensor_map, coords)
    box = _blank_box(tensor_map)
    if 0 in counts:
        return box
    if tensor_map.tf32:
        source = _round_to_tf32(_global_view(tensor_map, coords, first, counts, memory, 4, False))
        _box_view(tensor_map, box, first, source.shape, 4)[...] = source
        return box
    grain = 1 if counts[0] * tensor_map.bits % 128 else 16
    source = _global_view(tensor_map, coords, first, counts, memory, grain, False)
    _box_view(tensor_map, box, first, source.shape, grain)[...] = source
    return box


def store_box(tensor_map: TensorMap, coords: Sequence[int], box: Bytes, memory: GlobalMemory) -> None:
    """Write the in-range elements of a box (linear box order) to global memory.

    Faults as load_box, and tma_negative_store, global_write_to_input.
    """
    check_coords(tensor_map, coords, True)
    target = _whole_view(tensor_map, coords, memory, True)
    if target is not None:
        target[...] = box.view(CHUNK).reshape(target.shape)
        return
    first, counts = _clip(tensor_map, coords)
    if 0 in counts:
        return
    target = _global_view(tensor_map, coords, first, _whole_chunks(tensor_map, counts), memory, 16, True)
    target[...] = _box_view(tensor_map, box, first, target.shape, 16)


def reduce_box(
    tensor_map: TensorMap, coords: Sequence[int], box: Bytes, memory: GlobalMemory, operation: str
) -> None:
    """cp.reduce.async.bulk.tensor: combine the in-range elements of a box into global memory.

    operation: add, min, max, inc, dec, and, or, xor; the element type is the tensor map's. Fault
    'tma_bad_reduction' for pairs that are illegal instructions.
    """
    check_coords(tensor_map, coords, True)
    first, counts = _clip(tensor_map, coords)
    if any(stride == 0 and n > 1 for stride, n in zip(tensor_map.strides, counts[1:], strict=True)):
        raise Unsupported("reduction onto a tensor map with stride 0: elements of the box coincide")
    size = max(tensor_map.bits // 8, 1)
    if 0 in counts:
        reduce_into(
            np.empty(0, RAW_DTYPES[size]), np.empty(0, RAW_DTYPES[size]), operation, tensor_map.element
        )
        return
    target = _global_view(tensor_map, coords, first, _whole_chunks(tensor_map, counts), memory, size, True)
    source = _box_view(tensor_map, box, first, target.shape, size)
    reduce_into(target, source, operation, tensor_map.element)


def gather4_box(tensor_map: TensorMap, coords: Sequence[int], memory: GlobalMemory) -> Bytes:
    """.tile::gather4: coords = (column, row 0..3) of a 2-D map whose box has one row. Returns the four rows,
    uint8[4 * row_bytes]."""
    column, rows = _four_rows(tensor_map, coords)
    return np.concatenate([load_box(tensor_map, (column, row), memory) for row in rows])


def scatter4_box(tensor_map: TensorMap, coords: Sequence[int], box: Bytes, memory: GlobalMemory) -> None:
    """.tile::scatter4: the inverse of gather4; rows outside the tensor are not written."""
    column, rows = _four_rows(tensor_map, coords)
    for row, data in zip(rows, box.reshape(4, -1), strict=True):
        store_box(tensor_map, (column, row), data, memory)


def _four_rows(tensor_map: TensorMap, coords: Sequence[int]) -> tuple[int, Sequence[int]]:
    if tensor_map.rank != 2 or tensor_map.box[1] != 1:
        raise Fault(
            "bad_tensor_map",
            f"gather4 and scatter4 need rank 2 and box_dim[1] = 1; this map has rank {tensor_map.rank} "
            f"and box {tensor_map.box}",
        )
    if len(coords) != 5:
        raise Fault("tma_rank", f"{len(coords)} coordinates for gather4 or scatter4, which take 5")
    return coords[0], coords[1:]


def _clip(tensor_map: TensorMap, coords: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Per dimension: the first box index that is in range, and how many are. Dimension 0 has step 1."""
    firsts, counts = [], []
    steps = tensor_map.element_strides
    for i, start in enumerate(coords):
        step = steps[i] if i else 1
        first = -(start // step) if start < 0 else 0
        past = -((start - tensor_map.dims[i]) // step)
        firsts.append(first)
        counts.append(max(min(tensor_map.box_shape[i], past) - first, 0))
    return tuple(firsts), tuple(counts)


def _whole_chunks(tensor_map: TensorMap, counts: tuple[int, ...]) -> tuple[int, ...]:
    """Counts with dimension 0 rounded up to 16 bytes: stores and reductions clip there, and no finer."""
    per_chunk = 128 // tensor_map.bits
    return (-(-counts[0] // per_chunk) * per_chunk, *counts[1:])


def _round_to_tf32(values: Array) -> Array:
    """Round float32 to nearest even on 10 mantissa bits, as a load through a tf32 map does; any NaN becomes
    0x7FFFE000. Takes and returns raw words or bytes, of the same dtype."""
    raw = values.view(np.uint32)
    rounded = (raw + np.uint32(0xFFF) + (raw >> np.uint32(13) & np.uint32(1))) & np.uint32(0xFFFFE000)
    nan = (raw & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(nan, np.uint32(0x7FFFE000), rounded).view(values.dtype)


def _whole_view(
    tensor_map: TensorMap, coords: Sequence[int], memory: GlobalMemory, write: bool
) -> Array | None:
    """Global memory of a box that is wholly in range, in 16-byte chunks; None if it is not."""
    largest, shape, strides, extent = tensor_map.whole_box
    for start, limit in zip(coords, largest, strict=True):
        if start < 0 or start > limit:
            return None
    address = tensor_map.address + coords[0] * tensor_map.bits // 8
    for start, stride in zip(coords[1:], tensor_map.strides, strict=True):
        address += start * stride
    buffer, offset = _buffer(tensor_map, coords, memory, address, extent, write)
    return np.ndarray(shape, CHUNK, buffer, offset, strides)


def _global_view(
    tensor_map: TensorMap,
    coords: Sequence[int],
    first: Sequence[int],
    counts: Sequence[int],
    memory: GlobalMemory,
    grain: int,
    write: bool,
) -> Array:
    """Global memory of the in-range elements, slowest dimension first, rows in units of `grain` bytes."""
    address = tensor_map.address + (coords[0] + first[0]) * tensor_map.bits // 8
    shape, strides = [counts[0] * tensor_map.bits // 8 // grain], [grain]
    extent = shape[0] * grain
    for i, stride in enumerate(tensor_map.strides, 1):
        step = tensor_map.element_strides[i]
        address += (coords[i] + first[i] * step) * stride
        extent += (counts[i] - 1) * step * stride
        shape.append(counts[i])
        strides.append(step * stride)
    buffer, start = _buffer(tensor_map, coords, memory, address, extent, write)
    return np.ndarray(shape[::-1], RAW_DTYPES[grain], buffer, start, strides[::-1])


def _buffer(
    tensor_map: TensorMap, coords: Sequence[int], memory: GlobalMemory, address: int, extent: int, write: bool
) -> tuple[Bytes, int]:
    """GlobalMemory.buffer, with the box and the tensor map in the message of a fault."""
    try:
        return memory.buffer(address, extent, write)
    except Fault as fault:
        where = f" (box at {tuple(coords)} of {_describe(tensor_map)})"
        raise Fault(fault.code, fault.message + where) from None


def _box_view(
    tensor_map: TensorMap, box: Bytes, first: Sequence[int], shape: Sequence[int], grain: int
) -> Array:
    """The part of a box (linear box order) that is in range, shaped like the global view."""
    strides, pitch = [grain], tensor_map.row_bytes
    start = first[0] * tensor_map.bits // 8
    for i, count in enumerate(tensor_map.box_shape[1:], 1):
        strides.append(pitch)
        start += first[i] * pitch
        pitch *= count
    return np.ndarray(tuple(shape), RAW_DTYPES[grain], box, start, strides[::-1])


def _blank_box(tensor_map: TensorMap) -> Bytes:
    """A box of out-of-bounds elements."""
    if not tensor_map.nan_fill:
        return np.zeros(tensor_map.box_bytes, np.uint8)
    return np.full(tensor_map.box_bytes // 2, _OOB_NAN).view(np.uint8)


def _describe(tensor_map: TensorMap) -> str:
    return (
        f"a {tensor_map.element.name} tensor map at {tensor_map.address:#x} with dims {tensor_map.dims}, "
        f"strides {tensor_map.strides} bytes, box {tensor_map.box}"
    )
