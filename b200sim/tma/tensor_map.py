"""What a tensor map says (CUtensorMap, PTX ISA 5.5): tensor, box, swizzle, and the sizes that follow."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from math import prod


class ElementType(IntEnum):
    """Element type codes of the descriptor (w2 bits 10:7)."""

    U8 = 0
    U16 = 1
    U32 = 2
    S32 = 3
    U64 = 4
    S64 = 5
    F16 = 6
    F32 = 7
    F32_FTZ = 8
    F64 = 9
    BF16 = 10
    B4X16 = 11  # 16 packed 4-bit elements in 8 bytes, no padding: NVFP4 operands
    B4X16_P64 = 12  # the same, followed by 8 bytes of padding in shared memory
    B6X16_P32 = 13  # 16 packed 6-bit elements, followed by 4 bytes of padding in shared memory


ELEMENT_BITS = {
    ElementType.U8: 8,
    ElementType.U16: 16,
    ElementType.U32: 32,
    ElementType.S32: 32,
    ElementType.U64: 64,
    ElementType.S64: 64,
    ElementType.F16: 16,
    ElementType.F32: 32,
    ElementType.F32_FTZ: 32,
    ElementType.F64: 64,
    ElementType.BF16: 16,
    ElementType.B4X16: 4,
    ElementType.B4X16_P64: 4,
    ElementType.B6X16_P32: 6,
}

FLOAT_TYPES = frozenset(
    {ElementType.F16, ElementType.F32, ElementType.F32_FTZ, ElementType.F64, ElementType.BF16}
)


class Swizzle(IntEnum):
    """Swizzle mode (w2 bits 14:13)."""

    NONE = 0
    B32 = 1
    B64 = 2
    B128 = 3


SWIZZLE_SPAN = {Swizzle.B32: 32, Swizzle.B64: 64, Swizzle.B128: 128}


class Atomicity(IntEnum):
    """What the 128-byte swizzle keeps together (w2 bits 20:19)."""

    B16 = 0
    B32 = 1
    B32_FLIP8 = 2
    B64 = 3


@dataclass(frozen=True)
class TensorMap:
    """A tile-mode tensor map. Dimension 0 is the contiguous one.

    address: bytes; dims, box: elements; strides: bytes, of dimensions 1..rank-1; element_strides: elements.
    """

    address: int
    element: ElementType
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    element_strides: tuple[int, ...] = ()
    swizzle: Swizzle = Swizzle.NONE
    atomicity: Atomicity = Atomicity.B16
    interleave: int = 0
    nan_fill: bool = False
    tf32: bool = False
    l2_promotion: int = 2
    large: bool = False
    swizzle96: bool = False
    kind: int = 2

    def __post_init__(self) -> None:
        if not self.element_strides:
            object.__setattr__(self, "element_strides", (1,) * len(self.dims))

    # ---- derived sizes ----

    @property
    def rank(self) -> int:
        return len(self.dims)

    @cached_property
    def bits(self) -> int:
        """Bits of one element in global memory."""
        return ELEMENT_BITS[self.element]

    @cached_property
    def box_shape(self) -> tuple[int, ...]:
        """Elements taken along each dimension: ceil(box / element stride); dimension 0 has no stride."""
        rest = zip(self.box[1:], self.element_strides[1:], strict=True)
        return (self.box[0], *(-(-size // step) for size, step in rest))

    @cached_property
    def row_bytes(self) -> int:
        return self.box[0] * self.bits // 8

    @cached_property
    def rows(self) -> int:
        """Rows (runs along dimension 0) of one box."""
        return prod(self.box_shape[1:])

    @cached_property
    def box_bytes(self) -> int:
        """Bytes of one box; what a load adds to its mbarrier's transaction count, elements out of bounds
        included."""
        return self.row_bytes * self.rows

    @cached_property
    def pitch(self) -> int:
        """Bytes from row to row in shared memory: the span of the swizzle, even where a row is shorter."""
        return SWIZZLE_SPAN.get(self.swizzle, self.row_bytes)

    @cached_property
    def shared_bytes(self) -> int:
        """Bytes of shared memory that a box takes up, gaps after short rows included."""
        return self.pitch * self.rows

    @cached_property
    def whole_box(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]:
        """A box with every element in range, as a view of global memory: the largest start per dimension that
        keeps it so; shape and byte strides in 16-byte chunks, slowest dimension first; bytes from first to
        last."""
        steps = (1, *self.element_strides[1:])
        reach = [(count - 1) * step for count, step in zip(self.box_shape, steps, strict=True)]
        largest = tuple(size - 1 - last for size, last in zip(self.dims, reach, strict=True))
        strides = [step * stride for step, stride in zip(steps[1:], self.strides, strict=True)]
        extent = sum(last * stride for last, stride in zip(reach[1:], self.strides, strict=True))
        shape = (*self.box_shape[:0:-1], self.row_bytes // 16)
        return largest, shape, (*strides[::-1], 16), extent + self.row_bytes
