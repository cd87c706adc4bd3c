"""Tensor maps: the 128-byte descriptors of the TMA engine (CUtensorMap), bit by bit.

Layout in 32-bit little-endian words, bits high:low. Only the first 64 bytes carry information.

  w0, w1    global address                      w7        high nibbles of the strides (bits 4i+3:4i)
  w2 3:0    2 in tile mode (0 on Hopper)        w8..w12   dim 0..4, elements, minus 1
  w2 6:4    rank - 1                            w13 3i+2:3i   element stride of dim i, minus 1
  w2 10:7   element type                        w13 31:24 box dim 0, elements, minus 1
  w2 12:11  interleave                          w14       box dim 1..4, minus 1, one byte each
  w2 14:13  swizzle mode                        w15       0
  w2 15     fill out-of-bounds with NaN
  w2 16     round to tf32
  w2 18:17  L2 promotion (no effect here)
  w2 20:19  swizzle atomicity
  w2 21     tensor of 128 KiB or more (no effect here)
  w2 22     96-byte swizzle (sm_103)
  w3..w6    stride of dim 1..4, bytes / 16, low 32 bits

Sources: descriptors written by CuTe-DSL 4.5.2 host code, the code ptxas emits for each tensormap.replace
field, and cuTensorMapEncodeTiled on an H200; limits from the CUDA driver API (cuTensorMapEncodeTiled) and
PTX ISA 5.5 and 9.7.9.27.1.1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache
from math import prod

import numpy as np
import numpy.typing as npt

from b200sim.faults import Fault, Unsupported

MAP_BYTES = 128
_WORDS = struct.Struct("<16I")
_MAX_STRIDE = 1 << 40


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

    # ---- encoding ----

    @staticmethod
    def from_bytes(raw: bytes) -> TensorMap:
        """Decode 128 (or the first 64) bytes without judging them, except for codes that have no meaning:
        Fault 'bad_tensor_map'."""
        w = _WORDS.unpack(raw[: _WORDS.size])
        flags = w[2]
        rank = (flags >> 4 & 7) + 1
        code = flags >> 7 & 15
        if rank > 5 or code > max(ElementType) or flags >> 23:
            raise Fault(
                "bad_tensor_map",
                f"word 2 = {flags:#010x} is no tile-mode tensor map: rank {rank} (1..5), "
                f"element type code {code} (0..{max(ElementType):d}), bits 31:23 = {flags >> 23:#x} (0); "
                "was the descriptor initialised?",
            )
        strides = [(w[3 + i] | (w[7] >> 4 * i & 15) << 32) << 4 for i in range(4)]
        box = [(w[13] >> 24) + 1] + [(w[14] >> 8 * i & 255) + 1 for i in range(4)]
        return TensorMap(
            address=w[0] | w[1] << 32,
            element=ElementType(code),
            dims=tuple(w[8 + i] + 1 for i in range(rank)),
            strides=tuple(strides[: rank - 1]),
            box=tuple(box[:rank]),
            element_strides=tuple((w[13] >> 3 * i & 7) + 1 for i in range(rank)),
            swizzle=Swizzle(flags >> 13 & 3),
            atomicity=Atomicity(flags >> 19 & 3),
            interleave=flags >> 11 & 3,
            nan_fill=bool(flags >> 15 & 1),
            tf32=bool(flags >> 16 & 1),
            l2_promotion=flags >> 17 & 3,
            large=bool(flags >> 21 & 1),
            swizzle96=bool(flags >> 22 & 1),
            kind=flags & 15,
        )

    def encode(self) -> bytes:
        """The 128-byte descriptor. Fields that don't fit raise Fault 'bad_tensor_map'."""
        self._check_shape()
        w = [0] * 32
        w[0], w[1] = self.address & 0xFFFFFFFF, self.address >> 32
        w[2] = (
            self.kind
            | (self.rank - 1) << 4
            | self.element << 7
            | self.interleave << 11
            | self.swizzle << 13
            | self.nan_fill << 15
            | self.tf32 << 16
            | self.l2_promotion << 17
            | self.atomicity << 19
            | self.large << 21
            | self.swizzle96 << 22
        )
        for i, stride in enumerate(self.strides):
            w[3 + i] = stride >> 4 & 0xFFFFFFFF
            w[7] |= (stride >> 36) << 4 * i
        for i, size in enumerate(self.dims):
            w[8 + i] = size - 1
            w[13] |= (self.element_strides[i] - 1) << 3 * i
        w[13] |= (self.box[0] - 1) << 24
        for i, size in enumerate(self.box[1:]):
            w[14] |= (size - 1) << 8 * i
        return struct.pack("<32I", *w)

    # ---- validation ----

    def validate(self) -> None:
        """Raise Fault 'bad_tensor_map' naming the first field that breaks a rule of the hardware, or
        Unsupported for modes that the simulator has not."""
        self._check_shape()
        if self.interleave:
            raise Unsupported(f"tensor map with interleave_layout {self.interleave}")
        if self.swizzle96:
            raise Unsupported("tensor map with 96-byte swizzle (an sm_103a mode)")
        if self.element in (ElementType.B4X16_P64, ElementType.B6X16_P32):
            raise Unsupported(f"tensor map with padded element type {self.element.name}")
        if self.atomicity is Atomicity.B32_FLIP8:
            raise Unsupported("tensor map with swizzle atomicity 32B + 8B flip")
        if self.atomicity and self.swizzle is not Swizzle.B128:
            raise _bad("swizzle_atomicity", f"{self.atomicity.name} needs the 128-byte swizzle mode")
        if self.element is ElementType.B4X16 and self.dims[0] % 2:
            raise _bad("global_dim[0]", f"{self.dims[0]} 4-bit elements; must be even")
        if self.nan_fill and self.element not in FLOAT_TYPES:
            raise _bad("fill_mode", f"OOB-NaN fill with the element type {self.element.name}")
        self._check_row()

    def _check_shape(self) -> None:
        rank = self.rank
        if not 1 <= rank <= 5:
            raise _bad("rank", f"{rank}; must be 1..5")
        lengths = {"global_stride": len(self.strides) + 1}
        lengths |= {"box_dim": len(self.box), "element_stride": len(self.element_strides)}
        for field, length in lengths.items():
            if length != rank:
                raise _bad(field, f"{length} dimensions, the tensor has {rank}")
        if self.address % 16 or not 0 <= self.address < 1 << 64:
            raise _bad("global_address", f"{self.address:#x}; must be a multiple of 16")
        for i, stride in enumerate(self.strides):
            if stride % 16 or not 0 <= stride < _MAX_STRIDE:
                raise _bad(f"global_stride[{i}]", f"{stride} bytes; must be a multiple of 16 below 2**40")
        for i in range(rank):
            if not 1 <= self.dims[i] <= 1 << 32:
                raise _bad(f"global_dim[{i}]", f"{self.dims[i]}; must be 1..2**32")
            if not 1 <= self.box[i] <= 256:
                raise _bad(f"box_dim[{i}]", f"{self.box[i]}; must be 1..256")
            if not 1 <= self.element_strides[i] <= 8:
                raise _bad(f"element_stride[{i}]", f"{self.element_strides[i]}; must be 1..8")

    def _check_row(self) -> None:
        bits = self.box[0] * self.bits
        if bits % 128:
            raise _bad(
                "box_dim[0]",
                f"{self.box[0]} elements of {self.element.name} are {bits / 8:g} bytes; "
                "must be a multiple of 16 bytes",
            )
        span = SWIZZLE_SPAN.get(self.swizzle)
        if span is not None and bits > span * 8:
            raise _bad(
                "box_dim[0]",
                f"{self.box[0]} elements of {self.element.name} are {bits // 8} bytes, "
                f"more than the {span} bytes of swizzle {self.swizzle.name}",
            )


