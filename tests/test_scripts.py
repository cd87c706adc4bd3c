"""`scripts/official` and `scripts/honest`: what they call equal, and what they call a flag."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return loaded("official", monkeypatch)


def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of a script; its dataclasses need a module of its name."""
    monkeypatch.setitem(sys.modules, "script", type(sys)("script"))
    return runpy.run_path(str(ROOT / "scripts" / name), run_name="script")


THEIRS = (("test-count", "1"), ("test.0.spec", "m: [8]"), ("test.0.status", "pass"), ("check", "pass"))


@pytest.mark.parametrize(
    ("ours", "code", "good", "said"),
    [
        ((("env.device", "x"), *THEIRS), 0, True, "equal (4)"),
        (THEIRS, 112, False, "| 0, 112 |"),
        ((*THEIRS[:3], ("check", "fail")), 0, False, "DIFFER"),
        ((*THEIRS[:2], *THEIRS[3:]), 0, False, "differ: test.0.status"),
        ((THEIRS[1], THEIRS[0], *THEIRS[2:]), 0, False, "in their order"),
    ],
)
def test_keys_are_compared_one_by_one(
    official: dict[str, Any], ours: tuple[tuple[str, str], ...], code: int, good: bool, said: str
) -> None:
    ran = official["Ran"]
    row, agrees = official["compare"]("test", ran(0, THEIRS, ""), ran(code, ours, ""))
    assert agrees is good and said in row


def test_an_official_run_without_a_verdict_is_shown_with_its_last_words(official: dict[str, Any]) -> None:
    ran = official["Ran"]
    row, _ = official["compare"]("benchmark", ran(1, (), "RuntimeError: no memory"), ran(0, THEIRS, ""))
    assert "ended before `check` (0 keys): RuntimeError: no memory" in row


def test_the_folder_is_the_runners_with_the_official_files_in_place(
    official: dict[str, Any], tmp_path: Path
) -> None:
    for name in ("theirs.py", "helpers.py"):
        (tmp_path / name).write_text(f"# {name}\n")
    folder = tmp_path / "flat"
    folder.mkdir()
    official["lay_out"](folder, ROOT / "submission.py", (tmp_path / "theirs.py", tmp_path / "helpers.py"))
    assert (folder / "eval.py").read_text() == "# theirs.py\n"
    assert (folder / "utils.py").read_text() == "# helpers.py\n"
    assert (folder / "submission.py").read_bytes() == (ROOT / "submission.py").read_bytes()
    assert (folder / "evaluator.judge.py").exists() and not any(path.is_dir() for path in folder.iterdir())


def test_a_benchmark_can_be_picked_where_times_are_taken(official: dict[str, Any]) -> None:
    lines = official["case_lines"]
    assert lines("benchmark", "cuda", [3]).startswith(
        "m: [128, 384]; n: [4096, 4096]; k: [1536, 1536]; g: 2; "
    )
    assert len(lines("leaderboard", "cuda", []).splitlines()) == 4
    assert lines("leaderboard", "sim", [3]) == lines("test", "cuda", [3]).splitlines()[0], "one small case"


def test_times_are_shown_beside_the_keys(official: dict[str, Any]) -> None:
    ran = official["Ran"]
    timed = (("benchmark.0.mean", "15970.0"), ("check", "pass"))
    row, agrees = official["compare"]("benchmark", ran(0, timed, ""), ran(0, timed, ""))
    assert agrees and "| 15.970 and 15.970 µs |" in row


def test_honest_counts_verdicts_and_signals_but_not_remarks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    honest = loaded("honest", monkeypatch)
    case = {
        "name": "test 0",
        "status": "PASS",
        "reason": None,
        "message": "",
        "probed_inputs": 3,
        "signals": [],
    }
    bad = {**case, "status": "UNFAIR", "reason": "E_THREAD", "signals": ["W_DRIFT: x", "W_LAUNCH_BOUND: y"]}

    def evaluated(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        record = {"text_remarks": ["threads"], "cases": [case, bad]}
        Path(command[command.index("--json") + 1]).write_text(json.dumps(record))
        return subprocess.CompletedProcess(command, 112, "", "")

    monkeypatch.setattr(subprocess, "run", evaluated)
    plan = honest["plans"]("sim")[1]
    outcome = honest["run"](plan, "1", tmp_path)
    assert (outcome.cases, outcome.probed, outcome.remarks) == (2, 6, 2)
    assert outcome.flags == ["test 0: E_THREAD: ", "test 0: W_DRIFT: x", "exit code 112"]
    assert "_plain(data)" in (tmp_path / "submission.py").read_text()


def test_every_variant_is_a_submission(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = loaded("honest", monkeypatch)
    for device in ("sim", "cuda"):
        for plan in honest["plans"](device):
            compile(plan.source(), plan.file, "exec")
    runs = 2 * len(honest["plans"]("sim"))
    assert runs >= 20, "what the default promises"
