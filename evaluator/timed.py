"""A timed case from start to end: official lane, strict lane, bounds, signals (judge side)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from evaluator import bounds
from evaluator.cases import Case
from evaluator.defences import Ledger
from evaluator.gpu_log import GpuLog
from evaluator.handle import Worker
from evaluator.measure import Measurement, Timing
from evaluator.probe import Stop
from evaluator.reasons import MEANING, Reason
from evaluator.results import CaseResult
from evaluator.seeds import Seeds
from evaluator.speed_limits import limits_of
from evaluator.strict import StrictLane, StrictTimes
from evaluator.verdict import Status, Verdict

#: SM clocks further apart than this share within one case are worth a word.
_CLOCK_SPREAD = 0.03


class TimedCase:
    """Both lanes over one case. `fresh_worker` replaces the worker by a new process, loaded."""

    def __init__(
        self, device: str, result: CaseResult, limit: float, seeds: Seeds, ledger: Ledger,
        fresh_worker: Callable[[], Worker], tell: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.device, self.result, self.limit = device, result, limit
        self.seeds, self.ledger, self.fresh_worker, self.tell = seeds, ledger, fresh_worker, tell
        self.log = GpuLog()

    def run(self, worker: Worker, plan: Timing) -> Verdict:
        """The verdict of every check in both lanes. Raises `WorkerFailure`."""
        self.log.read("before")
        official = Measurement(worker, self.device, self.result, self.limit, self.tell, self.seeds)
        verdict = official.run(plan)
        self.log.read("after the official lane")
        if not verdict.passed:
            return verdict
        lane = StrictLane(self.device, self.result.case, self.seeds, self.limit, self.fresh_worker)
        try:
            times = lane.run(worker, plan.strict, self.tell)
        except Stop as stop:
            return stop.verdict
        self.log.read("after the strict lane")
        self.result.lanes["strict_ns"] = times.record()
        self.result.lanes["gpu"] = self.log.readings
        self._account(plan)
        self._signals(times)
        return self._roofline(self.result.case, times) or Verdict(Status.PASS)

    def _account(self, plan: Timing) -> None:
        self.ledger.on("strict lane")
        self.ledger.on("judge's clock")
        self.ledger.on("restarts", f"{plan.strict.processes} processes per case")
        if self.log.missing:
            self.ledger.off("clock log", self.log.missing)
        else:
            self.ledger.on("clock log")

    def _signals(self, times: StrictTimes) -> None:
        official = self.result.stats.mean if self.result.stats else None
        lanes = self.result.lanes
        self.result.signals += bounds.signals(
            official, times, lanes.get("fresh_window_ns"), lanes.get("host_ns")
        )
        clocks = self.log.clock_range()
        slowed = self.log.slowed()
        if slowed or (clocks and clocks[1] > (1 + _CLOCK_SPREAD) * clocks[0]):
            shown = f"{clocks[0]}..{clocks[1]} MHz" if clocks else "clock unknown"
            text = ", ".join([shown, *slowed])
            self.result.signals.append(f"{Reason.CLOCKS}: {MEANING[Reason.CLOCKS]}: {text}")

    def _roofline(self, case: Case, times: StrictTimes) -> Verdict | None:
        if self.device != "cuda":
            self.ledger.not_applicable("roofline", "no GPU")
            return None
        gpu = torch.cuda.get_device_properties(0)
        limits = limits_of(gpu.name)
        if limits is None:
            self.ledger.off("roofline", f"the peak rates of {gpu.name} are not listed in speed_limits.py")
            return None
        self.ledger.on("roofline")
        official = self.result.stats.mean if self.result.stats else None
        return bounds.roofline_verdict(case, limits, official, times.interval().value, gpu.L2_cache_size)
