"""Where a worker runs the submission: a simulated GPU, a CUDA GPU, or plain CPU tensors."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Callable
from typing import Any, Protocol

import torch

from evaluator.arena import HOST_ROLES, MappedArena, Placed
from evaluator.clocks import Clock, CudaClock, HostClock


class Device(Protocol):
    """What the worker needs of a device."""

    name: str
    clock: Clock

    def poison_free_memory(self, sizes: list[int], word: int) -> None:
        """Let blocks of these sizes in bytes hold `word` where the next allocation is likely to find them."""

    def in_host_memory(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor's bytes are this process's own memory."""

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which the submission is imported and called; entered once per process."""

    def place(self, arena: MappedArena, placed: Placed) -> torch.Tensor:
        """The tensor that the submission receives for `placed`."""

    def paused(self) -> contextlib.AbstractContextManager[Any]:
        """The context for the worker's own work: torch as it is, nothing simulated."""

    def synchronize(self) -> None:
        """Return when all work that the submission queued is finished."""

    def limit(self, seconds: float) -> None:
        """Give up on a launch after so long, if this device can say why it hangs."""

    def progress(self, tell: Callable[[str], None]) -> None:
        """Say through `tell`, in a few words and often, how far a long call is, if this device knows."""

    def call(self) -> contextlib.AbstractContextManager[Any]:
        """The context of one call of custom_kernel, for profilers to find."""

    def take_launches(self) -> list[dict[str, Any]]:
        """Counters of the launches since the last call."""


class CpuDevice:
    """Plain torch tensors on the host, for submissions written in torch alone."""

    name = "cpu"

    def __init__(self) -> None:
        self.clock: Clock = HostClock()

    def poison_free_memory(self, sizes: list[int], word: int) -> None:
        _fill_and_free(sizes, word, "cpu")

    def in_host_memory(self, tensor: torch.Tensor) -> bool:
        return True

    def active(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def place(self, arena: MappedArena, placed: Placed) -> torch.Tensor:
        return arena.tensor(placed)

    def paused(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def synchronize(self) -> None:
        pass

    def limit(self, seconds: float) -> None:
        pass

    def progress(self, tell: Callable[[str], None]) -> None:
        pass

    def call(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def take_launches(self) -> list[dict[str, Any]]:
        return []


class SimulatedGpu(CpuDevice):
    """A simulated GPU. Its global memory is the host's: inputs are adopted where they lie in the arena,
    and forgotten by the simulator when the last tensor over them is."""

    name = "sim"

    def __init__(self, processes: int, gpu: str = "b200", sms: int | None = None) -> None:
        """`gpu` is a key of `b200sim.gpus.GPUS`; `sms`: with fewer SMs than it has."""
        super().__init__()
        chosen = importlib.import_module("b200sim.gpus").GPUS[gpu]
        self.simulated: Any = importlib.import_module("b200sim.device").SimulatedDevice(
            processes=processes, gpu=chosen.with_sms(sms or chosen.sm_count)
        )
        self._taken = 0

    def poison_free_memory(self, sizes: list[int], word: int) -> None:
        pass  # the simulator's own allocations never reuse freed contents

    def active(self) -> contextlib.AbstractContextManager[Any]:
        context: contextlib.AbstractContextManager[Any] = self.simulated
        return context

    def place(self, arena: MappedArena, placed: Placed) -> torch.Tensor:
        tensor = arena.tensor(placed)
        if placed.role not in HOST_ROLES:
            self.simulated.adopt(placed.name, tensor, writable=placed.role == "c")
        return tensor

    def paused(self) -> contextlib.AbstractContextManager[Any]:
        context: contextlib.AbstractContextManager[Any] = self.simulated.paused()
        return context

    def limit(self, seconds: float) -> None:
        self.simulated.time_limit = seconds

    def progress(self, tell: Callable[[str], None]) -> None:
        self.simulated.progress = lambda clusters, of: tell(f"({clusters} of {of} clusters)")

    def take_launches(self) -> list[dict[str, Any]]:
        reports = list(self.simulated.launches[self._taken :])
        self._taken = len(self.simulated.launches)
        return [plain_counters(report.as_dict()) for report in reports]


class CudaDevice:
    """The first CUDA GPU. Inputs are copied there; outputs are copied back by the worker."""

    name = "cuda"

    def __init__(self) -> None:
        torch.zeros(
            1, device="cuda"
        )  # a driver that cannot work here says so before the submission is loaded
        self.queue = torch.cuda.current_stream()
        self.clock: Clock = CudaClock()

    def poison_free_memory(self, sizes: list[int], word: int) -> None:
        _fill_and_free(sizes, word, "cuda")

    def in_host_memory(self, tensor: torch.Tensor) -> bool:
        return tensor.device.type == "cpu"

    def active(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def place(self, arena: MappedArena, placed: Placed) -> torch.Tensor:
        host = arena.tensor(placed)
        if placed.role in HOST_ROLES:
            return host.clone()
        return host.to("cuda")

    def paused(self) -> contextlib.AbstractContextManager[Any]:
        """The queue that was current before the submission was loaded, whatever is current now."""
        return torch.cuda.stream(self.queue)

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def limit(self, seconds: float) -> None:
        pass

    def progress(self, tell: Callable[[str], None]) -> None:
        pass

    def call(self) -> contextlib.AbstractContextManager[Any]:
        context: contextlib.AbstractContextManager[Any] = torch.cuda.nvtx.range("custom_kernel")
        return context

    def take_launches(self) -> list[dict[str, Any]]:
        return []


def _fill_and_free(sizes: list[int], word: int, where: str) -> None:
    """Two blocks of every size hold `word` when the allocator gets them back."""
    blocks = [torch.empty(size // 2, dtype=torch.int16, device=where) for size in sizes for _ in range(2)]
    for block in blocks:
        block.fill_(word)


def open_device(name: str, processes: int) -> Device:
    """The device called `name`: "cuda", "cpu", or "sim", which may use so many processes.

    "sim:h200" is another GPU than the B200, "sim:b200:4" one of 4 SMs.
    """
    kind, _, details = name.partition(":")
    if kind == "sim":
        gpu, _, sms = details.partition(":")
        return SimulatedGpu(processes, gpu or "b200", int(sms) if sms else None)
    if name == "cuda":
        return CudaDevice()
    if name == "cpu":
        return CpuDevice()
    raise ValueError(f"unknown device {name!r}")


def plain_counters(report: dict[str, Any]) -> dict[str, Any]:
    """A launch report as flat JSON: numbers, text, lists of integers.

    Nested entries keep their own names; what the launch says itself wins over them.
    """
    flat: dict[str, Any] = {}
    for key, value in report.items():
        if isinstance(value, dict):
            for name, inner in plain_counters(value).items():
                flat.setdefault(name, inner)
        elif isinstance(value, (list, tuple)):
            numbers = all(isinstance(item, int) for item in value)
            flat[key] = [int(item) for item in value] if numbers else str(value)
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            flat[key] = str(value)
        elif math.isfinite(value):
            flat[key] = value
    return flat
