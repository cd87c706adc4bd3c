"""Evaluate a submission of nvfp4_group_gemm: on a B200, or on the simulated one where there is none.

    python eval.py --mode test                      all ten official cases, every element checked
    python eval.py --mode benchmark                 the four ranked shapes: timed on a GPU, verified without
    python eval.py --mode test --only 3 --only 'benchmark*' --cases task.yml
    python eval.py --help

The official runner calls it as `POPCORN_FD=n [POPCORN_SEED=s] python eval.py MODE CASES.txt`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path


def unpack_flat_package(folder: Path) -> None:
    """Rebuild evaluator/ from `evaluator.NAME.py` files: the official runner writes one flat directory."""
    flat = list(folder.glob("evaluator.*.py"))
    if (folder / "evaluator").exists() or not flat:
        return
    (folder / "evaluator").mkdir()
    for source in flat:
        (folder / "evaluator" / source.name.removeprefix("evaluator.")).write_bytes(source.read_bytes())


unpack_flat_package(Path(__file__).resolve().parent)

# The heavy modules (torch) are imported where a run begins, so that --help and mistakes are answered at once.
from evaluator.options import DEVICES, MODES, SIMULATED, Options, Sanitize  # noqa: E402
from evaluator.verdict import ExitCode  # noqa: E402

#: Names the descriptor of what the process hands to itself when it starts again.
HANDED_ON = "NVFP4_EVAL_HANDED_ON"


def main(arguments: list[str]) -> int:
    official = {"POPCORN_FD", HANDED_ON} & os.environ.keys()
    if (arguments and not arguments[0].startswith("-")) or official:
        return official_form(arguments)
    options = parse(arguments)
    from evaluator import session

    with session.nothing_left_behind():
        return session.guarded(lambda: evaluate(options))


def evaluate(arguments: argparse.Namespace) -> ExitCode:
    from evaluator import session

    if arguments.submission is None and not arguments.compare:
        from evaluator import facts

        arguments.submission, remark = facts.default_submission(arguments.device, arguments.gpu)
        if remark:
            print(remark, flush=True)
    if arguments.compare:
        return session.contest(
            Options(
                mode="benchmark",
                device=arguments.device,
                cases=session.read_case_files(arguments.cases),
                only=tuple(arguments.only),
                timeout=arguments.timeout,
                seed=arguments.seed,
            ),
            (arguments.compare[0], arguments.compare[1]),
        )
    run = session.evaluate(
        Options(
            mode=arguments.mode,
            device=arguments.device,
            gpu=arguments.gpu,
            submission=arguments.submission,
            cases=session.read_case_files(arguments.cases),
            only=tuple(arguments.only),
            timeout=arguments.timeout,
            jobs=arguments.jobs,
            plot=arguments.plot,
            seed=None if arguments.sanitize else arguments.seed,
            sanitize=sanitize_options(arguments) if arguments.sanitize else None,
        )
    )
    return session.finish(run, session.exit_code(run), arguments.json)


def sanitize_options(arguments: argparse.Namespace) -> Sanitize:
    from evaluator import session

    try:
        seed = int(arguments.seed or 0)
    except ValueError:
        raise session.UsageError(f"--seed {arguments.seed}: with --sanitize a whole number") from None
    return Sanitize(arguments.schedules, seed, tuple(arguments.schedule), arguments.trace, arguments.sms)


def official_form(arguments: list[str]) -> int:
    """`eval.py MODE CASES.txt`, results as `key: value` lines on the descriptor POPCORN_FD."""
    secrets = take_secrets()
    fd = secrets.get("POPCORN_FD", "")
    if not fd.isdecimal():
        print("POPCORN_FD is not set; for use by hand see eval.py --help", file=sys.stderr)
        return ExitCode.NO_FD
    options = parse_official(arguments)
    if options is None:
        return ExitCode.USAGE
    os.set_inheritable(int(fd), False)
    secret = secrets.get("POPCORN_SEED", "")
    from evaluator import official, session

    def action() -> ExitCode:
        cases = official.read_cases(options.cases, options.mode, int(secret) if secret else None)
        submission = Path("submission.py").resolve()
        run = session.evaluate(Options(options.mode, options.device, submission, cases))
        code = ExitCode.INTERRUPTED if run.interrupted else official.exit_code(run)
        official.keys(run).write(int(fd))
        return session.finish(run, code, options.json)

    with session.nothing_left_behind():
        return session.guarded(action)


def take_secrets() -> dict[str, str]:  # noqa: RET503
    """POPCORN_*, taken out of this process's environment, the copy in /proc/<pid>/environ included.

    That copy is what the process was started with and cannot be edited, so the process starts itself again
    without them; they wait in an anonymous file whose descriptor is the only thing handed on.
    """
    if HANDED_ON in os.environ:
        with os.fdopen(int(os.environ.pop(HANDED_ON)), "rb") as file:
            file.seek(0)
            secrets: dict[str, str] = json.loads(file.read())
        return secrets
    secrets = {key: value for key, value in os.environ.items() if key.startswith("POPCORN_")}
    if not secrets or not hasattr(os, "memfd_create"):
        for key in secrets:
            del os.environ[key]
        return secrets
    fd = os.memfd_create("handed on", 0)
    os.write(fd, json.dumps(secrets).encode())
    kept = {key: value for key, value in os.environ.items() if key not in secrets}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], kept | {HANDED_ON: str(fd)})


def parse_official(arguments: list[str]) -> argparse.Namespace | None:
    """MODE CASES.txt, and for use outside the official runner --device and --json; None if that is not it."""
    parser = argparse.ArgumentParser(
        prog="eval.py", usage="eval.py MODE CASES.txt [--device D] [--json FILE]"
    )
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--json", type=Path)
    try:
        return parser.parse_args(arguments)
    except SystemExit:
        return None


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="eval.py",
        description="Evaluate a submission of nvfp4_group_gemm on a B200, or on a simulated GPU.",
        epilog="""\
