"""What a launch did, counted while it ran."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields


@dataclass
class Counters:
    """Counts of one launch. Bytes are bytes; `seconds` is the simulation's own wall time, not the GPU's."""

    warp_instructions: int = 0
    mma_instructions: int = 0
    mma_flops: int = 0
    scale_copies: int = 0
    tma_loads: int = 0
    tma_load_bytes: int = 0  # read from global memory, box bytes inside the tensor or not
    tma_multicast_bytes: int = 0  # written to shared memory, counted once per destination CTA
    tma_stores: int = 0
    tma_store_bytes: int = 0
    global_load_bytes: int = 0
    global_store_bytes: int = 0
    seconds: float = 0.0
    tensor_core_seconds: float = 0.0
    tma_seconds: float = 0.0

    def add(self, other: Counters) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def as_dict(self) -> dict[str, int | float]:
        return asdict(self)
