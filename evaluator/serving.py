"""What a worker does for each command: load, run, and the timed windows."""

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

import numpy as np
import torch

from evaluator import failures
from evaluator.arena import ALIGNMENT, MappedArena, assemble, dtype_name, span_bytes, storage_bytes
from evaluator.channel import Channel
from evaluator.devices import Device

_MAX_OUTPUTS = 4096
Message = dict[str, Any]


class Case:
    """The tensors of one arena as the submission receives them."""

    def __init__(self, device: Device, fd: int, message: Message) -> None:
        self.device = device
        self.arena = MappedArena(fd, message)
        with device.paused():
            self.given = [(placed, device.place(self.arena, placed)) for placed in self.arena.placed]
        self._spent = 0

    def data(self) -> Any:
        tensors = {(p.group, p.role): tensor for p, tensor in self.given}
        return assemble(tensors, self.arena.problem_sizes)

    def describe(self, returned: Any) -> Message:
        """The fields `container` and `outputs` of a `ran` reply. Bytes outside the arena are copied in."""
        items = list(returned)[:_MAX_OUTPUTS] if type(returned) in (list, tuple) else []
        self._spent = 0
        devices = [str(item.device) if type(item) is torch.Tensor else "" for item in items]
        with self.device.paused():
            described = [self._describe(item, device) for item, device in zip(items, devices, strict=True)]
        return {"container": type_name(returned), "outputs": described}

    def write_back(self) -> None:
        """Make the judge see the inputs as they are on the device now."""
        for placed, tensor in self.given:
            target = self.arena.tensor(placed)
            if target.data_ptr() != tensor.data_ptr():
                host = self.device.in_host_memory(tensor)
                raw = storage_bytes(tensor) if host else device_bytes(tensor, placed.nbytes)
                storage_bytes(target)[:] = raw

    def _describe(self, item: Any, device: str) -> Message:
        if type(item) is not torch.Tensor:
            return {"type": type_name(item)}
        shadowed = sorted(name for name in vars(item) if hasattr(torch.Tensor, name))
        if shadowed:
            return {"type": f"torch.Tensor with attributes of its own: {', '.join(shadowed)}"}
        item = torch.Tensor.detach(item)
        if item.layout is not torch.strided or item.device.type == "meta":
            return {"type": f"torch.Tensor without memory: layout {item.layout}, device {item.device}"}
        shape, stride = tuple(item.shape), item.stride()
        nbytes = span_bytes(shape, stride, item.element_size())
        alias = self._alias(item, nbytes)
        if alias is not None and self.device.in_host_memory(item):
            offset = self.arena.placed[alias[0]].offset + alias[1]
        else:
            offset = self._copy(item, nbytes)
        return {
            "type": "torch.Tensor",
            "dtype": dtype_name(item.dtype),
            "shape": shape,
            "stride": stride,
            "device": device,
            "alias": alias,
            "offset": offset,
            "nbytes": nbytes if offset else 0,
        }

    def _alias(self, item: torch.Tensor, nbytes: int) -> tuple[int, int] | None:
        start = item.data_ptr()
        for index, (placed, tensor) in enumerate(self.given):
            base = tensor.data_ptr()
            if start < base + placed.nbytes and base < start + max(nbytes, 1):
                return (index, max(0, start - base))
        return None

    def _copy(self, item: torch.Tensor, nbytes: int) -> int:
        """Copy a tensor's span into scratch; its offset, or 0 if it does not fit (0 is never in scratch)."""
        offset = self.arena.scratch + self._spent
        if offset + nbytes > self.arena.size:
            return 0
        self._spent += -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
        raw = storage_bytes(item) if self.device.in_host_memory(item) else device_bytes(item, nbytes)
        self.arena.memory[offset : offset + nbytes] = raw.data
        return offset


class Server:
    """Answers commands. The device stays open, and the submission loaded, for the life of the process."""

    def __init__(self, channel: Channel, device: Device, submission: Path) -> None:
        self.channel = channel
        self.submission = submission
        self.device = device
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(device.active())
        self.entry: Callable[[Any], Any] | None = None
        self.slots: dict[int, Case] = {}
        self.commands: dict[str, Callable[[Message, int], Message]] = {
            "load": self.load,
            "run": self.run,
            "hold": self.hold,
            "window": self.window,
            "refill": self.refill,
            "drop": self.drop,
        }

    def serve(self) -> bool:
        """Answer one command. False after `stop`."""
        message, fd = self.channel.receive_with_fd()
        if message["do"] == "stop":
            return False
        reply = self.commands[message["do"]](message, -1 if fd is None else fd)
        self.channel.send(reply)
        return True

    def load(self, _: Message, __: int) -> Message:
        started = time.perf_counter()
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
        return {"is": "loaded", "seconds": time.perf_counter() - started, "versions": versions()}

    def run(self, message: Message, fd: int) -> Message:
        self.device.limit(message["limit"])
        try:
            return {"is": "ran", **self._call(Case(self.device, fd, message))}
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

    def drop(self, _: Message, __: int) -> Message:
        self.slots.clear()
        return {"is": "done"}

    def refill(self, message: Message, _: int) -> Message:
        for slot in message["slots"]:
            for placed, tensor in self.slots[slot].given:
                if placed.role == "c":
                    tensor.view(torch.int16).fill_(message["word"])
        self.device.synchronize()
        return {"is": "done"}

    def window(self, message: Message, _: int) -> Message:
        from evaluator import cuda_window

        assert self.entry is not None
        cases = [self.slots[slot] for slot in message["slots"]]
        inputs = [case.data() for case in cases]
        try:
            nanoseconds, flush, returned = cuda_window.measure(self.entry, inputs, flush=message["flush"])
            outputs = []
            if message["collect"]:
                outputs = [
                    {**case.describe(result), "seconds": 0.0, "launches": []}
                    for case, result in zip(cases, returned, strict=True)
                ]
            return {"is": "window", "nanoseconds": nanoseconds, "flush": flush, "outputs": outputs}
        except BaseException as error:
            return failures.describe(error, self.submission, importing=False)

    def _call(self, case: Case) -> Message:
        assert self.entry is not None
        data = case.data()
        self.device.synchronize()
        started = time.perf_counter()
        with self.device.call():
            returned = self.entry(data)
            self.device.synchronize()
        seconds = time.perf_counter() - started
        described = case.describe(returned)
        with self.device.paused():
            case.write_back()
        return {**described, "seconds": seconds, "launches": self.device.take_launches()}

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


def device_bytes(tensor: torch.Tensor, nbytes: int) -> np.ndarray:
    """The span of a tensor on a GPU, as uint8 on the host."""
    flat = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
    start = tensor.storage_offset() * tensor.element_size()
    return flat[start : start + nbytes].cpu().numpy()


def type_name(value: Any) -> str:
    kind = type(value)
    if kind is torch.Tensor:
        return "torch.Tensor"
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def versions() -> dict[str, str]:
    """Versions of what the submission runs on; a missing package is left out."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("torch", "nvidia-cutlass-dsl", "numpy", "triton"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
