"""The official runner's side: its arguments, its keys on POPCORN_FD, its seeds.

Source of keys and formats: gpu-mode/reference-kernels, problems/nvidia/eval_better_bench_grouped_gemm.py; of
how they are read: gpu-mode/kernelbot, src/libkernelbot/run_eval.py. The reader splits lines at the first
colon, and it reads the pipe only after this process has ended: all lines together must fit a pipe's 64 KiB.
"""

from __future__ import annotations

import base64
import os
from dataclasses import replace
from pathlib import Path

from evaluator import report
from evaluator.cases import Case, parse_lines
from evaluator.results import CaseResult, RunResult
from evaluator.verdict import ExitCode, Status

_PIPE_BYTES = 60_000
_ERROR_CHARACTERS = 2_000
_NOT_TIMED = (
    "verified on the simulator, but a ranked run needs a measured time: "
    "run it on a GPU of compute capability 10.x"
)


class Lines:
    """Collects `key: value` lines; every key once, every value on one line."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, key: str, value: object) -> None:
        self.lines.append(f"{key}: {one_line(str(value))}")

    def write(self, fd: int) -> None:
        """Write everything at once, and `check`, which is last, in any case."""
        kept, size = [], len(self.lines[-1].encode()) + 1 if self.lines else 0
        for line in self.lines[:-1]:
            size += len(line.encode()) + 1
            if size > _PIPE_BYTES:
                break
            kept.append(line)
        view = memoryview("".join(f"{line}\n" for line in [*kept, *self.lines[-1:]]).encode())
        while view:
            view = view[os.write(fd, view) :]


def one_line(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\r", "").replace("\n", "\\n") if "\n" in text else text


def mixed_seed(seed: int, secret: int) -> int:
    """The seed of a case in a secret run: the official Cantor pairing of the case's and the secret one."""
    return seed + (seed + secret) * (seed + secret + 1) // 2


def read_cases(path: Path, mode: str, secret: int | None) -> tuple[Case, ...]:
    """The runner's case file. Raises `CaseError`, or `OSError` if it cannot be read."""
    kind = "test" if mode == "test" else "benchmark"
    cases = parse_lines(path.read_text(encoding="utf-8"), where=str(path), kind=kind)  # type: ignore[arg-type]
    if secret is None:
        return cases
    return tuple(replace(case, seed=mixed_seed(case.seed, secret)) for case in cases)


def keys(run: RunResult) -> Lines:
    """All lines of a run under their official keys, and what we add under `env.`."""
    lines = Lines()
    lines.log("env.device", run.facts["device"]["description"])
    lines.log("env.submission_sha256", run.facts["submission"]["sha256"])
    lines.log("env.harness_sha256", run.facts["harness_sha256"])
    prefix = "test" if run.mode == "test" else "benchmark"
    announced = [result for result in run.results if not result.held_out]
    lines.log(f"{prefix}-count", len(announced))
    passed = True
    for index, result in enumerate(announced):
        passed &= _case_keys(lines, f"{prefix}.{index}", result, run)
        if run.mode == "leaderboard" and not passed:
            break
    for index, result in enumerate(r for r in run.results if r.held_out):
        passed &= _integrity_keys(lines, f"integrity.{index}", result)
    lines.log("check", "pass" if passed else "fail")
    return lines


def _integrity_keys(lines: Lines, prefix: str, result: CaseResult) -> bool:
    """A case that the runner did not ask for. One that was not run is no failure: another one is."""
    lines.log(f"{prefix}.spec", result.case.spec)
    if result.verdict.status is Status.NOT_RUN:
        return True
    lines.log(f"{prefix}.status", "pass" if result.verdict.passed else "fail")
    if not result.verdict.passed:
        lines.log(f"{prefix}.error", f"{result.verdict.label}: {result.verdict.message}"[:_ERROR_CHARACTERS])
    return result.verdict.passed


def exit_code(run: RunResult) -> ExitCode:
    """0 or 112. (The official evaluator ends a failed ranked run with 0; its runner accepts 112 as well.)"""
    return ExitCode.OK if keys(run).lines[-1] == "check: pass" else ExitCode.CHECK_FAILED


def _case_keys(lines: Lines, prefix: str, result: CaseResult, run: RunResult) -> bool:
    lines.log(f"{prefix}.spec", result.case.spec)
    if run.mode == "profile":
        text = report.launch_report(result)
        lines.log(f"{prefix}.report", base64.b64encode(text.encode()[:8000], b"+*").decode())
        return result.verdict.passed
    if not result.verdict.passed:
        lines.log(f"{prefix}.status", "fail")
        error = f"{result.verdict.label}: {result.verdict.message}"
        lines.log(f"{prefix}.error", error[:_ERROR_CHARACTERS])
        return False
    if run.mode == "test":
        lines.log(f"{prefix}.status", "pass")
        if result.verdict.message:
            lines.log(f"{prefix}.message", result.verdict.message[:_ERROR_CHARACTERS])
        return True
    if result.stats:
        for name, value in result.stats.as_dict().items():
            lines.log(f"{prefix}.{name}", value)
        return True
    if run.mode == "leaderboard":
        lines.log(f"{prefix}.status", "fail")
        lines.log(f"{prefix}.error", _NOT_TIMED)
        return False
    lines.log(f"{prefix}.status", "pass")
    lines.log(f"{prefix}.message", "verified on the simulator; no time was measured")
    return True
