"""Shared memory for one case: tensors as raw bytes, their structure as plain numbers.

An arena is an anonymous memory file with a fixed, sealed size:

    | a0 | b0 | c0 | sfa0 | sfb0 | sfa_reordered0 | sfb_reordered0 | a1 | ...  | scratch |

Each tensor starts on a 512-byte boundary (what CUDA's allocator gives) and occupies the span from its first
to its last element, gaps of its strides included, so that a view keeps its layout. The judge writes and reads
with `pwrite` and `pread` and never maps the file: nothing that a worker does to it can fault the judge, and
a read is a private snapshot. The worker maps the file and builds tensors on it. `scratch` takes the bytes of
outputs that do not live in the arena already.

The file has no name, so nothing is left behind however a process ends.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

ALIGNMENT = 512
ROLES = ("a", "b", "c", "sfa", "sfb", "sfa_reordered", "sfb_reordered")
#: Roles whose tensors stay on the host when the case runs on a device, as the official generator has it.
HOST_ROLES = frozenset({"sfa", "sfb"})

_CARRIERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Linux: F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW
ADD_SEALS, FIXED_SIZE = 1033, 0x1 | 0x2 | 0x4

Groups = tuple[
    list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    list[tuple[torch.Tensor, torch.Tensor]],
    list[tuple[torch.Tensor, torch.Tensor]],
    list[tuple[int, int, int, int]],
]


@dataclass(frozen=True)
class Placed:
    """Where one tensor lies: byte offset and span in the arena, and its layout in elements."""

    group: int
    role: str
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def name(self) -> str:
        return f"{self.role}[{self.group}]"

    def message(self) -> list[Any]:
        return [self.group, self.role, self.dtype, self.shape, self.stride, self.offset, self.nbytes]

    @staticmethod
    def parse(fields: list[Any]) -> Placed:
        group, role, dtype, shape, stride, offset, nbytes = fields
        return Placed(group, role, dtype, tuple(shape), tuple(stride), offset, nbytes)


def dtype_named(name: str) -> torch.dtype:
    """`"float16"` -> `torch.float16`. Raises `ValueError` for anything that is not a dtype of torch."""
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"unknown dtype {name!r}")
    return dtype


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def span_bytes(shape: tuple[int, ...], stride: tuple[int, ...], itemsize: int) -> int:
    """Bytes from the first to the last element of a strided tensor; 0 if it has no element."""
    if 0 in shape:
        return 0
    return (1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))) * itemsize


def storage_bytes(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's span as a uint8 array that shares its memory. The tensor must be on the host."""
    storage = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
    start = tensor.storage_offset() * tensor.element_size()
    size = span_bytes(tuple(tensor.shape), tensor.stride(), tensor.element_size())
    return storage[start : start + size].numpy()


def tensor_over(
    raw: Any, dtype: torch.dtype, shape: tuple[int, ...], stride: tuple[int, ...]
) -> torch.Tensor:
    """A strided tensor over a writable buffer of exactly its span; its storage ends where the span ends."""
    if len(raw) == 0:
        return torch.empty(shape, dtype=dtype)
    carrier = _CARRIERS[dtype.itemsize]
    return torch.frombuffer(raw, dtype=carrier).as_strided(shape, stride).view(dtype)


def flatten(data: Groups) -> list[tuple[int, str, torch.Tensor]]:
    """`(group, role, tensor)` for every tensor of the official 4-tuple, in arena order."""
    abc, scales, reordered, _ = data
    listed = []
    for group, (operands, plain, blocked) in enumerate(zip(abc, scales, reordered, strict=True)):
        for role, tensor in zip(ROLES, (*operands, *plain, *blocked), strict=True):
            listed.append((group, role, tensor))
    return listed


def assemble(tensors: dict[tuple[int, str], torch.Tensor], problem_sizes: list[tuple[int, ...]]) -> Groups:
    """The official 4-tuple from its tensors by (group, role)."""
    groups = range(len(problem_sizes))
    return (
        [(tensors[g, "a"], tensors[g, "b"], tensors[g, "c"]) for g in groups],
        [(tensors[g, "sfa"], tensors[g, "sfb"]) for g in groups],
        [(tensors[g, "sfa_reordered"], tensors[g, "sfb_reordered"]) for g in groups],
        [(m, n, k, length) for m, n, k, length in problem_sizes],
    )


