"""Features that NVFP4 GEMM kernels use: a small CuTe-DSL kernel each, under several schedules."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from b200sim.device import SimulatedDevice
from b200sim.machine.schedule import schedule

SCHEDULES = [("program-order", 0), ("eager", 0), ("random", 1), ("random", 2)]


@pytest.fixture(params=SCHEDULES, ids=lambda each: f"{each[0]}-{each[1]}")
def device(request: pytest.FixtureRequest) -> Iterator[SimulatedDevice]:
    with SimulatedDevice(schedule=lambda: schedule(*request.param)) as active:
        yield active


def kernel_module(name: str) -> ModuleType:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    try:
        return importlib.import_module(f"kernels.{name}")
    finally:
        sys.path.pop(0)


def cute_tensor(tensor: torch.Tensor) -> object:
    from cutlass.cute.runtime import from_dlpack

    return from_dlpack(tensor, assumed_align=16)


def test_multicast_load_reaches_both_ctas_of_the_pair(device: SimulatedDevice) -> None:
    tiles = 5
    source = torch.randn(tiles * 64, 64, dtype=torch.float16)
    copies = torch.full((2, tiles * 64, 64), float("nan"), dtype=torch.float16)
    on_device = device.to_device("source", source), device.to_device("copies", copies)
    kernel_module("multicast_copy").copy(
        cute_tensor(on_device[0]), cute_tensor(on_device[1].permute(1, 2, 0))
    )
    counters = device.launches[-1].counters
    assert torch.equal(on_device[1].cpu(), source.expand(2, -1, -1))
    assert counters.tma_load_bytes == tiles * 64 * 64 * 2
    assert counters.tma_multicast_bytes == 2 * counters.tma_load_bytes
    assert counters.tma_store_bytes == 2 * counters.tma_load_bytes


def test_values_go_round_the_cluster(device: SimulatedDevice) -> None:
    size, clusters, threads = 4, 3, 64
    result = torch.full((size * clusters, threads), -1, dtype=torch.int32, device="cuda")
    kernel_module("ring_exchange").exchange(cute_tensor(result), size)
    for cta in range(size * clusters):
        left = cta - cta % size + (cta - 1) % size
        assert result[cta].tolist() == [left * 1000 + thread for thread in range(threads)], f"CTA {cta}"


def test_cancelled_ctas_leave_their_tile_to_the_canceller(device: SimulatedDevice) -> None:
    tiles = 400  # more than the SMs: those that did not start can be cancelled
    visits = torch.zeros(tiles, dtype=torch.int32, device="cuda")
    owner = torch.full((tiles,), -1, dtype=torch.int32, device="cuda")
    kernel_module("work_stealing").run(cute_tensor(visits), cute_tensor(owner))
    assert visits.tolist() == [1] * tiles
    workers = set(owner.tolist())
    assert len(workers) < tiles, "no launch was cancelled"
    assert all(owner[worker] == worker for worker in workers), "a CTA that was cancelled worked"


def test_tma_reduction_adds_every_layer_and_drops_what_sticks_out(device: SimulatedDevice) -> None:
    rows, columns, layers = 80, 44, 3
    total = torch.full((rows, columns), 0.5, device="cuda")
    kernel_module("reduce_add").add(cute_tensor(total), layers)
    tile = torch.arange(32 * 32, dtype=torch.float32).reshape(32, 32)
    expected = 0.5 + 6 * tile.repeat(3, 2)[:rows, :columns]  # 1 + 2 + 3
    assert torch.equal(total.cpu(), expected)
