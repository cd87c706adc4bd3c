"""Logic and shift instructions (PTX ISA 9.7.8), and the bit-field ones (9.7.1.18 onwards)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from b200sim.isa.arithmetic import modular
from b200sim.isa.registry import check_modifiers, instruction
from b200sim.machine.program import Operation
from b200sim.machine.values import FULL, LANES, SIGNED, Value, per_lane, signed, spread, width_mask
from b200sim.ptx.binder import Binder, bits_of, is_signed, type_of
from b200sim.ptx.syntax import Instruction

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

BIT_TYPES = ("b16", "b32", "b64", "u16", "s16", "u32", "s32", "u64", "s64")
BINARY = {"and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b}


@instruction("and", "or", "xor")
def bitwise(ins: Instruction, binder: Binder) -> Operation:
    check_modifiers(ins, "pred", *BIT_TYPES)
    compute = BINARY[ins.opcode]
    if type_of(ins) != "pred":
        return modular(ins, binder, compute)
    d = binder.write(ins.operands[0])
    (a, flip_a), (b, flip_b) = (binder.predicate(operand) for operand in ins.operands[1:])

    def operation(warp: Warp) -> None:
        warp.put(d, compute(warp.regs[a] ^ flip_a, warp.regs[b] ^ flip_b))

    return operation


@instruction("not")
def complement(ins: Instruction, binder: Binder) -> Operation:
    check_modifiers(ins, "pred", *BIT_TYPES)
    ones = FULL if type_of(ins) == "pred" else width_mask(bits_of(ins))
    d, a = binder.write(ins.operands[0]), binder.read(ins.operands[1])

    def operation(warp: Warp) -> None:
        warp.put(d, warp.regs[a] ^ ones)

    return operation


@instruction("shl", "shr")
def shift(ins: Instruction, binder: Binder) -> Operation:
    """Shift amounts beyond the width give 0, or copies of the sign for shr.s."""
    check_modifiers(ins, *BIT_TYPES)
    bits = bits_of(ins)
    d, a = binder.write(ins.operands[0]), binder.source(ins.operands[1], bits)
    b = binder.source(ins.operands[2], 32)
    left, arithmetic = ins.opcode == "shl", is_signed(ins)
    mask = width_mask(bits)

    def operation(warp: Warp) -> None:
        value, amount = warp.regs[a], warp.regs[b]
        if type(value) is int and type(amount) is int:
            amount = min(amount, bits)
            if left:
                warp.put(d, (value << amount) & mask)
            elif arithmetic:
                warp.put(d, (signed(value, bits) >> amount) & mask)
            else:
                warp.put(d, value >> amount)
        else:
            warp.put(d, _shift_lanes(value, amount, bits, left, arithmetic))

    return operation


def _shift_lanes(value: Value, amount: Value, bits: int, left: bool, arithmetic: bool) -> Value:
    dtype = SIGNED[bits] if arithmetic else np.dtype(f"u{bits // 8}")
    lanes = np.full(32, value, f"u{bits // 8}") if type(value) is int else value
    lanes = lanes.view(dtype)  # type: ignore[union-attr]
    count = np.minimum(amount, bits)
    beyond = count == bits
    inside = np.where(beyond, 0, count).astype(dtype)
    if left:
        result = np.where(beyond, 0, lanes << inside)
    else:
        result = np.where(beyond, lanes >> (bits - 1) if arithmetic else 0, lanes >> inside)
    return result.astype(dtype).view(f"u{bits // 8}")


@instruction("shf")
def funnel_shift(ins: Instruction, binder: Binder) -> Operation:
    """shf.{l,r}.{clamp,wrap}.b32 d, a, b, c: shift 64 bits b:a, give its high (l) or low (r) half."""
    check_modifiers(ins, "l", "r", "clamp", "wrap", "b32")
    left, wrap = ins.has("l"), ins.has("wrap")

    def compute(a: Value, b: Value, c: Value) -> Value:
        low, high, count = (np.asarray(x, np.uint64) for x in (a, b, c))
        count = count & np.uint64(31) if wrap else np.minimum(count, np.uint64(32))
        both = (high << np.uint64(32)) | low
        result = ((both << count) >> np.uint64(32)) if left else (both >> count)
        result = (result & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        return int(result) if result.ndim == 0 else result

    return modular(ins, binder, compute)


@instruction("lop3")
def lop3(ins: Instruction, binder: Binder) -> Operation:
    """lop3.b32 d, a, b, c, table: any logic function of three bits."""
    check_modifiers(ins, "b32")
    d = binder.write(ins.operands[0])
    a, b, c = (binder.source(operand, 32) for operand in ins.operands[1:4])
    table = binder.read(ins.operands[4])

    def operation(warp: Warp) -> None:
        regs = warp.regs
        x, y, z, lut = regs[a], regs[b], regs[c], warp.uniform(table, "the table of lop3")
        result: Value = 0
        for row in range(8):
            if lut >> row & 1:
                term = (
                    (x if row & 4 else x ^ FULL) & (y if row & 2 else y ^ FULL) & (z if row & 1 else z ^ FULL)
                )
                result = result | term
        warp.put(d, result)

    return operation


@instruction("cnot")
def logical_not(ins: Instruction, binder: Binder) -> Operation:
    """cnot.b32 d, a: 1 where a is 0, else 0."""
    check_modifiers(ins, "b16", "b32", "b64")
    return modular(ins, binder, per_lane(lambda a: int(a == 0), bits_of(ins)))


@instruction("popc", "clz", "brev")
def bit_count(ins: Instruction, binder: Binder) -> Operation:
    """Counts are 32 bits wide whatever the source's width; brev keeps it."""
    check_modifiers(ins, "b32", "b64")
    bits = bits_of(ins)
    compute = {
        "popc": lambda v: v.bit_count(),
        "clz": lambda v: bits - v.bit_length(),
        "brev": lambda v: int(f"{v:0{bits}b}"[::-1], 2),
    }[ins.opcode]
    return _unary(ins, binder, per_lane(compute, bits if ins.opcode == "brev" else 32))


