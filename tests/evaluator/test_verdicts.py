"""One run over a submission that misbehaves in every case: each gets its own verdict, the others go on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from misbehaving import BEHAVIOURS, MISBEHAVING, case_line

from evaluator import report, session
from evaluator.cases import parse_line
from evaluator.options import Options
from evaluator.reasons import Reason
from evaluator.results import CaseResult, RunResult
from evaluator.verdict import ExitCode, Status

HANG_LIMIT = 5.0


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the run makes its temporary files."""
    tempfile.tempdir = str(tmp_path_factory.mktemp("workplace"))
    yield Path(tempfile.tempdir)
    tempfile.tempdir = None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, workplace: Path) -> RunResult:
    submission = tmp_path_factory.mktemp("submission") / "mine.py"
    submission.write_text(MISBEHAVING)
    cases = tuple(replace(parse_line(case_line(name)), name=name) for name in BEHAVIOURS)
    return session.evaluate(
        Options(mode="test", device="cpu", submission=submission, cases=cases, timeout=HANG_LIMIT)
    )


def result_of(run: RunResult, name: str) -> CaseResult:
    return next(result for result in run.results if result.case.name == name)


@pytest.mark.parametrize("name", ["right", "prints_much", "fresh_tensors"])
def test_right_results_pass_bit_exactly(run: RunResult, name: str) -> None:
    result = result_of(run, name)
    assert result.verdict.status is Status.PASS, result.verdict
    assert result.inexact == 0
    assert result.elements == sum(m * n for m, n in zip(result.case.m, result.case.n, strict=True))


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("one_element_wrong", Status.WRONG_RESULT, "group 1"),
        ("nan", Status.WRONG_RESULT, "group 0"),
        ("writes_nothing", Status.WRONG_RESULT, "never written"),
        ("last_rows_missing", Status.WRONG_RESULT, "never written"),
        ("missing_group", Status.BAD_OUTPUT, "1 outputs for 2 groups"),
        ("wrong_dtype", Status.BAD_OUTPUT, "float32, expected float16"),
        ("returns_none", Status.BAD_OUTPUT, "NoneType"),
        ("returns_input", Status.BAD_OUTPUT, "a[0]"),
        ("wrong_shape", Status.BAD_OUTPUT, "expected [16, 16, 1]"),
        ("subclass", Status.BAD_OUTPUT, "Lazy"),
        ("same_twice", Status.BAD_OUTPUT, "output 1"),
        ("broadcast", Status.BAD_OUTPUT, "strides"),
        ("changes_input", Status.INPUT_CHANGED, "b[1]"),
        ("raises", Status.RAISED, "ValueError: k = 64 is not supported"),
        ("hostile_exception", Status.RAISED, "Hostile"),
        ("sys_exit", Status.EXITED, "sys.exit(0)"),
        ("os_exit", Status.EXITED, "code 0"),
        ("hangs", Status.TIMEOUT, "in hangs"),
        ("segfaults", Status.CRASHED, "SIGSEGV"),
        ("forges_messages", Status.PROTOCOL, "JSON list"),
    ],
)
def test_each_misbehaviour_has_its_verdict(run: RunResult, name: str, status: Status, said: str) -> None:
    verdict = result_of(run, name).verdict
    assert verdict.status is status, verdict
    if name == "wrong_shape":
        said = f"expected [{BEHAVIOURS.index(name) + 1}, 16, 1]"
    assert said in verdict.message


def test_a_traceback_shows_the_submission_and_nothing_of_the_evaluator(run: RunResult) -> None:
    detail = result_of(run, "raises").verdict.detail
    assert 'File "submission.py"' in detail
    assert 'raise ValueError("k = 64' in detail
    assert "evaluator" not in detail


def test_a_crash_names_the_line(run: RunResult) -> None:
    assert "at submission.py:" in result_of(run, "segfaults").verdict.message


def test_nothing_is_left_of_a_daemon(run: RunResult) -> None:
    verdict = result_of(run, "leaves_daemon").verdict
    assert verdict.status is Status.UNFAIR and verdict.because is Reason.SURVIVOR
    assert verdict.message == "2 processes outlived custom_kernel: sleep, sleep"
    assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if b"98765" in _read(p)]


def test_a_failed_run_says_so(run: RunResult) -> None:
    assert not run.passed
    assert session.exit_code(run) is ExitCode.CHECK_FAILED
    assert run.count_passed() == 3


def test_the_report_tells_every_failure(run: RunResult) -> None:
    told = report.failures(run)
    for result in run.results:
        assert (f"{result.case.name}: {result.verdict.status.value}" in told) is not result.verdict.passed


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_the_private_copies_are_gone(run: RunResult, workplace: Path) -> None:
    assert run.results
    assert list(workplace.iterdir()) == []
