"""Numbers and words of the reports: statistics, floors, keys, tables, selection of cases."""

from __future__ import annotations

import base64
import os
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from b200sim.device import LaunchReport
from evaluator import official, record, report, session, speed_of_light, timing
from evaluator.cases import CaseError, load_task, parse_line
from evaluator.devices import plain_counters
from evaluator.processes import ROOT
from evaluator.results import CaseResult, RunResult
from evaluator.verdict import Status, Verdict

CASE = parse_line("m: [96, 128]; n: [128, 256]; k: [256, 512]; g: 2; seed: 1111", kind="benchmark")
PASSED = Verdict(Status.PASS)


def a_run(*results: CaseResult, mode: str = "benchmark", device: str = "cuda") -> RunResult:
    facts = {
        "submission": {"path": "submission.py", "sha256": "0" * 64},
        "harness_sha256": "1" * 64,
        "device": {"description": "a GPU"},
    }
    return RunResult(mode, device, list(results), facts, wall_seconds=1.0)


def timed(index: int, *durations: float) -> CaseResult:
    result = CaseResult(replace(CASE, name=f"benchmark {index}"), index, PASSED, elements=4, inexact=0)
    result.stats = timing.statistics(list(durations))
    return result


def test_statistics_are_the_official_ones() -> None:
    durations = [18_700.0, 18_900.0, 18_650.0, 19_400.0]
    stats = timing.statistics(durations)
    assert stats.runs == 4 and stats.best == 18_650.0 and stats.worst == 19_400.0
    assert stats.mean == pytest.approx(statistics.mean(durations))
    assert stats.std == pytest.approx(statistics.stdev(durations))
    assert stats.err == pytest.approx(statistics.stdev(durations) / 2)


def test_the_stop_rule() -> None:
    steady, wild = [1000.0, 1000.1, 999.9], [1000.0, 2000.0, 1500.0]
    assert not timing.enough(steady[:2], 1e12, 1), "never before three windows"
    assert not timing.enough(steady, 1e8, 1), "never within the first 0.1 s"
    assert timing.enough(steady, 1e8 + 1, 1e10), "the mean is known to 0.1 %"
    assert not timing.enough(wild, 1e9, 1e10)
    assert timing.enough(wild, 1e9, 4_000), "mean times windows is over the limit"
    assert timing.enough(wild, 120e9 + 1, 1e10), "two minutes are over"
    seen: list[int] = []
    stats = timing.repeat(lambda i: seen.append(i) or 1000.0 + 500 * (i % 2), timing.Effort(False, 7, 1e18))
    assert stats.runs == 7 and seen == list(range(7))


def test_seeds_of_a_window_and_of_a_secret_run(tmp_path: Path) -> None:
    assert timing.seeds(1111)[:3] == [1153, 1195, 1237] and len(timing.seeds(1111)) == 15
    path = tmp_path / "cases.txt"
    path.write_text(CASE.spec)
    assert official.read_cases(path, "test", None)[0].seed == 1111
    mixed = official.read_cases(path, "benchmark", 99)[0]
    assert mixed.seed == 1111 + (1111 + 99) * (1111 + 99 + 1) // 2
    assert mixed.spec == CASE.spec and mixed.kind == "benchmark"


def test_the_model_reproduces_the_official_targets() -> None:
    for case in load_task(ROOT / "task.yml").benchmarks:
        assert speed_of_light.floor(case).source == "official"
        model = speed_of_light.floor(replace(case, speed_of_light_us=None))
        assert model.source == "model"
        assert model.microseconds == pytest.approx(case.speed_of_light_us, rel=1e-3)


def test_bytes_and_flops_of_a_case() -> None:
    # group 0: A 96x256, B 128x256 in nibbles, one scale byte per 16, C 96x128 in two bytes
    first = (96 + 128) * 128 + (96 + 128) * 16 + 2 * 96 * 128
    second = (128 + 256) * 256 + (128 + 256) * 32 + 2 * 128 * 256
    assert speed_of_light.compulsory_bytes(CASE) == first + second
    assert speed_of_light.flops(CASE) == 2 * (96 * 128 * 256 + 128 * 256 * 512)


