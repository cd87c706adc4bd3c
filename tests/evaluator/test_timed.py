"""Both lanes, their bounds and the comparison, on the host: the clock differs, the rest does not."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from misbehaving import PASSING

from evaluator import bounds, compare, measure, probe, problem, processes, speed_limits, strict, timing
from evaluator.bounds import JudgeClock
from evaluator.cases import load_task, parse_line
from evaluator.judge import Judge, jobs_for
from evaluator.messages import Collected
from evaluator.processes import ROOT
from evaluator.reasons import Reason
from evaluator.results import CaseResult
from evaluator.seeds import Seeds
from evaluator.strict import StrictTimes
from evaluator.verdict import Status

CASE = parse_line("m: [24]; n: [32]; k: [64]; g: 1; seed: 1", kind="benchmark")
PLAN = measure.Timing(
    timing.Effort(False, 2, 1e6), timing.Effort(True, 3, 1e7), True, strict.Effort(2, 2), fresh_window=True
)


class Quiet:
    def stage(self, *_: object) -> None: ...

    def finished(self, *_: object) -> None: ...


def timed(folder: Path, text: str) -> CaseResult:
    submission = folder / "mine.py"
    submission.write_text(text)
    jobs = jobs_for((CASE,), lambda _: 60.0, PLAN, lambda _: 2)
    with processes.sandbox(submission) as place:
        Judge(place, "cpu", Quiet(), seeds=Seeds(b"1")).run(jobs, 1)
    return jobs[0].result


def test_every_lane_of_an_honest_submission(tmp_path: Path) -> None:
    result = timed(tmp_path, PASSING)
    assert result.verdict.status is Status.PASS, result.verdict
    assert result.stats is not None and result.stats.runs == 3
    assert result.elements == 15 * 24 * 32 and result.inexact == 0
    lane = result.lanes["strict_ns"]
    assert [len(samples) for samples in lane["samples"]] == [2, 2], (
        "two fresh samples in each of two processes"
    )
    value, low, high = lane["median_and_95_interval"]
    assert 0 < low <= value <= high
    assert result.lanes["fresh_window_ns"] > 0 and result.lanes["judge_clock_ns"]["seen"] > 0
    assert result.probed == 2


def test_a_false_clock_is_seen_from_outside(tmp_path: Path) -> None:
    """A worker whose clock runs at a tenth: replaced as an object, not as a function."""
    text = PASSING + (
        "\nimport evaluator.clocks as clocks\n"
        "real = clocks.HostClock.result\n"
        "import gc\n"
        "servers = [o for o in gc.get_objects() if type(o).__name__ == 'Server']\n"
        "class Fast:\n"
        "    def __init__(self, clock): self.clock = clock\n"
        "    def __getattr__(self, name): return getattr(self.clock, name)\n"
        "    def result(self): ns, late = self.clock.result(); return ns / 10, late\n"
        "servers[0].device.clock = Fast(servers[0].device.clock)\n"
    )
    verdict = timed(tmp_path, text).verdict
    assert verdict.because is Reason.CLOCK, verdict


def test_rounds_of_the_judges_clock() -> None:
    honest = bounds.most_favourable([100.0, 130.0], [(1100.0, 9.9), (1900.0, 10.0)], 100)
    assert honest == JudgeClock(10.0, 9.9) and bounds.clock_verdict(honest) is None
    liar = bounds.most_favourable([100.0], [(1100.0, 1.0), (1200.0, 1.0)], 100)
    found = bounds.clock_verdict(liar)
    assert found is not None and found.because is Reason.CLOCK


def test_impossible_times() -> None:
    limits = speed_limits.limits_of("NVIDIA B200")
    assert limits is not None and speed_limits.limits_of("Some GPU") is None
    for case in load_task(ROOT / "task.yml").benchmarks:
        least = speed_limits.least_microseconds(case, limits, 0, 1)
        assert case.speed_of_light_us is not None
        assert 0.8 * case.speed_of_light_us < least <= case.speed_of_light_us, (
            "peak rates, above the task's 1.5 GHz"
        )
        assert bounds.roofline_verdict(case, limits, 1e3 * least, 1e3 * least, 126 << 20) is None
        found = bounds.roofline_verdict(case, limits, None, 700 * least, 126 << 20)
        assert found is not None and found.because is Reason.IMPOSSIBLE_TIME and "strict" in found.message
    small = replace(CASE, m=(8,))
    assert speed_limits.least_microseconds(small, limits, 126 << 20, 15) < 1e-3, "all of it may lie in L2"


def strict_times(fresh: float, again: float, empty: float) -> StrictTimes:
    return StrictTimes([[fresh] * 6] * 2, [[again] * 6] * 2, [empty] * 3, [1.0] * 6)


@pytest.mark.parametrize(
    ("official", "times", "window", "host", "expected"),
    [
        (20_000, strict_times(24_000, 24_000, 2_000), 20_500, 5_000, []),
        (11_190, strict_times(24_000, 24_000, 2_000), 11_500, 5_000, [Reason.GAP]),
        (20_000, strict_times(24_000, 12_000, 2_000), 20_000, 5_000, [Reason.FRESH_GAP]),
        (10_000, strict_times(13_000, 13_000, 2_000), 20_000, 5_000, [Reason.FRESH_GAP]),
        (20_000, strict_times(24_000, 24_000, 2_000), None, 19_000, [Reason.LAUNCH_BOUND]),
    ],
)
def test_signals(
    official: float, times: StrictTimes, window: float, host: float, expected: list[Reason]
) -> None:
    found = bounds.signals(official, times, window, host)
    assert [signal.split(":")[0] for signal in found] == [str(reason) for reason in expected]


@pytest.mark.parametrize(
    ("pairs", "cores", "batches"),
    [(5, 16, [[0, 1, 2, 3, 4]]), (5, 4, [[0, 1], [2, 3], [4]]), (2, 1, [[0], [1]])],
)
def test_pairs_start_together_where_there_are_cores(pairs: int, cores: int, batches: list[list[int]]) -> None:
    assert [list(batch) for batch in compare.Plan(pairs).batches(cores)] == batches
    assert compare.Plan(pairs, together=pairs).batches(cores) == [range(pairs)]


def test_a_contest_names_the_slower_and_refuses_the_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))  # two pairs start together
    texts = {
        "a.py": PASSING,
        "b.py": PASSING.replace("def right(data):", "def right(data):\n    import time; time.sleep(0.01)"),
        "c.py": PASSING.replace(".half()", ".half() + 1"),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)

    def against(other: str) -> compare.Contest:
        paths = (tmp_path / "a.py", tmp_path / other)
        return compare.Contest(paths, "cpu", Seeds(b"1"), 60.0, lambda _: None)

    results = against("b.py").run((CASE,), compare.Plan(3, 2))
    assert results[0].result is not None and results[0].result.verdict == "slower"
    assert "slower" in compare.shown(results, "cpu")
    with pytest.raises(compare.Disqualified, match=r"B \(c\.py\): WRONG_RESULT"):
        against("c.py").run((CASE,), compare.Plan(1, 1))


def test_a_timed_call_whose_output_is_missing_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a submission would have it that answers the judge's commands itself."""
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(PASSING)
    known = probe.expect

    def without_outputs(worker: Any, kind: Any, *rest: Any) -> Any:
        reply = known(worker, kind, *rest)
        return Collected(()) if kind is Collected else reply

    monkeypatch.setattr(probe, "expect", without_outputs)
    contest = compare.Contest(
        (tmp_path / "a.py", tmp_path / "b.py"), "cpu", Seeds(b"1"), 60.0, lambda _: None
    )
    with pytest.raises(compare.Disqualified, match="outputs are missing"):
        contest.run((CASE,), compare.Plan(1, 1))


def test_exact_results_side_by_side_are_those_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    inputs = [problem.generate(CASE.with_seed(seed), "cpu") for seed in range(7)]
    told: list[int] = []
    truths = problem.side_by_side(inputs, told.append)
    assert told == list(range(1, 8))
    for data, truth in zip(inputs, truths, strict=True):
        for one, other in zip(truth.groups(), problem.Truth(data).groups(), strict=True):
            assert torch.equal(one.result, other.result)
    assert len({truth.groups()[0].result.numpy().tobytes() for truth in truths}) == 7
    assert problem.side_by_side([]) == []
