"""What the warps of one cluster know of other clusters, learned through global memory.

A cluster's vector clocks have slots for its own agents only. A warp that acquires what another cluster
released takes a snapshot, `History`, under the next clock of a slot of its own: whoever knows that clock of
that slot, by whatever barrier of the cluster, knows what the snapshot says. Nothing is kept for clusters
that never acquire. Fences between the generic and the async proxy for global memory are such snapshots too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from b200sim.sanitizer.clocks import EXECUTION, MEMORY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from b200sim.sanitizer.clocks import Agents, Knowledge
    from b200sim.sanitizer.state import WarpState

VISIBLE, ASYNC = range(2)  # rows: visible to generic accesses; made visible to the async proxy as well
Snapshot = TypeVar("Snapshot")
Far = dict["Agents", "NDArray[np.int32]"]  # cluster -> (2, slots)


class History(Generic[Snapshot]):
    """Snapshots by one warp, each at least what the one before it was; `entries[k]` goes with clock k."""

    def __init__(self, ws: WarpState, kind: str, first: Snapshot) -> None:
        self.slot = ws.agents.slot(kind, *ws.key)
        self.entries: list[Snapshot] = [first]
        self.reasons = [""]  # why what is in this entry and not in the one before is not known for sure

    def add(self, ws: WarpState, snapshot: Snapshot, reason: str = "") -> None:
        self.entries.append(snapshot)
        self.reasons.append(reason)
        new = ws.agents.wide(ws.now).copy()
        new[MEMORY, self.slot] = new[EXECUTION, self.slot] = len(self.entries) - 1
        ws.now = new

    def at(self, row: NDArray[np.int32]) -> Snapshot:
        """The latest snapshot that is in this row of clocks."""
        return self.entries[clock(row, self.slot)]


def history_of(ws: WarpState, kind: str, first: Any) -> History[Any]:
    """kind: "imports", "narrow" (imports as if every scope were wide enough), or "fences" (MEMORY rows at
    fence.proxy.async for global memory). `first` stands for clock 0."""
    histories = ws.agents.outside[kind]
    history: History[Any] | None = histories.get(ws)
    if history is None:
        history = histories[ws] = History(ws, f"outside {kind}", first)
    return history


def clock(row: NDArray[np.int32], slot: int) -> int:
    return int(row[slot]) if slot < len(row) else 0


def knows(agents: Agents, now: Knowledge, other: Agents, slot: int, when: int, narrow: bool = False) -> bool:
    """Whether epoch (slot, when) of cluster `other` is visible to generic accesses of who knows `now`."""
    if other is agents and clock(now[MEMORY], slot) >= when:
        return True
    for history in agents.outside["narrow" if narrow else "imports"].values():
        known = history.at(now[MEMORY]).get(other)
        if known is not None and clock(known[VISIBLE], slot) >= when:
            return True
    return False


def reason(agents: Agents, now: Knowledge, other: Agents, slot: int, when: int) -> str:
    """Which scope was too narrow, for an epoch that is known only if scopes are ignored."""
    for history in agents.outside["narrow"].values():
        last = clock(now[MEMORY], history.slot) + 1
        for entry, why in zip(history.entries[:last], history.reasons[:last], strict=True):
            known = entry.get(other)
            if known is not None and clock(known[VISIBLE], slot) >= when:
                return why
    return ""


def reaches_async(agents: Agents, now: Knowledge, other: Agents, slot: int, when: int) -> bool:
    """Whether a fence.proxy.async came after epoch (slot, when), on the way to who knows `now`."""
    row = now[MEMORY]
    fences = _fences(agents, now)
    if other is agents and any(clock(snapshot, slot) >= when for snapshot in fences):
        return True
    for history in agents.outside["imports"].values():
        known = history.at(row).get(other)
        if known is None or clock(known[VISIBLE], slot) < when:
            continue
        if clock(known[ASYNC], slot) >= when:
            return True
        earlier = [history.at(snapshot).get(other) for snapshot in fences]
        if any(known is not None and clock(known[VISIBLE], slot) >= when for known in earlier):
            return True
    return False


def _fences(agents: Agents, now: Knowledge) -> list[NDArray[np.int32]]:
    """What was visible at the fences between proxies that `now` knows of."""
    snapshots = [history.at(now[MEMORY]) for history in agents.outside["fences"].values()]
    return [snapshot for snapshot in snapshots if snapshot is not None]


def flatten(agents: Agents, now: Knowledge, narrow: bool = False) -> Far:
    """All that `now` implies, cluster by cluster; with `narrow`, as if scopes were wide enough."""
    row = now[MEMORY]
    fences = _fences(agents, now)
    over = np.zeros_like(row)
    for snapshot in fences:
        np.maximum(over[: len(snapshot)], snapshot, out=over[: len(snapshot)])
    far: Far = {agents: np.stack([row, over])}
    histories = [*agents.outside["imports"].values(), *(agents.outside["narrow"].values() if narrow else ())]
    for history in histories:
        far = merge(far, history.at(row))
        for snapshot in fences:
            before = history.at(snapshot)
            far = merge(far, {other: known[[VISIBLE, VISIBLE]] for other, known in before.items()})
    return far


def merge(a: Far, b: Far) -> Far:
    """What either says. Shares the arrays of whoever says more."""
    if not b or a is b:
        return a
    merged = dict(a)
    for agents, theirs in b.items():
        ours = merged.get(agents)
        merged[agents] = theirs if ours is None else _join(ours, theirs)
    return merged


def _join(a: NDArray[np.int32], b: NDArray[np.int32]) -> NDArray[np.int32]:
    if a is b:
        return a
    if a.shape[1] < b.shape[1]:
        a, b = b, a
    part = a[:, : b.shape[1]]
    if (part >= b).all():
        return a
    joined = a.copy()
    np.maximum(part, b, out=joined[:, : b.shape[1]])
    return joined
