"""The one place where the evaluator touches the problem: inputs, ground truth, checks (judge side)."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

import reference
import reference_check
from evaluator import conduct
from evaluator.arena import Arena, Groups, dtype_named, span_bytes, tensor_over
from evaluator.cases import Case
from evaluator.messages import Output, Ran
from evaluator.reasons import Reason
from evaluator.verdict import Status, Verdict, unfair

#: The generator seeds torch's global state: one case is generated at a time.
_GENERATING = threading.Lock()
_CONTAINERS = ("list", "tuple")
_MOST_SIDE_BY_SIDE = 8  # truths; the largest official one takes half a GB of the host's memory


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


def alter(data: Groups, choices: random.Random) -> None:
    """Change one byte of one A, both values in it by a half, in place. (Of one only: a submission that looks
    at samples of its inputs must not be lucky in any.)"""
    a, _, _ = choices.choice(data[0])
    codes = a.view(torch.uint8)
    row, pair = choices.randrange(codes.shape[0]), choices.randrange(codes.shape[1])
    codes[row, pair, 0] ^= 0x11


def poison_word(choices: random.Random | None = None) -> int:
    """A float16 NaN with a random payload: what outputs hold before the call."""
    return 0x7E00 | (choices or random.SystemRandom()).randrange(1, 0x200)


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


def side_by_side(inputs: Sequence[Groups], tell: Callable[[int], None] = lambda done: None) -> list[Truth]:
    """The truths of several inputs, all computed: seconds of one core each in a large case. `tell` is called
    with how many are there. To be done while nothing is timed."""
    truths = [Truth(data) for data in inputs]
    threads = min(_MOST_SIDE_BY_SIDE, len(os.sched_getaffinity(0)), len(truths))
    pool = ThreadPoolExecutor(max(1, threads))
    try:
        for done, _ in enumerate(pool.map(Truth.groups, truths), 1):
            tell(done)
    finally:
        pool.shutdown(cancel_futures=True)
    return truths


@dataclass(frozen=True)
class Past:
    """Contents that an input held earlier, and what it means if their product comes back."""

    because: Reason
    truth: Truth
    when: str


def check(
    data: Groups,
    arena: Arena,
    ran: Ran,
    poison: int,
    device: str,
    truth: Truth | None = None,
    inputs: bool = True,
    past: Sequence[Past] = (),
) -> Checked:
    """All checks of one call: conduct, structure, every element, what became of it, inputs unchanged.

    `data` are the judge's own inputs; the outputs are copied out of the arena before anything looks at them.
    What counts is what the outputs held when custom_kernel returned. `inputs` false: do not compare inputs.
    """
    foul = conduct.patched(ran.conduct)
    if foul:
        return Checked(foul)
    wrong = structure_problem(ran, arena, data, device)
    if wrong:
        return Checked(Verdict(Status.BAD_OUTPUT, wrong[1], because=wrong[0]))
    outputs = [snapshot(output, arena) for output in ran.outputs]
    changed = arena.changed(data) if inputs else []
    known = truth or Truth(data)
    checked = check_values(known, outputs, poison)
    moved = [
        index
        for index, (output, then) in enumerate(zip(ran.outputs, outputs, strict=True))
        if output.settled != output.offset and not same_bits(then, snapshot(output, arena, settled=True))
    ]
    foul = conduct.unfinished(ran.conduct, moved)
    if foul is None and not checked.verdict.passed:
        foul = _replayed(outputs, known, past)
    if foul:
        return Checked(foul, checked.elements, checked.inexact)
    if changed:
        names = ", ".join(changed[:6]) + (" ..." if len(changed) > 6 else "")
        said = f"custom_kernel changed its input {names}"
        if not checked.verdict.passed:
            said += f"; its result is wrong as well: {checked.verdict.message}"
        return Checked(Verdict(Status.INPUT_CHANGED, said, checked.verdict.detail), checked.elements)
    return checked


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.view(torch.int16), other.view(torch.int16))


def _replayed(outputs: list[torch.Tensor], known: Truth, past: Sequence[Past]) -> Verdict | None:
    """Whether wrong outputs are right for contents that the inputs held earlier."""
    for earlier in past:
        for group, (got, then, now) in enumerate(
            zip(outputs, earlier.truth.groups(), known.groups(), strict=True)
        ):
            if same_bits(got, then.result) and not same_bits(then.result, now.result):
                return unfair(
                    earlier.because, f"output {group} is the product of what its inputs held {earlier.when}"
                )
    return None


def structure_problem(ran: Ran, arena: Arena, data: Groups, device: str) -> tuple[Reason, str] | None:
    """What is wrong with the structure of what came back; None if nothing is."""
    if ran.container not in _CONTAINERS:
        said = f"custom_kernel returned {_article(ran.container)}, expected a list of {len(data[3])} tensors"
        return Reason.TYPE, said
    if len(ran.outputs) != len(data[3]):
        said = f"custom_kernel returned {len(ran.outputs)} outputs for {len(data[3])} groups"
        return Reason.COUNT, said
    taken: list[tuple[int, int, int]] = []
    for group, output in enumerate(ran.outputs):
        problem = _output_problem(group, output, arena, data, device)
        overlap = _overlap(group, output, taken) if problem is None else ""
        if overlap:
            return Reason.ALIAS, overlap
        if problem:
            return problem
        taken.append((output.settled, output.settled + output.nbytes, group))
    return None


def _output_problem(
    group: int, output: Output, arena: Arena, data: Groups, device: str
) -> tuple[Reason, str] | None:
    expected = data[0][group][2]
    name = f"output {group}"
    if not output.is_tensor:
        return Reason.TYPE, f"{name} is {_article(output.type)}, expected a torch.Tensor"
    if output.dtype != "float16":
        return Reason.LAYOUT, f"{name} has dtype {output.dtype}, expected float16"
    if output.shape != tuple(expected.shape):
        return Reason.LAYOUT, f"{name} has shape {list(output.shape)}, expected {list(expected.shape)}"
    if device == "cuda" and not output.device.startswith("cuda"):
        return Reason.LAYOUT, f"{name} is on {output.device}, expected the GPU"
    aliased = _alias_problem(group, output, arena)
    if aliased:
        return Reason.ALIAS, aliased
    if output.nbytes == 0 and output.offset == 0:
        return (
            Reason.LAYOUT,
            f"{name} does not fit the space for results: its strides are {list(output.stride)}",
        )
    ends = max(output.offset, output.settled) + output.nbytes
    if output.nbytes != span_bytes(output.shape, output.stride, 2) or ends > arena.size:
        said = (
            f"{name} is said to occupy {output.nbytes} bytes at {output.offset}, which its layout contradicts"
        )
        return Reason.LAYOUT, said
    steps = zip(output.shape, output.stride, expected.stride(), strict=True)
    if any(step != wanted for size, step, wanted in steps if size > 1):
        said = f"{name} has strides {list(output.stride)}, expected {list(expected.stride())} as c has"
        return Reason.LAYOUT, said
    return None


def _alias_problem(group: int, output: Output, arena: Arena) -> str:
    if output.alias is None:
        return ""
    index, offset = output.alias
    if index >= len(arena.placed):
        return f"output {group} is said to lie in an input that does not exist"
    placed = arena.placed[index]
    if placed.role != "c":
        return f"output {group} lies in the memory of the input {placed.name}"
    if placed.group != group or offset != 0:
        return f"output {group} lies in the memory of {placed.name}, at byte {offset}; its own is c[{group}]"
    return ""


def _overlap(group: int, output: Output, taken: list[tuple[int, int, int]]) -> str:
    for start, end, other in taken:
        if output.settled < end and start < output.settled + output.nbytes:
            return f"output {group} shares memory with output {other}"
    return ""


def snapshot(output: Output, arena: Arena, settled: bool = False) -> torch.Tensor:
    """A private tensor with the layout and bytes of a returned one: as returned, or as it settled."""
    raw = arena.read(output.settled if settled else output.offset, output.nbytes)
    return tensor_over(raw, dtype_named(output.dtype), output.shape, output.stride)


def check_values(truth: Truth, outputs: list[torch.Tensor], poison: int) -> Checked:
    """Every element against the exactly rounded product, within the official tolerance."""
    report = reference_check.check_values(truth.data, outputs, truth.groups(), poison_bits=poison)  # type: ignore[type-var]
    if report.passed:
        return Checked(Verdict(Status.PASS, report.message), report.elements, report.not_bit_exact)
    because = _kind_of_wrong(outputs, truth, poison)
    verdict = Verdict(Status.WRONG_RESULT, report.problems[0], "\n".join(report.problems[1:]), because)
    return Checked(verdict, report.elements, report.not_bit_exact)


def _kind_of_wrong(outputs: list[torch.Tensor], truth: Truth, poison: int) -> Reason:
    """Poison that is still there, NaN or infinity where neither is right, or just other numbers."""
    if any(bool((got.view(torch.int16) == poison).any()) for got in outputs):
        return Reason.NOT_WRITTEN
    for got, want in zip(outputs, truth.groups(), strict=True):
        if bool((~torch.isfinite(got) & torch.isfinite(want.result)).any()):
            return Reason.NONFINITE
    return Reason.WRONG_RESULT


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


def on_device(device: Any, data: Any) -> Any:
    """The 4-tuple with its tensors in the memory of `device`, a `SimulatedDevice`; the plain scales stay.
    Kernels may write to c alone.

    Faults name the tensors `a[0]`, `b[0]`, `c[0]`, `sfa[0]`, `sfb[0]` and so on.
    """
    abc, plain, scales, sizes = data

    def move(names: str, groups: Any) -> list[tuple[Any, ...]]:
        return [
            tuple(
                device.to_device(f"{name}[{g}]", tensor, writable=name == "c")
                for name, tensor in zip(names.split(), tensors, strict=True)
            )
            for g, tensors in enumerate(groups)
        ]

    return move("a b c", abc), plain, move("sfa sfb", scales), sizes
