"""How poison passes through an instruction: from the registers it reads to those it writes.

`flow_of` decodes an instruction once. Instructions that only compute hand poison on; all others use their
operands, which is when poison is reported. Stores to shared and tensor memory hand it on to memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from b200sim.ptx.syntax import Address, Immediate, Instruction, Operand, Register, Vector
from b200sim.sanitizer.compute import computes
from b200sim.sanitizer.operands import Names, Rule, User
from b200sim.sanitizer.poison import Poison, Registers, assign, union

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp
    from b200sim.ptx.binder import Binder

#: Instructions that do more than compute; every other one hands poison on from its operands to its result.
ACTS = frozenset(
    ["atom", "bar", "barrier", "bra", "brkpt", "brx", "call", "clusterlaunchcontrol", "cp", "exit", "fence",
     "griddepcontrol", "ld", "ldmatrix", "mbarrier", "membar", "nanosleep", "red", "ret", "setmaxnreg", "st",
     "stmatrix", "tcgen05", "tensormap", "trap", "wgmma"]
)  # fmt: skip
HINTS = frozenset(["prefetch", "prefetchu", "applypriority", "discard", "createpolicy"])


@dataclass(frozen=True)
class Flow:
    """What an instruction does with poison. `loads`: slots of the elements that it loads from shared or
    tensor memory; `stores`: slots of those that it stores (None: no register). `active`: those that run
    it."""

    ins: Instruction
    rule: Rule
    active: Callable[[Warp], int]
    loads: tuple[int | None, ...] = ()
    stores: tuple[int | None, ...] = ()


def flow_of(ins: Instruction, binder: Binder) -> Flow:
    names = Names(ins, binder.names, binder.bits)
    if ins.opcode in HINTS:
        return Flow(ins, _clears(names, names.sources(*ins.operands[:1])), names.active)
    if ins.opcode not in ACTS or ins.has("query_cancel"):
        return Flow(ins, computes(names), names.active)
    if ins.opcode == "wgmma" and ins.has("mma_async"):
        return Flow(ins, _multiplies(names), names.active)
    stores = tuple(names.slot(value) for value in stored_values(ins))
    return Flow(ins, _uses(names), names.active, _loaded(names), stores)


def _loaded(names: Names) -> tuple[int | None, ...]:
    ins = names.ins
    if ins.opcode == "ld" and any(w == "global" or w.startswith("param") for w in ins.modifiers):
        return ()
    if ins.opcode in ("ld", "ldmatrix", "atom") or (ins.opcode == "tcgen05" and ins.modifiers[0] == "ld"):
        result = ins.operands[0]
        return tuple(map(names.slot, result.items if isinstance(result, Vector) else (result,)))
    return ()


# -- instructions that act -------------------------------------------------------------------------------


def destinations(names: Names) -> tuple[int, ...]:
    """Registers that an instruction which acts writes."""
    ins = names.ins
    results = ins.opcode in ("ld", "ldmatrix", "atom", "mbarrier") or ins.has("red")
    if not results and not (ins.opcode == "tcgen05" and ins.has("ld")):
        return ()
    first = ins.operands[0]
    return () if isinstance(first, Address) else names.sources(first)


def stored_values(ins: Instruction) -> tuple[Operand, ...]:
    """Operands whose values a store writes to memory, element by element."""
    if ins.opcode in ("st", "stmatrix"):
        value = ins.operands[1]
    elif ins.opcode == "tcgen05" and ins.modifiers[0] == "st":
        value = ins.operands[-1]
    else:
        return ()
    return value.items if isinstance(value, Vector) else (value,)


def _clears(names: Names, written: tuple[int, ...]) -> Rule:
    def rule(user: User, warp: Warp, found: Registers) -> None:
        mask = names.active(warp)
        for slot in written:
            assign(found, slot, mask, None)

    return rule


def _uses(names: Names) -> Rule:
    """Reports poison in the operands, but for the values that a store hands on to memory."""
    ins = names.ins
    written, values = destinations(names), set(names.sources(*stored_values(ins)))
    addresses = names.sources(*[operand for operand in ins.operands if isinstance(operand, Address)])
    others = names.sources(*[operand for operand in ins.operands if not isinstance(operand, Address)])
    what = [(slot, "uses an address") for slot in addresses]
    what += [(slot, "uses an operand") for slot in others if slot not in written and slot not in values]

    def rule(user: User, warp: Warp, found: Registers) -> None:
        mask = names.active(warp)
        guard = names.guard_poison(warp, found)
        if guard is not None:
            how = "branches on a predicate" if ins.opcode == "bra" else "is executed or not by a predicate"
            user.poison_used(warp, ins, guard, how)
            found.pop(names.slots[ins.guard.name], None)  # type: ignore[union-attr]
        for slot, how in what:
            poison = found.get(slot)
            if poison is not None and poison.lanes & mask:
                user.poison_used(warp, ins, Poison(poison.lanes & mask, poison.bits, poison.origin), how)
                found.pop(slot)
        for slot in written:
            assign(found, slot, mask, None)

    return rule


def _multiplies(names: Names) -> Rule:
    """wgmma.mma_async: a row of D depends on the same row of A, and on the old D unless scale-d is false.

    Four neighbouring lanes hold a row of A's fragment and of D (PTX ISA, wgmma register fragments).
    """
    d, a, b, scale_d = names.ins.operands[:4]
    written, choice = names.sources(d), names.slot(scale_d)
    fragment = names.sources(a) if isinstance(a, Vector) else ()
    operands = names.sources(b, scale_d) + (() if fragment else names.sources(a))
    negated = isinstance(scale_d, Register) and scale_d.negated

    def rule(user: User, warp: Warp, found: Registers) -> None:
        for slot in operands:
            poison = found.pop(slot, None)
            if poison is not None:
                user.poison_used(warp, names.ins, poison, "uses an operand")
        rows = None
        for slot in fragment:
            rows = union(rows, found.get(slot))
        if choice is None:
            adds = not isinstance(scale_d, Immediate) or bool(scale_d.value)
        else:
            adds = bool((warp.regs[choice] ^ (-1 if negated else 0)) & warp.mask)
        for slot in written:
            new = found.get(slot) if adds else None
            if rows is not None:
                new = union(new, Poison(_rows(rows.lanes), names.width(slot), rows.origin))
            assign(found, slot, warp.mask, new)

    return rule


def _rows(lanes: int) -> int:
    """These lanes and those that share a row with one of them."""
    return sum(0xF << 4 * row for row in range(8) if lanes >> 4 * row & 0xF)
