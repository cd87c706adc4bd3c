"""Submissions that cannot be loaded get one verdict for all cases, at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from misbehaving import PASSING

from evaluator import processes, session
from evaluator.cases import parse_line
from evaluator.judge import Judge, jobs_for
from evaluator.options import Options
from evaluator.results import RunResult
from evaluator.verdict import Status

CASES = tuple(parse_line(f"m: [{m}]; n: [8]; k: [64]; g: 1; seed: {m}") for m in (1, 2, 3))


def run(folder: Path, text: str, **options: object) -> RunResult:
    submission = folder / "anything.py"
    submission.write_text(text)
    settings = {"mode": "test", "device": "cpu", "cases": CASES, "jobs": 1, "timeout": 20.0, **options}
    return session.evaluate(Options(submission=submission, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("import no_such_module_anywhere", Status.IMPORT_ERROR, "No module named 'no_such_module_anywhere'"),
        ("def custom_kernel(data:\n", Status.IMPORT_ERROR, "SyntaxError"),
        ("def other(data): ...", Status.NO_ENTRY, "has no custom_kernel"),
        ("custom_kernel = 3", Status.NO_ENTRY, "is a int"),
        ("import sys; sys.exit(0)", Status.EXITED, "sys.exit(0)"),
        ("import os; os._exit(0)", Status.EXITED, "code 0 while it was imported"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", Status.CRASHED, "SIGKILL"),
    ],
)
def test_what_cannot_be_loaded(tmp_path: Path, text: str, status: Status, said: str) -> None:
    result = run(tmp_path, text)
    assert {r.verdict.status for r in result.results} == {status}
    assert said in result.results[0].verdict.message
    assert sum(r.fresh_worker for r in result.results) == 1, "a hopeless submission is loaded once"


def test_an_import_that_hangs_is_stopped(tmp_path: Path) -> None:
    result = run(tmp_path, "import time\ntime.sleep(600)\n", timeout=1.0)
    assert result.results[0].verdict.status is Status.TIMEOUT
    assert "while it was imported" in result.results[0].verdict.message
    assert result.wall_seconds < 60


def test_the_submission_sees_neither_secrets_nor_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POPCORN_SEED", "123456")
    (tmp_path / "neighbour.py").write_text("")
    text = PASSING + (
        "\nimport os, sys\n"
        "from task import input_t, output_t\n"
        "assert not [name for name in os.environ if name.startswith('POPCORN')]\n"
        "assert sorted(os.listdir('.')) == ['submission.py', 'task.py'], os.listdir('.')\n"
        "assert __name__ == 'submission' and sys.modules['submission'].__dict__ is globals()\n"
    )
    result = run(tmp_path, text, cases=CASES[:1])
    assert result.passed, result.results[0].verdict


def test_a_missing_submission_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(session.UsageError, match=r"nothing\.py"):
        session.evaluate(Options(mode="test", device="cpu", submission=tmp_path / "nothing.py"))


def test_a_worker_that_cannot_start_is_the_evaluators_fault(tmp_path: Path) -> None:
    class Quiet:
        def stage(self, *_: object) -> None: ...

        def finished(self, *_: object) -> None: ...

    submission = tmp_path / "mine.py"
    submission.write_text(PASSING)
    jobs = jobs_for(CASES, lambda case: 20.0, None)
    with processes.sandbox(submission) as place:
        Judge(place, "no such device", Quiet()).run(jobs, 1)
    assert {job.result.verdict.status for job in jobs} == {Status.JUDGE_ERROR}
    assert "unknown device" in jobs[0].result.verdict.detail
