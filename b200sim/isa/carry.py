"""Extended-precision integer arithmetic through the carry flag CC.CF (PTX ISA 9.7.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from b200sim.isa.registry import check_modifiers, instruction
from b200sim.machine.program import Operation
from b200sim.machine.values import FULL, UNSIGNED, Value, lane_array, lane_mask, signed, spread, width_mask
from b200sim.ptx.binder import Binder, bits_of, is_signed
from b200sim.ptx.syntax import Instruction

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp


@instruction("add.cc", "addc", "sub.cc", "subc", "mad.lo.cc", "mad.hi.cc", "madc.lo", "madc.hi")
def with_carry(ins: Instruction, binder: Binder) -> Operation:
    """{add, sub, mad}.cc set the flag, {addc, subc, madc} take it in, with .cc both. It holds a borrow for
    subtraction. Sums are of unsigned patterns whatever the type; .hi multiplies as the type says."""
    check_modifiers(ins, "cc", "lo", "hi", "u32", "s32", "u64", "s64")
    bits, takes, gives = bits_of(ins), ins.opcode in ("addc", "subc", "madc"), ins.has("cc")
    subtracts, multiplies = ins.opcode in ("sub", "subc"), ins.opcode in ("mad", "madc")
    high, from_signed, mask = ins.has("hi"), is_signed(ins), width_mask(bits)
    d = binder.write(ins.operands[0])
    sources = [binder.source(operand, bits) for operand in ins.operands[1:]]
    flag = binder.carry()
    if takes:
        binder.usage.reads.add(flag)
    if gives:
        binder.usage.writes.add(flag)

    def one(values: list[int], carry: int) -> int:
        """The result before it is cut: its bits from `bits` on are the carry, or minus the borrow."""
        if not multiplies:
            a, b = values
            return a - b - carry if subtracts else a + b + carry
        a, b, c = values
        if high:
            product = signed(a, bits) * signed(b, bits) if from_signed else a * b
            return (product >> bits & mask) + c + carry
        return (a * b & mask) + c + carry

    def operation(warp: Warp) -> None:
        values = [warp.regs[slot] for slot in sources]
        carry = warp.regs[flag] & warp.mask if takes else 0
        if all(type(value) is int for value in values) and carry in (0, warp.mask):
            total = one(values, 1 if carry else 0)
            result: Value = total & mask
            out = FULL if total >> bits else 0
        else:
            columns = [spread(value, bits).tolist() for value in values]
            carries = lane_array(carry).tolist()
            totals = [one(list(row), c) for *row, c in zip(*columns, carries, strict=True)]
            result = np.array([total & mask for total in totals], UNSIGNED[bits])
            out = lane_mask(np.array([total >> bits != 0 for total in totals]))
        warp.put(d, result)
        if gives:
            warp.put(flag, out)

    return operation
