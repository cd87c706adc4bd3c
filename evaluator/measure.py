"""Timed windows of one case on a GPU, checked by the judge (the official lane)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch

from evaluator import problem, timing
from evaluator.arena import Arena, Groups
from evaluator.handle import Worker, WorkerFailure
from evaluator.messages import Done, Failed, Ran, Reply, Window
from evaluator.results import CaseResult
from evaluator.timing import Effort, Stats
from evaluator.verdict import Status, Verdict


@dataclass(frozen=True)
class Timing:
    """The efforts of one mode. `warmup_all`: warm up every case, else the first only."""

    warmup: Effort
    effort: Effort
    warmup_all: bool


BENCHMARK = Timing(timing.BENCHMARK_WARMUP, timing.BENCHMARK, warmup_all=False)
RANKED = Timing(timing.RANKED_WARMUP, timing.RANKED, warmup_all=True)


class _Stop(Exception):
    """Ends a measurement with a verdict."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict


@dataclass
class _Slot:
    """One of the window's inputs: the judge's copy, the shared memory, the ground truth."""

    data: Groups
    arena: Arena
    truth: problem.Truth


class Measurement:
    """Official timing of one case: 15 inputs, a correctness pass on other copies, then windows.

    Two things differ from the official evaluator without touching what is timed: `c` is poisoned before a
    window that is checked, and all 15 outputs of it count; and each case is warmed up right before it is
    measured, not all before the first, so that its inputs are made only once.
    """

    def __init__(
        self, worker: Worker, device: str, result: CaseResult, limit: float, tell: Callable[[str], None]
    ) -> None:
        self.worker, self.device, self.result, self.limit, self.tell = worker, device, result, limit, tell
        self.slots: list[_Slot] = []

    def run(self, plan: Timing) -> Verdict:
        """Fills in the result's statistics; the verdict of all checks made on the way."""
        try:
            self._prepare()
            if plan.warmup_all or self.result.index == 0:
                self.tell("warming up")
                timing.repeat(lambda i: self._window(i, False), plan.warmup)
            stats: Stats = timing.repeat(lambda i: self._window(i, plan.effort.recheck), plan.effort)
            self.result.stats = stats
            return Verdict(Status.PASS)
        except _Stop as stop:
            return stop.verdict
        finally:
            self._clean_up()

    def _prepare(self) -> None:
        exact = elements = 0
        for index, seed in enumerate(timing.seeds(self.result.case.seed)):
            self.tell(f"input and check {index + 1} of {timing.CALLS_PER_WINDOW}")
            data = problem.generate(self.result.case.with_seed(seed), self.device)
            slot = _Slot(data, Arena(data), problem.Truth(data))
            self.slots.append(slot)
            self._expect(Done, {"do": "hold", "slot": index}, slot.arena)
            poison = problem.poison_word()
            slot.arena.poison_outputs(poison)
            ran = self._expect(Ran, {"do": "run", "limit": self.limit}, slot.arena)
            assert isinstance(ran, Ran)
            checked = problem.check(data, slot.arena, ran, poison, self.device, slot.truth)
            elements += checked.elements
            exact += checked.inexact or 0
            self._require(checked)
        self.result.elements, self.result.inexact = elements, exact

    def _window(self, index: int, recheck: bool) -> float:
        self.tell(f"window {index + 1}")
        slots = list(range(len(self.slots)))
        poison = problem.poison_word()
        if recheck:
            self._expect(Done, {"do": "refill", "slots": slots, "word": poison})
        command = {"do": "window", "slots": slots, "collect": recheck, "flush": "auto"}
        window = self._expect(Window, command)
        assert isinstance(window, Window)
        self.result.flush = window.flush
        if recheck:
            if len(window.outputs) != len(self.slots):
                raise _Stop(Verdict(Status.PROTOCOL, "the worker broke the protocol: outputs are missing"))
            for slot, ran in zip(self.slots, window.outputs, strict=True):
                self._require(
                    problem.check(slot.data, slot.arena, ran, poison, self.device, slot.truth, False)
                )
        return window.nanoseconds

    def _expect(self, kind: type[Reply], command: dict[str, object], arena: Arena | None = None) -> Reply:
        reply = self.worker.request(command, self.limit, arena)
        if isinstance(reply, Failed):
            raise _Stop(Verdict(reply.status, reply.message, reply.detail))
        if not isinstance(reply, kind):
            raise _Stop(Verdict(Status.PROTOCOL, f"the worker broke the protocol: expected {kind.__name__}"))
        return reply

    def _require(self, checked: problem.Checked) -> None:
        if not checked.verdict.passed:
            self.result.elements, self.result.inexact = checked.elements, checked.inexact
            raise _Stop(checked.verdict)

    def _clean_up(self) -> None:
        for slot in self.slots:
            slot.arena.close()
        self.slots = []
        with contextlib.suppress(WorkerFailure):  # a dead worker holds nothing
            self.worker.request({"do": "drop"}, self.limit)
        if self.device == "cuda":
            torch.cuda.empty_cache()