class Arena:
    """The judge's side of the shared memory of one case."""

    def __init__(self, data: Groups) -> None:
        """Lay out `data` and copy it in. Scratch is five times what the `c` tensors need, and some more."""
        self.problem_sizes = [tuple(int(x) for x in sizes) for sizes in data[3]]
        self.placed: list[Placed] = []
        offset = 0
        for group, role, tensor in flatten(data):
            shape, stride = tuple(tensor.shape), tuple(tensor.stride())
            nbytes = span_bytes(shape, stride, tensor.element_size())
            self.placed.append(Placed(group, role, dtype_name(tensor.dtype), shape, stride, offset, nbytes))
            offset += -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
        self.scratch = offset
        outputs = sum(p.nbytes for p in self.placed if p.role == "c")
        self.size = self.scratch + 5 * outputs + (1 << 20)
        self.fd = os.memfd_create("case", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, self.size)
        fcntl.fcntl(self.fd, ADD_SEALS, FIXED_SIZE)
        for placed, (_, _, tensor) in zip(self.placed, flatten(data), strict=True):
            self.write(placed, tensor)

    def write(self, placed: Placed, tensor: torch.Tensor) -> None:
        self._write(placed.offset, storage_bytes(tensor.cpu()))

    def poison_outputs(self, word: int) -> None:
        """Fill every `c` with one 16-bit pattern."""
        for placed in self.outputs():
            self._write(placed.offset, np.full(placed.nbytes // 2, word, dtype=np.uint16).view(np.uint8))

    def outputs(self) -> list[Placed]:
        return [p for p in self.placed if p.role == "c"]

    def read(self, offset: int, nbytes: int) -> np.ndarray:
        """A private copy of `nbytes` bytes at `offset`."""
        copy = np.empty(nbytes, dtype=np.uint8)
        view, done = memoryview(copy.data), 0
        while done < nbytes:
            got = os.preadv(self.fd, [view[done : done + (1 << 30)]], offset + done)
            if got == 0:
                raise ValueError(f"{nbytes} bytes at {offset} reach past the arena's {self.size} bytes")
            done += got
        return copy

    def changed(self, data: Groups) -> list[str]:
        """Names of the inputs whose bytes no longer equal `data`."""
        names = []
        for placed, (_, role, tensor) in zip(self.placed, flatten(data), strict=True):
            if role != "c" and not np.array_equal(
                self.read(placed.offset, placed.nbytes), storage_bytes(tensor.cpu())
            ):
                names.append(placed.name)
        return names

    def message(self) -> dict[str, Any]:
        """What a worker needs to rebuild the tensors."""
        return {
            "size": self.size,
            "scratch": self.scratch,
            "problem_sizes": self.problem_sizes,
            "placed": [p.message() for p in self.placed],
        }

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _write(self, offset: int, raw: np.ndarray) -> None:
        view, done = memoryview(np.ascontiguousarray(raw).data), 0
        while done < len(view):
            done += os.pwrite(self.fd, view[done : done + (1 << 30)], offset + done)


class MappedArena:
    """The worker's side: the same memory, mapped, with tensors built over it."""

    def __init__(self, fd: int, message: dict[str, Any]) -> None:
        self.placed = [Placed.parse(fields) for fields in message["placed"]]
        self.problem_sizes = [tuple(sizes) for sizes in message["problem_sizes"]]
        self.scratch: int = message["scratch"]
        self.size: int = message["size"]
        self.memory = memoryview(mmap.mmap(fd, self.size))
        os.close(fd)

    def tensor(self, placed: Placed) -> torch.Tensor:
        raw = self.memory[placed.offset : placed.offset + placed.nbytes]
        return tensor_over(raw, dtype_named(placed.dtype), placed.shape, placed.stride)