def decode(raw: bytes) -> TensorMap:
    """Decode and validate a descriptor (128 bytes; the upper 64 are ignored and may be garbage). Cached.

    Raises Fault 'bad_tensor_map' naming the field, or Unsupported.
    """
    return _decode(raw[: _WORDS.size])


@lru_cache(maxsize=4096)
def _decode(raw: bytes) -> TensorMap:
    tensor_map = TensorMap.from_bytes(raw)
    tensor_map.validate()
    return tensor_map


# ---- tensormap.replace (PTX ISA 9.7.9.28) ----

# field -> (low bit of w2, width, largest operand)
_FLAG_FIELDS = {
    "interleave_layout": (11, 2, 2),
    "swizzle_atomicity": (19, 2, 3),
    "fill_mode": (15, 1, 1),
}
_ORDINALS = {"box_dim": 5, "global_dim": 5, "element_stride": 5, "global_stride": 4}
# tensormap.replace .elemtype operand -> (descriptor code, tf32 flag)
_ELEMTYPES = {n: (n, 0) for n in range(11)} | {
    11: (ElementType.F32, 1),
    12: (ElementType.F32_FTZ, 1),
    13: (ElementType.B4X16, 0),
    14: (ElementType.B4X16_P64, 0),
    15: (ElementType.B6X16_P32, 0),
}


