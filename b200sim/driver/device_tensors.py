"""Which torch storages are device memory, and where that memory is.

The simulated GPU's global memory is host memory: a device tensor is a CPU tensor whose storage is
registered here and in the simulator's table of allocations. Memory that this module allocates is aligned
as `cudaMalloc` aligns it, and lies between unregistered gaps, so a kernel that overruns a tensor leaves
every known allocation.
"""

from __future__ import annotations

import mmap
import sys
import weakref
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

# torch's caching allocator gives out multiples of 512 bytes; a page, and so what follows its gap, is one too.
ALIGNMENT = 512
GAP = ALIGNMENT
POISON = 0xFF


class MemoryRegistry(Protocol):
    """What the simulator's global memory offers: allocations by host address, in bytes."""

    def add(self, name: str, address: int, nbytes: int, writable: bool = True) -> Any: ...

    def remove(self, address: int) -> Any: ...


class DeviceTensors:
    """The device memory of one simulated GPU, by storage: a view of a device tensor is a device tensor."""

    def __init__(self, registry: MemoryRegistry) -> None:
        self._registry = registry
        self._live: dict[int, tuple[weakref.finalize[Any, Any], int]] = {}

    def is_device(self, tensor: torch.Tensor) -> bool:
        with torch._C.DisableTorchFunction():
            return _has_storage(tensor) and tensor.untyped_storage()._cdata in self._live

    def adopt(self, name: str, tensor: torch.Tensor, writable: bool = True) -> torch.Tensor:
        """Make the memory of a CPU tensor device memory, where it is; returns the tensor. If it is not
        writable, kernels that write to it end with the fault `global_write_to_input`.

        Host allocations are aligned to 64 bytes only and have neighbours: `to_device` is better where a copy
        will do.
        """
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
            key, address, nbytes = storage._cdata, storage.data_ptr(), storage.nbytes()
            if key not in self._live:
                if nbytes:
                    self._registry.add(name, address, nbytes, writable)
                finalizer = weakref.finalize(storage, self._release, key)
                finalizer.atexit = False
                self._live[key] = (finalizer, address if nbytes else 0)
        return tensor

    def to_device(self, name: str, tensor: torch.Tensor, writable: bool = True) -> torch.Tensor:
        """A device tensor with the same elements, shape, dtype and strides in memory of its own, as `adopt`
        makes it."""
        with torch._C.DisableTorchFunction(), torch.no_grad():
            source = tensor.detach()
            if not _is_dense(source):
                source = source.contiguous()
            copy = torch.empty(0, dtype=source.dtype)
            elements = source.numel()
            memory = device_memory(elements * source.element_size())
            if elements:
                first = source.storage_offset() * source.element_size()
                memory.copy_(_bytes_of(source)[first : first + memory.numel()])
            copy.set_(memory.untyped_storage(), 0, source.shape, source.stride())
        return self.adopt(name, copy, writable)

    def move(self, name: str, tensor: torch.Tensor, *, poison: bool = False) -> None:
        """Give a fresh CPU tensor device memory, in place; with `poison` its contents are 0xFF bytes."""
        with torch._C.DisableTorchFunction(), torch.no_grad():
            old = tensor.untyped_storage()
            memory = device_memory(old.nbytes())
            if old.nbytes() and not poison:
                memory.copy_(_bytes_of(tensor))
            tensor.set_(memory.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())
        self.adopt(name, tensor)

    def release_all(self) -> None:
        """Forget all device memory; the tensors stay, as the CPU tensors they are."""
        for finalizer, _address in list(self._live.values()):
            finalizer()

    def _release(self, key: int) -> None:
        _finalizer, address = self._live.pop(key)
        if address:
            self._registry.remove(address)


def device_memory(nbytes: int) -> torch.Tensor:
    """`nbytes` poisoned bytes at a multiple of ALIGNMENT, with GAP bytes of no one else's on both sides.

    The mapping starts at a page and is shared with forked processes, so that parts of one launch can run side
    by side.
    """
    mapping = np.frombuffer(mmap.mmap(-1, GAP + nbytes + GAP), dtype=np.uint8)
    mapping[:] = POISON
    return torch.from_numpy(mapping[GAP : GAP + nbytes])


def allocation_name(tensor: torch.Tensor) -> str:
    """Words for a fault: what the tensor is and which line of the submission made it."""
    with torch._C.DisableTorchFunction():
        shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    return f"tensor {shape}, {dtype}, created at {_caller()}"


_OWN_FOLDER = str(Path(__file__).parent)
_TORCH_FOLDER = str(Path(torch.__file__).parent)


def _caller() -> str:
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_OWN_FOLDER, _TORCH_FOLDER)):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def _has_storage(tensor: torch.Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.device.type == "cpu"


def _is_dense(tensor: torch.Tensor) -> bool:
    """No holes and no overlaps: in some order of the dimensions the elements fill consecutive places."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """The whole storage of a tensor as bytes."""
    view = torch.empty(0, dtype=torch.uint8)
    return view.set_(tensor.untyped_storage())
