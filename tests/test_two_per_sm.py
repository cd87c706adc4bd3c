"""`scripts/two_per_sm` as far as a machine without a GPU can tell: kernel and figures."""

from __future__ import annotations

import re
import runpy
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from profiling.binary import find_tool

SCRIPT = Path(__file__).parents[1] / "scripts" / "two_per_sm"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setitem(sys.modules, "script", type(sys)("script"))  # dataclasses look their module up
    return runpy.run_path(str(SCRIPT), run_name="script")


def test_kernel_takes_the_registers_of_the_real_one(tmp_path: Path) -> None:
    ptxas = find_tool("ptxas")
    if ptxas is None:
        pytest.skip("needs ptxas (from CUDA or the triton package)")
    command = [ptxas, "-v", "-arch=sm_90a", str(SCRIPT.with_suffix(".ptx")), "-o", str(tmp_path / "cubin")]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert re.findall(r"(\d+) bytes spill", log) == ["0"] * 4
    assert "Used 72 registers" in log


def test_halves_fit_an_sm_twice_and_sides_do_not(script: dict[str, Any]) -> None:
    sm, reserved = 228 * 1024, 1024
    half, even, odd = (script[name] + reserved for name in ("HALF", "EVEN", "ODD"))
    assert 2 * half <= sm and even + odd <= sm
    assert 2 * even > sm, "one launch, even side"
    assert 2 * -(-512 // 128) * 72 * 32 > 16384, "one launch, odd side: registers of a quarter of the SM"


def launch(start: int, sms: list[int], idle: int = 0, length: int = 8000) -> bytes:
    """Records of CTAs on these SMs: in at `start` ns, past the wait 100 later, loaded 1000 before the end."""
    times = (start, start + 100, start + length - 1000, start + length)
    return b"".join(
        struct.pack("<2I4Q24x", sm, int(place >= len(sms) - idle), *times) for place, sm in enumerate(sms)
    )


def test_a_doubled_sm_is_seen_and_why(script: dict[str, Any]) -> None:
    read, doubled = script["read_records"], script["doubled"]
    before = read(launch(0, [0, 1, 2, 3]))
    assert doubled(read(launch(7000, [4, 5, 4, 5])), before) == (2, 0, 2), "two clusters, SMs were free"
    assert doubled(read(launch(7000, [0, 0, 1, 2])), before) == (1, 1, 0), "one cluster, SM was taken"
    assert doubled(read(launch(7000, [0, 1, 0, 1], idle=2)), before) == (0, 0, 0), "idle CTAs do not count"


def test_figures_of_a_chain(script: dict[str, Any]) -> None:
    """Launches come in every 5 µs, run for 8, and so overlap by 3; every other one lies on other SMs."""
    chain = [
        script["read_records"](launch(5000 * i, [0, 1, 2, 3] if i % 2 else [0, 1, 4, 5]))
        for i in range(script["LAUNCHES"])
    ]
    found = script["evaluate"](chain)
    assert (found.doubled, found.doubled_most) == (0, 0)
    assert (found.early, found.beside) == (1.0, 0.5)
    assert found.period == pytest.approx(5.0)
    assert (found.gap, found.last_byte, found.loads) == pytest.approx((-2.9, 4.0, 6.9))


def test_without_a_hopper_gpu_it_says_so() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--only", "no such variant"], capture_output=True, text=True
    )
    if done.returncode == 0:
        pytest.skip("there is a Hopper GPU here")
    assert done.returncode == 110 and "no Hopper GPU" in done.stderr
