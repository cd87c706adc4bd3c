"""Run a mutant of `submission.py` on the simulated B200 and say what the evaluator finds."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import torch

import reference
from b200sim.device import SimulatedDevice
from b200sim.faults import Fault
from evaluator import problem
from tests.mutations import mutants
from tests.mutations.mutants import Mutant

SUBMISSION = Path(__file__).parents[2] / "submission.py"
SECONDS = 60.0


def mutated_source(mutant: Mutant) -> str:
    source = SUBMISSION.read_text()
    assert source.count(mutant.find) == 1, (
        f"{mutant.name}: {source.count(mutant.find)} places match {mutant.find!r}"
    )
    return source.replace(mutant.find, mutant.replace)


def outcome(mutant: Mutant) -> str:
    """The simulator's fault, or the message of the check, or `passed`."""
    case = getattr(mutants, mutant.case)
    data = reference.generate_input(**case, g=len(case["m"]), device="cpu")
    with tempfile.TemporaryDirectory() as folder, SimulatedDevice(time_limit=SECONDS) as device:
        with device.paused():
            for _, _, c in data[0]:
                c.view(torch.int16).fill_(-1)  # poison: NaN
            placed = problem.on_device(device, data)
        module = load(mutated_source(mutant), Path(folder))
        try:
            output = module.custom_kernel(placed)
        except Fault as fault:
            return str(fault)
        with device.paused():
            passed, message = reference.check_implementation(placed, output)
    return "passed" if passed else message


def load(source: str, folder: Path) -> ModuleType:
    """Import source text; the DSL reads a kernel's source from its file, so there must be one."""
    path = folder / "mutant.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("mutant", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutant"] = module  # and it stays: the DSL finds sources of known modules much faster
    spec.loader.exec_module(module)
    return module
