"""The simulated machine against a real GPU: the same PTX, bit for bit (scripts/silicon/record.py)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import silicon_encode
from silicon_case import Case, simulate
from silicon_encode import EncodeCase
from silicon_suite import all_cases

from b200sim.faults import Fault

HERE = Path(__file__).parent
CASES = {case.name: case for case in all_cases()}
KERNELS = [name for name, case in CASES.items() if isinstance(case, Case) and not case.fault]
FAULTS = [name for name, case in CASES.items() if isinstance(case, Case) and case.fault]
DESCRIPTORS = [name for name, case in CASES.items() if isinstance(case, EncodeCase)]


@cache
def record() -> tuple[dict, np.ndarray]:
    return json.loads((HERE / "recorded.json").read_text()), np.load(HERE / "recorded.npz")["outputs"]


def recorded_output(case: Case | EncodeCase) -> np.ndarray:
    """What the GPU gave, provided that it ran this very kernel on this very input."""
    index, outputs = record()
    entry = index["cases"][case.name]
    assert entry["digest"] == case.digest(), f"{case.name} has changed since it was recorded: record it again"
    return outputs[entry["at"] : entry["at"] + entry["bytes"]]


def test_every_case_is_recorded():
    index, _ = record()
    assert set(index["failed"]) == set(FAULTS)
    missing = set(CASES) - set(index["cases"]) - set(index["failed"])
    assert not missing, f"scripts/silicon/record.py --missing records them: {sorted(missing)[:5]} ..."
    assert not set(index["cases"]) - set(CASES)
    assert len(index["cases"]) >= 1900


@pytest.mark.parametrize("name", KERNELS)
def test_same_as_silicon(name: str):
    case = CASES[name]
    wanted, got = recorded_output(case), simulate(case)
    specified = np.ones(wanted.size, bool)
    specified[slice(*case.unspecified)] = False
    different = np.flatnonzero((wanted != got) & specified)
    assert not different.size, (
        f"{name} ({case.about}): {different.size} of {wanted.size} bytes differ, first at {different[0]}: "
        f"GPU {wanted[different[0]]:#04x}, simulated {got[different[0]]:#04x}"
    )


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_where_silicon_ends_the_launch(name: str):
    case, failure = CASES[name], record()[0]["failed"][name]
    assert failure["digest"] == case.digest(), f"{name} has changed since it was recorded: record it again"
    assert "CUDA_ERROR_LAUNCH_FAILED" in failure["why"]
    with pytest.raises(Fault) as caught:
        simulate(case)
    assert caught.value.code == case.fault


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_same_descriptor_as_the_driver(name: str):
    case = CASES[name]
    wanted, (legal, descriptor) = recorded_output(case), silicon_encode.simulated(case)
    if wanted[:4].any():
        assert legal is not True, f"{name}: the driver refuses {case.arguments}"
    else:
        assert legal is not False, f"{name}: the driver takes {case.arguments}"
        words = np.frombuffer(descriptor, np.uint32), wanted[4:].view(np.uint32)
        assert words[0].tolist() == words[1].tolist()
