"""Instructions about the grid and its resources that change no value here (PTX ISA 9.7.13.13, 9.7.19)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from b200sim.faults import Fault
from b200sim.isa.registry import check_modifiers, instruction
from b200sim.machine.program import Operation
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import Immediate, Instruction

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp


@instruction("griddepcontrol")
def grid_dependency(ins: Instruction, binder: Binder) -> Operation:
    """griddepcontrol.{wait, launch_dependents}: launches run one after the other here, so both are met."""
    check_modifiers(ins, "wait", "launch_dependents")

    def operation(warp: Warp) -> None:
        watch = warp.cta.grid.observer
        if watch is not None:
            watch.fence(warp, ins)

    return operation


@instruction("setmaxnreg")
def set_register_count(ins: Instruction, binder: Binder) -> Operation:
    """setmaxnreg.{inc,dec}.sync.aligned.u32 n: n is a multiple of 8 in 24..256."""
    check_modifiers(ins, "inc", "dec", "sync", "aligned", "u32")
    operand = ins.operands[0]
    if isinstance(operand, Immediate) and not (24 <= operand.value <= 256 and operand.value % 8 == 0):
        raise Fault("setmaxnreg", f"setmaxnreg {operand.value}: must be a multiple of 8 from 24 to 256").at(
            ins.place()
        )

    def operation(warp: Warp) -> None:
        warp.require_all_lanes(ins.mnemonic)

    return operation
