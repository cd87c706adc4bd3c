"""Slow, independent model of tile copies for the tests: Python integers, one element at a time.

Written from the rules of PTX ISA 5.5.3 and 5.5.7, without numpy and without the code under test.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from b200sim.tma.tensor_map import TensorMap

BITS = {0: 8, 1: 16, 2: 32, 3: 32, 4: 64, 5: 64, 6: 16, 7: 32, 8: 32, 9: 64, 10: 16, 11: 4}
SPANS = {1: 32, 2: 64, 3: 128}


def taken(tensor_map: TensorMap) -> list[int]:
    """Elements per dimension: ceil(box / element stride), dimension 0 without stride."""
    counts = [tensor_map.box[0]]
    for size, step in list(zip(tensor_map.box, tensor_map.element_strides, strict=True))[1:]:
        counts.append(len(range(0, size, step)))
    return counts


def elements(tensor_map: TensorMap, coords: Sequence[int]) -> Iterator[tuple[int, int, int | None]]:
    """(row, index in row, bit offset from the tensor's address, or None if out of bounds), in linear box
    order."""
    counts = taken(tensor_map)
    bits = BITS[int(tensor_map.element)]
    for row, outer in enumerate(itertools.product(*(range(n) for n in reversed(counts[1:])))):
        index = outer[::-1]
        for b0 in range(counts[0]):
            at = [coords[0] + b0]
            for d, b in enumerate(index, 1):
                at.append(coords[d] + b * tensor_map.element_strides[d])
            inside = all(0 <= x < size for x, size in zip(at, tensor_map.dims, strict=True))
            offset = at[0] * bits
            for x, stride in zip(at[1:], tensor_map.strides, strict=True):
                offset += 8 * x * stride
            yield row, b0, offset if inside else None


def get_bits(memory: bytes | bytearray, offset: int, bits: int) -> int:
    if bits == 4:
        return memory[offset // 8] >> (4 if offset % 8 else 0) & 15
    return int.from_bytes(memory[offset // 8 : (offset + bits) // 8], "little")


def put_bits(memory: bytearray, offset: int, bits: int, value: int) -> None:
    if bits == 4:
        shift = 4 if offset % 8 else 0
        memory[offset // 8] = memory[offset // 8] & ~(15 << shift) & 255 | value << shift
    else:
        memory[offset // 8 : (offset + bits) // 8] = value.to_bytes(bits // 8, "little")


def swizzled(address: int, swizzle: int) -> int:
    """Address bits 4 and up are XORed with bits 7 and up: one, two or three of them."""
    for bit in range(swizzle):
        address ^= (address >> 7 + bit & 1) << 4 + bit
    return address


def shared_bit(tensor_map: TensorMap, offset: int, row: int, b0: int) -> int:
    """Bit address in shared memory of an element of a box at byte address `offset`."""
    bits = BITS[int(tensor_map.element)]
    pitch = SPANS.get(int(tensor_map.swizzle), tensor_map.box[0] * bits // 8)
    linear = offset + row * pitch + b0 * bits // 8
    return swizzled(linear, int(tensor_map.swizzle)) * 8 + b0 * bits % 8


def load(
    tensor_map: TensorMap, coords: Sequence[int], tensor: bytes, shared: bytearray, offset: int, fill: int
) -> None:
    """`tensor` begins at the map's address; `fill` is the element that stands for out of bounds."""
    bits = BITS[int(tensor_map.element)]
    for row, b0, source in elements(tensor_map, coords):
        value = fill if source is None else get_bits(tensor, source, bits)
        put_bits(shared, shared_bit(tensor_map, offset, row, b0), bits, value)


def store(
    tensor_map: TensorMap, coords: Sequence[int], tensor: bytearray, shared: bytes, offset: int
) -> None:
    """Elements in range, and those that share the last 16 bytes of a tensor row with one that is."""
    bits = BITS[int(tensor_map.element)]
    width = -(-tensor_map.dims[0] * bits // 128) * 128 // bits
    padded = TensorMap(
        tensor_map.address,
        tensor_map.element,
        (width, *tensor_map.dims[1:]),
        tensor_map.strides,
        tensor_map.box,
        tensor_map.element_strides,
        tensor_map.swizzle,
    )
    for row, b0, target in elements(padded, coords):
        if target is not None:
            value = get_bits(shared, shared_bit(tensor_map, offset, row, b0), bits)
            put_bits(tensor, target, bits, value)
