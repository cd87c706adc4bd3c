"""What all parts of the sanitizer share: the state, accesses by number, and how a conflict is reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from b200sim.machine.observer import Observer
from b200sim.sanitizer import classify
from b200sim.sanitizer.clocks import EXECUTION
from b200sim.sanitizer.findings import Finding, Findings
from b200sim.sanitizer.records import PIPELINED, Access
from b200sim.sanitizer.state import BarrierState, ClusterState, CtaState, WarpState

if TYPE_CHECKING:
    from b200sim.machine.cta import Cluster, Cta
    from b200sim.machine.grid import Grid
    from b200sim.machine.waiting import MBarrier
    from b200sim.machine.warp import Warp
    from b200sim.ptx.syntax import Instruction


class Base(Observer):
    """State and reporting. One object watches one launch."""

    grid: Grid

    def __init__(self, findings: Findings, kernel: str = "", launch: int = 0, schedule: str = "") -> None:
        self.findings = findings
        self.context = {"kernel": kernel, "launch": launch, "schedule": schedule}
        self.clusters: dict[Cluster, ClusterState] = {}
        self.accesses: list[Access | None] = [None]
        self.fills: dict[tuple[str, int], dict[int, int]] = {}  # (CTA, PTX line of the load) -> offset: size
        self.time = 0
        self._sides: list[Access] = []  # whose stages are named at the end, when all stages are known
        self._told: set[tuple[object, ...]] = set()

    # -- finding state --------------------------------------------------------------------------------

    def of(self, warp: Warp) -> tuple[ClusterState, WarpState]:
        state = self.clusters[warp.cta.cluster]
        ws = state.warps[warp]
        if ws.mask != warp.mask:
            ws.run_lanes(warp.mask)
        return state, ws

    def barrier_state(self, state: ClusterState, barrier: MBarrier) -> BarrierState:
        return state.barriers[barrier]

    def target(self, state: ClusterState, target: tuple[Cta, int]) -> BarrierState | None:
        barrier = target[0].barriers.get(target[1])
        return None if barrier is None else state.barriers.get(barrier)

    # -- recording ------------------------------------------------------------------------------------

    def access(
        self,
        kind: str,
        warp: Warp,
        ins: Instruction,
        slot: int,
        clock: int,
        *,
        lane: int | None = None,
        cta: Cta | None = None,
        **more: Any,
    ) -> Access:
        self.time += 1
        return Access(
            kind,
            warp.name,
            (warp.cta.rank, warp.index),
            lane,
            ins,
            self.time,
            (cta or warp.cta).name,
            slot=slot,
            clock=clock,
            **more,
        )

    def keep(self, access: Access) -> int:
        self.accesses.append(access)
        return len(self.accesses) - 1

    # -- reporting ------------------------------------------------------------------------------------

    def report(self, code: str, message: str, **more: Any) -> None:
        sides = [more.get(side) for side in ("first", "second")]
        ctas = {a.who.split(" warp")[0] for a in sides if a is not None}
        self.findings.add(Finding(code, message, ctas=ctas, **more, **self.context))  # type: ignore[arg-type]

    def once(self, *key: object) -> bool:
        """True the first time; for findings whose details are dear."""
        if key in self._told:
            return False
        self._told.add(key)
        return True

    def conflicts(self, state: ClusterState, ids: list[int], second: Access) -> None:
        """`second` is not ordered after the accesses with these numbers."""
        for number in ids:
            first = self.accesses[number]
            if first is None or not self._real(state, first, second):
                continue
            if self._known_to_other_lanes(state, first, second):
                second.facts["waited"] = True
            code = classify.hazard(first, second)
            if not self.once(code, first.ins.line, second.ins.line, first.operand, second.operand):
                before, after = (second, first) if first.facts.get("early") else (first, second)
                self.findings.add(Finding(code, "", before, after, ctas={second.cta}, **self.context))  # type: ignore[arg-type]
                continue
            self._sides += [first, second]
            # A read of what nobody had written yet came too early: the write is what it should follow.
            before, after = (second, first) if first.facts.get("early") else (first, second)
            self.report(
                code,
                classify.sentence(before, after),
                first=before,
                second=after,
                edge=classify.missing_edge(before, after, self._commits(state, before)),
            )

    def _known_to_other_lanes(self, state: ClusterState, first: Access, second: Access) -> bool:
        """Whether other lanes of the second's warp know that the first is over, and it does not."""
        for ws in state.warps.values():
            if ws.apart and (ws.warp.cta.rank, ws.warp.index) == second.role:
                known = state.agents.wide(ws.of_lanes(-1))
                return bool(known[EXECUTION, first.slot] >= first.clock)
        return False

    def _real(self, state: ClusterState, first: Access, second: Access) -> bool:
        if classify.strong_together(first, second):
            return False
        if not classify.same_bytes(first, second):
            return False
        if first.kind in PIPELINED and second.kind in PIPELINED and first.space == "tensor":
            # Pipelined operations of two threads need no commit, only fences and a barrier in between.
            warp = next(w for w in state.warps if (w.cta.rank, w.index) == second.role)
            pipe = state.agents.find("issued before fence", *first.role, first.lane)
            now = state.agents.wide(state.warps[warp].now)
            return pipe is None or bool(now[2, pipe] < first.clock)
        return True

    def _commits(self, state: ClusterState, first: Access) -> list[str]:
        if first.kind not in PIPELINED:
            return []
        return sorted(
            barrier.name
            for barrier in state.barriers.values()
            if any(kind == "commit" and who == first.by() for (kind, _), who in barrier.arrivers.items())
        )

    def launch_ended(self, grid: Grid) -> None:
        for side in self._sides:
            self._name_stage(side)
        self._sides.clear()

    def _name_stage(self, side: Access) -> None:
        """Which of the equal ranges that one load instruction fills this access lies in."""
        if side.space != "shared" or "stage" in side.facts:
            return
        for (cta, _), offsets in self.fills.items():
            if cta != side.cta or len(offsets) < 2:
                continue
            for stage, offset in enumerate(sorted(offsets)):
                if offset <= side.start < offset + offsets[offset]:
                    side.facts["stage"] = stage
                    return

    def cta_of(self, state: ClusterState, cta: Cta) -> CtaState:
        return state.ctas[cta]
