"""Barriers of CTAs and clusters, and fences (PTX ISA 9.7.13.1 to 9.7.13.4).

Memory here is sequentially consistent and copies land where the schedule says, so a fence changes no value;
what a missing one would break is for observers to find.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from b200sim.faults import Fault
from b200sim.isa.registry import BLOCKED, Operation, Terminator, check_modifiers, instruction, terminator
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import Instruction

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

FORMS = ("cta", "sync", "arrive", "aligned")


@terminator("bar.sync", "bar.cta.sync", "barrier.sync", "barrier.cta.sync")
def barrier_sync(ins: Instruction, binder: Binder) -> Terminator:
    """bar.sync number[, threads]: arrive and wait; all threads of the CTA if no count is given."""
    check_modifiers(ins, *FORMS)
    number = binder.source(ins.operands[0], 32)
    threads = binder.source(ins.operands[1], 32) if len(ins.operands) > 1 else None
    following = binder.next_block

    def operation(warp: Warp) -> int:
        cta = warp.cta
        arrival = cta.named_arrivals.get(warp.index)
        if arrival is None:
            warp.require_all_lanes(ins.mnemonic)
            barrier = cta.named_barrier(warp.uniform(number, "the barrier number"))
            generation = barrier.generation
            barrier.arrive(warp, _count(warp, threads))
        else:
            barrier, generation = arrival
        if barrier.generation != generation:
            cta.named_arrivals.pop(warp.index, None)
            return following
        cta.named_arrivals[warp.index] = barrier, generation
        barrier.block(warp)
        return BLOCKED

    return operation


def _count(warp: Warp, threads: int | None) -> int:
    if threads is None:
        return -(-warp.cta.thread_count // 32) * 32
    return warp.uniform(threads, "the thread count of a barrier")


@instruction("bar.arrive", "bar.cta.arrive", "barrier.arrive", "barrier.cta.arrive")
def barrier_arrive(ins: Instruction, binder: Binder) -> Operation:
    check_modifiers(ins, *FORMS)
    number, threads = (binder.source(operand, 32) for operand in ins.operands)

    def operation(warp: Warp) -> None:
        warp.require_all_lanes(ins.mnemonic)
        barrier = warp.cta.named_barrier(warp.uniform(number, "the barrier number"))
        barrier.arrive(warp, _count(warp, threads))

    return operation


CLUSTER_FORMS = ("cluster", "arrive", "wait", "release", "acquire", "relaxed", "aligned")


@instruction("barrier.cluster.arrive")
def cluster_arrive(ins: Instruction, binder: Binder) -> Operation:
    check_modifiers(ins, *CLUSTER_FORMS)

    def operation(warp: Warp) -> None:
        warp.require_all_lanes(ins.mnemonic)
        cluster = warp.cta.cluster
        if warp in cluster.barrier_targets:
            raise Fault(
                "cluster_barrier", "barrier.cluster.arrive twice without a barrier.cluster.wait in between"
            )
        cluster.barrier_targets[warp] = cluster.barrier.phase + 1
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
            del cluster.barrier_targets[warp]
            return following
        cluster.barrier.block(warp)
        return BLOCKED

    return operation


FENCE_WORDS = (
    "proxy", "async", "async::generic", "alias", "tensormap::generic", "generic", "mbarrier_init", "acq_rel", "sc",
    "acquire", "release", "cta", "cluster", "gpu", "sys", "global", "shared::cta", "shared::cluster", "gl",
    "sync_restrict::shared::cta", "sync_restrict::shared::cluster",
)  # fmt: skip


@instruction("fence", "membar")
def fence(ins: Instruction, binder: Binder) -> Operation:
    check_modifiers(ins, *FENCE_WORDS)

    def operation(warp: Warp) -> None:
        return None

    return operation


@instruction("fence.proxy.tensormap::generic.acquire")
def tensor_map_acquire(ins: Instruction, binder: Binder) -> Operation:
    """fence.proxy.tensormap::generic.acquire.SCOPE [map], 128: this CTA reads the map anew from here on."""
    check_modifiers(ins, *FENCE_WORDS)
    base, offset = binder.address(ins.operands[0])

    def operation(warp: Warp) -> None:
        warp.cta.tensor_maps.pop(warp.uniform(base, "the address of a tensor map") + offset, None)

    return operation
