"""`cuda.bindings.driver` and `cuda.bindings.runtime` as a process with one simulated GPU sees them.

Queries, contexts, streams and synchronisation answer; everything runs in program order, so synchronising is
immediate and the only stream handle is 0. Every other `cu*` function raises Unsupported with its name, so
nothing reaches a real driver by accident.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from cuda.bindings import driver, runtime

from b200sim.driver.patches import Patches
from b200sim.faults import Unsupported
from b200sim.gpus import Gpu

_FUNCTION = re.compile(r"(cu|cuda)[A-Z]\w*$")
# Pure functions of the bindings that need no driver.
_KEEP = frozenset({"cudaGetErrorName", "cudaGetErrorString", "cudaRuntimeGetVersion"})


def patch_cuda_bindings(patches: Patches, gpu: Gpu) -> None:
    """Replace the functions of both modules until `patches.restore()`."""
    _patch_module(patches, driver, _driver_functions(gpu))
    _patch_module(patches, runtime, _runtime_functions(gpu))


def _patch_module(patches: Patches, module: Any, functions: dict[str, Callable[..., Any]]) -> None:
    for name, value in list(vars(module).items()):
        if _FUNCTION.match(name) and callable(value) and not isinstance(value, type) and name not in _KEEP:
            patches.set(module, name, functions.get(name) or _unsupported(f"{module.__name__}.{name}"))


def _unsupported(name: str) -> Callable[..., Any]:
    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        if "Event" in name:
            raise Unsupported(f"the simulated GPU has no clock: {name} has nothing to measure")
        raise Unsupported(f"{name} is not simulated: allocate with torch and launch with CuTe-DSL")

    return refuse


def _attribute(success: Any, gpu: Gpu) -> Callable[..., Any]:
    attributes = gpu.attributes()

    def get_attribute(attribute: Any, _device: Any = 0) -> tuple[Any, int]:
        number = int(attribute)
        if number not in attributes:
            raise Unsupported(
                f"device attribute {attribute!r} of the simulated {gpu.short_name} is not known"
            )
        return success, attributes[number]

    return get_attribute


def _always(*answer: Any) -> Callable[..., Any]:
    return lambda *_args, **_kwargs: answer


def _driver_functions(gpu: Gpu) -> dict[str, Callable[..., Any]]:
    ok = driver.CUresult.CUDA_SUCCESS
    context, device, stream = driver.CUcontext(1), driver.CUdevice(0), driver.CUstream(0)

    def get_device(ordinal: int) -> tuple[Any, ...]:
        return (ok, device) if ordinal == 0 else (driver.CUresult.CUDA_ERROR_INVALID_DEVICE, None)

    def error_text(error: Any) -> tuple[Any, bytes]:
        return ok, driver.CUresult(error).name.encode()

    functions: dict[str, Callable[..., Any]] = {
        "cuInit": _always(ok),
        "cuDriverGetVersion": _always(ok, gpu.driver_version),
        "cuGetErrorName": error_text,
        "cuGetErrorString": error_text,
        "cuDeviceGet": get_device,
        "cuDeviceGetCount": _always(ok, 1),
        "cuDeviceGetName": lambda length, _device: (ok, gpu.name.encode()[:length]),
        "cuDeviceTotalMem": _always(ok, gpu.global_bytes),
        "cuDeviceGetAttribute": _attribute(ok, gpu),
        "cuDeviceComputeCapability": _always(ok, *gpu.compute_capability),
        "cuMemGetInfo": _always(ok, gpu.global_bytes, gpu.global_bytes),
    }
    for name in ("cuDevicePrimaryCtxRetain", "cuCtxCreate", "cuCtxGetCurrent", "cuCtxPopCurrent"):
        functions[name] = _always(ok, context)
    for name in ("cuDevicePrimaryCtxRelease", "cuCtxDestroy", "cuCtxSetCurrent", "cuCtxPushCurrent"):
        functions[name] = _always(ok)
    for name in ("cuCtxSynchronize", "cuStreamSynchronize", "cuStreamDestroy", "cuStreamQuery"):
        functions[name] = _always(ok)
    for name in ("cuStreamCreate", "cuStreamCreateWithPriority"):
        functions[name] = _always(ok, stream)
    functions["cuCtxGetDevice"] = _always(ok, device)
    return functions


def _runtime_functions(gpu: Gpu) -> dict[str, Callable[..., Any]]:
    ok = runtime.cudaError_t.cudaSuccess
    functions: dict[str, Callable[..., Any]] = {
        "cudaGetDeviceCount": _always(ok, 1),
        "cudaGetDevice": _always(ok, 0),
        "cudaDriverGetVersion": _always(ok, gpu.driver_version),
        "cudaDeviceGetAttribute": _attribute(ok, gpu),
        "cudaMemGetInfo": _always(ok, gpu.global_bytes, gpu.global_bytes),
    }
    for name in ("cudaSetDevice", "cudaDeviceSynchronize", "cudaStreamSynchronize", "cudaStreamDestroy"):
        functions[name] = _always(ok)
    for name in ("cudaStreamQuery", "cudaGetLastError", "cudaPeekAtLastError", "cudaLibraryUnload"):
        functions[name] = _always(ok)
    for name in ("cudaStreamCreate", "cudaStreamCreateWithFlags", "cudaStreamCreateWithPriority"):
        functions[name] = _always(ok, runtime.cudaStream_t(0))
    return functions
