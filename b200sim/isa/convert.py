"""Conversions between number formats: cvt (PTX ISA 9.7.9.21)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from b200sim.faults import Unsupported
from b200sim.isa.floating import canonical_nan, flush
from b200sim.isa.formats import half_codes, narrow_float
from b200sim.isa.registry import Operation, check_modifiers, instruction
from b200sim.isa.values import FLOAT, SIGNED, UNSIGNED, Value, floats, from_lanes, signed, width_mask
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import TYPE_BITS, Instruction

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

INTEGERS = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")
ROUND_TO_INTEGER = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


@instruction("cvt.pack")
def convert_pack(ins: Instruction, binder: Binder) -> Operation:
    raise Unsupported("cvt.pack")


@instruction("cvt")
def convert(ins: Instruction, binder: Binder) -> Operation:
    """cvt[.round][.ftz][.sat].DST.SRC"""
    to, source = ins.modifiers[-2:]
    if source.endswith("x2"):
        return _widen_pair(ins, binder, to, source)
    if to.endswith(("x2", "x4")):
        return _narrow_pair(ins, binder, to, source)
    check_modifiers(ins, "rn", *ROUND_TO_INTEGER, "ftz", "sat", *TYPE_BITS)
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
        raise Unsupported(f"{ins.mnemonic}: .sat")
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
    """From an integer or another float format, rounded to nearest even."""
    d, a = binder.write(ins.operands[0]), binder.source(ins.operands[1], TYPE_BITS[source])
    mode = next((ROUND_TO_INTEGER[word] for word in ins.modifiers if word in ROUND_TO_INTEGER), None)
    ftz, saturate = ins.has("ftz"), ins.has("sat")
    if to == "bf16" and source not in ("f32", "f16", "bf16"):
        raise Unsupported(f"{ins.mnemonic} (it would be rounded twice)")
    if to == "f16" and source in ("u64", "s64"):
        raise Unsupported(f"{ins.mnemonic} (it would be rounded twice)")
    narrow = narrow_float(to, False)[0] if to in ("f16", "bf16") else None
    keep_nan = to == "f32" and source in ("bf16", "f64") and not ftz  # as an H200 does, payload and sign

    def operation(warp: Warp) -> None:
        numbers = _numbers(warp.regs[a], source)
        if ftz and source == "f32":
            numbers = flush(numbers)
        if mode is not None:
            numbers = mode(numbers)
        if saturate:
            numbers = np.clip(np.where(np.isnan(numbers), 0, numbers), 0, 1).astype(numbers.dtype) + 0
        if narrow is not None:
            codes = narrow(numbers)
            warp.put(d, int(codes[0]) if codes.size == 1 else codes)
            return
        with np.errstate(over="ignore"):
            result = numbers.astype(FLOAT[TYPE_BITS[to]])
        if ftz and to == "f32":
            result = flush(result)
        warp.put(d, from_lanes(result if keep_nan else canonical_nan(result), TYPE_BITS[to]))

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


def _narrow_pair(ins: Instruction, binder: Binder, to: str, source: str) -> Operation:
    """cvt.rn[.satfinite][.relu].FMTx2.f32 d, a, b: a to the upper half, b to the lower."""
    check_modifiers(ins, "rn", "satfinite", "relu", "f32", to)
    if source != "f32" or len(ins.operands) != 3 or not ins.has("rn"):
        raise Unsupported(ins.mnemonic)
    relu = ins.has("relu")
    convert_lanes, width = narrow_float(to[:-2], ins.has("satfinite"))
    d = binder.write(ins.operands[0])
    a, b = (binder.source(operand, 32) for operand in ins.operands[1:])
    dtype = UNSIGNED[binder.bits[d]]

    def operation(warp: Warp) -> None:
        regs = warp.regs
        x, y = floats(regs[a], 32), floats(regs[b], 32)
        if relu:
            x, y = np.where(x <= 0, np.float32(0), x), np.where(y <= 0, np.float32(0), y)
        if x.size == y.size:
            low, high = convert_lanes(np.array((y, x))).astype(dtype)
        else:
            low, high = convert_lanes(y).astype(dtype), convert_lanes(x).astype(dtype)
        packed = (high << dtype.type(width)) | low
        warp.put(d, int(packed[0]) if packed.size == 1 else packed)

    return operation


def _widen_pair(ins: Instruction, binder: Binder, to: str, source: str) -> Operation:
    """cvt.rn[.relu].f16x2.FMTx2 d, a: both numbers of a small format, exactly."""
    check_modifiers(ins, "rn", to, source)
    if to != "f16x2" or source not in ("e4m3x2", "e5m2x2", "e2m1x2", "e2m3x2", "e3m2x2"):
        raise Unsupported(ins.mnemonic)
    table, width = half_codes(source[:-2])
    d, a = binder.write(ins.operands[0]), binder.read(ins.operands[1])
    ones = width_mask(width)

    def operation(warp: Warp) -> None:
        codes = np.atleast_1d(np.asarray(warp.regs[a], np.uint32))
        shift = 4 if width == 4 else 8
        low, high = table[codes & ones], table[codes >> shift & ones]
        packed = high.astype(np.uint32) << np.uint32(16) | low
        warp.put(d, int(packed[0]) if packed.size == 1 else packed)

    return operation
