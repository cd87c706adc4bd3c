"""A trace of a run for chrome://tracing and ui.perfetto.dev (Trace Event Format, JSON).

Time is not time: one microsecond in the viewer is one scheduling step of the simulation. A warp's slice is a
turn the schedule gave it; an asynchronous operation spans from its issue to the step in which it happened;
an mbarrier's track shows its phases.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from b200sim.machine.observer import Commit, Observer

if TYPE_CHECKING:
    from b200sim.faults import Fault
    from b200sim.machine.asynchronous import AsyncOperation
    from b200sim.machine.cta import Cta
    from b200sim.machine.grid import Grid
    from b200sim.machine.waiting import MBarrier
    from b200sim.machine.warp import Warp
    from b200sim.ptx.syntax import Instruction

MMA, COPY, TMA_LOAD, TMA_STORE, BARRIER = 100, 101, 110, 111, 1000
UNITS = {
    "tcgen05.mma": (MMA, "tensor core: mma"),
    "tcgen05.cp": (COPY, "tensor core: cp"),
    "tcgen05.shift": (COPY, "tensor core: cp"),
    "tcgen05.commit": (MMA + 2, "tensor core: commit"),
    "tma load": (TMA_LOAD, "TMA: loads"),
    "bulk load": (TMA_LOAD, "TMA: loads"),
    "st.async": (TMA_STORE + 2, "asynchronous stores"),
    "red.async": (TMA_STORE + 2, "asynchronous stores"),
    "try_cancel": (TMA_STORE + 1, "cluster launch control"),
}


class Trace:
    """The events of all launches that were watched."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.tracks: set[tuple[int, int]] = set()
        self.step = 0

    def observer(self) -> Observer:
        return _Tracer(self)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.as_dict()))

    def as_dict(self) -> dict[str, Any]:
        note = "1 us = 1 scheduling step of the simulation, not time on a GPU"
        return {"traceEvents": self.events, "displayTimeUnit": "ms", "otherData": {"time": note}}

    def track(self, process: int, thread: int, process_name: str, name: str) -> None:
        if (process, thread) in self.tracks:
            return
        if (process, -1) not in self.tracks:
            self.tracks.add((process, -1))
            self._name("process_name", process, 0, process_name)
        self.tracks.add((process, thread))
        self._name("thread_name", process, thread, name)
        self.events.append(
            {
                "ph": "M",
                "name": "thread_sort_index",
                "pid": process,
                "tid": thread,
                "args": {"sort_index": thread},
            }
        )

    def _name(self, what: str, process: int, thread: int, name: str) -> None:
        self.events.append({"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}})

    def slice(self, name: str, process: int, thread: int, start: int, **arguments: Any) -> None:
        length = max(self.step - start, 1)
        self.events.append(
            {
                "ph": "X",
                "name": name,
                "pid": process,
                "tid": thread,
                "ts": start,
                "dur": length,
                "args": arguments,
            }
        )


class _Tracer(Observer):
    """Watches one launch on behalf of a trace."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.turn_began = 0
        self.turn_place = ""
        self.issued_at: dict[AsyncOperation, int] = {}
        self.phases: dict[MBarrier, tuple[Cta, int, int, int]] = {}  # CTA, offset, phase, step it began

    def _process(self, cta: Cta) -> tuple[int, str]:
        x, y, z = cta.index
        gx, gy, _ = cta.grid.size
        return 1 + x + gx * (y + gy * z), cta.name

    # -- warps ----------------------------------------------------------------------------------------

    def warp_turn(self, warp: Warp) -> None:
        self.trace.step += 1
        self.turn_began = self.trace.step
        self.turn_place = _place(warp)

    def warp_paused(self, warp: Warp) -> None:
        self.trace.step += 1
        process, name = self._process(warp.cta)
        self.trace.track(process, warp.index, name, f"warp {warp.index}")
        waits = warp.blocked_on.describe() if warp.blocked_on else ""
        self.trace.slice(
            self.turn_place, process, warp.index, self.turn_began, until=_place(warp), then_waits_for=waits
        )

    # -- units ----------------------------------------------------------------------------------------

    def issued(self, operation: AsyncOperation) -> None:
        self.issued_at[operation] = self.trace.step

    def performed(self, operation: AsyncOperation) -> None:
        self.trace.step += 1
        process, name = self._process(operation.issuer.cta)
        thread, label = UNITS.get(operation.kind, (TMA_STORE, "TMA: stores"))
        self.trace.track(process, thread, name, label)
        began = self.issued_at.pop(operation, self.trace.step)
        self.trace.slice(
            operation.kind, process, thread, began, issued_by=operation.issuer.name, at=operation.place
        )
        detail: Any = operation.detail
        targets = detail.targets if isinstance(detail, Commit) else getattr(detail, "signals", ())
        for cta, offset in targets:
            barrier = cta.barriers.get(offset)
            if barrier is not None:
                self._phase(barrier)

    # -- mbarriers ------------------------------------------------------------------------------------

    def mbarrier_init(self, warp: Warp, ins: Instruction, cta: Cta, offset: int) -> None:
        self.phases[cta.barriers[offset]] = cta, offset, 0, self.trace.step

    def mbarrier_arrived(self, warp: Warp, ins: Instruction, barrier: MBarrier) -> None:
        self._phase(barrier)

    def _phase(self, barrier: MBarrier) -> None:
        known = self.phases.get(barrier)
        if known is None or barrier.phase == known[2]:
            return
        cta, offset, phase, began = known
        self._close(cta, offset, phase, began)
        self.phases[barrier] = cta, offset, barrier.phase, self.trace.step

    def _close(self, cta: Cta, offset: int, phase: int, began: int) -> None:
        process, name = self._process(cta)
        self.trace.track(process, BARRIER + offset, name, f"mbarrier {offset:#x}")
        self.trace.slice(f"phase {phase}", process, BARRIER + offset, began, parity=phase & 1)

    def launch_ended(self, grid: Grid) -> None:
        for cta, offset, phase, began in self.phases.values():
            if self.trace.step > began:
                self._close(cta, offset, phase, began)

    def faulted(self, grid: Grid, fault: Fault) -> None:
        self.launch_ended(grid)
        self.trace.events.append(
            {"ph": "i", "s": "g", "name": f"fault: {fault.code}", "pid": 0, "tid": 0, "ts": self.trace.step,
             "args": {"message": fault.message, "at": fault.where or ""}}
        )  # fmt: skip


def _place(warp: Warp) -> str:
    ins = warp.program.blocks[warp.pc].instructions[0]
    source = f"{Path(ins.source[0]).name}:{ins.source[1]} " if ins.source else ""
    return f"{source}{ins.text[:50]}"
