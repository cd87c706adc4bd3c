"""The one place where the evaluator touches the problem: inputs, ground truth, checks (judge side)."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass

import torch

import reference
import reference_check
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
    """The right results for one input, computed once when first needed."""

    def __init__(self, data: Groups) -> None:
        self.data = on_host(data)
        self._groups: list[reference_check.Truth] | None = None

    def groups(self) -> list[reference_check.Truth]:
        """One per group, in host memory."""
        if self._groups is None:
            self._groups = reference_check.ground_truth(self.data)  # type: ignore[type-var]
        return self._groups


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
    steps = zip(output.shape, output.stride, expected.stride(), strict=True)
    if any(step != wanted for size, step, wanted in steps if size > 1):
        return f"{name} has strides {list(output.stride)}, expected {list(expected.stride())} as c has"
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
    """Every element against the exactly rounded product, within the official tolerance."""
    report = reference_check.check_values(truth.data, outputs, truth.groups(), poison_bits=poison)  # type: ignore[type-var]
    if report.passed:
        return Checked(Verdict(Status.PASS, report.message), report.elements, report.not_bit_exact)
    verdict = Verdict(Status.WRONG_RESULT, report.problems[0], "\n".join(report.problems[1:]))
    return Checked(verdict, report.elements, report.not_bit_exact)


def on_host(data: Groups) -> Groups:
    """The same tensors in host memory."""
    abc, scales, reordered, sizes = data
    return (
        [(a.cpu(), b.cpu(), c.cpu()) for a, b, c in abc],
        [(x.cpu(), y.cpu()) for x, y in scales],
        [(x.cpu(), y.cpu()) for x, y in reordered],
        sizes,
    )


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
