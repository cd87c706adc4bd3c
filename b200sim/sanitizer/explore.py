"""Many schedules of one run: the library's front door.

Happens-before finds most defects under any schedule; other schedules lead the kernel along other paths
(which warp gets there first, which wait answers at once) and turn hangs and wrong values into facts.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from b200sim.faults import Fault
from b200sim.machine.observer import Observer, Observers
from b200sim.machine.schedule import exploration, schedule
from b200sim.sanitizer.findings import Findings
from b200sim.sanitizer.predecessor import Predecessors
from b200sim.sanitizer.report import Explored, Report
from b200sim.sanitizer.sanitizer import Sanitizer

if TYPE_CHECKING:
    from b200sim.device import SimulatedDevice
    from b200sim.machine.asynchronous import AsyncOperation
    from b200sim.machine.grid import Grid
    from b200sim.machine.schedule import Schedule
    from b200sim.machine.warp import Warp


class Counting(Sanitizer):
    """A sanitizer that also notes which order of events it saw."""

    def __init__(
        self, findings: Findings, explored: Explored, launch: int, predecessors: Predecessors
    ) -> None:
        super().__init__(findings, launch=launch, schedule=explored.schedule, predecessors=predecessors)
        self.explored = explored

    def warp_turn(self, warp: Warp) -> None:
        self.explored.turns += 1
        self._note(f"{warp.cta.cluster.number}.{warp.cta.rank}.{warp.index}")

    def performing(self, operation: AsyncOperation) -> None:
        self.explored.operations += 1
        self._note(f"{operation.kind}{operation.issuer.cta.cluster.number}.{operation.issuer.cta.rank}")
        super().performing(operation)

    def _note(self, what: str) -> None:
        self.explored.signature = zlib.crc32(what.encode(), self.explored.signature)


class Session:
    """Collects a report over schedules. `attempt` is the context of one run under one schedule."""

    def __init__(self, extra: Callable[[], Observer] | None = None) -> None:
        self.report = Report()
        self.extra = extra
        self.predecessors = Predecessors()

    def observer(self, explored: Explored) -> Observer:
        explored.launches += 1
        watch = Counting(self.report.findings, explored, explored.launches - 1, self.predecessors)
        return watch if self.extra is None else Observers(watch, self.extra())

    @contextmanager
    def attempt(self, name: str) -> Iterator[Explored]:
        """A fault of the kernel ends the run; it is a finding and goes no further."""
        explored = Explored(name)
        self.report.explored.append(explored)
        try:
            yield explored
        except Fault as fault:
            if fault.code == "unsupported":
                raise
            explored.outcome = fault.code

    @contextmanager
    def on_device(self, device: SimulatedDevice, name: str) -> Iterator[Explored]:
        """`attempt` for whatever is launched on `device` meanwhile."""
        before = device.schedule, device.observer
        with self.attempt(name) as explored:
            device.schedule = lambda: schedule(name)
            device.observer = lambda: self.observer(explored)
            try:
                yield explored
            finally:
                device.schedule, device.observer = before


def sanitize(
    run: Callable[[SimulatedDevice], Any],
    schedules: int = 1,
    seed: int = 0,
    *,
    names: list[str] | None = None,
    **device_options: Any,
) -> Report:
    """Call `run(device)` inside a simulated device once per schedule, all launches sanitized.

    schedules, seed: how many, see `machine.schedule.exploration`; `names` instead picks them by name, which
    replays a schedule of an earlier report. device_options: those of `SimulatedDevice`, such as gpu.
    Compilations are reused between schedules if `run` reuses its module. Raises what `run` raises, but
    for the simulator's faults, which become findings.
    """
    from b200sim.device import SimulatedDevice

    session = Session()
    with SimulatedDevice(**device_options) as device:
        for name in names or exploration(schedules, seed):
            with session.on_device(device, name):
                run(device)
    return session.report


def sanitize_grid(
    make: Callable[[Schedule], Grid], schedules: int = 1, seed: int = 0, *, names: list[str] | None = None
) -> Report:
    """The same for launches that are built by hand: `make(schedule)` returns a fresh `Grid`."""
    session = Session()
    for name in names or exploration(schedules, seed):
        with session.attempt(name) as explored:
            grid = make(schedule(name))
            grid.observer = session.observer(explored)
            grid.run()
    return session.report
