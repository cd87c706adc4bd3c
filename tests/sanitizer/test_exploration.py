"""Schedules, replays, reports and traces."""

import json

import pytest

from b200sim.machine.schedule import exploration, schedule
from b200sim.sanitizer import Report, Session, Trace, sanitize_grid
from tests.sanitizer.corpus_ptx import PtxDefect
from tests.sanitizer.pipeline import KERNEL, without
from tests.sanitizer.run import run_ptx


def explore(body: str, **how) -> Report:
    victim = PtxDefect("victim", "", body)

    def make(order):
        arrays, _ = victim.data()
        return victim.grid(arrays, order)

    return sanitize_grid(make, **how)


def test_exploration_starts_with_program_order_and_names_are_unique() -> None:
    names = exploration(60, 9)
    assert names[0] == "program-order" and len(set(names)) == 60
    assert "random:9" in names
    assert exploration(1, 0) == ["program-order"]
    for name in names:
        schedule(name)


def test_unknown_schedules_are_refused() -> None:
    for name in ("lazy", "late:", "starve:x"):
        with pytest.raises(ValueError, match="unknown schedule"):
            schedule(name)


def test_different_seeds_see_different_orders_and_one_seed_the_same() -> None:
    report = explore(KERNEL, names=["random:1", "random:2", "random:1"])
    first, second, again = report.explored
    assert first.signature == again.signature != second.signature
    assert report.distinct_orders() == 2
    assert report.ok and not len(report.findings)


def test_a_failing_schedule_replays_from_its_name() -> None:
    report = explore(without("wait accfull"), schedules=12, seed=4)
    failing = [entry.schedule for entry in report.explored if entry.outcome != "ran"]
    assert failing
    again = explore(without("wait accfull"), names=failing[-1:])
    assert again.explored[0].outcome == next(e.outcome for e in report.explored if e.schedule == failing[-1])
    assert again.explored[0].signature == next(
        e.signature for e in report.explored if e.schedule == failing[-1]
    )


def test_adversarial_schedules_do_what_they_say() -> None:
    """Starving warp 4, the producer, changes the order of turns; values stay right."""
    outcome = run_ptx(PtxDefect("clean", "", KERNEL), lambda: schedule("starve:4"))
    assert outcome.values == "right"
    late = explore(KERNEL, names=["program-order", "starve-late:4", "consumers-first", "late:tcgen05"])
    assert late.distinct_orders() == 4


def test_report_names_both_sides_and_the_missing_edge() -> None:
    report = explore(without("wait group"), schedules=1)
    (finding,) = report.findings.errors
    assert (finding.code, finding.severity) == ("store_source_overwritten", "error")
    assert finding.first is not None and finding.second is not None
    assert (finding.first.kind, finding.second.kind) == ("bulk store", "st")
    assert finding.first.role == (0, 0) and finding.first.lane == 0
    assert "cp.async.bulk.wait_group" in finding.edge
    text = report.text()
    assert "ERROR store_source_overwritten" in text and "no order" in text and "9.7.9.27.2.2" in text
    assert "first under schedule program-order" in text
    record = json.loads(json.dumps(report.as_dict()))
    assert record["errors"] == 1 and record["findings"][0]["first"]["ptx_line"] == finding.first.ins.line
    assert record["schedules"][0]["outcome"] == "ran"


def test_stages_are_named() -> None:
    """The stage is the index of the range among those that the load fills."""
    broken = without("wait full")
    report = explore(broken, names=["program-order"])
    stages = {side.facts.get("stage") for f in report.findings for side in (f.first, f.second) if side}
    assert stages & {0, 1}


def test_a_deadlock_shows_who_waits_for_whom() -> None:
    report = explore(without("arrive accempty"), schedules=1)
    (finding,) = report.findings.errors
    assert finding.code == "deadlock"
    assert "warp 5" in finding.detail and "mbarrier 0x428" in finding.detail


def test_findings_are_grouped() -> None:
    """The same defect in every tile, by every warp and under every schedule is one finding."""
    report = explore(without("proxy fence"), schedules=4)
    (finding,) = report.findings.errors
    assert finding.code == "proxy_fence_missing" and finding.count >= 4


def test_trace_is_in_the_trace_event_format() -> None:
    trace = Trace()
    victim = PtxDefect("clean", "", KERNEL)
    arrays, _ = victim.data()
    grid = victim.grid(arrays, schedule("program-order"))
    grid.observer = trace.observer()
    grid.run()
    events = json.loads(json.dumps(trace.as_dict()))["traceEvents"]
    names = {
        event["args"]["name"] for event in events if event["ph"] == "M" and event["name"] == "thread_name"
    }
    assert {"warp 0", "warp 5", "tensor core: mma", "TMA: loads", "TMA: stores", "mbarrier 0x400"} <= names
    slices = [event for event in events if event["ph"] == "X"]
    assert all(event["dur"] >= 1 and event["ts"] >= 0 for event in slices)
    assert sum(event["name"] == "tcgen05.mma" for event in slices) == 10
    phases = [event for event in slices if event["name"].startswith("phase")]
    assert {event["args"]["parity"] for event in phases} == {0, 1}


def test_a_fault_ends_a_schedule_and_becomes_a_finding() -> None:
    session = Session()
    victim = PtxDefect("trap", "", "trap;")
    arrays, _ = victim.data()
    with session.attempt("program-order") as explored:
        grid = victim.grid(arrays, schedule("program-order"))
        grid.observer = session.observer(explored)
        grid.run()
    assert explored.outcome == "trap"
    assert session.report.findings.codes() == {"trap"}
