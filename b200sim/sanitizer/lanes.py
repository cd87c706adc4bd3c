"""Order between the lanes of one warp, which share a clock but run on their own.

Program order is per thread (PTX ISA 8.9.5), so accesses of two lanes are ordered only by what orders any two
threads: bar.warp.sync "guarantees memory ordering among participating threads" (9.7.13.2), barriers and
mbarriers likewise. Other .sync instructions make lanes wait for each other and say nothing of memory: a write
on one side of them is a note, and a read before them counts as over, as it does in official kernels. An
arrival by some lanes hands on what these lanes know: accesses by other lanes move to the warp's next epoch.
Lanes of one execution of one instruction are not compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from b200sim.machine.values import LANES, lane_array, lane_mask
from b200sim.sanitizer.lane_order import LaneOrder, Pairs
from b200sim.sanitizer.poison import lanes_text
from b200sim.sanitizer.records import Access
from b200sim.sanitizer.shadow import WORD, SharedCells
from b200sim.sanitizer.values import ValueEvents

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp
    from b200sim.ptx.syntax import Instruction
    from b200sim.sanitizer.state import WarpState

STRONG = frozenset(["volatile", "relaxed", "acquire", "release", "acq_rel"])


class LaneEvents(ValueEvents):
    # -- meeting --------------------------------------------------------------------------------------

    def lanes_met(self, warp: Warp, ins: Instruction, mask: int) -> None:
        """At an instruction that lanes execute together."""
        _, ws = self.of(warp)
        ws.unite(mask)
        lanes, clock = ws.lanes, ws.clock
        if not lanes.recent or (ins.opcode in ("bar", "barrier") and not ins.has("warp")):
            return  # bar.sync and barrier.cluster hand on and teach as between warps
        fresh = lanes.last == clock
        up_to = clock if fresh else clock - 1
        lanes.met.join(mask, warp.alive, up_to)
        if ins.opcode == "bar":
            lanes.memory.join(mask, warp.alive, up_to)
            if not warp.alive & ~mask:
                lanes.recent.clear()
        if fresh:
            ws.tick()

    def lanes_learned(self, ws: WarpState, clock: int) -> None:
        """The active lanes have waited for something that the warp itself handed on at `clock`."""
        if ws.lanes.recent:
            for order in (ws.lanes.memory, ws.lanes.met):
                order.learn(ws.warp.mask, ws.warp.alive, clock)
            while ws.lanes.recent and ws.lanes.recent[0][1].clock <= ws.lanes.memory.all:
                ws.lanes.recent.popleft()

    def lanes_hand_on(self, ws: WarpState) -> None:
        """The active lanes arrive; their next epoch takes what other lanes did and they do not know."""
        warp = ws.warp
        for access in ws.lanes.held_back:
            access.facts.pop("not handed on", None)  # this arrival may cover them
        ws.lanes.held_back.clear()
        if warp.mask == warp.alive or not ws.lanes.recent:
            return
        next_clock = ws.clock + 1
        for number, access, shadow in ws.lanes.recent:
            late = self._unknown(ws.lanes.memory, access, warp.mask)
            if not late:
                continue
            met = not self._unknown(ws.lanes.met, access, warp.mask)
            if met and access.kind == "ld":
                continue  # the lanes met after it: the value was there
            access.facts["not handed on"] = lanes_text(late), "met" if met else "apart"
            ws.lanes.held_back.append(access)
            where = _words(access, late)
            if access.kind == "ld":
                clocks, ids = shadow.readers[ws.slot]
                clocks[where[ids[where] == number]] = next_clock
            else:
                shadow.written_at[where[shadow.written_by[where] == number]] = next_clock
            access.clock = next_clock
            ws.lanes.last = next_clock

    def _unknown(self, order: LaneOrder, access: Access, mask: int) -> int:
        """Lanes of an access that are not in `mask` and that a lane of `mask` does not know."""
        orders = order.orders(access.clock)
        if isinstance(orders, np.ndarray):
            known = lane_mask(np.asarray(orders[lane_array(mask)].all(axis=0)))
        else:
            known = -1 if orders else 0
        lanes: int = access.facts["mask"]
        return lanes & ~mask & ~known

    # -- accesses -------------------------------------------------------------------------------------

    def lanes_access(
        self, ws: WarpState, shadow: SharedCells, where: Any, number: int, access: Access
    ) -> None:
        """A generic access to shared memory, before the shadow memory takes notice of it."""
        warp, ins, lanes = ws.warp, access.ins, ws.lanes
        several = warp.mask & (warp.mask - 1) and not isinstance(access.offsets, np.ndarray)
        if ins.opcode in ("tcgen05", "tensormap") or (several and access.kind == "atomic"):
            return  # collective, or one lane after the other: which one is not known
        access.facts.update(mask=warp.mask, execution=(warp.executed, ws.clock))
        if lanes.last > lanes.memory.all:
            for first in self._candidates(ws, shadow, where, access.writes):
                if "mask" in first.facts and not _exempt(first, access):
                    meet = _meet(first, access)
                    self._report_lanes(ws, first, access, meet)
        lanes.last = ws.clock
        lanes.recent.append((number, access, shadow))

    def lanes_issue(
        self, ws: WarpState, shadow: SharedCells, where: Any, access: Access, writes: bool
    ) -> None:
        """One lane issues an asynchronous use of shared memory."""
        lanes = ws.lanes
        if not lanes.recent or lanes.last <= lanes.memory.all or access.lane is None:
            return
        cells = np.arange(len(shadow.valid_words))[where]
        for first in self._candidates(ws, shadow, where, writes):
            if "mask" in first.facts:
                meet = np.zeros((LANES, LANES), bool)
                starts, there = _starts(first)
                size = max(first.facts["element"] // WORD, 1)
                touched = np.isin(starts[:, None] // WORD + np.arange(size), cells).any(axis=1) & there
                meet[access.lane] = touched
                meet[access.lane, access.lane] = False
                self._report_lanes(ws, first, access, meet)

    def _candidates(self, ws: WarpState, shadow: SharedCells, where: Any, writes: bool) -> list[Access]:
        """The warp's own accesses of these words that not all lanes are ordered after."""
        since = ws.lanes.memory.all
        own = (shadow.writer[where] == ws.slot) & (shadow.written_at[where] > since)
        ids = set(np.unique(shadow.written_by[where][own]).tolist()) if own.any() else set()
        if writes and ws.slot in shadow.readers:
            clocks, readers = shadow.readers[ws.slot]
            late = clocks[where] > since
            ids |= set(np.unique(readers[where][late]).tolist()) if late.any() else set()
        return [access for access in map(self.accesses.__getitem__, sorted(ids)) if access is not None]

    def _report_lanes(self, ws: WarpState, first: Access, second: Access, meet: Pairs) -> None:
        apart = meet & ~np.asarray(ws.lanes.memory.orders(first.clock))
        if not apart.any():
            return
        met = not (apart & ~np.asarray(ws.lanes.met.orders(first.clock))).any()
        if met and first.kind == "ld":
            return
        code = "warp_met_without_barrier" if met else "warp_not_synchronised"
        if not self.once(code, first.ins.line, second.ins.line):
            return
        does = "writes" if second.writes else "reads"
        did = "wrote" if first.writes else "read"
        others, ours = (lanes_text(lane_mask(apart.any(axis=axis))) for axis in (0, 1))
        self._sides += [first, second]
        self.report(
            code,
            f"{second.name()} ({ours}) {does} what {first.name()} ({others} of the same warp) {did}",
            first=first,
            second=second,
            edge="bar.warp.sync (__syncwarp) between the two, by these lanes",
        )


