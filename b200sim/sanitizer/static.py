"""What can be read off the program without running it."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from b200sim.ptx.program import Block, Program
from b200sim.ptx.syntax import Instruction

_known: WeakKeyDictionary[Program, Static] = WeakKeyDictionary()


def of(program: Program) -> Static:
    found = _known.get(program)
    if found is None:
        found = _known[program] = Static(program)
    return found


class Static:
    """Facts about one program, computed when asked for."""

    def __init__(self, program: Program) -> None:
        self.blocks: list[Block] = program.blocks
        self.names = {slot: name for name, slot in program.binder.names.items()}
        self._places = {
            id(ins): (number, position)
            for number, block in enumerate(self.blocks)
            for position, ins in enumerate(block.instructions)
        }
        self._unread: dict[int, set[int]] = {}

    def still_unread(self, load: Instruction, later: Instruction) -> bool:
        """Whether, on some path from a tcgen05.ld, `later` is reached before the load's destination
        registers have all been read or overwritten. Either makes the hardware wait for the load."""
        key = id(load)
        if key not in self._unread:
            self._unread[key] = self._reached_unread(*self._places[key])
        return id(later) in self._unread[key]

    def _reached_unread(self, block: int, position: int) -> set[int]:
        reached: set[int] = set()
        start = set(self.blocks[block].usages[position].writes)
        work: list[tuple[int, int, set[int]]] = [(block, position + 1, start)]
        seen: dict[int, set[int]] = {}
        while work:
            number, first, unread = work.pop()
            unread = set(unread)
            for ins, usage in list(
                zip(self.blocks[number].instructions, self.blocks[number].usages, strict=False)
            )[first:]:
                unread -= usage.reads
                unread -= usage.writes
                if not unread:
                    break
                reached.add(id(ins))
            if not unread:
                continue
            for successor in self.blocks[number].successors:
                known = seen.setdefault(successor, set())
                if not unread <= known:
                    known |= unread
                    work.append((successor, 0, known))
        return reached

    def never_written(self) -> list[tuple[Instruction, str]]:
        """Reads of registers that no path can have written before: (instruction, register)."""
        defined: list[set[int] | None] = [None] * len(self.blocks)
        defined[0] = set()
        work = [0]
        while work:
            number = work.pop()
            after = set(defined[number] or ())
            for usage in self.blocks[number].usages:
                after |= usage.writes
            for successor in self.blocks[number].successors:
                known = defined[successor]
                if known is None:
                    defined[successor] = set(after)
                    work.append(successor)
                elif not after <= known:
                    known |= after
                    work.append(successor)
        found = []
        for number, block in enumerate(self.blocks):
            if defined[number] is None:
                continue
            written = set(defined[number] or ())
            for ins, usage in zip(block.instructions, block.usages, strict=False):
                guarded = usage.writes if ins.guard is not None else set()
                missing = (usage.reads - guarded - written) & self.names.keys()
                found += [(ins, self.names[slot]) for slot in sorted(missing)]
                written |= usage.writes
        return found
