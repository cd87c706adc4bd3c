"""Release and acquire patterns through locations of memory (PTX ISA 8.8, 8.9.2, 8.9.4).

A strong write publishes what its thread knew at a release: its own, or a release fence before it. A strong
read that reads from that write, or from a chain of atomic operations after it, acquires, at once or with
the acquire fence that follows it. Two threads meet only if the scopes on both sides include them.
fence.sc is no more than fence.acq_rel here: the order among fences of one run may be another in the next.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from b200sim.sanitizer import outside, scopes
from b200sim.sanitizer.clocks import EXECUTION, MEMORY, Knowledge
from b200sim.sanitizer.scopes import Order, order_of

if TYPE_CHECKING:
    from b200sim.ptx.syntax import Instruction
    from b200sim.sanitizer.outside import Far
    from b200sim.sanitizer.state import WarpState


@dataclass(eq=False)
class Act:
    """One side of a meeting in global memory: by whom, with which instruction, as which epoch (slot, clock).

    size: bytes of an element, which is what a memory operation is for the memory model (8.2.4). `proxy`: by
    the async proxy. `deferred`: it may happen after instructions that follow it. `also`: epochs that stand
    for its completion too, for a load into several CTAs.
    """

    ws: WarpState
    ins: Instruction
    slot: int
    clock: int
    order: Order
    kind: str
    size: int
    writes: bool
    proxy: bool = False
    deferred: bool = False
    lane: int | None = None
    also: tuple[tuple[int, int], ...] = ()
    reduction: str | None = None


@dataclass(eq=False)
class Release:
    """The first operation of a release pattern and what it hands on."""

    ws: WarpState
    ins: Instruction
    scope: int
    knowledge: Knowledge
    on_location: bool  # a release operation on the location itself, not a fence
    _far: dict[bool, Far] = field(default_factory=dict)

    def far(self, narrow: bool = False) -> Far:
        if narrow not in self._far:
            self._far[narrow] = outside.flatten(self.ws.agents, self.knowledge, narrow)
        return self._far[narrow]


Address = Hashable  # of global memory a number, of shared memory (CTA, offset)
Releases = dict[Any, tuple[Release, str]]  # with why it is lost; "" if it is not


class Location:
    """A location that somebody released at: what a read of it meets now."""

    def __init__(self) -> None:
        self.last: Act | None = None  # the last write; None if it was weak
        self.releases: Releases = {}
        self.version = 0


class Thread:
    """What a warp has released by fences, and what it has read and not yet acquired."""

    def __init__(self) -> None:
        self.fences: dict[int, Release] = {}  # by scope, wider ones are newer
        self.unacquired: Releases = {}
        self.seen: dict[tuple[Address, bool], int] = {}  # (address, by an acquire) -> version


def strong_pair(a: Act, b: Act) -> bool:
    """Morally strong (PTX ISA 8.7), but for program order."""
    return may_meet(a, b) and not scopes.too_narrow(
        a.ws.warp.cta, a.order.scope, b.ws.warp.cta, b.order.scope
    )


def may_meet(a: Act, b: Act) -> bool:
    """Morally strong if only their scopes are wide enough."""
    return a.order.strong and b.order.strong and a.proxy == b.proxy and a.size == b.size


class Locations:
    def __init__(self) -> None:
        self.places: dict[Address, Location] = {}
        self.threads: dict[WarpState, Thread] = {}

    def thread(self, ws: WarpState) -> Thread:
        thread = self.threads.get(ws)
        if thread is None:
            thread = self.threads[ws] = Thread()
        return thread

    # -- fences ---------------------------------------------------------------------------------------

    def fenced(self, ws: WarpState, ins: Instruction) -> None:
        """fence.{acq_rel, sc, acquire, release}.scope: before later accesses get a new epoch."""
        order, thread = order_of(ins), self.thread(ws)
        if order.acquire and thread.unacquired:
            self._acquire(ws, ins, order.scope, thread.unacquired)
            thread.unacquired = _left_over(thread.unacquired, ws, order.scope)
        if order.release:
            release = Release(ws, ins, order.scope, ws.now, on_location=False)
            wider = {scope: older for scope, older in thread.fences.items() if scope > order.scope}
            thread.fences = {**wider, order.scope: release}

    # -- accesses -------------------------------------------------------------------------------------

    def read(self, act: Act, address: Address) -> None:
        """A strong read, alone or as the first half of an atomic operation."""
        place = self.places.get(address)
        if place is None or place.last is None:
            return
        thread, acquires = self.thread(act.ws), act.order.acquire
        if thread.seen.get((address, acquires)) == place.version:
            return
        thread.seen[address, acquires] = place.version
        met = place.releases
        if not strong_pair(place.last, act):
            if not may_meet(place.last, act):
                return
            why = self._why(place.last.ws, place.last.ins, place.last.order.scope, act)
            met = {key: (release, lost or why) for key, (release, lost) in met.items()}
        met = {key: entry for key, entry in met.items() if entry[0].ws is not act.ws}
        if acquires:
            self._acquire(act.ws, act.ins, act.order.scope, met)
            for key in met:
                thread.unacquired.pop((address, key), None)
            met = _left_over(met, act.ws, act.order.scope)
        if act.ins.opcode != "red":  # PTX ISA 8.8: its read forms no acquire pattern
            thread.unacquired.update({(address, key): entry for key, entry in met.items()})

    def wrote(self, act: Act, address: Address, atomic: bool) -> None:
        """A strong write, alone or as the second half of an atomic operation."""
        place, own = self.places.get(address), self._patterns(act)
        if place is None:
            if own:
                place = self.places[address] = Location()
            else:
                self._tick(act)
                return
        if not atomic:  # PTX ISA 8.8: a store after a release on the same location, by the same thread
            kept = {k: e for k, e in place.releases.items() if e[0].ws is act.ws and e[0].on_location}
        elif place.last is None or strong_pair(place.last, act):
            kept = place.releases if place.last is not None else {}
        else:
            why = self._why(place.last.ws, place.last.ins, place.last.order.scope, act)
            kept = {key: (release, lost or why) for key, (release, lost) in place.releases.items()}
            if not may_meet(place.last, act):
                kept = {}
        place.releases = {**kept, **own}
        place.last = act
        place.version += 1
        self._tick(act)

    def overwritten(self, address: Address) -> None:
        """A weak write: who reads it synchronises with nobody."""
        place = self.places.get(address)
        if place is not None:
            place.last, place.releases = None, {}
            place.version += 1

    def released_by(self, ws: WarpState, address: Address) -> bool:
        place = self.places.get(address)
        return place is not None and any(release.ws is ws for release, _ in place.releases.values())

    def acquired(self, read: Act, by: WarpState, address: Address) -> bool:
        """Whether the reader has acquired all that it saw there of this warp's releases."""
        waiting = self.thread(read.ws).unacquired
        pending = any(where == address and release.ws is by for (where, _), (release, _) in waiting.items())
        return not pending and read.ins.opcode != "red"

    # -- inside ---------------------------------------------------------------------------------------

    def _patterns(self, act: Act) -> Releases:
        """The release patterns that end with this write."""
        own: Releases = {}
        if act.order.release:
            release = Release(act.ws, act.ins, act.order.scope, act.ws.now, on_location=True)
            own[act.ws, True, act.order.scope] = release, ""
        thread = self.threads.get(act.ws)
        for scope, release in thread.fences.items() if thread else ():
            if not act.order.release or scope > act.order.scope:
                own[act.ws, False, scope] = release, ""
        return own

    @staticmethod
    def _tick(act: Act) -> None:
        if act.order.release:
            act.ws.tick()

    def _acquire(self, ws: WarpState, ins: Instruction, scope: int, met: Releases) -> None:
        """The last operation of an acquire pattern, after reads that met these releases."""
        known = outside.history_of(ws, "imports", {}).entries[-1]
        far, narrow = known, []
        for release, lost in met.values():
            if lost or _too_narrow(release, ws, scope):
                narrow.append(
                    (release, lost or self._why(release.ws, release.ins, release.scope, (ws, ins, scope)))
                )
            elif release.ws.agents is ws.agents:
                ws.learn(release.knowledge)
            else:
                far = outside.merge(far, release.far())
        if any(entry is not known.get(agents) for agents, entry in far.items()):
            mine = far.get(ws.agents)
            if mine is not None:
                ws.now = _with_visible(ws, mine[outside.VISIBLE])
            outside.history_of(ws, "imports", {}).add(ws, far)
        for release, why in narrow:
            history = outside.history_of(ws, "narrow", {})
            before = history.entries[-1]
            after = outside.merge(before, release.far(narrow=True))
            if any(entry is not before.get(agents) for agents, entry in after.items()):
                history.add(ws, after, why)

    @staticmethod
    def _why(
        ws: WarpState, ins: Instruction, scope: int, other: Act | tuple[WarpState, Instruction, int]
    ) -> str:
        """Which of two operations leaves the other's thread out of its scope."""
        if isinstance(other, Act):
            other = other.ws, other.ins, other.order.scope
        need = scopes.needed(ws.warp.cta, other[0].warp.cta)
        sides = [
            f"{i.mnemonic} of {w.warp.name} (PTX line {i.line}) has scope {scopes.NAMES[s]}"
            for w, i, s in ((ws, ins, scope), other)
            if s < need
        ]
        return f"{' and '.join(sides)}; {scopes.NAMES[need]} or wider would include both threads"


def _too_narrow(release: Release, ws: WarpState, scope: int) -> bool:
    return scopes.too_narrow(release.ws.warp.cta, release.scope, ws.warp.cta, scope)


def _left_over(met: Releases, ws: WarpState, scope: int) -> Releases:
    """What an acquire of this scope does not get."""
    return {
        key: (release, lost)
        for key, (release, lost) in met.items()
        if lost or _too_narrow(release, ws, scope)
    }


def _with_visible(ws: WarpState, row: np.ndarray) -> Knowledge:
    """What the warp knows, and what it learns about its own cluster by way of another one."""
    new = ws.agents.wide(ws.now).copy()
    for kind in (MEMORY, EXECUTION):
        np.maximum(new[kind, : len(row)], row, out=new[kind, : len(row)])
    return new
