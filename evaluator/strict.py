"""The strict lane: single calls on inputs that did not exist before, cold L2, launch cost kept out.

One sample: inputs drawn from a seed nobody used are copied to the worker's device, `c` is poisoned, twice the
L2 is written, the queue is held so that the launch does not wait for the host, and one call is timed. All
elements of its output, as they were at return, are checked. Then the same inputs are timed again twice: a
call that gets faster on inputs it has seen has kept something. The whole repeats in fresh processes.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from evaluator import conduct, problem
from evaluator.arena import Arena, Groups
from evaluator.cases import Case
from evaluator.cold_calls import ColdCalls
from evaluator.handle import Worker
from evaluator.intervals import Interval, drift, location, spread
from evaluator.messages import Done
from evaluator.probe import Content, Stop, expect
from evaluator.seeds import Seeds

_SLOT = 50
_AGAIN = 2
_WARM_UPS = 2
_EMPTY = 9


@dataclass(frozen=True)
class Effort:
    """Processes, and fresh samples in each."""

    processes: int
    samples: int


BENCHMARK = Effort(2, 6)
RANKED = Effort(3, 10)


@dataclass
class StrictTimes:
    """Nanoseconds per call, one list per process."""

    fresh: list[list[float]] = field(default_factory=list)
    again: list[list[float]] = field(default_factory=list)
    empty: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)
    flush: str = ""

    def interval(self) -> Interval:
        return location(self.fresh)

    def seen_before(self) -> float:
        """Median over inputs that were timed before."""
        return statistics.median(time for times in self.again for time in times)

    def record(self) -> dict[str, Any]:
        """For the JSON report, in nanoseconds."""
        everything = [time for times in self.fresh for time in times]
        return {
            "median_and_95_interval": self.interval().as_list(),
            "spread": asdict(spread(everything)),
            "seen_before_median": self.seen_before(),
            "empty_window_median": statistics.median(self.empty),
            "host_median": statistics.median(self.host),
            "drift": drift(everything),
            "flush": self.flush,
            "samples": self.fresh,
        }


class StrictLane:
    """Takes the samples of one case. `fresh_worker` starts, loads and returns another process."""

    def __init__(
        self, device: str, case: Case, seeds: Seeds, limit: float, fresh_worker: Callable[[], Worker]
    ) -> None:
        self.device, self.case, self.seeds, self.limit = device, case, seeds, limit
        self.fresh_worker = fresh_worker
        self.times = StrictTimes()
        self._late: list[float] = []
        self._calls = ColdCalls(device, limit)

    def run(self, worker: Worker, effort: Effort, tell: Callable[[str], None]) -> StrictTimes:
        """Raises `Stop` with the verdict of the first bad sample, or `WorkerFailure`."""
        for process in range(effort.processes):
            if process:
                worker = self.fresh_worker()
            self.times.fresh.append([])
            self.times.again.append([])
            samples = range(-_WARM_UPS, effort.samples)
            tell(f"inputs and exact results of {len(samples)} strict samples, process {process + 1}")
            inputs = [self._input(process, sample) for sample in samples]
            truths = problem.side_by_side(inputs)
            self.times.empty += [self._calls.empty(worker).nanoseconds for _ in range(_EMPTY)]
            for sample, data, truth in zip(samples, inputs, truths, strict=True):
                tell(f"strict sample {max(sample, 0) + 1} of {effort.samples}, process {process + 1}")
                self._sample(worker, process, sample, data, truth)
        foul = conduct.other_queues(self._late)
        if foul:
            raise Stop(foul)
        return self.times

    def _input(self, process: int, sample: int) -> Groups:
        seed = self.seeds.draw("strict", self.case.name, process, sample)
        return problem.generate(self.case.with_seed(seed), self.device)

    def _sample(self, worker: Worker, process: int, sample: int, data: Groups, truth: problem.Truth) -> None:
        content = Content(data, Arena(data), truth)
        try:
            expect(worker, Done, {"do": "hold", "slot": _SLOT}, self.limit, content.arena)
            for repeat in range(1 + _AGAIN):
                window, poison = self._calls.call(worker, _SLOT, learn=sample >= 0)
                self._calls.check(worker, window, poison, content, inputs=repeat == 0)
                if sample < 0:
                    break
                kept = self.times.fresh if repeat == 0 else self.times.again
                kept[process].append(window.nanoseconds)
                self.times.host.append(window.host_nanoseconds)
                self.times.flush = window.flush
                self._late.append(window.conduct.late_nanoseconds)
            expect(worker, Done, {"do": "drop", "slots": [_SLOT]}, self.limit)
        finally:
            content.arena.close()
