"""mbarrier instructions (PTX ISA 9.7.13.15). The object itself is `machine.waiting.MBarrier`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from b200sim.faults import Fault
from b200sim.isa.addresses import shared_address
from b200sim.isa.registry import check_modifiers, instruction, terminator
from b200sim.machine.program import BLOCKED, YIELDED, Operation, Terminator
from b200sim.machine.values import FULL, LANES, Value, lane
from b200sim.machine.waiting import MBarrier
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import Address, Instruction, Sink

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

WORDS = (
    "init", "inval", "arrive", "arrive_drop", "expect_tx", "complete_tx", "try_wait", "test_wait", "parity",
    "noComplete",
    "shared", "shared::cta", "shared::cluster", "b64", "release", "acquire", "relaxed", "cta", "cluster",
)  # fmt: skip

PHASE_BITS = 40  # of a state; the pending count lies above
LOOP = 16  # instructions: the same wait again after no more than this many is a loop around it


def barrier_at(warp: Warp, address: int, what: str, remote: bool = True) -> MBarrier:
    """The mbarrier at a shared or generic address: in this CTA, or if `remote` in another of the cluster."""
    address = shared_address(address)
    if not remote:
        return warp.cta.barrier(warp.cta.offset(address, 8, what))
    cta, offset = warp.cta.cluster.cta_of(address, what)
    if cta is not warp.cta:
        cta = warp.cta.cluster.live_cta(cta.rank, what)
    return cta.barrier(offset)


def _reaches_cluster(ins: Instruction) -> bool:
    """`.shared::cluster` and generic addresses may lie in another CTA."""
    return not (ins.has("shared") or ins.has("shared::cta"))


@instruction("mbarrier.init")
def init(ins: Instruction, binder: Binder) -> Operation:
    check_modifiers(ins, *WORDS)
    base, offset = binder.address(ins.operands[0])
    count = binder.source(ins.operands[1], 32)

    def operation(warp: Warp) -> None:
        counts = {
            shared_address(lane(warp.regs[base], i) + offset): lane(warp.regs[count], i)
            for i in warp.active_lanes()
        }
        watch = warp.cta.grid.observer
        for address, expected in counts.items():
            warp.cta.init_barrier(address, expected)
            if watch is not None:
                watch.mbarrier_init(warp, ins, warp.cta, address & 0xFFFFFF)

    return operation


@instruction("mbarrier.inval")
def invalidate(ins: Instruction, binder: Binder) -> Operation:
    check_modifiers(ins, *WORDS)
    base, offset = binder.address(ins.operands[0])

    def operation(warp: Warp) -> None:
        for address in {shared_address(lane(warp.regs[base], i) + offset) for i in warp.active_lanes()}:
            place = warp.cta.offset(address, 8, ins.mnemonic)
            warp.cta.barrier(place)
            watch = warp.cta.grid.observer
            if watch is not None:
                watch.mbarrier_inval(warp, ins, warp.cta, place)
            del warp.cta.barriers[place]

    return operation


@instruction("mbarrier.arrive", "mbarrier.arrive_drop")
def arrive(ins: Instruction, binder: Binder) -> Operation:
    """mbarrier.arrive[_drop][.expect_tx] state, [address][, count or bytes]: once per active lane.

    The state holds the phase that the arrival belongs to, and how many arrivals were pending before it.
    `.noComplete` promises that the arrival completes no phase.

    The lanes of a warp arrive at once: all get the state from before, and together they must not be more than
    are pending (tests/silicon, mbarrier/lanes-*: an H200 ends the launch where PTX, read thread by thread,
    would let the first ones complete the phase and the others begin the next). Assumed of arrive_drop too;
    not of expect_tx and of `.shared::cluster`, which no GPU has shown.
    """
    check_modifiers(ins, *WORDS)
    expects, drops, remote = ins.has("expect_tx"), ins.has("arrive_drop"), _reaches_cluster(ins)
    has_state = not isinstance(ins.operands[0], Address)
    state = binder.write(ins.operands[0]) if has_state and not isinstance(ins.operands[0], Sink) else None
    address_operand, *rest = ins.operands[1:] if has_state else ins.operands
    base, offset = binder.address(address_operand)
    amount = binder.source(rest[0], 32) if rest else None
    at_once = not expects and not ins.has("shared::cluster")

    def operation(warp: Warp) -> None:
        states = np.zeros(LANES, np.uint64)
        watch = warp.cta.grid.observer
        arrivals = []
        for i in warp.active_lanes():
            barrier = barrier_at(warp, lane(warp.regs[base], i) + offset, ins.mnemonic, remote)
            states[i] = barrier.phase | barrier.pending << PHASE_BITS
            arrivals.append((barrier, 1 if amount is None else lane(warp.regs[amount], i)))
        if at_once and len(arrivals) > 1:
            _check_together(arrivals)
        for barrier, value in arrivals:
            if watch is not None:
                watch.mbarrier_arrive(warp, ins, barrier, 1 if expects else value, value if expects else 0)
            if drops:
                barrier.drop(1 if expects else value)
            if expects:
                barrier.arrive_and_expect(value)
            else:
                barrier.arrive(value)
            if watch is not None:
                watch.mbarrier_arrived(warp, ins, barrier)
        if state is not None:
            warp.put(state, states)

    return operation


def _check_together(arrivals: list[tuple[MBarrier, int]]) -> None:
    """Fault 'mbarrier_overflow' where one instruction's lanes bring more arrivals than a barrier awaits."""
    totals: dict[MBarrier, int] = {}
    for barrier, count in arrivals:
        totals[barrier] = totals.get(barrier, 0) + count
    for barrier, total in totals.items():
        if total > barrier.pending:
            raise Fault(
                "mbarrier_overflow",
                f"the lanes of one instruction bring {total} arrivals to {barrier.name}, which expects only "
                f"{barrier.pending} more in phase {barrier.phase}; they count at once, in one phase",
            )


