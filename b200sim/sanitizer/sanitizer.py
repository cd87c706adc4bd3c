"""The observer that checks a launch: it ties the parts together and looks at how CTAs and launches end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from b200sim.machine.deadlock import register_accounts
from b200sim.machine.observer import TensorCoreWork
from b200sim.sanitizer import codes
from b200sim.sanitizer.clocks import EXECUTION
from b200sim.sanitizer.cycle import wait_cycle
from b200sim.sanitizer.findings import Findings
from b200sim.sanitizer.predecessor import Predecessors
from b200sim.sanitizer.state import ClusterState, CtaState
from b200sim.sanitizer.units import UnitEvents

if TYPE_CHECKING:
    from b200sim.faults import Fault
    from b200sim.machine.asynchronous import AsyncOperation
    from b200sim.machine.cta import Cluster
    from b200sim.machine.grid import Grid
    from b200sim.machine.warp import Warp


class Sanitizer(UnitEvents):
    """Watches one launch; what it finds goes to `findings`."""

    def __init__(
        self,
        findings: Findings | None = None,
        kernel: str = "",
        launch: int = 0,
        schedule: str = "",
        predecessors: Predecessors | None = None,
    ) -> None:
        super().__init__(Findings() if findings is None else findings, kernel, launch, schedule)
        self.predecessors = Predecessors() if predecessors is None else predecessors
        self.pending = {}
        self.places = {}
        self.maps = {}
        self.last_act = {}

    def pending_barriers(self, operation: AsyncOperation) -> list[tuple[int, int]]:
        given = self.pending.get(operation)
        return [(barrier.slot, number) for barrier, number in given[1]] if given else []

    # -- launch and clusters --------------------------------------------------------------------------

    def launch_began(self, grid: Grid) -> None:
        self.grid = grid
        self.context["kernel"] = self.context["kernel"] or grid.program.kernel.name
        self.begin_global(grid)
        self.watch_values(grid.program)

    def cluster_began(self, cluster: Cluster) -> None:
        self.clusters[cluster] = ClusterState(cluster)
        self.begin_values(cluster)

    def cluster_ended(self, cluster: Cluster) -> None:
        self._check_pipes(self.clusters.pop(cluster))

    def _check_pipes(self, state: ClusterState) -> None:
        for pipe in state.pipes.values():
            if (
                not pipe.issued
                and pipe.last is not None
                and any(other.issued for other in state.pipes.values())
            ):
                self.report(
                    "commit_without_work",
                    "tcgen05.commit by a thread that issues no tcgen05 operation: it arrives at once",
                    first=pipe.last,
                    edge="the thread that issued the operations must commit them",
                )
            if pipe.issued > pipe.committed and pipe.last is not None:
                self.report(
                    "never_committed",
                    f"{pipe.issued - pipe.committed} tcgen05 operations of a thread: no commit covers them",
                    first=pipe.last,
                )

    def warp_exited(self, warp: Warp) -> None:
        state, ws = self.of(warp)
        self.poisoned.pop(warp, None)
        target = state.ctas[warp.cta]
        known = state.agents.wide(ws.of_lanes(-1))
        target.exit = known if target.exit is None else state.agents.join(target.exit, known)
        target.warps_left -= 1
        if target.warps_left == 0:
            self._cta_exits(state, target)

    def _cta_exits(self, state: ClusterState, target: CtaState) -> None:
        assert target.exit is not None
        over = state.agents.wide(target.exit)[EXECUTION]
        for slot, use in target.users.items():
            if over[slot] < use.clock:
                self._sides.append(use)
                self.report(
                    "peer_exited",
                    f"{target.cta.name} exits and nothing orders that after {use.name()} on its memory",
                    first=use,
                    edge=f"a thread of {target.cta.name} learns that it is over (mbarrier, wait_group, "
                    "cluster barrier) before the last one exits",
                )
        for barrier in state.barriers.values():
            if barrier.cta is target.cta and barrier.barrier.transactions:
                self.report(
                    "expect_tx_left_over",
                    f"{barrier.name} still expects {barrier.barrier.transactions} bytes when its CTA exits",
                )
        if target.shared.unread.any():
            self._unread(target.shared, slice(None), None)
        if target.shares_sm and not target.relinquished and self.once("relinquish"):
            self.report(
                "tmem_contention",
                "the CTA never executes tcgen05.relinquish_alloc_permit: others on its SM wait for its end",
            )

    # -- faults ---------------------------------------------------------------------------------------

    def faulted(self, grid: Grid, fault: Fault) -> None:
        self.launch_ended(grid)
        if fault.code == "unsupported":
            return
        for state in self.clusters.values():
            self._check_pipes(state)
        code, detail = codes.of_fault(fault.code), ""
        if code == "deadlock":
            stuck = [state for state in self.clusters.values() if any(w.blocked_on for w in state.warps)]
            if stuck and not grid.polls:
                blocked = [warp for warp in stuck[0].warps if warp.blocked_on]
                detail = "\n".join([*wait_cycle(stuck[0]), *register_accounts(blocked)])
            starved = [
                b for state in stuck for b in state.barriers.values()
                if b.barrier.pending == 0 and b.barrier.transactions
            ]  # fmt: skip
            if starved:
                code = "expect_tx_mismatch"
                detail = f"{starved[0].name}: {starved[0].barrier.describe()}\n  " + "\n  ".join(
                    starved[0].bytes
                )
        if grid.polls:
            detail = "\n".join([fault.message, *self.polled(grid.polls)])
        where = f" at {fault.where}" if fault.where else ""
        self.report(code, fault.message.splitlines()[0] + where, detail=(detail or fault.message))


__all__ = ["Sanitizer", "TensorCoreWork"]
