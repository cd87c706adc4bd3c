"""`eval.py --sanitize` end to end: exit codes, findings in report and JSON, a trace, a replay."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sanitizer.corpus_kernel import KERNEL_DEFECTS
from tests.sanitizer.run import VICTIM, mutated

ROOT = Path(__file__).parents[2]


def evaluate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "eval.py", "--mode", "test", "--sanitize", "--only", "0", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.heavy
def test_a_clean_kernel_passes_and_leaves_a_trace(tmp_path: Path) -> None:
    record, trace = tmp_path / "run.json", tmp_path / "trace.json"
    run = evaluate(
        "--submission", str(VICTIM), "--schedules", "3", "--json", str(record), "--trace", str(trace)
    )
    assert run.returncode == 0, run.stdout + run.stderr
    known = json.loads(record.read_text())
    assert known["passed"] and known["sanitizer"]["errors"] == 0
    assert [entry["schedule"] for entry in known["cases"][0]["schedules"]][:2] == ["program-order", "eager"]
    assert len(json.loads(trace.read_text())["traceEvents"]) > 100


@pytest.mark.heavy
def test_a_race_fails_the_case_although_its_values_are_right(tmp_path: Path) -> None:
    defect = next(d for d in KERNEL_DEFECTS if d.code == "input_before_dependency")
    racy, record = tmp_path / "racy.py", tmp_path / "run.json"
    racy.write_text(mutated(defect))
    run = evaluate("--submission", str(racy), "--schedule", "random:17", "--json", str(record))
    assert run.returncode == 112, run.stdout + run.stderr
    assert "ERROR input_before_dependency" in run.stdout
    (case,) = json.loads(record.read_text())["cases"]
    assert case["values"] == {"random:17": "right"} and not case["passed"]