@instruction("bfind")
def find_leading_bit(ins: Instruction, binder: Binder) -> Operation:
    """bfind[.shiftamt].TYPE d, a: the highest bit that is not the sign, all ones if there is none."""
    check_modifiers(ins, "shiftamt", "u32", "s32", "u64", "s64")
    bits, from_signed, as_shift = bits_of(ins), is_signed(ins), ins.has("shiftamt")

    def one(value: int) -> int:
        if from_signed and value >> (bits - 1):
            value ^= width_mask(bits)
        position = value.bit_length() - 1
        if position < 0:
            return FULL
        return bits - 1 - position if as_shift else position

    return _unary(ins, binder, per_lane(one, 32))


def _unary(ins: Instruction, binder: Binder, compute: Callable[..., Value]) -> Operation:
    d, a = binder.write(ins.operands[0]), binder.source(ins.operands[1], bits_of(ins))

    def operation(warp: Warp) -> None:
        warp.put(d, compute(warp.regs[a]))

    return operation


@instruction("bfe")
def bit_field_extract(ins: Instruction, binder: Binder) -> Operation:
    """bfe.{u,s}{32,64} d, a, position, length."""
    check_modifiers(ins, "u32", "s32", "u64", "s64")
    bits, from_signed = bits_of(ins), is_signed(ins)

    def one(a: int, position: int, length: int) -> int:
        position, length = position & 0xFF, length & 0xFF
        field = (a >> position) & width_mask(length)
        if from_signed and length:
            top = min(position + length - 1, bits - 1)
            if a >> top & 1:
                field |= width_mask(bits) & ~width_mask(max(top - position + 1, 0))
        return field & width_mask(bits)

    return modular(ins, binder, per_lane(one, bits))


@instruction("bfi")
def bit_field_insert(ins: Instruction, binder: Binder) -> Operation:
    """bfi.b{32,64} d, a, b, position, length: the low bits of a into b."""
    check_modifiers(ins, "b32", "b64")
    bits = bits_of(ins)
    d = binder.write(ins.operands[0])
    a, b = (binder.source(operand, bits) for operand in ins.operands[1:3])
    position, length = (binder.source(operand, 32) for operand in ins.operands[3:5])

    def one(x: int, y: int, start: int, count: int) -> int:
        field = width_mask(count & 0xFF) << (start & 0xFF) & width_mask(bits)
        return (y & ~field) | (x << (start & 0xFF) & field)

    lanes = per_lane(one, bits)

    def operation(warp: Warp) -> None:
        warp.put(d, lanes(*(warp.regs[slot] for slot in (a, b, position, length))))

    return operation


PERMUTE_MODES = ("f4e", "b4e", "rc8", "ecl", "ecr", "rc16")


def _permutation(mode: str, selector: int) -> int:
    """The nibbles of the default mode that give what `mode` gives for bits 1:0 of the selector."""
    s = selector & 3
    places: dict[str, tuple[int, ...]] = {
        "f4e": (s, s + 1, s + 2, s + 3),
        "b4e": (s, s - 1, s - 2, s - 3),
        "rc8": (s, s, s, s),
        "ecl": tuple(max(i, s) for i in range(4)),
        "ecr": tuple(min(i, s) for i in range(4)),
        "rc16": (2 * (s & 1), 2 * (s & 1) + 1) * 2,
    }
    return sum((place & 7) << 4 * i for i, place in enumerate(places[mode]))


@instruction("prmt")
def byte_permute(ins: Instruction, binder: Binder) -> Operation:
    """prmt.b32[.MODE] d, a, b, c (PTX ISA 9.7.9.7). Default mode: each nibble of c picks a byte of b:a; its
    top bit spreads that byte's sign. The other modes choose among fixed patterns by bits 1:0 of c."""
    check_modifiers(ins, "b32", *PERMUTE_MODES)
    mode = next((word for word in ins.modifiers if word in PERMUTE_MODES), None)
    patterns = np.array([_permutation(mode, s) for s in range(4)], np.uint32) if mode else None
    nibble_places = np.arange(0, 16, 4, dtype=np.uint32)
    row_starts = np.arange(0, 8 * LANES, 8)[:, None]

    def compute(a: Value, b: Value, selector: Value) -> Value:
        rows = 1 if type(a) is int and type(b) is int and type(selector) is int else LANES
        low, high, chosen = (spread(value, 32)[:rows] for value in (a, b, selector))
        if patterns is not None:
            chosen = patterns[chosen & 3]
        words = np.empty((rows, 2), np.uint32)
        words[:, 0], words[:, 1] = low, high
        nibbles = chosen[:, None] >> nibble_places & 0xF
        picked = words.view(np.uint8).reshape(-1)[(nibbles & 7) + row_starts[:rows]]
        if (nibbles & 8).any():
            picked = np.where(nibbles & 8, (picked >> 7) * np.uint8(0xFF), picked)
        result = picked.view(np.uint32).reshape(rows)
        return int(result[0]) if rows == 1 else result

    return modular(ins, binder, compute)
