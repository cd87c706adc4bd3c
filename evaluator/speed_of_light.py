"""Lower bounds on a case's time, and the traffic and arithmetic that they stand on.

The official targets of the benchmark shapes are data (task.yml). For other shapes the same model is applied:
the larger of compulsory traffic over DRAM bandwidth and FLOPs over the tensor cores' rate at 1.5 GHz. On a
Hopper GPU, which multiplies NVFP4 in fp16, the bounds are its own, from rates measured on an H200.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaluator.cases import Case

#: Bandwidth that reproduces the four official targets within 0.1 %.
DRAM_BYTES_PER_S = 7.68e12
#: 148 SMs × 32768 dense FP4 FLOP per cycle × 1.5 GHz, the clock that the task's text names.
FP4_FLOP_PER_S = 148 * 32768 * 1.5e9


@dataclass(frozen=True)
class Machine:
    """What bounds are for. `official`: the task's own targets hold there."""

    name: str
    bytes_per_s: float
    flop_per_s: float
    official: bool = False


B200 = Machine("a B200", DRAM_BYTES_PER_S, FP4_FLOP_PER_S, official=True)
#: Measured on an H200: torch device copies (bytes read and written), torch fp16 GEMMs of 8192 cubed.
H200 = Machine("an H200 (fp16 at 790 TFLOP/s, 4.3 TB/s)", 4.3e12, 790e12)


def machine_of(facts: Mapping[str, Any]) -> Machine:
    """The machine by which a run with these facts is judged."""
    major = facts.get("device", {}).get("compute_capability", [10])[0]
    return H200 if major == 9 else B200


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


def floor(case: Case, machine: Machine = B200) -> Floor:
    """The case's bound on that machine."""
    if case.speed_of_light_us is not None and machine.official:
        return Floor(case.speed_of_light_us, "official")
    seconds = max(compulsory_bytes(case) / machine.bytes_per_s, flops(case) / machine.flop_per_s)
    return Floor(seconds * 1e6, "model")
