"""Instructions about the grid and its resources, which change no value here (PTX ISA 9.7.13.13, 9.7.19)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from b200sim.faults import Fault
from b200sim.isa.registry import check_modifiers, instruction, terminator
from b200sim.machine.program import BLOCKED, Operation, Terminator
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


@instruction("setmaxnreg.dec")
def decrease_registers(ins: Instruction, binder: Binder) -> Operation:
    """setmaxnreg.dec.sync.aligned.u32 n: the warp's registers beyond n per thread go to the CTA's pool."""
    count = _register_count(ins)

    def operation(warp: Warp) -> None:
        warp.require_all_lanes(ins.mnemonic)
        pool = warp.cta.registers
        if pool is not None:
            pool.release(warp, count, ins)

    return operation


@terminator("setmaxnreg.inc")
def increase_registers(ins: Instruction, binder: Binder) -> Terminator:
    """setmaxnreg.inc.sync.aligned.u32 n: waits until the CTA's pool holds what the warp lacks to n each."""
    count = _register_count(ins)
    following = binder.next_block

    def operation(warp: Warp) -> int:
        warp.require_all_lanes(ins.mnemonic)
        pool = warp.cta.registers
        return following if pool is None or pool.acquire(warp, count, ins) else BLOCKED

    return operation


def _register_count(ins: Instruction) -> int:
    """Fault "setmaxnreg": no multiple of 8 in 24..256 (PTX ISA 9.7.19.5)."""
    check_modifiers(ins, "inc", "dec", "sync", "aligned", "u32")
    operand = ins.operands[0]
    if not isinstance(operand, Immediate):
        raise Fault("setmaxnreg", "the register count of setmaxnreg must be a constant").at(ins.place())
    if not 24 <= operand.value <= 256 or operand.value % 8:
        raise Fault("setmaxnreg", f"setmaxnreg {operand.value}: must be a multiple of 8 from 24 to 256").at(
            ins.place()
        )
    return operand.value
