"""The judge: gives cases to workers, checks what comes back, never imports the submission.

Each of `jobs` lanes is a thread with one worker process, which keeps the submission loaded (and its kernel
compiled) from case to case and is replaced when a case left it dead or doubtful. Large cases go first, so
that the lanes end together.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from evaluator import conduct, measure, problem, speed_of_light
from evaluator.arena import Arena
from evaluator.cases import Case
from evaluator.defences import Ledger
from evaluator.handle import Worker, WorkerFailure
from evaluator.messages import Failed, Ran
from evaluator.probe import Probe
from evaluator.reasons import Reason
from evaluator.results import CaseResult
from evaluator.seeds import Seeds
from evaluator.timed import TimedCase
from evaluator.verdict import Status, Verdict

#: A worker is kept after these; after anything else the next case gets a fresh process.
_HARMLESS = frozenset(
    {Status.PASS, Status.WRONG_RESULT, Status.BAD_OUTPUT, Status.RAISED, Status.INPUT_CHANGED}
)


class Observer(Protocol):
    """Who wants to know how far the run is. Called from several threads."""

    def stage(self, lane: int, result: CaseResult, text: str) -> None: ...

    def finished(self, lane: int, result: CaseResult) -> None: ...


class Work(Protocol):
    """What a job does on a worker that has loaded the submission. `stage` hears how far it is."""

    def __call__(self, worker: Worker, stage: Callable[[str], None]) -> Verdict: ...


@dataclass(frozen=True)
class Job:
    """One case to do, with its time limit; `timing` asks for measured windows (CUDA only).

    `probe`: over how many inputs the case is probed after its first call; 0: not at all. `work` is done
    instead of all that: sanitized calls, a profile.
    """

    result: CaseResult
    limit: float
    timing: measure.Timing | None = None
    probe: int = 0
    work: Work | None = None


class Judge:
    """Runs jobs against one submission on one device.

    `target` is what workers open if that is more than the device's name, such as "sim:b200:4".
    """

    def __init__(
        self,
        place: Path,
        device: str,
        observer: Observer,
        ledger: Ledger | None = None,
        seeds: Seeds | None = None,
        target: str = "",
    ) -> None:
        self.place, self.device, self.observer = place, device, observer
        self.target = target or device
        self.ledger, self.seeds = ledger or Ledger(), seeds or Seeds()
        self.versions: dict[str, str] = {}
        self._level = "full"
        self._queue: list[Job] = []
        self._workers: set[Worker] = set()
        self._processes_each = 1
        self._fail_fast = False
        self._lock = threading.Lock()
        self._stopping = False

    def run(self, jobs: list[Job], lanes: int, stop_at_first_failure: bool = False) -> None:
        """Do all jobs; verdicts and measurements go into their results. An exception kills everything."""
        cost = [speed_of_light.flops(job.result.case) for job in jobs]
        order = sorted(range(len(jobs)), key=lambda i: -cost[i]) if lanes > 1 else range(len(jobs))
        self._queue = [jobs[i] for i in order]
        self._fail_fast = stop_at_first_failure
        self._processes_each = max(1, len(os.sched_getaffinity(0)) // lanes)
        threads = [threading.Thread(target=Lane(self, i).run, daemon=True) for i in range(lanes)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)  # short, so that an interrupt is seen
        finally:
            self.stop()
            for thread in threads:
                thread.join(10)

    def stop(self) -> None:
        """Kill all workers and start no more."""
        with self._lock:
            self._stopping = True
            workers = list(self._workers)
        for worker in workers:
            worker.kill()

    @property
    def stopping(self) -> bool:
        return self._stopping

    def next_job(self) -> Job | None:
        with self._lock:
            return None if self._stopping or not self._queue else self._queue.pop(0)

    def over(self, result: CaseResult) -> None:
        """A case is done; if it failed and that is the rule, no other case starts."""
        if self._fail_fast and not result.verdict.passed:
            with self._lock:
                self._queue.clear()

    def start_worker(self) -> Worker:
        with self._lock:
            if self._stopping:
                raise WorkerFailure(Verdict(Status.NOT_RUN, "the run was stopped"))
            worker = Worker(self.place, self.target, self._processes_each, self._level)
            self._workers.add(worker)
            return worker

    def isolate_less(self) -> bool:
        """After a worker that could not start: whether the next one shall be isolated less."""
        with self._lock:
            lowered = self._level != "plain" and self.device == "cuda"
            self._level = "plain"
            return lowered

    def retire_worker(self, worker: Worker) -> None:
        worker.close()
        with self._lock:
            self._workers.discard(worker)


class Lane:
    """One thread of the judge with its worker."""

    def __init__(self, judge: Judge, number: int) -> None:
        self.judge, self.number = judge, number
        self.worker: Worker | None = None
        self.known: list[problem.Past] = []  # what the worker was last called with
        self.refusal: Verdict | None = None  # the submission cannot be loaded: the verdict of all its cases

    def run(self) -> None:
        try:
            while job := self.judge.next_job():
                self._do(job)
        finally:
            self._retire()

    def _do(self, job: Job) -> None:
        result = job.result
        try:
            result.verdict = self.refusal or self._judge(job)
        except WorkerFailure as failure:
            result.verdict = failure.verdict
        except Exception:
            detail = traceback.format_exc(limit=-6)
            result.verdict = Verdict(Status.JUDGE_ERROR, detail.strip().splitlines()[-1], detail)
        if self.judge.stopping:
            result.verdict = Verdict(Status.NOT_RUN, "the run was stopped")
        elif result.verdict.status not in _HARMLESS or not self._survives(result.verdict):
            self._retire()
        self.judge.over(result)
        self.judge.observer.finished(self.number, result)

    def _survives(self, verdict: Verdict) -> bool:
        """A GPU whose kernel failed may be left with a sticky error."""
        return verdict.passed or self.judge.device != "cuda"

    def _judge(self, job: Job) -> Verdict:
        result = job.result
        worker = self._ready_worker(result)
        if job.timing or job.work:
            loaded = self._wait_loaded(worker, job)
            if loaded is not None:
                return loaded
            worker = self._ready_worker(result)
        if job.work:
            self._stage(result, "running")
            with Clock(result, "run"):
                return job.work(worker, lambda text: self._stage(result, text))
        if job.timing:
            measured = self._time(worker, job)
            return measured if not measured.passed else self._probe(self._ready_worker(result), job)
        verified = self._verify(worker, job)
        return verified if not verified.passed else self._probe(self._ready_worker(result), job)

    def _time(self, worker: Worker, job: Job) -> Verdict:
        assert job.timing is not None
        judge, result = self.judge, job.result

        def fresh_worker() -> Worker:
            self._retire()
            refused = self._wait_loaded(self._ready_worker(result), job)
            if refused is not None:
                raise WorkerFailure(refused)
            return self._ready_worker(result)

        timed = TimedCase(
            judge.device,
            result,
            job.limit,
            judge.seeds,
            judge.ledger,
            fresh_worker,
            lambda text: self._stage(result, text),
        )
        return timed.run(worker, job.timing)

    def _probe(self, worker: Worker, job: Job) -> Verdict:
        if not job.probe:
            return Verdict(Status.PASS)
        if job.timing:
            self.known = []
        self._stage(job.result, "probing")
        with Clock(job.result, "probe"):
            probe = Probe(worker, self.judge.device, job.result.case, self.judge.seeds, job.limit, self.known)
            verdict = probe.run(job.probe)
        job.result.probed = job.probe
        return verdict

    def _verify(self, worker: Worker, job: Job) -> Verdict:
        result = job.result
        self._stage(result, "inputs")
        with Clock(result, "inputs"):
            data = problem.generate(result.case, self.judge.device)
            poison = problem.poison_word()
            arena = Arena(data)
        try:
            arena.poison_outputs(poison)
            refused = self._wait_loaded(worker, job)
            if refused is not None:
                return refused
            worker = self._ready_worker(result)
            self._stage(result, "running")
            worker.printed()
            with Clock(result, "run"):
                reply = worker.request(
                    {"do": "run", "limit": 0.9 * job.limit, "word": poison},
                    job.limit,
                    arena,
                    lambda text: self._stage(result, f"running {text}"),
                )
            result.printed = worker.printed()
            if isinstance(reply, Failed):
                result.launches = reply.launches
                return conduct.failed(reply)
            if not isinstance(reply, Ran):
                return Verdict(Status.PROTOCOL, "the worker broke the protocol: expected `ran`")
            result.launches = reply.launches
            alive = conduct.survivors(worker.survivors())
            self._stage(result, "checking")
            with Clock(result, "check"):
                truth = problem.Truth(data)
                checked = problem.check(data, arena, reply, poison, self.judge.device, truth)
            self.known = [problem.Past(Reason.STALE_OUTPUT, truth, "in an earlier call")]
            result.elements, result.inexact = checked.elements, checked.inexact
            return alive or checked.verdict
        finally:
            arena.close()

    def _ready_worker(self, result: CaseResult) -> Worker:
        if self.worker is None:
            self.worker = self.judge.start_worker()
            result.fresh_worker = True
        return self.worker

    def _wait_loaded(self, worker: Worker, job: Job) -> Verdict | None:
        """None once the submission is loaded; else the verdict for this and all later cases of the lane."""
        if worker.loaded is None:
            self._stage(job.result, "loading the submission")
            try:
                with Clock(job.result, "load"):
                    loaded = self._started(worker, job).wait_loaded(job.limit)
            except WorkerFailure as failure:
                self.refusal = failure.verdict
                return failure.verdict
            self.judge.versions.update(loaded.versions)
            foul = conduct.patched(loaded.conduct)
            if foul:
                self.refusal = foul
            return foul
        return None

    def _started(self, worker: Worker, job: Job) -> Worker:
        """The worker when its own imports are over; another one, isolated less, if the device needs that."""
        try:
            self.judge.ledger.take(worker.wait_started(job.limit))
            return worker
        except WorkerFailure:
            if not self.judge.isolate_less():
                raise
        self._retire()
        worker = self._ready_worker(job.result)
        self.judge.ledger.take(worker.wait_started(job.limit))
        return worker

    def _stage(self, result: CaseResult, text: str) -> None:
        self.judge.observer.stage(self.number, result, text)

    def _retire(self) -> None:
        if self.worker is not None:
            self.judge.retire_worker(self.worker)
            self.worker = None


class Clock:
    """Adds the seconds of a `with` block to a result's phase."""

    def __init__(self, result: CaseResult, phase: str) -> None:
        self.result, self.phase = result, phase

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        spent = self.result.seconds.get(self.phase, 0.0) + time.perf_counter() - self.started
        self.result.seconds[self.phase] = spent


def jobs_for(
    cases: tuple[Case, ...],
    limit: Callable[[Case], float],
    timing: measure.Timing | None,
    probes: Callable[[Case], int] = lambda _: 0,
) -> list[Job]:
    """One job per case; only benchmark cases are timed. `probes` says over how many inputs each is probed."""
    return [
        Job(CaseResult(case, index), limit(case), timing if case.kind == "benchmark" else None, probes(case))
        for index, case in enumerate(cases)
    ]
