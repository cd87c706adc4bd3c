"""Atomic read-modify-write operations on memory (PTX ISA 9.7.13.5 atom, 9.7.13.6 red)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from b200sim.faults import Fault, Unsupported
from b200sim.isa.addresses import SHARED_WINDOW, shared_address
from b200sim.isa.memory import HINTS, ORDERINGS, SPACES
from b200sim.isa.registry import Operation, check_modifiers, instruction
from b200sim.isa.values import FLOAT, LANES, UNSIGNED, lane, lowest_lane, signed, width_mask
from b200sim.ptx.binder import Binder, type_of
from b200sim.ptx.syntax import TYPE_BITS, Instruction

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

COMBINE: dict[str, Callable[[int, int, int], int]] = {
    "add": lambda old, b, _: old + b,
    "exch": lambda old, b, _: b,
    "cas": lambda old, b, c: c if old == b else old,
    "min": lambda old, b, _: min(old, b),
    "max": lambda old, b, _: max(old, b),
    "and": lambda old, b, _: old & b,
    "or": lambda old, b, _: old | b,
    "xor": lambda old, b, _: old ^ b,
    "inc": lambda old, b, _: 0 if old >= b else old + 1,
    "dec": lambda old, b, _: b if old == 0 or old > b else old - 1,
}


@instruction("atom", "red")
def atomic(ins: Instruction, binder: Binder) -> Operation:
    """atom d, [a], b[, c]: lane after lane. `red` is `atom` without a result."""
    check_modifiers(ins, *ORDERINGS, *HINTS, *SPACES, *COMBINE, *TYPE_BITS)
    name = next(word for word in ins.modifiers if word in COMBINE)
    kind = type_of(ins)
    if (
        kind == "b128"
        or (kind[0] == "f" and (name != "add" or kind not in ("f32", "f64")))
        or kind[0:2] == "bf"
    ):
        raise Unsupported(ins.mnemonic)
    bits = TYPE_BITS[kind]
    result = ins.opcode == "atom"
    d = binder.write(ins.operands[0]) if result else None
    address_operand, *operands = ins.operands[1:] if result else ins.operands
    base, offset = binder.address(address_operand)
    sources = [binder.source(operand, bits) for operand in operands[: 2 if name == "cas" else 1]]
    combine = _float_add(bits) if kind[0] == "f" else on_integers(COMBINE[name], bits, kind[0] == "s")
    space = next((word for word in ins.modifiers if word in SPACES), "generic")

    def operation(warp: Warp) -> None:
        old_values = np.zeros(LANES, UNSIGNED[bits])
        for i in warp.active_lanes():
            place = _place(warp, lane(warp.regs[base], i) + offset, bits // 8, space, ins)
            old = int(place[0])
            values = [lane(warp.regs[slot], i) for slot in sources]
            place[0] = combine(old, values[0], values[-1])
            old_values[i] = old
        if d is not None:
            single = warp.mask & (warp.mask - 1) == 0
            warp.put(d, int(old_values[lowest_lane(warp.mask)]) if single else old_values)

    return operation


def on_integers(
    combine: Callable[[int, int, int], int], bits: int, from_signed: bool
) -> Callable[[int, int, int], int]:
    if not from_signed:
        return lambda old, b, c: combine(old, b, c) & width_mask(bits)
    return lambda old, b, c: combine(*(signed(x, bits) for x in (old, b, c))) & width_mask(bits)


def _float_add(bits: int) -> Callable[[int, int, int], int]:
    def add(old: int, b: int, _: int) -> int:
        pair = np.array([old, b], UNSIGNED[bits]).view(FLOAT[bits])
        return int((pair[:1] + pair[1:]).view(UNSIGNED[bits])[0])

    return add


def _place(warp: Warp, address: int, size: int, space: str, ins: Instruction) -> NDArray[np.unsignedinteger]:
    """The memory word at an address, as a writable array of one element."""
    watch, name = warp.cta.grid.observer, ins.mnemonic
    if address % size:
        raise Fault("misaligned", f"{name} at {address:#x}, not a multiple of {size}")
    if space.startswith("shared") or (space == "generic" and address >= SHARED_WINDOW):
        address = shared_address(address)
        cta, offset = warp.cta, address & 0xFFFFFF
        if address >> 24 == cta.rank or space in ("shared", "shared::cta"):
            offset = cta.offset(address, size, name)
        else:
            cta = cta.cluster.live_cta(address >> 24, name)
            cta.check_shared(offset, size, name)
        if watch is not None:
            watch.shared_access(warp, ins, cta, offset, size, "atomic")
        return cta.smem_views[size][offset // size : offset // size + 1]
    if watch is not None:
        watch.global_access(warp, ins, address, size, "atomic")
    return warp.cta.grid.memory.view(address, size, write=True).view(f"u{size}")
