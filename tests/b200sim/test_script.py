"""`python -m b200sim SCRIPT`: the script and what it spawns have the GPU, and end as they would with one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = '''
import multiprocessing
import sys
import helper
import torch

class Order:
    """Pickled by its name in __main__: the child must have imported this script."""
    def __init__(self, count):
        self.count = count

def add(order):
    ones = torch.ones(order.count, device="cuda")
    count = torch.cuda.get_device_properties(0).multi_processor_count
    return str(ones.device), (ones + 1).cpu().tolist(), count

if __name__ == "__main__":
    print(sys.argv[1:], helper.WORD, torch.cuda.get_device_name())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(add, (Order(2),)))
    process = multiprocessing.get_context("spawn").Process(target=sys.exit, args=(7,))
    process.start()
    process.join()
    print(process.exitcode)
    sys.exit(3)
'''
CLOCK = """
import torch
events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
for event in events:
    event.record()
events[0].elapsed_time(events[1])
"""
KERNEL = """
import cutlass.cute as cute

@cute.kernel
def ask_for_more():
    cute.arch.setmaxregister_increase(232)

@cute.jit
def launch():
    for _ in range(2):
        ask_for_more().launch(grid=(1, 1, 1), block=(640, 1, 1)ARGUMENTS)

launch()
"""


def b200sim(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "b200sim", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.heavy
def test_a_script_and_its_children_have_the_gpu(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "script.py").write_text(SCRIPT)
    (tmp_path / "inner" / "helper.py").write_text("WORD = 'beside the script'")
    done = b200sim(tmp_path, "--sms", "6", "inner/script.py", "--sms", "x")
    assert done.returncode == 3, done.stderr
    assert done.stdout.splitlines() == [
        "['--sms', 'x'] beside the script NVIDIA B200",
        "('cuda:0', [2.0, 2.0], 6)",
        "7",
    ]


@pytest.mark.heavy
def test_there_is_no_clock_and_the_traceback_is_the_scripts(tmp_path: Path) -> None:
    (tmp_path / "clock.py").write_text(CLOCK)
    done = b200sim(tmp_path, "clock.py")
    assert done.returncode == 1
    assert "Unsupported" in done.stderr and "has no clock" in done.stderr
    assert done.stderr.splitlines()[1].strip() == 'File "clock.py", line 6, in <module>'


@pytest.mark.heavy
def test_notes_are_told_once_and_a_hang_is_an_error(tmp_path: Path) -> None:
    """setmaxnreg without a register count at launch has no effect; with one, 640 threads wait for ever."""
    (tmp_path / "ignored.py").write_text(KERNEL.replace("ARGUMENTS", ""))
    done = b200sim(tmp_path, "ignored.py")
    assert done.returncode == 0, done.stderr
    notes = [line for line in done.stderr.splitlines() if line.startswith("b200sim: ")]
    assert len(notes) == 1 and "ask_for_more" in notes[0] and "setmaxnreg has no effect" in notes[0]
    (tmp_path / "stuck.py").write_text(KERNEL.replace("ARGUMENTS", ", min_blocks_per_mp=1"))
    done = b200sim(tmp_path, "stuck.py")
    assert done.returncode == 1 and "has no effect" not in done.stderr
    assert "launched with 96 per thread" in done.stderr
    assert "would fit: 96 for the 20 warps at 232" in done.stderr


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.py"], "cannot read missing.py: No such file"),
        (["."], "cannot read .: Is a directory"),
        (["--sms", "149", "x.py"], "149 SMs; a simulated B200 has 1 to 148"),
        (["--gpu", "a100", "x.py"], "invalid choice: 'a100'"),
        ([], "the following arguments are required: SCRIPT"),
    ],
)
def test_wrong_usage_is_named(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = b200sim(tmp_path, *arguments)
    assert done.returncode == 2 and said in done.stderr
