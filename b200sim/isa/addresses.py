"""Addresses of one state space seen from another (PTX ISA 9.7.9.19 isspacep to 9.7.9.24 getctarank).

A generic address is the host address for global and parameter memory, and lies in the shared window for
shared memory: there it is SHARED_WINDOW plus the shared::cluster address. A thread's own memory lies in the
local window, at the same addresses for every thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from b200sim.faults import Fault, Unsupported
from b200sim.isa.registry import check_modifiers, instruction
from b200sim.machine.program import Operation
from b200sim.machine.values import FULL, UNSIGNED, Value, lane_mask, per_lane, width_mask
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import Instruction

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

SHARED_WINDOW = 1 << 56  # generic addresses from here on are shared memory; host addresses lie below
SHARED_WINDOW_END = SHARED_WINDOW + (1 << 32)
LOCAL_WINDOW = 1 << 57
LOCAL_WINDOW_END = LOCAL_WINDOW + (1 << 32)


def shared_address(address: int) -> int:
    """The shared::cluster address behind a shared or generic address."""
    if address >= LOCAL_WINDOW:
        raise Fault("not_shared", f"{address:#x} lies in a thread's .local memory, not in shared memory")
    return address - SHARED_WINDOW if address >= SHARED_WINDOW else address


@instruction("cvta")
def convert_address(ins: Instruction, binder: Binder) -> Operation:
    """cvta[.to].SPACE.u64: global and parameter addresses are generic addresses already."""
    check_modifiers(
        ins,
        "to",
        "param",
        "param::entry",
        "global",
        "shared",
        "shared::cta",
        "shared::cluster",
        "const",
        "local",
        "u64",
        "u32",
    )
    shared = any(word.startswith("shared") for word in ins.modifiers)
    window = SHARED_WINDOW if shared else LOCAL_WINDOW if ins.has("local") else 0
    delta = -window if ins.has("to") else window
    d, a = binder.write(ins.operands[0]), binder.read(ins.operands[1])
    if delta and ins.has("u32"):
        raise Unsupported(f"{ins.mnemonic}: 32-bit generic addresses")

    def operation(warp: Warp) -> None:
        value = warp.regs[a]
        if delta == 0:
            warp.put(d, value)
        elif type(value) is int:
            warp.put(d, (value + delta) & width_mask(64))
        else:
            warp.put(d, (value.astype(np.int64) + delta).view(np.uint64))

    return operation


@instruction("isspacep")
def is_space(ins: Instruction, binder: Binder) -> Operation:
    """isspacep.SPACE p, a: whether a generic address points into that space."""
    check_modifiers(ins, "global", "local", "const", "param", "shared", "shared::cta", "shared::cluster")
    space = ins.modifiers[0]
    if space == "param":
        raise Unsupported(ins.mnemonic)
    p, a = binder.write(ins.operands[0]), binder.source(ins.operands[1], 64)

    def holds(address: int, rank: int) -> bool:
        inside = SHARED_WINDOW <= address < SHARED_WINDOW_END
        local = LOCAL_WINDOW <= address < LOCAL_WINDOW_END
        if space == "global":
            return not inside and not local
        if space == "local":
            return local
        if space == "shared::cluster":
            return inside
        return inside and space.startswith("shared") and (address - SHARED_WINDOW) >> 24 == rank

    def operation(warp: Warp) -> None:
        address, rank = warp.regs[a], warp.cta.rank
        if type(address) is int:
            warp.put(p, FULL if holds(address, rank) else 0)
        else:
            warp.put(p, lane_mask(np.array([holds(int(x), rank) for x in address])))

    return operation


@instruction("mapa")
def map_address(ins: Instruction, binder: Binder) -> Operation:
    """mapa[.shared::cluster].TYPE d, a, rank: the same place in another CTA's shared memory."""
    check_modifiers(ins, "shared::cluster", "u32", "u64")
    bits = 64 if ins.has("u64") else 32
    window = 0 if ins.has("shared::cluster") else SHARED_WINDOW
    d = binder.write(ins.operands[0])
    a, rank = binder.source(ins.operands[1], bits), binder.source(ins.operands[2], 32)

    def operation(warp: Warp) -> None:
        # A rank beyond the cluster is a fault only when used: NVIDIA's pipelines map lane i to CTA i, then
        # let the lanes below the cluster's size arrive.
        warp.put(d, _in_cta(warp.regs[a], warp.regs[rank], window, bits))

    return operation


def _in_cta(address: Value, rank: Value, window: int, bits: int) -> Value:
    if type(address) is int and type(rank) is int:
        return window + (address & 0xFFFFFF | rank << 24)
    wide = np.asarray(rank, np.uint64) << np.uint64(24) | np.asarray(address, np.uint64) & np.uint64(0xFFFFFF)
    return (wide + np.uint64(window)).astype(UNSIGNED[bits])


@instruction("getctarank")
def cta_rank_of(ins: Instruction, binder: Binder) -> Operation:
    """getctarank[.shared::cluster].TYPE d, a: the rank of the CTA whose shared memory holds a."""
    check_modifiers(ins, "shared::cluster", "u32", "u64")
    d, a = binder.write(ins.operands[0]), binder.source(ins.operands[1], 64)
    rank = per_lane(lambda address: shared_address(address) >> 24, 32)

    def operation(warp: Warp) -> None:
        warp.put(d, rank(warp.regs[a]))

    return operation
