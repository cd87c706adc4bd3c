"""Numbers that say how sure they are: medians with bootstrap intervals, paired comparison, drift, slopes.

Samples taken in one process belong together (placement in memory, clocks), so every interval resamples
processes first and samples within them second. Nothing is ever dropped, and nothing is a best-of.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_RESAMPLES = 2000
#: Two-sided 97.5 % points of Student's t for 1, 2, ... degrees of freedom.
_T = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)

Processes = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        return Interval(self.value * factor, self.low * factor, self.high * factor)

    def as_list(self) -> list[float]:
        return [self.value, self.low, self.high]


@dataclass(frozen=True)
class Spread:
    """How samples scatter: count, median, median absolute deviation, 10th and 90th percentile."""

    count: int
    median: float
    mad: float
    p10: float
    p90: float


def spread(samples: Sequence[float]) -> Spread:
    middle = statistics.median(samples)
    mad = statistics.median(abs(sample - middle) for sample in samples)
    return Spread(len(samples), middle, mad, percentile(samples, 0.1), percentile(samples, 0.9))


def percentile(samples: Sequence[float], share: float) -> float:
    """By linear interpolation between order statistics."""
    ordered = sorted(samples)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def median_of_medians(processes: Processes) -> float:
    """The median over processes of each one's median."""
    return statistics.median(statistics.median(samples) for samples in processes)


def bootstrap(processes: Processes, estimate: Callable[[Processes], float], seed: int = 0) -> Interval:
    """`estimate` with its 95 % percentile interval over resampled processes and samples."""
    choose = random.Random(seed)
    values = sorted(
        estimate(
            [
                choose.choices(samples, k=len(samples))
                for samples in choose.choices(processes, k=len(processes))
            ]
        )
        for _ in range(_RESAMPLES)
    )
    return Interval(estimate(processes), percentile(values, 0.025), percentile(values, 0.975))


def location(processes: Processes, seed: int = 0) -> Interval:
    """The strict lane's number: median of medians, with its interval."""
    return bootstrap(processes, median_of_medians, seed)


def drift(samples: Sequence[float]) -> float:
    """By how much the last third's median exceeds the first's, as a share."""
    third = len(samples) // 3
    if third < 3:
        return 0.0
    return statistics.median(samples[-third:]) / statistics.median(samples[:third]) - 1


def slope(short: Sequence[float], long: Sequence[float], calls: int) -> float:
    """Time per call from windows that differ by `calls` calls: what both have in common cancels.

    The shortest of each kind counts: a clock outside the worker sees delays only ever added.
    """
    return (min(long) - min(short)) / calls


@dataclass(frozen=True)
class Comparison:
    """How B's time relates to A's: the ratio with its interval, and what that allows to say."""

    ratio: Interval
    verdict: str


#: A difference below this is none, however sure: placement alone makes as much.
NOTICEABLE = 0.005


def compare(processes: Sequence[Sequence[tuple[float, float]]], seed: int = 0) -> Comparison:
    """B against A from blocks (log time of A, log time of B), grouped by the pair of processes they ran in.

    The interval is the wider of the two-level bootstrap's and Student's over the pairs of processes: with few
    pairs the bootstrap alone is too sure of itself.
    """
    differences = [[b - a for a, b in blocks] for blocks in processes]
    means = [statistics.fmean(blocks) for blocks in differences]
    resampled = bootstrap(
        differences, lambda many: statistics.fmean(statistics.fmean(one) for one in many), seed
    )
    low, high = resampled.low, resampled.high
    if len(means) > 1:
        freedom = min(len(means) - 1, len(_T))
        half = _T[freedom - 1] * statistics.stdev(means) / math.sqrt(len(means))
        low, high = min(low, resampled.value - half), max(high, resampled.value + half)
    else:
        low, high = -math.inf, math.inf
    ratio = Interval(*(math.exp(x) if x < 700 else math.inf for x in (resampled.value, low, high)))
    if ratio.high < 1 - NOTICEABLE:
        return Comparison(ratio, "faster")
    if ratio.low > 1 + NOTICEABLE:
        return Comparison(ratio, "slower")
    return Comparison(ratio, "ambiguous")


def geometric_mean(ratios: Sequence[Interval]) -> Interval:
    """Of independent intervals, on the scale of logarithms."""
    count = len(ratios)
    value = sum(math.log(ratio.value) for ratio in ratios) / count
    half = math.sqrt(sum((math.log(r.high) - math.log(r.low)) ** 2 for r in ratios)) / (2 * count)
    return Interval(math.exp(value), math.exp(value - half), math.exp(value + half))