def test_keys_of_a_timed_run() -> None:
    run = a_run(timed(0, 2000.0, 2002.0), timed(1, 8000.0, 8008.0))
    lines = dict(line.split(": ", 1) for line in official.keys(run).lines)
    assert lines["benchmark-count"] == "2" and lines["check"] == "pass"
    names = ("runs", "mean", "std", "err", "best", "worst")
    assert [key.split(".")[2] for key in lines if key.startswith("benchmark.1.")] == ["spec", *names]
    assert float(lines["benchmark.1.mean"]) == 8004.0 and lines["benchmark.0.runs"] == "2"
    assert record.score_us(run) == pytest.approx((2.001 * 8.004) ** 0.5)
    assert "geometric mean of the benchmarks: 4.002" in report.summary(run)


def test_no_score_without_all_times() -> None:
    untimed = CaseResult(CASE, 1, PASSED)
    assert record.score_us(a_run(timed(0, 1.0, 2.0), untimed)) is None
    failed = replace_verdict(timed(1, 1.0, 2.0), Verdict(Status.WRONG_RESULT, "x"))
    assert record.score_us(a_run(timed(0, 1.0, 2.0), failed)) is None


def replace_verdict(result: CaseResult, verdict: Verdict) -> CaseResult:
    result.verdict = verdict
    return result


def test_a_ranked_run_stops_at_the_first_failure() -> None:
    failed = CaseResult(CASE, 0, Verdict(Status.RAISED, "ValueError: no\nmore"))
    run = a_run(failed, timed(1, 1.0, 2.0), mode="leaderboard")
    lines = official.keys(run).lines
    assert lines[-3:] == [
        "benchmark.0.status: fail",
        "benchmark.0.error: RAISED: ValueError: no\\nmore",
        "check: fail",
    ]
    assert official.exit_code(run) == 112


def test_keys_fit_a_pipe_and_end_with_check() -> None:
    failed = [CaseResult(CASE, i, Verdict(Status.RAISED, "é" * 5000)) for i in range(60)]
    lines = official.keys(a_run(*failed, mode="test"))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    lines.write(writer)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as file:
        written = file.read()
    assert written.endswith("check: fail\n") and len(written.encode()) < 65_536


def test_a_profile_is_base64_with_the_official_letters() -> None:
    result = CaseResult(CASE, 0, PASSED)
    result.launches = ({"warp_instructions": 3000, "seconds": 1.5, "grid": [4, 1, 1]},)
    lines = dict(x.split(": ", 1) for x in official.keys(a_run(result, mode="profile", device="sim")).lines)
    text = base64.b64decode(lines["benchmark.0.report"], altchars=b"+*").decode()
    assert "launch 0" in text and "2,000" in text, "3000 instructions in 1.5 s"


def test_the_table_of_a_simulated_run_shows_work_and_no_time() -> None:
    result = CaseResult(CASE, 0, PASSED, elements=1, inexact=0, seconds={"run": 9.0})
    result.launches = ({"mma_flops": 2 * speed_of_light.flops(CASE), "tma_load_bytes": 10, "seconds": 4.0},)
    run = a_run(result, device="sim")
    lines = report.plain_table(report.columns(run), [report.row(run, result)])
    assert "simulated in" in lines[0] and "time" not in lines[0]
    assert "4.0 s" in lines[2] and "2.00x" in lines[2] and "~" in lines[2]
    assert "simulated in: wall time on this CPU" in report.notes(run)


def test_the_table_of_a_timed_run_shows_the_ratio() -> None:
    result = timed(0, 3000.0, 3000.0)
    result.case = replace(CASE, speed_of_light_us=1.5)
    run = a_run(result)
    line = report.plain_table(report.columns(run), [report.row(run, result)])[2]
    assert "3.000 µs" in line and "1.500 µs" in line and "2.00x" in line


def test_one_failure_of_many_cases_is_told_once() -> None:
    verdict = Verdict(Status.RAISED, "ValueError: no", "  File ...\nValueError: no")
    run = a_run(*(CaseResult(replace(CASE, name=f"case {i}"), i, verdict) for i in range(3)))
    told = report.failures(run)
    assert told.startswith("case 0, case 1, case 2: RAISED: ValueError: no\n")
    assert told.count("ValueError: no") == 1


