"""Fills the ledger of defences from what a run was and did."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from evaluator import facts
from evaluator.defences import Ledger
from evaluator.results import RunResult

_PR_GET_DUMPABLE = 3
_ALWAYS = (
    "judge apart",
    "strict messages",
    "environment",
    "structure",
    "all elements",
    "at return",
    "poisoned outputs",
    "poisoned free memory",
    "inputs unchanged",
    "processes",
    "threads",
    "patched functions",
    "text scan",
)
_PROBED = ("fresh inputs", "rewritten inputs", "rotated addresses", "determinism")
_TIMED = (
    "official lane",
    "strict lane",
    "restarts",
    "cold L2",
    "persisting L2",
    "judge's clock",
    "roofline",
    "clock log",
    "independent profiler",
)


def at_start(ledger: Ledger, device: str, timed: bool) -> None:
    """What holds for every run of this kind, and what the judge's own process shows."""
    for name in _ALWAYS:
        ledger.on(name)
    if os.environ.keys() & {"POPCORN_FD", "POPCORN_SEED"} or b"POPCORN_" in _own_environment():
        ledger.off("secrets scrubbed", "the judge was started with them and has not started itself again")
    else:
        ledger.on("secrets scrubbed")
    if ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) == 0:
        ledger.on("judge closed")
    else:
        ledger.off("judge closed", "evaluate() was called by another program than eval.py")
    if device == "cuda":
        ledger.on("other queues")
    else:
        ledger.not_applicable("other queues", f"{device} has one queue, which is done at every return")
    if timed:
        ledger.on("official lane")
        ledger.on("cold L2")
        ledger.on("persisting L2")
        ledger.off("independent profiler", "not built")
        return
    for name in _TIMED:
        ledger.not_applicable(name, "nothing is timed in this run")


def at_end(ledger: Ledger, run: RunResult, submission: Path, copy: Path | None) -> None:
    """What came into play, and whether the files are still those that were hashed."""
    probed = [result for result in run.results if result.probed]
    for name in _PROBED:
        if probed:
            ledger.on(name, f"{len(probed)} of {len(run.results)} cases")
        else:
            ledger.off(name, "no case was probed: none got so far, or a simulated call of them takes minutes")
    held_out = [result for result in run.results if result.held_out]
    for name in ("held-out shapes", "second distribution"):
        if held_out:
            ledger.on(name, f"{len(held_out)} cases")
        else:
            ledger.off(name, "only in mode leaderboard; shapes/*.yml has more")
    changed = _changed_files(run, submission, copy)
    if changed:
        ledger.off("private copies", f"changed during the run: {', '.join(changed)}")
    else:
        ledger.on("private copies")


def _changed_files(run: RunResult, submission: Path, copy: Path | None) -> list[str]:
    changed = []
    hashed = run.facts["submission"]["sha256"]
    if copy is None or facts.sha256(copy) != hashed:
        changed.append("the worker's copy of the submission")
    if not submission.is_file() or facts.sha256(submission) != hashed:
        changed.append(submission.name)
    if facts.harness_sha256() != run.facts["harness_sha256"]:
        changed.append("the evaluator's own files")
    return changed


def _own_environment() -> bytes:
    try:
        return Path("/proc/self/environ").read_bytes()
    except OSError:
        return b""
