"""Profile one case: run it on the simulated B200 under an observer, look at the binary, time the host."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from b200sim.device import SimulatedDevice
from b200sim.driver import Launch
from b200sim.isa import tcgen05
from evaluator import problem
from profiling import binary, host
from profiling.replay import Timeline
from profiling.summary import summarize
from profiling.trace import Recorder

Sizes = Sequence[tuple[int, int, int]]  # M, N, K of each group

ATOM_ROWS, ATOM_BYTES, ATOM_K = 128, 512, 64  # a scale atom: 128 rows x 64 of K


class _Device(SimulatedDevice):
    """Keeps what was launched, and an observer per launch."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.recorders: list[Recorder] = []
        self.texts: list[str] = []
        super().__init__(
            observer=self._recorder, progress=lambda done, of: tell(f"({done} of {of} clusters)")
        )

    def _recorder(self) -> Recorder:
        self.recorders.append(Recorder())
        return self.recorders[-1]

    def _launch(self, launch: Launch) -> None:
        self.texts.append(launch.ptx)
        super()._launch(launch)


def profile(
    submission: Path, sizes: Sizes, tell: Callable[[str], None] = lambda _: None
) -> tuple[dict[str, Any], list[Timeline]]:
    """Figures of one call of custom_kernel, and the timelines of its last launch; `tell` hears how far it is.

    The values are zeros and the products are not computed: no figure depends on them.
    Raises whatever the submission raises, and `Fault` for an illegal act of its kernel.
    """
    data = inputs(sizes)
    device = _Device(tell)
    with _without_arithmetic(), device:
        module = load(submission)
        with device.paused():
            moved = problem.on_device(device, data)
        module.custom_kernel(moved)
    figures: dict[str, Any] = {"launches": len(device.recorders), "sizes": [list(size) for size in sizes]}
    timelines: list[Timeline] = []
    if device.recorders:
        summary, timelines = summarize(device.recorders[-1])
        figures |= summary
        figures["binary"] = binary.describe(device.texts[-1])
    return figures, timelines


def host_times(submission: Path, sizes: Sizes) -> dict[str, float]:
    """Host time of one call, see `host.measure`. Worth something only while the machine does nothing else."""
    return host.measure(lambda: load(submission), inputs(sizes))


def load(path: Path) -> ModuleType:
    """A fresh copy of the submission."""
    spec = importlib.util.spec_from_file_location("submission", path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules["submission"] = module
    spec.loader.exec_module(module)
    return module


def inputs(sizes: Sizes) -> tuple[Any, ...]:
    """The arguments of custom_kernel, all zero; the scales that it does not read in plain layout are None."""
    abc = [(_values(m, k), _values(n, k), _matrix(m, n, torch.float16)) for m, n, k in sizes]
    scales = [(_scales(m, k), _scales(n, k)) for m, n, k in sizes]
    return abc, [(None, None)] * len(sizes), scales, [(*size, 1) for size in sizes]


def _values(rows: int, k: int) -> torch.Tensor:
    return _matrix(rows, k // 2, torch.uint8).view(torch.float4_e2m1fn_x2)


def _matrix(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """Zeros of shape (rows, columns, 1), with the strides that the official inputs have."""
    flat = torch.zeros(rows * columns, dtype=dtype)
    return flat.as_strided((rows, columns, 1), (columns, 1, rows * columns))


def _scales(rows: int, k: int) -> torch.Tensor:
    """Viewed as (32, 4, atoms along the rows, 4, atoms along k, 1)."""
    atoms, atoms_k = -(-rows // ATOM_ROWS), k // ATOM_K
    flat = torch.zeros(atoms * atoms_k * ATOM_BYTES, dtype=torch.uint8).view(torch.float8_e4m3fn)
    strides = (16, 4, atoms_k * ATOM_BYTES, 1, ATOM_BYTES, flat.numel())
    return flat.as_strided((32, 4, atoms, 4, atoms_k, 1), strides)


@contextlib.contextmanager
def _without_arithmetic() -> Iterator[None]:
    original = tcgen05.mma_block_scaled
    tcgen05.mma_block_scaled = lambda *_, **__: None
    try:
        yield
    finally:
        tcgen05.mma_block_scaled = original
