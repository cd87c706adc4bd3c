"""What a run on a Hopper GPU, or on another that is no B200, evaluates and is judged by."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from evaluator import facts, speed_of_light
from evaluator.cases import Case


@pytest.fixture
def gpu(monkeypatch):
    """Makes torch see a GPU of the given compute capability."""

    def show(major: int, minor: int = 0) -> None:
        properties = SimpleNamespace(name=f"GPU {major}.{minor}", major=major, minor=minor)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, minor))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: properties.name)

    return show


def test_hopper_gets_its_kernel_and_says_so(gpu):
    gpu(9)
    path, remark = facts.default_submission("cuda")
    assert path.name == "hopper.py" and path.is_file()
    assert "Hopper" in remark and "submissions/hopper.py" in remark
    assert "H200" in facts.choose_device("cuda")[1]


def test_b200_and_simulator_get_the_submission(gpu):
    gpu(10)
    assert facts.default_submission("cuda") == (facts.ROOT / "submission.py", "")
    gpu(8, 6)
    assert facts.default_submission("sim") == (facts.ROOT / "submission.py", "")


def test_other_gpus_are_refused_with_their_name(gpu):
    gpu(8, 6)
    with pytest.raises(LookupError, match=r"no kernel here for GPU 8\.6, .*--submission"):
        facts.default_submission("cuda")


def test_hopper_is_judged_by_its_own_bounds():
    case = Case("one", (128, 384), (4096, 4096), (1536, 1536), 2, 1111, speed_of_light_us=1.525)
    machine = speed_of_light.machine_of({"device": {"compute_capability": [9, 0]}})
    bound = speed_of_light.floor(case, machine)
    assert bound.source == "model"
    assert bound.microseconds == pytest.approx(2 * 512 * 4096 * 1536 / 790e12 * 1e6)
    assert speed_of_light.floor(case, speed_of_light.machine_of({"device": {}})).microseconds == 1.525
