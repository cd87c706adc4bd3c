"""`eval.py --mode test --sanitize`: every case under several orders of events, its launches watched.

The judge's side: values are judged as in any run, under each order; findings come from the worker as checked
fields and are added up here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from b200sim.machine.schedule import exploration, schedule
from b200sim.sanitizer import Finding, Report
from b200sim.sanitizer.codes import HAZARDS
from b200sim.sanitizer.report import Explored
from evaluator import conduct, problem, simulated
from evaluator.arena import Arena
from evaluator.attachment import Attachment
from evaluator.cases import Case
from evaluator.channel import BadMessage
from evaluator.handle import Worker
from evaluator.judge import Job
from evaluator.messages import Failed, Ran, Written
from evaluator.observed import Sanitized
from evaluator.options import Sanitize
from evaluator.results import CaseResult
from evaluator.sanitized import Outcome
from evaluator.verdict import Status, Verdict

_TRACE_BYTES = 1 << 30
Stage = Callable[[str], None]


class SanitizedCase:
    """The work of one job: all orders of one case on one worker, which compiles once."""

    def __init__(self, result: CaseResult, schedules: list[str], limit: float, trace: Path | None) -> None:
        self.result, self.schedules, self.limit, self.trace = result, schedules, limit, trace
        self.outcome = result.sanitized = Outcome()

    def __call__(self, worker: Worker, stage: Stage) -> Verdict:
        """The first verdict that is no pass, else what the findings say. Raises `WorkerFailure`."""
        data = problem.generate(self.result.case, "sim")
        truth = problem.Truth(data)
        verdicts: dict[str, Verdict] = {}
        for name in self.schedules:
            stage(f"order {len(verdicts) + 1} of {len(self.schedules)}, {name}")
            self.outcome.values[name] = "no answer"
            verdict = self._run(worker, name, data, truth, stage)
            verdicts[name] = verdict
            self.outcome.values[name] = "right" if verdict.passed else verdict.message
            if self.trace is not None and name == self.schedules[0]:
                self._fetch_trace(worker, self.trace)
        return self._concluded(verdicts)

    def _run(self, worker: Worker, name: str, data: Any, truth: problem.Truth, stage: Stage) -> Verdict:
        poison = problem.poison_word()
        arena = Arena(data)
        try:
            arena.poison_outputs(poison)
            first = name == self.schedules[0]
            command = {
                "do": "sanitize",
                "schedule": name,
                "trace": self.trace is not None and first,
                "limit": 0.9 * self.limit,
                "word": poison,
            }
            worker.printed()
            reply = worker.request(command, self.limit, arena, lambda text: stage(f"{name} {text}"))
            if first:
                self.result.printed = worker.printed()
            if not isinstance(reply, (Ran, Failed)) or reply.sanitizer is None:
                return Verdict(Status.PROTOCOL, "the worker broke the protocol: expected `sanitizer`")
            self.result.launches = self.result.launches or reply.launches
            try:
                self.outcome.report.merge(read(reply.sanitizer))
            except BadMessage as error:
                return Verdict(Status.PROTOCOL, f"the worker broke the protocol: {error}")
            if isinstance(reply, Failed):
                return conduct.failed(reply)
            alive = conduct.survivors(worker.survivors())
            checked = problem.check(data, arena, reply, poison, "sim", truth)
            self.result.elements = checked.elements
            self.result.inexact = max(self.result.inexact or 0, checked.inexact or 0)
            return alive or checked.verdict
        finally:
            arena.close()

    def _concluded(self, verdicts: dict[str, Verdict]) -> Verdict:
        failed = [(name, verdict) for name, verdict in verdicts.items() if not verdict.passed]
        if failed:
            name, verdict = failed[0]
            under = f"under {name}" + (f" and {len(failed) - 1} more orders" if len(failed) > 1 else "")
            return Verdict(verdict.status, f"{under}: {verdict.message}", verdict.detail, verdict.because)
        errors = self.outcome.report.findings.errors
        if errors:
            return Verdict(Status.HAZARD, f"the values are right, but: {errors[0].code}: {errors[0].message}")
        return Verdict(Status.PASS)

    def _fetch_trace(self, worker: Worker, path: Path) -> None:
        room = Attachment(_TRACE_BYTES)
        try:
            reply = worker.request({"do": "trace"}, self.limit, room)
            content = room.read(reply.nbytes) if isinstance(reply, Written) else b""
        finally:
            room.close()
        if isinstance(reply, Failed):
            self.outcome.trace = f"no trace: {reply.message}"
            return
        try:
            events = json.loads(content)["traceEvents"]
        except (ValueError, RecursionError, TypeError, KeyError):
            self.outcome.trace = "no trace: what came back is none"
            return
        path.write_bytes(content)
        self.outcome.trace = (
            f"trace: {path}, {len(events)} events (open in ui.perfetto.dev or chrome://tracing)"
        )


def target(asked: Sanitize, gpu: simulated.Gpu) -> str:
    """The device that workers open. Raises `ValueError` for SMs, orders or folders that are not there."""
    for name in asked.names:
        schedule(name)
    if asked.trace and not asked.trace.absolute().parent.is_dir():
        raise ValueError(f"--trace {asked.trace}: there is no such folder")
    return simulated.target(gpu, asked.sms or gpu.sm_count)


def jobs(cases: Sequence[Case], asked: Sanitize, limit: Callable[[Case], float]) -> list[Job]:
    """One job per case; the first leaves the trace."""
    names = list(asked.names) or exploration(asked.schedules, asked.seed)
    made = []
    for index, case in enumerate(cases):
        result, trace = CaseResult(case, index), None if index else asked.trace
        made.append(Job(result, limit(case), work=SanitizedCase(result, names, limit(case), trace)))
    return made


def read(told: Sanitized) -> Report:
    """A report as a worker told it. Raises `BadMessage` for a hazard that nobody knows."""
    report = Report(explored=[Explored(**record) for record in told.schedules])
    for record in told.findings:
        if record["code"] not in HAZARDS:
            raise BadMessage(f"unknown hazard {record['code'][:60]!r}")
        report.findings.add(Finding.from_dict(record))
    return report


def whole(results: Sequence[CaseResult]) -> Report:
    """The findings of all cases."""
    merged = Report()
    for result in results:
        if result.sanitized is not None:
            merged.merge(result.sanitized.report)
    return merged
