"""`eval.py --mode test --sanitize`: the cases on the simulated B200, every launch under the sanitizer.

A tool for the kernel's author, who trusts the submission: it runs in this process, without a judge, and one
compilation serves all schedules of a case.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import reference
from b200sim.device import SimulatedDevice
from b200sim.gpus import B200, Gpu
from b200sim.machine.schedule import exploration
from b200sim.sanitizer import Report, Session, Trace
from evaluator import problem, session
from evaluator.cases import Case
from evaluator.options import Options
from evaluator.serving import load_submission
from evaluator.verdict import ExitCode


@dataclass(frozen=True)
class Asked:
    """schedules, seed: how many schedules per case, and from which seed the random ones go on; `names` picks
    schedules by name instead (a replay). trace: where the first case's first schedule goes."""

    schedules: int = 1
    seed: int = 0
    names: tuple[str, ...] = ()
    trace: Path | None = None
    gpu: Gpu = B200

    def of_case(self) -> list[str]:
        return list(self.names) or exploration(self.schedules, self.seed)


@dataclass
class Outcome:
    """A case: what its values were under each schedule, and what was found."""

    case: Case
    report: Report
    values: dict[str, str] = field(default_factory=dict)  # schedule -> "right", what is wrong, or a fault
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return self.report.ok and all(value == "right" for value in self.values.values())


def evaluate(options: Options, asked: Asked) -> ExitCode:
    """Run, and print the report. 112 if a value is wrong or the sanitizer finds an error."""
    if not options.submission.is_file():
        raise session.UsageError(f"no submission at {options.submission}")
    task = session.load_task(session.processes.ROOT / "task.yml")
    cases = session.select(options.cases or session.default_cases(options.mode, task), options.only)
    trace = Trace() if asked.trace else None
    torch.set_num_threads(1)
    with SimulatedDevice(time_limit=options.timeout or 180.0, gpu=asked.gpu) as device:
        try:
            kernel = load_submission(options.submission.resolve()).custom_kernel
        except Exception as error:
            print(f"cannot load {options.submission}: {error!r}", file=sys.stderr)
            return ExitCode.CHECK_FAILED
        outcomes = [
            _run(device, kernel, case, asked, trace if not i else None) for i, case in enumerate(cases)
        ]
    whole = _merged(outcomes)
    print(f"\n{whole.text()}")
    passed = all(outcome.passed for outcome in outcomes)
    print(f"{'PASS' if passed else 'FAIL'}: {sum(o.passed for o in outcomes)} of {len(outcomes)} cases")
    if trace is not None and asked.trace is not None:
        trace.write(asked.trace)
        print(f"trace: {asked.trace} (open in ui.perfetto.dev or chrome://tracing)")
    if options.json:
        options.json.write_text(json.dumps(_record(outcomes, whole), indent=1))
    return ExitCode.OK if passed else ExitCode.CHECK_FAILED


def _run(
    device: SimulatedDevice, kernel: Callable[[Any], Any], case: Case, asked: Asked, trace: Trace | None
) -> Outcome:
    started = time.monotonic()
    with device.paused():
        inputs = reference.generate_input(**case.arguments(), device="cpu")
        data = problem.on_device(device, inputs)
    watched = Session(trace.observer if trace else None)
    outcome = Outcome(case, watched.report)
    for name in asked.of_case():
        with device.paused():
            for _, _, c in data[0]:
                c.view(torch.int16).fill_(-1)  # NaN: what the kernel does not write shows
        value = "ended by a fault"
        with watched.on_device(device, name) as explored:
            output = kernel(data)
            with device.paused():
                right, message = reference.check_implementation(data, output)
            value = "right" if right else message.splitlines()[0]
        outcome.values[name] = value if explored.outcome == "ran" else f"fault {explored.outcome}"
        watched.extra = None  # a trace of one schedule is long enough
    outcome.seconds = time.monotonic() - started
    print(_line(outcome), flush=True)
    return outcome


def _line(outcome: Outcome) -> str:
    wrong = [f"{name}: {value}" for name, value in outcome.values.items() if value != "right"]
    values = "values right" if not wrong else f"values wrong under {len(wrong)} schedules ({wrong[0]})"
    status = "PASS" if outcome.passed else "FAIL"
    return f"{status:5} {outcome.case.name:16} {outcome.report.summary()}; {values}; {outcome.seconds:.1f} s"


def _merged(outcomes: list[Outcome]) -> Report:
    whole = Report()
    for outcome in outcomes:
        whole.findings.merge(outcome.report.findings)
        whole.explored += outcome.report.explored
    return whole


def _record(outcomes: list[Outcome], whole: Report) -> dict[str, Any]:
    cases = [
        {
            "case": outcome.case.name,
            "spec": outcome.case.spec,
            "passed": outcome.passed,
            "values": outcome.values,
            "seconds": outcome.seconds,
            **outcome.report.as_dict(),
        }
        for outcome in outcomes
    ]
    return {
        "passed": all(outcome.passed for outcome in outcomes),
        "sanitizer": whole.as_dict(),
        "cases": cases,
    }


__all__ = ["Asked", "evaluate"]
