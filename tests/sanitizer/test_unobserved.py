"""scripts/unobserved.py: the simulator without its hooks computes the same and tells nobody."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = """
import json, sys
sys.path[:0] = ["scripts", "."]
import unobserved
{prepare}
from b200sim.machine.observer import Observer
from b200sim.machine.schedule import ProgramOrder
from tests.sanitizer.corpus_ptx import PtxDefect
from tests.sanitizer.pipeline import KERNEL

events = []
class Listener(Observer):
    pass
for name in [name for name in vars(Observer) if not name.startswith("_")]:
    setattr(Listener, name, lambda *arguments, name=name: events.append(name))
kernel = PtxDefect("clean", "", KERNEL)
arrays, expected = kernel.data()
grid = kernel.grid(arrays, ProgramOrder())
grid.observer = Listener()
grid.run()
print(json.dumps([bool((arrays[-1] == expected).all()), len(events), {tests}]))
"""


def run(prepare: str, tests: str = "0") -> list[int]:
    code = RUN.format(prepare=prepare, tests=tests)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_without_hooks_nobody_is_told_and_the_result_is_the_same() -> None:
    right, events, _ = run("")
    assert right and events > 100
    assert run("unobserved.cut()") == [True, 0, 0]


def test_every_event_follows_a_counted_test() -> None:
    right, events, tests = run("tests = unobserved.count()", "tests()")
    assert right and tests >= 100
    assert run("tests = unobserved.count()", "tests()") == [right, events, tests]


def test_too_late_is_an_error() -> None:
    with pytest.raises(AssertionError, match="imported already"):
        run("import b200sim.machine.grid\nunobserved.cut()")
