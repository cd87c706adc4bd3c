"""Timed windows of one case on a GPU, checked by the judge (the official lane)."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from evaluator import bounds, conduct, problem, strict, timing
from evaluator.arena import Arena, Groups
from evaluator.handle import Worker, WorkerFailure
from evaluator.messages import Done, Ran, Reply, Window
from evaluator.probe import Content, Stop, collect, expect
from evaluator.reasons import Reason
from evaluator.results import CaseResult
from evaluator.seeds import Seeds
from evaluator.timing import Effort, Stats
from evaluator.verdict import Status, Verdict
from evaluator.windows import window_command


@dataclass(frozen=True)
class Timing:
    """The efforts of one mode. `warmup_all`: warm up every case, else the first only.

    `fresh_window`: after the official windows, one over inputs never called before.
    """

    warmup: Effort
    effort: Effort
    warmup_all: bool
    strict: strict.Effort
    fresh_window: bool


BENCHMARK = Timing(timing.BENCHMARK_WARMUP, timing.BENCHMARK, False, strict.BENCHMARK, False)
RANKED = Timing(timing.RANKED_WARMUP, timing.RANKED, True, strict.RANKED, True)


class Measurement:
    """Official timing of one case: 15 inputs, a correctness pass on other copies, then windows.

    Two things differ from the official evaluator without touching what is timed: `c` is poisoned before a
    window that is checked, and all 15 outputs of it count; and each case is warmed up right before it is
    measured, not all before the first, so that its inputs are made only once.
    """

    def __init__(
        self,
        worker: Worker,
        device: str,
        result: CaseResult,
        limit: float,
        tell: Callable[[str], None],
        seeds: Seeds,
    ) -> None:
        self.seeds = seeds
        self.worker, self.device, self.result, self.limit, self.tell = worker, device, result, limit, tell
        self.slots: list[Content] = []
        self.late_nanoseconds: list[float] = []  # how long other queues went on after a window
        self.host_nanoseconds: list[float] = []  # launch cost per call, as the worker saw it

    def run(self, plan: Timing) -> Verdict:
        """Fills in the result's statistics; the verdict of all checks made on the way."""
        try:
            self._prepare()
            if plan.warmup_all or self.result.index == 0:
                self.tell("warming up")
                timing.repeat(lambda i: self._window(i, False), plan.warmup)
            self.host_nanoseconds.clear()
            stats: Stats = timing.repeat(lambda i: self._window(i, plan.effort.recheck), plan.effort)
            self.result.stats = stats
            foul = conduct.other_queues(self.late_nanoseconds)
            if foul:
                raise Stop(foul)
            self._bound(stats.mean)
            if plan.fresh_window:
                self._fresh_window()
            return Verdict(Status.PASS)
        except Stop as stop:
            return stop.verdict
        finally:
            self._clean_up()

    def _bound(self, mean: float) -> None:
        """The same calls by the judge's clock."""
        self.tell("the judge's clock")
        slots = list(range(len(self.slots)))
        host = statistics.median(self.host_nanoseconds)
        clock = bounds.judge_clock(self.worker, slots, mean, host, self.limit)
        self.result.lanes["judge_clock_ns"] = {"seen": clock.seen, "claimed": clock.claimed}
        self.result.lanes["host_ns"] = host
        foul = bounds.clock_verdict(clock)
        if foul:
            raise Stop(foul)

    def _fresh_window(self) -> None:
        """One official window over a number and contents of inputs that were never called before."""
        choose = self.seeds.choices("fresh window", self.result.case.name)
        count = choose.randint(9, len(self.slots))
        chosen = choose.sample(range(len(self.slots)), count)
        fresh: list[Content] = []
        poison = problem.poison_word()
        self.tell(f"a window of {count} fresh inputs")
        drawn = [self.seeds.draw("fresh window", self.result.case.name, slot) for slot in chosen]
        inputs, truths = self._inputs(drawn)
        try:
            for slot, data, truth in zip(chosen, inputs, truths, strict=True):
                fresh.append(Content(data, Arena(data), truth))
                self._expect(Done, {"do": "rewrite", "slot": slot}, fresh[-1].arena)
            self._expect(Done, {"do": "refill", "slots": chosen, "word": poison})
            window = self._expect(Window, window_command(chosen, self.limit, flush="official"))
            assert isinstance(window, Window)
            self.result.lanes["fresh_window_ns"] = window.nanoseconds / count
            before = [
                [problem.Past(Reason.STALE_OUTPUT, self.slots[slot].truth, "in earlier windows")]
                for slot in chosen
            ]
            homes = [self.slots[slot].arena for slot in chosen]
            self._recheck(poison, fresh, homes, before)
        finally:
            for content in fresh:
                content.arena.close()

    def _inputs(self, seeds: Sequence[int]) -> tuple[list[Groups], list[problem.Truth]]:
        inputs = [problem.generate(self.result.case.with_seed(seed), self.device) for seed in seeds]
        return inputs, problem.side_by_side(
            inputs, lambda done: self.tell(f"exact result {done} of {len(inputs)}")
        )

    def _prepare(self) -> None:
        inexact = elements = 0
        self.tell(f"{timing.CALLS_PER_WINDOW} inputs")
        inputs, truths = self._inputs(timing.seeds(self.result.case.seed))
        for index, (data, truth) in enumerate(zip(inputs, truths, strict=True)):
            self.tell(f"check {index + 1} of {len(inputs)}")
            slot = Content(data, Arena(data), truth)
            self.slots.append(slot)
            self._expect(Done, {"do": "hold", "slot": index}, slot.arena)
            poison = problem.poison_word()
            slot.arena.poison_outputs(poison)
            command: dict[str, object] = {"do": "run", "limit": self.limit, "word": poison}
            ran = self._expect(Ran, command, slot.arena)
            assert isinstance(ran, Ran)
            checked = problem.check(data, slot.arena, ran, poison, self.device, slot.truth)
            elements += checked.elements
            inexact += checked.inexact or 0
            self._require(checked)
        self.result.elements, self.result.inexact = elements, inexact

    def _window(self, index: int, recheck: bool) -> float:
        self.tell(f"window {index + 1}")
        slots = list(range(len(self.slots)))
        poison = problem.poison_word()
        # The worker cannot tell a window that is checked from one that is not: the question comes afterwards.
        self._expect(Done, {"do": "refill", "slots": slots, "word": poison})
        window = self._expect(Window, window_command(slots, self.limit, flush="official"))
        assert isinstance(window, Window)
        foul = conduct.patched(window.conduct) or conduct.persisting(window.conduct)
        if foul:
            raise Stop(foul)
        self.result.flush = window.flush
        self.late_nanoseconds.append(window.conduct.late_nanoseconds)
        self.host_nanoseconds.append(window.host_nanoseconds / len(slots))
        if recheck:
            nothing: list[list[problem.Past]] = [[] for _ in self.slots]
            self._recheck(poison, self.slots, [slot.arena for slot in self.slots], nothing)
        return window.nanoseconds / len(slots)

    def _recheck(
        self, poison: int, contents: list[Content], homes: list[Arena], past: list[list[problem.Past]]
    ) -> None:
        """All outputs of the last window, reported in the arenas `homes`, must be those of `contents`."""
        outputs = collect(self.worker, len(contents), self.limit, inputs=False)
        for slot, home, ran, earlier in zip(contents, homes, outputs, past, strict=True):
            self._require(
                problem.check(slot.data, home, ran, poison, self.device, slot.truth, False, earlier)
            )

    def _expect(self, kind: type[Reply], command: dict[str, object], arena: Arena | None = None) -> Reply:
        return expect(self.worker, kind, command, self.limit, arena)

    def _require(self, checked: problem.Checked) -> None:
        if not checked.verdict.passed:
            self.result.elements, self.result.inexact = checked.elements, checked.inexact
            raise Stop(checked.verdict)

    def _clean_up(self) -> None:
        for slot in self.slots:
            slot.arena.close()
        with contextlib.suppress(WorkerFailure):  # a dead worker holds nothing
            self.worker.request({"do": "drop", "slots": list(range(len(self.slots)))}, self.limit)
        self.slots = []
        if self.device == "cuda":
            torch.cuda.empty_cache()