modes
  test         every case once, all elements against exact ground truth
  benchmark    on a GPU: the official timing, checked; on the simulator: the full ranked shapes verified,
               with the work and traffic that the kernel caused. No time is printed that was not measured.
  leaderboard  tests, then benchmarks with a check of every timed window; the score is the geometric mean.
               The simulator verifies both and gives no score.
  profile      on the simulator: traffic, work, schedule, memory map, code, host time of every case, bounds
               and a model of the run from measured rates of a B200; --plot FILE draws it

verdicts
  PASS, WRONG_RESULT, BAD_OUTPUT (structure), INPUT_CHANGED, UNFAIR (replayed, deferred, patched, ...),
  IMPORT_ERROR, NO_ENTRY, RAISED, EXITED, TIMEOUT, CRASHED, FAULT (the simulated GPU stopped the kernel),
  HAZARD (found by --sanitize), PROTOCOL, NOT_RUN.
  Where a reason says more it follows in brackets: WRONG_RESULT (E_NONFINITE)

exit codes
  0 all passed · 2 wrong usage · 110 no such device · 111 POPCORN_FD missing (official form) ·
  112 a case failed · 113 unusable case file · 130 interrupted

official form
  POPCORN_FD=n [POPCORN_SEED=s] python eval.py MODE CASES.txt""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--mode", choices=MODES)
    what.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("A", "B"),
        help="time two submissions against each other on a GPU: faster, slower or ambiguous, with intervals",
    )
    add(
        "--device",
        choices=DEVICES,
        default="auto",
        help="auto: a GPU of compute capability 10.x if there is one, else sim, the simulated one. "
        "cpu: plain tensors, for submissions in torch alone (default: auto)",
    )
    add(
        "--gpu",
        choices=SIMULATED,
        help="which GPU to simulate (default: an H200 for a submission with '#!POPCORN gpu H100' or H200, "
        "else a B200)",
    )
    add(
        "--submission",
        type=Path,
        metavar="FILE",
        help="default: submission.py beside eval.py; on a Hopper GPU or --gpu h200 submissions/hopper.py",
    )
    add(
        "--cases",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="task.yml, suites (shapes/*.yml), files of case lines (default: the mode's cases of task.yml)",
    )
    add(
        "--only",
        action="append",
        default=[],
        metavar="CASE",
        help="run only this case: its number, its name, or a pattern such as 'benchmark*'; may be repeated",
    )
    add("--json", type=Path, metavar="FILE", help="write everything known about the run")
    add("--plot", type=Path, metavar="FILE", help="picture of a profile (png, svg, pdf; needs matplotlib)")
    add(
        "--timeout",
        type=positive(float),
        metavar="S",
        help="seconds until an unanswered case counts as hung "
        "(default: the task's test_timeout and ranked_timeout; 900 for a simulated benchmark)",
    )
    add(
        "--seed",
        metavar="KEY",
        help="draw the seeds of an earlier run again (every report ends with its key); "
        "with --sanitize: the number from which the random orders go on",
    )
    add(
        "--sanitize",
        action="store_true",
        help="run on the simulator and look for races, hazards and hangs; errors fail the case "
        "(docs/sanitizer.md)",
    )
    add("--schedules", type=positive(int), default=1, metavar="N", help="with --sanitize: orders per case")
    add(
        "--schedule",
        action="append",
        default=[],
        metavar="NAME",
        help="with --sanitize: this order only, such as random:17 from a report; may be repeated",
    )
    add("--trace", type=Path, metavar="FILE", help="with --sanitize: a trace for ui.perfetto.dev")
    add(
        "--sms",
        type=positive(int),
        metavar="N",
        help="with --sanitize: SMs of the simulated device (default: all); with few, CTAs take several tiles",
    )
    add(
        "--jobs",
        type=positive(int),
        metavar="N",
        help="worker processes at a time on sim and cpu (default: one per core, at most 2)",
    )
    return parser.parse_args(arguments)


def positive(kind: type[int] | type[float]):  # type: ignore[no-untyped-def]
    """An argparse type: a number above 0."""

    def convert(text: str) -> int | float:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    convert.__name__ = kind.__name__
    return convert


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
