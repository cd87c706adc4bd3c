"""Time stamps round a window of calls (worker side): device events on a GPU, the host's clock elsewhere.

The functions of torch and Python that measure are taken hold of when this module is imported, before the
submission is, and where possible from the C types below the Python classes, which cannot be reassigned.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any, Protocol

import torch

#: The official flush writes one float32 tensor of this shape: 62.5 GiB.
OFFICIAL_FLUSH = (16000, 1024, 1024)
_OFFICIAL_BYTES = 4 * 16000 * 1024 * 1024
#: The SM clock in GHz that a hold is reckoned with: at a lower one it lasts longer, which does no harm.
_CYCLES_PER_NS = 2.0
_CU_LIMIT_PERSISTING_L2 = 6
_now = time.perf_counter_ns


class Clock(Protocol):
    """One window at a time."""

    def flush(self, how: str) -> str:
        """Evict the inputs from L2: "official", "l2" or "none"; says what was done."""

    def start(self, hold_ns: float) -> None:
        """The first stamp, after the queue was kept busy for so long: launches do not wait for the host."""

    def stop(self) -> None:
        """The last stamp, behind everything on the current queue."""

    def result(self) -> tuple[float, float]:
        """(ns between the stamps, ns that other queues went on after all that is queued here)."""

    def persisting_bytes(self) -> int:
        """What the submission reserved of L2 for data that survives a flush; reset to 0."""


class HostClock:
    """The host's clock, for submissions that run on the host."""

    def flush(self, how: str) -> str:
        return "none: no device"

    def start(self, hold_ns: float) -> None:
        self.started = _now()

    def stop(self) -> None:
        self.stopped = _now()

    def result(self) -> tuple[float, float]:
        return float(self.stopped - self.started), 0.0

    def persisting_bytes(self) -> int:
        return 0


class CudaClock:
    """CUDA events on the queue that was current before the submission was loaded."""

    def __init__(self) -> None:
        base = torch._C._CudaEventBase
        self._event, self._record = base, base.record
        self._elapsed = base.elapsed_time
        self._synchronize = torch._C._cuda_synchronize
        self._drain = torch._C._CudaStreamBase.synchronize
        self._sleep: Any = torch._C._cuda_sleep  # type: ignore[attr-defined]
        self._queue = torch.cuda.current_stream()
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._usual_persisting = self._read_limit(0)
        self._l2 = int(torch.cuda.get_device_properties(0).L2_cache_size)

    def flush(self, how: str) -> str:
        if how == "none":
            return "none"
        free, _ = torch.cuda.mem_get_info()
        free += torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        if how == "official" and free > _OFFICIAL_BYTES + (1 << 30):
            torch.randn(OFFICIAL_FLUSH, device="cuda")
            return "official: 62.5 GiB of normal numbers"
        torch.empty(2 * self._l2, dtype=torch.uint8, device="cuda").fill_(42)
        why = ": too little memory is free for the official 62.5 GiB" if how == "official" else ""
        return f"{2 * self._l2 >> 20} MiB written, twice the L2{why}"

    def start(self, hold_ns: float) -> None:
        self.first = self._event(enable_timing=True, blocking=False, interprocess=False)
        self.last = self._event(enable_timing=True, blocking=False, interprocess=False)
        if hold_ns > 0:
            self._sleep(int(hold_ns * _CYCLES_PER_NS))
        self._record(self.first, self._queue)

    def stop(self) -> None:
        self._record(self.last, self._queue)

    def result(self) -> tuple[float, float]:
        self._drain(self._queue)
        finished = _now()
        self._synchronize()
        return self._elapsed(self.first, self.last) * 1e6, float(_now() - finished)

    def persisting_bytes(self) -> int:
        found = self._read_limit(None)
        self._read_limit(0)
        self._driver.cuCtxResetPersistingL2Cache()
        return max(0, found - self._usual_persisting)

    def _read_limit(self, wanted: int | None) -> int:
        """The limit in bytes, after setting it if `wanted` says so; contexts start with some of it."""
        if wanted is not None:
            self._driver.cuCtxSetLimit(_CU_LIMIT_PERSISTING_L2, ctypes.c_size_t(wanted))
        size = ctypes.c_size_t(0)
        failed = self._driver.cuCtxGetLimit(ctypes.byref(size), _CU_LIMIT_PERSISTING_L2)
        return 0 if failed else size.value
