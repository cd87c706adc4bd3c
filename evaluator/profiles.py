"""Profiles of a submission on the simulated B200, made by `profiling` in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluator.cases import Case
from evaluator.processes import ROOT

NEEDS_MATPLOTLIB = "--plot needs matplotlib: pip install 'nvfp4-group-gemm[plot]'"


def can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def gather(submission: Path, cases: Sequence[Case], plot: Path | None) -> list[dict[str, Any]]:
    """The figures of each case, as `profiling` documents them; {"error": ...} where there are none."""
    if importlib.util.find_spec("profiling") is None:
        return [{"error": "the package `profiling` is not here"}] * len(cases)
    asked = [
        {"name": case.name, "sizes": [list(size) for size in zip(case.m, case.n, case.k, strict=True)]}
        for case in cases
    ]
    with tempfile.TemporaryDirectory(prefix="nvfp4-profile-") as folder:
        output = Path(folder) / "profile.json"
        command = [sys.executable, "-m", "profiling", str(submission.resolve()), str(output)]
        command += ["--plot", str(plot.resolve())] if plot else []
        done = subprocess.run(
            command, cwd=ROOT, input=json.dumps(asked), text=True, capture_output=True, check=False
        )
        if not output.exists():
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            return [{"error": lines[-1]}] * len(cases)
        figures: list[dict[str, Any]] = json.loads(output.read_text())
    return figures


def text(name: str, figures: dict[str, Any]) -> str:
    if "error" in figures:
        return f"{name}: no profile: {figures['error']}"
    from profiling.text import report

    return report(name, figures)
