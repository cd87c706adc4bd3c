"""Asynchronous stores and reductions of single values into another CTA's shared memory (PTX ISA 9.7.9.12
st.async, 9.7.13.7 red.async). Their bytes complete on an mbarrier beside the destination."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from b200sim.faults import Fault, Unsupported
from b200sim.isa.addresses import shared_address
from b200sim.isa.atomics import COMBINE, on_integers
from b200sim.isa.registry import check_modifiers, instruction
from b200sim.machine.asynchronous import AsyncOperation
from b200sim.machine.cta import Cta
from b200sim.machine.observer import ThreadStore
from b200sim.machine.program import Operation
from b200sim.machine.values import lane
from b200sim.ptx.binder import Binder, type_of
from b200sim.ptx.syntax import TYPE_BITS, Instruction, Vector

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

COMPLETION = "mbarrier::complete_tx::bytes"
Perform = Callable[[Cta, int, list[int]], None]  # CTA, shared offset, values


@instruction("st.async")
def store(ins: Instruction, binder: Binder) -> Operation:
    """st.async[.weak][.shared::cluster].mbarrier::complete_tx::bytes[.vN].TYPE [a], b, [mbarrier]."""
    kinds = ("b32", "b64", "u32", "u64", "s32", "s64", "f32", "f64")
    check_modifiers(ins, "async", "weak", "cluster", "shared::cluster", COMPLETION, "v2", "v4", *kinds)
    size = TYPE_BITS[type_of(ins)] // 8

    def perform(cta: Cta, offset: int, values: list[int]) -> None:
        first = offset // size
        cta.smem_views[size][first : first + len(values)] = values

    return _bind(ins, binder, size, perform, None)


@instruction("red.async")
def reduce(ins: Instruction, binder: Binder) -> Operation:
    """red.async.relaxed.cluster[.shared::cluster].mbarrier::complete_tx::bytes.OP.TYPE [a], b, [mbarrier]."""
    reductions = {
        "inc": ("u32",), "dec": ("u32",), "min": ("u32", "s32"), "max": ("u32", "s32"), "and": ("b32",),
        "or": ("b32",), "xor": ("b32",), "add": ("u32", "s32", "u64"),
    }  # fmt: skip
    kind = type_of(ins)
    check_modifiers(ins, "async", "relaxed", "cluster", "shared::cluster", COMPLETION, *reductions, kind)
    name = next((word for word in ins.modifiers if word in reductions), "")
    if kind not in reductions.get(name, ()):
        raise Unsupported(ins.mnemonic)
    bits = TYPE_BITS[kind]
    combine = on_integers(COMBINE[name], bits, kind[0] == "s")

    def perform(cta: Cta, offset: int, values: list[int]) -> None:
        place = cta.smem_views[bits // 8]
        index = offset // (bits // 8)
        place[index] = combine(int(place[index]), values[0], values[0])

    return _bind(ins, binder, bits // 8, perform, name)


def _bind(ins: Instruction, binder: Binder, size: int, perform: Perform, reduction: str | None) -> Operation:
    if not ins.has(COMPLETION):
        raise Unsupported(f"{ins.mnemonic}: only completion on an mbarrier")
    dst, dst_offset = binder.address(ins.operands[0])
    bar, bar_offset = binder.address(ins.operands[2])
    source = ins.operands[1]
    items = source.items if isinstance(source, Vector) else (source,)
    slots = [binder.source(item, 8 * size) for item in items]
    nbytes = size * len(slots)
    wanted = next((int(word[1:]) for word in ins.modifiers if word in ("v2", "v4")), 1)
    if wanted != len(slots):
        raise Unsupported(f"{ins.mnemonic} with {len(slots)} values")

    def issue(warp: Warp, i: int) -> None:
        regs, cluster = warp.regs, warp.cta.cluster
        place = shared_address(lane(regs[dst], i) + dst_offset)
        barrier = shared_address(lane(regs[bar], i) + bar_offset)
        offset = place & 0xFFFFFF
        receiver = cluster.live_cta(place >> 24, ins.mnemonic)
        if len(cluster.ctas) == 1 or barrier >> 24 != receiver.rank:
            raise Fault(
                "async_store_cluster",
                f"{ins.mnemonic} to {place:#x}, mbarrier at {barrier:#x}: both must lie in one CTA, in a "
                f"cluster of more than one (this has {len(cluster.ctas)})",
            )
        receiver.check_shared(offset, nbytes, ins.mnemonic)
        if offset % nbytes:
            raise Fault("misaligned", f"{ins.mnemonic} of {nbytes} bytes at shared offset {offset:#x}")
        values = [lane(regs[slot], i) & (1 << 8 * size) - 1 for slot in slots]

        def land() -> None:
            perform(receiver, offset, values)
            receiver.barrier(barrier & 0xFFFFFF).complete(nbytes)

        task = AsyncOperation(f"{ins.opcode}.async", land, warp, ins.place(), ins=ins, thread=i)
        if warp.cta.grid.observer is not None:
            task.detail = ThreadStore(offset, nbytes, receiver, (receiver, barrier & 0xFFFFFF), reduction)
        cluster.post(task)

    def operation(warp: Warp) -> None:
        for i in warp.active_lanes():
            issue(warp, i)

    return operation
