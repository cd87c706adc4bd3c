"""Work that is asked now and done later: copies, matrix multiplications, their commits.

An `AsyncOperation` waits in its cluster's `in_flight` list until the schedule picks it. Operations that
name the same `pipe` happen in the order in which they were issued (tcgen05 mma, cp and commit of one
thread, PTX ISA 9.7.16.6.2); all others may happen in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from b200sim.machine.waiting import Wait

if TYPE_CHECKING:
    from b200sim.machine.observer import Detail
    from b200sim.machine.warp import Warp
    from b200sim.ptx.syntax import Instruction


@dataclass(eq=False)
class AsyncOperation:
    """`perform` does the work; `issuer` and `place` say who asked, for faults and traces."""

    kind: str
    perform: Callable[[], None]
    issuer: Warp
    place: str
    pipe: Hashable = None
    done: bool = False
    ins: Instruction | None = None
    thread: int = 0  # the issuing lane
    detail: Detail | None = None  # what it does, if someone watches
    then: list[Callable[[], None]] = field(default_factory=list)

    def finish(self) -> None:
        self.done = True
        for callback in self.then:
            callback()


class CopyGroups(Wait):
    """The groups of asynchronous copies of a warp's threads (PTX ISA 9.7.9.25.1.1): commit_group closes one,
    wait_group waits. A warp has one such object for bulk copies and one for `cp.async`.

    Each thread has groups of its own; lanes that issued together share entries here, with their lane mask.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.open: list[tuple[int, AsyncOperation]] = []
        self.groups: list[tuple[int, list[AsyncOperation]]] = []

    def add(self, lanes: int, operation: AsyncOperation) -> None:
        self.open.append((lanes, operation))
        operation.then.append(self.wake)

    def commit(self, lanes: int) -> None:
        mine = [op for mask, op in self.open if mask & lanes]
        self.open = [(mask & ~lanes, op) for mask, op in self.open if mask & ~lanes]
        while self.groups and self._finished(self.groups[0]):
            self.groups.pop(0)
        self.groups.append((lanes, mine))

    def has_open(self, lanes: int) -> bool:
        """Whether copies of these lanes that no commit has closed yet are under way."""
        return any(mask & lanes and not operation.done for mask, operation in self.open)

    def reached(self, lanes: int, newest_allowed: int) -> bool:
        """Whether each of these lanes has all its groups complete but the `newest_allowed` most recent."""
        newer: dict[int, int] = {}  # per lane mask of a commit: how many of its groups were seen
        for mask, operations in reversed(self.groups):
            mine = mask & lanes
            if not mine:
                continue
            newer[mine] = newer.get(mine, 0) + 1
            if all(operation.done for operation in operations):
                continue
            if any(self._rank(lane, newer) > newest_allowed for lane in _bits(mine)):
                return False
        return True

    @staticmethod
    def _rank(lane: int, newer: dict[int, int]) -> int:
        """How many groups of this lane were seen so far, newest first."""
        return sum(count for mask, count in newer.items() if mask & lane)

    @staticmethod
    def _finished(group: tuple[int, list[AsyncOperation]]) -> bool:
        return all(operation.done for operation in group[1])

    def describe(self) -> str:
        pending = sum(not op.done for _, group in self.groups for op in group)
        return f"{self.name} groups: {pending} copies of this thread have not finished"


def _bits(mask: int) -> list[int]:
    return [1 << i for i in range(32) if mask >> i & 1]
