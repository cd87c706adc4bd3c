"""What a worker does for each command; the commands are listed in `worker`."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from evaluator import failures
from evaluator.answering import Answering
from evaluator.channel import Channel
from evaluator.devices import Device
from evaluator.serving_case import Case, Message, Taken
from evaluator.watch import Watch, running_threads

_now = time.perf_counter_ns


class Server(Answering):
    """Answers commands. The device stays open, and the submission loaded, for the life of the process."""

    def __init__(self, channel: Channel, device: Device, submission: Path) -> None:
        super().__init__(channel)
        self.submission = submission
        self.device = device
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(device.active())
        self.entry: Callable[[Any], Any] | None = None
        self.slots: dict[int, Case] = {}
        self.kept: list[tuple[Case, Any]] = []  # of the last window: what was taken, or just returned
        self.commands = {
            "load": self.load,
            "run": self.run,
            "hold": self.hold,
            "rewrite": self.rewrite,
            "refill": self.refill,
            "window": self.window,
            "collect": self.collect,
            "drop": self.drop,
        }
        self.watch = Watch()
        device.progress(self.tell)

    def load(self, _: Message, __: int) -> Message:
        started = _now()
        try:
            module = load_submission(self.submission)
        except BaseException as error:
            return failures.describe(error, self.submission, importing=True)
        entry = getattr(module, "custom_kernel", None)
        if not callable(entry):
            found = "has no custom_kernel" if entry is None else f"custom_kernel is a {type(entry).__name__}"
            message = f"the submission {found}; expected a function custom_kernel(data)"
            return {"is": "failed", "status": "NO_ENTRY", "message": message}
        self.entry = entry
        return {
            "is": "loaded",
            "seconds": (_now() - started) / 1e9,
            "versions": versions(),
            "patched": self.watch.changed(),
        }

    def run(self, message: Message, fd: int) -> Message:
        self.device.limit(message["limit"])
        try:
            case = Case(self.device, fd, message)
            self.device.poison_free_memory(case.output_sizes(), message["word"])
            return {"is": "ran", **self._call(case)}
        except BaseException as error:
            return {
                **failures.describe(error, self.submission, importing=False),
                "launches": self._launches_after_failure(),
            }
        finally:
            gc.collect()  # what the case used is mapped memory: do not wait for the collector's own time

    def hold(self, message: Message, fd: int) -> Message:
        self.slots[message["slot"]] = Case(self.device, fd, message)
        return {"is": "done"}

    def rewrite(self, message: Message, fd: int) -> Message:
        self.slots[message["slot"]].rewrite(fd, message)
        self.device.synchronize()
        return {"is": "done"}

    def drop(self, message: Message, _: int) -> Message:
        self.kept = []
        for slot in message["slots"]:
            self.slots.pop(slot, None)
        gc.collect()
        return {"is": "done"}

    def refill(self, message: Message, _: int) -> Message:
        for slot in message["slots"]:
            self.slots[slot].refill(message["word"])
        self.device.poison_free_memory(self.slots[message["slots"][0]].output_sizes(), message["word"])
        self.device.synchronize()
        return {"is": "done"}

    def window(self, message: Message, _: int) -> Message:
        """Between the stamps there is nothing but the calls, copies of contents, and `copy`'s copies."""
        assert self.entry is not None
        self.device.limit(message["limit"])
        self.kept = []
        copy, entry, clock = message["copy"], self.entry, self.device.clock
        cases = [self.slots[slot] for slot in message["slots"]]
        staged = [None if slot < 0 else self.slots[slot] for slot in message["staged"]]
        # What costs the host time per call is done outside the window once, or left to `collect`: the judge
        # times the whole command.
        made = {slot: self.slots[slot].data() for slot in set(message["slots"])}
        inputs = [made[slot] for slot in message["slots"]]
        returned: list[Any] = []
        taken: list[Taken] = []
        try:
            persisting = clock.persisting_bytes()
            self.device.synchronize()
            flushed = clock.flush(message["flush"])
            clock.start(message["hold"])
            started = _now()
            for case, source, data in zip(cases, staged, inputs, strict=True):
                if source is not None:
                    case.overwrite_from(source)
                result = entry(data)
                returned.append(result)
                if copy == "each":
                    taken.append(case.take(result, True))
            launched = _now() - started
            clock.stop()
            if copy == "last":
                taken = [case.take(result, True) for case, result in zip(cases, returned, strict=True)]
            elapsed, late = clock.result()
        except BaseException as error:
            return failures.describe(error, self.submission, importing=False)
        self.kept = list(zip(cases, taken or returned, strict=True))
        return {
            "is": "window",
            "nanoseconds": elapsed,
            "host_nanoseconds": float(launched),
            "late_nanoseconds": late,
            "persisting": persisting,
            "flush": flushed,
            **self._conduct(),
        }

    def collect(self, message: Message, _: int) -> Message:
        launches = self.device.take_launches()
        outputs = []
        for case, result in self.kept:
            described = case.describe(result if isinstance(result, Taken) else case.take(result, False))
            if message["inputs"]:
                with self.device.paused():
                    case.write_back()
            outputs.append({**described, "seconds": 0.0, "launches": []})
        self.kept = []
        return {"is": "collected", "outputs": outputs, "launches": launches}

    def _call(self, case: Case) -> Message:
        assert self.entry is not None
        data = case.data()
        self.device.synchronize()
        clock = self.device.clock
        clock.start(0.0)
        started = _now()
        with self.device.call():
            returned = self.entry(data)
        taken = case.take(returned, True)
        clock.stop()
        _, late = clock.result()
        self.device.synchronize()
        seconds = (_now() - started) / 1e9
        conduct = self._conduct()
        described = case.describe(taken)
        with self.device.paused():
            case.write_back()
        launches = self.device.take_launches()
        return {**described, "seconds": seconds, "late_nanoseconds": late, "launches": launches, **conduct}

    def _conduct(self) -> Message:
        return {"patched": self.watch.changed(), "threads": running_threads(str(self.submission))}

    def _launches_after_failure(self) -> list[Message]:
        try:
            return self.device.take_launches()
        except Exception:  # the device's state after a fault is not worth a second failure
            return []


def load_submission(path: Path) -> ModuleType:
    """Import `path` as module `submission`, as `from submission import custom_kernel` would."""
    spec = importlib.util.spec_from_file_location("submission", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["submission"] = module
    spec.loader.exec_module(module)
    return module


def versions() -> dict[str, str]:
    """Versions of what the submission runs on; a missing package is left out."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("torch", "nvidia-cutlass-dsl", "numpy", "triton"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
