"""A kernel launch: clusters become resident on the simulated SMs, run, and make room for the next ones."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from b200sim.faults import Fault
from b200sim.gpus import B200, Gpu
from b200sim.machine.counters import Counters
from b200sim.machine.cta import RESERVED_SHARED, Cluster, Cta
from b200sim.machine.deadlock import deadlock_report, endless_report, spinning_report
from b200sim.machine.program import BLOCKED, EXITED
from b200sim.machine.registers import IGNORED, LaunchRegisters, check_fits, launch_registers
from b200sim.machine.schedule import ProgramOrder, Schedule
from b200sim.machine.spinning import Poll, endless_polls
from b200sim.machine.values import LANE_INDEX, Value
from b200sim.machine.waiting import MBarrier
from b200sim.machine.warp import Warp
from b200sim.module_variables import ModuleVariables
from b200sim.printf import to_stdout
from b200sim.ptx.binder import Constant

if TYPE_CHECKING:
    from b200sim.global_memory import GlobalMemory
    from b200sim.machine.observer import Observer
    from b200sim.machine.program import Program

Triple = tuple[int, int, int]
Progress = Callable[[int, int], None]  # clusters finished, clusters in all

# Registers that a kernel may read before it writes them hold all ones, by width. Reading one is no fault:
# compilers leave a value undefined where its result will not be used (a `phi` with an undefined side).
UNWRITTEN = {1: 0xFFFFFFFF, **{bits: (1 << bits) - 1 for bits in (8, 16, 32, 64, 128)}}


def _lane_masks() -> dict[str, Value]:
    equal = np.uint32(1) << LANE_INDEX
    below = equal - np.uint32(1)
    return {
        "%lanemask_eq": equal, "%lanemask_lt": below, "%lanemask_le": below | equal,
        "%lanemask_gt": ~(below | equal), "%lanemask_ge": ~below,
    }  # fmt: skip


class Grid:
    """One launch of `program`.

    `parameter_base` is the host address of the parameter block; `deadline` is a time of `time.monotonic`;
    `printf` takes what the kernel prints; `variables` are the addresses of the module's `.global` and
    `.const` variables (left out: fresh ones, for this launch).
    """

    def __init__(
        self,
        program: Program,
        memory: GlobalMemory,
        *,
        grid: Triple,
        block: Triple,
        cluster: Triple = (1, 1, 1),
        shared_bytes: int = 0,
        parameter_base: int = 0,
        schedule: Schedule | None = None,
        deadline: float | None = None,
        observer: Observer | None = None,
        pdl: bool = False,
        gpu: Gpu = B200,
        progress: Progress | None = None,
        printf: Callable[[bytes], None] = to_stdout,
        variables: Mapping[str, int] | None = None,
    ) -> None:
        self.progress = progress
        self.printf = printf
        self.finished = 0  # clusters
        self.gpu = gpu
        self.observer = observer
        self.pdl = pdl  # launched with programmatic stream serialization
        self.program = program
        self.memory = memory
        self.module = ModuleVariables(program.kernel.variables, memory) if variables is None else None
        self.variables = self.module.addresses if self.module else variables or {}
        self.size = grid
        self.block = block
        self.cluster = cluster
        self.threads_per_cta = block[0] * block[1] * block[2]
        self.warps_per_cta = -(-self.threads_per_cta // 32)
        self.parameter_base = parameter_base
        self.schedule = schedule or ProgramOrder()
        self.deadline = deadline
        self.counters = Counters()
        self.shared_offsets, self.shared_end = self._place_shared(shared_bytes)
        self._check_shape(shared_bytes)
        self.notes: list[str] = []  # what is no fault and worth knowing
        self.registers = self._registers()
        self.waiting = deque(range(self.cluster_count))
        self.resident_limit = max(1, gpu.sm_count // (cluster[0] * cluster[1] * cluster[2]))
        self.resident: deque[int | Cluster] = deque()
        self.running: Cluster | None = None
        self.only_polled = False  # in the turn that came last
        self.polls: list[Poll] = []  # after a deadlock: who asks forever
        self.clock = 0  # a count of scheduling steps, what %clock and %globaltimer show

    @property
    def cluster_count(self) -> int:
        (gx, gy, gz), (cx, cy, cz) = self.size, self.cluster
        return (gx // cx) * (gy // cy) * (gz // cz)

    # -- set-up ---------------------------------------------------------------------------------------

    def _check_shape(self, shared_bytes: int) -> None:
        limits = self.gpu.max_grid
        for axis, (blocks, per_cluster) in enumerate(zip(self.size, self.cluster, strict=True)):
            if blocks <= 0 or blocks % per_cluster:
                raise Fault(
                    "launch_shape",
                    f"grid {self.size} is not a multiple of the cluster {self.cluster} in axis {'xyz'[axis]}",
                )
            if blocks > limits[axis]:
                raise Fault(
                    "launch_shape", f"grid {self.size}: more than {limits[axis]} in axis {'xyz'[axis]}"
                )
        if self.cluster[0] * self.cluster[1] * self.cluster[2] > self.gpu.max_cluster_ctas:
            raise Fault(
                "launch_shape", f"cluster {self.cluster} has more than {self.gpu.max_cluster_ctas} CTAs"
            )
        if not 0 < self.threads_per_cta <= self.gpu.max_threads_per_block:
            raise Fault(
                "launch_shape",
                f"block {self.block} has {self.threads_per_cta} threads, "
                f"must be 1..{self.gpu.max_threads_per_block}",
            )
        limit = self.gpu.shared_bytes_per_block_optin
        if self.shared_end - RESERVED_SHARED > limit:
            raise Fault(
                "launch_shared",
                f"{self.shared_end - RESERVED_SHARED} bytes of shared memory per CTA "
                f"({shared_bytes} dynamic); a {self.gpu.short_name} has {limit}",
            )

    def _registers(self) -> LaunchRegisters | None:
        """With how many registers a thread starts, if setmaxnreg makes that matter."""
        requests = self.program.register_requests()
        if not requests:
            return None
        increases = [count for action, count in requests if action == "inc"]
        registers = launch_registers(self.program.kernel.directives, increases, self.gpu)
        if registers is None:
            self.notes.append(IGNORED)
        else:
            check_fits(registers, self.warps_per_cta, self.gpu)
        return registers

    def _place_shared(self, dynamic_bytes: int) -> tuple[dict[str, int], int]:
        """Offsets of the `.shared` variables: static ones first, the extern array last."""
        offsets: dict[str, int] = {}
        end = RESERVED_SHARED
        for variable in sorted(self.program.kernel.shared, key=lambda v: v.size == 0):
            end = -(-end // variable.align) * variable.align
            offsets[variable.name] = end
            end += variable.size or dynamic_bytes
        return offsets, max(end, RESERVED_SHARED + dynamic_bytes)

    def new_warp(self, cta: Cta, index: int) -> Warp:
        binder = self.program.binder
        slots: list[Value | None] = [None] * binder.slot_count
        for slot in self.program.may_be_unwritten:
            slots[slot] = UNWRITTEN[binder.bits[slot]]
        for slot, constant in binder.constants.items():
            slots[slot] = self._constant(constant, cta, index)
        return Warp(cta, index, self.program, slots)

    def _constant(self, constant: Constant, cta: Cta, warp: int) -> Value | None:
        if constant.kind == "immediate":
            return constant.value
        if constant.kind == "parameter":
            parameter = next(p for p in self.program.kernel.parameters if p.name == constant.name)
            return self.parameter_base + parameter.offset + constant.value
        if constant.kind == "shared":
            return (cta.rank << 24) + self.shared_offsets[constant.name] + constant.value
        if constant.kind == "variable":
            return self.variables[constant.name] + constant.value
        if constant.kind == "special":
            return self._special(constant.name, cta, warp)
        return None

    def _special(self, name: str, cta: Cta, warp: int) -> Value | None:
        """Special registers (PTX ISA 10); those that change while the kernel runs are read by `mov`."""
        register, _, axis = name.partition(".")
        a = "xyz".find(axis) if axis else -1
        if register == "%tid":
            linear = LANE_INDEX + warp * 32
            bx, by, _ = self.block
            lanes = (linear % bx, linear // bx % by, linear // (bx * by))[a].astype("u4")
            return int(lanes[0]) if (lanes == lanes[0]).all() else lanes
        fixed: dict[str, Value] = {
            "%laneid": LANE_INDEX,
            "%warpid": warp,
            "%nwarpid": self.warps_per_cta,
            "%smid": self.sm_of(cta),
            "%nsmid": self.gpu.sm_count,
            "%cluster_ctarank": cta.rank,
            "%cluster_nctarank": self.cluster[0] * self.cluster[1] * self.cluster[2],
            "%dynamic_smem_size": self.shared_end - RESERVED_SHARED,
            "%total_smem_size": self.shared_end - RESERVED_SHARED,
            "%is_explicit_cluster": 0xFFFFFFFF,
            "%gridid": 0,
            **_lane_masks(),
        }
        if register in fixed:
            return fixed[register]
        triples = {
            "%ntid": self.block,
            "%ctaid": cta.index,
            "%nctaid": self.size,
            "%nclusterid": tuple(g // c for g, c in zip(self.size, self.cluster, strict=True)),
            "%clusterid": tuple(i // c for i, c in zip(cta.index, self.cluster, strict=True)),
            "%cluster_ctaid": tuple(i % c for i, c in zip(cta.index, self.cluster, strict=True)),
            "%cluster_nctaid": self.cluster,
        }
        return triples[register][a] if register in triples else None

    def sm_of(self, cta: Cta) -> int:
        """A plausible SM: clusters fill the SMs in order."""
        per_cluster = self.cluster[0] * self.cluster[1] * self.cluster[2]
        return (cta.cluster.number % self.resident_limit) * per_cluster + cta.rank

    def first_cta(self, cluster_number: int) -> Triple:
        (gx, gy, _), (cx, cy, cz) = self.size, self.cluster
        nx, ny = gx // cx, gy // cy
        return (cluster_number % nx * cx, cluster_number // nx % ny * cy, cluster_number // (nx * ny) * cz)

    # -- running --------------------------------------------------------------------------------------

    def keep_part(self, part: int, count: int) -> None:
        """Run only every `count`-th cluster, from number `part` on; other processes run the rest."""
        self.waiting = deque(range(part, self.cluster_count, count))

    def run(self) -> Counters:
        """Run all clusters to their end. Raises `Fault` for an illegal act or a deadlock."""
        started = time.perf_counter()
        watch = self.observer
        if watch is not None:
            watch.launch_began(self)
        try:
            with np.errstate(all="ignore"):  # lanes that are switched off compute with anything
                self._run_all()
        except Fault as fault:
            if watch is not None:
                watch.faulted(self, fault)
            raise
        if watch is not None:
            watch.launch_ended(self)
        self.counters.seconds += time.perf_counter() - started
        return self.counters

    def _run_all(self) -> None:
        stuck = 0  # resident clusters in a row that could do nothing
        idle, patience = 0, 2  # and in a row that could do no more than poll
        self._admit()
        while self.resident:
            cluster = self.resident.popleft()
            if not isinstance(cluster, Cluster):
                cluster = Cluster(self, cluster, self.first_cta(cluster))
                if self.observer is not None:
                    self.observer.cluster_began(cluster)
            moved = self._run_cluster(cluster)
            if cluster.live == 0 and not cluster.in_flight:
                self._retire(cluster)
                self._admit()
                self.finished += 1
                if self.progress is not None:
                    self.progress(self.finished, self.finished + len(self.resident) + len(self.waiting))
                stuck = 0
                continue
            self.resident.append(cluster)
            stuck = 0 if moved else stuck + 1
            if stuck > len(self.resident):
                self._expire_waits()
                stuck = 0
            idle = 0 if moved and not self.only_polled else idle + 1
            if idle > patience * len(self.resident):
                self._check_spinning()
                idle, patience = 0, 2 * patience

    def _admit(self) -> None:
        """Clusters start in order, as many as fit; only those not yet started can be cancelled."""
        while self.waiting and len(self.resident) < self.resident_limit:
            self.resident.append(self.waiting.popleft())

    def cancel_next(self) -> Triple | None:
        """Cluster launch control: take the next cluster that has not started; its first CTA, or None."""
        return self.first_cta(self.waiting.popleft()) if self.waiting else None

    def _run_cluster(self, cluster: Cluster) -> bool:
        """Run a cluster until it is done, can do nothing, or has used its turn; whether anything happened."""
        self.running = cluster
        turn = 100_000
        steps = polls = 0
        while steps < turn:
            if not cluster.runnable and not cluster.in_flight:
                polls += 1
                if polls > len(cluster.polling):
                    break  # they have all looked; what they look for may be another cluster's to do
            item = self.schedule.next(cluster)
            if item is None:
                break
            steps += 1
            if isinstance(item, Warp):
                self._run_warp(cluster, item)
            else:
                watch = self.observer
                if watch is not None:
                    watch.performing(item)
                try:
                    item.perform()
                except Fault as fault:
                    raise fault.at(f"{item.issuer.name}, {item.place}") from None
                item.finish()
                if watch is not None:
                    watch.performed(item)
            if steps % 256 == 0:
                self._check_deadline()
            if cluster.live == 0 and not cluster.in_flight:
                break
        self.clock += steps
        cluster.steps += steps
        self.only_polled = polls > steps
        return steps > 0

    def _run_warp(self, cluster: Cluster, warp: Warp) -> None:
        before = warp.executed
        watch = self.observer
        if watch is not None:
            watch.warp_turn(warp)
        outcome = warp.run()
        if watch is not None:
            watch.warp_paused(warp)
        self.counters.warp_instructions += warp.executed - before
        if outcome == EXITED:
            if watch is not None:
                watch.warp_exited(warp)
            cluster.live -= 1
            warp.cta.warp_exited(warp)
        elif outcome != BLOCKED:
            cluster.polling.append(warp)
            self._check_deadline()

    def _check_deadline(self) -> None:
        if self.deadline is not None and time.monotonic() > self.deadline:
            running = [c for c in (self.running, *self.resident) if isinstance(c, Cluster)]
            raise Fault("time_limit", endless_report(running))

    def _retire(self, cluster: Cluster) -> None:
        if self.observer is not None:
            self.observer.cluster_ended(cluster)
        for cta in cluster.ctas:
            try:
                cta.tmem.check_leaks()
            except Fault as fault:
                raise fault.at(f"{cta.name}, at its end") from None
            uneven = cta.registers.uneven() if cta.registers else None
            if uneven and uneven not in self.notes:
                self.notes.append(uneven)

    # -- nothing can run ------------------------------------------------------------------------------

    def _expire_waits(self) -> None:
        """Everything is blocked. A try_wait may answer false after its time limit, so let each do so once;
        if every warp then stands where it stood and nothing was issued, nothing ever will be: deadlock.
        """
        clusters = [c for c in self.resident if isinstance(c, Cluster)]
        stood = [(warp, warp.pc) for cluster in clusters for warp in cluster.all_warps() if warp.blocked_on]
        for warp, _ in stood:
            if isinstance(warp.blocked_on, MBarrier):
                warp.blocked_on.forget(warp)
                warp.wait_expired = True
                self._run_warp(warp.cta.cluster, warp)
        moved = any(cluster.in_flight or cluster.runnable or cluster.polling for cluster in clusters)
        if not moved and all(warp.blocked_on and warp.pc == pc for warp, pc in stood):
            raise Fault("deadlock", deadlock_report(clusters))

    def _check_spinning(self) -> None:
        """All that ran for a while were warps that poll: do they wait for something that will never be?"""
        clusters = [c for c in self.resident if isinstance(c, Cluster)]
        self.polls = endless_polls(self, clusters, self._run_warp)
        if self.polls:
            raise Fault("deadlock", spinning_report(self.polls, clusters, len(self.waiting)))
