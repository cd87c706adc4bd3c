"""Element-wise reductions of the bulk-copy engine: cp.reduce.async.bulk and its tensor form.

Which operation goes with which type: PTX ISA 9.7.9.25.4.2 and 9.7.9.27.1.3, for tensor maps corrected by
what an H200 accepts (f64 additions, but no bitwise operation on s64 or floats).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from b200sim.faults import Fault
from b200sim.global_memory import Array
from b200sim.tma.tensor_map import ElementType

_INTEGERS: dict[str, np.dtype[Any]] = {
    "u32": np.dtype(np.uint32),
    "s32": np.dtype(np.int32),
    "u64": np.dtype(np.uint64),
    "s64": np.dtype(np.int64),
}
_BITS: dict[str, np.dtype[Any]] = {"b32": np.dtype(np.uint32), "b64": np.dtype(np.uint64)}
_FLOATS: dict[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f32.ftz": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
}
_HALVES: dict[str, np.dtype[Any]] = {"f16": np.dtype(np.float16), "bf16": np.dtype(np.uint16)}
_DTYPES = _INTEGERS | _BITS | _FLOATS | _HALVES

_VALID = {
    "add": {"u32", "s32", "u64", "f32", "f32.ftz", "f64", "f16", "bf16"},
    "min": {"u32", "s32", "u64", "s64", "f16", "bf16"},
    "max": {"u32", "s32", "u64", "s64", "f16", "bf16"},
    "inc": {"u32"},
    "dec": {"u32"},
    "and": {"b32", "b64"},
    "or": {"b32", "b64"},
    "xor": {"b32", "b64"},
}
_BITWISE: dict[str, Callable[[Array, Array], Array]] = {
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}
_F32_NAN = np.uint32(0x7FFFFFFF).view(np.float32)
# Element types of tensor maps: for arithmetic, and for and, or, xor.
_ARITHMETIC_NAMES = {
    ElementType.U32: "u32",
    ElementType.S32: "s32",
    ElementType.U64: "u64",
    ElementType.S64: "s64",
    ElementType.F16: "f16",
    ElementType.BF16: "bf16",
    ElementType.F32: "f32",
    ElementType.F32_FTZ: "f32.ftz",
    ElementType.F64: "f64",
}
_BITWISE_NAMES = {ElementType.U32: "b32", ElementType.S32: "b32", ElementType.U64: "b64"}


def reduce_into(target: Array, source: Array, operation: str, element: ElementType | str) -> None:
    """target = operation(target, source), element by element, in place.

    target, source: arrays of one shape whose items are the raw elements (unsigned words of the element's
    size). element: a tensor map's type or a PTX type name ("u32" ... "b64", "f16", "bf16", "f32", "f64").
    Fault 'tma_bad_reduction' if operation and type don't go together.
    """
    name = _type_name(operation, element)
    if not target.size:
        return
    dtype = _DTYPES[name]
    old, new = target.view(dtype), np.ascontiguousarray(source).view(dtype)
    target[...] = _combine(old, new, operation, name).astype(dtype, copy=False).view(target.dtype)


def check_reduction(operation: str, element: ElementType | str) -> None:
    """Raise Fault 'tma_bad_reduction' if the pair has no meaning."""
    _type_name(operation, element)


def _type_name(operation: str, element: ElementType | str) -> str:
    if isinstance(element, ElementType):
        names = _BITWISE_NAMES if operation in _BITWISE else _ARITHMETIC_NAMES
        name, shown = names.get(element, ""), element.name
    else:
        name = shown = element
    if operation not in _VALID or name not in _VALID[operation]:
        raise Fault("tma_bad_reduction", f"reduction .{operation} of elements of type {shown}")
    return name


def _combine(old: Array, new: Array, operation: str, name: str) -> Array:
    if operation in _BITWISE:
        return _BITWISE[operation](old, new)
    if operation == "inc":
        return np.where(old >= new, 0, old + np.uint32(1))
    if operation == "dec":
        return np.where((old == 0) | (old > new), new, old - np.uint32(1))
    if name in _INTEGERS:
        table = {"add": np.add, "min": np.minimum, "max": np.maximum}
        return table[operation](old, new)
    if name in _FLOATS:
        return _add_float(old, new, name)
    return _combine_halves(old, new, operation, name)


def _add_float(old: Array, new: Array, name: str) -> Array:
    """Rounds to nearest even. Subnormals are flushed only where a tensor map says f32.ftz (PTX ISA
    9.7.9.25.4.2 says so of every f32 addition; an H200 does not). A NaN sum is 0x7FFFFFFF in f32."""
    with np.errstate(over="ignore", invalid="ignore"):
        result = _flush(_flush(old) + _flush(new)) if name == "f32.ftz" else old + new
    if name != "f64":
        result[np.isnan(result)] = _F32_NAN
    return result


def _flush(values: Array) -> Array:
    """Float32 subnormals become zero of the same sign."""
    small = np.abs(values) < np.finfo(np.float32).tiny
    return np.where(small, np.copysign(np.float32(0), values), values)


def _combine_halves(old: Array, new: Array, operation: str, name: str) -> Array:
    """f16 and bf16 through float32, which holds both exactly and whose sum, rounded again, is the correctly
    rounded one (24 >= 2 * 11 + 2 bits)."""
    a, b = _widen(old, name), _widen(new, name)
    with np.errstate(over="ignore", invalid="ignore"):
        if operation == "add":
            result = a + b
        else:
            # The number wins over NaN; -0 is less than +0.
            pick_a = np.less if operation == "min" else np.greater
            tie = np.signbit(a) if operation == "min" else ~np.signbit(a)
            result = np.where(pick_a(a, b) | np.isnan(b) | ((a == b) & tie), a, b)
        return _narrow(result, name)


def _widen(raw: Array, name: str) -> npt.NDArray[np.float32]:
    if name == "f16":
        return raw.astype(np.float32)
    return (raw.astype(np.uint32) << 16).view(np.float32)


def _narrow(values: npt.NDArray[np.float32], name: str) -> Array:
    """Round to nearest even; NaN becomes 0x7FFF."""
    if name == "f16":
        raw = values.astype(np.float16).view(np.uint16)
    else:
        wide = values.view(np.uint32)
        raw = ((wide + 0x7FFF + (wide >> 16 & 1)) >> 16).astype(np.uint16)
    raw = np.where(np.isnan(values), np.uint16(0x7FFF), raw)
    return raw.view(_DTYPES[name])
