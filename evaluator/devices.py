"""Where a worker runs the submission: the simulated B200, a CUDA GPU, or plain CPU tensors."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Iterator
from typing import Any, Protocol

import torch

from evaluator.arena import HOST_ROLES, MappedArena, Placed


class Device(Protocol):
    """What the worker needs of a device."""

    name: str

    def in_host_memory(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor's bytes are this process's own memory."""

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which the submission is imported and called; entered once per process."""

    def place(self, arena: MappedArena, placed: Placed) -> torch.Tensor:
        """The tensor that the submission receives for `placed`."""

    def release(self, tensors: list[torch.Tensor]) -> None:
        """The case is over: forget what `place` registered."""

    def synchronize(self) -> None:
        """Return when all work that the submission queued is finished."""

    def take_launches(self) -> list[dict[str, Any]]:
        """Counters of the launches since the last call."""


class CpuDevice:
    """Plain torch tensors on the host, for submissions written in torch alone."""

    name = "cpu"

    def in_host_memory(self, tensor: torch.Tensor) -> bool:
        return True

    def active(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def place(self, arena: MappedArena, placed: Placed) -> torch.Tensor:
        return arena.tensor(placed)

    def release(self, tensors: list[torch.Tensor]) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def take_launches(self) -> list[dict[str, Any]]:
        return []


class SimulatedB200(CpuDevice):
    """The simulated B200. Its global memory is the host's: inputs are adopted where they lie in the arena."""

    name = "sim"

    def __init__(self) -> None:
        self.device: Any = importlib.import_module("b200sim").SimulatedDevice()
        self._taken = 0

    def active(self) -> contextlib.AbstractContextManager[Any]:
        context: contextlib.AbstractContextManager[Any] = self.device
        return context

    def place(self, arena: MappedArena, placed: Placed) -> torch.Tensor:
        tensor = arena.tensor(placed)
        if placed.role not in HOST_ROLES:
            self.device.adopt(placed.name, tensor)
        return tensor

    def release(self, tensors: list[torch.Tensor]) -> None:
        for tensor in tensors:
            with contextlib.suppress(KeyError):
                self.device.memory.remove(tensor.data_ptr())

    def take_launches(self) -> list[dict[str, Any]]:
        reports = list(self.device.launches[self._taken :])
        self._taken = len(self.device.launches)
        return [plain_counters(report) for report in reports]


class CudaDevice:
    """The first CUDA GPU. Inputs are copied there; outputs are copied back by the worker."""

    name = "cuda"

    def in_host_memory(self, tensor: torch.Tensor) -> bool:
        return tensor.device.type == "cpu"

    def active(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def place(self, arena: MappedArena, placed: Placed) -> torch.Tensor:
        host = arena.tensor(placed)
        if placed.role in HOST_ROLES:
            return host.clone()
        return host.to("cuda")

    def release(self, tensors: list[torch.Tensor]) -> None:
        pass

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def take_launches(self) -> list[dict[str, Any]]:
        return []


def open_device(name: str) -> Device:
    """The device called `name`: "sim", "cuda" or "cpu"."""
    if name == "sim":
        return SimulatedB200()
    if name == "cuda":
        return CudaDevice()
    if name == "cpu":
        return CpuDevice()
    raise ValueError(f"unknown device {name!r}")


def plain_counters(report: Any) -> dict[str, Any]:
    """A launch report as JSON: numbers, text, lists of integers; nested counters become `outer.inner`."""
    return dict(_flat(report if isinstance(report, dict) else vars(report), ""))


def _flat(report: dict[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in report.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, str):
            yield name, value
        elif isinstance(value, (list, tuple)):
            yield (
                name,
                [int(item) for item in value] if all(isinstance(i, int) for i in value) else str(value),
            )
        elif isinstance(value, bool) or value is None:
            yield name, str(value).lower()
        elif isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
            yield name, value
        else:
            yield name, str(value)
