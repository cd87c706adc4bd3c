"""Asynchronous copies of 4, 8 or 16 bytes per thread from global to shared memory (PTX ISA 9.7.9.25.3).

One instruction of a warp is one asynchronous operation. Those of a warp finish in the order of their issue,
which keeps an mbarrier arrival behind the copies it stands for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from b200sim.faults import Fault, Unsupported
from b200sim.isa.addresses import shared_address
from b200sim.isa.mbarrier import barrier_at
from b200sim.isa.registry import check_modifiers, instruction, terminator
from b200sim.machine.asynchronous import AsyncOperation
from b200sim.machine.observer import CopiesArrive, ThreadCopies
from b200sim.machine.program import BLOCKED, Operation, Terminator
from b200sim.machine.values import lane
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import Immediate, Instruction

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

HINTS = ("L2::64B", "L2::128B", "L2::256B", "L2::cache_hint")


def _post(warp: Warp, operation: AsyncOperation) -> None:
    operation.pipe = ("cp.async", warp.cta.rank, warp.index)
    warp.cta.cluster.post(operation)


@instruction("cp.async.ca", "cp.async.cg")
def copy(ins: Instruction, binder: Binder) -> Operation:
    """cp.async.{ca,cg}.shared.global [dst], [src], size[, bytes to read]: the rest is filled with zeros."""
    check_modifiers(ins, "async", "ca", "cg", "shared", "shared::cta", "global", *HINTS)
    dst, dst_offset = binder.address(ins.operands[0])
    src, src_offset = binder.address(ins.operands[1])
    size_operand, *rest = ins.operands[2:]
    if ins.has("L2::cache_hint"):
        rest.pop()
    if not isinstance(size_operand, Immediate):
        raise Unsupported(f"{ins.mnemonic} whose size is not an immediate")
    size = size_operand.value
    if size not in ((16,) if ins.has("cg") else (4, 8, 16)):
        raise Fault("cp_async_size", f"{ins.mnemonic} of {size} bytes").at(ins.place())
    count = binder.source(rest[0], 32) if rest else None

    def operation(warp: Warp) -> None:
        regs, cta, memory = warp.regs, warp.cta, warp.cta.grid.memory
        copies = []
        for i in warp.active_lanes():
            place = cta.offset(lane(regs[dst], i) + dst_offset, size, ins.mnemonic)
            source = lane(regs[src], i) + src_offset
            if place % size or source % size:
                raise Fault(
                    "misaligned",
                    f"{ins.mnemonic} of {size} bytes from {source:#x} to shared offset {place:#x}",
                )
            copies.append((place, source, size if count is None else min(lane(regs[count], i), size)))

        def perform() -> None:
            for place, source, nbytes in copies:
                target = cta.smem[place : place + size]
                target[nbytes:] = 0
                target[:nbytes] = memory.view(source, nbytes) if nbytes else np.empty(0, np.uint8)
            cta.grid.counters.global_load_bytes += sum(nbytes for *_, nbytes in copies)

        task = AsyncOperation("cp.async", perform, warp, ins.place(), ins=ins)
        if cta.grid.observer is not None:
            sources = np.array([source for _, source, nbytes in copies if nbytes], np.uint64)
            task.detail = ThreadCopies(np.array([place for place, *_ in copies]), size, sources)
        warp.copy_groups.add(warp.mask, task)
        _post(warp, task)

    return operation


@instruction("cp.async.commit_group")
def commit_group(ins: Instruction, binder: Binder) -> Operation:
    def operation(warp: Warp) -> None:
        watch = warp.cta.grid.observer
        if watch is not None:
            watch.copies_commit(warp, ins)
        warp.copy_groups.commit(warp.mask)

    return operation


@terminator("cp.async.wait_group", "cp.async.wait_all")
def wait_group(ins: Instruction, binder: Binder) -> Terminator:
    """wait_group n: at most n of this thread's newest groups are under way; wait_all: no copy at all is."""
    everything = ins.has("wait_all")
    newest = None if everything else binder.source(ins.operands[0], 32)
    following = binder.next_block

    def operation(warp: Warp) -> int:
        groups = warp.copy_groups
        allowed = 0 if newest is None else warp.uniform(newest, "the count of wait_group")
        if groups.reached(warp.mask, allowed) and not (everything and groups.has_open(warp.mask)):
            watch = warp.cta.grid.observer
            if watch is not None:
                watch.copies_passed(warp, ins, None if everything else allowed)
            return following
        groups.block(warp)
        return BLOCKED

    return operation


@instruction("cp.async.mbarrier.arrive")
def arrive(ins: Instruction, binder: Binder) -> Operation:
    """cp.async.mbarrier.arrive[.noinc].shared.b64 [mbarrier]: an arrival once earlier copies are done.

    Without .noinc the arrival is one more than the barrier expects in this phase.
    """
    check_modifiers(ins, "async", "mbarrier", "arrive", "noinc", "shared", "shared::cta", "b64")
    base, offset = binder.address(ins.operands[0])
    extra = not ins.has("noinc")

    def operation(warp: Warp) -> None:
        for i in warp.active_lanes():
            address = shared_address(lane(warp.regs[base], i) + offset)
            barrier = barrier_at(warp, address, ins.mnemonic, remote=False)
            if extra:
                barrier.pending += 1
            task = AsyncOperation("cp.async arrive", barrier.arrive, warp, ins.place(), ins=ins, thread=i)
            if warp.cta.grid.observer is not None:
                task.detail = CopiesArrive((warp.cta, address & 0xFFFFFF))
            _post(warp, task)

    return operation
