"""Cases nobody announced: sizes, values and scales are drawn when the run starts.

They follow the task's divisibility rules (any m, n a multiple of 128, k of 256), so that a submission that
computes the product passes, and one that knows the listed cases only does not.
"""

from __future__ import annotations

from evaluator.cases import Case
from evaluator.seeds import Seeds

_DISTRIBUTIONS = ("official", "full", "nan_padding")


def draw(seeds: Seeds, device: str, count: int) -> tuple[Case, ...]:
    """`count` cases; small ones where a call is simulated."""
    return tuple(_one(seeds, index, device != "cuda") for index in range(count))


def _one(seeds: Seeds, index: int, small: bool) -> Case:
    choose = seeds.choices("held-out", index)
    groups = choose.randint(1, 3 if small else 9)
    most_n, most_k = (3, 2) if small else (32, 16)
    return Case(
        name=f"held-out {index}",
        m=tuple(choose.randint(1, 160 if small else 500) for _ in range(groups)),
        n=tuple(128 * choose.randint(1, most_n) for _ in range(groups)),
        k=tuple(256 * choose.randint(1, most_k) for _ in range(groups)),
        g=groups,
        seed=seeds.draw("held-out inputs", index),
        distribution=_DISTRIBUTIONS[index % len(_DISTRIBUTIONS)],  # type: ignore[arg-type]
        why="not announced",
    )
