"""Comparison and selection (PTX ISA 9.7.6)."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from b200sim.faults import Unsupported
from b200sim.isa.arithmetic import INTEGER_TYPES
from b200sim.isa.floating import flush
from b200sim.isa.logic import BINARY
from b200sim.isa.registry import check_modifiers, instruction
from b200sim.machine.program import Operation
from b200sim.machine.values import FULL, floats, lane_array, lane_mask, signed, spread
from b200sim.ptx.binder import Binder, bits_of, is_signed, type_of
from b200sim.ptx.syntax import Instruction, Pair

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le,
    "gt": operator.gt, "ge": operator.ge, "lo": operator.lt, "ls": operator.le,
    "hi": operator.gt, "hs": operator.ge,
}  # fmt: skip
ORDERED = {"num": False, "nan": True}  # setp.num: neither is a NaN; setp.nan: one is
FLOAT_TYPES = ("f16", "f32", "f64")


@instruction("setp")
def set_predicate(ins: Instruction, binder: Binder) -> Operation:
    """setp.CMP[.BOOL].TYPE p[|q], a, b[, c]: q gets the opposite comparison."""
    check_modifiers(
        ins, *COMPARE, *BINARY, *INTEGER_TYPES, *FLOAT_TYPES, *(f"{c}u" for c in COMPARE), *ORDERED, "ftz"
    )
    compare = _comparison(ins, ins.modifiers[0])
    combine = next((BINARY[word] for word in ins.modifiers if word in BINARY), None)
    bits = bits_of(ins)
    d, q = binder.pair(ins.operands[0])
    a, b = (binder.source(operand, bits) for operand in ins.operands[1:3])
    has_q = isinstance(ins.operands[0], Pair)
    if combine is None and not has_q:

        def plain(warp: Warp) -> None:
            warp.put(d, compare(warp.regs[a], warp.regs[b]))

        return plain
    c, flip = binder.predicate(ins.operands[3]) if combine else (d, 0)

    def operation(warp: Warp) -> None:
        result = compare(warp.regs[a], warp.regs[b])
        other = result ^ FULL
        if combine:
            third = warp.regs[c] ^ flip
            result, other = combine(result, third), combine(other, third)
        warp.put(d, result)
        if has_q:
            warp.put(q, other)

    return operation


def _comparison(ins: Instruction, name: str) -> Callable[[Any, Any], int]:
    if type_of(ins) in FLOAT_TYPES:
        return _float_comparison(ins, name)
    if name not in COMPARE:
        raise Unsupported(f"comparison .{name} of integers")
    bits, compare = bits_of(ins), COMPARE[name]
    if is_signed(ins):

        def on_signed(a: Any, b: Any) -> int:
            if type(a) is int and type(b) is int:
                return FULL if compare(signed(a, bits), signed(b, bits)) else 0
            return lane_mask(compare(signed(a, bits), signed(b, bits)))

        return on_signed

    def on_unsigned(a: Any, b: Any) -> int:
        result = compare(a, b)
        if type(result) is bool:
            return FULL if result else 0
        return lane_mask(result)

    return on_unsigned


def _float_comparison(ins: Instruction, name: str) -> Callable[[Any, Any], int]:
    bits, ftz = bits_of(ins), ins.has("ftz")
    unordered = name not in COMPARE and name not in ORDERED  # equ, ltu, ...: true if one is a NaN
    compare = None if name in ORDERED else COMPARE[name[:2]]

    def on_floats(a: Any, b: Any) -> int:
        x, y = floats(a, bits), floats(b, bits)
        if ftz:
            x, y = flush(x), flush(y)
        nan = np.isnan(x) | np.isnan(y)
        if compare is None:
            result = nan == ORDERED[name]
        else:
            result = compare(x, y) | nan if unordered else compare(x, y) & ~nan
        return lane_mask(np.broadcast_to(result, 32))

    return on_floats


@instruction("selp")
def select(ins: Instruction, binder: Binder) -> Operation:
    """selp.TYPE d, a, b, p: a where p holds, else b."""
    check_modifiers(ins, *INTEGER_TYPES, *FLOAT_TYPES)
    bits = bits_of(ins)
    d = binder.write(ins.operands[0])
    a, b = (binder.source(operand, bits) for operand in ins.operands[1:3])
    p, flip = binder.predicate(ins.operands[3])

    def operation(warp: Warp) -> None:
        regs = warp.regs
        taken = (regs[p] ^ flip) & warp.mask
        if taken == warp.mask:
            warp.put(d, regs[a])
        elif taken == 0:
            warp.put(d, regs[b])
        else:
            warp.put(d, np.where(lane_array(taken), spread(regs[a], bits), spread(regs[b], bits)))

    return operation
