"""Poison through instructions that only compute: from their operands to the result.

A result holds poison where it may depend on it, bit by bit for moves, packing and logic; arithmetic spreads
it over the whole register.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from b200sim.isa.warp_wide import shuffle_sources
from b200sim.machine.values import FULL, lane_array, lane_mask
from b200sim.ptx.syntax import Immediate, Register, Vector
from b200sim.sanitizer.operands import Names, Rule, User
from b200sim.sanitizer.poison import Poison, Registers, assign, union

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

Sources = Callable[["Warp", Registers, int], Poison | None]  # (warp, poison, active lanes) -> of the result


def computes(names: Names) -> Rule:
    ins = names.ins
    if ins.opcode == "mov" and isinstance(ins.operands[0], Vector):
        return _unpacks(names)
    written = names.sources(ins.operands[0])
    result = _result(names)

    def rule(user: User, warp: Warp, found: Registers) -> None:
        mask = names.active(warp)
        guard = names.guard_poison(warp, found)
        poison = result(warp, found, mask)
        for slot in written:
            width = names.width(slot)
            new = None if poison is None else Poison(poison.lanes, poison.bits & width, poison.origin)
            assign(found, slot, mask, new)
            if guard is not None:
                assign(found, slot, guard.lanes, Poison(guard.lanes, width, guard.origin))

    return rule


def _unpacks(names: Names) -> Rule:
    """mov {lo, hi}, a"""
    destination, source = names.ins.operands
    assert isinstance(destination, Vector)
    slots = [names.slot(item) for item in destination.items]
    a = names.slot(source)
    part = 0 if not slots else max(names.bits[slot] for slot in slots if slot is not None)

    def rule(user: User, warp: Warp, found: Registers) -> None:
        mask, poison = names.active(warp), found.get(a) if a is not None else None
        for i, slot in enumerate(slots):
            if slot is not None:
                bits = 0 if poison is None else poison.bits >> i * part & names.width(slot)
                new = Poison(poison.lanes, bits, poison.origin) if poison is not None and bits else None
                assign(found, slot, mask, new)

    return rule


def _result(names: Names) -> Sources:
    ins = names.ins
    kind = ins.opcode
    if kind == "selp":
        return _selects(names)
    if kind == "shfl":
        return _shuffles(names)
    if kind in ("vote", "match", "redux", "elect"):
        return _meets(names)
    if kind in ("and", "or") and ins.has("pred"):
        return _predicate_logic(names)
    if kind in ("and", "or", "xor", "not", "lop3") or (
        kind == "mov" and not isinstance(ins.operands[1], Vector)
    ):
        return _bitwise(names)
    if kind in ("shl", "shr") and isinstance(ins.operands[2], Immediate):
        return _shifts(names, ins.operands[2].value)
    if kind == "mov" or (kind == "cvt" and len(ins.operands) == 3 and not ins.has("pack")):
        return _packs(names)
    if kind == "cvt" and all(word[0] in "usb" and word[1:].isdigit() for word in ins.modifiers):
        return _resizes(names)
    if kind == "prmt" and isinstance(ins.operands[3], Immediate):
        return _permutes_bytes(names, ins.operands[3].value)
    return _mixes(names)


def _found(found: Registers, slots: tuple[int, ...], mask: int) -> Poison | None:
    poison = None
    for slot in slots:
        one = found.get(slot)
        if one is not None and one.lanes & mask:
            poison = union(poison, one)
    return poison


def _mixes(names: Names) -> Sources:
    """Every bit of the result may depend on every bit of the operands, lane by lane."""
    sources = names.sources(*names.ins.operands[1:])

    def result(warp: Warp, found: Registers, mask: int) -> Poison | None:
        poison = _found(found, sources, mask)
        return None if poison is None else Poison(poison.lanes, -1, poison.origin)

    return result


def _bitwise(names: Names) -> Sources:
    """Bit by bit; a constant that masks bits away (or sets them) makes them good."""
    sources = names.sources(*names.ins.operands[1:])
    constants = [o.value for o in names.ins.operands[1:] if isinstance(o, Immediate)]
    keep = -1
    if names.ins.opcode == "and" and constants:
        keep = constants[0]
    elif names.ins.opcode == "or" and constants:
        keep = ~constants[0]

    def result(warp: Warp, found: Registers, mask: int) -> Poison | None:
        poison = _found(found, sources, mask)
        return None if poison is None else Poison(poison.lanes, poison.bits & keep, poison.origin)

    return result


def _predicate_logic(names: Names) -> Sources:
    """False and x is false, true or x is true, whatever x is."""
    a, b = (
        (names.slot(operand), bool(operand.negated) if isinstance(operand, Register) else False)
        for operand in names.ins.operands[1:3]
    )
    deciding = 0 if names.ins.opcode == "and" else FULL

    def result(warp: Warp, found: Registers, mask: int) -> Poison | None:
        poison, good = None, 0
        for slot, negated in (a, b):
            if slot is None:
                continue
            one = found.get(slot)
            poison = union(poison, one)
            decides = warp.regs[slot] ^ (FULL if negated else 0) ^ deciding ^ FULL
            good |= decides & ~(one.lanes if one is not None else 0)
        return None if poison is None else Poison(poison.lanes & ~good, 1, poison.origin)

    return result


def _shifts(names: Names, count: int) -> Sources:
    source = names.sources(names.ins.operands[1])
    left, from_signed = names.ins.opcode == "shl", names.ins.modifiers[-1][0] == "s"

    def result(warp: Warp, found: Registers, mask: int) -> Poison | None:
        poison = _found(found, source, mask)
        if poison is None:
            return None
        if left:
            return Poison(poison.lanes, poison.bits << count, poison.origin)
        width = names.width(source[0])
        top = poison.bits & (width + 1 >> 1) and from_signed
        return Poison(
            poison.lanes, poison.bits >> count | (width ^ width >> count if top else 0), poison.origin
        )

    return result


def _packs(names: Names) -> Sources:
    """mov d, {lo, hi} and cvt d, hi, lo: each source is a part of the result."""
    operands = names.ins.operands
    items = operands[1].items if isinstance(operands[1], Vector) else tuple(reversed(operands[1:]))
    (d,) = names.sources(operands[0])
    part = names.bits[d] // len(items)
    parts = [(names.slot(item), ((1 << part) - 1) << i * part) for i, item in enumerate(items)]
    converts = names.ins.opcode == "cvt"

    def result(warp: Warp, found: Registers, mask: int) -> Poison | None:
        poison = None
        for i, (slot, bits) in enumerate(parts):
            one = found.get(slot) if slot is not None else None
            if one is not None and one.lanes & mask:
                moved = bits if converts else one.bits << i * part & bits
                poison = union(poison, Poison(one.lanes, moved, one.origin))
        return poison

    return result


def _resizes(names: Names) -> Sources:
    """cvt between integers: cut off, or extended by zeros or the sign."""
    source = names.sources(names.ins.operands[1])
    extends = names.ins.modifiers[-1][0] == "s"
    bits = int(names.ins.modifiers[-1][1:])

    def result(warp: Warp, found: Registers, mask: int) -> Poison | None:
        poison = _found(found, source, mask)
        if poison is None:
            return None
        kept = poison.bits & (1 << bits) - 1
        if extends and kept >> bits - 1 & 1:
            kept |= -1 << bits
        return Poison(poison.lanes, kept, poison.origin)

    return result


def _permutes_bytes(names: Names, selector: int) -> Sources:
    a, b = (names.slot(operand) for operand in names.ins.operands[1:3])
    plain = not any(word in names.ins.modifiers for word in ("f4e", "b4e", "rc8", "ecl", "ecr", "rc16"))

    def result(warp: Warp, found: Registers, mask: int) -> Poison | None:
        pair = [found.get(slot) if slot is not None else None for slot in (a, b)]
        poison = union(*pair)
        if poison is None or not plain:
            return None if poison is None else Poison(poison.lanes, -1, poison.origin)
        eight = (pair[0].bits if pair[0] else 0) | (pair[1].bits if pair[1] else 0) << 32
        bits = 0
        for i in range(4):
            code = selector >> 4 * i & 15
            byte = eight >> 8 * (code & 7) & 0xFF
            bits |= (0xFF if code & 8 and byte & 0x80 else 0 if code & 8 else byte) << 8 * i
        return Poison(poison.lanes, bits, poison.origin)

    return result


def _selects(names: Names) -> Sources:
    """selp d, a, b, p: the one that was chosen, or both where the choice itself is unknown."""
    _, a, b, p = names.ins.operands
    slot_a, slot_b, slot_p = names.slot(a), names.slot(b), names.slot(p)

    def result(warp: Warp, found: Registers, mask: int) -> Poison | None:
        first, second = (found.get(slot) if slot is not None else None for slot in (slot_a, slot_b))
        choice = found.get(slot_p) if slot_p is not None else None
        chosen = warp.regs[slot_p] if slot_p is not None else FULL
        poison = None if choice is None else Poison(choice.lanes, -1, choice.origin)
        for one, lanes in ((first, chosen), (second, ~chosen)):
            if one is not None and one.lanes & lanes & mask:
                poison = union(poison, Poison(one.lanes & lanes, one.bits, one.origin))
        return poison

    return result


def _shuffles(names: Names) -> Sources:
    """shfl: the poison of the lane that is read; unknown where the lane to read is."""
    _, a, b, c, _ = names.ins.operands
    value, control = names.slot(a), names.sources(b, c)
    mode = names.ins.modifiers[1]

    def result(warp: Warp, found: Registers, mask: int) -> Poison | None:
        poison = _found(found, control, mask)
        if poison is not None:
            return Poison(poison.lanes, -1, poison.origin)
        one = found.get(value) if value is not None else None
        if one is None:
            return None
        by, limits = (names.value(warp, operand) for operand in (b, c))
        if by is None or limits is None:
            return Poison(mask, one.bits, one.origin)
        source, _ = shuffle_sources(mode, by, limits)
        return Poison(lane_mask(lane_array(one.lanes & FULL)[source]), one.bits, one.origin)

    return result


def _meets(names: Names) -> Sources:
    """vote, match, redux: one unknown lane makes the result unknown for all; a ballot only in its bit."""
    sources = names.sources(*names.ins.operands[1:])
    ballot = names.ins.has("ballot")

    def result(warp: Warp, found: Registers, mask: int) -> Poison | None:
        poison = _found(found, sources, mask)
        if poison is None:
            return None
        return Poison(mask, poison.lanes & mask if ballot else -1, poison.origin)

    return result
