"""`--compare A.py B.py`: which is faster, and is that more than chance?

Two processes, one per submission, live side by side. A block gives both the same fresh inputs and times
single cold calls in the order A B B A, so that slow changes of the machine hit both alike. After some blocks
another pair of processes goes on: where a process happens to lie in memory is part of the noise. The order of
the two is turned round from block to block.

Several pairs start together where there are cores for it; nothing is timed while a process starts.
"""

from __future__ import annotations

import contextlib
import math
import os
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from evaluator import problem, processes
from evaluator.arena import Arena
from evaluator.cases import Case
from evaluator.cold_calls import HOLD_NS, ColdCalls
from evaluator.conduct import patched
from evaluator.handle import Worker, WorkerFailure
from evaluator.intervals import Comparison, compare, geometric_mean
from evaluator.messages import Done
from evaluator.probe import Content, Stop, expect
from evaluator.seeds import Seeds

_SLOT = 0


@dataclass(frozen=True)
class Plan:
    """Pairs of processes, and blocks of four samples in each. `together`: how many pairs start at once, None:
    as many as there are cores for."""

    pairs: int = 5
    blocks: int = 6
    together: int | None = None

    def batches(self, cores: int) -> list[range]:
        """The pairs' numbers, those that start together in one range."""
        together = self.together or max(1, cores // 2)
        return [range(i, min(i + together, self.pairs)) for i in range(0, self.pairs, together)]


@dataclass
class CaseComparison:
    """What was measured of one case: for each pair of processes, blocks (log ns of A, log ns of B)."""

    case: Case
    pairs: list[list[tuple[float, float]]] = field(default_factory=list)
    result: Comparison | None = None

    def microseconds(self, which: int) -> float:
        """A's (0) or B's (1) median."""
        return statistics.median(math.exp(block[which]) for pair in self.pairs for block in pair) / 1e3


class Disqualified(Exception):
    """One of the two failed; the message says which and why."""


class Contest:
    """The comparison of two submissions over some cases. `after_pair` is called with what is known so far."""

    def __init__(
        self,
        paths: tuple[Path, Path],
        device: str,
        seeds: Seeds,
        limit: float,
        tell: Callable[[str], None],
        after_pair: Callable[[list[CaseComparison]], None] = lambda _: None,
    ) -> None:
        self.paths, self.device, self.seeds, self.limit, self.tell = paths, device, seeds, limit, tell
        self.after_pair = after_pair
        self._calls = ColdCalls(device, limit)

    def run(self, cases: tuple[Case, ...], plan: Plan) -> list[CaseComparison]:
        """Raises `Disqualified` if a submission gives no right result."""
        results = [CaseComparison(case) for case in cases]
        with contextlib.ExitStack() as stack:
            places = [stack.enter_context(processes.sandbox(path)) for path in self.paths]
            for batch in plan.batches(len(os.sched_getaffinity(0))):
                self.tell(f"starting pairs {batch[0] + 1} to {batch[-1] + 1} of {plan.pairs}")
                with self._workers(places * len(batch)) as workers:
                    pairs = {number: workers[2 * i : 2 * i + 2] for i, number in enumerate(batch)}
                    self._warm_up(pairs, cases)
                    for number, pair in pairs.items():
                        for comparison in results:
                            self.tell(f"{comparison.case.name}, pair {number + 1} of {plan.pairs}")
                            blocks = range(plan.blocks)
                            times = [self._block(pair, comparison.case, number, block) for block in blocks]
                            comparison.pairs.append(times)
                        self.after_pair(results)
        for index, comparison in enumerate(results):
            comparison.result = compare(comparison.pairs, seed=index)
        return results

    @contextlib.contextmanager
    def _workers(self, places: list[Path]) -> Iterator[list[Worker]]:
        """One per place, loaded; A's and B's in turn."""
        cores = max(1, len(os.sched_getaffinity(0)) // 2)
        workers: list[Worker] = []
        try:
            for place in places:
                workers.append(Worker(place, self.device, cores))
            for index, worker in enumerate(workers):
                with self._named(index % 2):
                    foul = patched(worker.wait_loaded(self.limit).conduct)
                    if foul:
                        raise Stop(foul)
            yield workers
        finally:
            with ThreadPoolExecutor(len(places)) as pool:  # a GPU takes its time to let go of a process
                for _ in pool.map(Worker.close, workers):
                    pass

    def _warm_up(self, pairs: dict[int, list[Worker]], cases: tuple[Case, ...]) -> None:
        """Blocks that count for nothing: of all pairs at once to compile, of one to learn launch costs."""

        def warm(number: int, block: int = -1) -> None:
            for case in cases:
                self._block(pairs[number], case, number, block)

        with ThreadPoolExecutor(len(pairs)) as pool:
            for _ in pool.map(warm, pairs):
                pass
        self._calls.hold_ns = HOLD_NS
        warm(min(pairs), -2)

    def _block(self, workers: list[Worker], case: Case, pair: int, block: int) -> tuple[float, float]:
        """Mean log ns of A's and of B's two calls on the same fresh inputs. Blocks below 0 warm up."""
        seed = self.seeds.draw("compare", case.name, pair, block)
        data = problem.generate(case.with_seed(seed), self.device)
        truth = problem.Truth(data)
        contents = [Content(data, Arena(data), truth) for _ in workers]
        logs: list[list[float]] = [[], []]
        order = (0, 1, 1, 0) if (pair + block) % 2 == 0 else (1, 0, 0, 1)
        try:
            for index, worker in enumerate(workers):
                with self._named(index):
                    expect(worker, Done, {"do": "hold", "slot": _SLOT}, self.limit, contents[index].arena)
            for index in order:
                with self._named(index):
                    logs[index].append(math.log(self._call(workers[index], contents[index])))
            for worker in workers:
                worker.request({"do": "drop", "slots": [_SLOT]}, self.limit)
        finally:
            for content in contents:
                content.arena.close()
        return statistics.fmean(logs[0]), statistics.fmean(logs[1])

    def _call(self, worker: Worker, content: Content) -> float:
        window, poison = self._calls.call(worker, _SLOT)
        self._calls.check(worker, window, poison, content, inputs=False)
        return window.nanoseconds

    @contextlib.contextmanager
    def _named(self, index: int) -> Iterator[None]:
        """Failures inside say which of the two it was."""
        try:
            yield
        except (Stop, WorkerFailure) as failure:
            name = f"{'AB'[index]} ({self.paths[index].name})"
            verdict = failure.verdict
            raise Disqualified(f"{name}: {verdict.label}: {verdict.message}") from None


def shown(results: list[CaseComparison], device: str) -> str:
    """The comparison as text."""
    what = "single cold calls on a GPU" if device == "cuda" else f"wall time of single calls on this {device}"
    lines = [f"B against A, {what}; ratio below 1: B is faster; 95 % intervals"]
    for comparison in results:
        assert comparison.result is not None
        ratio = comparison.result.ratio
        lines.append(
            f"{comparison.case.name}: A {comparison.microseconds(0):.3f} µs, "
            f"B {comparison.microseconds(1):.3f} µs, "
            f"B/A {ratio.value:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]: {comparison.result.verdict}"
        )
    overall = geometric_mean([c.result.ratio for c in results if c.result is not None])
    lines.append(f"geometric mean: B/A {overall.value:.4f} [{overall.low:.4f}, {overall.high:.4f}]")
    return "\n".join(lines)
