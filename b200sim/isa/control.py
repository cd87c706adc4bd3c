"""Control flow (PTX ISA 9.7.12)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from b200sim.faults import Fault
from b200sim.isa.calls import assertion_failed
from b200sim.isa.registry import check_modifiers, terminator
from b200sim.machine.program import EXITED, YIELDED, Terminator
from b200sim.machine.values import lane_mask, lowest_lane
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import Instruction

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp


@terminator("bra")
def branch(ins: Instruction, binder: Binder) -> Terminator:
    """@p bra target. `.uni` promises that the lanes agree, which is not relied on."""
    check_modifiers(ins, "uni")
    assert ins.target is not None
    target = binder.block_of_label.get(ins.target, -1)
    fall_through = binder.next_block
    if ins.guard is None:

        def always(warp: Warp) -> int:
            return target

        return always
    slot, flip = binder.predicate(ins.guard)

    def conditional(warp: Warp) -> int:
        taken = (warp.regs[slot] ^ flip) & warp.mask
        if taken == 0:
            return fall_through
        if taken == warp.mask:
            return target
        return warp.diverge(taken, target, fall_through)

    return conditional


@terminator("brx.idx")
def branch_by_index(ins: Instruction, binder: Binder) -> Terminator:
    """@p brx.idx index, table: to the label of that number in a `.branchtargets`. `.uni` as for bra.

    Lanes that go elsewhere than the first active one run this branch again (it is a block of its own).

    Raises:
        Fault: branch_index if the table has no such label (undefined in PTX).
    """
    check_modifiers(ins, "idx", "uni")
    index = binder.source(ins.operands[0], 32)
    targets = [binder.block_of_label.get(label, -1) for label in ins.targets]
    again = binder.next_block - 1

    def operation(warp: Warp) -> int:
        value, taken = warp.regs[index], warp.mask
        if type(value) is not int:
            lanes = value
            value = int(lanes[lowest_lane(taken)])
            taken &= lane_mask(lanes == value)
        if value >= len(targets):
            raise Fault("branch_index", f"index {value} into a table of {len(targets)} branch targets")
        if taken == warp.mask:
            return targets[value]
        return warp.diverge(taken, targets[value], again)

    return operation


@terminator("ret", "exit")
def leave(ins: Instruction, binder: Binder) -> Terminator:
    check_modifiers(ins, "uni")

    def operation(warp: Warp) -> int:
        return EXITED

    return operation


# What CuTe-DSL prints before the trap of `cute.testing.assert_` (compiled with --enable-assertions).
_ASSERTION = re.compile(
    r'\s*Location: loc\((?:"(?P<code>.*)"\()?"(?P<file>[^"]*)":(?P<line>\d+):\d+\)*\s*'
    r"Assertion Error: (?P<message>.*)",
    re.S,
)
_AFTER_PRINT = 32  # instructions: a trap this soon after a printf belongs to it


@terminator("trap", "brkpt")
def trap(ins: Instruction, binder: Binder) -> Terminator:
    """trap ends the launch; so does brkpt, as no debugger is attached."""

    def operation(warp: Warp) -> int:
        printed, when = warp.last_words
        text = printed.decode(errors="replace") if warp.executed - when <= _AFTER_PRINT else ""
        failed = _ASSERTION.match(text)
        if failed:
            what = failed["message"].strip() or failed["code"] or "?"
            raise assertion_failed(warp, what, f"{failed['file']}:{failed['line']}")
        said = f" after it printed {text.strip()!r}" if text else ""
        lanes = warp.active_lanes()
        raise Fault("trap", f"thread {warp.thread(lanes[0])} executed {ins.opcode}{said}")

    return operation


@terminator("nanosleep")
def sleep(ins: Instruction, binder: Binder) -> Terminator:
    """nanosleep only passes time: the warp gives way to others once."""
    check_modifiers(ins, "u32")

    def operation(warp: Warp) -> int:
        return YIELDED

    return operation