@instruction("mbarrier.pending_count")
def pending_count(ins: Instruction, binder: Binder) -> Operation:
    """mbarrier.pending_count.b64 count, state: the arrivals awaited before the one that gave state."""
    check_modifiers(ins, "pending_count", "b64")
    d, state = binder.write(ins.operands[0]), binder.source(ins.operands[1], 64)

    def operation(warp: Warp) -> None:
        value = warp.regs[state]
        if type(value) is int:
            warp.put(d, value >> PHASE_BITS)
        else:
            warp.put(d, (value >> np.uint64(PHASE_BITS)).astype(np.uint32))

    return operation


@instruction("mbarrier.expect_tx", "mbarrier.complete_tx")
def transactions(ins: Instruction, binder: Binder) -> Operation:
    """mbarrier.expect_tx adds to the bytes that are awaited; complete_tx subtracts, as a copy would."""
    check_modifiers(ins, *WORDS)
    completes, remote = ins.has("complete_tx"), _reaches_cluster(ins)
    base, offset = binder.address(ins.operands[0])
    nbytes = binder.source(ins.operands[1], 32)

    def operation(warp: Warp) -> None:
        for i in warp.active_lanes():
            barrier = barrier_at(warp, lane(warp.regs[base], i) + offset, ins.mnemonic, remote)
            count = lane(warp.regs[nbytes], i)
            watch = warp.cta.grid.observer
            if watch is not None:
                watch.mbarrier_arrive(warp, ins, barrier, 0, -count if completes else count)
            if completes:
                barrier.complete(count)
            else:
                barrier.expect(count)
            if watch is not None:
                watch.mbarrier_arrived(warp, ins, barrier)

    return operation


@terminator("mbarrier.try_wait", "mbarrier.test_wait")
def try_wait(ins: Instruction, binder: Binder) -> Terminator:
    """mbarrier.try_wait[.parity] p, [address], state or parity[, time limit].

    With a time limit the warp sleeps until the phase completes; the limit expires only when nothing else in
    the machine can move. Without one, and for test_wait, the answer is given at once, unless the warp asks
    in a loop: then it sleeps as well.
    """
    check_modifiers(ins, *WORDS)
    p = binder.write(ins.operands[0])
    base, offset = binder.address(ins.operands[1])
    expected = binder.source(ins.operands[2], 32)
    sleeps = ins.has("try_wait") and len(ins.operands) > 3
    by_parity = ins.has("parity")
    following = binder.next_block

    def ask(warp: Warp, address: int, wanted: int) -> MBarrier | None:
        """The barrier if it has not completed the wanted phase, else None."""
        barrier = barrier_at(warp, address, ins.mnemonic, remote=False)
        if not by_parity:
            wanted &= (1 << PHASE_BITS) - 1
        elif wanted > 1:
            raise Fault("mbarrier_parity", f"{ins.mnemonic} with parity {wanted}, must be 0 or 1")
        if not (barrier.passed(wanted) if by_parity else barrier.phase > wanted):
            return barrier
        watch = warp.cta.grid.observer
        if watch is not None:
            watch.mbarrier_passed(warp, ins, barrier, barrier.phase - 1 if by_parity else wanted)
        return None

    def operation(warp: Warp) -> int:
        address, wanted = warp.regs[base], warp.regs[expected]
        if type(address) is int and type(wanted) is int:
            missing = ask(warp, address + offset, wanted)
            passed = 0 if missing else FULL
        else:
            missing, passed = _ask_each(warp, ask, address, offset, wanted)
        warp.put(p, passed)
        if missing is None:
            warp.wait_expired = False
            return following
        asked, when = warp.last_poll
        if sleeps or (asked is operation and warp.executed - when <= LOOP):
            if not warp.wait_expired and not passed & warp.mask:
                missing.block(warp)
                return BLOCKED
            warp.wait_expired = False
            warp.last_poll = operation, warp.executed
            return following
        warp.last_poll = operation, warp.executed
        return YIELDED

    return operation


def _ask_each(
    warp: Warp, ask: Callable[[Warp, int, int], MBarrier | None], address: Value, offset: int, wanted: Value
) -> tuple[MBarrier | None, int]:
    """Lanes that wait for barriers or phases of their own: one that is missing, and the lanes that passed."""
    answers: dict[tuple[int, int], MBarrier | None] = {}
    missing, passed = None, 0
    for i in warp.active_lanes():
        key = lane(address, i) + offset, lane(wanted, i)
        if key not in answers:
            answers[key] = ask(warp, *key)
        if answers[key] is None:
            passed |= 1 << i
        else:
            missing = missing or answers[key]
    return missing, passed
