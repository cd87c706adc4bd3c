"""What a GPU cannot beat: the least time for a case's bytes and arithmetic at the hardware's peak rates."""

from __future__ import annotations

from dataclasses import dataclass

from evaluator import speed_of_light
from evaluator.cases import Case

#: Below this share of the bound a time is impossible; the margin covers clocks above the data sheet's.
IMPOSSIBLE = 0.8


@dataclass(frozen=True)
class Limits:
    """Peak rates of one kind of GPU: DRAM bytes and tensor-core operations per second, narrowest type."""

    bytes_per_s: float
    flop_per_s: float


#: By a word in the device's name. Vendor's data sheets, dense, rounded up.
_KNOWN: tuple[tuple[str, Limits], ...] = (
    ("B300", Limits(8.0e12, 15.0e15)),
    ("B200", Limits(8.0e12, 10.0e15)),
    ("H200", Limits(4.9e12, 2.0e15)),
    ("H100", Limits(3.4e12, 2.0e15)),
)


def limits_of(gpu_name: str) -> Limits | None:
    """None for a GPU whose peak rates are not listed."""
    return next((limits for word, limits in _KNOWN if word in gpu_name), None)


def least_microseconds(case: Case, limits: Limits, cached_bytes: float, calls: int) -> float:
    """The bound on one call's time when `calls` calls on different inputs follow a flush.

    `cached_bytes` is the L2's size: of all the bytes of the window, that much may have been in it.
    """
    moved = speed_of_light.compulsory_bytes(case)
    cold = max(0.0, moved - cached_bytes / calls)
    return max(cold / limits.bytes_per_s, speed_of_light.flops(case) / limits.flop_per_s) * 1e6
