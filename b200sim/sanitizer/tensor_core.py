"""tcgen05.mma, cp and shift, and tensor memory's allocator (PTX ISA 9.7.16.6, 9.7.16.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from b200sim.faults import Fault
from b200sim.machine.observer import TensorCoreWork
from b200sim.sanitizer.async_shared import AsyncShared
from b200sim.sanitizer.clocks import EXECUTION, MEMORY, NEVER
from b200sim.sanitizer.records import Access
from b200sim.sanitizer.shadow import rectangle, words_of_chunks
from b200sim.sanitizer.state import ClusterState, CtaState, Pipe, WarpState
from b200sim.tensor_core.descriptors import SmemDescriptor

if TYPE_CHECKING:
    from b200sim.machine.asynchronous import AsyncOperation
    from b200sim.machine.warp import Warp
    from b200sim.ptx.syntax import Instruction
    from b200sim.tensor_core.touch import Touch


@dataclass(frozen=True)
class Place:
    """One operand of an operation, ready for the shadow memories."""

    touch: Touch
    where: Any
    start: int
    size: int


class TensorCoreEvents(AsyncShared):
    places: dict[tuple[object, ...], list[Place]]

    def tensor_work(
        self, state: ClusterState, ws: WarpState, operation: AsyncOperation, detail: TensorCoreWork
    ) -> None:
        ins = operation.ins
        assert ins is not None
        kind = operation.kind.removeprefix("tcgen05.")
        pipe = state.pipe(ws.warp, operation.thread)
        ws.now = state.agents.wide(ws.now)
        self.note_fence(ws, ins)
        pipe.issued += 1
        self._refresh(pipe, ws)
        try:
            places = self._places(detail)
        except Fault:
            return  # illegal descriptors: the operation itself faults
        pipe.last = self.access(kind, ws.warp, ins, pipe.slot, pipe.issued, lane=operation.thread)
        for place in places:
            cta = detail.ctas[place.touch.cta]
            access = Access(**{**vars(pipe.last), "facts": {}})
            access.cta, access.operand, access.space = cta.name, place.touch.operand, place.touch.space
            access.start, access.size = place.start, place.size
            if place.touch.space == "shared":
                self._operand(state, ws, pipe, access, state.ctas[cta], place, detail)
            else:
                self._cells(state, pipe, access, state.ctas[cta], place)

    def _refresh(self, pipe: Pipe, ws: WarpState) -> None:
        """The rows to compare with: what the issuer knows, and everything earlier in this pipe."""
        if pipe.seen is ws.now:
            return
        pipe.seen = ws.now
        pipe.memory = ws.now[MEMORY].copy()
        pipe.execution = ws.now[EXECUTION].copy()
        pipe.memory[pipe.slot] = pipe.execution[pipe.slot] = NEVER

    def _places(self, detail: TensorCoreWork) -> list[Place]:
        places = self.places.get(detail.key)
        if places is None:
            places = self.places[detail.key] = [place_of(touch) for touch in detail.touches()]
        return places

    def _operand(
        self,
        state: ClusterState,
        ws: WarpState,
        pipe: Pipe,
        access: Access,
        target: CtaState,
        place: Place,
        detail: TensorCoreWork,
    ) -> None:
        if place.start + place.size > len(target.cta.smem):
            return
        self.read_shared(state, ws, access, target, place.where, pipe.memory)
        descriptor = detail.descriptors.get(access.operand)
        if descriptor is not None:
            self.check_swizzle(target, access, place, SmemDescriptor.decode(descriptor).swizzle)

    def check_swizzle(self, target: CtaState, access: Access, place: Place, used: int) -> None:
        """Tensor map and operand descriptor must swizzle alike (PTX ISA 5.5.7, 9.7.16.4.1)."""
        number = int(target.shared.written_by[place.where[0]])
        fill = self.accesses[number]
        if fill is None or "swizzle" not in fill.facts:
            return
        span = fill.facts["swizzle"]
        if span != used and self.once("swizzle", access.ins.line, access.operand):
            self.report(
                "swizzle_mismatch",
                f"{access.operand} is read with swizzle {used or 'none'} but was loaded with {span or 0}",
                first=fill,
                second=access,
                link="read with another swizzle",
            )
        if span and access.start % (8 * span) and fill.start % (8 * span) and self.once("atom"):
            self.report(
                "swizzle_atom_misaligned",
                f"the tile at {fill.start:#x} starts inside a swizzle atom of {8 * span} bytes",
                first=fill,
                second=access,
            )

    def _cells(self, state: ClusterState, pipe: Pipe, access: Access, target: CtaState, place: Place) -> None:
        touch, shadow = place.touch, target.tensor
        access.facts["rectangle"] = (touch.lane, touch.lanes, touch.column, touch.columns)
        number = self.keep(access)
        for freed in target.freed:
            if touch.column < freed.start + freed.size and freed.start < touch.column + touch.columns:
                self.report(
                    "tmem_freed_in_use",
                    f"{access.name()} uses tensor memory that was deallocated before",
                    first=freed,
                    second=access,
                    edge=f"a barrier that keeps {freed.who} from deallocating until the others are done",
                )
        late = shadow.unordered_writes(place.where, pipe.execution)  # type: ignore[arg-type]
        if touch.write:
            late += shadow.unordered_reads(place.where, pipe.execution)  # type: ignore[arg-type]
        if late:
            self.conflicts(state, late, access)
        if touch.write:
            shadow.write(place.where, access.slot, access.clock, number)
            shadow.define(place.where)
        else:
            if not shadow.all_defined(place.where):
                what = "accumulates onto" if touch.operand == "D" else f"reads {touch.operand} from"
                self.report(
                    "uninitialised_tensor_memory",
                    f"{access.name()} {what} tensor memory that nobody wrote",
                    second=access,
                )
            shadow.read(place.where, access.slot, access.clock, number)
        target.users[access.slot] = access

    def check_scales(self, operation: AsyncOperation, detail: TensorCoreWork) -> None:
        """UE4M3 scale factors have no sign, bit 7 is ignored (PTX ISA 5.2.3). Seen when it happens.

        Of zero (0x80) and NaN (0xFF) the sign makes no difference."""
        ins = operation.ins
        if ins is None or not ins.has("kind::mxf4nvf4") or ("sign", ins.line) in self._told:
            return
        for place in self.places.get(detail.key, ()):
            touch = place.touch
            if touch.operand not in ("SFA", "SFB"):
                continue
            cells = detail.ctas[touch.cta].tmem.cells[:, touch.column : touch.column + touch.columns]
            if (cells & np.uint32(0x80808080)).any() and _negative(cells) and self.once("sign", ins.line):
                self.report(
                    "scale_factor_sign",
                    f"{touch.operand} has negative scale factors; they count as positive",
                    second=self.access(
                        "mma", operation.issuer, ins, 0, 0, lane=operation.thread, space="none"
                    ),
                )

    # -- allocation -----------------------------------------------------------------------------------

    def tensor_allocated(
        self, warp: Warp, ins: Instruction, column: int, columns: int, destination: int
    ) -> None:
        state, ws = self.of(warp)
        target = state.ctas[warp.cta]
        self._begin_columns(state, warp, ins, column, columns)
        target.freed = [a for a in target.freed if a.start + a.size <= column or a.start >= column + columns]
        self.shared_access(warp, ins, warp.cta, destination, 4, "write")
        target.allocation[column] = self.access("alloc", warp, ins, ws.slot, ws.clock, space="tensor")
        target.allocation[column].size = columns
        self._check_residency(warp, ins, sum(a.size for a in target.allocation.values()), target)

    def _begin_columns(
        self, state: ClusterState, warp: Warp, ins: Instruction, column: int, columns: int
    ) -> None:
        """Nobody has used these columns yet. A pair of CTAs allocates together (PTX ISA 9.7.16.7.1): once the
        first of them has, operations of the pair may already be at work in both."""
        ctas = [warp.cta]
        if ins.has("cta_group::2"):
            peer = next((cta for cta in state.ctas if cta.rank == warp.cta.rank ^ 1), None)
            if peer is not None:
                if column in state.ctas[peer].allocation:
                    return
                ctas.append(peer)
        where = rectangle(0, 128, column, columns)
        for cta in ctas:
            state.ctas[cta].tensor.forget(where)
            state.ctas[cta].tensor.valid[where] = False

    def _check_residency(self, warp: Warp, ins: Instruction, columns: int, target: CtaState) -> None:
        """PTX ISA 9.7.16.7.1: CTAs that share an SM share its 512 columns."""
        grid = self.grid
        shared = grid.shared_end - 0x400
        resident = min(228 * 1024 // (shared + 1024), 2048 // max(grid.threads_per_cta, 1), 32)
        target.shares_sm = resident > 1
        if resident > 1 and columns * 2 > 512 and self.once("contention"):
            self.report(
                "tmem_contention",
                f"{columns} columns per CTA, and {resident} CTAs fit on an SM by shared memory: the second "
                "waits in tcgen05.alloc until the first one frees",
                second=self.access("alloc", warp, ins, 0, 0, space="tensor"),
            )

    def tensor_freed(self, warp: Warp, ins: Instruction, column: int, columns: int) -> None:
        state, ws = self.of(warp)
        self.settle_loads(ws, ins)
        ws.now = state.agents.wide(ws.now)
        target = state.ctas[warp.cta]
        bounds = (0, 128, column, columns)
        access = self.access("dealloc", warp, ins, ws.slot, ws.clock, space="tensor")
        access.facts["rectangle"] = bounds
        where, known = rectangle(*bounds), ws.now[EXECUTION]
        late = target.tensor.unordered_writes(where, known) + target.tensor.unordered_reads(where, known)
        self.conflicts(state, late, access)
        target.tensor.forget(where)
        target.tensor.valid[where] = False
        target.allocation.pop(column, None)
        access.start, access.size = column, columns
        target.freed.append(access)

    def relinquished(self, warp: Warp, ins: Instruction) -> None:
        self.of(warp)[0].ctas[warp.cta].relinquished = True


def _negative(cells: Any) -> bool:
    """Whether a byte is negative as e4m3, and neither minus zero nor NaN."""
    codes = np.ascontiguousarray(cells).view(np.uint8)
    return bool(((codes > 0x80) & (codes < 0xFF)).any())


def place_of(touch: Touch) -> Place:
    """An operand of an operation, as the shadow memories address it."""
    if touch.space == "shared":
        chunks = np.sort(touch.chunks.reshape(-1))
        return Place(touch, words_of_chunks(chunks), touch.start, touch.size)
    bounds = (touch.lane, touch.lanes, touch.column, touch.columns)
    return Place(touch, rectangle(*bounds), touch.column, touch.columns)
