"""Moves between registers, and packing (PTX ISA 9.7.9.3, 9.7.9.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from b200sim.isa.registry import check_modifiers, instruction
from b200sim.machine.program import Operation
from b200sim.machine.values import UNSIGNED, spread, width_mask
from b200sim.ptx.binder import Binder, type_of
from b200sim.ptx.syntax import TYPE_BITS, Immediate, Instruction, Operand, Register, Vector

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

# name -> bits, and how far the 64-bit count is shifted down
CLOCKS = {
    "%clock": (32, 0), "%clock64": (64, 0), "%clock_hi": (32, 32),
    "%globaltimer": (64, 0), "%globaltimer_lo": (32, 0), "%globaltimer_hi": (32, 32),
}  # fmt: skip


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
        return _clock(d, *CLOCKS[source.name])
    if bits == 1 and isinstance(source, Immediate):
        source = Immediate(0xFFFFFFFF if source.value else 0)
    a = binder.source(source, 32 if bits == 1 else bits)

    def operation(warp: Warp) -> None:
        warp.put(d, warp.regs[a])

    return operation


def _clock(d: int, bits: int, shift: int) -> Operation:
    """Clocks count scheduling steps: they only ever go forward, and mean nothing more."""

    def operation(warp: Warp) -> None:
        warp.put(d, (warp.cta.grid.clock + warp.executed) >> shift & width_mask(bits))

    return operation


def _unpack(destination: Vector, source: Operand, bits: int, binder: Binder) -> Operation:
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
                warp.put(slot, np.array([x >> i * part & mask for x in value], UNSIGNED[part]))
        else:
            lanes = np.ascontiguousarray(value).view(UNSIGNED[part]).reshape(32, -1)
            for i, slot in enumerate(slots):
                warp.put(slot, lanes[:, i].copy())

    return operation


def _pack(destination: Operand, source: Vector, bits: int, binder: Binder) -> Operation:
    """mov d, {lo, hi}"""
    d = binder.write(destination)
    part = bits // len(source.items)
    slots = [binder.source(item, part) for item in source.items]

    def operation(warp: Warp) -> None:
        values = [warp.regs[slot] for slot in slots]
        if all(type(value) is int for value in values):
            packed = 0
            for i, value in enumerate(values):
                packed |= value << i * part
            warp.put(d, packed)
        elif bits == 128:
            columns = [np.broadcast_to(np.asarray(v), 32).tolist() for v in values]
            rows = zip(*columns, strict=True)
            warp.put(d, np.array([sum(x << i * part for i, x in enumerate(row)) for row in rows], object))
        else:
            lanes = np.stack([spread(value, part) for value in values], axis=1)
            warp.put(d, np.ascontiguousarray(lanes).view(UNSIGNED[bits])[:, 0])

    return operation
