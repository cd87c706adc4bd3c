"""The official timing protocol, driven by the judge: windows of 15 calls, statistics, and when to stop.

Source of the protocol: gpu-mode/reference-kernels, problems/nvidia/eval_better_bench_grouped_gemm.py. A
window runs in the worker; whether there is another one, and what the numbers mean, is decided here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

CALLS_PER_WINDOW = 15
SEED_STEP = 42


@dataclass(frozen=True)
class Stats:
    """Official statistics of the windows' times per call, in nanoseconds, under the official names."""

    runs: int
    mean: float
    std: float
    err: float
    best: float
    worst: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Effort:
    """At most `repeats` windows, their means together about `nanoseconds`; `recheck`: check every one."""

    recheck: bool
    repeats: int
    nanoseconds: float


#: Official efforts per mode. A warm-up is measured and thrown away: of the first case, or of every case.
BENCHMARK_WARMUP = Effort(False, 100, 1e8)
BENCHMARK = Effort(False, 100, 1e10)
RANKED_WARMUP = Effort(False, 50, 5e8)
RANKED = Effort(True, 100, 3e10)


def statistics(durations: list[float]) -> Stats:
    """Mean, sample standard deviation, its error, extremes. Needs at least two durations."""
    runs = len(durations)
    mean = sum(durations) / runs
    std = math.sqrt(sum((d - mean) ** 2 for d in durations) / (runs - 1))
    return Stats(runs, mean, std, std / math.sqrt(runs), float(min(durations)), float(max(durations)))


def enough(durations: list[float], elapsed_ns: float, limit_ns: float) -> bool:
    """The official stop rule: after three windows and 0.1 s, if the mean is known to 0.1 % or time is up."""
    if len(durations) < 3 or elapsed_ns <= 1e8:
        return False
    stats = statistics(durations)
    return stats.err / stats.mean < 0.001 or stats.mean * stats.runs > limit_ns or elapsed_ns > 120e9


def repeat(window: Callable[[int], float], effort: Effort) -> Stats:
    """Run `window(index)` (nanoseconds per call) until the official rule says enough."""
    durations: list[float] = []
    started = time.perf_counter_ns()
    for index in range(effort.repeats):
        durations.append(window(index))
        if enough(durations, time.perf_counter_ns() - started, effort.nanoseconds):
            break
    return statistics(durations)


def seeds(first: int, calls: int = CALLS_PER_WINDOW) -> list[int]:
    """The seeds of a window's inputs: the case's seed is stepped before every draw, the first too."""
    return [first + SEED_STEP * (index + 1) for index in range(calls)]


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(math.log(v) for v in values) / len(values))
