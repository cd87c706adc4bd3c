"""A run as JSON. The schema's name changes when a field's meaning does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evaluator import speed_of_light, timing
from evaluator.results import CaseResult, RunResult

SCHEMA = "nvfp4_group_gemm.evaluation/1"


def as_record(run: RunResult, exit_code: int) -> dict[str, Any]:
    """Everything known about the run. Times of the submission are there only if they were measured."""
    return {
        "schema": SCHEMA,
        "mode": run.mode,
        **run.facts,
        "worker_versions": run.versions,
        "wall_seconds": round(run.wall_seconds, 3),
        "interrupted": run.interrupted,
        "passed": run.passed,
        "exit_code": exit_code,
        "score_us": score_us(run),
        "seed_key": run.seed_key,
        "defences": {
            entry.name: {"state": entry.state.value, "reason": entry.reason, "meaning": entry.meaning}
            for entry in run.defences
        },
        "text_remarks": run.remarks,
        "cases": [_case(result, speed_of_light.machine_of(run.facts)) for result in run.results],
        "profiles": run.profiles,
        **({"sanitizer": run.sanitizer} if run.sanitizer else {}),
    }


def score_us(run: RunResult) -> float | None:
    """Geometric mean of the benchmarks' measured times; None unless all passed and all were measured."""
    timed = [r.time_us for r in run.results if r.case.kind == "benchmark"]
    if not timed or not run.passed or any(t is None for t in timed):
        return None
    return timing.geometric_mean([t for t in timed if t is not None])


def write(run: RunResult, exit_code: int, path: Path) -> None:
    path.write_text(json.dumps(as_record(run, exit_code), indent=1) + "\n", encoding="utf-8")


def _case(result: CaseResult, machine: speed_of_light.Machine) -> dict[str, Any]:
    case, floor = result.case, speed_of_light.floor(result.case, machine)
    return {
        "name": case.name,
        "index": result.index,
        "kind": case.kind,
        "spec": case.spec,
        "groups": case.g,
        "m": list(case.m),
        "n": list(case.n),
        "k": list(case.k),
        "seed": case.seed,
        "distribution": case.distribution,
        "status": result.verdict.status.value,
        "reason": str(result.verdict.reason) if result.verdict.reason else None,
        "message": result.verdict.message,
        "detail": result.verdict.detail,
        "elements": result.elements,
        "inexact_elements": result.inexact,
        "bit_exact": result.bit_exact,
        "wall_seconds": {phase: round(s, 4) for phase, s in result.seconds.items()},
        "fresh_worker": result.fresh_worker,
        "held_out": result.held_out,
        "probed_inputs": result.probed,
        "signals": result.signals,
        "printed": result.printed,
        "speed_of_light_us": floor.microseconds,
        "speed_of_light_source": floor.source,
        "compulsory_bytes": speed_of_light.compulsory_bytes(case),
        "flops": speed_of_light.flops(case),
        "measured_ns": result.stats.as_dict() if result.stats else None,
        "l2_flush": result.flush or None,
        "lanes": result.lanes,
        "counters": result.counters(),
        "launches": list(result.launches),
        "passed": result.verdict.passed,
        **(result.sanitized.as_dict() if result.sanitized else {}),
    }
