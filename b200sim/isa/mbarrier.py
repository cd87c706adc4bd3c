"""mbarrier instructions (PTX ISA 9.7.13.15). The object itself is `machine.waiting.MBarrier`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from b200sim.faults import Fault, Unsupported
from b200sim.isa.registry import (
    BLOCKED,
    YIELDED,
    Operation,
    Terminator,
    check_modifiers,
    instruction,
    terminator,
)
from b200sim.isa.values import FULL, lane
from b200sim.machine.waiting import MBarrier
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import Instruction, Sink

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

WORDS = (
    "init", "inval", "arrive", "arrive_drop", "expect_tx", "complete_tx", "try_wait", "test_wait", "parity", "noComplete",
    "shared", "shared::cta", "shared::cluster", "b64", "release", "acquire", "relaxed", "cta", "cluster",
)  # fmt: skip


def barrier_at(warp: Warp, address: int, what: str) -> MBarrier:
    """The mbarrier at a shared address, in this CTA or another of the cluster."""
    cta, offset = warp.cta.cluster.cta_of(address, what)
    if cta is not warp.cta:
        cta = warp.cta.cluster.live_cta(cta.rank, what)
    return cta.barrier(offset)


@instruction("mbarrier.init")
def init(ins: Instruction, binder: Binder) -> Operation:
    check_modifiers(ins, *WORDS)
    base, offset = binder.address(ins.operands[0])
    count = binder.source(ins.operands[1], 32)

    def operation(warp: Warp) -> None:
        for address in {lane(warp.regs[base], i) + offset for i in warp.active_lanes()}:
            warp.cta.init_barrier(address, warp.uniform(count, "the count of mbarrier.init"))

    return operation


@instruction("mbarrier.inval")
def invalidate(ins: Instruction, binder: Binder) -> Operation:
    check_modifiers(ins, *WORDS)
    base, offset = binder.address(ins.operands[0])

    def operation(warp: Warp) -> None:
        place = warp.cta.offset(
            warp.uniform(base, "the address of an mbarrier") + offset, 8, "mbarrier.inval"
        )
        warp.cta.barrier(place)
        del warp.cta.barriers[place]

    return operation


@instruction("mbarrier.arrive")
def arrive(ins: Instruction, binder: Binder) -> Operation:
    """mbarrier.arrive[.expect_tx] state, [address][, count or bytes]: once per active lane."""
    check_modifiers(ins, *WORDS)
    if ins.has("noComplete"):
        raise Unsupported(ins.mnemonic)
    expects = ins.has("expect_tx")
    state = None if isinstance(ins.operands[0], Sink) else binder.write(ins.operands[0])
    base, offset = binder.address(ins.operands[1])
    amount = binder.source(ins.operands[2], 32) if len(ins.operands) > 2 else None

    def operation(warp: Warp) -> None:
        phase = 0
        for i in warp.active_lanes():
            barrier = barrier_at(warp, lane(warp.regs[base], i) + offset, ins.mnemonic)
            phase = barrier.phase
            value = 1 if amount is None else lane(warp.regs[amount], i)
            if expects:
                barrier.arrive_and_expect(value)
            else:
                barrier.arrive(value)
        if state is not None:
            warp.put(state, phase)

    return operation


@instruction("mbarrier.arrive_drop", "mbarrier.pending_count", "mbarrier.complete_tx")
def rare(ins: Instruction, binder: Binder) -> Operation:
    raise Unsupported(ins.mnemonic)


@instruction("mbarrier.expect_tx")
def expect_tx(ins: Instruction, binder: Binder) -> Operation:
    check_modifiers(ins, *WORDS)
    base, offset = binder.address(ins.operands[0])
    nbytes = binder.source(ins.operands[1], 32)

    def operation(warp: Warp) -> None:
        for i in warp.active_lanes():
            barrier = barrier_at(warp, lane(warp.regs[base], i) + offset, ins.mnemonic)
            barrier.expect(lane(warp.regs[nbytes], i))

    return operation


@terminator("mbarrier.try_wait", "mbarrier.test_wait")
def try_wait(ins: Instruction, binder: Binder) -> Terminator:
    """mbarrier.try_wait[.parity] p, [address], state or parity[, time limit].

    With a time limit the warp sleeps until the phase completes; the limit expires only when nothing else in
    the machine can move. Without one, and for test_wait, the answer is given at once.
    """
    check_modifiers(ins, *WORDS)
    p = binder.write(ins.operands[0])
    base, offset = binder.address(ins.operands[1])
    expected = binder.source(ins.operands[2], 32)
    sleeps = ins.has("try_wait") and len(ins.operands) > 3
    by_parity = ins.has("parity")
    following = binder.next_block

    def operation(warp: Warp) -> int:
        address = warp.uniform(base, "the address of an mbarrier") + offset
        barrier = warp.cta.barrier(warp.cta.offset(address, 8, ins.mnemonic))
        wanted = warp.uniform(expected, "the phase of an mbarrier wait")
        if by_parity and wanted > 1:
            raise Fault("mbarrier_parity", f"{ins.mnemonic} with parity {wanted}, must be 0 or 1")
        if barrier.passed(wanted) if by_parity else barrier.phase > wanted:
            warp.wait_expired = False
            warp.put(p, FULL)
            return following
        warp.put(p, 0)
        if not sleeps:
            return YIELDED
        if warp.wait_expired:
            warp.wait_expired = False
            return following
        barrier.block(warp)
        return BLOCKED

    return operation
