"""`device="cuda"` tensors on a machine without a GPU: every torch call of the submission passes here.

A `TorchFunctionMode` sees the calls of torch's C functions and tensor methods on the thread that entered
it. It takes the device out of the arguments, runs the call on the CPU, and gives the result the device
memory that it would have on a GPU. Tensors report `cuda:0`; tensors of host and device cannot be mixed.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.utils._device
from torch.overrides import TorchFunctionMode

from b200sim.driver.device_tensors import DeviceTensors, allocation_name
from b200sim.faults import Unsupported

_CUDA = torch.device("cuda", 0)
_DLPACK_CUDA = (2, 0)  # kDLCUDA, device 0

_UNINITIALISED = frozenset(
    {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}
)
# Calls that take tensors of both devices on a GPU machine as well.
_TAKES_BOTH = frozenset(
    {
        "copy_", "__getitem__", "__setitem__", "__get__", "__set__", "index_put", "index_put_",
        "type_as", "_has_compatible_shallow_copy_type", "is_set_to", "new_tensor", "is_same_size", "set_",
    }
)  # fmt: skip


class SimulatedCudaTensors(TorchFunctionMode):
    """Maps CUDA tensors onto CPU tensors whose storages `tensors` knows."""

    def __init__(self, tensors: DeviceTensors) -> None:
        super().__init__()
        self._tensors = tensors
        self._paused = False
        self._special: dict[str, Callable[..., Any]] = {
            "__get__": self._get_property,
            "to": self._to,
            "cuda": self._cuda,
            "cpu": self._cpu,
            "type": self._type,
            "get_device": self._get_device,
            "numpy": self._numpy,
            "__array__": self._numpy,
            "__dlpack__": self._dlpack,
            "__dlpack_device__": self._dlpack_device,
            "pin_memory": self._pin_memory,
            "is_pinned": lambda func, args, kwargs: False,
            "record_stream": lambda func, args, kwargs: None,
            "_scaled_mm": self._refuse_cublas,
            "_scaled_grouped_mm": self._refuse_cublas,
        }

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let torch see the CPU tensors as they are, for the harness's own work."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if self._paused:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        special = self._special.get(name)
        if special is not None:
            return special(func, args, kwargs)
        return self._call(func, name, args, kwargs)

    # -- calls in general

    def _call(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        inputs = list(_tensors_in((args, tuple(kwargs.values()))))
        device = any(map(self._tensors.is_device, inputs))
        if device and name not in _TAKES_BOTH:
            self._require_one_device(name, inputs)
        requested = kwargs.pop("device", None)
        kwargs.pop("pin_memory", None)
        if requested is None and torch.utils._device.CURRENT_DEVICE is not None:
            requested = _default_device(func)
        if requested is not None:
            device = _is_cuda(requested)
            kwargs["device"] = "cpu" if device else requested
        result = func(*args, **kwargs)
        return self._placed(result, name, inputs, requested is not None) if device else result

    def _placed(self, result: Any, name: str, inputs: list[torch.Tensor], moves: bool) -> Any:
        """`result` with every fresh tensor in it given device memory, `moves`: host tensors as well."""
        if isinstance(result, torch.Tensor):
            if self._tensors.is_device(result) or _is_foreign(result):
                return result
            if any(_same_storage(result, tensor) for tensor in inputs):
                # as_tensor(host, device="cuda") copies; host.copy_(tensor) stays on the host.
                return self._tensors.to_device(allocation_name(result), result) if moves else result
            self._tensors.move(allocation_name(result), result, poison=name in _UNINITIALISED)
            return result
        if type(result) in (tuple, list):
            return type(result)(self._placed(item, name, inputs, moves) for item in result)
        if isinstance(result, tuple) and type(result).__module__ == "torch.return_types":
            return type(result)([self._placed(item, name, inputs, moves) for item in result])
        return result

    def _require_one_device(self, name: str, inputs: list[torch.Tensor]) -> None:
        if any(tensor.dim() and not self._tensors.is_device(tensor) for tensor in inputs):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but torch.{name} got tensors "
                f"on cuda:0 and on cpu"
            )

    # -- properties and conversions

    def _get_property(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        name = getattr(func.__self__, "__name__", "")
        if name in ("device", "is_cuda", "is_cpu") and self._tensors.is_device(args[0]):
            return {"device": _CUDA, "is_cuda": True, "is_cpu": False}[name]
        return func(*args, **kwargs)

    def _to(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        tensor = args[0]
        args = tuple(_named_device(arg) for arg in args)
        _physical, dtype, _non_blocking, memory_format = torch._C._nn._parse_to(
            *args[1:], **{key: value for key, value in kwargs.items() if key != "copy"}
        )
        copy = kwargs.get("copy", False) or (len(args) > 4 and bool(args[4]))
        here = self._tensors.is_device(tensor)
        there = self._wanted_device(args[1:], kwargs, here)
        plain = {"copy": copy, **({"memory_format": memory_format} if memory_format else {})}
        changed = func(tensor, dtype or tensor.dtype, **plain)
        if there:
            return self._on_device(changed)
        return _host_copy(changed) if here and _same_storage(changed, tensor) else changed

    def _wanted_device(self, args: Any, kwargs: dict[str, Any], here: bool) -> bool:
        target = kwargs.get("device", kwargs.get("other", args[0] if args else None))
        if isinstance(target, torch.Tensor):
            return self._tensors.is_device(target)
        if isinstance(target, (str, int, torch.device)):
            return _is_cuda(target)
        return here

    def _on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._tensors.is_device(tensor):
            return tensor
        return self._tensors.to_device(allocation_name(tensor), tensor)

    def _cuda(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        _is_cuda(kwargs.get("device", args[1] if len(args) > 1 else None) or "cuda")
        return self._on_device(args[0])

    def _cpu(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return _host_copy(args[0]) if self._tensors.is_device(args[0]) else func(*args, **kwargs)

    def _type(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if len(args) == 1 and not kwargs and self._tensors.is_device(args[0]):
            return func(*args).replace("torch.", "torch.cuda.")
        if len(args) > 1 and isinstance(args[1], torch.dtype):
            return self._to(torch.Tensor.to, args, kwargs)
        return self._call(func, "type", args, kwargs)

    def _get_device(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return 0 if self._tensors.is_device(args[0]) else func(*args, **kwargs)

    def _numpy(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if self._tensors.is_device(args[0]):
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. "
                "Use Tensor.cpu() to copy the tensor to host memory first."
            )
        return func(*args, **kwargs)

    def _dlpack(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if self._tensors.is_device(args[0]):
            # Everything runs in program order; the CPU exporter takes no stream.
            kwargs.pop("stream", None)
            return _on_cuda(func(*args[:1], **kwargs))
        return func(*args, **kwargs)

    def _dlpack_device(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return _DLPACK_CUDA if self._tensors.is_device(args[0]) else func(*args, **kwargs)

    def _pin_memory(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return _host_copy(args[0])

    def _refuse_cublas(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if any(map(self._tensors.is_device, _tensors_in((args, tuple(kwargs.values()))))):
            raise Unsupported(
                f"torch.{func.__name__} is a cuBLAS kernel; the simulated GPU runs CuTe-DSL kernels"
            )
        return func(*args, **kwargs)


def _on_cuda(capsule: Any) -> Any:
    """A DLPack capsule of host memory, renamed to device memory; CuTe-DSL takes the address space from it.

    DLDevice (type, index) lies after the data pointer of the DLTensor, which DLManagedTensor begins with and
    DLManagedTensorVersioned has after 32 bytes (dlpack.h 1.0).
    """
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    name = api.PyCapsule_GetName(capsule)
    tensor = api.PyCapsule_GetPointer(capsule, name) + (32 if name == b"dltensor_versioned" else 0)
    (ctypes.c_int32 * 2).from_address(tensor + 8)[:] = list(_DLPACK_CUDA)
    return capsule


def _named_device(argument: Any) -> Any:
    """`0` in `tensor.to(0)` as a device; torch accepts it only where there is a GPU."""
    return torch.device("cuda", argument) if type(argument) is int else argument


def _default_device(func: Any) -> Any:
    """The device of `torch.set_default_device` or `with torch.device(…)`, if `func` makes tensors on it."""
    makes_tensors = func in torch.utils._device._device_constructors()
    return torch.utils._device.CURRENT_DEVICE if makes_tensors else None


def _is_cuda(device: Any) -> bool:
    """Whether a device argument names the simulated GPU; its index must be 0."""
    found = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    if found.type == "cuda" and found.index not in (None, 0):
        raise RuntimeError(f"CUDA error: invalid device ordinal: {found} (the simulated device is cuda:0)")
    return found.type == "cuda"


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors_in(item)


def _is_foreign(tensor: torch.Tensor) -> bool:
    return tensor.layout is not torch.strided or tensor.device.type != "cpu"


def _same_storage(first: torch.Tensor, second: torch.Tensor) -> bool:
    if _is_foreign(first) or _is_foreign(second):
        return False
    return first.untyped_storage()._cdata == second.untyped_storage()._cdata


def _host_copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone()
