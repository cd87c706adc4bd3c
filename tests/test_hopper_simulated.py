"""The Hopper submission on a simulated H200: official cases, clusters, and what breaks it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import reference
from b200sim.device import SimulatedDevice
from b200sim.faults import Fault
from b200sim.gpus import H200
from b200sim.sanitizer import Session
from evaluator import problem, session, speed_of_light
from evaluator.options import Options

PATH = Path(__file__).parents[1] / "submissions" / "hopper.py"
# Two tiles along the weights for a cluster of 4, tokens of two tiles, an odd number of units of K
SMALL = {"m": (72, 250), "n": (520, 128), "k": (192, 384), "g": 2, "seed": 5}

# It reads its schedule, which the host has written before any launch, ahead of griddepcontrol.wait.
STRICT = {"input_before_dependency"}

pytestmark = pytest.mark.heavy


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("hopper_simulated", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["hopper_simulated"] = module
    spec.loader.exec_module(module)
    return module


def run(
    path: Path, change: Callable[[ModuleType], None] = lambda module: None
) -> tuple[SimulatedDevice, Session]:
    """One call on SMALL under the sanitizer; the values are checked if it ends. Raises `Fault`."""
    watched = Session()
    with SimulatedDevice(gpu=H200, time_limit=120) as device:
        module = load(path)
        change(module)
        with device.paused():
            data = problem.on_device(device, reference.generate_input(**SMALL, device="cpu"))
        fault = None
        with watched.on_device(device, "program-order"):
            try:
                output = module.custom_kernel(data)
            except Fault as found:
                fault = found
        if fault is not None:
            raise fault
        with device.paused():
            assert reference.check_implementation(data, output) == (True, "")
    return device, watched


def test_the_official_cases() -> None:
    result = session.evaluate(Options("test", "sim", PATH))
    assert result.passed, [r.verdict for r in result.results]
    assert len(result.results) == 10
    for case in result.results:
        assert case.bit_exact
        assert case.counters()["mma_flops"] >= speed_of_light.flops(case.case)


@pytest.mark.parametrize(("size", "count"), [(2, 66), (4, 30)])
def test_clusters_that_share_tokens(size: int, count: int) -> None:
    """Official sizes never make the plan choose one."""
    device, watched = run(PATH, lambda module: setattr(module, "possible_clusters", lambda _: {size: count}))
    assert device.launches[0].cluster == (size, 1, 1)
    assert device.launches[0].counters.tma_multicast_bytes > device.launches[0].counters.tma_load_bytes
    assert {finding.code for finding in watched.report.findings.errors} <= STRICT, watched.report.text()


def broken(folder: Path, old: str, new: str) -> Path:
    source = PATH.read_text()
    assert source.count(old) == 1
    path = folder / "broken.py"
    path.write_text(source.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ('[*choose(0, len(variants)), "wgmma.wait_group.sync.aligned 1; }"]',
         '[*choose(0, len(variants)), "wgmma.wait_group.sync.aligned 2; }"]',
         "wgmma_register", "part of the A fragment of a wgmma still in flight"),
        ('"wgmma.wait_group.sync.aligned 0;"', '"wgmma.wait_group.sync.aligned 1;"',
         "wgmma_register", "mul.f32 touches a register that is an accumulator"),
        ('lines = ["wgmma.fence.sync.aligned;"]', "lines = []",
         "wgmma_fence", "wgmma.fence is missing before it"),
        ("TOKENS_DESCRIPTOR = 1 << 62 |", "TOKENS_DESCRIPTOR = 1 << 62 | 1 << 46 |",
         "smem_descriptor_reserved", "bits 15:14, 31:30, 48:46 and 61:52 must be zero"),
    ],
)  # fmt: skip
def test_what_the_simulator_refuses(tmp_path: Path, old: str, new: str, code: str, words: str) -> None:
    with pytest.raises(Fault) as caught:
        run(broken(tmp_path, old, new))
    assert caught.value.code == code
    assert words in caught.value.message and "broken.py" in str(caught.value)


def test_a_slot_that_is_given_back_too_early(tmp_path: Path) -> None:
    """Before the multiplication that reads it is complete. In this order of events the values are right."""
    multiply = "multiply(sums, widen_fragment(values), tokens, variant, config.variants)\n"
    release = "if releases and pair > 0:\n                    arrive(empty + last * 8)\n"
    indent = 16 * " "
    early = broken(tmp_path, f"{multiply}{indent}{release}", f"{release}{indent}{multiply}")
    _, watched = run(early, lambda module: setattr(module, "MAX_SLOTS", 2))
    assert "stage_overwritten" in watched.report.findings.codes()
