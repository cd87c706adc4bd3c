"""Every exploit that needs no GPU is refused for the reason its header names; the honest controls pass."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from evaluator.processes import ROOT
from evaluator.reasons import Reason


def load() -> ModuleType:
    import sys

    loader = SourceFileLoader("redteam", str(ROOT / "scripts" / "redteam"))
    spec = spec_from_loader("redteam", loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules["redteam"] = module
    loader.exec_module(module)
    return module


redteam = load()
EXPLOITS = redteam.exploits()
HERE = [exploit for exploit in EXPLOITS if exploit.suits("cpu")]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Any]]]:
    """All exploits, two at a time, in the order in which the tests ask for them."""
    folder: Path = tmp_path_factory.mktemp("redteam")
    with ThreadPoolExecutor(2) as pool:
        yield {e.name: pool.submit(redteam.run, e, "cpu", folder) for e in HERE}


@pytest.mark.heavy
@pytest.mark.parametrize("name", [exploit.name for exploit in HERE])
def test_it_gets_its_reason(outcomes: dict[str, Future[Any]], name: str) -> None:
    outcome = outcomes[name].result()
    assert outcome.good, (outcome.exploit.expected, outcome.reasons, outcome.message)


def test_what_is_timed_or_fills_the_gpu_has_it_to_itself() -> None:
    alone = {exploit.name for exploit in EXPLOITS if exploit.alone("cuda")}
    assert {"out_of_memory", "honest_timed", "replace_clock_object"} <= alone and "hang" not in alone
    assert not any(exploit.alone("cpu") for exploit in EXPLOITS)


@pytest.mark.parametrize("exploit", EXPLOITS, ids=lambda exploit: exploit.name)
def test_headers_are_complete(exploit: Any) -> None:
    assert set(exploit.header) >= {"class", "reason", "run", "device"}
    assert exploit.header["run"] in ("test", "benchmark", "leaderboard", "official")
    assert exploit.header["device"] in ("any", "cpu", "cuda")
    assert exploit.expected <= {str(reason) for reason in Reason} | {"PASS"}
    assert "from _honest" not in exploit.source()
    compile(exploit.source(), exploit.name, "exec")


def test_enough_classes_are_covered() -> None:
    named = {exploit.header["class"] for exploit in EXPLOITS}
    demanded = (
        1,
        4,
        6,
        7,
        10,
        11,
        12,
        13,
        15,
        18,
        19,
        20,
        21,
        22,
        27,
        28,
        29,
        33,
        34,
        35,
        42,
        44,
        51,
        52,
        53,
    )
    demanded += (54, 59, 60, 62, 73, 74)
    assert {str(number) for number in demanded} <= named
    assert {"hang", "OOM", "segfault", "10 MB of output", "64"} <= named
