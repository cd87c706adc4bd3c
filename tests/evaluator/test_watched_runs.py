"""Sanitized and profiled runs that misbehave: every case gets its verdict, the evaluator stays up."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from misbehaving import MISBEHAVING, case_line

from b200sim.sanitizer import Finding, Report
from b200sim.sanitizer.report import Explored
from evaluator import profiles, sanitizing, session
from evaluator.attachment import Attachment, fill
from evaluator.cases import parse_line
from evaluator.channel import BadMessage
from evaluator.messages import Ran, parse_reply
from evaluator.observed import Profiled
from evaluator.options import Options, Sanitize
from evaluator.results import CaseResult, RunResult
from evaluator.verdict import Status

EXPECTED = {
    "right": Status.PASS,
    "prints_much": Status.PASS,
    "one_element_wrong": Status.WRONG_RESULT,
    "writes_nothing": Status.WRONG_RESULT,
    "changes_input": Status.INPUT_CHANGED,
    "os_exit": Status.EXITED,
    "hangs": Status.TIMEOUT,
    "segfaults": Status.CRASHED,
    "forges_messages": Status.PROTOCOL,
}


def evaluate(folder: Path, names: list[str], **options: Any) -> RunResult:
    submission = folder / "mine.py"
    submission.write_text(MISBEHAVING)
    cases = tuple(replace(parse_line(case_line(name)), name=name) for name in names)
    return session.evaluate(Options(submission=submission, cases=cases, timeout=5.0, **options))


@pytest.mark.heavy
def test_a_sanitized_run_survives_its_submission(tmp_path: Path) -> None:
    asked = Sanitize(schedules=2, trace=tmp_path / "trace.json")
    run = evaluate(tmp_path, list(EXPECTED), mode="test", sanitize=asked)
    assert {result.case.name: result.verdict.status for result in run.results} == EXPECTED
    values = {result.case.name: list(result.sanitized.values.values()) for result in run.results}
    assert values["right"] == ["right", "right"]
    assert values["os_exit"] == ["no answer"], "its other orders are not tried"
    assert len(values["one_element_wrong"]) == 2
    assert all(len(result.verdict.detail) < 20_000 for result in run.results)
    assert asked.trace is not None and asked.trace.read_text().startswith('{"traceEvents"')
    assert session.exit_code(run) == 112


@pytest.mark.heavy
def test_a_profile_survives_its_submission(tmp_path: Path) -> None:
    names = ["os_exit", "hangs", "segfaults"]
    run = evaluate(tmp_path, names, mode="profile", device="sim")
    assert [result.verdict.status for result in run.results] == [EXPECTED[name] for name in names]
    assert [figures["error"].split(":")[0] for figures in run.profiles] == [EXPECTED[n].value for n in names]
    assert session.exit_code(run) == 112


# -- what may cross -----------------------------------------------------------------------------------------

SIDE = {
    "kind": "ld", "operand": "", "what": "ld.shared.b32", "by": "CTA (0,0,0) warp 1", "warp": 1,
    "where": "shared memory", "source": "submission.py:12", "ptx_line": 40, "time": 7,
    "ptx": "ld.shared.b32 %r1, [%r2];",
}  # fmt: skip
FINDING = {
    "code": "shared_race", "severity": "error", "message": "two threads", "missing": "a barrier",
    "between": "no order", "rule": "", "detail": "",
    "kernel": "k", "launch": 0, "schedule": "eager", "count": 3,
    "ctas": ["CTA (0,0,0)"],
    "first": SIDE, "second": {**SIDE, "kind": "st"},
}  # fmt: skip
EXPLORED = {"schedule": "eager", "outcome": "ran", "launches": 1, "turns": 5, "operations": 2, "signature": 9}


def told(findings: list[Any], schedules: list[Any]) -> Ran:
    sanitizer = {"findings": findings, "schedules": schedules}
    reply = parse_reply(
        {"is": "ran", "container": "list", "outputs": [], "seconds": 0, "sanitizer": sanitizer}
    )
    assert isinstance(reply, Ran)
    return reply


def test_findings_cross_as_they_are_and_add_up() -> None:
    reply = told([FINDING], [EXPLORED])
    assert reply.sanitizer is not None
    report = sanitizing.read(reply.sanitizer)
    assert [finding.as_dict() for finding in report.findings] == [Finding.from_dict(FINDING).as_dict()]
    assert report.explored == [Explored("eager", "ran", 1, 5, 2, 9)]
    other = sanitizing.read(told([{**FINDING, "ctas": ["CTA (1,0,0)"]}], [EXPLORED]).sanitizer)  # type: ignore[arg-type]
    results = []
    for each in (report, other):
        results.append(CaseResult(parse_line(case_line("right")), 0))
        results[-1].sanitized = sanitizing.Outcome(each)
    for _ in range(2):  # adding up changes nothing
        whole = sanitizing.whole(results)
        (finding,) = whole.findings
        assert finding.count == 6 and len(finding.ctas) == 2 and len(whole.explored) == 2
    assert "submission.py:12" in whole.text() and "ERROR shared_race, 6 times in 2 CTAs" in whole.text()


def test_all_that_a_finding_says_crosses() -> None:
    reply = told([FINDING], [EXPLORED])
    assert reply.sanitizer is not None
    said = Finding("shared_race", "x").as_dict()
    derived = {"severity", "rule"}  # from the code, on this side
    assert set(reply.sanitizer.findings[0]) == set(said) - derived
    assert set(reply.sanitizer.schedules[0]) == set(Explored("eager").as_dict())


def test_a_hazard_nobody_knows_is_refused() -> None:
    reply = told([{**FINDING, "code": "made_up"}], [EXPLORED])
    with pytest.raises(BadMessage, match="made_up"):
        sanitizing.read(reply.sanitizer)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("findings", "schedules"),
    [
        ([FINDING] * 201, [EXPLORED]),
        (["no object"], [EXPLORED]),
        ([{**FINDING, "count": -1}], [EXPLORED]),
        ([{**FINDING, "first": {**SIDE, "time": "soon"}}], [EXPLORED]),
        ([{**FINDING, "ctas": ["x"] * 257}], [EXPLORED]),
        ([], [EXPLORED] * 2),
        ([], [{**EXPLORED, "turns": 1 << 70}]),
    ],
)
def test_findings_out_of_bounds_are_refused(findings: list[Any], schedules: list[Any]) -> None:
    with pytest.raises(BadMessage):
        told(findings, schedules)


def test_text_cannot_move_the_cursor() -> None:
    reply = told([{**FINDING, "message": "a\x1b[2Jb\nc"}], [EXPLORED])
    assert reply.sanitizer is not None and reply.sanitizer.findings[0]["message"] == "a?[2Jb\nc"


def test_figures_cross_bounded_and_malformed_ones_are_no_profile() -> None:
    deep: Any = 1
    for _ in range(12):
        deep = [deep]
    for figures in ({"x": deep}, {"x": [0] * 60_000}, {"x": float("inf")}, {"x": 1 << 70}, []):
        with pytest.raises(BadMessage):
            parse_reply({"is": "profiled", "figures": figures, "timelines": []})
    span = {"start": 0.0, "end": 2.5, "label": "[0]"}
    line = {"sms": [0, 1], "tiles": [span], "stores": []}
    reply = parse_reply({"is": "profiled", "figures": {"sizes": [1], "launches": 1}, "timelines": [line]})
    assert reply == Profiled({"sizes": [1], "launches": 1}, (line,))
    with pytest.raises(BadMessage):
        parse_reply({"is": "profiled", "figures": {}, "timelines": [{**line, "tiles": [{"start": 0.0}]}]})
    assert profiles.text("case", {"sizes": 7}) == ""
    assert profiles.text("case", {"sizes": [1], "launches": "many", "host_us": {"call": 1.0}}) != ""


def test_an_attachment_is_bounded() -> None:
    room = Attachment(10)
    try:
        assert fill(os.dup(room.fd), b"trace", 10) == 5
        assert room.read(5) == b"trace" and len(room.read(1 << 40)) == 10
        with pytest.raises(ValueError, match="room for 10"):
            fill(os.dup(room.fd), b"x" * 11, 10)
        with pytest.raises(PermissionError):
            os.ftruncate(room.fd, 11)
    finally:
        room.close()


def test_a_report_merges_without_a_trace_of_its_parts() -> None:
    whole = Report()
    whole.merge(Report(explored=[Explored("eager")]))
    assert whole.ok and [entry.schedule for entry in whole.explored] == ["eager"]
