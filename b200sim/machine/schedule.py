"""Who runs next: the one place that decides the order of warps and of asynchronous work in a cluster.

A cluster offers three queues: `runnable` warps, asynchronous work `in_flight`, and `polling` warps, which gave
way by themselves (a wait that answered no, a nanosleep, a very long loop) and would only look again.
"""

from __future__ import annotations

import random
from collections.abc import Hashable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from b200sim.machine.asynchronous import AsyncOperation
    from b200sim.machine.cta import Cluster
    from b200sim.machine.warp import Warp


class Schedule(Protocol):
    """Takes the next warp or asynchronous operation out of the cluster; None if there is neither."""

    def next(self, cluster: Cluster) -> Warp | AsyncOperation | None: ...


class ProgramOrder:
    """The default: warps run as far as they can, then the oldest asynchronous operation happens.

    Everything asynchronous is thus as late as its issue order allows, which shows missing waits as stale data.
    """

    def next(self, cluster: Cluster) -> Warp | AsyncOperation | None:
        for queue in (cluster.runnable, cluster.in_flight, cluster.polling):
            if queue:
                return queue.popleft()
        return None


class Eager:
    """Asynchronous work happens as soon as it is issued, before any warp goes on."""

    def next(self, cluster: Cluster) -> Warp | AsyncOperation | None:
        for queue in (cluster.in_flight, cluster.runnable, cluster.polling):
            if queue:
                return queue.popleft()
        return None


class SeededRandom:
    """Any warp that can run and any operation whose pipe allows it, with equal probability."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._random = random.Random(seed)

    def next(self, cluster: Cluster) -> Warp | AsyncOperation | None:
        ready = _heads(cluster)
        choices = len(cluster.runnable) + len(ready) + len(cluster.polling)
        if not choices:
            return None
        pick = self._random.randrange(choices)
        for warps in (cluster.runnable, cluster.polling):
            if pick < len(warps):
                warp = warps[pick]
                del warps[pick]
                return warp
            pick -= len(warps)
        operation = cluster.in_flight[ready[pick]]
        del cluster.in_flight[ready[pick]]
        return operation


def _heads(cluster: Cluster) -> list[int]:
    """Positions in `in_flight` of what may happen now: all unordered work, and the oldest of each pipe."""
    heads: list[int] = []
    seen: set[Hashable] = set()
    for position, operation in enumerate(cluster.in_flight):
        if operation.pipe is None:
            heads.append(position)
        elif operation.pipe not in seen:
            seen.add(operation.pipe)
            heads.append(position)
    return heads


def schedule(name: str, seed: int = 0) -> Schedule:
    """`program-order`, `eager` or `random` (with its seed)."""
    if name == "program-order":
        return ProgramOrder()
    if name == "eager":
        return Eager()
    if name == "random":
        return SeededRandom(seed)
    raise ValueError(f"unknown schedule {name!r}: program-order, eager or random")
