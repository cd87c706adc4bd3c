"""Warps that will ask forever: a deadlock in which nobody sleeps.

A warp that polls memory is never blocked. But a warp that comes back to the same read with the same
registers, while nobody has changed anything in between, does so again and again: what it does next depends
on nothing else. If that is true of every warp that can run, nothing will ever change. The launch is looked at
with an observer of its own, and only when all that could run for a while were polling warps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from b200sim.machine.observer import READ, Observer, Observers
from b200sim.machine.program import BLOCK_NUMBER
from b200sim.machine.waiting import MBarrier

if TYPE_CHECKING:
    from b200sim.machine.cta import Cluster, Cta
    from b200sim.machine.grid import Grid
    from b200sim.machine.warp import Warp
    from b200sim.ptx.syntax import Instruction

TURNS = 4  # of a polling warp: with nanosleep it asks once in a turn
STATES = 64  # of a warp at one read that are remembered; loops with longer periods are not recognised
NEUTRAL = {
    "warp_turn", "warp_paused", "fence", "tensor_access", "tensor_map_acquired", "prefetched",
    "cancel_queried", "mbarrier_passed", "bulk_passed", "copies_passed",
}  # fmt: skip


@dataclass(frozen=True)
class Poll:
    """A warp that reads the same again and again. `cta`: whose shared memory; None: global memory."""

    warp: Warp
    ins: Instruction
    address: int
    nbytes: int
    cta: Cta | None

    def value(self) -> int:
        if self.cta is not None:
            return int.from_bytes(
                self.cta.smem[self.address : self.address + self.nbytes].tobytes(), "little"
            )
        memory = self.warp.cta.grid.memory
        return int.from_bytes(memory.view(self.address, self.nbytes).tobytes(), "little")

    def place(self) -> str:
        if self.cta is not None:
            return f"shared memory of {self.cta.name}, {self.address:#x}"
        allocation = self.warp.cta.grid.memory.find(self.address)
        inside = f" ({allocation.name}+{self.address - allocation.address:#x})" if allocation else ""
        return f"global memory {self.address:#x}{inside}"


class _Follow(Observer):
    """Notes who comes back to a read as the same, and whether anything changed at all."""

    def __init__(self) -> None:
        self.changed = False
        self.polls: dict[Warp, Poll] = {}
        self._seen: dict[tuple[Warp, int, int], set[tuple[object, ...]]] = {}
        self._atomics: dict[Warp, list[tuple[Poll, int]]] = {}  # with the value before

    def global_access(
        self, warp: Warp, ins: Instruction, addresses: int | np.ndarray, nbytes: int, kind: str
    ) -> None:
        self._access(warp, ins, addresses, nbytes, kind, None)

    def shared_access(
        self, warp: Warp, ins: Instruction, cta: Cta, offsets: int | np.ndarray, nbytes: int, kind: str
    ) -> None:
        self._access(warp, ins, offsets, nbytes, kind, cta)

    def _access(
        self, warp: Warp, ins: Instruction, where: int | np.ndarray, nbytes: int, kind: str, cta: Cta | None
    ) -> None:
        self.settle(warp)
        if kind not in (READ, "atomic"):
            self.changed = True
        if self.changed:
            return
        address = where if isinstance(where, int) else int(where[0])
        poll = Poll(warp, ins, address, nbytes, cta)
        if kind == "atomic":
            self._atomics.setdefault(warp, []).append((poll, poll.value()))
        if warp in self.polls or not all(_waits(warp, rank) for rank, _ in warp.waiting):
            return  # seen; or other lanes, which do not wait for these, could run and change something
        key, state = (warp, id(ins), address), _state(warp)
        seen = self._seen.setdefault(key, set())
        if state in seen:
            self.polls[warp] = poll
        elif len(seen) < STATES:
            seen.add(state)

    def settle(self, warp: Warp) -> None:
        """Whether the atomic operations of this warp have changed what they met."""
        for poll, before in self._atomics.pop(warp, ()):
            if poll.value() != before:
                self.changed = True


def _waits(warp: Warp, rank: int) -> bool:
    """Whether lanes that stand at the block of this rank wait for the others of their warp, or only exit."""
    if rank > BLOCK_NUMBER:
        return True
    return warp.program.blocks[rank].instructions[0].opcode in ("ret", "exit")


def _state(warp: Warp) -> tuple[object, ...]:
    """All that a warp's future depends on, but for memory."""
    values = [v.tobytes() if isinstance(v, np.ndarray) and v.dtype != object else str(v) for v in warp.regs]
    memories = warp.local.bytes.tobytes(), warp.arguments.bytes.tobytes()
    return (warp.mask, tuple(warp.waiting), tuple(values), *memories)


def _change(self: _Follow, *arguments: Any) -> None:
    self.changed = True


for _name in [name for name in vars(Observer) if not name.startswith("_")]:
    if _name not in NEUTRAL and _name not in vars(_Follow):
        setattr(_Follow, _name, _change)


def endless_polls(
    grid: Grid, clusters: Sequence[Cluster], run_warp: Callable[[Cluster, Warp], None]
) -> list[Poll]:
    """Let every warp that can run go on for a while. Who polls, if none will ever do anything else; else
    nothing. `run_warp` gives a warp a turn."""
    follow, before = _Follow(), grid.observer
    grid.observer = follow if before is None else Observers(before, follow)
    try:
        for cluster in clusters:
            for warp in list(cluster.polling):
                if not _comes_back(cluster, warp, follow, run_warp):
                    return []
        asleep = [warp for cluster in clusters for warp in cluster.all_warps() if warp.blocked_on]
        for warp in asleep:  # the time limit of a try_wait may pass; then it asks again and sleeps again
            pc, wait = warp.pc, warp.blocked_on
            if isinstance(wait, MBarrier):
                wait.forget(warp)
                warp.wait_expired = True
                run_warp(warp.cta.cluster, warp)
                if warp.blocked_on is not wait or warp.pc != pc:
                    return []
        busy = any(cluster.in_flight or cluster.runnable for cluster in clusters)
        return [] if follow.changed or busy else list(follow.polls.values())
    finally:
        grid.observer = before


def _comes_back(
    cluster: Cluster, warp: Warp, follow: _Follow, run_warp: Callable[[Cluster, Warp], None]
) -> bool:
    """Give a polling warp a few turns; whether it is seen to spin, or sleeps on a barrier."""
    for _ in range(TURNS):
        cluster.polling.remove(warp)
        run_warp(cluster, warp)
        follow.settle(warp)
        if follow.changed or cluster.in_flight or cluster.runnable:
            return False
        if warp in follow.polls or warp.blocked_on:
            return True
    return False
