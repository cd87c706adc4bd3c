"""The scripts that measure what the evaluator's timing is worth, on the host's clock where they run."""

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


def test_differences_are_within_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that gets slower from round to round, and a defence that costs 3 ns and 2 s."""
    cost = loaded("defence_cost", monkeypatch)
    found, sample, names = cost["Found"]("case"), cost["Sample"], cost["BASELINES"]
    for drift in range(0, 500, 100):
        found.keep("strict", cost["ALL"], sample(1003.0 + drift, 12.0 + drift))
        found.keep("strict", cost["OTHER"], sample(2000.0 + drift, 0.0))
        found.keep("strict", cost["COLD"], sample(1000.0 + drift, 10.0 + drift))
        found.keep("strict", cost["ISOLATION"], sample(1995.0 + drift, 0.0))
    nanoseconds = lambda sample: sample.nanoseconds  # noqa: E731
    assert found.difference("strict", cost["COLD"], nanoseconds).as_list() == [3.0, 3.0, 3.0]
    assert found.difference("strict", cost["COLD"], lambda sample: sample.seconds).value == 2.0
    assert names[cost["ISOLATION"]] == cost["OTHER"]
    assert found.difference("strict", cost["ISOLATION"], nanoseconds).value == 5.0


def test_spreads_between_and_within_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    spreads = loaded("restarts", monkeypatch)["spreads"]
    assert spreads([[99.0, 100.0, 103.0], [101.0, 102.0, 103.0], [104.0, 104.0, 104.0]]) == [
        "3.92 %",
        "1.96 %",
    ]


@pytest.mark.heavy
def test_what_defences_cost_on_the_host(tmp_path: Path) -> None:
    done, known = ran(tmp_path, "defence_cost", "--rounds", "2")
    samples = known[0]["samples"]
    assert {len(taken) for lane in samples.values() for taken in lane.values()} == {2}, done.stderr
    assert "| strict | patched functions, threads | " in done.stdout
    off = known[0]["isolation_off"]
    assert {"pid namespace", "landlock"} <= set(off["plain"]) and off["first"] == off["other"]


@pytest.mark.heavy
def test_restarts_on_the_host(tmp_path: Path) -> None:
    done, known = ran(tmp_path, "restarts", "--processes", "2", "--samples", "3", "--windows", "2")
    lanes = known["cases"][0]
    assert [len(samples) for samples in lanes["strict"]] == [3, 3], done.stderr
    assert [len(windows) for windows in lanes["official"]] == [2, 2]
    assert done.stdout.count("is done") == 2 and done.stdout.strip().endswith(" %) |")


def ran(folder: Path, name: str, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    record = folder / "record.json"
    command = [sys.executable, str(ROOT / "scripts" / name), "--device", "cpu", "--case", CASE]
    command += ["--submission", str(ROOT / "submissions" / "torch_dequantise.py"), "--json", str(record)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr
    return done, json.loads(record.read_text())


@pytest.mark.heavy
def test_twice_the_work_is_seen_and_every_run_is_recorded(tmp_path: Path) -> None:
    counts = ("--runs", "2", "--slow-runs", "1", "--pairs", "2", "--blocks", "2", "--together", "2")
    done, known = ran(tmp_path, "self_compare", "--percent", "400", *counts)
    assert [run["of"] for run in known["runs"]] == ["400 % more", "itself", "itself"], done.stderr
    assert known["runs"][0]["ratio"][0] > 2 and known["calibration"]["amount"] > 0
    assert all([len(pair) for pair in run["log_ns"]] == [2, 2] for run in known["runs"])
    assert "400 % more 1: A " in done.stdout and "itself: ambiguous in " in done.stdout
