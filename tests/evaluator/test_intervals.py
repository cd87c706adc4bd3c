"""The statistics of times, on synthetic samples whose truth is known."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator import intervals
from evaluator.intervals import Interval, compare, drift, geometric_mean, location, percentile, slope, spread

TIMES = st.lists(st.floats(1.0, 1e6), min_size=1, max_size=40)


@given(TIMES, st.floats(0, 1))
def test_percentiles_lie_between_the_samples(samples: list[float], share: float) -> None:
    value = percentile(samples, share)
    assert min(samples) <= value * (1 + 1e-12) and value <= max(samples) * (1 + 1e-12)
    assert percentile(samples, 0) == min(samples) and percentile(samples, 1) == max(samples)
    assert percentile(samples, 0.5) == pytest.approx(statistics.median(samples))


def test_spread_of_a_known_sample() -> None:
    found = spread([10.0, 11.0, 12.0, 13.0, 100.0])
    assert (found.count, found.median, found.mad) == (5, 12.0, 1.0)
    assert found.p90 == pytest.approx(13 + 0.6 * 87), "one slow sample is not dropped"


def measured(choose: random.Random, true: float, processes: int, samples: int) -> list[list[float]]:
    """Times with 1 % between processes, 2 % within, and now and then a slow one."""
    found = []
    for _ in range(processes):
        level = true * math.exp(choose.gauss(0, 0.01))
        found.append([level * math.exp(choose.gauss(0, 0.02)) for _ in range(samples - 1)] + [level * 1.5])
    return found


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    choose = random.Random(1)
    hits = 0
    for trial in range(60):
        interval = location(measured(choose, 20.0, 5, 12), seed=trial)
        assert interval.low <= interval.value <= interval.high
        hits += interval.low <= 20.0 <= interval.high
    assert hits >= 50, hits


def test_drift_and_slope() -> None:
    assert drift([10.0] * 10 + [11.0] * 10) == pytest.approx(0.1)
    assert drift([1.0, 2.0, 3.0]) == 0.0, "too few to say"
    # A fixed cost of 100 and delays that are only ever added: the slope is the cost of a call.
    short, long = (
        [100 + 15 * 7 + delay for delay in (3, 0, 9)],
        [100 + 115 * 7 + delay for delay in (0, 50, 5)],
    )
    assert slope(short, long, 100) == pytest.approx(7.0)


def contest(choose: random.Random, ratio: float, pairs: int = 5, blocks: int = 6) -> intervals.Comparison:
    """A contest with 1 % between processes, 2 % from block to block, 1 % within a block."""
    found = []
    for _ in range(pairs):
        offsets = [choose.gauss(0, 0.01), math.log(ratio) + choose.gauss(0, 0.01)]
        rows = []
        for _ in range(blocks):
            common = math.log(20_000) + choose.gauss(0, 0.02)
            rows.append(
                (common + offsets[0] + choose.gauss(0, 0.01), common + offsets[1] + choose.gauss(0, 0.01))
            )
        found.append(rows)
    return compare(found, seed=choose.randrange(1000))


def test_a_submission_against_itself_is_ambiguous() -> None:
    choose = random.Random(2)
    verdicts = [contest(choose, 1.0).verdict for _ in range(100)]
    assert verdicts.count("ambiguous") >= 95, verdicts


def test_five_percent_are_seen() -> None:
    choose = random.Random(3)
    slower = [contest(choose, 1.05) for _ in range(40)]
    assert sum(found.verdict == "slower" for found in slower) >= 36
    assert sum(found.ratio.low <= 1.05 <= found.ratio.high for found in slower) >= 36
    assert sum(contest(choose, 1 / 1.05).verdict == "faster" for _ in range(40)) >= 36


def test_one_pair_of_processes_allows_no_conclusion() -> None:
    found = compare([[(1.0, 2.0)] * 20])
    assert found.verdict == "ambiguous" and found.ratio.value == pytest.approx(math.e)


def test_a_sure_difference_below_what_counts_is_none() -> None:
    pairs = [[(10.0, 10.003 + 1e-6 * i)] * 6 for i in range(5)]
    assert compare(pairs).verdict == "ambiguous"


def test_the_geometric_mean_of_intervals() -> None:
    one = Interval(1.1, 1.0, 1.21)
    mean = geometric_mean([one] * 4)
    assert mean.value == pytest.approx(1.1)
    assert math.log(mean.high / mean.value) == pytest.approx(math.log(1.21) / 2 / 2), "half as wide for four"
    assert Interval(2, 1, 3).scaled(2).as_list() == [4, 2, 6]
