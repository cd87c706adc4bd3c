"""Types of the nvfp4_group_gemm problem, under the names of the official task folder."""

from typing import TypeAlias, TypedDict

import torch

# (abc, sfasfb, sfasfb_reordered, problem_sizes), one entry per group in each of the four lists:
#   abc              (a, b, c): float4_e2m1fn_x2 (m, k/2, l), float4_e2m1fn_x2 (n, k/2, l), float16 (m, n, l)
#   sfasfb           (sfa, sfb): float8_e4m3fn (m, k/16, l) and (n, k/16, l), row-major, on the CPU
#   sfasfb_reordered the same scales, (32, 4, ceil(m/128), 4, ceil(k/64), l), in the 128x4 blocked layout
#   problem_sizes    (m, n, k, l) with l == 1
input_t: TypeAlias = tuple[
    list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    list[tuple[torch.Tensor, torch.Tensor]],
    list[tuple[torch.Tensor, torch.Tensor]],
    list[tuple[int, int, int, int]],
]

# One float16 tensor (m, n, l) per group.
output_t: TypeAlias = list[torch.Tensor]


class TestSpec(TypedDict):
    """One case: the sizes of its groups and the seed of its inputs."""

    problem_sizes: list[tuple[int, int, int, int]]
    seed: int
