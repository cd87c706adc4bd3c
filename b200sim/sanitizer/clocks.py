"""Vector clocks over the agents of a cluster.

Whoever can act independently is an agent and has a slot: each warp; the tensor core pipe of each thread that
issues to it; the transactions of each mbarrier; the bulk copies, tensor memory loads and stores of each warp.
An access is an epoch (slot, clock). What an agent knows is a matrix of five rows over the slots; epoch
(s, c) has happened before for it, in the sense of a row, if that row holds at least c at s:

  MEMORY     its effect is visible to this thread's generic accesses: causality order, PTX ISA 8.9.5
  ASYNC      it was made visible to the async proxy on the way: fence.proxy.async, PTX ISA 9.7.13.4, 8.6
  EXECUTION  it is over; memory need not be visible: relaxed barriers carry no more (PTX ISA 9.7.13.3)
  WRITER     as ASYNC, but counting only the writer's own fence, not a later one by the reader
  FENCED     what a relaxed release carries of MEMORY: what was known at the last fence.acq_rel or stronger

Matrices are never changed in place: who keeps one keeps a snapshot.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEMORY, ASYNC, EXECUTION, WRITER, FENCED = range(5)
ROWS = 5
NEVER = 2**31 - 1

Knowledge = NDArray[np.int32]  # (ROWS, slots)


class Agents:
    """The slots of one cluster. Slot 0 belongs to nobody: cells that nobody touched refer to it."""

    def __init__(self, expected: int) -> None:
        self.capacity = max(64, expected)
        self._slots: dict[Hashable, int] = {"nobody": 0}
        self.keys: list[Hashable] = ["nobody"]
        self.generic = np.zeros(self.capacity, bool)  # slots whose writes go through the generic proxy
        self.tensor = np.zeros(self.capacity, bool)  # slots of tcgen05 operations
        #: What these agents know of other clusters: kind of history -> warp -> history (see outside.py).
        self.outside: dict[str, dict[Any, Any]] = {"imports": {}, "narrow": {}, "fences": {}}

    def slot(self, *key: Hashable, generic: bool = False) -> int:
        """The slot of an agent, new if it has none. Keys begin with the kind of agent."""
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = len(self.keys)
            self.keys.append(key)
            if slot >= self.capacity:
                self.capacity *= 2
                self.generic = np.concatenate([self.generic, np.zeros_like(self.generic)])
                self.tensor = np.concatenate([self.tensor, np.zeros_like(self.tensor)])
            self.generic[slot] = generic
            self.tensor[slot] = str(key[0]).startswith("tensor")
        return slot

    def find(self, *key: Hashable) -> int | None:
        return self._slots.get(key)

    def nothing(self) -> Knowledge:
        return np.zeros((ROWS, self.capacity), np.int32)

    def wide(self, knowledge: Knowledge) -> Knowledge:
        """The same knowledge, with a column for every slot there is now."""
        missing = self.capacity - knowledge.shape[1]
        if not missing:
            return knowledge
        return np.concatenate([knowledge, np.zeros((ROWS, missing), np.int32)], axis=1)

    def join(self, a: Knowledge, b: Knowledge) -> Knowledge:
        if a is b:
            return a
        return np.maximum(self.wide(a), self.wide(b))

    def knowing(self, knowledge: Knowledge, slot: int, clock: int) -> Knowledge:
        """`knowledge`, and that everything of `slot` up to `clock` is over and visible to all."""
        wide = self.wide(knowledge)
        new = wide.copy() if wide is knowledge else wide
        np.maximum(new[:, slot], clock, out=new[:, slot])
        return new

    def relaxed(self, knowledge: Knowledge) -> Knowledge:
        """What a relaxed arrival hands on: the order of execution, and memory as of the last fence."""
        new = self.wide(knowledge).copy()
        new[MEMORY] = new[FENCED]
        for row in (ASYNC, WRITER):
            np.minimum(new[row], new[FENCED], out=new[row])
        return new
