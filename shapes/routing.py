"""How many tokens each expert of a mixture-of-experts layer gets: the law behind the m of models.yml.

    python shapes/routing.py --experts 256 --top-k 8 --tokens 1024 --seed 7 --shown 4

Law "lognormal": expert e has popularity exp(skew * z_e) with z_e standard normal. Every token draws top_k
distinct experts, each in proportion to popularity among those left (the Gumbel top-k trick). Real routers are
uneven in this manner; the skew of a real layer has to be measured, 0.5 is an assumption.

Of the experts that got a token, `shown` become groups: those at evenly spaced places of the list sorted by
load, from the least to the most loaded, in the order of their numbers.
"""

from __future__ import annotations

import argparse

import numpy as np


def expert_loads(experts: int, top_k: int, tokens: int, seed: int, skew: float) -> np.ndarray:
    """int (experts,): tokens routed to each expert. Sums to tokens * top_k."""
    # Only uniform draws, of which numpy promises that they stay the same for a seed.
    uniform = np.random.Generator(np.random.PCG64(seed)).random
    radius, angle = np.sqrt(-2 * np.log1p(-uniform(experts))), 2 * np.pi * uniform(experts)
    logits = skew * radius * np.cos(angle)
    gumbel = -np.log(-np.log1p(-uniform((tokens, experts))))
    keys = logits + gumbel
    chosen = np.argpartition(-keys, top_k - 1, axis=1)[:, :top_k]
    return np.bincount(chosen.reshape(-1), minlength=experts)


def shown_experts(loads: np.ndarray, shown: int) -> list[int]:
    """Numbers of `shown` experts with at least one token, spread evenly over the order of load."""
    active = np.flatnonzero(loads)
    by_load = active[np.argsort(loads[active], kind="stable")]
    places = np.round(np.linspace(0, len(by_load) - 1, shown)).astype(int)
    return sorted(by_load[places].tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("experts", "top-k", "tokens", "seed", "shown"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--skew", type=float, default=0.5)
    options = parser.parse_args()
    loads = expert_loads(options.experts, options.top_k, options.tokens, options.seed, options.skew)
    groups = shown_experts(loads, options.shown)
    print(f"experts: {groups}")
    print(f"m: {loads[groups].tolist()}")
    print(f"least {loads.min()}, median {np.median(loads):g}, most {loads.max()} of all {options.experts}")


if __name__ == "__main__":
    main()