def test_a_narrow_terminal_gets_the_columns_that_matter() -> None:
    run = a_run(CaseResult(CASE, 0, PASSED), device="sim")
    names, rows = report.columns(run), [report.row(run, run.results[0])]
    assert report.fitting(names, rows, 200) == list(range(len(names)))
    narrow = report.fitting(names, rows, 80)
    assert sum(max(len(names[i]), len(rows[0][i])) + 2 for i in narrow) <= 80
    assert {"case", "result", "bit-exact", "speed of light"} <= {names[i] for i in narrow}


def test_faults_of_one_kind_are_explained_once() -> None:
    stuck = [Verdict(Status.FAULT, f"deadlock in {i} clusters", f"  CTA {i} waits") for i in (2, 10)]
    told = report.failures(
        a_run(*(CaseResult(replace(CASE, name=f"case {i}"), i, v) for i, v in enumerate(stuck)))
    )
    assert "CTA 2 waits" in told and "CTA 10" not in told
    assert "case 1: FAULT: deadlock in 10 clusters\n    like case 0" in told


def test_a_profile_says_where_the_time_went() -> None:
    result = CaseResult(CASE, 0, PASSED, seconds={"run": 10.0})
    result.launches = (
        {
            "warp_instructions": 4000,
            "seconds": 2.0,
            "processes": 2,
            "tma_seconds": 1.0,
            "decode_seconds": 0.4,
        },
    )
    told = report.launch_report(result)
    assert "2,000 warp instructions per second: tma 25 %, decode 10 %, warps and scheduling 65 %" in told
    assert "compilation and host code 8.00 s, simulation 2.00 s" in told


def test_a_note_is_told_once_for_all_its_cases() -> None:
    """As a launch reports it, on its way through the worker's messages."""
    launch = LaunchReport("k", (1, 1, 1), (32, 1, 1), (1, 1, 1), 0, False, notes=["odd", "even"])
    told = plain_counters(launch.as_dict())
    silent = plain_counters(LaunchReport("k", (1, 1, 1), (32, 1, 1), (1, 1, 1), 0, False).as_dict())
    results = [
        CaseResult(replace(CASE, name=name), 0, PASSED, launches=launches)
        for name, launches in (("a", (told, told)), ("b", (silent,)), ("c", (silent, told)))
    ]
    assert report.launch_notes(a_run(*results)) == "note (a, c): odd; even"
    assert report.launch_notes(a_run(results[1])) == ""


@pytest.mark.parametrize(
    ("values", "text"), [((7, 7, 7), "7"), ((96, 128), "96 128"), ((512, 384, 256, 128, 40), "40..512")]
)
def test_sizes_are_short(values: tuple[int, ...], text: str) -> None:
    assert report.sizes(values) == text


def test_cases_are_selected_by_number_name_and_pattern() -> None:
    task = load_task(ROOT / "task.yml")
    cases = task.tests + task.benchmarks
    assert [c.name for c in session.select(cases, ("3", "test 1", "3"))] == ["test 3", "test 1"]
    assert session.select(cases, ("benchmark*",)) == task.benchmarks
    with pytest.raises(session.UsageError, match="13: benchmark 3"):
        session.select(cases, ("14",))


def test_default_cases_and_limits() -> None:
    task = load_task(ROOT / "task.yml")
    assert session.default_cases("leaderboard", task) == task.tests + task.benchmarks
    assert session.default_cases("test", task) == task.tests
    assert session.limit_for(task.tests[0], task, "sim", None) == task.test_timeout
    assert session.limit_for(task.benchmarks[0], task, "cuda", None) == task.ranked_timeout
    assert session.limit_for(task.benchmarks[0], task, "sim", 5.0) == 5.0
    assert session.lane_count(8, 3) == 3 and session.lane_count(1, 3) == 1


def test_an_unreadable_case_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="absent"):
        session.read_case_files([tmp_path / "absent.txt"])