def _exempt(first: Access, second: Access) -> bool:
    """Atomics, strong accesses of one location, and one execution of one instruction."""
    if first.kind == second.kind == "atomic":
        return True
    if STRONG.intersection(first.ins.modifiers) and STRONG.intersection(second.ins.modifiers):
        return True
    return first.ins is second.ins and first.facts["execution"] == second.facts["execution"]


def _starts(access: Access) -> tuple[NDArray[np.int64], Pairs]:
    """Per lane: where its access starts, and whether it has one."""
    there = lane_array(access.facts["mask"])
    starts = np.zeros(LANES, np.int64)
    if isinstance(access.offsets, np.ndarray) and len(access.offsets) != there.sum():
        starts[: len(access.offsets)] = access.offsets  # rows of ldmatrix or stmatrix
    else:
        starts[there] = access.offsets
    return starts, there


def _meet(first: Access, second: Access) -> Pairs:
    """[lane of the second, lane of the first]: different lanes that touch the same bytes."""
    (a, a_there), (b, b_there) = _starts(first), _starts(second)
    a_size, b_size = first.facts["element"], second.facts["element"]
    meet = (b[:, None] < a[None, :] + a_size) & (a[None, :] < b[:, None] + b_size)
    meet &= b_there[:, None] & a_there[None, :]
    # A row of a matrix goes to or comes from four lanes, whose own lane that is does not matter.
    if "matrix" in first.ins.opcode:
        meet = np.broadcast_to(meet.any(axis=1)[:, None], meet.shape).copy()
    if "matrix" in second.ins.opcode:
        meet = np.broadcast_to(meet.any(axis=0)[None, :], meet.shape).copy()
    np.fill_diagonal(meet, False)
    return meet


def _words(access: Access, lanes: int) -> NDArray[np.int64]:
    """Words that these lanes of an access touch."""
    starts, _ = _starts(access)
    size = max(access.facts["element"] // WORD, 1)
    return (starts[lane_array(lanes)][:, None] // WORD + np.arange(size)).reshape(-1)
