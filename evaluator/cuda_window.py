"""One timed window on a CUDA GPU, as the official runner times it (worker side)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

#: The official flush writes one float32 tensor of this shape: 62.5 GiB.
OFFICIAL_FLUSH = (16000, 1024, 1024)
_OFFICIAL_BYTES = 4 * 16000 * 1024 * 1024


def measure(entry: Callable[[Any], Any], inputs: list[Any], flush: str) -> tuple[float, str, list[Any]]:
    """Call `entry` on each of `inputs` between two events on the current queue.

    Returns nanoseconds per call, how the L2 cache was flushed before, and what the calls returned. `flush` is
    "auto" (the official flush where its memory is free, else twice the L2) or "none".
    """
    torch.cuda.synchronize()
    flushed = clear_l2() if flush == "auto" else "none"
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    returned = []
    start.record()
    for data in inputs:
        returned.append(entry(data))
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / len(inputs) * 1e6, flushed, returned


def clear_l2() -> str:
    """Evict the inputs from L2; says how."""
    free, _ = torch.cuda.mem_get_info()
    free += torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    if free > _OFFICIAL_BYTES + (1 << 30):
        torch.randn(OFFICIAL_FLUSH, device="cuda")
        return "official: 62.5 GiB of normal numbers"
    size = 2 * torch.cuda.get_device_properties(0).L2_cache_size
    torch.empty(size, dtype=torch.uint8, device="cuda").fill_(42)
    return f"{size >> 20} MiB written, twice the L2: too little memory is free for the official 62.5 GiB"
