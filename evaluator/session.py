"""One evaluation from start to end: cases, device, judge, report, exit code."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from evaluator import (
    account,
    compare,
    facts,
    held_out,
    kernel_calls,
    measure,
    printed,
    processes,
    profiles,
    progress,
    record,
    report,
    simulated,
    speed_of_light,
)
from evaluator.cases import Case, CaseError, Task, load_cases, load_task
from evaluator.defences import Ledger
from evaluator.judge import Job, Judge, jobs_for
from evaluator.options import Options
from evaluator.results import RunResult
from evaluator.scan import scan
from evaluator.seeds import Seeds
from evaluator.verdict import ExitCode

#: The simulator needs minutes for a benchmark shape; the task's limits are a GPU's.
_SIMULATED_BENCHMARK_SECONDS = 900.0
#: A probe calls a case six times: only what the simulator does in about a second is probed there.
_SIMULATED_PROBE_FLOPS = 2e8
#: Cases that a ranked run adds to those it was given.
_HELD_OUT = 3


class UsageError(Exception):
    """The arguments do not go together, or name something that is not there."""


def evaluate(options: Options) -> RunResult:
    """Run, with progress on standard output. Raises `UsageError`, or `LookupError` without the device.

    On an interrupt the result says so; everything that was started is dead when this returns.
    """
    if not options.submission.is_file():
        raise UsageError(f"no submission at {options.submission}")
    if options.plot and not profiles.can_draw():
        raise UsageError(profiles.NEEDS_MATPLOTLIB)
    task = load_task(processes.ROOT / "task.yml") if (processes.ROOT / "task.yml").exists() else None
    cases = select(options.cases or default_cases(options.mode, task), options.only)
    gpu = simulated.choose(options.gpu, options.submission)
    wanted = "sim" if options.sanitize else options.device
    name = gpu.short_name + simulated.remark(gpu, options.submission) if gpu else ""
    device, described = facts.choose_device(wanted, name)
    target = _target(options, device, gpu)
    timing = _timing(options.mode) if device == "cuda" else None
    seeds = Seeds.replay(options.seed) if options.seed else Seeds()
    ledger = Ledger()
    account.at_start(ledger, device, timing is not None)

    def limit(case: Case) -> float:
        return limit_for(case, task, device, options.timeout)

    jobs = _jobs(options, cases, device, seeds, timing, limit)
    run = RunResult(
        options.mode,
        device,
        [job.result for job in jobs],
        facts.gather(device, described, options.submission, gpu),
    )
    print(report.header(run), flush=True)
    started = time.monotonic()
    run.remarks = [str(remark) for remark in scan(options.submission.read_bytes())]
    lanes = 1 if device == "cuda" or options.mode == "profile" else lane_count(options.jobs, len(jobs))
    with processes.sandbox(options.submission) as place:
        try:
            with progress.display(lambda result: report.finished_line(result, device), len(jobs)) as shown:
                judge = Judge(place, device, shown, ledger, seeds, target)
                ranked = timing is not None and options.mode == "leaderboard"
                judge.run(jobs, lanes, stop_at_first_failure=ranked)
            if options.mode == "profile" and device == "sim" and not options.sanitize:
                _profile(run, options, place, cases, limit)
        except KeyboardInterrupt:
            run.interrupted = True
        run.versions = judge.versions
        account.at_end(ledger, run, options.submission, place / "code" / "submission.py")
    if options.sanitize:
        _add_findings(run)
    run.defences = ledger.entries()
    run.seed_key = seeds.publish() if not options.sanitize else ""  # its inputs are the cases' own
    run.wall_seconds = time.monotonic() - started
    return run


def _jobs(
    options: Options,
    cases: tuple[Case, ...],
    device: str,
    seeds: Seeds,
    timing: measure.Timing | None,
    limit: Callable[[Case], float],
) -> list[Job]:
    """The cases' jobs, those of a ranked run's hidden cases behind them."""
    if options.sanitize:
        from evaluator import sanitizing

        return sanitizing.jobs(cases, options.sanitize, limit)
    hidden = held_out.draw(seeds, device, _HELD_OUT) if options.mode == "leaderboard" else ()
    everything = (*cases, *hidden)
    probed = options.mode != "profile"
    probes = probe_counts(everything, device, seeds) if probed else dict.fromkeys(everything, 0)
    jobs = jobs_for(everything, limit, timing, probes.__getitem__)
    for job in jobs[len(cases) :]:
        job.result.held_out = True
    return jobs


def _target(options: Options, device: str, gpu: simulated.Gpu | None) -> str:
    """What workers open. Raises `UsageError` for options that do not go with it."""
    if device != "sim" or gpu is None:
        if options.gpu:
            raise UsageError(f"--gpu says which GPU to simulate; this run is on --device {device}")
        return device
    if options.mode == "profile" and gpu.key != "b200" and not options.sanitize:
        raise UsageError(
            f"--mode profile models a run from rates measured on a B200; of an {gpu.short_name} it has none"
        )
    if not options.sanitize:
        return simulated.target(gpu)
    if options.device not in ("auto", "sim"):
        raise UsageError(f"--sanitize watches the simulated device, not --device {options.device}")
    from evaluator import sanitizing

    try:
        return sanitizing.target(options.sanitize, gpu)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _add_findings(run: RunResult) -> None:
    from evaluator import sanitizing

    run.sanitizer = sanitizing.whole(run.results).as_dict()
    run.notes += [r.sanitized.trace for r in run.results if r.sanitized and r.sanitized.trace]


def _profile(
    run: RunResult, options: Options, place: Path, cases: tuple[Case, ...], limit: Callable[[Case], float]
) -> None:
    run.profiles, timelines = profiles.gather(place, cases, limit, lane_count(options.jobs, len(cases)))
    if options.plot:
        problem = profiles.draw(options.plot, cases, run.profiles, timelines)
        run.notes.append(problem or f"picture: {options.plot}")


def contest(options: Options, paths: tuple[Path, Path]) -> ExitCode:
    """`--compare`: A against B on the benchmarks, or the cases given. 112 if one gives wrong results."""
    for path in paths:
        if not path.is_file():
            raise UsageError(f"no submission at {path}")
    task = load_task(processes.ROOT / "task.yml") if (processes.ROOT / "task.yml").exists() else None
    cases = select(options.cases or default_cases("benchmark", task), options.only)
    device, described = facts.choose_device(options.device)
    if device == "sim":
        raise UsageError("--compare measures times: it needs a GPU (--device cuda)")
    seeds = Seeds.replay(options.seed) if options.seed else Seeds()
    print(f"A: {paths[0]} ({facts.sha256(paths[0])[:12]})\nB: {paths[1]} ({facts.sha256(paths[1])[:12]})")
    print(f"device: {described}", flush=True)
    limit = options.timeout or 300.0
    compared = compare.Contest(paths, device, seeds, limit, lambda text: print(f"  {text}", flush=True))
    try:
        results = compared.run(cases, compare.Plan())
    except compare.Disqualified as reason:
        print(reason)
        return ExitCode.CHECK_FAILED
    print(compare.shown(results, device))
    return ExitCode.OK


def show(run: RunResult) -> None:
    """The report on standard output."""
    print()
    if run.mode == "profile":
        if run.device == "cuda":
            print(_HOW_TO_PROFILE)
        else:
            print("\n\n".join(report.launch_report(result) for result in run.results), end="\n\n")
        for result, figures in zip(run.results, run.profiles, strict=False):  # none after an interrupt
            print(profiles.text(result.case.name, figures), end="\n\n")
    if run.sanitizer:
        from evaluator import sanitizing

        print(sanitizing.whole(run.results).text(), end="\n\n")
    report.table(run)
    print(report.notes(run))
    failed = report.failures(run)
    if failed:
        print(f"\n{failed}")
    for part in (
        printed.shown(run),
        report.launch_notes(run),
        report.lanes(run),
        report.defences(run),
        "\n".join(run.notes),
    ):
        if part:
            print(f"\n{part}")
    print(f"\n{report.summary(run)}", flush=True)


def exit_code(run: RunResult) -> ExitCode:
    if run.interrupted:
        return ExitCode.INTERRUPTED
    return ExitCode.OK if run.passed else ExitCode.CHECK_FAILED


def finish(run: RunResult, code: ExitCode, json: Path | None) -> ExitCode:
    """Report, and write the JSON file if one was asked for."""
    show(run)
    if json:
        record.write(run, int(code), json)
    return code


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    """For a main program: an ordered end on SIGTERM, and no survivor of any worker, daemons included."""
    before = processes.children()
    adopted = processes.become_subreaper()
    with contextlib.suppress(OSError):
        kernel_calls.prctl(kernel_calls.PR_SET_DUMPABLE, 0)
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, lambda *_: _interrupt())
    try:
        yield
    finally:
        if adopted:
            survivors = processes.kill_orphans(before | {os.getpid()})
            if survivors:
                print(f"killed {survivors} processes that the submission left running", file=sys.stderr)


def probe_counts(cases: tuple[Case, ...], device: str, seeds: Seeds) -> dict[Case, int]:
    """Over how many inputs each case is probed: every case on a real device, one cheap one if simulated."""
    choose = seeds.choices("probes")
    if device != "sim":
        return {case: choose.randint(2, 3) for case in cases}
    cheap = [case for case in cases if speed_of_light.flops(case) <= _SIMULATED_PROBE_FLOPS]
    cheapest = sorted(cheap, key=speed_of_light.flops)[: max(1, len(cheap) // 2)]
    chosen = choose.choice(cheapest) if cheapest else None
    return {case: 2 if case is chosen else 0 for case in cases}


def default_cases(mode: str, task: Task | None) -> tuple[Case, ...]:
    """The task's cases for a mode: a ranked run verifies the tests before it measures the benchmarks."""
    if task is None:
        raise UsageError("there is no task.yml here; name a file with --cases")
    if mode == "test":
        return task.tests
    return (*task.tests, *task.benchmarks) if mode == "leaderboard" else task.benchmarks


