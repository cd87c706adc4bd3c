"""`torch.cuda` as a process with one simulated GPU sees it.

Streams run in program order, so all synchronisation is immediate. There is no clock: an event can be
recorded, but asking for the time between two events raises Unsupported. CUDA graphs and CUDA C++
extensions raise it too.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._device
import torch.utils.cpp_extension

from b200sim.driver.device_tensors import DeviceTensors, MemoryRegistry
from b200sim.driver.patches import Patches
from b200sim.driver.tensor_mode import SimulatedCudaTensors
from b200sim.faults import Unsupported
from b200sim.gpus import Gpu

_SUPPORTED = "the simulated GPU runs CuTe-DSL kernels (import cutlass.cute)"


class SimulatedCuda:
    """What the submission's process sees as its GPU's memory."""

    def __init__(self, tensors: DeviceTensors, mode: SimulatedCudaTensors) -> None:
        self._tensors = tensors
        self._mode = mode
        self.adopt = tensors.adopt
        self.to_device = tensors.to_device
        self.is_device = tensors.is_device
        self.paused = mode.paused


@contextlib.contextmanager
def simulated_torch_cuda(registry: MemoryRegistry, gpu: Gpu) -> Iterator[SimulatedCuda]:
    """Map `device="cuda"` and `torch.cuda` of this process and thread onto host memory until the block ends.

    Every device allocation is reported to `registry` while it lives.
    """
    patches = Patches()
    default_device = torch.utils._device.CURRENT_DEVICE
    tensors = DeviceTensors(registry)
    mode = SimulatedCudaTensors(tensors)
    try:
        _patch_torch_cuda(patches, gpu)
        _patch_other_ways_to_the_gpu(patches)
        with mode:
            yield SimulatedCuda(tensors, mode)
    finally:
        tensors.release_all()
        patches.restore()
        if default_device != torch.utils._device.CURRENT_DEVICE:
            torch.set_default_device(default_device)


@dataclass(frozen=True)
class DeviceProperties:
    """`torch.cuda.get_device_properties(0)`: sizes in bytes."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int
    warp_size: int
    max_threads_per_block: int
    max_threads_per_multi_processor: int
    regs_per_multiprocessor: int
    shared_memory_per_block: int
    shared_memory_per_block_optin: int
    shared_memory_per_multiprocessor: int
    L2_cache_size: int
    clock_rate: int
    memory_clock_rate: int
    memory_bus_width: int
    is_integrated: int = 0
    is_multi_gpu_board: int = 0

    @staticmethod
    def of(gpu: Gpu) -> DeviceProperties:
        return DeviceProperties(
            name=gpu.name,
            major=gpu.compute_capability[0],
            minor=gpu.compute_capability[1],
            total_memory=gpu.global_bytes,
            multi_processor_count=gpu.sm_count,
            warp_size=gpu.warp_size,
            max_threads_per_block=gpu.max_threads_per_block,
            max_threads_per_multi_processor=gpu.max_threads_per_sm,
            regs_per_multiprocessor=gpu.registers_per_sm,
            shared_memory_per_block=gpu.shared_bytes_per_block,
            shared_memory_per_block_optin=gpu.shared_bytes_per_block_optin,
            shared_memory_per_multiprocessor=gpu.shared_bytes_per_sm,
            L2_cache_size=gpu.l2_bytes,
            clock_rate=gpu.sm_clock_khz,
            memory_clock_rate=gpu.memory_clock_khz,
            memory_bus_width=gpu.memory_bus_bits,
        )


class Stream:
    """A stream; its handle is 0, the default stream, because all work runs in program order."""

    cuda_stream = 0
    stream_id = 0
    device_index = 0
    device = torch.device("cuda", 0)

    def __init__(self, device: Any = None, priority: int = 0, **_kwargs: Any) -> None:
        self.priority = priority

    def synchronize(self) -> None:
        """All work is done already."""

    def wait_event(self, event: Event) -> None:
        """All work is done already."""

    def wait_stream(self, stream: Stream) -> None:
        """All work is done already."""

    def query(self) -> bool:
        return True

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_exception: Any) -> None:
        return None