def replace(raw: npt.NDArray[np.uint8], field: str, ordinal: int | None, value: int) -> None:
    """tensormap.replace.tile.<field> on the 128 bytes of `raw`, in place.

    `value` is the PTX operand: sizes and strides as such (stored minus 1, strides in bytes stored / 16), rank
    already minus 1, the others by PTX ISA table 33. `ordinal` is the dimension (global_stride: 0 = the stride
    of dimension 1), None for fields without one. Operands that can't be stored raise Fault 'bad_tensor_map'.
    A global_dim of 0 wraps to 2**32, as in hardware: harmless on an empty group that nobody loads.
    """
    w = raw[: _WORDS.size].view(np.uint32)
    if field in _ORDINALS:
        if ordinal is None or not 0 <= ordinal < _ORDINALS[field]:
            raise _bad(field, f"ordinal {ordinal}; must be 0..{_ORDINALS[field] - 1}")
        _replace_dimension(w, field, ordinal, value)
    elif field == "global_address":
        w[0], w[1] = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF
    elif field == "rank":
        if not 0 <= value <= 4:
            raise _bad("rank", f"operand {value} (rank - 1); must be 0..4")
        _set_bits(w, 2, 4, 3, value)
    elif field == "elemtype":
        if value not in _ELEMTYPES:
            raise _bad("elemtype", f"operand {value}; must be 0..15")
        code, tf32 = _ELEMTYPES[value]
        _set_bits(w, 2, 7, 4, code)
        _set_bits(w, 2, 16, 1, tf32)
    elif field == "swizzle_mode":
        if not 0 <= value <= 4:
            raise _bad("swizzle_mode", f"operand {value}; must be 0..4")
        _set_bits(w, 2, 13, 2, value & 3)
        _set_bits(w, 2, 22, 1, value >> 2)
    elif field in _FLAG_FIELDS:
        low, width, largest = _FLAG_FIELDS[field]
        if not 0 <= value <= largest:
            raise _bad(field, f"operand {value}; must be 0..{largest}")
        _set_bits(w, 2, low, width, value)
    else:
        raise Unsupported(f"tensormap.replace.tile.{field}")


def _replace_dimension(w: npt.NDArray[np.uint32], field: str, ordinal: int, value: int) -> None:
    name = f"{field}[{ordinal}]"
    if field == "global_dim":
        w[8 + ordinal] = (value - 1) & 0xFFFFFFFF
    elif field == "global_stride":
        if value % 16 or not 0 <= value < _MAX_STRIDE:
            raise _bad(name, f"operand {value} bytes; must be a multiple of 16 below 2**40")
        w[3 + ordinal] = value >> 4 & 0xFFFFFFFF
        _set_bits(w, 7, 4 * ordinal, 4, value >> 36)
    elif field == "box_dim":
        if not 1 <= value <= 256:
            raise _bad(name, f"operand {value}; must be 1..256")
        if ordinal == 0:
            _set_bits(w, 13, 24, 8, value - 1)
        else:
            _set_bits(w, 14, 8 * (ordinal - 1), 8, value - 1)
    else:
        if not 1 <= value <= 8:
            raise _bad(name, f"operand {value}; must be 1..8")
        _set_bits(w, 13, 3 * ordinal, 3, value - 1)


def _set_bits(w: npt.NDArray[np.uint32], word: int, low: int, width: int, value: int) -> None:
    mask = ((1 << width) - 1) << low
    w[word] = (int(w[word]) & ~mask) | value << low


def _bad(field: str, problem: str) -> Fault:
    return Fault("bad_tensor_map", f"tensor map field {field} = {problem}")
