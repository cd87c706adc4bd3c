"""What the lanes of one warp know of each other's accesses to shared memory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from b200sim.machine.values import LANES, lane_array
from b200sim.sanitizer.records import Access
from b200sim.sanitizer.shadow import SharedCells

RECENT = 256  # accesses of a warp without a barrier between its lanes that are kept
Pairs = NDArray[np.bool_]  # [later lane, earlier lane]


class LaneOrder:
    """Up to which clock of the warp each lane is ordered after each lane's accesses."""

    def __init__(self) -> None:
        self.all = 0  # every lane after every lane
        self.pairs: NDArray[np.int32] | None = None  # beyond that

    def join(self, mask: int, alive: int, clock: int) -> None:
        """The lanes of `mask` have met: each knows what any of them knew, and what they did up to `clock`."""
        if not alive & ~mask:
            self.all, self.pairs = max(self.all, clock), None
            return
        lanes, pairs = lane_array(mask), self._pairs()
        known = pairs[lanes].max(axis=0)
        known[lanes] = np.maximum(known[lanes], clock)
        pairs[lanes] = known

    def learn(self, mask: int, alive: int, clock: int) -> None:
        """The lanes of `mask` know all accesses of the warp up to `clock`."""
        if not alive & ~mask:
            self.all = max(self.all, clock)
        elif clock > self.all:
            pairs, lanes = self._pairs(), lane_array(mask)
            pairs[lanes] = np.maximum(pairs[lanes], clock)

    def _pairs(self) -> NDArray[np.int32]:
        if self.pairs is None:
            self.pairs = np.full((LANES, LANES), self.all, np.int32)
        return self.pairs

    def orders(self, clock: int) -> Pairs | bool:
        """For which pairs an access at `clock` comes before what the later lane does now."""
        return clock <= self.all if self.pairs is None else np.maximum(self.pairs, self.all) >= clock


@dataclass
class WarpLanes:
    """`memory`: order of memory; `met`: of execution. `last`: clock of the warp's newest shared access;
    `held_back`: accesses that the last arrival did not hand on, because other lanes made them."""

    memory: LaneOrder = field(default_factory=LaneOrder)
    met: LaneOrder = field(default_factory=LaneOrder)
    last: int = 0
    held_back: list[Access] = field(default_factory=list)
    recent: deque[tuple[int, Access, SharedCells]] = field(default_factory=lambda: deque(maxlen=RECENT))
