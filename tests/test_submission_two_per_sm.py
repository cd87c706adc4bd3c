"""`submission.py` with SINGLE_TILE_CTAS_PER_SM = 2: a kernel of single tiles fits an SM twice, and is right.

What fits is read from the launch and the compiled kernel, not from the submission's own arithmetic.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import reference
from b200sim.device import SimulatedDevice
from b200sim.driver import Launch
from evaluator import problem
from profiling.binary import find_tool
from tests.mutations.run import load

SUBMISSION = Path(__file__).parents[1] / "submission.py"
SWITCH = "SINGLE_TILE_CTAS_PER_SM = {}\n"
CASE = {
    "m": [130, 40, 64],
    "n": [264, 8, 512],
    "k": [3200, 64, 2304],
    "seed": 5,
}  # up to 13 K tiles, 4 stages
SMEM_PER_SM, SMEM_RESERVED_PER_CTA = 228 * 1024, 1024
REGISTERS_PER_SM, TMEM_COLUMNS, SMS = 65536, 512, 148

pytestmark = pytest.mark.heavy


class Recording(SimulatedDevice):
    """Keeps what was launched."""

    def __init__(self) -> None:
        super().__init__(time_limit=120)
        self.launched: list[Launch] = []

    def _launch(self, launch: Launch) -> None:
        self.launched.append(launch)
        super()._launch(launch)


@pytest.fixture(scope="module")
def submission(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    source = SUBMISSION.read_text()
    assert source.count(SWITCH.format(1)) == 1
    folder = tmp_path_factory.mktemp("two_per_sm")
    yield load(source.replace(SWITCH.format(1), SWITCH.format(2)), folder)


@pytest.fixture(scope="module")
def launch(submission: ModuleType) -> Launch:
    """Two calls in a row on the simulated B200, on poisoned outputs; every value is checked."""
    with Recording() as device:
        with device.paused():
            data = reference.generate_input(**CASE, g=len(CASE["m"]), device="cpu")
            expected = [c.clone() for c in reference.ref_kernel(data)]
            for _, _, c in data[0]:
                c.view(torch.int16).fill_(-1)  # NaN
            placed = problem.on_device(device, data)
        submission.custom_kernel(placed)
        output = submission.custom_kernel(placed)
        with device.paused():
            for c, right in zip(output, expected, strict=True):
                assert torch.equal(c, right)
        assert len(device.launched) == 2
        return device.launched[-1]


def test_shared_memory_and_grid(launch: Launch) -> None:
    assert 2 * (launch.shared_bytes + SMEM_RESERVED_PER_CTA) <= SMEM_PER_SM
    assert launch.shared_bytes >= 80 * 1024, "bytes in flight"
    assert launch.grid == (SMS, 1, 1), "one CTA of each launch per SM"


def test_tensor_memory(launch: Launch) -> None:
    """tcgen05.alloc takes its columns from a register that a mov fills."""
    (register,) = re.findall(r"tcgen05\.alloc\S+\s+\[[^\]]+\],\s*(%\w+)", launch.ptx)
    (columns,) = re.findall(rf"mov\.b32\s+{register},\s*(\d+);", launch.ptx)
    assert 2 * int(columns) <= TMEM_COLUMNS


def test_registers(launch: Launch, tmp_path: Path) -> None:
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


def test_both_launches_may_overlap(launch: Launch) -> None:
    assert launch.pdl
    waits = [m.start() for m in re.finditer(r"griddepcontrol\.wait", launch.ptx)]
    let_go = launch.ptx.index("griddepcontrol.launch_dependents")
    assert waits and let_go < min(waits)