def select(cases: tuple[Case, ...], only: tuple[str, ...]) -> tuple[Case, ...]:
    """The cases that `only` names, by index in the list, by name, or by a pattern of names."""
    if not only:
        return cases
    chosen: list[Case] = []
    for wanted in only:
        if wanted.isdecimal():
            matches = [cases[int(wanted)]] if int(wanted) < len(cases) else []
        else:
            matches = [case for case in cases if fnmatch.fnmatchcase(case.name, wanted)]
        if not matches:
            names = ", ".join(f"{i}: {case.name}" for i, case in enumerate(cases))
            raise UsageError(f"--only {wanted}: no such case; there are {names}")
        chosen += [case for case in matches if case not in chosen]
    return tuple(chosen)


def limit_for(case: Case, task: Task | None, device: str, asked: float | None) -> float:
    """Seconds a worker may take to answer: as asked, as the case says, or as the task says."""
    if asked is not None:
        return asked
    if case.limits.seconds is not None:
        return case.limits.seconds
    if case.kind == "test":
        return task.test_timeout if task else 180.0
    if device == "sim":
        return _SIMULATED_BENCHMARK_SECONDS
    return task.ranked_timeout if task else 300.0


def lane_count(asked: int | None, cases: int) -> int:
    """Workers at a time: as asked, else one per core up to two; never more than cases."""
    return max(1, min(asked or min(2, len(os.sched_getaffinity(0))), cases))


