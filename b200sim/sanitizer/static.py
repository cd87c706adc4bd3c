"""What can be read off the program without running it."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from b200sim.machine.program import Block, Program
from b200sim.ptx.syntax import Instruction
from b200sim.sanitizer.flow import Flow, flow_of

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
        self._binder = program.binder
        self._flows: list[list[Flow]] | None = None
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

    def flows(self) -> list[list[Flow]]:
        """Per block and instruction: how uninitialised values pass through it."""
        if self._flows is None:
            self._flows = [
                [flow_of(ins, self._binder) for ins in block.instructions] for block in self.blocks
            ]
        return self._flows
