"""Lower bounds on a case's time on a B200, and the traffic and arithmetic that they stand on.

The official targets of the benchmark shapes are data (task.yml). For other shapes the same model is applied:
the larger of compulsory traffic over DRAM bandwidth and FLOPs over the tensor cores' rate at 1.5 GHz.
"""

from __future__ import annotations

from dataclasses import dataclass

from evaluator.cases import Case

#: Bandwidth that reproduces the four official targets within 0.1 %.
DRAM_BYTES_PER_S = 7.68e12
#: 148 SMs × 32768 dense FP4 FLOP per cycle × 1.5 GHz, the clock that the task's text names.
FP4_FLOP_PER_S = 148 * 32768 * 1.5e9


@dataclass(frozen=True)
class Floor:
    """A bound in microseconds and where it comes from: "official" or "model"."""

    microseconds: float
    source: str


def compulsory_bytes(case: Case) -> int:
    """Bytes that must cross DRAM once: A, B, their scales (one byte per 16 values), and C in float16."""
    total = 0
    for m, n, k in zip(case.m, case.n, case.k, strict=True):
        total += (m + n) * (k // 2 + k // 16) + 2 * m * n
    return total


def compulsory_loads(case: Case) -> int:
    """The part of `compulsory_bytes` that is read."""
    return compulsory_bytes(case) - 2 * sum(m * n for m, n in zip(case.m, case.n, strict=True))


def flops(case: Case) -> int:
    """Multiplications and additions of the products themselves."""
    return 2 * sum(m * n * k for m, n, k in zip(case.m, case.n, case.k, strict=True))


def floor(case: Case) -> Floor:
    """The case's bound on a B200."""
    if case.speed_of_light_us is not None:
        return Floor(case.speed_of_light_us, "official")
    seconds = max(compulsory_bytes(case) / DRAM_BYTES_PER_S, flops(case) / FP4_FLOP_PER_S)
    return Floor(seconds * 1e6, "model")
