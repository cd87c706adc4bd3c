"""What `eval.py` can be asked for. Imports nothing heavy: `eval.py --help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evaluator.cases import Case
from evaluator.processes import ROOT

MODES = ("test", "benchmark", "leaderboard", "profile")
DEVICES = ("auto", "sim", "cuda", "cpu")
SIMULATED = ("b200", "h200")  # keys of b200sim.gpus.GPUS


@dataclass(frozen=True)
class Sanitize:
    """What `--sanitize` was asked to do: how many orders per case, and from which seed the random ones go on;
    `names` picks orders by name instead (a replay). trace: where the first case's first order goes. sms: how
    many the simulated device has, None for all."""

    schedules: int = 1
    seed: int = 0
    names: tuple[str, ...] = ()
    trace: Path | None = None
    sms: int | None = None


@dataclass(frozen=True)
class Options:
    """What `eval.py` was asked to do. `cases` empty: the task's own; `timeout` None: the task's."""

    mode: str
    device: str = "auto"
    submission: Path = ROOT / "submission.py"
    cases: tuple[Case, ...] = ()
    only: tuple[str, ...] = ()
    json: Path | None = None
    timeout: float | None = None
    jobs: int | None = None
    plot: Path | None = None  # a picture of the profile
    sanitize: Sanitize | None = None
    seed: str | None = None  # the published key of an earlier run, to draw the same seeds
    gpu: str | None = None  # which the simulator is; None: the one the submission is written for
