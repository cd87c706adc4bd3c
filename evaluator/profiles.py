"""Profiles of a submission on the simulated B200: counted in workers, shown and drawn here.

What comes back is numbers and text of a process that belongs to the submission: bounded, and if it does not
read as a profile, said to be none.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evaluator import progress
from evaluator.cases import Case
from evaluator.handle import Worker
from evaluator.judge import Job, Judge
from evaluator.messages import Failed
from evaluator.observed import Profiled
from evaluator.results import CaseResult
from evaluator.verdict import Status, Verdict

NEEDS_MATPLOTLIB = "--plot needs matplotlib: pip install 'nvfp4-group-gemm[plot]'"
Stage = Callable[[str], None]


def can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


class ProfiledPart:
    """The work of one job: the command `profile` or `host` for one case."""

    def __init__(self, case: Case, command: str, limit: float) -> None:
        self.case, self.command, self.limit = case, command, limit
        self.figures: dict[str, Any] = {}
        self.timelines: tuple[dict[str, Any], ...] = ()

    def __call__(self, worker: Worker, stage: Stage) -> Verdict:
        """Raises `WorkerFailure`."""
        sizes = [list(size) for size in zip(self.case.m, self.case.n, self.case.k, strict=True)]
        doing = "counting" if self.command == "profile" else "timing the host's part"
        stage(doing)
        reply = worker.request(
            {"do": self.command, "sizes": sizes},
            self.limit,
            on_progress=lambda text: stage(f"{doing} {text}"),
        )
        if isinstance(reply, Failed):
            return Verdict(reply.status, reply.message, reply.detail)
        if not isinstance(reply, Profiled):
            return Verdict(Status.PROTOCOL, "the worker broke the protocol: expected `profiled`")
        self.figures, self.timelines = reply.figures, reply.timelines
        return Verdict(Status.PASS)


def gather(
    place: Path, cases: Sequence[Case], limit: Callable[[Case], float], lanes: int
) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """Figures of each case, as `profiling` documents them, or {"error": ...}; and their timelines.

    Says on standard output how far it is. An exception kills everything.
    `place` is a `processes.sandbox`. Counts come from `lanes` workers at a time; host times are taken one by
    one afterwards, so that they do not disturb each other.
    """
    if importlib.util.find_spec("profiling") is None:
        return [{"error": "the package `profiling` is not here"}] * len(cases), [[]] * len(cases)
    counted = _each(place, cases, "profile", limit, lanes)
    sound = [case for case, (part, _) in zip(cases, counted, strict=True) if part.figures]
    timed = {
        part.case: part.figures or {"error": said} for part, said in _each(place, sound, "host", limit, 1)
    }
    figures = [_joined(part, said, timed.get(part.case, {})) for part, said in counted]
    return figures, [list(part.timelines) for part, _ in counted]


def _each(
    place: Path, cases: Sequence[Case], command: str, limit: Callable[[Case], float], lanes: int
) -> list[tuple[ProfiledPart, str]]:
    """All cases' parts, and why each failed ("" if it did not)."""
    parts = [ProfiledPart(case, command, limit(case)) for case in cases]
    results = [CaseResult(case, index) for index, case in enumerate(cases)]
    jobs = [Job(result, part.limit, work=part) for result, part in zip(results, parts, strict=True)]
    if jobs:
        with progress.display(lambda result: _line(command, result), len(jobs)) as shown:
            Judge(place, "profile", shown).run(jobs, min(lanes, len(jobs)))
    return [
        (part, "" if result.verdict.passed else f"{result.verdict.label}: {result.verdict.message}")
        for part, result in zip(parts, results, strict=True)
    ]


def _line(command: str, result: CaseResult) -> str:
    what = {"profile": "counted", "host": "host's part timed"}[command]
    if not result.verdict.passed:
        what = f"{result.verdict.label}, {result.verdict.message[:200]}"
    return f"{result.case.name}: {what}, {sum(result.seconds.values()):.1f} s"


def _joined(part: ProfiledPart, said: str, host: dict[str, Any]) -> dict[str, Any]:
    if said:
        return {"error": said}
    if "error" in host:
        return {"error": f"host time: {host['error']}"}
    figures = {**part.figures, "host_us": host}
    return figures if text("", figures) else {"error": "what came back does not read as a profile"}


def text(name: str, figures: dict[str, Any]) -> str:
    """A profile for human eyes; "" if these are not the figures of one."""
    if "error" in figures:
        return f"{name}: no profile: {figures['error']}"
    from profiling.text import report

    try:
        return report(name, figures)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return ""


def draw(
    path: Path, cases: Sequence[Case], figures: list[dict[str, Any]], timelines: list[list[dict[str, Any]]]
) -> str:
    """A picture of the cases that have timelines; "" or why there is none."""
    from profiling import plot
    from profiling.replay import Timeline

    drawn = [
        (case.name, known, [Timeline.from_dict(record) for record in records])
        for case, known, records in zip(cases, figures, timelines, strict=True)
        if "error" not in known and records
    ]
    if not drawn:
        return "no picture: no case launched a kernel"
    try:
        plot.draw(path, drawn)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        return f"no picture: {type(error).__name__}: {error}"
    return ""
