"""Integer arithmetic (PTX ISA 9.7.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from b200sim.isa.floating import KINDS, decode_float
from b200sim.isa.registry import check_modifiers, instruction
from b200sim.machine.program import Operation
from b200sim.machine.values import UNSIGNED, Value, pattern, per_lane, signed, width_mask
from b200sim.ptx.binder import Binder, bits_of, is_signed
from b200sim.ptx.syntax import Instruction

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

INTEGER_TYPES = ("u16", "s16", "u32", "s32", "u64", "s64", "b16", "b32", "b64")


def is_float(ins: Instruction) -> bool:
    return ins.modifiers[-1] in KINDS


def modular(ins: Instruction, binder: Binder, compute: Callable[..., Value]) -> Operation:
    """An operation whose low bits do not depend on the sign: compute, then cut to the width."""
    bits = bits_of(ins)
    mask = width_mask(bits)
    d = binder.write(ins.operands[0])
    sources = [binder.source(operand, bits) for operand in ins.operands[1:]]
    if len(sources) == 1:
        (a,) = sources

        def unary(warp: Warp) -> None:
            value = compute(warp.regs[a])
            warp.put(d, value & mask if type(value) is int else value)

        return unary
    if len(sources) == 2:
        a, b = sources

        def binary(warp: Warp) -> None:
            regs = warp.regs
            value = compute(regs[a], regs[b])
            warp.put(d, value & mask if type(value) is int else value)

        return binary
    a, b, c = sources

    def ternary(warp: Warp) -> None:
        regs = warp.regs
        value = compute(regs[a], regs[b], regs[c])
        warp.put(d, value & mask if type(value) is int else value)

    return ternary


def ordered(ins: Instruction, binder: Binder, compute: Callable[..., Value]) -> Operation:
    """An operation on two numbers as the type reads them, signed or unsigned."""
    bits = bits_of(ins)
    d = binder.write(ins.operands[0])
    a, b = (binder.source(operand, bits) for operand in ins.operands[1:3])
    if is_signed(ins):

        def on_signed(warp: Warp) -> None:
            regs = warp.regs
            warp.put(d, pattern(compute(signed(regs[a], bits), signed(regs[b], bits)), bits))

        return on_signed

    def on_unsigned(warp: Warp) -> None:
        regs = warp.regs
        warp.put(d, compute(regs[a], regs[b]))

    return on_unsigned


@instruction("add", "sub", "mul.lo", "mul")
def add_sub_mul(ins: Instruction, binder: Binder) -> Operation:
    if is_float(ins):
        return decode_float(ins, binder)
    check_modifiers(ins, *INTEGER_TYPES, "lo", "wide", "hi")
    if ins.has("wide"):
        return multiply_wide(ins, binder)
    if ins.has("hi"):
        return multiply_high(ins, binder)
    compute = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b}[ins.opcode]
    return modular(ins, binder, compute)


def _widen(value: Value, bits: int, from_signed: bool) -> Value:
    """A `bits` wide value as a 2*bits wide pattern, sign-extended if `from_signed`."""
    if type(value) is int:
        return (signed(value, bits) if from_signed else value) & width_mask(2 * bits)
    if from_signed:
        wide = np.dtype(f"i{bits // 4}")
        return signed(value, bits).astype(wide).view(UNSIGNED[2 * bits])  # type: ignore[union-attr]
    return value.astype(UNSIGNED[2 * bits])  # type: ignore[union-attr]


def multiply_wide(ins: Instruction, binder: Binder) -> Operation:
    """mul.wide: the full product, twice as wide as the operands."""
    bits, from_signed = bits_of(ins), is_signed(ins)
    mask = width_mask(2 * bits)
    d = binder.write(ins.operands[0])
    a, b = (binder.source(operand, bits) for operand in ins.operands[1:3])

    def operation(warp: Warp) -> None:
        regs = warp.regs
        value = _widen(regs[a], bits, from_signed) * _widen(regs[b], bits, from_signed)
        warp.put(d, value & mask if type(value) is int else value)

    return operation


def _high_half(a: Value, b: Value, bits: int, from_signed: bool) -> Value:
    if type(a) is int and type(b) is int:
        if from_signed:
            a, b = signed(a, bits), signed(b, bits)
        return (a * b >> bits) & width_mask(bits)
    if bits == 64:
        return per_lane(lambda x, y: _high_half(x, y, bits, from_signed), bits)(a, b)  # type: ignore[arg-type, return-value]
    product = _widen(a, bits, from_signed) * _widen(b, bits, from_signed)
    return (product >> bits).astype(UNSIGNED[bits])  # type: ignore[operator, union-attr]


def multiply_high(ins: Instruction, binder: Binder) -> Operation:
    """mul.hi: the upper half of the product."""
    bits, from_signed = bits_of(ins), is_signed(ins)
    d = binder.write(ins.operands[0])
    a, b = (binder.source(operand, bits) for operand in ins.operands[1:3])

    def operation(warp: Warp) -> None:
        regs = warp.regs
        warp.put(d, _high_half(regs[a], regs[b], bits, from_signed))

    return operation


@instruction("mad", "fma")
def multiply_add(ins: Instruction, binder: Binder) -> Operation:
    """mad.{lo,wide,hi}: d = a * b + c."""
    if is_float(ins):
        return decode_float(ins, binder)
    check_modifiers(ins, *INTEGER_TYPES, "lo", "wide", "hi")
    bits, from_signed = bits_of(ins), is_signed(ins)
    wide = ins.has("wide")
    out_bits = 2 * bits if wide else bits
    mask = width_mask(out_bits)
    if ins.has("lo"):
        # The product is brought to its width first: numpy takes no wider int as an addend.
        return modular(ins, binder, lambda a, b, c: pattern(a * b, bits) + c)
    d = binder.write(ins.operands[0])
    a, b = (binder.source(operand, bits) for operand in ins.operands[1:3])
    c = binder.source(ins.operands[3], out_bits)

    def operation(warp: Warp) -> None:
        x, y, z = warp.regs[a], warp.regs[b], warp.regs[c]
        product = (
            _widen(x, bits, from_signed) * _widen(y, bits, from_signed)
            if wide
            else _high_half(x, y, bits, from_signed)
        )
        value = pattern(product, out_bits) + z
        warp.put(d, value & mask if type(value) is int else value)

    return operation


def _truncated(a: int, b: int) -> tuple[int, int]:
    """Quotient and remainder that round toward zero, as PTX and C do."""
    quotient = abs(a) // abs(b)
    if (a < 0) != (b < 0):
        quotient = -quotient
    return quotient, a - quotient * b


@instruction("div", "rem")
def divide(ins: Instruction, binder: Binder) -> Operation:
    """Integer division. By zero, where PTX leaves the result open, it is all ones, as the code that ptxas
    expands a division into computes it: idle CTAs of real kernels divide by a tile count of zero.
    """
    if is_float(ins):
        return decode_float(ins, binder)
    check_modifiers(ins, *INTEGER_TYPES)
    which = 0 if ins.opcode == "div" else 1
    bits, from_signed = bits_of(ins), is_signed(ins)
    d = binder.write(ins.operands[0])
    a, b = (binder.source(operand, bits) for operand in ins.operands[1:3])

    def one(x: int, y: int) -> int:
        if from_signed:
            x, y = signed(x, bits), signed(y, bits)
        return _truncated(x, y)[which] & width_mask(bits) if y else width_mask(bits)

    compute = per_lane(one, bits)

    def operation(warp: Warp) -> None:
        warp.put(d, compute(warp.regs[a], warp.regs[b]))

    return operation


@instruction("dp4a", "dp2a")
def dot_product(ins: Instruction, binder: Binder) -> Operation:
    """dp4a.ATYPE.BTYPE d, a, b, c: c plus four products of bytes. dp2a.{lo,hi}: c plus the products of the
    two 16-bit numbers of a and the lower or upper two bytes of b."""
    check_modifiers(ins, "lo", "hi", "u32", "s32")
    sign_a, sign_b = (kind == "s32" for kind in ins.modifiers[-2:])
    four = ins.opcode == "dp4a"
    count, width, first = (4, 8, 0) if four else (2, 16, 2 * ins.has("hi"))
    d = binder.write(ins.operands[0])
    sources = [binder.source(operand, 32) for operand in ins.operands[1:4]]

    def one(a: int, b: int, c: int) -> int:
        total = c
        for i in range(count):
            x, y = a >> width * i & width_mask(width), b >> 8 * (first + i) & 0xFF
            total += (signed(x, width) if sign_a else x) * (signed(y, 8) if sign_b else y)
        return total & 0xFFFFFFFF

    compute = per_lane(one, 32)

    def operation(warp: Warp) -> None:
        warp.put(d, compute(*(warp.regs[slot] for slot in sources)))

    return operation


@instruction("min", "max")
def minimum_maximum(ins: Instruction, binder: Binder) -> Operation:
    if is_float(ins):
        return decode_float(ins, binder)
    check_modifiers(ins, *INTEGER_TYPES)
    scalar = min if ins.opcode == "min" else max
    array = np.minimum if ins.opcode == "min" else np.maximum

    def compute(a: Value, b: Value) -> Value:
        return scalar(a, b) if type(a) is int and type(b) is int else array(a, b)

    return ordered(ins, binder, compute)


@instruction("neg", "abs")
def negate(ins: Instruction, binder: Binder) -> Operation:
    if is_float(ins):
        return decode_float(ins, binder)
    check_modifiers(ins, *INTEGER_TYPES)
    if ins.opcode == "neg":
        return modular(ins, binder, lambda a: -a)
    bits = bits_of(ins)
    return modular(ins, binder, lambda a: pattern(abs(signed(a, bits)), bits))
