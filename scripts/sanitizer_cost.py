"""What the sanitizer costs, on the ten official cases, in CPU seconds of single processes.

    python scripts/sanitizer_cost.py sanitized [--pairs 5]   sanitized against plain, in pairs
    python scripts/sanitizer_cost.py hooks [--rounds 12] [--cases 0,1]
                                                            plain against the simulator without its hooks

`hooks` shows what the sanitizer costs when it is off. Three processes take turns, case by case and in random
order: the simulator as it is, once more as it is (the control: how far equal programs are apart), and one
without its tests for an observer (scripts/unobserved.py). A fourth one counts the tests.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

RESAMPLINGS = 2_000
VARIANTS = {"plain": "plain", "control": "plain", "without": "cut"}


class Cases:
    """The official cases and the submission, compiled and placed on the simulated device."""

    def __init__(self) -> None:
        import torch

        import reference
        from b200sim.device import SimulatedDevice
        from evaluator import problem
        from evaluator.cases import load_task
        from evaluator.serving import load_submission

        torch.set_num_threads(1)
        self.device = SimulatedDevice()
        self.device.__enter__()
        self.kernel = load_submission(ROOT / "submission.py").custom_kernel
        with self.device.paused():
            self.data = [
                problem.on_device(self.device, reference.generate_input(**case.arguments(), device="cpu"))
                for case in load_task(ROOT / "task.yml").tests
            ]
        self.all_seconds()  # compiles

    def seconds(self, index: int) -> float:
        started = time.process_time()
        self.kernel(self.data[index])
        return time.process_time() - started

    def all_seconds(self, observer: Any = None) -> float:
        self.device.observer = observer
        return sum(self.seconds(index) for index in range(len(self.data)))


def sanitized(pairs: int) -> None:
    from b200sim.sanitizer import Sanitizer

    cases, ratios = Cases(), []
    for _ in range(pairs):
        plain, watched = cases.all_seconds(), cases.all_seconds(Sanitizer)
        ratios.append(watched / plain)
        print(f"plain {plain:.2f} s, sanitized {watched:.2f} s: {ratios[-1]:.2f}x", flush=True)
    print(
        f"median of {pairs} pairs: {statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
    )


class Process:
    """A process that runs one case per request and tells how long it took."""

    def __init__(self, variant: str) -> None:
        command = [sys.executable, __file__, "serve", "--variant", variant]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.cases = int(self._answer())

    def seconds(self, case: int) -> float:
        return float(self._ask(str(case)))

    def tests(self) -> int:
        """How often it has looked for an observer since it was last asked."""
        return int(self._ask("tests"))

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _ask(self, request: str) -> str:
        assert self.process.stdin is not None
        print(request, file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:  # a compiler may print in between
            if line.startswith("= "):
                return line[2:]
        raise RuntimeError(f"{' '.join(map(str, self.process.args))} ended early")  # type: ignore[arg-type]


def serve(variant: str) -> None:
    import unobserved

    counted = (lambda: 0) if variant != "count" else unobserved.count()
    if variant == "cut":
        unobserved.cut()
    cases, before = Cases(), counted()
    print("=", len(cases.data), flush=True)
    for line in sys.stdin:
        if line.strip() == "tests":
            before, now = counted(), counted() - before
            print("=", now, flush=True)
        else:
            print("=", cases.seconds(int(line)), flush=True)


def hooks(rounds: int, chosen: Sequence[int] | None, seed: int) -> None:
    tests = _count_tests(chosen)
    each = _seconds_per_test()
    print(f"{tests} tests for an observer, {1e9 * each:.0f} ns each: {1e3 * each * tests:.1f} ms", flush=True)
    order = random.Random(seed)
    processes = {name: Process(variant) for name, variant in VARIANTS.items()}
    cases = chosen or range(processes["plain"].cases)
    seconds: dict[str, list[list[float]]] = {name: [] for name in VARIANTS}  # [round][case]
    for number in range(rounds):
        for times in seconds.values():
            times.append([0.0] * len(cases))
        for place in order.sample(range(len(cases)), len(cases)):
            for name in order.sample(list(VARIANTS), len(VARIANTS)):
                seconds[name][-1][place] = processes[name].seconds(cases[place])
        told = ", ".join(f"{name} {sum(times[-1]):.3f} s" for name, times in seconds.items())
        print(f"round {number + 1}: {told}", flush=True)
    for process in processes.values():
        process.stop()
    _tell("plain / without hooks", seconds["plain"], seconds["without"], order)
    _tell("control / without hooks", seconds["control"], seconds["without"], order)
    _tell("plain / control", seconds["plain"], seconds["control"], order)


def _count_tests(chosen: Sequence[int] | None) -> int:
    process = Process("count")
    process.tests()
    for case in chosen or range(process.cases):
        process.seconds(case)
    tests = process.tests()
    process.stop()
    return tests


def _tell(what: str, above: list[list[float]], below: list[list[float]], order: random.Random) -> None:
    """The ratio, and the middle 95 % of it when the rounds are drawn again with replacement."""
    rounds = range(len(above))
    found = []
    for _ in range(RESAMPLINGS):
        drawn = order.choices(rounds, k=len(rounds))
        found.append(_total(above, drawn) / _total(below, drawn))
    found.sort()
    low, high = found[RESAMPLINGS // 40], found[-RESAMPLINGS // 40 - 1]
    ratio = _total(above, rounds) / _total(below, rounds)
    print(f"{what}: {ratio:.3f} (95 %: {low:.3f} to {high:.3f}; {len(rounds)} rounds)")


def _total(seconds: list[list[float]], rounds: Sequence[int]) -> float:
    """Of all cases, each at its fastest: what else the machine does only ever adds."""
    return sum(min(times) for times in zip(*(seconds[i] for i in rounds), strict=True))


class _Grid:
    observer = None


class _Holder:
    def __init__(self) -> None:
        self.grid = _Grid()
        self.cta = self


def _seconds_per_test() -> float:
    """Seconds per `watch = warp.cta.grid.observer; if watch is not None`."""
    number = 1_000_000
    code = "watch = warp.cta.grid.observer\nif watch is not None: pass"
    return min(timeit.repeat(code, globals={"warp": _Holder()}, number=number, repeat=5)) / number


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["sanitized", "hooks", "serve"])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--cases", help="numbers, separated by commas; all if left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variant", choices=["plain", "cut", "count"], default="plain")
    options = parser.parse_args(arguments)
    if options.what == "serve":
        serve(options.variant)
    elif options.what == "sanitized":
        sanitized(options.pairs)
    else:
        chosen = [int(case) for case in options.cases.split(",")] if options.cases else None
        hooks(options.rounds, chosen, options.seed)


if __name__ == "__main__":
    main(sys.argv[1:])