def read_case_files(paths: list[Path]) -> tuple[Case, ...]:
    """All cases of all files. Raises `CaseError`."""
    try:
        return tuple(case for path in paths for case in load_cases(path))
    except OSError as error:
        raise CaseError(str(error.filename), "", "", str(error.strerror)) from None


def _timing(mode: str) -> measure.Timing | None:
    efforts: dict[str, measure.Timing] = {"benchmark": measure.BENCHMARK, "leaderboard": measure.RANKED}
    return efforts.get(mode)


def _interrupt() -> None:
    raise KeyboardInterrupt


def guarded(action: Callable[[], ExitCode]) -> int:
    """Run `action`; turn what a user can cause into a message on standard error and an exit code."""
    try:
        return int(action())
    except UsageError as error:
        return _complain(str(error), ExitCode.USAGE)
    except CaseError as error:
        return _complain(f"invalid case: {error}", ExitCode.BAD_CASES)
    except LookupError as error:
        return _complain(str(error), ExitCode.NO_DEVICE)
    except KeyboardInterrupt:
        return _complain("interrupted", ExitCode.INTERRUPTED)


def _complain(message: str, code: ExitCode) -> ExitCode:
    print(message, file=sys.stderr)
    return code


_HOW_TO_PROFILE = """\
Each case above ran once, inside the NVTX range `custom_kernel`. To see the kernels themselves run this under
Nsight Compute: ncu --target-processes all --set full --nvtx --nvtx-include custom_kernel/ \\
    --import-source 1 -o profile python eval.py --mode profile --device cuda
"""
