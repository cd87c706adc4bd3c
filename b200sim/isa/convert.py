"""Moves and conversions (PTX ISA 9.7.9.3 mov, 9.7.9.21 cvt, 9.7.9.20 cvta, 9.7.9.22 mapa)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from b200sim.faults import Fault, Unsupported
from b200sim.isa.formats import narrow_float
from b200sim.isa.registry import Operation, check_modifiers, instruction
from b200sim.isa.values import (
    FLOAT,
    SIGNED,
    UNSIGNED,
    Value,
    floats,
    from_lanes,
    lane_array,
    pattern,
    signed,
    spread,
    width_mask,
)
from b200sim.ptx.binder import Binder, type_of
from b200sim.ptx.parser import TYPE_BITS
from b200sim.ptx.syntax import Immediate, Instruction, Register, Vector

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

SHARED_WINDOW = 1 << 56  # generic addresses from here on are shared memory; host addresses lie below
CLOCKS = {"%clock": 32, "%clock64": 64, "%clock_hi": 32, "%globaltimer": 64, "%globaltimer_lo": 32}


@instruction("mov")
def move(ins: Instruction, binder: Binder) -> Operation:
    check_modifiers(ins, *TYPE_BITS)
    bits = TYPE_BITS[type_of(ins)]
    destination, source = ins.operands
    if isinstance(destination, Vector):
        return _unpack(destination, source, bits, binder)
    if isinstance(source, Vector):
        return _pack(destination, source, bits, binder)
    d = binder.write(destination)
    if isinstance(source, Register) and source.name in CLOCKS:
        return _clock(d, CLOCKS[source.name])
    if bits == 1 and isinstance(source, Immediate):
        source = Immediate(0xFFFFFFFF if source.value else 0)
    a = binder.source(source, 32 if bits == 1 else bits)

    def operation(warp: Warp) -> None:
        warp.put(d, warp.regs[a])

    return operation


def _clock(d: int, bits: int) -> Operation:
    """Clocks count scheduling steps: they only ever go forward, and mean nothing more."""

    def operation(warp: Warp) -> None:
        warp.put(d, (warp.cta.grid.clock + warp.executed) & width_mask(bits))

    return operation


def _unpack(destination: Vector, source, bits: int, binder: Binder) -> Operation:  # type: ignore[no-untyped-def]
    """mov {lo, hi}, a"""
    slots = binder.writes(destination)
    a = binder.source(source, bits)
    part = bits // len(slots)
    mask = width_mask(part)

    def operation(warp: Warp) -> None:
        value = warp.regs[a]
        if type(value) is int:
            for i, slot in enumerate(slots):
                warp.put(slot, value >> i * part & mask)
        elif bits == 128:
            for i, slot in enumerate(slots):
                warp.put(slot, np.array([x >> i * part & mask for x in value], UNSIGNED[part]))  # type: ignore[union-attr]
        else:
            lanes = np.ascontiguousarray(value).view(UNSIGNED[part]).reshape(32, -1)
            for i, slot in enumerate(slots):
                warp.put(slot, lanes[:, i].copy())

    return operation


def _pack(destination, source: Vector, bits: int, binder: Binder) -> Operation:  # type: ignore[no-untyped-def]
    """mov d, {lo, hi}"""
    d = binder.write(destination)
    part = bits // len(source.items)
    slots = [binder.source(item, part) for item in source.items]

    def operation(warp: Warp) -> None:
        values = [warp.regs[slot] for slot in slots]
        if all(type(value) is int for value in values):
            packed = 0
            for i, value in enumerate(values):
                packed |= value << i * part  # type: ignore[operator]
            warp.put(d, packed)
        elif bits == 128:
            columns = [np.broadcast_to(np.asarray(v), 32).tolist() for v in values]
            rows = zip(*columns, strict=True)
            warp.put(d, np.array([sum(x << i * part for i, x in enumerate(row)) for row in rows], object))
        else:
            lanes = np.stack([spread(value, part) for value in values], axis=1)
            warp.put(d, np.ascontiguousarray(lanes).view(UNSIGNED[bits])[:, 0])

    return operation


@instruction("cvt.pack")
def convert_pack(ins: Instruction, binder: Binder) -> Operation:
    raise Unsupported("cvt.pack")


@instruction("cvt")
def convert(ins: Instruction, binder: Binder) -> Operation:
    """cvt[.round][.ftz][.sat].DST.SRC"""
    to, source = ins.modifiers[-2:]
    if to in ("f16x2", "bf16x2") or to.endswith("x2") or to.endswith("x4"):
        return _convert_packed(ins, binder, to, source)
    check_modifiers(ins, "rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi", "ftz", "sat", *TYPE_BITS)
    if to[0] in "fb" or source[0] in "fb":
        return _convert_float(ins, binder, to, source)
    return _convert_integer(ins, binder, to, source)


def _convert_integer(ins: Instruction, binder: Binder, to: str, source: str) -> Operation:
    if ins.has("sat"):
        raise Unsupported(f"{ins.mnemonic}: .sat")
    to_bits, from_bits = TYPE_BITS[to], TYPE_BITS[source]
    d, a = binder.write(ins.operands[0]), binder.source(ins.operands[1], from_bits)
    register = max(to_bits, 16)  # a register holds at least 16 bits
    extend = source[0] == "s"

    def operation(warp: Warp) -> None:
        value = warp.regs[a]
        if type(value) is int:
            value &= width_mask(from_bits)
            number = signed(value, from_bits) if extend else value
            number &= width_mask(to_bits)  # type: ignore[operator]
            if to[0] == "s" and register > to_bits:
                number = signed(number, to_bits) & width_mask(register)  # type: ignore[operator]
            warp.put(d, number)
            return
        lanes = value.astype(UNSIGNED[from_bits])  # type: ignore[union-attr]
        wide = (lanes.view(SIGNED[from_bits]) if extend else lanes).astype(UNSIGNED[to_bits])
        if to_bits < register:
            wide = (wide.view(SIGNED[to_bits]) if to[0] == "s" else wide).astype(UNSIGNED[register])
        warp.put(d, wide)

    return operation


ROUND_TO_INTEGER = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def _convert_float(ins: Instruction, binder: Binder, to: str, source: str) -> Operation:
    """Between float formats, and between floats and integers; results are rounded to nearest even."""
    if any(ins.has(mode) for mode in ("rz", "rm", "rp", "sat")):
        raise Unsupported(f"rounding or saturation of {ins.mnemonic}")
    from_bits, to_bits = TYPE_BITS[source], TYPE_BITS[to]
    d, a = binder.write(ins.operands[0]), binder.source(ins.operands[1], from_bits)
    to_integer = next((ROUND_TO_INTEGER[word] for word in ins.modifiers if word in ROUND_TO_INTEGER), None)

    def operation(warp: Warp) -> None:
        value = warp.regs[a]
        number = _as_double(value, source)
        if to in ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64"):
            low, high = (
                (-(1 << to_bits - 1), (1 << to_bits - 1) - 1) if to[0] == "s" else (0, (1 << to_bits) - 1)
            )
            rounded = (to_integer or np.trunc)(np.nan_to_num(number, nan=0.0, posinf=np.inf, neginf=-np.inf))
            whole = [
                min(max(int(min(max(x, -1e300), 1e300)), low), high) & width_mask(to_bits) for x in rounded
            ]
            warp.put(d, whole[0] if len(whole) == 1 else np.array(whole, UNSIGNED[max(to_bits, 16)]))
            return
        if to_integer is not None:
            number = to_integer(number)
        warp.put(d, _from_double(number, to, value, source))

    return operation


def _as_double(value: Value, kind: str) -> np.ndarray:  # type: ignore[type-arg]
    bits = TYPE_BITS[kind]
    if kind == "bf16":
        word = np.atleast_1d(np.asarray(value, np.uint32)) << 16
        return word.astype(np.uint32).view(np.float32)
    if kind[0] == "f":
        return floats(value, bits)
    number = signed(value, bits) if kind[0] == "s" else value
    return np.atleast_1d(np.asarray(number)).astype(np.float64)


def _from_double(number: np.ndarray, to: str, value: Value, source: str) -> Value:  # type: ignore[type-arg]
    if to == "bf16":
        return _brain_float(number)
    if source[0] in "us" and to == "f32" and TYPE_BITS[source] == 64:
        raise Unsupported("cvt.f32 of a 64-bit integer (double rounding)")
    with np.errstate(over="ignore", invalid="ignore"):
        return from_lanes(number.astype(FLOAT[TYPE_BITS[to]]), TYPE_BITS[to])


def _brain_float(number: np.ndarray) -> Value:  # type: ignore[type-arg]
    """fp32 to bf16, round to nearest even."""
    word = number.astype(np.float32).view(np.uint32)
    rounded = (word + 0x7FFF + (word >> 16 & 1)) >> 16
    result = np.where(np.isnan(number), 0x7FFF, rounded).astype(np.uint16)
    return int(result[0]) if result.size == 1 else result


def _convert_packed(ins: Instruction, binder: Binder, to: str, source: str) -> Operation:
    """cvt.rn[.satfinite][.relu].FMTx2.f32 d, a, b: a to the upper half, b to the lower."""
    check_modifiers(ins, "rn", "satfinite", "relu", "f32", to, "f16x2")
    if source != "f32" or len(ins.operands) != 3:
        raise Unsupported(ins.mnemonic)
    relu, saturate = ins.has("relu"), ins.has("satfinite")
    d = binder.write(ins.operands[0])
    a, b = (binder.source(operand, 32) for operand in ins.operands[1:])
    convert_lanes, width = narrow_float(to[:-2], saturate)
    register = max(16, 2 * width)

    def operation(warp: Warp) -> None:
        regs = warp.regs
        x, y = floats(regs[a], 32), floats(regs[b], 32)
        if relu:
            x, y = np.maximum(x, 0), np.maximum(y, 0)
        high, low = convert_lanes(x), convert_lanes(y)
        dtype = UNSIGNED[register]
        packed = (high.astype(dtype) << width) | low
        warp.put(d, int(packed[0]) if packed.size == 1 else packed)

    return operation


@instruction("cvta")
def convert_address(ins: Instruction, binder: Binder) -> Operation:
    """cvta[.to].SPACE.u64: global and parameter addresses are generic addresses already."""
    check_modifiers(ins, "to", "param", "global", "shared", "shared::cta", "const", "u64", "u32")
    shared = ins.has("shared") or ins.has("shared::cta")
    delta = (-SHARED_WINDOW if ins.has("to") else SHARED_WINDOW) if shared else 0
    d, a = binder.write(ins.operands[0]), binder.read(ins.operands[1])

    def operation(warp: Warp) -> None:
        value = warp.regs[a]
        if delta == 0:
            warp.put(d, value)
        elif type(value) is int:
            warp.put(d, value + delta)
        else:
            warp.put(d, (value.astype(np.int64) + delta).view(np.uint64))  # type: ignore[union-attr]

    return operation


@instruction("mapa.shared::cluster")
def map_address(ins: Instruction, binder: Binder) -> Operation:
    """mapa.shared::cluster.u32 d, a, rank: the same place in another CTA's shared memory."""
    check_modifiers(ins, "shared::cluster", "u32", "u64")
    d = binder.write(ins.operands[0])
    a, rank = (binder.source(operand, 32) for operand in ins.operands[1:3])

    def operation(warp: Warp) -> None:
        address, target = warp.regs[a], warp.regs[rank]
        size = len(warp.cta.cluster.ctas)
        lanes = target if type(target) is int else int(target[lane_array(warp.mask)].max())  # type: ignore[index]
        if lanes >= size:
            raise Fault("shared_wrong_cta", f"mapa to CTA rank {lanes}; the cluster has {size}")
        warp.put(d, pattern((address & 0xFFFFFF) | (target << 24), 32))  # type: ignore[operator]

    return operation
