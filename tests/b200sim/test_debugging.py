"""cute.printf, cute.print_tensor, cute.testing.assert_ and called functions in compiled kernels."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from b200sim.device import SimulatedDevice
from b200sim.faults import Fault

sys.path.insert(0, str(Path(__file__).parents[1]))


@pytest.fixture
def printed() -> list[bytes]:
    return []


@pytest.fixture
def device(printed: list[bytes]) -> Iterator[SimulatedDevice]:
    with SimulatedDevice(processes=2, printf=printed.append) as active:
        yield active


def on_device(values: torch.Tensor) -> tuple[torch.Tensor, object]:
    from cutlass.cute.runtime import from_dlpack

    tensor = values.to("cuda")
    return tensor, from_dlpack(tensor)


@pytest.mark.usefixtures("device")
def test_printf_shows_static_and_dynamic_values(printed):
    from kernels import debugging

    _, numbers = on_device(torch.arange(32, dtype=torch.float32))
    debugging.report(numbers, 1.5, 32, 4)
    text = b"".join(printed).decode()
    per_cta = [
        "CTA {cta} thread 0: 0.000000\n\nCTA {cta} thread 1: 1.500000\n\n",
        "static 5 2.500000 (32):(1)\n",
        "320000000000 1.500000 1.500000\n",
    ]
    for cta in range(4):
        for piece in per_cta:
            assert piece.format(cta=cta) in text
    # one process in program order: CTA after CTA
    assert re.findall(r"CTA (\d) thread 0", text) == ["0", "1", "2", "3"]
    rows = re.findall(r"rmem, align<32>\) o 4:1, data=\n(.*?)\)\n", text, re.S)
    assert [re.findall(r"\d\.\d+", row) for row in rows] == [
        ["0.000000", "1.000000", "2.000000", "3.000000"]
    ] * 4


@pytest.mark.usefixtures("device")
def test_a_failed_assertion_names_its_line_and_threads(printed):
    import cutlass.cute as cute
    from kernels import debugging

    _, numbers = on_device(torch.arange(32, dtype=torch.float32))
    checked = cute.compile(debugging.report, numbers, 1.5, 30, 2, options="--enable-assertions")
    with pytest.raises(Fault) as caught:
        checked(numbers, 1.5, 30, 2)
    assert caught.value.code == "assert_failed"
    line = 1 + Path(debugging.__file__).read_text().split("\n").index(
        '    cute.testing.assert_(thread < limit, "thread below limit")'
    )
    assert f"debugging.py:{line}: assertion failed: thread below limit" in str(caught.value)
    assert "CTA (0,0,0) thread (30, 0, 0) and 1 more of its warp" in str(caught.value)
    assert b"".join(printed).count(b"Assertion Error: thread below limit") == 2
    checked(numbers, 1.5, 32, 2)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("dtype, error", [(torch.float32, 1e-6), (torch.float64, 1e-15)])
def test_the_sine_of_far_numbers(dtype, error):
    """Its slow path loops over .local memory with carry arithmetic; for fp64 it is a function of its own."""
    from kernels import debugging

    values = torch.tensor([1e3 * 3.1**i * (-1) ** i for i in range(32)], dtype=dtype)
    want = [math.sin(value) for value in values.tolist()]
    tensor, numbers = on_device(values)
    debugging.far_sine(numbers)
    for found, exact in zip(tensor.cpu().tolist(), want, strict=True):
        assert abs(found - exact) < error
