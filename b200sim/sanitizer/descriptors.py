"""Tensor maps that the kernel itself rewrites (PTX ISA 9.7.9.28, 9.7.13.4, 9.7.9.27.2.2, 9.7.9.25.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from b200sim.machine.observer import TensorLoad, TensorStore
from b200sim.sanitizer.clocks import EXECUTION, MEMORY
from b200sim.sanitizer.records import Access
from b200sim.sanitizer.state import ClusterState, WarpState
from b200sim.sanitizer.sync import SyncEvents

if TYPE_CHECKING:
    from b200sim.machine.asynchronous import AsyncOperation
    from b200sim.machine.cta import Cta
    from b200sim.machine.warp import Warp
    from b200sim.ptx.syntax import Instruction


@dataclass
class MapState:
    """A tensor map at an address: its last rewrite, who has acquired that, and its uses per cluster."""

    version: int = 0
    rewrite: Access | None = None
    rewriter: WarpState | None = None
    acquired: dict[Cta, int] = field(default_factory=dict)  # CTA -> version
    uses: dict[int, tuple[Access, int, int]] = field(
        default_factory=dict
    )  # slot -> use, bulk slot and number
    users: dict[int, WarpState] = field(default_factory=dict)


class DescriptorEvents(SyncEvents):
    maps: dict[int, MapState]

    def tensor_name(self, detail: TensorLoad | TensorStore) -> str:
        allocation = self.grid.memory.find(detail.tensor_map.address)
        return allocation.name if allocation is not None else f"{detail.tensor_map.address:#x}"

    def descriptor_used(
        self,
        state: ClusterState,
        ws: WarpState,
        operation: AsyncOperation,
        address: int,
        bulk: tuple[int, int] | None = None,
    ) -> None:
        """A copy reads its map some time after it was issued. `bulk` is a store's epoch; a load counts as a
        bulk copy of its thread as well, as far as reading the map goes."""
        ins, warp = operation.ins, ws.warp
        assert ins is not None
        found = self.maps.setdefault(address, MapState())
        if found.version:
            self._check_fresh(state, ws, operation, found)
        barriers = self.pending_barriers(operation)
        slot, clock = bulk or (barriers[0] if barriers else (0, 0))
        if bulk is None:
            copy = state.agents.slot("bulk", warp.cta.rank, warp.index, operation.thread)
            number = ws.copies[copy] = ws.copies.get(copy, 0) + 1
            ws.open_copies.append((1 << operation.thread, copy, number))
            bulk = copy, number
        access = self.access(operation.kind, warp, ins, slot, clock, lane=operation.thread, space="global")
        access.start, access.size = address, 128
        found.uses[slot] = access, *bulk
        found.users[slot] = ws

    def pending_barriers(self, operation: AsyncOperation) -> list[tuple[int, int]]:
        raise NotImplementedError

    def _check_fresh(
        self, state: ClusterState, ws: WarpState, operation: AsyncOperation, found: MapState
    ) -> None:
        rewrite, rewriter = found.rewrite, found.rewriter
        assert rewrite is not None and rewriter is not None and operation.ins is not None
        same = rewriter.agents is ws.agents
        known = not same or state.agents.wide(ws.now)[MEMORY, rewrite.slot] >= rewrite.clock
        if known and found.acquired.get(ws.warp.cta) == found.version:
            return
        missing = "order after" if not known else "fence.proxy.tensormap::generic.acquire after"
        self.report(
            "tensor_map_stale",
            f"{operation.ins.mnemonic} uses a tensor map without {missing} its rewrite",
            first=rewrite,
            second=self.access("ld", ws.warp, operation.ins, 0, 0, lane=operation.thread, space="global"),
            edge=f"{missing} the rewrite, in {ws.warp.cta.name}, before the copy is issued",
        )

    def descriptors_read(self, state: ClusterState, ws: WarpState, lanes: int, allowed: int) -> None:
        """wait_group covers map reads through the copies' own epochs; nothing more to do."""

    def tensor_map_edited(self, warp: Warp, ins: Instruction, address: int) -> None:
        state, ws = self.of(warp)
        ws.now = state.agents.wide(ws.now)
        found = self.maps.setdefault(address, MapState())
        access = self.access("st", warp, ins, ws.slot, ws.clock, space="global")
        access.start, access.size = address, 128
        known = ws.now[EXECUTION]
        for slot, (use, copy, number) in list(found.uses.items()):
            if found.users[slot].agents is not ws.agents:
                continue
            if known[slot] >= use.clock or known[copy] >= number:
                continue
            self.report(
                "tensor_map_in_use",
                "a tensor map is rewritten while a copy may still read it",
                first=use,
                second=access,
                edge="cp.async.bulk.wait_group.read by the issuing thread, or its mbarrier, comes first",
            )
        found.uses.clear()
        found.version += 1
        found.rewrite, found.rewriter = access, ws
        ws.tick()

    def tensor_map_acquired(self, warp: Warp, ins: Instruction, address: int) -> None:
        found = self.maps.get(address)
        if found is not None:
            found.acquired[warp.cta] = found.version
