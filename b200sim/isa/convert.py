"""Conversions between number formats: cvt (PTX ISA 9.7.9.21)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from b200sim.faults import Unsupported
from b200sim.isa.convert_packed import HALVES, narrow_pair, pack, widen_pair
from b200sim.isa.floating import NAN, canonical_nan, clamped, flush
from b200sim.isa.formats import narrow_float
from b200sim.isa.registry import check_modifiers, instruction
from b200sim.isa.rounding import DIRECTIONS, brain_codes, from_integers, narrowed
from b200sim.machine.program import Operation
from b200sim.machine.values import FLOAT, SIGNED, UNSIGNED, Value, floats, per_lane, signed, width_mask
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import TYPE_BITS, Instruction

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

INTEGERS = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")
FLOATS = ("f16", "bf16", "f32", "f64")
ROUND_TO_INTEGER = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


@instruction("cvt.pack")
def convert_pack(ins: Instruction, binder: Binder) -> Operation:
    return pack(ins, binder)


@instruction("cvt")
def convert(ins: Instruction, binder: Binder) -> Operation:
    """cvt[.round][.ftz][.sat].DST.SRC"""
    to, source = ins.modifiers[-2:]
    if source.endswith("x2"):
        return (narrow_pair if to not in HALVES else widen_pair)(ins, binder, to, source)
    if to.endswith(("x2", "x4")):
        return narrow_pair(ins, binder, to, source)
    if to == "tf32":
        return _to_tf32(ins, binder)
    check_modifiers(ins, *DIRECTIONS, *ROUND_TO_INTEGER, "ftz", "sat", "satfinite", "relu", to, source)
    for kind in (to, source):
        if kind not in (*INTEGERS, *FLOATS):
            raise Unsupported(f"{ins.mnemonic}: .{kind}")
    if to in INTEGERS and source in INTEGERS:
        return _between_integers(ins, binder, to, source)
    if to in INTEGERS:
        return _to_integer(ins, binder, to, source)
    return _to_float(ins, binder, to, source)


def _integer_range(kind: str) -> tuple[int, int]:
    bits = TYPE_BITS[kind]
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if kind[0] == "s" else (0, (1 << bits) - 1)


def _between_integers(ins: Instruction, binder: Binder, to: str, source: str) -> Operation:
    """Truncation or extension; a destination wider than its type is extended as the type says."""
    if ins.has("sat"):
        return _saturated(ins, binder, to, source)
    to_bits, from_bits = TYPE_BITS[to], TYPE_BITS[source]
    d, a = binder.write(ins.operands[0]), binder.source(ins.operands[1], from_bits)
    register = binder.bits[d]

    def operation(warp: Warp) -> None:
        value = warp.regs[a]
        if type(value) is int:
            number = value & width_mask(from_bits)
            if source[0] == "s":
                number = signed(number, from_bits)
            number &= width_mask(to_bits)
            if to[0] == "s":
                number = signed(number, to_bits)
            warp.put(d, number & width_mask(register))
            return
        lanes = value.astype(UNSIGNED[from_bits])
        wide = (lanes.view(SIGNED[from_bits]) if source[0] == "s" else lanes).astype(UNSIGNED[to_bits])
        if to_bits != register:
            wide = (wide.view(SIGNED[to_bits]) if to[0] == "s" else wide).astype(UNSIGNED[register])
        warp.put(d, wide)

    return operation


def _saturated(ins: Instruction, binder: Binder, to: str, source: str) -> Operation:
    """cvt.sat between integers: clamped to the destination's range."""
    d, a = binder.write(ins.operands[0]), binder.source(ins.operands[1], TYPE_BITS[source])
    low, high = _integer_range(to)
    from_bits, register = TYPE_BITS[source], binder.bits[d]

    def one(value: int) -> int:
        number = value & width_mask(from_bits)
        if source[0] == "s":
            number = signed(number, from_bits)
        return min(max(number, low), high) & width_mask(register)

    compute = per_lane(one, register)

    def operation(warp: Warp) -> None:
        warp.put(d, compute(warp.regs[a]))

    return operation


def _to_integer(ins: Instruction, binder: Binder, to: str, source: str) -> Operation:
    """Rounds, then clamps to the destination's range; NaN gives 0, or 2^63 where 64 bits are involved."""
    mode = next((ROUND_TO_INTEGER[word] for word in ins.modifiers if word in ROUND_TO_INTEGER), None)
    if mode is None:
        raise Unsupported(f"{ins.mnemonic} without rounding to an integer")
    d, a = binder.write(ins.operands[0]), binder.source(ins.operands[1], TYPE_BITS[source])
    low, high = _integer_range(to)
    register, ftz = binder.bits[d], ins.has("ftz")
    for_nan = 1 << TYPE_BITS[to] - 1 if "64" in to + source else 0

    def one(x: float) -> int:
        if x != x:
            return for_nan
        return low if x < low else high if x > high else int(x)

    def operation(warp: Warp) -> None:
        numbers = _numbers(warp.regs[a], source)
        rounded = mode(flush(numbers) if ftz else numbers).tolist()
        whole = [one(x) & width_mask(register) for x in rounded]
        warp.put(d, whole[0] if len(whole) == 1 else np.array(whole, UNSIGNED[register]))

    return operation


