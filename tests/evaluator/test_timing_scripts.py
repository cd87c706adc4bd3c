"""The scripts that measure what the evaluator's timing is worth: `scripts/self_compare`."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evaluator.processes import ROOT

CASE = "m: [8]; n: [16]; k: [64]; g: 1; seed: 1"


def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of a script; its dataclasses need a module of its name."""
    monkeypatch.setitem(sys.modules, "script", type(sys)("script"))
    return runpy.run_path(str(ROOT / "scripts" / name), run_name="script")


def test_more_work_is_calibrated_from_two_amounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch of 2 µs and half a nanosecond per cycle: 5 % of 100 µs are 3 µs more, 6000 cycles."""
    calibration = loaded("self_compare", monkeypatch)["Calibration"]
    assert calibration(100e3, (2_000, 42_000), (103e3, 123e3), 5.0).amount == 6_000
    with pytest.raises(ValueError, match=r"5 % of 30.00 µs is less than a launch more"):
        _ = calibration(30e3, (2_000, 42_000), (33e3, 53e3), 5.0).amount


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_slower_copy_still_computes(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = loaded("self_compare", monkeypatch)["slower"](
        "def custom_kernel(data):\n    return data\n", device, 7
    )
    names: dict[str, Any] = {}
    exec(compile(text, "slower.py", "exec"), names)
    assert ("torch.cuda._sleep(7)" in text) is (device == "cuda")
    if device == "cpu":
        assert names["custom_kernel"](5) == 5


@pytest.mark.heavy
def test_twice_the_work_is_seen_and_every_run_is_recorded(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    command = [sys.executable, str(ROOT / "scripts" / "self_compare"), "--device", "cpu", "--case", CASE]
    command += ["--submission", str(ROOT / "submissions" / "torch_dequantise.py"), "--percent", "400"]
    command += ["--runs", "1", "--slow-runs", "1", "--pairs", "2", "--blocks", "2", "--json", str(record)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    known = json.loads(record.read_text())
    assert [run["of"] for run in known["runs"]] == ["400 % more", "itself"], done.stderr
    assert known["runs"][0]["ratio"][0] > 2 and known["calibration"]["amount"] > 0
    assert [len(pair) for pair in known["runs"][1]["log_ns"]] == [2, 2]
    assert "400 % more 1: A " in done.stdout and "itself: ambiguous in " in done.stdout
