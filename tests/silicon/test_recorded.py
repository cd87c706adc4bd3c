"""The simulated machine against a real GPU: the same PTX, bit for bit (scripts/silicon/record.py)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import silicon_async
import silicon_lanes
from silicon_case import Case, simulate

HERE = Path(__file__).parent
CASES = {case.name: case for case in [*silicon_lanes.cases(), *silicon_async.cases()]}


@cache
def record() -> tuple[dict, np.ndarray]:
    return json.loads((HERE / "recorded.json").read_text()), np.load(HERE / "recorded.npz")["outputs"]


def recorded_output(case: Case) -> np.ndarray:
    """What the GPU gave, provided that it ran this very kernel on this very input."""
    index, outputs = record()
    entry = index["cases"][case.name]
    assert entry["digest"] == case.digest(), f"{case.name} has changed since it was recorded: record it again"
    return outputs[entry["at"] : entry["at"] + entry["bytes"]]


def test_every_case_is_recorded():
    index, _ = record()
    assert set(index["cases"]) == set(CASES)
    assert len(CASES) >= 300


@pytest.mark.parametrize("name", CASES)
def test_same_as_silicon(name: str):
    case = CASES[name]
    wanted, got = recorded_output(case), simulate(case)
    different = np.flatnonzero(wanted != got)
    assert not different.size, (
        f"{name}: {different.size} of {wanted.size} bytes differ, first at {different[0]}: "
        f"GPU {wanted[different[0]]:#04x}, simulated {got[different[0]]:#04x}"
    )
