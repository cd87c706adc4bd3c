"""The registers of one instruction, and who hears of poison in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from b200sim.machine.values import Value
from b200sim.ptx.syntax import Address, Immediate, Instruction, Operand, Pair, Register, Vector
from b200sim.sanitizer.poison import Poison, Registers

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp


class User(Protocol):
    """Who is told that poison decides something."""

    def poison_used(self, warp: Warp, ins: Instruction, poison: Poison, how: str) -> None: ...


Rule = Callable[[User, "Warp", Registers], None]


@dataclass(frozen=True)
class Names:
    """Operands of one instruction as slots; `guard` is (slot, flip)."""

    ins: Instruction
    slots: dict[str, int]
    bits: list[int]

    def slot(self, operand: Operand) -> int | None:
        return self.slots.get(operand.name) if isinstance(operand, Register) else None

    def value(self, warp: Warp, operand: Operand) -> Value | None:
        """What an operand holds; None for special registers."""
        if isinstance(operand, Immediate):
            return operand.value
        slot = self.slot(operand)
        return None if slot is None else warp.regs[slot]

    def leaves(self, operand: Operand) -> Iterator[int]:
        """Slots of the registers in an operand."""
        if isinstance(operand, Register):
            if operand.name in self.slots:
                yield self.slots[operand.name]
        elif isinstance(operand, Vector):
            for item in operand.items:
                yield from self.leaves(item)
        elif isinstance(operand, Pair):
            yield from self.leaves(operand.first)
            yield from self.leaves(operand.second)
        elif isinstance(operand, Address):
            yield from self.leaves(operand.base)
            for item in operand.coordinates:
                yield from self.leaves(item)

    def sources(self, *operands: Operand) -> tuple[int, ...]:
        return tuple(slot for operand in operands for slot in self.leaves(operand))

    def active(self, warp: Warp) -> int:
        guard = self.ins.guard
        if guard is None:
            return warp.mask
        value: int = warp.regs[self.slots[guard.name]]
        return warp.mask & (~value if guard.negated else value)

    def guard_poison(self, warp: Warp, found: Registers) -> Poison | None:
        """Poison of the guard: whether these lanes execute the instruction is unknown."""
        guard = self.ins.guard
        poison = found.get(self.slots[guard.name]) if guard is not None else None
        if poison is None or not poison.lanes & warp.mask:
            return None
        return Poison(poison.lanes & warp.mask, 1, poison.origin)

    def width(self, slot: int) -> int:
        return (1 << self.bits[slot]) - 1
