"""The strict lane: single calls on inputs that did not exist before, cold L2, launch cost kept out.

One sample: inputs are drawn from a seed nobody used, copied to the device, `c` is poisoned, twice the L2 is
written, the queue is held so that the launch does not wait for the host, and one call is timed. All elements
of its output, as they were at return, are checked. Then the same inputs are timed again twice: a call that
gets faster on inputs it has seen has kept something. The whole repeats in fresh processes.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from evaluator import conduct, problem
from evaluator.arena import Arena
from evaluator.cases import Case
from evaluator.handle import Worker
from evaluator.intervals import Interval, drift, location, spread
from evaluator.messages import Collected, Done, Ran, Window
from evaluator.probe import Stop, expect
from evaluator.seeds import Seeds
from evaluator.verdict import Status, Verdict
from evaluator.windows import window_command

_SLOT = 50
_AGAIN = 2
_WARM_UPS = 2
_EMPTY = 9
_MOST_HOLD_NS = 20e6


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
        self._hold_ns = 200_000.0

    def run(self, worker: Worker, effort: Effort, tell: Callable[[str], None]) -> StrictTimes:
        """Raises `Stop` with the verdict of the first bad sample, or `WorkerFailure`."""
        for process in range(effort.processes):
            if process:
                worker = self.fresh_worker()
            self.times.fresh.append([])
            self.times.again.append([])
            self._empty(worker)
            for sample in range(-_WARM_UPS, effort.samples):
                tell(f"strict sample {max(sample, 0) + 1} of {effort.samples}, process {process + 1}")
                self._sample(worker, process, sample)
        foul = conduct.other_queues(self._late)
        if foul:
            raise Stop(foul)
        return self.times

    def _sample(self, worker: Worker, process: int, sample: int) -> None:
        seed = self.seeds.draw("strict", self.case.name, process, sample)
        data = problem.generate(self.case.with_seed(seed), self.device)
        arena = Arena(data)
        try:
            expect(worker, Done, {"do": "hold", "slot": _SLOT}, self.limit, arena)
            truth = problem.Truth(data)
            for repeat in range(1 + _AGAIN):
                poison = problem.poison_word()
                expect(worker, Done, {"do": "refill", "slots": [_SLOT], "word": poison}, self.limit)
                window = self._timed(worker, [_SLOT])
                ran = self._collected(worker, inputs=repeat == 0)
                ran = Ran(ran.container, ran.outputs, ran.seconds, ran.launches, window.conduct)
                checked = problem.check(data, arena, ran, poison, self.device, truth, repeat == 0)
                if not checked.verdict.passed:
                    raise Stop(checked.verdict)
                if sample < 0:
                    break
                kept = self.times.fresh if repeat == 0 else self.times.again
                kept[process].append(window.nanoseconds)
                self.times.host.append(window.host_nanoseconds)
                self._hold_ns = min(_MOST_HOLD_NS, max(self._hold_ns, 2 * window.host_nanoseconds))
                self._late.append(window.conduct.late_nanoseconds)
            expect(worker, Done, {"do": "drop", "slots": [_SLOT]}, self.limit)
        finally:
            arena.close()

    def _timed(self, worker: Worker, slots: list[int]) -> Window:
        command = window_command(slots, self.limit, flush="l2", copy="last", hold_ns=self._hold_ns)
        window = expect(worker, Window, command, self.limit)
        assert isinstance(window, Window)
        foul = conduct.patched(window.conduct) or conduct.persisting(window.conduct)
        if foul:
            raise Stop(foul)
        self.times.flush = window.flush
        return window

    def _collected(self, worker: Worker, inputs: bool) -> Ran:
        collected = expect(worker, Collected, {"do": "collect", "inputs": inputs}, self.limit)
        assert isinstance(collected, Collected)
        if len(collected.outputs) != 1:
            raise Stop(Verdict(Status.PROTOCOL, "the worker broke the protocol: outputs are missing"))
        return collected.outputs[0]

    def _empty(self, worker: Worker) -> None:
        """What two stamps with nothing between them measure, to be shown beside the times."""
        for _ in range(_EMPTY):
            self.times.empty.append(self._timed(worker, []).nanoseconds)
