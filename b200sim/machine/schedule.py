"""Who runs next: the one place that decides the order of warps and of asynchronous work in a cluster.

A cluster offers three queues: `runnable` warps, asynchronous work `in_flight`, and `polling` warps, which
gave way by themselves (a wait that answered no, a nanosleep, a very long loop) and would only look again.
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

    Everything asynchronous is as late as its issue order allows, which shows missing waits as stale data.
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


class Late:
    """Adversarial: one unit's operations (a prefix of `AsyncOperation.kind`) happen when nothing else can."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def next(self, cluster: Cluster) -> Warp | AsyncOperation | None:
        if cluster.runnable:
            return cluster.runnable.popleft()
        heads = _heads(cluster)
        others = [at for at in heads if not cluster.in_flight[at].kind.startswith(self.kind)]
        for at in (others or heads)[:1]:
            operation = cluster.in_flight[at]
            del cluster.in_flight[at]
            return operation
        return cluster.polling.popleft() if cluster.polling else None


class Starve:
    """Adversarial: the warps with one index in their CTA run when nothing else can; asynchronous work is
    eager or, if `late`, comes after all other warps. Who polls comes after them: it may poll for them."""

    def __init__(self, index: int, late: bool = False) -> None:
        self.index = index
        self.late = late

    def next(self, cluster: Cluster) -> Warp | AsyncOperation | None:
        if cluster.in_flight and not self.late:
            return cluster.in_flight.popleft()
        for at, warp in enumerate(cluster.runnable):
            if warp.index != self.index:
                del cluster.runnable[at]
                return warp
        for last in (cluster.in_flight, cluster.runnable, cluster.polling):
            if last:
                return last.popleft()
        return None


class ConsumersFirst:
    """Adversarial: what was woken last runs first, at once after the operation that woke it."""

    def next(self, cluster: Cluster) -> Warp | AsyncOperation | None:
        if cluster.runnable:
            return cluster.runnable.pop()
        for queue in (cluster.in_flight, cluster.polling):
            if queue:
                return queue.popleft()
        return None


def schedule(name: str, seed: int = 0) -> Schedule:
    """By name: `program-order`, `eager`, `consumers-first`, `random` (with its seed) or `random:SEED`,
    `late:KIND` (tma load, tcgen05, tma store, bulk ...), `starve:WARP` and `starve-late:WARP`."""
    kind, _, argument = name.partition(":")
    if kind == "random":
        return SeededRandom(int(argument) if argument else seed)
    if kind == "late" and argument:
        return Late(argument)
    if kind in ("starve", "starve-late") and argument.isdecimal():
        return Starve(int(argument), kind == "starve-late")
    plain: dict[str, type[Schedule]] = {
        "program-order": ProgramOrder,
        "eager": Eager,
        "consumers-first": ConsumersFirst,
    }
    if name in plain:
        return plain[name]()
    raise ValueError(
        f"unknown schedule {name!r}: {', '.join(plain)}, random[:SEED], late:KIND, starve[-late]:WARP"
    )


def exploration(count: int, seed: int, warps: int = 8) -> list[str]:
    """The names of `count` schedules: the deterministic and adversarial ones first, then random ones from
    `seed` on. Program order is always the first."""
    kinds = ("tma load", "tcgen05", "tma store", "bulk", "try_cancel")
    names = ["program-order", "eager", "consumers-first", *(f"late:{kind}" for kind in kinds[:2])]
    for index in range(warps):
        names += [f"starve:{index}", f"starve-late:{index}"]
    names += [f"late:{kind}" for kind in kinds[2:]]
    half = max(count // 2, 1)  # leave room for chance
    chosen = names[: max(half, min(count, 5))]
    return (chosen + [f"random:{seed + i}" for i in range(count)])[:count]
