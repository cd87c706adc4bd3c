"""Which GPU is simulated, what follows from it, and kernels that are for another one."""

from __future__ import annotations

import json
import os

import pytest

import eval as front_door
import reference
from b200sim.gpus import GPUS, H200
from evaluator import facts, record, session, simulated, speed_of_light
from evaluator.arena import HOST_ROLES, Arena, MappedArena
from evaluator.devices import SimulatedGpu
from evaluator.options import SIMULATED, Options
from evaluator.processes import ROOT
from evaluator.verdict import ExitCode, Status

HOPPER = ROOT / "submissions" / "hopper.py"


def test_the_options_name_the_gpus_there_are():
    assert set(SIMULATED) == set(GPUS)


@pytest.mark.parametrize(
    ("line", "asked", "key"),
    [
        ("#!POPCORN gpu H100\n", None, "h200"),
        ("#!POPCORN gpus H200\n", None, "h200"),
        ("#!POPCORN gpu B200\n", None, "b200"),
        ("#!POPCORN gpu NVIDIA\n", None, "b200"),
        ("", None, "b200"),
        ("#!POPCORN gpu H100\n", "b200", "b200"),
        ("", "h200", "h200"),
    ],
)
def test_the_gpu_is_the_one_asked_for_or_the_submissions(tmp_path, line, asked, key):
    path = tmp_path / "submission.py"
    path.write_text("#!POPCORN leaderboard nvfp4_group_gemm\n" + line + "x = 1\n")
    gpu = simulated.choose(asked, path)
    assert gpu is GPUS[key]
    named = line.split()[-1] if line else ""
    differs = bool(asked and line)
    assert (f"not the {named}" in simulated.remark(gpu, path)) == differs


def test_facts_of_a_simulated_h200_are_judged_by_its_bounds():
    told = facts.gather("sim", "simulated H200", HOPPER, H200)
    assert told["device"]["simulated_gpu"] == "H200"
    assert speed_of_light.machine_of(told) is speed_of_light.H200
    assert facts.default_submission("sim", "h200")[0] == HOPPER


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mode", "test", "--device", "cpu", "--gpu", "h200"], "--gpu says which GPU to simulate"),
        (["--mode", "profile", "--gpu", "h200"], "--mode profile models a run from rates measured on a B200"),
        (["--mode", "test", "--sanitize", "--gpu", "h200", "--sms", "133"], "a simulated H200 has 1 to 132"),
    ],
)
def test_options_that_do_not_go_with_it(arguments, words, capfd):
    assert front_door.main(arguments) == ExitCode.USAGE
    output, errors = capfd.readouterr()
    assert words in output + errors


@pytest.mark.heavy
def test_the_hopper_kernel_on_a_simulated_h200(tmp_path, capsys):
    """One official case through judge and worker, unasked: its first lines say that it is for an H100."""
    run = session.evaluate(Options("test", "sim", HOPPER, only=("0",)))
    assert "device: simulated H200" in capsys.readouterr().out
    (result,) = run.results
    assert result.verdict.status is Status.PASS and result.bit_exact
    record.write(run, 0, tmp_path / "run.json")
    written = json.loads((tmp_path / "run.json").read_text())
    bound = speed_of_light.floor(result.case, speed_of_light.H200).microseconds
    assert written["cases"][0]["speed_of_light_us"] == bound


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("submission", "gpu", "words"),
    [
        (
            HOPPER,
            "b200",
            "wgmma.fence is no instruction of NVIDIA B200, whose target is sm_100a; a simulated H200",
        ),
        (ROOT / "submission.py", "h200", "not compatible with sm_90a"),
    ],
)
def test_a_kernel_for_another_gpu(submission, gpu, words, capsys):
    run = session.evaluate(Options("test", "sim", submission, only=("0",), gpu=gpu))
    assert f"simulated {gpu.upper()}, not the" in capsys.readouterr().out
    (result,) = run.results
    assert not result.verdict.passed
    assert words in result.verdict.message


def test_kernels_may_write_to_outputs_alone():
    arena = Arena(reference.generate_input((8,), (128,), (256,), 1, 5, device="cpu"))
    mapped = MappedArena(os.dup(arena.fd), arena.message())
    gpu = SimulatedGpu(processes=1, gpu="h200")
    with gpu.active():
        tensors = {placed: gpu.place(mapped, placed) for placed in mapped.placed}
        with gpu.paused():
            found = {placed.role: gpu.simulated.memory.find(t.data_ptr()) for placed, t in tensors.items()}
    assert {role: known.writable for role, known in found.items() if role not in HOST_ROLES} == {
        "a": False,
        "b": False,
        "c": True,
        "sfa_reordered": False,
        "sfb_reordered": False,
    }
    arena.close()
