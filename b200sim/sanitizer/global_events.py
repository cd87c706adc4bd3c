"""Global memory as a launch uses it: who reads and writes what, and what orders that between CTAs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from b200sim.sanitizer import outside, scopes
from b200sim.sanitizer.base import Base
from b200sim.sanitizer.clocks import EXECUTION, MEMORY
from b200sim.sanitizer.global_shadow import Box, GlobalShadow, Lanes, Run
from b200sim.sanitizer.locations import Act, Locations, may_meet, strong_pair
from b200sim.sanitizer.predecessor import Predecessors
from b200sim.sanitizer.records import Access
from b200sim.sanitizer.scopes import REDUCTION, WEAK, order_of
from b200sim.sanitizer.state import ClusterState, WarpState

if TYPE_CHECKING:
    from b200sim.global_memory import Allocation
    from b200sim.machine.asynchronous import AsyncOperation
    from b200sim.machine.grid import Grid
    from b200sim.machine.observer import ThreadCopies
    from b200sim.machine.spinning import Poll
    from b200sim.machine.warp import Warp
    from b200sim.ptx.syntax import Instruction

KINDS = {"read": "ld", "write": "st", "atomic": "atomic"}

#: What is wrong with an access that a predecessor may not like, and what would order it.
UNORDERED = (
    "uses global memory and nothing orders it after griddepcontrol.wait",
    "griddepcontrol.wait by this thread, or by one it synchronises with, comes first",
)
AS_CONSTANT = (
    "reads as constant (.nc) what the predecessor may write: compilers move such loads before "
    "griddepcontrol.wait (ptxas 13.0 does), and the cache that they may use is not coherent",
    "ld.global without .nc",
)


class GlobalEvents(Base):
    global_shadow: GlobalShadow
    predecessors: Predecessors
    locations: Locations
    acts: dict[tuple[WarpState, int, int], Act]  # of threads: (warp, instruction, clock)
    last_poll: dict[WarpState, tuple[object, ...]]

    def begin_global(self, grid: Grid) -> None:
        self.global_shadow = GlobalShadow(grid.memory, self._compare)
        self.locations = Locations()
        self.acts = {}
        self.last_poll = {}
        #: Strong accesses that met: (writer's CTA, other CTA) -> the two, and where.
        self.meetings: dict[tuple[Any, Any], tuple[Act, Act, int]] = {}

    # -- accesses by threads --------------------------------------------------------------------------

    def global_access(
        self, warp: Warp, ins: Instruction, addresses: int | np.ndarray, nbytes: int, kind: str
    ) -> None:
        state, ws = self.of(warp)
        poll = (ins, addresses, self.global_shadow.version, ws.now)
        if kind == "read" and isinstance(addresses, int):
            if self._asked_before(ws, poll):
                return
            self.last_poll[ws] = poll
        self.check_dependency(state, ws, ins, None, addresses if kind == "read" else None)
        key = (ws, id(ins), ws.clock)
        act = self.acts.get(key)
        if act is None:
            act = self.acts[key] = Act(
                ws, ins, ws.slot, ws.clock, order_of(ins), KINDS[kind], nbytes, kind != "read"
            )
        span = Run(addresses, nbytes) if isinstance(addresses, int) else Lanes(addresses, nbytes)
        if kind == "read":
            self.global_shadow.read(act, span)
        else:
            self._writes_global(act, span)
        if act.order.strong:
            for address in [addresses] if isinstance(addresses, int) else np.unique(addresses).tolist():
                self._strong(act, address, kind)
        elif kind == "write" and self.locations.places:
            for address in [addresses] if isinstance(addresses, int) else addresses.tolist():
                self.locations.overwritten(address)

    def _asked_before(self, ws: WarpState, poll: tuple[object, ...]) -> bool:
        last = self.last_poll.get(ws)
        return (
            last is not None
            and all(a is b for a, b in zip(last[::3], poll[::3], strict=True))
            and (last[1:3] == poll[1:3])
        )

    def _strong(self, act: Act, address: Hashable, kind: str) -> None:
        if kind != "write":
            self.locations.read(act, address)
        if kind != "read":
            self.locations.wrote(act, address, atomic=kind == "atomic")

    def check_dependency(
        self,
        state: ClusterState,
        ws: WarpState,
        ins: Instruction,
        lane: int | None,
        reads: int | np.ndarray | None = None,
    ) -> None:
        """PTX ISA 9.7.13.13: what a predecessor wrote is visible only after griddepcontrol.wait, and not to a
        load for which memory is constant as long as the kernel runs (9.7.9.9). `reads`: addresses, of threads
        that do no more than read there."""
        if not self.grid.pdl:
            return
        ordered = ws.now[EXECUTION, state.dependency_slot]
        if not ordered or ins.has("nc"):
            access = self.access("global", ws.warp, ins, ws.slot, ws.clock, lane=lane, space="global")
            access.kind = "ld"
            what, edge = AS_CONSTANT if ordered else UNORDERED

            def report() -> None:
                self.report("input_before_dependency", f"{ins.mnemonic} {what}", second=access, edge=edge)

            self.predecessors.read(self._only_allocation(reads), report)

    def _only_allocation(self, addresses: int | np.ndarray | None) -> Allocation | None:
        """That all the addresses lie in; None if there is none."""
        if addresses is None:
            return None
        low, high = int(np.min(addresses)), int(np.max(addresses))
        allocation = self.global_shadow.find(low)
        return allocation if allocation is not None and high < allocation.end else None

    def _writes_global(self, act: Act, span: Box | Lanes | Run) -> None:
        self.predecessors.wrote(self.global_shadow.find(span.address))
        self.global_shadow.write(act, span)

    # -- fences ---------------------------------------------------------------------------------------

    def global_fence(self, ws: WarpState, ins: Instruction) -> None:
        """Any fence or membar, before its effect on the warp's own clocks."""
        if ins.has("proxy"):
            everywhere = not any("shared" in word for word in ins.modifiers)
            if everywhere and (ins.has("async") or ins.has("async::generic")):
                outside.history_of(ws, "fences", None).add(ws, ws.now[MEMORY])
        elif not ins.has("mbarrier_init") and not any("sync_restrict" in word for word in ins.modifiers):
            ws.learn(ws.withheld)
            self.locations.fenced(ws, ins)

    # -- asynchronous accesses ------------------------------------------------------------------------

    def loads_global(
        self,
        ws: WarpState,
        operation: AsyncOperation,
        kind: str,
        epochs: Sequence[tuple[int, int]],
        span: Run | Box,
    ) -> None:
        """A TMA or bulk load reads global memory; `epochs` stand for its completion."""
        assert operation.ins is not None
        if epochs:
            act = Act(
                ws, operation.ins, *epochs[0], WEAK, kind, 1 << 10, writes=False, proxy=True, deferred=True,
                lane=operation.thread, also=tuple(epochs[1:]),
            )  # fmt: skip
            self.global_shadow.read(act, span)

    def stores_global(
        self,
        ws: WarpState,
        operation: AsyncOperation,
        kind: str,
        number: int,
        span: Run | Box,
        reduction: str | None,
    ) -> None:
        """A TMA or bulk store or reduction, complete when a wait_group without .read says so."""
        assert operation.ins is not None
        slot = ws.agents.slot("bulk writes", ws.warp.cta.rank, ws.warp.index, operation.thread)
        order = WEAK if reduction is None else REDUCTION
        act = Act(
            ws, operation.ins, slot, number, order, kind, 1 << 10, writes=True, proxy=True, deferred=True,
            lane=operation.thread, reduction=reduction,
        )  # fmt: skip
        self._writes_global(act, span)

    def writes_over(self, ws: WarpState, slot: int, number: int) -> None:
        """wait_group without .read: the copies of bulk slot `slot` up to `number` have written."""
        written = ws.agents.find("bulk writes", *ws.agents.keys[slot][1:])  # type: ignore[index]
        if written is not None:
            ws.now = ws.agents.knowing(ws.now, written, number)

    def copies_read_global(self, ws: WarpState, ins: Instruction, copies: ThreadCopies) -> None:
        """cp.async: weak reads that are over when its group is."""
        if len(copies.sources):
            act = Act(
                ws, ins, ws.copies_slot, ws.thread_copies, WEAK, "cp.async", copies.nbytes, writes=False,
                deferred=True,
            )  # fmt: skip
            self.global_shadow.read(act, Lanes(copies.sources, copies.nbytes))

    # -- order ----------------------------------------------------------------------------------------

    def _compare(self, first: Act, second: Act, allocation: Allocation, offset: int) -> bool:
        """Two acts on one cell, `first` recorded before `second`; whether they are no race."""
        a, b = first.ws, second.ws
        if not first.writes and not second.writes:
            return True
        if strong_pair(first, second):
            if a.warp.cta is not b.warp.cta and first.writes and second.kind != "st":
                self.meetings[a.warp.cta, b.warp.cta] = first, second, allocation.address + offset
            return True
        if a is not b or first.deferred:
            epochs = ((first.slot, first.clock), *first.also)
            if not any(outside.knows(b.agents, b.now, a.agents, *epoch) for epoch in epochs):
                self._unordered(first, second, allocation, offset)
                return False
        if second.proxy and first.writes and not (first.proxy and a.warp.cta is b.warp.cta):  # noqa: SIM102
            if not outside.reaches_async(b.agents, b.now, a.agents, first.slot, first.clock):
                self._not_fenced(first, second, allocation, offset)
                return False
        return True

    def _unordered(self, first: Act, second: Act, allocation: Allocation, offset: int) -> None:
        epoch = first.ws.agents, first.slot, first.clock
        now, agents = second.ws.now, second.ws.agents
        if may_meet(first, second):
            code, edge = "scope_too_narrow", _scopes(first, second)
        elif outside.knows(agents, now, *epoch, narrow=True):
            code, edge = "scope_too_narrow", outside.reason(agents, now, *epoch)
        else:
            code = "global_race" if first.writes and second.writes else "global_read_unordered"
            edge = self._missing(first, second)
        did, does = ("writes" if first.writes else "reads"), ("write" if second.writes else "read")
        order = "is not ordered after another thread"
        if first.ws is second.ws:
            order = "comes while an operation issued before still"
        message = f"{does} of {allocation.name}, byte {offset}, {order} {did} it"
        self._report_pair(code, message, first, second, allocation, offset, edge)

    def _not_fenced(self, first: Act, second: Act, allocation: Allocation, offset: int) -> None:
        self._report_pair(
            "proxy_fence_missing",
            f"{second.ins.mnemonic} uses {allocation.name}, byte {offset}, which another "
            f"{'CTA' if first.proxy else 'thread or instruction'} wrote and no proxy fence follows",
            first, second, allocation, offset,
            f"fence.proxy.async (or .async.global) after the write and before {second.ws.warp.name} issues",
        )  # fmt: skip

    def _report_pair(
        self, code: str, message: str, first: Act, second: Act, allocation: Allocation, offset: int, edge: str
    ) -> None:
        sides = [self._side(act, allocation, offset) for act in (first, second)]
        self.report(code, message, first=sides[0], second=sides[1], edge=edge)

    def _side(self, act: Act, allocation: Allocation, offset: int) -> Access:
        side = self.access(
            act.kind, act.ws.warp, act.ins, act.slot, act.clock, lane=act.lane, space="global",
            start=allocation.address + offset, size=min(act.size, 16),
        )  # fmt: skip
        side.facts["tensor"] = f"{allocation.name}+{offset:#x}"
        if act.kind == "tma store" and act.reduction:
            side.facts["reduction"] = act.reduction
        return side

    def polled(self, polls: Sequence[Poll]) -> list[str]:
        """Who wrote last what warps poll for ever."""
        lines = []
        for address in sorted({poll.address for poll in polls if poll.cta is None}):
            asking = {poll.warp for poll in polls if poll.address == address}
            last = ", ".join(
                f"{act.ws.warp.name} ({act.ins.mnemonic}, PTX line {act.ins.line})"
                for act in self.global_shadow.last_writers(address)
                if act.ws.warp not in asking
            )
            lines.append(
                f"  global memory {address:#x} was last written by {last or 'nobody else in this launch'}"
            )
        return lines

    # -- what is missing ------------------------------------------------------------------------------

    def _missing(self, first: Act, second: Act) -> str:
        """The edge that would order them, as far as it can be told."""
        a, b = first.ws, second.ws
        who, whom = a.warp.name, b.warp.name
        if first.deferred and not outside.knows(a.agents, a.now, a.agents, first.slot, first.clock):
            if first.writes:
                then = "" if a is b else f", then a release that {whom} acquires"
                return f"no cp.async.bulk.wait_group (without .read) by {who} after it{then}"
            return f"no wait by {who} for the end of this load"
        if first.order.strong and second.order.strong:
            return _not_strong_together(first, second)
        if a.warp.cta.cluster is b.warp.cta.cluster and a.warp.cta is b.warp.cta:
            return f"no barrier, mbarrier or release and acquire between {who} and {whom}"
        cta, other = a.warp.cta.name, b.warp.cta.name
        if first.order.strong != second.order.strong:
            weak = second if first.order.strong else first
            return (
                f"no release by {cta} after it that {other} acquires; if this is a flag or a counter, "
                f"{weak.ins.mnemonic} of {weak.ws.warp.name} must not be weak (.relaxed or stronger)"
            )
        met = self.meetings.get((a.warp.cta, b.warp.cta))
        if met is None:
            return f"no release by {cta} after it on a location that {other} acquires"
        write, read, address = met
        told = f"{write.ins.mnemonic} (PTX line {write.ins.line}) tells {other} at {address:#x}"
        seen = f"{read.ins.mnemonic} (PTX line {read.ins.line}) sees what {cta} released at {address:#x}"
        if not self.locations.released_by(write.ws, address):
            return (
                f"no release by {cta}: {told}, is no release itself and no fence.acq_rel comes between the "
                "access and it"
            )
        if self.locations.acquired(read, write.ws, address):
            return f"no release by {cta} after this access; {other} acquires an earlier one at {address:#x}"
        return f"no acquire by {other}: {seen}, is no acquire itself and no fence.acq_rel follows it"


def _scopes(first: Act, second: Act) -> str:
    need = scopes.needed(first.ws.warp.cta, second.ws.warp.cta)
    narrow = [act for act in (first, second) if act.order.scope < need]
    named = " and ".join(
        f"{act.ins.mnemonic} of {act.ws.warp.name} has scope {scopes.NAMES[act.order.scope]}"
        for act in narrow
    )
    return f"{named}; {scopes.NAMES[need]} or wider would include both threads"


def _not_strong_together(first: Act, second: Act) -> str:
    if first.proxy != second.proxy:
        return (
            "strong operations of different proxies do not exclude each other: order them, with a proxy fence"
        )
    return f"strong operations of {first.size} and {second.size} bytes overlap in part: use one size"
