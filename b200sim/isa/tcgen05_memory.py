"""Tensor memory: its allocation, and loads and stores between it and registers (PTX ISA 9.7.16.7, 9.7.16.8).

Loads and stores happen at once here; the waits and fences that order them change no value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from b200sim.faults import Fault, Unsupported
from b200sim.isa.addresses import shared_address
from b200sim.isa.registry import check_modifiers, instruction, terminator
from b200sim.machine.program import BLOCKED, Operation, Terminator
from b200sim.machine.values import spread
from b200sim.machine.waiting import AllocationRequest
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import Immediate, Instruction, Operand, Vector
from b200sim.tensor_memory import register_count

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

LD_SHAPES = ("32x32b", "16x64b", "16x128b", "16x256b", "16x32bx2")
LD_WORDS = ("ld", "st", "sync", "aligned", "b32", "pack::16b", "unpack::16b", *LD_SHAPES)


# -- tensor memory management -----------------------------------------------------------------------------


@terminator("tcgen05.alloc")
def allocate(ins: Instruction, binder: Binder) -> Terminator:
    """tcgen05.alloc [destination], columns: waits for free columns; their address goes to shared memory.

    With `.cta_group::2` it waits until a warp of each CTA of the pair has asked, which the manual allows.
    """
    check_modifiers(ins, "alloc", "cta_group::1", "cta_group::2", "sync", "aligned", "shared::cta", "b32")
    base, offset = binder.address(ins.operands[0])
    columns = binder.source(ins.operands[1], 32)
    following, pair = binder.next_block, ins.has("cta_group::2")

    def operation(warp: Warp) -> int:
        warp.require_all_lanes(ins.mnemonic)
        cta = warp.cta
        destination = shared_address(warp.uniform(base, "the destination of tcgen05.alloc") + offset)
        place = cta.offset(destination, 4, ins.mnemonic)
        count = warp.uniform(columns, "the column count of tcgen05.alloc")
        request = AllocationRequest(warp, ins, count, place)
        if pair:
            return following if _allocate_in_pair(request) else BLOCKED
        address = cta.tmem.allocate(count)
        if address is None:
            cta.tmem_wait.block(warp)
            return BLOCKED
        _hand_out(request, address)
        return following

    return operation


def _hand_out(request: AllocationRequest, address: int) -> None:
    cta = request.warp.cta
    cta.smem_views[4][request.place // 4] = address
    watch = cta.grid.observer
    if watch is not None:
        watch.tensor_allocated(request.warp, request.ins, address, request.columns, request.place)


def _allocate_in_pair(request: AllocationRequest) -> bool:
    """Whether the warp has its columns; if not, it is blocked. The second of the two serves both."""
    warp, cta = request.warp, request.warp.cta
    cluster = cta.cluster
    if cta.rank >> 1 >= len(cluster.pair_allocations):
        raise Fault(
            "cta_pair", f"{request.ins.mnemonic} in a cluster of {len(cluster.ctas)}: it needs a pair"
        )
    meeting = cluster.pair_allocations[cta.rank >> 1]
    if warp in meeting.served:
        meeting.served.remove(warp)
        return True
    meeting.asked[cta.rank] = request
    both = list(meeting.asked.values())
    if len({asked.columns for asked in both}) > 1:
        counts = " and ".join(str(asked.columns) for asked in both)
        raise Fault("tmem_alloc_pair", f"the CTAs of a pair allocate {counts} columns: it must be the same")
    if len(both) < 2 or not _serve(both):
        meeting.block(warp)
        return False
    meeting.asked.clear()
    meeting.served.update(asked.warp for asked in both if asked.warp is not warp)
    meeting.wake()
    return True


def _serve(both: list[AllocationRequest]) -> bool:
    """The same columns for both CTAs, or none."""
    addresses = [request.warp.cta.tmem.allocate(request.columns) for request in both]
    if None in addresses:
        for request, address in zip(both, addresses, strict=True):
            if address is not None:
                request.warp.cta.tmem.free(address, request.columns)
        return False
    if addresses[0] != addresses[1]:
        first, second = addresses
        raise Fault("tmem_alloc_pair", f"the CTAs of a pair get columns {first} and {second}")
    for request, address in zip(both, addresses, strict=True):
        assert address is not None
        _hand_out(request, address)
    return True


@instruction("tcgen05.dealloc")
def deallocate(ins: Instruction, binder: Binder) -> Operation:
    check_modifiers(ins, "dealloc", "cta_group::1", "cta_group::2", "sync", "aligned", "b32")
    address, columns = (binder.source(operand, 32) for operand in ins.operands)

    def operation(warp: Warp) -> None:
        warp.require_all_lanes(ins.mnemonic)
        place = warp.uniform(address, "the address of tcgen05.dealloc")
        count = warp.uniform(columns, "the column count of tcgen05.dealloc")
        warp.cta.tmem.free(place, count)
        watch = warp.cta.grid.observer
        if watch is not None:
            watch.tensor_freed(warp, ins, place & 0xFFFF, count)
        warp.cta.tmem_wait.wake()
        for meeting in warp.cta.cluster.pair_allocations:
            meeting.wake()

    return operation


@instruction("tcgen05.relinquish_alloc_permit")
def relinquish(ins: Instruction, binder: Binder) -> Operation:
    def operation(warp: Warp) -> None:
        warp.require_all_lanes(ins.mnemonic)
        warp.cta.tmem.relinquish()
        watch = warp.cta.grid.observer
        if watch is not None:
            watch.relinquished(warp, ins)

    return operation


# -- tensor memory to and from registers ------------------------------------------------------------------


def _shape(ins: Instruction) -> tuple[str, int]:
    shape = next(word for word in ins.modifiers if word in LD_SHAPES)
    repeat = next(word for word in ins.modifiers if word[0] == "x" and word[1:].isdigit())
    check_modifiers(ins, repeat, *LD_WORDS)
    return shape, int(repeat[1:])


def _half_split(ins: Instruction, position: int) -> int:
    if len(ins.operands) <= position:
        return 0
    operand = ins.operands[position]
    if not isinstance(operand, Immediate):
        raise Unsupported(f"{ins.mnemonic}: split offset that is not an immediate")
    return operand.value


@instruction("tcgen05.ld")
def load(ins: Instruction, binder: Binder) -> Operation:
    """tcgen05.ld.sync.aligned.SHAPE.xN[.pack::16b].b32 {registers}, [address]."""
    shape, count = _shape(ins)
    pack = ins.has("pack::16b")
    split_at_end = shape == "16x32bx2"
    slots = binder.writes(ins.operands[0])
    base, offset = binder.address(ins.operands[1])
    half_split = _half_split(ins, 2) if split_at_end else 0
    _check_register_count(ins, shape, count, len(slots))

    def operation(warp: Warp) -> None:
        warp.require_all_lanes(ins.mnemonic)
        address = _lane_base(warp, base) + offset
        rows = warp.cta.tmem.load(shape, count, address, warp.index, pack, half_split)
        watch = warp.cta.grid.observer
        if watch is not None:
            spans = warp.cta.tmem.span(shape, count, address, pack, half_split)
            watch.tensor_access(warp, ins, spans, "read")
        put = warp.put
        for slot, row in zip(slots, rows, strict=True):
            put(slot, row)

    return operation


@instruction("tcgen05.ld.red")
def load_and_reduce(ins: Instruction, binder: Binder) -> Operation:
    raise Unsupported(f"{ins.mnemonic}: sm_103 and sm_110 have it, a B200 (sm_100) has not")


@instruction("tcgen05.st")
def store(ins: Instruction, binder: Binder) -> Operation:
    """tcgen05.st.sync.aligned.SHAPE.xN[.unpack::16b].b32 [address], {registers}."""
    shape, count = _shape(ins)
    unpack = ins.has("unpack::16b")
    base, offset = binder.address(ins.operands[0])
    half_split = _half_split(ins, 1) if shape == "16x32bx2" and len(ins.operands) > 2 else 0
    slots = [binder.source(item, 32) for item in _items(ins.operands[-1])]
    _check_register_count(ins, shape, count, len(slots))

    def operation(warp: Warp) -> None:
        warp.require_all_lanes(ins.mnemonic)
        address = _lane_base(warp, base) + offset
        rows = np.stack([spread(warp.regs[slot], 32) for slot in slots])
        warp.cta.tmem.store(shape, count, address, warp.index, rows, unpack, half_split)
        watch = warp.cta.grid.observer
        if watch is not None:
            spans = warp.cta.tmem.span(shape, count, address, unpack, half_split)
            watch.tensor_access(warp, ins, spans, "write")

    return operation


def _items(operand: Operand) -> tuple[Operand, ...]:
    return operand.items if isinstance(operand, Vector) else (operand,)


def _check_register_count(ins: Instruction, shape: str, count: int, found: int) -> None:
    wanted = register_count(shape, count)
    if found != wanted:
        raise Unsupported(f"{ins.mnemonic} with {found} registers, expected {wanted}")


def _lane_base(warp: Warp, slot: int) -> int:
    return warp.uniform(slot, "the tensor memory address of a warp")


@instruction(
    "tcgen05.wait::ld",
    "tcgen05.wait::st",
    "tcgen05.fence::before_thread_sync",
    "tcgen05.fence::after_thread_sync",
)
def ordering(ins: Instruction, binder: Binder) -> Operation:
    """wait::ld, wait::st and the thread-sync fences: loads and stores happen at once here."""
    check_modifiers(
        ins,
        "wait::ld",
        "wait::st",
        "sync",
        "aligned",
        "fence::before_thread_sync",
        "fence::after_thread_sync",
    )

    def operation(warp: Warp) -> None:
        watch = warp.cta.grid.observer
        if watch is not None:
            watch.fence(warp, ins)

    return operation
