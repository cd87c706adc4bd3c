"""The one place where the evaluator touches the problem: inputs, ground truth, checks (judge side)."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass

import numpy as np
import torch

import reference
from evaluator.arena import Arena, Groups, dtype_named, span_bytes, tensor_over
from evaluator.cases import Case
from evaluator.messages import Output, Ran
from evaluator.verdict import Status, Verdict

#: The generator seeds torch's global state: one case is generated at a time.
_GENERATING = threading.Lock()
_CONTAINERS = ("list", "tuple")


@dataclass(frozen=True)
class Checked:
    """The verdict on one result, and how many elements differ in any bit from the exactly rounded one."""

    verdict: Verdict
    elements: int = 0
    inexact: int | None = None

    @property
    def bit_exact(self) -> bool | None:
        return None if self.inexact is None else self.inexact == 0


def generate(case: Case, device: str) -> Groups:
    """The case's inputs by the reference generator: on the GPU for "cuda", else on the CPU."""
    with _GENERATING:
        data: Groups = reference.generate_input(
            **case.arguments(), device="cuda" if device == "cuda" else "cpu"
        )
    return data


def poison_word() -> int:
    """A float16 NaN with a random payload: what outputs hold before the call."""
    return 0x7E00 | random.SystemRandom().randrange(1, 0x200)


class Truth:
    """The exactly rounded results for one input, computed once when first needed."""

    def __init__(self, data: Groups) -> None:
        self.data = data
        self._expected: list[torch.Tensor] | None = None

    def expected(self) -> list[torch.Tensor]:
        """One float16 tensor per group, in host memory."""
        if self._expected is None:
            self._expected = [tensor.cpu() for tensor in reference.ref_kernel(self.data)]  # type: ignore[attr-defined]
        return self._expected


def check(
    data: Groups,
    arena: Arena,
    ran: Ran,
    poison: int,
    device: str,
    truth: Truth | None = None,
    inputs: bool = True,
) -> Checked:
    """All checks of one run: structure, inputs unchanged (unless `inputs` is false), every element.

    `data` are the judge's own inputs; the outputs are copied out of the arena before anything looks at them.
    """
    wrong = structure_problem(ran, arena, data, device)
    if wrong:
        return Checked(Verdict(Status.BAD_OUTPUT, wrong))
    outputs = [snapshot(output, arena) for output in ran.outputs]
    changed = arena.changed(data) if inputs else []
    checked = check_values(truth or Truth(data), outputs, poison)
    if changed and checked.verdict.passed:
        names = ", ".join(changed[:6]) + (" ..." if len(changed) > 6 else "")
        return Checked(Verdict(Status.INPUT_CHANGED, f"custom_kernel changed its input {names}"))
    return checked


def structure_problem(ran: Ran, arena: Arena, data: Groups, device: str) -> str:
    """What is wrong with the structure of what came back; "" if nothing is."""
    if ran.container not in _CONTAINERS:
        return f"custom_kernel returned {_article(ran.container)}, expected a list of {len(data[3])} tensors"
    if len(ran.outputs) != len(data[3]):
        return f"custom_kernel returned {len(ran.outputs)} outputs for {len(data[3])} groups"
    taken: list[tuple[int, int, int]] = []
    for group, output in enumerate(ran.outputs):
        problem = _output_problem(group, output, arena, data, device) or _overlap(group, output, taken)
        if problem:
            return problem
        taken.append((output.offset, output.offset + output.nbytes, group))
    return ""


def _output_problem(group: int, output: Output, arena: Arena, data: Groups, device: str) -> str:
    expected = data[0][group][2]
    name = f"output {group}"
    if not output.is_tensor:
        return f"{name} is {_article(output.type)}, expected a torch.Tensor"
    if output.dtype != "float16":
        return f"{name} has dtype {output.dtype}, expected float16"
    if output.shape != tuple(expected.shape):
        return f"{name} has shape {list(output.shape)}, expected {list(expected.shape)}"
    if device == "cuda" and not output.device.startswith("cuda"):
        return f"{name} is on {output.device}, expected the GPU"
    if output.alias is not None:
        index, offset = output.alias
        if index >= len(arena.placed):
            return f"{name} is said to lie in an input that does not exist"
        placed = arena.placed[index]
        if placed.role != "c":
            return f"{name} lies in the memory of the input {placed.name}"
        if placed.group != group or offset != 0:
            return f"{name} lies in the memory of {placed.name}, at byte {offset}; its own is c[{group}]"
    if output.nbytes == 0 and output.offset == 0:
        return f"{name} does not fit the space for results: its strides are {list(output.stride)}"
    if (
        output.nbytes != span_bytes(output.shape, output.stride, 2)
        or output.offset + output.nbytes > arena.size
    ):
        return (
            f"{name} is said to occupy {output.nbytes} bytes at {output.offset}, which its layout contradicts"
        )
    if len(output.shape) and any(s == 0 for s, n in zip(output.stride, output.shape, strict=True) if n > 1):
        return f"{name} is a broadcast view, strides {list(output.stride)}"
    return ""


def _overlap(group: int, output: Output, taken: list[tuple[int, int, int]]) -> str:
    for start, end, other in taken:
        if output.offset < end and start < output.offset + output.nbytes:
            return f"output {group} shares memory with output {other}"
    return ""


def snapshot(output: Output, arena: Arena) -> torch.Tensor:
    """A private tensor with the layout and the bytes of a returned one."""
    raw = arena.read(output.offset, output.nbytes)
    return tensor_over(raw, dtype_named(output.dtype), output.shape, output.stride)


def check_values(truth: Truth, outputs: list[torch.Tensor], poison: int) -> Checked:
    """Every element against the exactly rounded product, then the official tolerance if any bit differs."""
    expected = truth.expected()
    elements = sum(want.numel() for want in expected)
    inexact = sum(int((got != want).sum()) for got, want in zip(outputs, expected, strict=True))
    if inexact == 0:
        return Checked(Verdict(Status.PASS), elements, 0)
    good, message = reference.check_implementation(on_host(truth.data), outputs)  # type: ignore[type-var]
    if good:
        return Checked(Verdict(Status.PASS, message), elements, inexact)
    text = "\n".join(part for part in (_never_written(outputs, poison), message) if part)
    return Checked(Verdict(Status.WRONG_RESULT, text.partition("\n")[0], text), elements, inexact)


def on_host(data: Groups) -> Groups:
    """The same tensors in host memory."""
    abc, scales, reordered, sizes = data
    return (
        [(a.cpu(), b.cpu(), c.cpu()) for a, b, c in abc],
        [(x.cpu(), y.cpu()) for x, y in scales],
        [(x.cpu(), y.cpu()) for x, y in reordered],
        sizes,
    )


def _never_written(outputs: list[torch.Tensor], poison: int) -> str:
    """Which groups still hold the pattern that filled the outputs before the call."""
    parts = []
    for group, output in enumerate(outputs):
        untouched = output.view(torch.int16) == np.uint16(poison).astype(np.int16).item()
        count = int(untouched.sum())
        if count == output.numel():
            parts.append(f"group {group} was never written")
        elif count:
            parts.append(f"group {group}: {count} of {output.numel()} elements were never written")
    return "; ".join(parts)


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
