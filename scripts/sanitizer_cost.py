"""What the sanitizer costs: the official cases plain and sanitized, in pairs, in CPU seconds of this process.

    python scripts/sanitizer_cost.py [pairs]

Also what the hooks cost when nobody watches: events of a run times the cost of finding no observer.
"""

from __future__ import annotations

import statistics
import sys
import time
import timeit
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

import reference  # noqa: E402
from b200sim.device import SimulatedDevice  # noqa: E402
from b200sim.machine.observer import Observer  # noqa: E402
from b200sim.sanitizer import Sanitizer  # noqa: E402
from evaluator import problem  # noqa: E402
from evaluator.cases import load_task  # noqa: E402
from evaluator.serving import load_submission  # noqa: E402


class Count(Observer):
    """Counts events."""

    events = 0


def _count(self: Count, *arguments: Any) -> None:
    Count.events += 1


for _name in [name for name in vars(Observer) if not name.startswith("_")]:
    setattr(Count, _name, _count)


def main(pairs: int) -> None:
    torch.set_num_threads(1)
    cases = load_task(ROOT / "task.yml").tests
    with SimulatedDevice() as device:
        kernel = load_submission(ROOT / "submission.py").custom_kernel
        with device.paused():
            data = [
                problem.on_device(device, reference.generate_input(**case.arguments(), device="cpu"))
                for case in cases
            ]

        def seconds(observer: Any) -> float:
            device.observer = observer
            started = time.process_time()
            for inputs in data:
                kernel(inputs)
            return time.process_time() - started

        seconds(None)  # compiles
        ratios = []
        for _ in range(pairs):
            plain, watched = seconds(None), seconds(Sanitizer)
            ratios.append(watched / plain)
            print(f"plain {plain:.2f} s, sanitized {watched:.2f} s: {ratios[-1]:.2f}x", flush=True)
        print(f"median of {pairs} pairs: {statistics.median(ratios):.2f}x")
        plain = seconds(None)
        seconds(Count)
    print(f"{Count.events} events; {_hook_cost() * Count.events:.4f} s of {plain:.2f} s if nobody watches")


class _Grid:
    observer = None


class _Holder:
    def __init__(self) -> None:
        self.grid = _Grid()
        self.cta = self


def _hook_cost() -> float:
    """Seconds per `watch = warp.cta.grid.observer; if watch is not None`."""
    count = 1_000_000
    code = "watch = warp.cta.grid.observer\nif watch is not None: pass"
    return min(timeit.repeat(code, globals={"warp": _Holder()}, number=count, repeat=3)) / count


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
