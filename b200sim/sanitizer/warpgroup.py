"""wgmma: reads of shared memory that begin when a warp issues them and end when a wait_group covers them.

A wgmma.mma_async reads through the async proxy (PTX ISA 9.7.15.4). Each of its four warps issues it, so what
it reads must be ordered before each of them. It is one operation of the warpgroup: whichever warp waits for
it knows that all of it is over (9.7.15.7.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from b200sim.faults import Fault
from b200sim.machine.observer import WarpgroupWork
from b200sim.sanitizer.clocks import MEMORY
from b200sim.sanitizer.tensor_core import TensorCoreEvents, place_of
from b200sim.tensor_core.descriptors import SmemDescriptor

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp
    from b200sim.ptx.syntax import Instruction
    from b200sim.sanitizer.state import ClusterState


class WarpgroupEvents(TensorCoreEvents):
    def wgmma_issued(self, warp: Warp, ins: Instruction, detail: WarpgroupWork) -> None:
        state, ws = self.of(warp)
        self.settle_loads(ws, ins)
        target, slot = state.ctas[warp.cta], _slot(state, warp)
        ws.now = state.agents.wide(ws.now)  # the slot may be a new one
        places = self.places.get(detail.key)
        if places is None:
            try:
                places = [place_of(touch) for touch in detail.touches()]
            except Fault:
                return  # an illegal descriptor: the operation itself faults
            self.places[detail.key] = places
        for place in places:
            operand = place.touch.operand
            access = self.access(
                "wgmma", warp, ins, slot, detail.number, operand=operand, start=place.start, size=place.size
            )
            if place.start + place.size > len(warp.cta.smem):
                return  # faults
            self.read_shared(state, ws, access, target, place.where, ws.now[MEMORY])
            span = SmemDescriptor.decode_wgmma(detail.descriptors[operand]).swizzle
            self.check_swizzle(target, access, place, span)

    def wgmma_passed(self, warp: Warp, ins: Instruction, number: int) -> None:
        state, ws = self.of(warp)
        ws.now = state.agents.knowing(ws.now, _slot(state, warp), number)


def _slot(state: ClusterState, warp: Warp) -> int:
    return state.agents.slot("wgmma", warp.cta.rank, warp.index // 4)
