"""The problem under its official names: `generate_input`, `ref_kernel`, `check_implementation`.

Works alone in a flat directory with task.py and the other reference_*.py, as the official runner lays it out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from reference_exact import exact_gemm, round_to_float16
from reference_inputs import check_sizes, draw_reordered, draw_scales, draw_values
from task import input_t, output_t

__all__ = ["check_implementation", "generate_input", "ref_kernel"]


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
    abc, sfasfb, _, _ = data
    results = []
    for (a, b, c), (sfa, sfb) in zip(abc, sfasfb, strict=True):
        result = torch.empty_strided(c.size(), c.stride(), dtype=torch.float16, device=c.device)
        for batch in range(c.shape[2]):
            operands = (a[:, :, batch], sfa[:, :, batch], b[:, :, batch], sfb[:, :, batch])
            result[:, :, batch] = round_to_float16(exact_gemm(*operands))
        results.append(result)
    return results


def check_implementation(data: input_t, output: output_t) -> tuple[bool, str]:
    """(True, "") if `output` is right for `data`, else (False, what is wrong)."""
    expected = ref_kernel(data)
    if len(output) != len(expected):
        return False, f"got {len(output)} outputs, expected {len(expected)}"
    for group, (got, want) in enumerate(zip(output, expected, strict=True)):
        if not torch.allclose(got, want, rtol=1e-3, atol=1e-3):
            return False, f"group {group} differs"
    return True, ""
