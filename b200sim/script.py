"""A whole script, and what it spawns, on a simulated GPU.

A process that `multiprocessing` spawns begins with a command line of its own (`multiprocessing.spawn`,
`get_command_line`). Here that line opens the simulated device first and then goes on as usual, so that the
child has the GPU before it imports the script again.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing.spawn
import os
import sys
import types
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from b200sim.device import SimulatedDevice
from b200sim.driver.patches import Patches
from b200sim.gpus import GPUS, Gpu

_FAILED = 1


@dataclass(frozen=True)
class Setup:
    """Which GPU, with how many SMs (None: all), and after how many seconds a launch counts as hung."""

    gpu: str
    sms: int | None = None
    time_limit: float | None = None

    def chosen(self) -> Gpu:
        """Raises `ValueError` for a number of SMs that the GPU does not have."""
        gpu = GPUS[self.gpu]
        return gpu if self.sms is None else gpu.with_sms(self.sms)


def run(script: Path, source: bytes, arguments: list[str], setup: Setup) -> int:
    """Run the script as `python script arguments` would; its exit code.

    `SystemExit` and `KeyboardInterrupt` go on to the caller; any other exception is shown as Python would.
    """
    sys.argv = [str(script), *arguments]
    sys.path[0] = str(script.resolve().parent)
    module = types.ModuleType("__main__")
    # Without a __spec__, spawned children import the script by its file.
    vars(module).update(__file__=str(script), __spec__=None, __builtins__=__builtins__)
    sys.modules["__main__"] = module
    with _simulated(setup):
        try:
            exec(compile(source, str(script), "exec"), vars(module))
        except Exception as error:
            within = error.__traceback__.tb_next if error.__traceback__ else None  # without this function
            sys.excepthook(type(error), error.with_traceback(within), within)
            return _FAILED
    return 0


def spawned(setup: str, **handed: Any) -> None:
    """What a spawned child runs in place of `multiprocessing.spawn.spawn_main`. Never returns."""
    with _simulated(Setup(**json.loads(setup))):
        multiprocessing.spawn.spawn_main(**handed)


@contextlib.contextmanager
def _simulated(setup: Setup) -> Iterator[None]:
    """This process, and those it spawns, have the GPU. A launch may use all cores."""
    patches = Patches()
    cores = len(os.sched_getaffinity(0))
    try:
        patches.set(multiprocessing.spawn, "get_command_line", _opening(setup))
        with SimulatedDevice(processes=cores, time_limit=setup.time_limit, gpu=setup.chosen()) as device:
            try:
                yield
            finally:
                _tell_notes(device)
    finally:
        patches.restore()


def _tell_notes(device: SimulatedDevice) -> None:
    notes = dict.fromkeys((launch.kernel, note) for launch in device.launches for note in launch.notes)
    for kernel, note in notes:
        print(f"b200sim: kernel {kernel}: {note}", file=sys.stderr)


def _opening(setup: Setup) -> Any:
    """`multiprocessing.spawn.get_command_line` with another program after -c."""
    original = multiprocessing.spawn.get_command_line
    here = str(Path(__file__).resolve().parents[1])

    def get_command_line(**handed: Any) -> list[str]:
        program = original(**handed)
        call = ", ".join([repr(json.dumps(asdict(setup))), *(f"{k}={v!r}" for k, v in handed.items())])
        program[program.index("-c") + 1] = (
            f"import sys; sys.path.append({here!r}); from b200sim.script import spawned; spawned({call})"
        )
        return program

    return get_command_line
