"""Asynchronous work: bulk copies, the tensor core, commits, cluster launch control.

An operation counts as an access from the moment it is issued, with what its issuer knew then; it is over for
whoever learns of its completion. Its order in this run is never asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from b200sim.faults import Unsupported
from b200sim.machine.observer import (
    BulkLoad,
    BulkStore,
    Commit,
    CopiesArrive,
    TensorCoreWork,
    TensorLoad,
    TensorStore,
    ThreadCopies,
    ThreadStore,
    TryCancel,
)
from b200sim.sanitizer.clocks import ASYNC, EXECUTION, MEMORY, Knowledge
from b200sim.sanitizer.descriptors import DescriptorEvents
from b200sim.sanitizer.global_shadow import Box, Run
from b200sim.sanitizer.records import Access
from b200sim.sanitizer.shadow import words
from b200sim.sanitizer.state import BarrierState, ClusterState, WarpState
from b200sim.sanitizer.warpgroup import WarpgroupEvents

if TYPE_CHECKING:
    from b200sim.machine.asynchronous import AsyncOperation
    from b200sim.machine.cta import Cta
    from b200sim.machine.warp import Warp
    from b200sim.ptx.syntax import Instruction

SPANS = {0: 0, 1: 32, 2: 64, 3: 128}  # swizzle mode of a tensor map -> bytes


class UnitEvents(WarpgroupEvents, DescriptorEvents):
    pending: dict[AsyncOperation, tuple[Knowledge, tuple[tuple[BarrierState, int], ...]]]

    def issued(self, operation: AsyncOperation) -> None:
        warp, ins, detail = operation.issuer, operation.ins, operation.detail
        assert ins is not None
        if detail is None:
            return  # a wgmma: its warps have told what they read
        state, ws = self.of(warp)
        self.settle_loads(ws, ins)
        ws.now = state.agents.wide(ws.now)
        if not isinstance(detail, (TensorStore, BulkStore, ThreadStore, ThreadCopies, CopiesArrive)):
            self._several_lanes(ws, ins, _same(detail))
        if isinstance(detail, (TensorLoad, BulkLoad)):
            self._load(state, ws, operation, detail)
        elif isinstance(detail, (TensorStore, BulkStore)):
            self._store(state, ws, operation, detail)
        elif isinstance(detail, TensorCoreWork):
            self.tensor_work(state, ws, operation, detail)
        elif isinstance(detail, Commit):
            self._commit(state, ws, operation, detail)
        elif isinstance(detail, TryCancel):
            self._try_cancel(state, ws, operation, detail)
        elif isinstance(detail, ThreadStore):
            self._thread_store(state, ws, operation, detail)
        elif isinstance(detail, ThreadCopies):
            self._thread_copies(state, ws, operation, detail)
        elif isinstance(detail, CopiesArrive):
            barrier = self.target(state, detail.target)
            if barrier is not None:
                given = _executed(state, ws.now)
                given[MEMORY, ws.copies_slot] = given[EXECUTION, ws.copies_slot] = ws.thread_copies
                self.pending[operation] = given, ((barrier, 0),)

    # -- loads ----------------------------------------------------------------------------------------

    def _signals(
        self, state: ClusterState, ws: WarpState, operation: AsyncOperation, targets: Any
    ) -> list[BarrierState | None]:
        """The mbarriers of a load per receiver, each with a number for this load."""
        assert operation.ins is not None
        found = [self.target(state, target) for target in targets]
        numbers: dict[int, tuple[BarrierState, int]] = {}
        for barrier in found:
            if barrier is not None and id(barrier) not in numbers:
                self.check_use(state, ws, operation.ins, barrier)
                barrier.loads += 1
                numbers[id(barrier)] = barrier, barrier.loads
        self.pending[operation] = _executed(state, ws.now), tuple(numbers.values())
        return found

    def _load(
        self, state: ClusterState, ws: WarpState, operation: AsyncOperation, detail: TensorLoad | BulkLoad
    ) -> None:
        ins, warp = operation.ins, ws.warp
        assert ins is not None
        facts: dict[str, Any] = {}
        if isinstance(detail, TensorLoad):
            kind, size = "tma load", _tile_bytes(detail)
            facts = {"tensor": self.tensor_name(detail), "swizzle": SPANS[int(detail.tensor_map.swizzle)]}
            facts["load"] = detail
        else:
            kind, size = "bulk load", detail.nbytes
        if kind == "tma load" or detail.address is not None:  # type: ignore[union-attr]
            self.check_dependency(state, ws, ins, operation.thread)
        if detail.offset + size > len(warp.cta.smem):
            return  # faults
        barriers = self._signals(state, ws, operation, detail.signals)
        epochs = [(barrier.slot, barrier.loads) for barrier in barriers if barrier is not None]
        if isinstance(detail, BulkLoad) and detail.source is not None:
            # Completion, which the mbarrier signals, is that of the reads too (PTX ISA 9.7.9.25.1).
            epoch = epochs[0] if epochs else None
            self._read_source(state, ws, operation, detail.source, size, "bulk store", warp.cta, epoch)
        if isinstance(detail, TensorLoad):
            self.loads_global(ws, operation, kind, epochs, Box(detail.tensor_map, detail.coords))
        elif detail.address is not None:
            self.loads_global(ws, operation, kind, epochs, Run(detail.address, detail.nbytes))
        for receiver, barrier in zip(detail.receivers, barriers, strict=True):
            if barrier is None:
                continue
            access = self.access(
                kind, warp, ins, barrier.slot, barrier.loads, lane=operation.thread, cta=receiver,
                start=detail.offset, size=size, barrier=barrier.name, facts=dict(facts),
            )  # fmt: skip
            fills = self.fills.setdefault((receiver.name, ins.line), {})
            fills[detail.offset] = max(size, fills.get(detail.offset, 0))
            self.write_shared(state, ws, access, receiver)
            barrier.arrivers[kind, ins.line] = warp.name
        if isinstance(detail, TensorLoad):
            self.descriptor_used(state, ws, operation, detail.map_address)

    def _thread_store(
        self, state: ClusterState, ws: WarpState, operation: AsyncOperation, detail: ThreadStore
    ) -> None:
        """st.async: a store through the generic proxy that is seen by whoever waits for its mbarrier."""
        assert operation.ins is not None
        if detail.reduction is not None:
            raise Unsupported(f"{operation.ins.mnemonic} under the sanitizer; the simulator alone runs it")
        (barrier,) = self._signals(state, ws, operation, [detail.signal])
        if barrier is not None:
            access = self.access(
                "st.async", ws.warp, operation.ins, barrier.slot, barrier.loads, lane=operation.thread,
                cta=detail.receiver, start=detail.offset, size=detail.nbytes, barrier=barrier.name,
            )  # fmt: skip
            self.write_shared(state, ws, access, detail.receiver)
            barrier.arrivers["st.async", operation.ins.line] = ws.warp.name

    # -- stores ---------------------------------------------------------------------------------------

    def _store(
        self, state: ClusterState, ws: WarpState, operation: AsyncOperation, detail: TensorStore | BulkStore
    ) -> None:
        ins, warp = operation.ins, ws.warp
        assert ins is not None
        self.check_dependency(state, ws, ins, operation.thread)
        if isinstance(detail, TensorStore):
            size = detail.tensor_map.shared_bytes
            kind = "tma store"
        else:
            size, kind = detail.nbytes, "bulk store"
        slot, number = self._read_source(state, ws, operation, detail.offset, size, kind, warp.cta)
        ws.open_copies.append((detail.lanes, slot, number))
        if isinstance(detail, TensorStore):
            span: Run | Box = Box(detail.tensor_map, detail.coords)
            self.descriptor_used(state, ws, operation, detail.map_address, (slot, number))
        else:
            span = Run(detail.address, detail.nbytes)
        self.stores_global(ws, operation, kind, number, span, detail.reduction)

    def _read_source(
        self,
        state: ClusterState,
        ws: WarpState,
        operation: AsyncOperation,
        offset: int,
        size: int,
        kind: str,
        cta: Cta,
        epoch: tuple[int, int] | None = None,
    ) -> tuple[int, int]:
        """An asynchronous read of the issuer's shared memory by a bulk copy, complete with `epoch`, or (None)
        with the next of this thread's bulk copies."""
        ins = operation.ins
        assert ins is not None
        if epoch is None:
            slot = state.agents.slot("bulk", cta.rank, ws.warp.index, operation.thread)
            ws.copies[slot] = ws.copies.get(slot, 0) + 1
            epoch = slot, ws.copies[slot]
        ws.now = state.agents.wide(ws.now)
        slot, number = epoch
        access = self.access(kind, ws.warp, ins, slot, number, lane=operation.thread, start=offset, size=size)
        if isinstance(operation.detail, TensorStore):
            access.facts.update(tensor=self.tensor_name(operation.detail), store=operation.detail)
        self.read_shared(state, ws, access, state.ctas[cta], words(offset, size), ws.now[MEMORY])
        return slot, number

    def bulk_commit(self, warp: Warp, ins: Instruction, lanes: int) -> None:
        _, ws = self.of(warp)
        mine = [(slot, number) for mask, slot, number in ws.open_copies if mask & lanes]
        ws.open_copies = [entry for entry in ws.open_copies if not entry[0] & lanes]
        ws.copy_groups.append((lanes, mine))
        if len(ws.copy_groups) > 64:
            ws.copy_groups.pop(0)

    def bulk_passed(self, warp: Warp, ins: Instruction, lanes: int, allowed: int, read: bool) -> None:
        """PTX ISA 9.7.9.27.2.2. With .read only the sources have been read."""
        state, ws = self.of(warp)
        groups = [group for mask, group in ws.copy_groups if mask & lanes]
        for group in groups[: len(groups) - allowed] if allowed else groups:
            for slot, number in group:
                ws.now = state.agents.knowing(ws.now, slot, number)
                if not read:
                    self.writes_over(ws, slot, number)
        self.descriptors_read(state, ws, lanes, allowed)

    # -- cp.async: generic writes that finish later (PTX ISA 9.7.9.25.3) -------------------------------

    def _thread_copies(
        self, state: ClusterState, ws: WarpState, operation: AsyncOperation, detail: ThreadCopies
    ) -> None:
        ins = operation.ins
        assert ins is not None
        self.check_dependency(state, ws, ins, None)
        ws.thread_copies += 1
        self.copies_read_global(ws, ins, detail)
        shadow = state.ctas[ws.warp.cta].shared
        where = (detail.offsets[:, None] // 4 + np.arange(detail.nbytes // 4)).reshape(-1)
        first = int(detail.offsets.min())
        access = self.access(
            "cp.async", ws.warp, ins, ws.copies_slot, ws.thread_copies, start=first,
            size=int(detail.offsets.max()) + detail.nbytes - first,
        )  # fmt: skip
        number, known = self.keep(access), ws.now[MEMORY]
        self.conflicts(
            state, shadow.unordered_writes(where, known) + shadow.unordered_reads(where, known), access
        )
        self.check_barrier_words(state.ctas[ws.warp.cta], where, access)
        shadow.write(where, access.slot, access.clock, number)
        shadow.valid_words[where] = 0x01010101

    def copies_commit(self, warp: Warp, ins: Instruction) -> None:
        _, ws = self.of(warp)
        ws.copies_closed.append(ws.thread_copies)

    def copies_passed(self, warp: Warp, ins: Instruction, allowed: int | None) -> None:
        _, ws = self.of(warp)
        closed = [*ws.copies_closed, ws.thread_copies] if allowed is None else ws.copies_closed
        done = closed[: len(closed) - (allowed or 0)]
        if done:
            ws.now = ws.copied(done[-1])

    # -- commits, cluster launch control --------------------------------------------------------------

    def _commit(self, state: ClusterState, ws: WarpState, operation: AsyncOperation, detail: Commit) -> None:
        ins = operation.ins
        assert ins is not None
        pipe = state.pipe(ws.warp, operation.thread)
        ws.now = state.agents.wide(ws.now)
        if not pipe.issued and pipe.last is None:
            pipe.last = self.access("commit", ws.warp, ins, ws.slot, ws.clock, lane=operation.thread)
        pipe.committed = pipe.issued
        given = state.agents.knowing(ws.now, pipe.slot, pipe.issued)
        targets = [found for found in (self.target(state, t) for t in detail.targets) if found is not None]
        for target in targets:
            self.check_use(state, ws, ins, target)
            target.arrivers["commit", ins.line] = f"{ws.warp.name} lane {operation.thread}"
            if target.cta is not ws.warp.cta:
                access = self.access(
                    "commit", ws.warp, ins, pipe.slot, pipe.issued, lane=operation.thread, cta=target.cta,
                    start=target.offset, size=8,
                )  # fmt: skip
                state.ctas[target.cta].users[pipe.slot] = access
        self.pending[operation] = given, tuple((target, 0) for target in targets)

    def _try_cancel(
        self, state: ClusterState, ws: WarpState, operation: AsyncOperation, detail: TryCancel
    ) -> None:
        ins = operation.ins
        assert ins is not None
        if state.no_more_clusters:
            self.report(
                "clc_after_failure",
                "try_cancel although a response said that there is no cluster left",
                second=self.access("try_cancel", ws.warp, ins, ws.slot, ws.clock, lane=operation.thread),
            )
        signals = self._signals(state, ws, operation, detail.signals)
        for receiver, barrier in zip(detail.receivers, signals, strict=True):
            if barrier is None:
                continue
            access = self.access(
                "try_cancel", ws.warp, ins, barrier.slot, barrier.loads, lane=operation.thread, cta=receiver,
                start=detail.offset, size=16, barrier=barrier.name,
            )  # fmt: skip
            self.note_unfenced_readers(state, ws, receiver, access)
            self.write_shared(state, ws, access, receiver)

    def note_unfenced_readers(self, state: ClusterState, ws: WarpState, cta: Cta, access: Access) -> None:
        """A response that a thread has read is overwritten through the async proxy."""
        where = words(access.start, access.size)
        for slot, (clocks, ids) in state.ctas[cta].shared.readers.items():
            if state.agents.generic[slot] and (clocks[where] > ws.now[ASYNC, slot]).any():
                first = self.accesses[int(ids[where].max())]
                if first is not None and self.once("clc", first.ins.line):
                    self.report(
                        "clc_response_overwritten",
                        "the response is overwritten; who read it executed no fence.proxy.async after it",
                        first=first,
                        second=access,
                    )

    def cancel_queried(self, warp: Warp, ins: Instruction, success: bool) -> None:
        if not success:
            self.of(warp)[0].no_more_clusters = True

    # -- completion -----------------------------------------------------------------------------------

    def performing(self, operation: AsyncOperation) -> None:
        if isinstance(operation.detail, TensorCoreWork):
            self.check_scales(operation, operation.detail)
        given = self.pending.get(operation)
        if given is None:
            return
        state = self.clusters[operation.issuer.cta.cluster]
        knowledge, targets = given
        for target, number in targets:
            handed_on = knowledge
            if not number and operation.ins is not None:
                self.check_phase(state, target, knowledge, operation.issuer, operation.ins, operation.thread)
            if number:  # a load: its bytes, and those of all loads that were issued to the barrier before
                handed_on = state.agents.knowing(knowledge, target.slot, target.land(number))
            target.gather(state.agents, handed_on)

    def performed(self, operation: AsyncOperation) -> None:
        given = self.pending.pop(operation, None)
        if given is None:
            return
        for target, number in given[1]:
            if number:
                detail: Any = operation.detail
                nbytes = getattr(detail, "nbytes", 16)
                line = operation.ins.line if operation.ins else 0
                target.bytes.append(
                    f"{-nbytes:+} by {operation.issuer.name} ({operation.kind}, PTX line {line})"
                )
                self.check_transactions(target)


def _executed(state: ClusterState, knowledge: Knowledge) -> Knowledge:
    """What the completion of a copy hands on of its thread's past: that it is over. Memory is ordered for the
    copy itself only, not for what its thread did before (PTX ISA 8.9.1.1)."""
    given = state.agents.nothing()
    given[EXECUTION] = state.agents.wide(knowledge)[EXECUTION]
    return given


def _same(detail: Any) -> object:
    """Equal for operations that do the same."""
    if isinstance(detail, TensorCoreWork):
        return detail.key
    if isinstance(detail, TensorLoad):
        return "load", detail.map_address, tuple(detail.coords), detail.offset
    if isinstance(detail, BulkLoad):
        return "bulk", detail.address, detail.source, detail.offset, detail.nbytes
    if isinstance(detail, (Commit, TryCancel)):
        return type(detail).__name__, getattr(detail, "offset", 0), str([o for _, o in _targets(detail)])
    return id(detail)


def _targets(detail: Commit | TryCancel) -> Any:
    return detail.targets if isinstance(detail, Commit) else detail.signals


def _tile_bytes(detail: TensorLoad) -> int:
    """Shared memory that the box takes up; gather4 brings four rows."""
    whole = detail.tensor_map
    if detail.nbytes == whole.box_bytes:
        return whole.shared_bytes
    return detail.nbytes // whole.row_bytes * whole.pitch
