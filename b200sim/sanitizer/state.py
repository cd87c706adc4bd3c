"""What the sanitizer keeps per launch object: warps, pipes, mbarriers, CTAs, clusters."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from b200sim.sanitizer.clocks import ASYNC, EXECUTION, FENCED, MEMORY, WRITER, Agents, Knowledge
from b200sim.sanitizer.lane_order import WarpLanes
from b200sim.sanitizer.records import Access
from b200sim.sanitizer.shadow import SharedCells, TensorCells

if TYPE_CHECKING:
    from b200sim.machine.asynchronous import AsyncOperation
    from b200sim.machine.cta import Cluster, Cta
    from b200sim.machine.waiting import MBarrier, NamedBarrier
    from b200sim.machine.warp import Warp
    from b200sim.ptx.syntax import Instruction


class WarpState:
    """A warp's knowledge, and its asynchronous work that only it can wait for.

    `now` is what the lanes of `mask` know, those that run. What some lanes learn, the others learn when they
    meet (`unite`): `common` is what all know, `apart` what sets of lanes know beyond that.
    """

    def __init__(self, warp: Warp, agents: Agents) -> None:
        self.warp = warp
        self.agents = agents
        self.key = (warp.cta.rank, warp.index)
        self.slot = agents.slot("warp", warp.cta.rank, warp.index, generic=True)
        self.loads_slot = agents.slot("tensor loads", warp.cta.rank, warp.index)
        self.stores_slot = agents.slot("tensor stores", warp.cta.rank, warp.index)
        self.now: Knowledge = agents.nothing()
        self.now[:, self.slot] = 0
        self.now[MEMORY, self.slot] = self.now[EXECUTION, self.slot] = 1
        self.mask = warp.alive
        self.common = self.now
        self.apart: dict[int, Knowledge] = {}
        self.withheld: Knowledge | None = None  # acquired relaxed; the next fence makes it count
        self.loads = 0  # tcgen05.ld so far
        self.pending_loads: list[tuple[int, Instruction]] = []  # (number, instruction), not waited for
        self.stores = 0
        self.copies: dict[int, int] = {}  # bulk slot -> copies so far
        self.open_copies: list[tuple[int, int, int]] = []  # lanes, slot, number
        self.copy_groups: list[tuple[int, list[tuple[int, int]]]] = []  # lanes, (slot, number)
        self.copies_slot = agents.slot("thread copies", warp.cta.rank, warp.index, generic=True)
        self.thread_copies = 0  # cp.async so far
        self.copies_closed: list[int] = []  # cp.async up to here, per commit_group
        self.observed: dict[MBarrier, int] = {}  # last phase that a wait answered for
        self.lanes = WarpLanes()
        self.fenced_after = True  # a tcgen05.fence::after_thread_sync since the last acquire

    @property
    def clock(self) -> int:
        return int(self.now[MEMORY, self.slot])

    def tick(self) -> None:
        """Later accesses are a new epoch: what was handed on does not cover them."""
        new = self.agents.wide(self.now).copy()
        new[MEMORY, self.slot] += 1
        new[EXECUTION, self.slot] += 1
        self.now = new

    # -- lanes ----------------------------------------------------------------------------------------

    def run_lanes(self, mask: int) -> None:
        """The lanes of `mask` go on; they know what every one of them knows."""
        self._put_away()
        self.mask = mask
        self._take_up()

    def _put_away(self) -> None:
        if self.warp.alive & ~self.mask:
            self.apart[self.mask] = self.now
        else:
            self.common = self.now

    def _take_up(self) -> None:
        clocks = self.now[:, self.slot]
        known = self.common
        for lanes, knowledge in self.apart.items():
            if not self.mask & ~lanes:
                known = self.agents.join(known, knowledge)
        self.now = self.agents.wide(known).copy()
        for row in (MEMORY, EXECUTION):
            self.now[row, self.slot] = clocks[row]

    def of_lanes(self, mask: int) -> Knowledge:
        """What at least one lane of `mask` knows."""
        known = self.now
        if self.apart:
            known = self.agents.join(known, self.common)
            for lanes, knowledge in self.apart.items():
                if lanes & mask:
                    known = self.agents.join(known, knowledge)
        return known

    def unite(self, mask: int) -> None:
        """The lanes of `mask` meet: each knows what any of them knew."""
        if not self.apart and not self.warp.alive & ~self.mask:
            return
        self._put_away()
        known = self.common
        for lanes, knowledge in self.apart.items():
            if lanes & mask:
                known = self.agents.join(known, knowledge)
        if self.warp.alive & ~mask:
            self.apart[mask] = known
        else:
            self.common = known
            self.apart.clear()
        self._take_up()

    # -- knowledge ------------------------------------------------------------------------------------

    def learn(self, knowledge: Knowledge | None) -> None:
        if knowledge is not None:
            self.now = self.agents.join(self.now, knowledge)

    def synchronise(self, knowledge: Knowledge | None) -> None:
        """Learn by a barrier. If that orders tcgen05 operations of others, a fence should follow."""
        before = self.now
        self.learn(knowledge)
        if self.fenced_after and self.now is not before:
            before = self.agents.wide(before)
            newer = (self.now[EXECUTION] > before[EXECUTION]) & self.agents.tensor
            mine = [slot for slot in np.flatnonzero(newer) if self.agents.keys[slot][1:3] == self.key]  # type: ignore[index]
            self.fenced_after = int(np.count_nonzero(newer)) == len(mine)

    def copied(self, number: int) -> Knowledge:
        """What is known once cp.async up to `number` are over: generic writes, not yet fenced."""
        new = self.agents.wide(self.now).copy()
        for row in (MEMORY, EXECUTION):
            new[row, self.copies_slot] = max(new[row, self.copies_slot], number)
        return new

    def proxy_fence(self) -> None:
        """fence.proxy.async: all this thread knows is visible to the async proxy from here on."""
        new = self.agents.wide(self.now).copy()
        np.maximum(new[ASYNC], new[MEMORY], out=new[ASYNC])
        new[WRITER, self.slot] = new[MEMORY, self.slot]
        self.now = new
        self.tick()

    def memory_fence(self) -> None:
        """fence.acq_rel and stronger: later relaxed releases carry what is known now."""
        self.learn(self.withheld)
        self.withheld = None
        new = self.agents.wide(self.now).copy()
        new[FENCED] = new[MEMORY]
        self.now = new
        self.tick()


@dataclass
class Pipe:
    """The tcgen05 operations of one thread, which happen in order."""

    slot: int
    ordered_slot: int  # clock: operations before the thread's last fence::before_thread_sync
    issued: int = 0
    committed: int = 0
    seen: Knowledge | None = None  # the issuer's knowledge that `memory` and `execution` were made from
    memory: np.ndarray | None = None
    fenced: np.ndarray | None = None
    writer_fenced: np.ndarray | None = None
    execution: np.ndarray | None = None
    last: Access | None = None


class BarrierState:
    """An mbarrier: what its phases hand on, and which loads have landed."""

    def __init__(self, barrier: MBarrier, cta: Cta, offset: int, slot: int) -> None:
        self.barrier = barrier
        self.cta = cta
        self.offset = offset
        self.slot = slot
        self.phase = barrier.phase
        self.gathered: Knowledge | None = None  # by arrivals in the phase that is open
        self.handed_on: Knowledge | None = None  # by all phases that are complete
        self.init: Access | None = None
        self.init_fenced = False
        self.loads = 0  # issued that complete here
        self.landed: set[int] = set()
        self.landed_up_to = 0
        self.arrivers: dict[tuple[str, int], str] = {}  # place -> who
        self.last_expect = 0  # PTX line
        self.observers: dict[int, list[tuple[int, int]]] = {}  # phase -> epochs of waits that saw it complete
        self.bytes: deque[str] = deque(maxlen=24)  # what changed the transaction count, for reports

    @property
    def name(self) -> str:
        return f"mbarrier {self.offset:#x} of {self.cta.name}"

    def gather(self, agents: Agents, knowledge: Knowledge) -> None:
        self.settle(agents)
        self.gathered = knowledge if self.gathered is None else agents.join(self.gathered, knowledge)

    def settle(self, agents: Agents) -> None:
        """Take notice of phases that have completed. Successive phases of one object form a chain of
        read-modify-writes, so who observes one has observed those before it (PTX ISA 8.9.2)."""
        if self.barrier.phase != self.phase:
            self.phase = self.barrier.phase
            if self.gathered is not None:
                first = self.handed_on is None
                self.handed_on = self.gathered if first else agents.join(self.handed_on, self.gathered)  # type: ignore[arg-type]
                self.gathered = None

    def observe(self, phase: int, slot: int, clock: int) -> None:
        self.observers.setdefault(phase, []).append((slot, clock))
        self.observers.pop(phase - 4, None)

    def last_phase_is_known(self, knowledge: Knowledge) -> bool:
        """Whether who knows this knows of somebody who saw the last phase complete."""
        return self.barrier.phase == 0 or self.seen(self.barrier.phase - 1, knowledge)

    def seen(self, phase: int, knowledge: Knowledge) -> bool:
        """Whether who knows this knows of somebody who saw the phase complete."""
        return any(knowledge[EXECUTION, slot] >= clock for slot, clock in self.observers.get(phase, ()))

    def land(self, number: int) -> int:
        """A load has landed; the number up to which all have."""
        self.landed.add(number)
        while self.landed_up_to + 1 in self.landed:
            self.landed_up_to += 1
            self.landed.discard(self.landed_up_to)
        return self.landed_up_to


@dataclass
class NamedState:
    gathered: Knowledge | None = None
    generation: int = 0
    handed_on: dict[int, Knowledge] = field(default_factory=dict)


class CtaState:
    """Shadow memories of a CTA, and who from outside or asynchronously still uses it."""

    def __init__(self, cta: Cta) -> None:
        self.cta = cta
        self.shared = SharedCells(len(cta.smem))
        self.tensor = TensorCells()
        self.named: dict[NamedBarrier, NamedState] = {}
        self.users: dict[int, Access] = {}  # slot -> latest use by asynchronous work or another CTA
        self.exit: Knowledge | None = None  # joined over the warps that have exited
        self.warps_left = len(cta.warps)
        self.barrier_words: np.ndarray | None = None  # words that belong to mbarriers
        self.allocation: dict[int, Access] = {}
        self.freed: list[Access] = []  # deallocations of columns that nobody has allocated since
        self.relinquished = False
        self.shares_sm = False  # it allocates, and another CTA fits beside it


class ClusterState:
    """Everything about one cluster; clusters share nothing but global memory."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        warps = sum(len(cta.warps) for cta in cluster.ctas)
        self.agents = Agents(8 + 4 * warps + 24 * len(cluster.ctas))
        self.dependency_slot = self.agents.slot("griddepcontrol")
        self.ctas = {cta: CtaState(cta) for cta in cluster.ctas}
        self.warps = {warp: WarpState(warp, self.agents) for cta in cluster.ctas for warp in cta.warps}
        self.pipes: dict[tuple[Warp, int], Pipe] = {}
        self.barriers: dict[MBarrier, BarrierState] = {}
        self.arrived: dict[Warp, int] = {}  # cluster barrier: warp -> phase it arrived in
        self.barrier_phases: dict[int, Knowledge] = {}
        self.numbers: dict[AsyncOperation, tuple[tuple[BarrierState, int], ...]] = {}
        self.no_more_clusters = False  # a query_cancel said so

    def pipe(self, warp: Warp, lane: int) -> Pipe:
        pipe = self.pipes.get((warp, lane))
        if pipe is None:
            key = (warp.cta.rank, warp.index, lane)
            pipe = Pipe(self.agents.slot("tensor core", *key), self.agents.slot("issued before fence", *key))
            self.pipes[warp, lane] = pipe
        return pipe
