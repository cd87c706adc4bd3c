"""The tensors of one case in the worker: built over the arena, given away, described for the judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from evaluator.arena import ALIGNMENT, MappedArena, assemble, dtype_name, span_bytes, storage_bytes
from evaluator.devices import Device

_MAX_OUTPUTS = 4096
Message = dict[str, Any]


@dataclass
class Taken:
    """What one call returned: the objects, where they were, and a copy of their bytes made at that moment."""

    returned: Any
    items: list[Any]
    devices: list[str]
    copies: list[torch.Tensor | None]


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

    def output_sizes(self) -> list[int]:
        return [placed.nbytes for placed, _ in self.given if placed.role == "c"]

    def refill(self, word: int) -> None:
        """Overwrite every c with one 16-bit pattern."""
        with self.device.paused():
            for placed, tensor in self.given:
                if placed.role == "c":
                    span(tensor, placed.nbytes).view(torch.int16).fill_(_signed(word))

    def rewrite(self, fd: int, message: Message) -> None:
        """Other contents from another arena of the same layout, under the same tensors."""
        other = MappedArena(fd, message)
        with self.device.paused():
            for (placed, tensor), theirs in zip(self.given, other.placed, strict=True):
                if placed.role != "c":
                    span(tensor, placed.nbytes).copy_(span(other.tensor(theirs), theirs.nbytes))

    def overwrite_from(self, staged: Case) -> None:
        """The contents of another case's inputs, queued behind whatever the current queue holds."""
        with self.device.paused():
            for (placed, tensor), (_, source) in zip(self.given, staged.given, strict=True):
                if placed.role != "c":
                    span(tensor, placed.nbytes).copy_(span(source, placed.nbytes))

    def take(self, returned: Any, copy: bool) -> Taken:
        """Hold on to what a call returned; with `copy`, queue a copy of it at once."""
        items = list(returned)[:_MAX_OUTPUTS] if type(returned) in (list, tuple) else []
        devices = [str(item.device) if type(item) is torch.Tensor else "" for item in items]
        copies: list[torch.Tensor | None] = [None] * len(items)
        if copy:
            most = 2 * sum(self.output_sizes()) + (1 << 20)
            with self.device.paused():
                copies = [self._copy_now(item, most) for item in items]
        return Taken(returned, items, devices, copies)

    def describe(self, taken: Taken) -> Message:
        """The fields `container` and `outputs` of a `ran` reply. Bytes outside the arena are copied in."""
        self._spent = 0
        with self.device.paused():
            described = [
                self._describe(item, device, copy)
                for item, device, copy in zip(taken.items, taken.devices, taken.copies, strict=True)
            ]
        return {"container": type_name(taken.returned), "outputs": described}

    def write_back(self) -> None:
        """Make the judge see the inputs as they are on the device now."""
        for placed, tensor in self.given:
            target = self.arena.tensor(placed)
            if target.data_ptr() != tensor.data_ptr():
                storage_bytes(target)[:] = span(tensor, placed.nbytes).cpu().numpy()

    def _copy_now(self, item: Any, most: int) -> torch.Tensor | None:
        if plain_problem(item):
            return None
        item = torch.Tensor.detach(item)
        nbytes = span_bytes(tuple(item.shape), item.stride(), item.element_size())
        return span(item, nbytes).clone() if nbytes <= most else None

    def _describe(self, item: Any, device: str, copy: torch.Tensor | None) -> Message:
        problem = plain_problem(item)
        if problem:
            return {"type": problem}
        item = torch.Tensor.detach(item)
        shape, stride = tuple(item.shape), item.stride()
        nbytes = span_bytes(shape, stride, item.element_size())
        alias = self._alias(item, nbytes)
        if alias is not None and self.device.in_host_memory(item):
            settled = self.arena.placed[alias[0]].offset + alias[1]
        else:
            settled = self._store(span(item, nbytes).cpu().numpy())
        offset = self._store(copy.cpu().numpy()) if copy is not None else settled
        return {
            "type": "torch.Tensor",
            "dtype": dtype_name(item.dtype),
            "shape": shape,
            "stride": stride,
            "device": device,
            "alias": alias,
            "offset": offset,
            "settled": settled,
            "nbytes": nbytes if offset else 0,
        }

    def _alias(self, item: torch.Tensor, nbytes: int) -> tuple[int, int] | None:
        start = item.data_ptr()
        for index, (placed, tensor) in enumerate(self.given):
            base = tensor.data_ptr()
            if start < base + placed.nbytes and base < start + max(nbytes, 1):
                return (index, max(0, start - base))
        return None

    def _store(self, raw: np.ndarray) -> int:
        """Put bytes into scratch; their offset, or 0 if they do not fit (0 is never in scratch)."""
        offset = self.arena.scratch + self._spent
        if offset + len(raw) > self.arena.size:
            return 0
        self._spent += -(-max(len(raw), 1) // ALIGNMENT) * ALIGNMENT
        self.arena.memory[offset : offset + len(raw)] = raw.data
        return offset


def plain_problem(item: Any) -> str:
    """Why an object is no plain tensor with memory, as the `type` of its description; "" if it is one."""
    if type(item) is not torch.Tensor:
        return type_name(item)
    shadowed = sorted(name for name in vars(item) if hasattr(torch.Tensor, name))
    if shadowed:
        return f"torch.Tensor with attributes of its own: {', '.join(shadowed)}"
    if item.layout is not torch.strided or item.device.type == "meta":
        return f"torch.Tensor without memory: layout {item.layout}, device {item.device}"
    return ""


def span(tensor: torch.Tensor, nbytes: int) -> torch.Tensor:
    """The bytes from a tensor's first to its last element, uint8, sharing its memory."""
    flat = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
    start = tensor.storage_offset() * tensor.element_size()
    return flat[start : start + nbytes]


def type_name(value: Any) -> str:
    kind = type(value)
    if kind is torch.Tensor:
        return "torch.Tensor"
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _signed(word: int) -> int:
    return word - 0x10000 if word >= 0x8000 else word
