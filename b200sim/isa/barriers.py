"""Barriers of CTAs and clusters, and fences (PTX ISA 9.7.13.1 to 9.7.13.4).

Memory here is sequentially consistent and copies land where the schedule says, so a fence changes no value;
what a missing one would break is for observers to find.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from b200sim.faults import Fault, Unsupported
from b200sim.isa.registry import check_modifiers, instruction, terminator
from b200sim.machine.program import BLOCKED, Operation, Terminator
from b200sim.machine.values import FULL
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import Instruction

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

FORMS = ("cta", "sync", "arrive", "aligned", "red", "popc", "and", "or", "u32", "pred")


@terminator("bar.sync", "bar.cta.sync", "barrier.sync", "barrier.cta.sync")
def barrier_sync(ins: Instruction, binder: Binder) -> Terminator:
    """bar.sync number[, threads]: arrive and wait; all threads of the CTA if no count is given."""
    check_modifiers(ins, *FORMS)
    number = binder.source(ins.operands[0], 32)
    threads = binder.source(ins.operands[1], 32) if len(ins.operands) > 1 else None
    following = binder.next_block

    def operation(warp: Warp) -> int:
        return BLOCKED if _arrive_and_wait(warp, ins, number, threads) is None else following

    return operation


@terminator("bar.red", "bar.cta.red", "barrier.red", "barrier.cta.red")
def barrier_reduce(ins: Instruction, binder: Binder) -> Terminator:
    """bar.red.popc.u32 d, number[, threads], p and bar.red.{and,or}.pred: wait, and learn how all voted."""
    check_modifiers(ins, *FORMS)
    d = binder.write(ins.operands[0])
    number = binder.source(ins.operands[1], 32)
    threads = binder.source(ins.operands[2], 32) if len(ins.operands) > 3 else None
    p, flip = binder.predicate(ins.operands[-1])
    following = binder.next_block

    def operation(warp: Warp) -> int:
        vote = ((warp.regs[p] ^ flip) & warp.mask).bit_count(), warp.mask.bit_count()
        result = _arrive_and_wait(warp, ins, number, threads, vote)
        if result is None:
            return BLOCKED
        yes, voters = result
        if ins.has("popc"):
            warp.put(d, yes)
        else:
            warp.put(d, FULL if (yes == voters if ins.has("and") else yes > 0) else 0)
        return following

    return operation


def _arrive_and_wait(
    warp: Warp, ins: Instruction, number: int, threads: int | None, vote: tuple[int, int] = (0, 0)
) -> tuple[int, int] | None:
    """Arrive unless this warp has already; the sums of the votes once all have arrived, None to block."""
    cta = warp.cta
    watch = cta.grid.observer
    arrival = cta.named_arrivals.get(warp.index)
    if arrival is None:
        _require_converged(warp, ins)
        barrier = cta.named_barrier(warp.uniform(number, "the barrier number"))
        generation = barrier.generation
        barrier.votes.append(vote)
        if watch is not None:
            watch.barrier_arrive(warp, ins, barrier)
        barrier.arrive(warp, _count(warp, threads))
    else:
        barrier, generation = arrival
    if barrier.generation != generation:
        cta.named_arrivals.pop(warp.index, None)
        if watch is not None:
            watch.barrier_passed(warp, ins, barrier, generation)
        return barrier.results.get(generation + 1, (0, 0))
    cta.named_arrivals[warp.index] = barrier, generation
    barrier.block(warp)
    return None


def _require_converged(warp: Warp, ins: Instruction) -> None:
    if warp.mask != warp.alive and ins.opcode == "barrier" and not ins.has("aligned"):
        raise Unsupported(f"{ins.mnemonic} without .aligned in a divergent warp")
    warp.require_all_lanes(ins.mnemonic)


def _count(warp: Warp, threads: int | None) -> int | None:
    return None if threads is None else warp.uniform(threads, "the thread count of a barrier")


@instruction("bar.arrive", "bar.cta.arrive", "barrier.arrive", "barrier.cta.arrive")
def barrier_arrive(ins: Instruction, binder: Binder) -> Operation:
    check_modifiers(ins, *FORMS)
    number, threads = (binder.source(operand, 32) for operand in ins.operands)

    def operation(warp: Warp) -> None:
        _require_converged(warp, ins)
        barrier = warp.cta.named_barrier(warp.uniform(number, "the barrier number"))
        watch = warp.cta.grid.observer
        if watch is not None:
            watch.barrier_arrive(warp, ins, barrier)
        barrier.arrive(warp, _count(warp, threads))

    return operation


CLUSTER_FORMS = ("cluster", "arrive", "wait", "release", "acquire", "relaxed", "aligned")


@instruction("barrier.cluster.arrive")
def cluster_arrive(ins: Instruction, binder: Binder) -> Operation:
    check_modifiers(ins, *CLUSTER_FORMS)

    def operation(warp: Warp) -> None:
        _require_converged(warp, ins)
        cluster = warp.cta.cluster
        if warp in cluster.barrier_targets:
            raise Fault(
                "cluster_barrier", "barrier.cluster.arrive twice without a barrier.cluster.wait in between"
            )
        cluster.barrier_targets[warp] = cluster.barrier.phase + 1
        watch = cluster.grid.observer
        if watch is not None:
            watch.cluster_arrive(warp, ins)
        cluster.barrier.arrive()

    return operation


@terminator("barrier.cluster.wait")
def cluster_wait(ins: Instruction, binder: Binder) -> Terminator:
    check_modifiers(ins, *CLUSTER_FORMS)
    following = binder.next_block

    def operation(warp: Warp) -> int:
        cluster = warp.cta.cluster
        target = cluster.barrier_targets.get(warp)
        if target is None:
            raise Fault("cluster_barrier", "barrier.cluster.wait without a barrier.cluster.arrive before it")
        if cluster.barrier.phase >= target:
            watch = cluster.grid.observer
            if watch is not None:
                watch.cluster_passed(warp, ins)
            del cluster.barrier_targets[warp]
            return following
        cluster.barrier.block(warp)
        return BLOCKED

    return operation


FENCE_WORDS = (
    "proxy", "async", "async::generic", "alias", "tensormap::generic", "generic", "mbarrier_init", "acq_rel",
    "sc",
    "acquire", "release", "cta", "cluster", "gpu", "sys", "global", "shared::cta", "shared::cluster", "gl",
    "sync_restrict::shared::cta", "sync_restrict::shared::cluster",
)  # fmt: skip


@instruction("fence", "membar")
def fence(ins: Instruction, binder: Binder) -> Operation:
    check_modifiers(ins, *FENCE_WORDS)

    def operation(warp: Warp) -> None:
        watch = warp.cta.grid.observer
        if watch is not None:
            watch.fence(warp, ins)

    return operation


@instruction("fence.proxy.tensormap::generic.acquire")
def tensor_map_acquire(ins: Instruction, binder: Binder) -> Operation:
    """fence.proxy.tensormap::generic.acquire.SCOPE [map], 128: this CTA reads the map anew from here on."""
    check_modifiers(ins, *FENCE_WORDS)
    base, offset = binder.address(ins.operands[0])

    def operation(warp: Warp) -> None:
        address = warp.uniform(base, "the address of a tensor map") + offset
        warp.cta.tensor_maps.pop(address, None)
        watch = warp.cta.grid.observer
        if watch is not None:
            watch.tensor_map_acquired(warp, ins, address)

    return operation
