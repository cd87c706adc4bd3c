"""Run one defect under the sanitizer: what it finds, and what the values alone would have told."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from b200sim.faults import Fault
from b200sim.gpus import B200
from b200sim.machine.schedule import ProgramOrder, Schedule
from b200sim.sanitizer import Findings, Sanitizer
from tests.sanitizer import corpus_kernel
from tests.sanitizer.corpus_ptx import PtxDefect

SECONDS = 60.0
VICTIM = Path(__file__).parent / "victim.py"
Make = Callable[[], Schedule]


@dataclass
class Outcome:
    """`values`: "right", "wrong", or the simulator's fault code."""

    findings: Findings
    values: str


def run_ptx(defect: PtxDefect, schedule: Make = ProgramOrder) -> Outcome:
    arrays, expected = defect.data()
    grid = defect.grid(arrays, schedule())
    findings = Findings()
    grid.observer = Sanitizer(findings)
    return Outcome(findings, _values(grid.run, lambda: np.array_equal(arrays[-1], expected)))


def run_kernel(
    source: str, schedule: Make = ProgramOrder, case: dict | None = None, sms: int | None = None
) -> Outcome:
    """`source`: text of a submission, run on `corpus_kernel.CASE`."""
    import torch

    from b200sim.device import SimulatedDevice
    from evaluator import problem
    from tests.mutations.run import load

    case = case or corpus_kernel.CASE
    data, expected = _problem(tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in case.items()))
    data = [
        [tuple(t.clone() for t in tensors) for tensors in data[i]] if i in (0, 2) else data[i]
        for i in range(4)
    ]
    findings = Findings()
    with (
        tempfile.TemporaryDirectory() as folder,
        SimulatedDevice(
            schedule,
            time_limit=SECONDS,
            observer=lambda: Sanitizer(findings),
            gpu=B200.with_sms(sms or corpus_kernel.SMS),
        ) as device,
    ):
        with device.paused():
            placed = problem.on_device(device, data)
        module = load(source, Path(folder))
        output: list[torch.Tensor] = []

        def call() -> None:
            output.extend(module.custom_kernel(placed))

        def right() -> bool:
            with device.paused():
                return all(torch.equal(o, e) for o, e in zip(output, expected, strict=True))

        values = _values(call, right)
    return Outcome(findings, values)


def _values(call: Callable[[], object], right: Callable[[], bool]) -> str:
    try:
        call()
    except Fault as fault:
        return fault.code
    return "right" if right() else "wrong"


@functools.cache
def _problem(case: tuple):  # type: ignore[no-untyped-def, type-arg]
    import reference

    arguments = {k: list(v) if isinstance(v, tuple) else v for k, v in case}
    data = reference.generate_input(**arguments, g=len(arguments["m"]), device="cpu")
    return data, [c.clone() for c in reference.ref_kernel(data)]


def mutated(defect: corpus_kernel.KernelDefect) -> str:
    source = VICTIM.read_text()
    assert source.count(defect.find) == 1, f"{defect.name}: {source.count(defect.find)} places match"
    return source.replace(defect.find, defect.replace)
