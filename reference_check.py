"""Is an output right? Structure first, then every element, then an explanation of what is wrong.

`check_structure` needs the very objects a submission returned (types, addresses); `check_values` only needs
their numbers, so an evaluator may run it in another process on copied bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from reference_causes import Group, find_cause
from reference_exact import absolute_gemm, exact_gemm, float32_sums_are_exact, round_to_float16
from reference_regions import describe_region
from task import input_t, output_t

RTOL = ATOL = 1e-3  # the official tolerance: |got - expected| <= ATOL + RTOL * |expected|
_GROUPS_SHOWN = 4


@dataclass(frozen=True)
class Truth:
    """The right result of one group, float16 (m, n, l) in the layout of its c.

    `low` and `high` enclose what float32 accumulation may give before the official tolerance is added. They
    are `result` itself where every float32 sum is exact (`owes_bits`, all official inputs): there a kernel
    that accumulates in float32 owes the result bit for bit.
    """

    result: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    owes_bits: bool


@dataclass(frozen=True)
class Report:
    """Outcome of a check. `problems` is empty if and only if the output passes."""

    problems: tuple[str, ...]
    elements: int = 0
    wrong: int = 0  # elements outside the tolerance
    not_bit_exact: int = 0  # elements other than the correctly rounded result; zeros of either sign are equal

    @property
    def passed(self) -> bool:
        return not self.problems

    @property
    def message(self) -> str:
        """One line: the problems; for a passing output how many elements are not bit-exact, if any."""
        if self.problems:
            return " | ".join(self.problems)
        if self.not_bit_exact:
            return f"{self.not_bit_exact} of {self.elements} elements within tolerance but not bit-exact"
        return ""


def ground_truth(data: input_t) -> list[Truth]:
    """Exact results of all groups; nothing in `data` is touched.

    Where float32 sums may round, a kernel is allowed one float32 rounding or truncation (2**-23) of a partial
    sum, itself at most sum |a||b|, for every 16 products. The tensor core rounds once per 64.
    """
    abc, sfasfb, _, _ = data
    truths = []
    for (a, b, c), (sfa, sfb) in zip(abc, sfasfb, strict=True):
        result, low, high = (
            torch.empty_strided(c.size(), c.stride(), dtype=torch.float16, device=c.device) for _ in range(3)
        )
        k = a.shape[1] * 2
        owes_bits = float32_sums_are_exact(k, sfa, sfb)
        for batch in range(c.shape[2]):
            operands = (a[:, :, batch], sfa[:, :, batch], b[:, :, batch], sfb[:, :, batch])
            exact = exact_gemm(*operands)
            result[:, :, batch] = round_to_float16(exact)
            if not owes_bits:
                room = absolute_gemm(*operands) * (k / 16 * 2.0**-23)
                low[:, :, batch] = round_to_float16(exact - room)
                high[:, :, batch] = round_to_float16(exact + room)
        truths.append(Truth(result, result, result, True) if owes_bits else Truth(result, low, high, False))
    return truths


# ------------------------------------------------------------------------------ structure


def check_structure(data: input_t, output: Any) -> list[str]:
    """Everything about the returned objects except their numbers; an empty list if all is well.

    One plain torch.Tensor per group with the dtype, shape, stride and device of that group's c, sharing no
    memory with an input or another output; the group's own c is welcome.
    """
    abc, sfasfb, reordered, _ = data
    if type(output) not in (list, tuple):
        return [f"returned {_type_name(output)}, expected a list with one tensor per group"]
    if len(output) != len(abc):
        return [f"returned {len(output)} tensors, expected {len(abc)}: one per group"]
    problems = []
    for group, (got, (_, _, c)) in enumerate(zip(output, abc, strict=True)):
        problem = _tensor_problem(got, c)
        if problem:
            problems.append(f"group {group}: {problem}")
    if problems:
        return problems
    owners: list[tuple[str, torch.Tensor]] = []
    for group, ((a, b, c), scales, blocked) in enumerate(zip(abc, sfasfb, reordered, strict=True)):
        names = ("a", "b", "c", "sfa", "sfb", "reordered sfa", "reordered sfb")
        tensors = (a, b, c, *scales, *blocked)
        owners += [(f"{name} of group {group}", t) for name, t in zip(names, tensors, strict=True)]
    for group, got in enumerate(output):
        own_c = abc[group][2]
        for name, other in owners:
            if other is own_c and got.data_ptr() == own_c.data_ptr():
                continue
            if _overlap(got, other):
                problems.append(f"group {group}: output shares memory with {name}")
        for earlier in range(group):
            if _overlap(got, output[earlier]):
                problems.append(f"group {group}: output shares memory with the output of group {earlier}")
    return problems


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _tensor_problem(got: object, c: torch.Tensor) -> str:
    if type(got) is not torch.Tensor:
        return f"got {_type_name(got)}, expected a torch.Tensor (no subclass)"
    shadowed = sorted(name for name in vars(got) if hasattr(torch.Tensor, name))
    if shadowed:
        return f"the tensor carries attributes of its own that hide torch.Tensor's: {', '.join(shadowed)}"
    if got.layout != torch.strided:
        return f"got layout {got.layout}, expected torch.strided"
    if got.dtype != c.dtype:
        return f"got dtype {got.dtype}, expected {c.dtype}"
    if got.shape != c.shape:
        return f"got shape {tuple(got.shape)}, expected {tuple(c.shape)}"
    if got.device != c.device:
        return f"got a tensor on {got.device}, expected {c.device}"
    steps = zip(got.shape, got.stride(), c.stride(), strict=True)
    if any(size > 1 and step != wanted for size, step, wanted in steps):
        return f"got strides {got.stride()}, expected {c.stride()} as c has"
    return ""


def _overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.device != other.device:
        return False
    first, first_end = _extent(one)
    second, second_end = _extent(other)
    return first < second_end and second < first_end


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


# ------------------------------------------------------------------------------ values


def check_values(
    data: input_t,
    output: output_t,
    truths: Sequence[Truth] | None = None,
    *,
    poison_bits: int | None = None,
) -> Report:
    """Compare every element; `output` must have passed `check_structure`.

    `truths` are `ground_truth(data)` if already known. `poison_bits` is the float16 pattern with which the
    outputs were filled before the run, if they were; it sharpens the messages, not the verdict.
    """
    truths = ground_truth(data) if truths is None else truths
    masks = [_wrong(got, truth) for got, truth in zip(output, truths, strict=True)]
    bad = [group for group, mask in enumerate(masks) if bool(mask.any())]
    problems = []
    if bad:
        groups = _gather(data, output, truths, masks)
        problems = [_explain(data, groups, group, poison_bits) for group in bad[:_GROUPS_SHOWN]]
        if len(bad) > _GROUPS_SHOWN:
            problems.append(f"groups {', '.join(map(str, bad[_GROUPS_SHOWN:]))} are wrong too")
    return Report(
        problems=tuple(problems),
        elements=sum(got.numel() for got in output),
        wrong=sum(int(mask.sum()) for mask in masks),
        not_bit_exact=count_not_bit_exact(output, [truth.result for truth in truths]),
    )


def count_not_bit_exact(output: output_t, expected: output_t) -> int:
    """Elements that differ from `expected`. Zeros of either sign are equal: the sign of a zero sum depends
    on the order of summation."""
    return sum(int(_differs(got, want).sum()) for got, want in zip(output, expected, strict=True))


def _differs(got: torch.Tensor, want: torch.Tensor) -> torch.Tensor:
    """bool: elements that are not equal. Equal bits, the usual case, are quickest to establish."""
    if torch.equal(got.view(torch.int16), want.view(torch.int16)):
        return torch.zeros_like(got, dtype=torch.bool)
    return got != want


def _wrong(got: torch.Tensor, truth: Truth) -> torch.Tensor:
    """bool (m, n, l): NaN, infinite where finite is due, or further outside [low, high] than allowed."""
    differs = _differs(got, truth.result)
    if not bool(differs.any()):
        return differs
    value, low, high = got.float(), truth.low.float(), truth.high.float()
    above = value >= low - (ATOL + RTOL * low.abs())  # an infinite bound gives inf or NaN: see `same`
    below = value <= high + (ATOL + RTOL * high.abs())
    same = (value == low) | (value == high)
    return ~((above & below) | same)


def _gather(
    data: input_t, output: output_t, truths: Sequence[Truth], masks: Sequence[torch.Tensor]
) -> list[Group]:
    """Everything the explanation needs, of batch entry 0, as numpy arrays."""
    abc, _, reordered, _ = data
    groups = []
    for (a, b, c), (sfa, sfb), got, truth, mask in zip(abc, reordered, output, truths, masks, strict=True):
        untouched = got.data_ptr() != c.data_ptr()
        groups.append(
            Group(
                a=a[:, :, 0].view(torch.uint8).cpu().numpy(),
                b=b[:, :, 0].view(torch.uint8).cpu().numpy(),
                sfa=_plain_scales(sfa),
                sfb=_plain_scales(sfb),
                c=c[:, :, 0].cpu().numpy() if untouched else None,
                got=got[:, :, 0].cpu().numpy(),
                expected=truth.result[:, :, 0].cpu().numpy(),
                wrong=mask[:, :, 0].cpu().numpy(),
            )
        )
    return groups


def _plain_scales(reordered: torch.Tensor) -> np.ndarray:
    """float64 (128*rest_rows, 4*rest_k): reordered scales of batch entry 0, with padding, in plain order."""
    _, _, rest_rows, _, rest_k, _ = reordered.shape
    # (32, 4, rest_rows, 4, rest_k) -> (rest_rows, 4, 32, rest_k, 4)
    plain = reordered[..., 0].view(torch.uint8).permute(2, 1, 0, 4, 3).reshape(rest_rows * 128, rest_k * 4)
    return plain.contiguous().view(torch.float8_e4m3fn).double().cpu().numpy()


def _explain(data: input_t, groups: Sequence[Group], index: int, poison_bits: int | None) -> str:
    """Group, count, first element, region, cause."""
    group = groups[index]
    m, n, k, _ = data[3][index]
    count = int(np.count_nonzero(group.wrong))
    parts = [f"group {index} (m={m}, n={n}, k={k}): {count} of {m * n} elements wrong"]
    if count:  # no wrong element in batch entry 0 otherwise
        i, j = np.argwhere(group.wrong)[0]
        parts.append(f"first at [{i}, {j}, 0]: got {group.got[i, j]}, expected {group.expected[i, j]}")
        cause = find_cause(groups, index, poison_bits)
        parts.append(describe_region(group.wrong, guess=cause is None or cause.unwritten))
        parts += [cause.text] if cause else []
    return "; ".join(parts)
