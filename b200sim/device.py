"""The simulated GPU as a submission's process sees it: device memory, a driver, launches that run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from b200sim.driver import Launch, simulated_device
from b200sim.faults import Fault, Unsupported
from b200sim.global_memory import GlobalMemory
from b200sim.gpus import B200, Gpu
from b200sim.isa.decoder import decode_kernel
from b200sim.machine.counters import Counters
from b200sim.machine.grid import Grid, Progress
from b200sim.machine.observer import Observer
from b200sim.machine.program import Program
from b200sim.machine.schedule import ProgramOrder, Schedule
from b200sim.module_variables import ModuleVariables
from b200sim.parallel import run_grid
from b200sim.printf import to_stdout
from b200sim.ptx.parser import parse


@dataclass
class LaunchReport:
    """What one kernel launch was and did. `seconds` are the simulation's, never the GPU's; `notes` say what
    is no fault and worth knowing."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    cluster: tuple[int, int, int]
    shared_bytes: int
    pdl: bool
    seconds: float = 0.0
    decode_seconds: float = 0.0
    processes: int = 1
    counters: Counters = field(default_factory=Counters)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        report = {name: value for name, value in vars(self).items() if name not in ("counters", "notes")}
        notes = {"notes": "; ".join(self.notes)} if self.notes else {}
        return {**report, **notes, "counters": self.counters.as_dict()}


class SimulatedDevice:
    """Context manager: inside it, this process has a `gpu`, by default a B200.

    `schedule` makes the order of events for each launch (program order by default). `processes` lets
    independent clusters of one launch run side by side; a watched launch runs in this process alone.
    `observer` makes who watches a launch. With few SMs (`gpu.with_sms`) a persistent kernel takes several
    tiles per CTA on small problems. `progress` hears how many of a launch's clusters have finished. `printf`
    takes what kernels print, by default the process's standard output. `time_limit` is in seconds per launch.
    A kernel's fault comes out of the submission's own launch call as a `Fault`.
    """

    def __init__(
        self,
        schedule: Callable[[], Schedule] = ProgramOrder,
        processes: int = 1,
        time_limit: float | None = None,
        observer: Callable[[], Observer] | None = None,
        gpu: Gpu = B200,
        progress: Progress | None = None,
        printf: Callable[[bytes], None] = to_stdout,
    ) -> None:
        self.printf = printf
        self.progress = progress
        self.observer = observer
        self.gpu = gpu
        self.schedule = schedule
        self.processes = processes
        self.time_limit = time_limit
        self.memory = GlobalMemory()
        self.launches: list[LaunchReport] = []
        self._programs: dict[tuple[int, str], tuple[str, Program]] = {}
        self._variables: dict[int, ModuleVariables] = {}  # by id of the module's text, kept by _programs
        self._stack = contextlib.ExitStack()
        self._tensors: Any = None

    def __enter__(self) -> SimulatedDevice:
        self._tensors = self._stack.enter_context(simulated_device(self._launch, self.memory, self.gpu))
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def adopt(self, name: str, tensor: Any, writable: bool = True) -> Any:
        """Make an existing CPU tensor device memory, in place, under `name` in messages. Inputs, which belong
        to the caller, are not writable."""
        return self._tensors.adopt(name, tensor, writable)

    def to_device(self, name: str, tensor: Any, writable: bool = True) -> Any:
        """A copy of a CPU tensor in device memory of its own, with unmapped space on both sides."""
        return self._tensors.to_device(name, tensor, writable)

    def paused(self) -> Any:
        """Context in which torch is torch again."""
        return self._tensors.paused()

    # -- launches -------------------------------------------------------------------------------------

    def _launch(self, launch: Launch) -> None:
        started = time.perf_counter()
        program = self._program(launch)
        report = LaunchReport(
            launch.entry, launch.grid, launch.block, launch.cluster, launch.shared_bytes, launch.pdl
        )
        report.decode_seconds = time.perf_counter() - started
        self.launches.append(report)
        deadline = None if self.time_limit is None else time.monotonic() + self.time_limit
        with self._parameters(launch, program) as base:
            grid = Grid(
                program,
                self.memory,
                grid=launch.grid,
                block=launch.block,
                cluster=launch.cluster,
                shared_bytes=launch.shared_bytes,
                parameter_base=base,
                schedule=self.schedule(),
                deadline=deadline,
                observer=self.observer() if self.observer else None,
                pdl=launch.pdl,
                gpu=self.gpu,
                progress=self.progress,
                printf=self.printf,
                variables=self._module_variables(launch, program).addresses,
            )
            try:
                report.processes = run_grid(grid, self.processes)
            finally:
                report.counters = grid.counters
                report.notes = grid.notes
                report.seconds = time.perf_counter() - started

    def _program(self, launch: Launch) -> Program:
        key = (id(launch.ptx), launch.entry)
        if key not in self._programs:
            kernels = parse(launch.ptx)
            if launch.entry not in kernels:
                raise Unsupported(
                    f"the PTX module has no entry {launch.entry!r} (it has {', '.join(kernels)})"
                )
            self._programs[key] = (
                launch.ptx,
                decode_kernel(kernels[launch.entry]),
            )  # keeps the text, and so its id, alive
        return self._programs[key][1]

    def _module_variables(self, launch: Launch, program: Program) -> ModuleVariables:
        """The `.global` and `.const` variables of the launch's module, loaded once."""
        key = id(launch.ptx)
        if key not in self._variables:
            self._variables[key] = ModuleVariables(program.kernel.variables, self.memory)
        return self._variables[key]

    @contextlib.contextmanager
    def _parameters(self, launch: Launch, program: Program) -> Iterator[int]:
        """The launch's parameter block in device memory (aligned for tensor maps) while the kernel runs."""
        declared = program.kernel.parameters
        values = launch.parameter_values()
        if len(values) != len(declared):
            raise Fault(
                "launch_parameters", f"{len(values)} kernel arguments, the kernel declares {len(declared)}"
            )
        size = max((p.offset + p.size for p in declared), default=0)
        room = np.zeros(size + 128, np.uint8)
        shift = -room.ctypes.data % 128
        for parameter, value in zip(declared, values, strict=True):
            start = shift + parameter.offset
            room[start : start + parameter.size] = np.frombuffer(value, np.uint8)
        base = room.ctypes.data + shift
        self.memory.add("kernel parameters", base, max(size, 1), writable=False)
        try:
            yield base
        finally:
            self.memory.remove(base)
