"""Instructions that edit tensor maps on the device (PTX ISA 9.7.9.28, 9.7.13.16)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from b200sim.faults import Unsupported
from b200sim.isa.registry import check_modifiers, instruction
from b200sim.machine.program import Operation
from b200sim.machine.values import lane
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import Instruction
from b200sim.tma import editing
from b200sim.tma.encoding import MAP_BYTES

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp


def _map_bytes(warp: Warp, address: int, shared: bool, what: str) -> NDArray[np.uint8]:
    if shared:
        offset = warp.cta.offset(address, MAP_BYTES, what)
        return warp.cta.smem[offset : offset + MAP_BYTES]
    return warp.cta.grid.memory.view(address, MAP_BYTES, write=True)


@instruction("tensormap.replace")
def replace(ins: Instruction, binder: Binder) -> Operation:
    """tensormap.replace.tile.FIELD.SPACE.b1024.TYPE [map], [ordinal,] value."""
    mode, field, *rest = ins.modifiers[1:]
    if mode != "tile":
        raise Unsupported(ins.mnemonic)
    shared = "shared::cta" in rest
    base, offset = binder.address(ins.operands[0])
    *ordinal, value = (binder.source(operand, 64) for operand in ins.operands[1:])

    def operation(warp: Warp) -> None:
        for i in warp.active_lanes():
            place = lane(warp.regs[base], i) + offset
            raw = _map_bytes(warp, place, shared, ins.mnemonic)
            watch = warp.cta.grid.observer
            if watch is not None and shared:
                watch.shared_access(warp, ins, warp.cta, place & 0xFFFFFF, MAP_BYTES, "edit")
            elif watch is not None:
                watch.tensor_map_edited(warp, ins, place)
            which = lane(warp.regs[ordinal[0]], i) if ordinal else None
            editing.replace(raw, field, which, lane(warp.regs[value], i))

    return operation


@instruction("tensormap.cp_fenceproxy")
def copy_and_fence(ins: Instruction, binder: Binder) -> Operation:
    """tensormap.cp_fenceproxy.global.shared::cta... [dst], [src], 128: the warp copies and releases a map."""
    check_modifiers(
        ins, "cp_fenceproxy", "global", "shared::cta", "tensormap::generic", "release", "cta", "cluster",
        "gpu", "sys",        "sync", "aligned",
    )  # fmt: skip
    destination, destination_offset = binder.address(ins.operands[0])
    source, source_offset = binder.address(ins.operands[1])

    def operation(warp: Warp) -> None:
        warp.require_all_lanes(ins.mnemonic)
        to = warp.uniform(destination, "the destination of a tensor map") + destination_offset
        at = warp.cta.offset(warp.uniform(source, "a tensor map") + source_offset, MAP_BYTES, ins.mnemonic)
        warp.cta.grid.memory.view(to, MAP_BYTES, write=True)[:] = warp.cta.smem[at : at + MAP_BYTES]
        watch = warp.cta.grid.observer
        if watch is not None:
            watch.shared_access(warp, ins, warp.cta, at, MAP_BYTES // 2, "read")
            watch.tensor_map_edited(warp, ins, to)

    return operation


@instruction("prefetch.tensormap", "prefetch.param.tensormap", "prefetch.const.tensormap")
def prefetch(ins: Instruction, binder: Binder) -> Operation:
    """A hint: fetches the descriptor early."""
    binder.address(ins.operands[0])

    def operation(warp: Warp) -> None:
        return None

    return operation
