"""Values that nobody has defined, as they lie in registers.

Poison of a register is a set of lanes and a set of bits, the same bits in each of these lanes. Where that
form cannot hold the truth it holds more. Reading memory that nobody wrote makes poison; it is an error only
once it decides something: what is stored to global memory, an address, a branch (as in MemorySanitizer,
Stepanov and Serebryany, CGO 2015). PTX ISA 8.2.6: such a value is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

from b200sim.sanitizer.records import Access


@dataclass(frozen=True)
class Origin:
    """Where poison came from: `code` of the hazard, `what` was read in words, by which access (if any)."""

    code: str
    what: str
    access: Access | None = None


@dataclass(frozen=True)
class Poison:
    lanes: int
    bits: int
    origin: Origin


Registers = dict[int, Poison]  # slot -> poison, of one warp


def union(a: Poison | None, b: Poison | None) -> Poison | None:
    if a is None or b is None:
        return a or b
    return Poison(a.lanes | b.lanes, a.bits | b.bits, a.origin)


def assign(registers: Registers, slot: int, mask: int, new: Poison | None) -> None:
    """The lanes of `mask` get `new` (None: a good value), the others keep what they have."""
    old = registers.get(slot)
    if new is not None:
        new = Poison(new.lanes & mask, new.bits, new.origin) if new.lanes & mask and new.bits else None
    if old is not None and old.lanes & ~mask:
        new = union(new, Poison(old.lanes & ~mask, old.bits, old.origin))
    if new is not None:
        registers[slot] = new
    elif old is not None:
        del registers[slot]


def lanes_text(lanes: int) -> str:
    """`lane 3`, `lanes 0..15`, `lanes 0, 2, 4, ...`."""
    numbers = [lane for lane in range(32) if lanes >> lane & 1]
    if len(numbers) == 1:
        return f"lane {numbers[0]}"
    if numbers[-1] - numbers[0] + 1 == len(numbers):
        return f"lanes {numbers[0]}..{numbers[-1]}"
    return "lanes " + ", ".join(map(str, numbers[:4])) + (", ..." if len(numbers) > 4 else "")
