"""Accesses by threads: shared memory, global memory, tensor memory loads and stores, fences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from b200sim.sanitizer import static
from b200sim.sanitizer.clocks import EXECUTION, MEMORY
from b200sim.sanitizer.lanes import LaneEvents
from b200sim.sanitizer.locations import Act
from b200sim.sanitizer.records import Access
from b200sim.sanitizer.scopes import order_of
from b200sim.sanitizer.shadow import rectangle, words
from b200sim.sanitizer.state import ClusterState, WarpState
from b200sim.sanitizer.values import Written

if TYPE_CHECKING:
    from b200sim.machine.cta import Cta
    from b200sim.machine.observer import Rectangle
    from b200sim.machine.warp import Warp
    from b200sim.ptx.syntax import Instruction

KINDS = {"read": "ld", "write": "st", "atomic": "atomic", "edit": "edit"}


class ThreadEvents(LaneEvents):
    flags_in_shared = False  # a strong access of shared memory was seen

    # -- shared memory --------------------------------------------------------------------------------

    def shared_access(
        self, warp: Warp, ins: Instruction, cta: Cta, offsets: int | np.ndarray, nbytes: int, kind: str
    ) -> None:
        state, ws = self.of(warp)
        ws.now = state.agents.wide(ws.now)
        shadow = state.ctas[cta].shared
        where: Any
        if isinstance(offsets, np.ndarray):
            offsets = offsets.astype(np.int64)
            start, size = int(offsets.min()), int(offsets.max()) + nbytes - int(offsets.min())
            where = (
                offsets >> 2 if nbytes <= 4 else (offsets[:, None] // 4 + np.arange(nbytes // 4)).reshape(-1)
            )
        else:
            start, size = offsets, nbytes
            where = words(offsets, nbytes)
        access = self.access(
            KINDS[kind], warp, ins, ws.slot, ws.clock, cta=cta, start=start, size=size, offsets=offsets
        )
        access.facts["element"] = nbytes
        number = self.keep(access)
        known = ws.now[MEMORY]
        if cta is warp.cta:
            self.lanes_access(ws, shadow, where, number, access)
        self.conflicts(state, shadow.unordered_writes(where, known), access)
        if kind in ("read", "atomic"):
            if not self._valid(shadow, where, offsets, nbytes):
                access.facts["early"] = True
                self.undefined_shared(warp, ins, shadow, offsets, nbytes, access)
            self.elements += 1
        elif self.writing is not None:
            self.writing.append(Written(warp.mask, shadow, offsets, nbytes))
        if kind == "read":
            shadow.read(where, ws.slot, access.clock, number)
        else:
            self.conflicts(state, shadow.unordered_reads(where, known), access)
            shadow.write(where, ws.slot, access.clock, number)
            if kind != "edit":
                self._mark_valid(shadow, where, offsets, nbytes)
            self.check_barrier_words(state.ctas[cta], where, access)
        if cta is not warp.cta:
            state.ctas[cta].users[ws.slot] = access
        self._meet(ws, access, cta, offsets, kind)

    def _meet(self, ws: WarpState, access: Access, cta: Cta, offsets: int | np.ndarray, kind: str) -> None:
        """Strong accesses order threads through shared memory as well (PTX ISA 8.8)."""
        order = order_of(access.ins)
        if not (order.strong or (kind == "write" and self.flags_in_shared)):
            return
        places = [(cta, offset) for offset in np.unique(offsets).tolist()]
        if order.strong:
            self.flags_in_shared = True
            size = access.facts["element"]
            act = Act(ws, access.ins, ws.slot, access.clock, order, access.kind, size, kind != "read")
            for place in places:
                self._strong(act, place, kind)
        else:
            for place in places:
                self.locations.overwritten(place)

    def _valid(self, shadow, where, offsets, nbytes) -> bool:  # type: ignore[no-untyped-def]
        if nbytes % 4:
            return bool(shadow.valid[np.asarray(offsets).reshape(-1, 1) + np.arange(nbytes)].all())
        return not shadow.uninitialised(where)

    def _mark_valid(self, shadow, where, offsets, nbytes) -> None:  # type: ignore[no-untyped-def]
        if nbytes % 4:
            shadow.valid[np.asarray(offsets).reshape(-1, 1) + np.arange(nbytes)] = True
        else:
            shadow.valid_words[where] = 0x01010101

    def check_barrier_words(self, cta_state, where, access) -> None:  # type: ignore[no-untyped-def]
        if cta_state.barrier_words is not None and cta_state.barrier_words[where].any():
            self.report(
                "mbarrier_overwritten",
                f"{access.name()} writes {access.place()}, which holds an mbarrier",
                second=access,
            )

    # -- tensor memory --------------------------------------------------------------------------------

    def tensor_access(self, warp: Warp, ins: Instruction, rectangles: Sequence[Rectangle], kind: str) -> None:
        state, ws = self.of(warp)
        reads = kind == "read"
        if not reads:
            self.settle_loads(ws, ins)
        ws.now = state.agents.wide(ws.now)
        self.note_fence(ws, ins)
        shadow = state.ctas[warp.cta].tensor
        if reads:
            ws.loads += 1
            ws.pending_loads.append((ws.loads, ins))
            slot, clock = ws.loads_slot, ws.loads
        else:
            ws.stores += 1
            slot, clock = ws.stores_slot, ws.stores
        known = ws.now[EXECUTION]
        undefined: Access | None = None
        for bounds in rectangles:
            where = rectangle(*bounds)
            access = self.access(f"tmem {'ld' if reads else 'st'}", warp, ins, slot, clock, space="tensor")
            access.facts["rectangle"] = bounds
            access.start, access.size = bounds[2:]
            number = self.keep(access)
            self.conflicts(state, shadow.unordered_writes(where, known), access)
            if reads:
                undefined = access if undefined is None and not shadow.all_defined(where) else undefined
                access.facts["early"] = undefined is not None and not shadow.valid[where].any()
                shadow.read(where, slot, clock, number)
            else:
                self.conflicts(state, shadow.unordered_reads(where, known), access)
                shadow.write(where, slot, clock, number)
                shadow.define(where)
        if undefined is not None:
            self.undefined_tensor(ins, rectangles, shadow, undefined)
        if not reads and self.writing is not None:
            self.writing.append(Written(warp.mask, tensor=shadow, bounds=rectangles))

    def settle_loads(self, ws: WarpState, ins: Instruction) -> None:
        """Loads without wait::ld count as complete once their registers were consumed (a note)."""
        while ws.pending_loads:
            number, load = ws.pending_loads[0]
            if static.of(self.grid.program).still_unread(load, ins):
                return
            ws.pending_loads.pop(0)
            ws.now = ws.agents.knowing(ws.now, ws.loads_slot, number)
            if self.once("wait_ld", load.line):
                self.report(
                    "wait_ld_missing",
                    "no tcgen05.wait::ld after this load; reading its registers orders it",
                    first=self.access("tmem ld", ws.warp, load, ws.loads_slot, number, space="tensor"),
                )

    def note_fence(self, ws: WarpState, ins: Instruction) -> None:
        if not ws.fenced_after and self.once("tcgen05 fence", ins.modifiers[0], ws.warp.index):
            self.report(
                "tcgen05_fence_missing",
                f"{ins.mnemonic} after a synchronisation without tcgen05.fence::after_thread_sync",
                second=self.access("tcgen05", ws.warp, ins, ws.slot, ws.clock, space="none"),
            )

    # -- fences ---------------------------------------------------------------------------------------

    def fence(self, warp: Warp, ins: Instruction) -> None:
        state, ws = self.of(warp)
        if ins.opcode == "tcgen05":
            self._tensor_fence(state, ws, ins)
        elif ins.opcode == "griddepcontrol":
            if ins.has("wait"):
                ws.now = state.agents.knowing(ws.now, state.dependency_slot, 1)
        elif ins.has("mbarrier_init"):
            for barrier in state.barriers.values():
                if barrier.init is not None and barrier.init.slot == ws.slot:
                    barrier.init_fenced = True
        elif ins.has("proxy"):
            self.global_fence(ws, ins)
            if ins.has("global"):
                ws.tick()
            elif ins.has("async") or ins.has("async::generic"):
                ws.proxy_fence()
        else:
            self.global_fence(ws, ins)
            ws.memory_fence()

    def _tensor_fence(self, state: ClusterState, ws: WarpState, ins: Instruction) -> None:
        agents = state.agents
        if ins.has("wait::ld"):
            ws.now = agents.knowing(ws.now, ws.loads_slot, ws.loads)
            ws.pending_loads.clear()
        elif ins.has("wait::st"):
            ws.now = agents.knowing(ws.now, ws.stores_slot, ws.stores)
        elif ins.has("fence::before_thread_sync"):
            for (warp, _), pipe in state.pipes.items():
                if warp is ws.warp:
                    ws.now = agents.knowing(ws.now, pipe.ordered_slot, pipe.issued)
        else:
            ws.fenced_after = True