def _to_float(ins: Instruction, binder: Binder, to: str, source: str) -> Operation:
    """From an integer or another float format, with one rounding."""
    d, a = binder.write(ins.operands[0]), binder.source(ins.operands[1], TYPE_BITS[source])
    mode = next((ROUND_TO_INTEGER[word] for word in ins.modifiers if word in ROUND_TO_INTEGER), None)
    direction = next((word for word in ins.modifiers if word in DIRECTIONS), "rn")
    ftz, saturate, relu = ins.has("ftz"), ins.has("sat"), ins.has("relu")
    if (relu or ins.has("satfinite")) and (to not in ("f16", "bf16") or source != "f32"):
        raise Unsupported(ins.mnemonic)
    finish = _rounding(to, source, direction, ins.has("satfinite"), ftz)

    def operation(warp: Warp) -> None:
        numbers = _numbers(warp.regs[a], source)
        if ftz and source == "f32":
            numbers = flush(numbers)
        if mode is not None:
            numbers = mode(numbers)
        if saturate or relu:
            numbers = clamped(numbers, saturate, relu)
        codes = finish(numbers)
        warp.put(d, int(codes[0]) if codes.size == 1 else codes)

    return operation


def _rounding(
    to: str, source: str, direction: str, satfinite: bool, ftz: bool
) -> Callable[[Any], NDArray[np.unsignedinteger]]:
    """From numbers of `source` to patterns of `to`."""
    if source in INTEGERS and (direction != "rn" or to == "bf16" or source[1:] == "64"):
        return lambda numbers: from_integers(numbers, to, direction)
    if to == "bf16" and (source == "f64" or direction not in ("rn", "rz")):
        return lambda numbers: brain_codes(numbers.astype(np.float64), direction)
    if source in ("f32", "f16", "bf16") and to in ("f16", "bf16") and direction in ("rn", "rz"):
        return narrow_float(to, satfinite, direction)[0]
    dtype = FLOAT[TYPE_BITS[to]]
    keep_nan = source == "f64" or (source == "bf16" and not ftz)  # as an H200 does, payload and sign

    def finish(numbers: Any) -> NDArray[np.unsignedinteger]:
        with np.errstate(over="ignore"):
            if direction == "rn":
                result = numbers.astype(dtype)
            else:
                result = narrowed(numbers.astype(np.float64), dtype, direction)
        if ftz and to == "f32":
            result = flush(result)
        result = result if keep_nan else canonical_nan(result)
        codes = np.ascontiguousarray(result).view(UNSIGNED[TYPE_BITS[to]])
        return _with_nans_of(numbers, codes) if (to, source) == ("f16", "f64") else codes

    return finish


def _with_nans_of(
    numbers: NDArray[np.float64], codes: NDArray[np.unsignedinteger]
) -> NDArray[np.unsignedinteger]:
    """fp16 in which NaNs have sign and payload of the f64, and are quiet. (numpy leaves signalling ones
    signalling. An H200 was asked for quiet ones only.)"""
    bits = np.ascontiguousarray(numbers).view(np.uint64)
    sign, payload = bits >> np.uint64(63) << np.uint64(15), bits >> np.uint64(42) & np.uint64(0x1FF)
    nans = (sign | np.uint64(0x7E00) | payload).astype(codes.dtype)
    return np.where(np.isnan(numbers), nans, codes)


def _to_tf32(ins: Instruction, binder: Binder) -> Operation:
    """cvt.{rna, rn, rz}[.relu][.satfinite].tf32.f32: fp32 whose mantissa ends after 10 bits; .rna rounds
    halfway cases away from zero. Of a NaN an H200 cuts off the last bits with .rna, so that a small payload
    leaves an infinity, and gives its one NaN, cut off, otherwise."""
    check_modifiers(ins, "rna", "rn", "rz", "relu", "satfinite", "tf32", "f32")
    direction, saturate = ins.modifiers[0], ins.has("satfinite")
    d, a = binder.write(ins.operands[0]), binder.source(ins.operands[1], 32)

    def operation(warp: Warp) -> None:
        numbers = clamped(floats(warp.regs[a], 32), False, ins.has("relu"))
        word = np.ascontiguousarray(numbers).view(np.uint32)
        up = {"rna": np.uint32(0x1000), "rn": np.uint32(0xFFF) + (word >> 13 & 1), "rz": np.uint32(0)}
        codes = (word + up[direction]) & np.uint32(0xFFFFE000)
        if saturate:
            codes = np.where(codes & 0x7FFFFFFF == 0x7F800000, codes - np.uint32(0x2000), codes)
        nan = word if direction == "rna" else np.uint32(NAN[32])
        codes = np.where(np.isnan(numbers), nan & np.uint32(0xFFFFE000), codes)
        warp.put(d, int(codes[0]) if codes.size == 1 else codes)

    return operation


def _numbers(value: Value, kind: str) -> Any:
    """A register's numbers as an array of one or 32 elements; fp16 and bf16 as fp32."""
    bits = TYPE_BITS[kind]
    if kind == "bf16":
        return (np.atleast_1d(np.asarray(value, np.uint32)) << np.uint32(16)).view(np.float32)
    if kind[0] == "f":
        lanes = floats(value, bits)
        return lanes.astype(np.float32) if bits == 16 else lanes
    if type(value) is int:
        value &= width_mask(bits)
        return np.array(
            [signed(value, bits) if kind[0] == "s" else value], (SIGNED if kind[0] == "s" else UNSIGNED)[bits]
        )
    lanes = value.astype(UNSIGNED[bits])  # type: ignore[union-attr]
    return lanes.view(SIGNED[bits]) if kind[0] == "s" else lanes
