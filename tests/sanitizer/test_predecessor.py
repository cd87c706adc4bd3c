"""What may be read before griddepcontrol.wait: a submission's own memory, if no kernel ever writes there."""

from dataclasses import replace

import numpy as np
import pytest

from b200sim.global_memory import Allocation
from b200sim.machine.schedule import ProgramOrder
from b200sim.sanitizer import Explored, Findings, Sanitizer, Session
from b200sim.sanitizer.predecessor import Predecessors
from tests.sanitizer.corpus_small import small
from tests.sanitizer.run import run_ptx

EARLY = {"input_before_dependency"}
READ = "ld.param.u64 %a, [p0]; ld.global.b32 %t1, [%a];"
READ_CONSTANT = READ.replace("ld.global", "ld.global.nc")
WRITE = "ld.param.u64 %a, [p0]; st.global.b32 [%a], 1;"
ADD = "ld.param.u64 %a, [p0]; red.global.add.u32 [%a], 1;"
WAIT = "griddepcontrol.wait;"


def launch(body: str, **more):  # type: ignore[no-untyped-def]
    data = lambda: ([np.zeros(4, np.uint32), np.zeros(4, np.uint32)], np.zeros(4, np.uint32))  # noqa: E731
    return replace(small("early", "", f"setp.ne.u32 %p, %tid, 0; @%p bra DONE;\n{body}", data), **more)


@pytest.mark.parametrize(
    ("body", "inputs", "codes"),
    [
        (READ + WAIT, (), set()),
        (READ + WAIT, (0,), EARLY),  # of an input
        (READ + WAIT + WRITE, (), EARLY),  # written later
        (READ + WAIT + ADD, (), EARLY),
        (WAIT + READ + WRITE, (), set()),
        (WRITE + WAIT, (), EARLY),
        (ADD + WAIT, (), EARLY),
        (WAIT + READ, (0,), set()),
        (WAIT + READ_CONSTANT, (0,), EARLY),  # may be moved before the wait
        (WAIT + READ_CONSTANT, (), set()),
        (WAIT + READ_CONSTANT + WRITE, (), EARLY),
    ],
)
def test_in_one_launch(body: str, inputs: tuple[int, ...], codes: set[str]) -> None:
    assert run_ptx(launch(body, pdl=True, inputs=inputs)).findings.codes() == codes


def test_without_a_predecessor_that_may_overlap_nothing_is_early() -> None:
    assert run_ptx(launch(READ + WRITE)).findings.codes() == set()
    assert run_ptx(launch(READ_CONSTANT, inputs=(0,))).findings.codes() == set()


def test_a_constant_read_is_told_from_an_early_one() -> None:
    early, constant = (
        next(iter(run_ptx(launch(body, pdl=True, inputs=(0,))).findings))
        for body in (READ, WAIT + READ_CONSTANT)
    )
    assert "nothing orders it" in early.message
    assert constant.message.startswith("ld.global.nc.b32 reads as constant (.nc)")
    assert "ld.global without .nc" in str(constant.as_dict())


def test_a_read_is_too_early_as_soon_as_a_later_launch_writes_there() -> None:
    predecessors, findings = Predecessors(), Findings()
    arrays, _ = (defect := launch(READ + WAIT, pdl=True)).data()
    grid = defect.grid(arrays, ProgramOrder())
    grid.observer = Sanitizer(findings, predecessors=predecessors)
    grid.run()
    assert findings.codes() == set()
    predecessors.wrote(grid.memory.find(arrays[0].ctypes.data))
    assert findings.codes() == EARLY


def test_lanes_that_read_in_several_places() -> None:
    """The first lane reads the submission's own memory, the others an input."""
    spread = """ld.param.u64 %a, [p0]; ld.param.u64 %b, [p1];
    setp.ne.u32 %p, %tid, 0; @%p mov.u64 %a, %b; ld.global.b32 %t1, [%a];"""
    defect = replace(launch(""), body=small("early", "", spread + WAIT).body, pdl=True)
    assert run_ptx(replace(defect, inputs=(1,))).findings.codes() == EARLY


def test_launches_of_a_session_know_of_each_other() -> None:
    mine, yours = (Allocation(name, 0, 0) for name in ("mine", "yours"))
    told: list[str] = []
    session = Predecessors()
    session.read(mine, lambda: told.append("mine"))
    session.wrote(yours)
    assert told == []
    session.read(yours, lambda: told.append("yours"))  # that an earlier launch wrote
    assert told == ["yours"]
    session.wrote(mine)  # the next launch would read what this one writes
    session.wrote(mine)
    assert told == ["yours", "mine"]


def test_the_launches_of_one_run_share_what_they_know() -> None:
    session = Session()
    first, second = (session.observer(Explored("program-order")) for _ in range(2))
    assert isinstance(first, Sanitizer) and isinstance(second, Sanitizer)
    assert first.predecessors is second.predecessors
