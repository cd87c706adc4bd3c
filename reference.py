"""The problem under its official names: `generate_input`, `ref_kernel`, `check_implementation`.

Works alone in a flat directory with task.py and the other reference_*.py, as the official runner lays it out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from reference_check import check_structure, check_values, ground_truth
from reference_inputs import check_sizes, draw_reordered, draw_scales, draw_values
from task import input_t, output_t

__all__ = ["check_implementation", "generate_input", "ref_kernel", "second_opinion"]


def generate_input(
    m: Sequence[int],
    n: Sequence[int],
    k: Sequence[int],
    g: int,
    seed: int,
    *,
    device: str | torch.device | None = None,
    distribution: str = "official",
) -> input_t:
    """The official 4-tuple (abc, sfasfb, sfasfb_reordered, problem_sizes) for g groups; shapes in task.py.

    On CUDA the same torch generators are asked for the same draws in the same order as by the official
    generator, so that equal seeds give equal tensors, padding included. On the CPU the order and the
    distributions are the same, the numbers are not: all come from the one CPU generator.

    `device` defaults to "cuda" where there is one, else "cpu". `distribution` is one of
    `reference_inputs.DISTRIBUTIONS`. m is any size, n a multiple of 8, k a multiple of 64; else ValueError.
    """
    check_sizes(m, n, k, g, distribution)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.manual_seed(seed)
    abc, sfasfb, reordered, sizes = [], [], [], []
    for mi, ni, ki in zip(m, n, k, strict=True):
        a = draw_values(mi, ki, distribution, target)
        b = draw_values(ni, ki, distribution, target)
        c = torch.randn((1, mi, ni), dtype=torch.float16, device=target).permute(1, 2, 0)
        sfa = draw_scales(mi, ki, distribution)
        sfb = draw_scales(ni, ki, distribution)
        abc.append((a, b, c))
        sfasfb.append((sfa, sfb))
        reordered.append(
            (draw_reordered(sfa, distribution, target), draw_reordered(sfb, distribution, target))
        )
        sizes.append((mi, ni, ki, 1))
    return abc, sfasfb, reordered, sizes


def ref_kernel(data: input_t) -> output_t:
    """Exact ground truth: for every group A @ B.T without any rounding, then rounded once to float16.

    Returns new tensors with the shape, strides and device of each c; nothing in `data` is touched. Why the
    sums are exact for the official and for the full value range: `reference_exact.exact_gemm`. Results of
    magnitude 65520 and more are infinite, as in any float16 conversion to nearest.
    """
    return [truth.result for truth in ground_truth(data)]


def check_implementation(data: input_t, output: output_t) -> tuple[bool, str]:
    """(True, remark) if `output` is right for `data`, else (False, what is wrong), in one line.

    The official tolerance, rtol = atol = 1e-3, and what the official check leaves open: number and exact type
    of the outputs, dtype, shape, stride, device, shared memory, NaN. A message names group, index, got,
    expected and the pattern of the error. The remark says how many elements are not bit-exact; it is empty
    when all are.
    """
    problems = check_structure(data, output)
    if problems:
        return False, " | ".join(problems)
    report = check_values(data, output)
    return report.passed, report.message


def second_opinion(data: input_t) -> output_t | None:
    """The groups through cuBLAS (`torch._scaled_mm`), or None where no GPU here multiplies NVFP4.

    Never the only judge: it reads the reordered scales, so it also checks their layout.
    """
    abc, _, reordered, _ = data
    device = abc[0][0].device
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] < 10:
        return None
    results = []
    for (a, b, c), (sfa, sfb) in zip(abc, reordered, strict=True):
        result = torch.empty_strided(c.size(), c.stride(), dtype=torch.float16, device=device)
        for batch in range(c.shape[2]):
            # (32, 4, rest, 4, rest_k) back to the order of memory, (rest, rest_k, 32, 4, 4)
            blocks = [sf[..., batch].permute(2, 4, 0, 1, 3).contiguous().flatten() for sf in (sfa, sfb)]
            result[:, :, batch] = torch._scaled_mm(
                a[:, :, batch], b[:, :, batch].t(), blocks[0], blocks[1], out_dtype=torch.float16
            )
        results.append(result)
    return results
