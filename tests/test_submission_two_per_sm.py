"""`submission.py`, kernels of single tiles: two CTAs fit an SM, so the next launch is set up beside this one.

What fits is read from the launches and the compiled kernel, not from the submission's own arithmetic.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

import reference
from b200sim.device import SimulatedDevice
from b200sim.driver import Launch
from evaluator import problem
from profiling.binary import find_tool
from tests.mutations.run import load

SOURCE = (Path(__file__).parents[1] / "submission.py").read_text()
SWITCH = "SINGLE_TILE_CTAS_PER_SM = {}\n"
CASE = {
    "m": [130, 40, 64],
    "n": [264, 8, 512],
    "k": [3200, 64, 2304],
    "seed": 5,
}  # up to 13 K tiles, 4 or 8 stages
PAIRS = 2 * 2 + 1 + 2  # tiles of 256 rows x 128 tokens
MANY_TILES = {"m": [300, 129], "n": [8192, 4096], "k": [64, 128], "seed": 5}  # more than CTA pairs: 2 halves
SMEM_PER_SM, SMEM_RESERVED_PER_CTA = 228 * 1024, 1024
REGISTERS_PER_SM, TMEM_COLUMNS = 65536, 512

pytestmark = pytest.mark.heavy


class Recording(SimulatedDevice):
    """Keeps what was launched."""

    def __init__(self) -> None:
        super().__init__(time_limit=120)
        self.launched: list[Launch] = []

    def _launch(self, launch: Launch) -> None:
        self.launched.append(launch)
        super()._launch(launch)


def launches(case: dict[str, Any], source: str, folder: Path) -> list[Launch]:
    """Two calls in a row on the simulated B200, each on poisoned outputs; every value is checked."""
    submission = load(source, folder)
    with Recording() as device:
        with device.paused():
            data = reference.generate_input(**case, g=len(case["m"]), device="cpu")
            expected = [c.clone() for c in reference.ref_kernel(data)]
        for _ in range(2):
            with device.paused():
                for _, _, c in data[0]:
                    c.view(torch.int16).fill_(-1)  # NaN
                placed = problem.on_device(device, data)
            output = submission.custom_kernel(placed)
            with device.paused():
                for c, right in zip(output, expected, strict=True):
                    assert torch.equal(c, right)
    assert len(device.launched) == 2
    return device.launched


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    return launches(CASE, SOURCE, tmp_path_factory.mktemp("two_per_sm"))[-1]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """Of the kernel for several tiles per CTA pair."""
    return launches(MANY_TILES, SOURCE, tmp_path_factory.mktemp("many_tiles"))[-1]


def smem(launch: Launch) -> int:
    return launch.shared_bytes + SMEM_RESERVED_PER_CTA


def tmem_columns(launch: Launch) -> int:
    """tcgen05.alloc takes its columns from a register that a mov fills."""
    (register,) = re.findall(r"tcgen05\.alloc\S+\s+\[[^\]]+\],\s*(%\w+)", launch.ptx)
    (columns,) = re.findall(rf"mov\.b32\s+{register},\s*(\d+);", launch.ptx)
    return int(columns)


def test_two_fit_in_shared_memory(launch: Launch) -> None:
    assert SMEM_PER_SM // smem(launch) == 2
    assert launch.shared_bytes >= 112 * 1024, "bytes in flight"


def test_whoever_fits_in_shared_memory_gets_tensor_memory(launch: Launch, large: Launch) -> None:
    """So tcgen05.alloc never waits for another CTA, neither of this launch nor of the next."""
    for each in (launch, large):
        assert SMEM_PER_SM // smem(each) * tmem_columns(each) <= TMEM_COLUMNS
    assert smem(launch) + smem(large) > SMEM_PER_SM


def test_two_fit_in_registers(launch: Launch, tmp_path: Path) -> None:
    ptxas = find_tool("ptxas")
    if ptxas is None:
        pytest.skip("needs ptxas (from CUDA or the triton package)")
    (tmp_path / "kernel.ptx").write_text(launch.ptx.rstrip("\0"))
    command = [ptxas, "-v", "-arch=sm_100a", "kernel.ptx", "-o", "kernel.cubin"]
    log = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stderr
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in log
    threads = launch.block[0]
    per_warp = -(-int(re.findall(r"Used (\d+) registers", log)[0]) // 8) * 8  # allocated in steps of 8
    assert 2 * threads * per_warp <= REGISTERS_PER_SM


def test_every_cta_has_a_tile(launch: Launch, large: Launch) -> None:
    assert launch.grid == (2 * PAIRS, 1, 1)
    assert large.grid == (2 * 40, 1, 1), "64 + 16 tiles in two turns"


def test_the_next_launch_comes_in_when_the_one_before_is_over(launch: Launch, large: Launch) -> None:
    """griddepcontrol.launch_dependents, once per CTA, comes right after a griddepcontrol.wait."""
    for each in (launch, large):
        assert each.pdl
        code = [line.strip() for line in each.ptx.splitlines()]
        code = [line for line in code if line and not line.startswith(("//", ".loc"))]
        (let_in,) = [i for i, line in enumerate(code) if line == "griddepcontrol.launch_dependents;"]
        assert code[let_in - 1] == "griddepcontrol.wait;"


def test_one_per_sm_is_one_edit_away(tmp_path: Path) -> None:
    assert SOURCE.count(SWITCH.format(2)) == 1
    alone = launches(CASE, SOURCE.replace(SWITCH.format(2), SWITCH.format(1)), tmp_path)[-1]
    assert 220 * 1024 <= smem(alone) <= SMEM_PER_SM, "8 stages"
    assert alone.grid == (2 * PAIRS, 1, 1)