class Event:
    """An event that can be recorded and waited for, but has no time."""

    cuda_event = 0
    device = torch.device("cuda", 0)

    def __init__(
        self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> None:
        self.recorded = False

    def record(self, stream: Stream | None = None) -> None:
        self.recorded = True

    def wait(self, stream: Stream | None = None) -> None:
        """All work is done already."""

    def synchronize(self) -> None:
        """All work is done already."""

    def query(self) -> bool:
        return True

    def elapsed_time(self, end_event: Event) -> float:
        raise Unsupported(
            "the simulated GPU has no clock: torch.cuda.Event.elapsed_time has nothing to measure"
        )


_DEFAULT_STREAM = Stream()


def _patch_torch_cuda(patches: Patches, gpu: Gpu) -> None:
    for name, value in _torch_cuda_functions(gpu).items():
        patches.set(torch.cuda, name, value)
    for name in ("range_push", "range_pop", "range_start", "range_end", "mark"):
        patches.set(torch.cuda.nvtx, name, _nothing())
    patches.set(torch.cuda.nvtx, "range", lambda *_args, **_kwargs: contextlib.nullcontext())
    patches.set(torch, "Generator", _host_generator(torch.Generator))
    for name in ("CUDAGraph", "graph", "make_graphed_callables"):
        patches.set(torch.cuda, name, _refuse(f"torch.cuda.{name}"))
    accelerator = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_accelerator": lambda *_args, **_kwargs: torch.device("cuda"),
        "current_device_index": lambda: 0,
        "synchronize": _nothing(),
    }
    for name, value in accelerator.items():
        patches.set(torch.accelerator, name, value)


def _torch_cuda_functions(gpu: Gpu) -> dict[str, Any]:
    properties = DeviceProperties.of(gpu)
    functions: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_properties": lambda *_device: properties,
        "get_device_capability": lambda *_device: gpu.compute_capability,
        "get_device_name": lambda *_device: gpu.name,
        "get_arch_list": lambda: [gpu.architectures[0]],
        "is_bf16_supported": lambda *_args, **_kwargs: True,
        "current_stream": lambda *_device: _DEFAULT_STREAM,
        "default_stream": lambda *_device: _DEFAULT_STREAM,
        "stream": lambda _stream: contextlib.nullcontext(),
        "device": lambda _device: contextlib.nullcontext(),
        "device_of": lambda _tensor: contextlib.nullcontext(),
        "mem_get_info": lambda *_device: (gpu.global_bytes, gpu.global_bytes),
        "Stream": Stream,
        "ExternalStream": Stream,
        "Event": Event,
    }
    for name in (
        "init",
        "_lazy_init",
        "synchronize",
        "set_device",
        "set_stream",
        "empty_cache",
        "ipc_collect",
    ):
        functions[name] = _nothing()
    for name in ("manual_seed", "manual_seed_all", "seed", "seed_all", "reset_peak_memory_stats"):
        functions[name] = _nothing()
    for name in ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"):
        functions[name] = lambda *_device: 0
    return functions


def _nothing() -> Callable[..., None]:
    """A function of its own for each name: torch._dynamo refuses one object under two names."""

    def nothing(*_args: Any, **_kwargs: Any) -> None:
        return None

    return nothing


def _refuse(what: str) -> Callable[..., Any]:
    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise Unsupported(f"{what} is not simulated: {_SUPPORTED}")

    return refuse


def _host_generator(original: type) -> type:
    """A stand-in for the class `torch.Generator` whose CUDA generators are CPU generators."""

    class GeneratorType(type):
        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, original)

        def __call__(cls, device: Any = "cpu") -> Any:
            return original(device="cpu" if torch.device(device).type == "cuda" else device)

    return GeneratorType("Generator", (), {})


# ----------------------------------------------------------------------------------------------------
# Kernels that are not CuTe-DSL


class _RefuseImport(importlib.abc.MetaPathFinder):
    """Says what is supported where a submission imports a kernel language the simulator does not run."""

    MODULES = frozenset({"triton", "cupy", "pycuda", "tilelang"})

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname in self.MODULES:
            raise ModuleNotFoundError(f"{fullname} kernels are not simulated: {_SUPPORTED}", name=fullname)


def _patch_other_ways_to_the_gpu(patches: Patches) -> None:
    for name in ("load", "load_inline"):
        patches.set(torch.utils.cpp_extension, name, _refuse(f"torch.utils.cpp_extension.{name} (CUDA C++)"))
    finder = _RefuseImport()
    sys.meta_path.insert(0, finder)
    patches.later(lambda: sys.meta_path.remove(finder))
