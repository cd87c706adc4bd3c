"""The simulated machine against a real GPU: the same PTX, bit for bit (scripts/silicon/record.py)."""

from __future__ import annotations

import datetime
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import silicon_encode
from silicon_case import Case, simulate
from silicon_encode import EncodeCase
from silicon_suite import all_cases

HERE = Path(__file__).parent
CASES = {case.name: case for case in all_cases()}
#: Families with cases that no GPU has run yet. After the day below they must have been recorded, or deleted.
AWAITED = {
    "permute",
    "carry",
    "dot",
    "integer",
    "logic",
    "predicate",
    "pack",
    "convert",
    "float",
    "compare",
    "order",
    "mbarrier",
    "named",
    "copy",
    "control",
    "cluster",
    "encode",
    "wgmma",
}
AWAITED_UNTIL = datetime.date(2026, 12, 5)


@cache
def record() -> tuple[dict, np.ndarray]:
    return json.loads((HERE / "recorded.json").read_text()), np.load(HERE / "recorded.npz")["outputs"]


def recorded_output(case: Case | EncodeCase) -> np.ndarray | None:
    """What the GPU gave, provided that it ran this very kernel on this very input."""
    index, outputs = record()
    entry = index["cases"].get(case.name)
    if entry is None:
        return None
    assert entry["digest"] == case.digest(), f"{case.name} has changed since it was recorded: record it again"
    return outputs[entry["at"] : entry["at"] + entry["bytes"]]


def test_every_case_is_recorded():
    index, _ = record()
    missing = set(CASES) - set(index["cases"])
    assert not set(index["cases"]) - set(CASES)
    assert not index["failed"]
    families = {CASES[name].family for name in missing}
    assert families == AWAITED, "AWAITED does not say which families await recording"
    assert not AWAITED or datetime.date.today() <= AWAITED_UNTIL, f"record them: {sorted(missing)[:5]} ..."
    assert len(index["cases"]) >= 800


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if isinstance(case, Case)])
def test_same_as_silicon(name: str):
    case = CASES[name]
    wanted, got = recorded_output(case), simulate(case)
    if wanted is None:
        pytest.skip("it runs; not recorded yet")
    different = np.flatnonzero(wanted != got)
    assert not different.size, (
        f"{name} ({case.about}): {different.size} of {wanted.size} bytes differ, first at {different[0]}: "
        f"GPU {wanted[different[0]]:#04x}, simulated {got[different[0]]:#04x}"
    )


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if isinstance(case, EncodeCase)])
def test_same_descriptor_as_the_driver(name: str):
    case = CASES[name]
    wanted, (legal, descriptor) = recorded_output(case), silicon_encode.simulated(case)
    if wanted is None:
        pytest.skip("not recorded yet")
    if wanted[:4].any():
        assert legal is not True, f"{name}: the driver refuses {case.arguments}"
    else:
        assert legal is not False, f"{name}: the driver takes {case.arguments}"
        words = np.frombuffer(descriptor, np.uint32), wanted[4:].view(np.uint32)
        assert words[0].tolist() == words[1].tolist()
