"""Barriers: what an arrival hands on and what a wait learns (PTX ISA 9.7.13.1, 9.7.13.3, 9.7.13.15)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from b200sim.sanitizer.base import Base
from b200sim.sanitizer.clocks import EXECUTION, MEMORY, Knowledge
from b200sim.sanitizer.state import BarrierState, ClusterState, NamedState, WarpState
from b200sim.sanitizer.threads import ThreadEvents

if TYPE_CHECKING:
    from b200sim.machine.cta import Cta
    from b200sim.machine.waiting import MBarrier, NamedBarrier
    from b200sim.machine.warp import Warp
    from b200sim.ptx.syntax import Instruction


class SyncEvents(ThreadEvents, Base):
    # -- mbarriers ------------------------------------------------------------------------------------

    def mbarrier_init(self, warp: Warp, ins: Instruction, cta: Cta, offset: int) -> None:
        state, ws = self.of(warp)
        barrier = cta.barriers[offset]
        slot = state.agents.slot("transactions", cta.rank, offset)
        made = state.barriers[barrier] = BarrierState(barrier, cta, offset, slot)
        made.init = self.access("st", warp, ins, ws.slot, ws.clock, cta=cta, start=offset, size=8)
        cta_state = state.ctas[cta]
        if cta_state.barrier_words is None:
            cta_state.barrier_words = np.zeros(cta_state.shared.shape, bool)
        cta_state.barrier_words[offset // 4 : offset // 4 + 2] = True

    def mbarrier_inval(self, warp: Warp, ins: Instruction, cta: Cta, offset: int) -> None:
        state, _ = self.of(warp)
        words = state.ctas[cta].barrier_words
        if words is not None:
            words[offset // 4 : offset // 4 + 2] = False
        state.ctas[cta].shared.forget(slice(offset // 4, offset // 4 + 2))

    def mbarrier_arrive(
        self, warp: Warp, ins: Instruction, barrier: MBarrier, arrivals: int, nbytes: int
    ) -> None:
        state, ws = self.of(warp)
        target = state.barriers[barrier]
        self.check_use(state, ws, ins, target)
        if nbytes:
            if arrivals and barrier.expected == 1:
                self._several_lanes(ws, ins, ("expect", barrier, nbytes))
            target.bytes.append(f"{nbytes:+} by {warp.name} (expect_tx, PTX line {ins.line})")
        if not arrivals:
            return
        # Surely wrong: the count of pending arrivals is never below zero (PTX ISA 9.7.13.15.2).
        if nbytes and arrivals > barrier.pending and target.last_expect == ins.line and barrier.expected == 1:
            self.report(
                "stage_overwritten",
                f"a second arrive.expect_tx on {target.name} in phase {barrier.phase}, which counts one: the "
                "stage would be filled again before its first load can have been seen",
                second=self.access("arrive", warp, ins, ws.slot, ws.clock, cta=target.cta),
                edge=f"no wait by {warp.name} on an mbarrier that says the stage is free",
            )
        target.last_expect = ins.line if nbytes else target.last_expect
        self.settle_loads(ws, ins)
        self.check_phase(state, target, ws.now, warp, ins, None)
        target.arrivers["arrive", ins.line] = warp.name
        target.gather(state.agents, self._handed_on(ws, ins))
        self.lanes_hand_on(ws)
        if target.cta is not warp.cta:
            access = self.access(
                "st", warp, ins, ws.slot, ws.clock, cta=target.cta, start=target.offset, size=8
            )
            state.ctas[target.cta].users[ws.slot] = access
        ws.tick()

    def _handed_on(self, ws: WarpState, ins: Instruction) -> Knowledge:
        known = ws.of_lanes(ws.mask)
        return ws.agents.relaxed(known) if ins.has("relaxed") else known

    def _several_lanes(self, ws: WarpState, ins: Instruction, what: object) -> None:
        """Called per lane: the same act of the same execution of an instruction, twice."""
        key = (ins.line, ws.warp.executed, what)
        if self.last_act.get(ws.warp) == key and self.once("lanes", ins.line):
            self.report(
                "issued_by_many_lanes",
                f"{ins.mnemonic} is executed by several lanes of the warp with the same operands",
                second=self.access("st", ws.warp, ins, ws.slot, ws.clock),
                edge="one elected lane should issue it",
            )
        self.last_act[ws.warp] = key

    last_act: dict[Warp, object]

    def mbarrier_arrived(self, warp: Warp, ins: Instruction, barrier: MBarrier) -> None:
        state, _ = self.of(warp)
        self.check_transactions(state.barriers[barrier])

    def check_phase(
        self,
        state: ClusterState,
        target: BarrierState,
        knowledge: Knowledge,
        warp: Warp,
        ins: Instruction,
        lane: int | None,
    ) -> None:
        """Who arrives in a phase should know that somebody saw the phase before complete; else the barrier
        can run ahead of its waiters, who know phases by their parity alone (PTX ISA 9.7.13.15.4, .16)."""
        if target.last_phase_is_known(state.agents.wide(knowledge)):
            return
        phase = target.barrier.phase
        if self.once("unseen phase", target.cta.rank, target.offset, ins.line):
            act = self.access(
                "arrive", warp, ins, 0, 0, lane=lane, cta=target.cta, start=target.offset, size=8
            )
            self.report(
                "phase_skipped",
                f"an arrival in phase {phase} of {target.name}, and nothing says that anybody saw "
                f"phase {phase - 1} complete",
                second=act,
                edge=f"a wait for phase {phase - 1} that this arrival is ordered after; too many arrivals?",
            )

    def check_transactions(self, target: BarrierState) -> None:
        """PTX ISA 9.7.13.15.5, .6: all arrivals are there and more bytes than were expected."""
        barrier = target.barrier
        if barrier.pending == 0 and barrier.transactions < 0 and self.once("tx", target.offset):
            self.report(
                "expect_tx_mismatch",
                f"{-barrier.transactions} bytes more than expected have arrived at {target.name} "
                f"in phase {barrier.phase}",
                detail="transaction count:\n  " + "\n  ".join(target.bytes),
            )

    def mbarrier_passed(self, warp: Warp, ins: Instruction, barrier: MBarrier, phase: int) -> None:
        state, ws = self.of(warp)
        target = state.barriers[barrier]
        self.check_use(state, ws, ins, target)
        target.settle(state.agents)
        last = ws.observed.get(barrier)
        known = target.seen(phase - 1, state.agents.wide(ws.now))
        if last is not None and phase - last >= 2 and ins.has("parity") and not known:
            self.report(
                "phase_not_awaited",
                f"{warp.name} waits on {target.name}, finds phase {phase} complete and last saw {last}",
                second=self.access(
                    "ld", warp, ins, ws.slot, ws.clock, cta=target.cta, start=target.offset, size=8
                ),
                edge=f"a wait for phase {phase - 1} by this warp, or by somebody that it is ordered after",
            )
        ws.observed[barrier] = phase
        target.observe(phase, ws.slot, ws.clock)
        self._learn(ws, ins, target.handed_on)

    def _learn(self, ws: WarpState, ins: Instruction, knowledge: Knowledge | None) -> None:
        if knowledge is None:
            return
        self.lanes_learned(ws, int(knowledge[MEMORY, ws.slot]))
        if not ins.has("relaxed"):
            ws.synchronise(knowledge)
            return
        ws.withheld = knowledge if ws.withheld is None else ws.agents.join(ws.withheld, knowledge)
        only = np.zeros_like(knowledge)
        only[EXECUTION] = knowledge[EXECUTION]
        ws.synchronise(only)

    def check_use(self, state: ClusterState, ws: WarpState, ins: Instruction, target: BarrierState) -> None:
        """The object must be initialised for who uses it (PTX ISA 9.7.13.15.3, 9.7.13.4). Asynchronous work
        uses its mbarrier through the generic proxy too (9.7.9.27.1.2, 9.7.16.12.1)."""
        init = target.init
        if init is None or init.slot == ws.slot:
            return
        now = state.agents.wide(ws.now)
        if now[EXECUTION, init.slot] < init.clock:
            code = "mbarrier_init_unordered"
            what = f"{ins.mnemonic} uses {target.name} and nothing orders it after mbarrier.init"
            edge = f"a barrier between {init.who} and {ws.warp.name} after the initialisation"
        elif target.cta is not ws.warp.cta and not target.init_fenced and now[MEMORY, init.slot] < init.clock:
            code = "mbarrier_init_not_fenced"
            what = f"{ins.mnemonic} uses {target.name} from {ws.warp.cta.name}; its init was not fenced"
            edge = f"fence.mbarrier_init.release.cluster by {init.who} before the cluster barrier"
        else:
            return
        use = self.access("st", ws.warp, ins, ws.slot, ws.clock, cta=target.cta, start=target.offset, size=8)
        self.report(code, what, first=init, second=use, edge=edge)

    # -- barriers of the CTA and the cluster ----------------------------------------------------------

    def barrier_arrive(self, warp: Warp, ins: Instruction, barrier: NamedBarrier) -> None:
        state, ws = self.of(warp)
        self.settle_loads(ws, ins)
        ws.unite(warp.mask)
        named = self._named(state, warp, barrier)
        first = named.gathered is None
        named.gathered = ws.now if first else state.agents.join(named.gathered, ws.now)  # type: ignore[arg-type]
        ws.tick()

    def barrier_passed(self, warp: Warp, ins: Instruction, barrier: NamedBarrier, generation: int) -> None:
        state, ws = self.of(warp)
        knowledge = self._named(state, warp, barrier).handed_on.get(generation)
        if knowledge is not None:
            self.lanes_learned(ws, int(knowledge[MEMORY, ws.slot]))
        ws.synchronise(knowledge)

    def _named(self, state: ClusterState, warp: Warp, barrier: NamedBarrier) -> NamedState:
        named = state.ctas[warp.cta].named.setdefault(barrier, NamedState())
        if barrier.generation != named.generation:
            if named.gathered is not None:
                named.handed_on[named.generation] = named.gathered
                named.handed_on.pop(named.generation - 8, None)
            named.gathered = None
            named.generation = barrier.generation
        return named

    def cluster_arrive(self, warp: Warp, ins: Instruction) -> None:
        state, ws = self.of(warp)
        self.settle_loads(ws, ins)
        phase = warp.cta.cluster.barrier.phase
        state.arrived[warp] = phase
        given, known = self._handed_on(ws, ins), state.barrier_phases.get(phase)
        state.barrier_phases[phase] = given if known is None else state.agents.join(known, given)
        ws.tick()

    def cluster_passed(self, warp: Warp, ins: Instruction) -> None:
        state, ws = self.of(warp)
        self._learn(ws, ins, state.barrier_phases.get(state.arrived.get(warp, -1)))
