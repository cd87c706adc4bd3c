"""The GPU's state round a measurement: clocks, power, temperature, throttling, other processes (NVML)."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

#: Bits of the throttle reasons that slow a kernel down; idle and application settings do not.
_SLOWING = {
    0x4: "power limit",
    0x8: "hardware slowdown",
    0x20: "software thermal limit",
    0x40: "hardware thermal limit",
    0x80: "power brake",
}


class GpuLog:
    """Readings of the first visible GPU, or the reason why there are none."""

    def __init__(self) -> None:
        self.readings: list[dict[str, Any]] = []
        self.missing = ""
        try:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            uuid = str(torch.cuda.get_device_properties(0).uuid)
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except Exception as error:
            self.missing = f"NVML is not available: {type(error).__name__}: {error}"[:200]

    def read(self, when: str) -> None:
        """Take down the GPU's state now."""
        if self.missing:
            return
        nvml, handle = self._nvml, self._handle
        reading: dict[str, Any] = {"when": when}
        for name, take in (
            ("sm_mhz", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            ("memory_mhz", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
            ("celsius", lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            ("watts", lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
            ("reasons", lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)),
            ("processes", lambda: len(nvml.nvmlDeviceGetComputeRunningProcesses(handle))),
        ):
            with contextlib.suppress(Exception):  # not every GPU answers everything
                reading[name] = take()
        self.readings.append(reading)

    def slowed(self) -> list[str]:
        """What slowed the GPU down in any reading."""
        bits = 0
        for reading in self.readings:
            bits |= int(reading.get("reasons", 0))
        return [text for bit, text in _SLOWING.items() if bits & bit]

    def clock_range(self) -> tuple[int, int] | None:
        """Lowest and highest SM clock in MHz of the readings under load; None without any."""
        clocks = [int(r["sm_mhz"]) for r in self.readings if "sm_mhz" in r and r["when"] != "before"]
        return (min(clocks), max(clocks)) if clocks else None
