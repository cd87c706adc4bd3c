"""tensormap.replace: one field of an encoded tensor map is changed in place (PTX ISA 9.7.9.28)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from b200sim.faults import Unsupported
from b200sim.tma.encoding import WORDS
from b200sim.tma.tensor_map import ElementType
from b200sim.tma.validation import MAX_STRIDE, bad_field

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
    w = raw[: WORDS.size].view(np.uint32)
    if field in _ORDINALS:
        if ordinal is None or not 0 <= ordinal < _ORDINALS[field]:
            raise bad_field(field, f"ordinal {ordinal}; must be 0..{_ORDINALS[field] - 1}")
        _replace_dimension(w, field, ordinal, value)
    elif field == "global_address":
        w[0], w[1] = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF
    elif field == "rank":
        if not 0 <= value <= 4:
            raise bad_field("rank", f"operand {value} (rank - 1); must be 0..4")
        _set_bits(w, 2, 4, 3, value)
    elif field == "elemtype":
        if value not in _ELEMTYPES:
            raise bad_field("elemtype", f"operand {value}; must be 0..15")
        code, tf32 = _ELEMTYPES[value]
        _set_bits(w, 2, 7, 4, code)
        _set_bits(w, 2, 16, 1, tf32)
    elif field == "swizzle_mode":
        if not 0 <= value <= 4:
            raise bad_field("swizzle_mode", f"operand {value}; must be 0..4")
        _set_bits(w, 2, 13, 2, value & 3)
        _set_bits(w, 2, 22, 1, value >> 2)
    elif field in _FLAG_FIELDS:
        low, width, largest = _FLAG_FIELDS[field]
        if not 0 <= value <= largest:
            raise bad_field(field, f"operand {value}; must be 0..{largest}")
        _set_bits(w, 2, low, width, value)
    else:
        raise Unsupported(f"tensormap.replace.tile.{field}")


def _replace_dimension(w: npt.NDArray[np.uint32], field: str, ordinal: int, value: int) -> None:
    name = f"{field}[{ordinal}]"
    if field == "global_dim":
        w[8 + ordinal] = (value - 1) & 0xFFFFFFFF
    elif field == "global_stride":
        if value % 16 or not 0 <= value < MAX_STRIDE:
            raise bad_field(name, f"operand {value} bytes; must be a multiple of 16 below 2**40")
        w[3 + ordinal] = value >> 4 & 0xFFFFFFFF
        _set_bits(w, 7, 4 * ordinal, 4, value >> 36)
    elif field == "box_dim":
        if not 1 <= value <= 256:
            raise bad_field(name, f"operand {value}; must be 1..256")
        if ordinal == 0:
            _set_bits(w, 13, 24, 8, value - 1)
        else:
            _set_bits(w, 14, 8 * (ordinal - 1), 8, value - 1)
    else:
        if not 1 <= value <= 8:
            raise bad_field(name, f"operand {value}; must be 1..8")
        _set_bits(w, 13, 3 * ordinal, 3, value - 1)


def _set_bits(w: npt.NDArray[np.uint32], word: int, low: int, width: int, value: int) -> None:
    mask = ((1 << width) - 1) << low
    w[word] = (int(w[word]) & ~mask) | value << low
