"""Instructions in which the lanes of a warp talk to each other (PTX ISA 9.7.9.6 shfl, 9.7.13.9 ff.)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from b200sim.faults import Fault
from b200sim.isa.floating import canonical_nan, minimum_maximum
from b200sim.isa.registry import check_modifiers, instruction
from b200sim.machine.program import Operation
from b200sim.machine.values import (
    FULL,
    LANE_INDEX,
    LANES,
    Value,
    lane,
    lane_array,
    lane_mask,
    lowest_lane,
    signed,
    spread,
)
from b200sim.ptx.binder import Binder, bits_of, is_signed
from b200sim.ptx.syntax import Instruction

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp


def _check_members(warp: Warp, members: int, what: str) -> None:
    members &= FULL
    if warp.mask & ~members:
        raise Fault(
            "member_mask",
            f"{what}: active lanes {warp.mask:#010x} are not all in the member mask {members:#010x}",
        )
    if members & warp.alive & ~warp.mask:
        raise Fault(
            "divergent_sync",
            f"{what} waits for lanes {members & warp.alive & ~warp.mask:#010x}, "
            "which are somewhere else in the code",
        )


@instruction("elect")
def elect(ins: Instruction, binder: Binder) -> Operation:
    """elect.sync d|p, members: p holds in one lane, the lowest active one; d is its number."""
    check_modifiers(ins, "sync")
    d, p = binder.pair(ins.operands[0])
    members = binder.source(ins.operands[1], 32)

    def operation(warp: Warp) -> None:
        _check_members(warp, warp.uniform(members, "the member mask of elect.sync"), "elect.sync")
        leader = warp.mask & -warp.mask
        warp.put(d, leader.bit_length() - 1)
        warp.put(p, leader)

    return operation


@instruction("bar.warp")
def warp_barrier(ins: Instruction, binder: Binder) -> Operation:
    check_modifiers(ins, "warp", "sync")
    members = binder.source(ins.operands[0], 32)

    def operation(warp: Warp) -> None:
        _check_members(warp, warp.uniform(members, "the member mask of bar.warp.sync"), "bar.warp.sync")

    return operation


@instruction("activemask")
def active_mask(ins: Instruction, binder: Binder) -> Operation:
    d = binder.write(ins.operands[0])

    def operation(warp: Warp) -> None:
        warp.put(d, warp.mask)

    return operation


@instruction("shfl")
def shuffle(ins: Instruction, binder: Binder) -> Operation:
    """shfl.sync.MODE.b32 d|p, a, b, c, members. c holds the clamp lane and, from bit 8, the segment mask."""
    check_modifiers(ins, "sync", "idx", "up", "down", "bfly", "b32")
    mode = ins.modifiers[1]
    d, p = binder.pair(ins.operands[0])
    a, b, c = (binder.source(operand, 32) for operand in ins.operands[1:4])
    members = binder.source(ins.operands[4], 32)

    def operation(warp: Warp) -> None:
        regs = warp.regs
        _check_members(warp, warp.uniform(members, "the member mask of shfl"), ins.mnemonic)
        by, control = regs[b], regs[c]
        if type(by) is int and type(control) is int:
            source, valid = _uniform_shuffle_sources(mode, by, control)
        else:
            source, valid = shuffle_sources(mode, by, control)
        if warp.mask != FULL and not lane_array(warp.mask)[source][lane_array(warp.mask)].all():
            raise Fault("shfl_inactive", f"{ins.mnemonic} reads from a lane that does not take part")
        value = regs[a]
        if type(value) is int:
            warp.put(d, value)
        else:
            picked = value[source]
            same = mode == "idx" and (source == source[0]).all()
            warp.put(d, int(picked[0]) if same else picked)
        warp.put(p, valid)

    return operation


def shuffle_sources(mode: str, by: Value, control: Value) -> tuple[NDArray[np.int64], int]:
    """The lane that each lane of a shfl reads (itself if that one is out of range); whose is in range."""
    lanes = LANE_INDEX.astype(np.int64)
    wanted, limits = np.asarray(by).astype(np.int64) & 31, np.asarray(control).astype(np.int64)
    clamp, segment = limits & 31, limits >> 8 & 31
    low = lanes & segment
    high = low | (clamp & ~segment)
    if mode == "up":
        source, valid = lanes - wanted, lanes - wanted >= high
    elif mode == "down":
        source, valid = lanes + wanted, lanes + wanted <= high
    elif mode == "bfly":
        source, valid = lanes ^ wanted, (lanes ^ wanted) <= high
    else:
        source = low | (wanted & ~segment)
        valid = source <= high
    return np.where(valid, source, lanes), lane_mask(np.broadcast_to(valid, LANES))


@lru_cache(maxsize=1024)
def _uniform_shuffle_sources(mode: str, by: int, control: int) -> tuple[NDArray[np.int64], int]:
    return shuffle_sources(mode, by, control)


@instruction("vote")
def vote(ins: Instruction, binder: Binder) -> Operation:
    """vote.sync.{ballot.b32, any.pred, all.pred, uni.pred} d, p, members."""
    check_modifiers(ins, "sync", "ballot", "any", "all", "uni", "b32", "pred")
    mode = ins.modifiers[1]
    d = binder.write(ins.operands[0])
    p, flip = binder.predicate(ins.operands[1])
    members = binder.source(ins.operands[2], 32)

    def operation(warp: Warp) -> None:
        _check_members(warp, warp.uniform(members, "the member mask of vote"), ins.mnemonic)
        yes = (warp.regs[p] ^ flip) & warp.mask
        if mode == "ballot":
            warp.put(d, yes)
        elif mode == "any":
            warp.put(d, FULL if yes else 0)
        elif mode == "all":
            warp.put(d, FULL if yes == warp.mask else 0)
        else:
            warp.put(d, FULL if yes in (0, warp.mask) else 0)

    return operation


REDUCTIONS = {
    "add": np.add, "min": np.minimum, "max": np.maximum,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip


@instruction("redux.sync.min", "redux.sync.max")
def extreme_of_warp(ins: Instruction, binder: Binder) -> Operation:
    """redux.sync.{min,max}[.abs][.NaN].f32 d, a, members; of integers it is one reduction among others."""
    if ins.modifiers[-1] != "f32":
        return reduce_warp(ins, binder)
    check_modifiers(ins, "sync", "min", "max", "abs", "NaN", "f32")
    fold = minimum_maximum(ins.modifiers[1], ins.has("NaN"), ins.has("abs"))
    d, a = binder.write(ins.operands[0]), binder.source(ins.operands[1], 32)
    members = binder.source(ins.operands[2], 32)

    def operation(warp: Warp) -> None:
        _check_members(warp, warp.uniform(members, "the member mask of redux"), ins.mnemonic)
        lanes = spread(warp.regs[a], 32)[lane_array(warp.mask)].view(np.float32)
        warp.put(d, int(canonical_nan(fold(*lanes[:, None])).view(np.uint32)[0]))

    return operation


@instruction("redux")
def reduce_warp(ins: Instruction, binder: Binder) -> Operation:
    """redux.sync.OP.TYPE d, a, members: one result for all lanes."""
    check_modifiers(ins, "sync", *REDUCTIONS, "s32", "u32", "b32")
    reduce = REDUCTIONS[ins.modifiers[1]].reduce
    d, a = binder.write(ins.operands[0]), binder.source(ins.operands[1], 32)
    members = binder.source(ins.operands[2], 32)
    from_signed = is_signed(ins)

    def operation(warp: Warp) -> None:
        _check_members(warp, warp.uniform(members, "the member mask of redux"), ins.mnemonic)
        lanes = spread(warp.regs[a], 32)[lane_array(warp.mask)]
        values = signed(lanes, 32) if from_signed else lanes
        with np.errstate(over="ignore"):
            warp.put(d, int(reduce(values)) & FULL)

    return operation


@instruction("match")
def match(ins: Instruction, binder: Binder) -> Operation:
    """match.any.sync d, a, members: the lanes that hold the same value as this one.
    match.all.sync d|p, a, members: all members and true if all hold the same value, else 0 and false."""
    check_modifiers(ins, "any", "all", "sync", "b32", "b64")
    everyone = ins.has("all")
    d, p = binder.pair(ins.operands[0])
    a = binder.source(ins.operands[1], bits_of(ins))
    members = binder.source(ins.operands[2], 32)

    def operation(warp: Warp) -> None:
        _check_members(warp, warp.uniform(members, "the member mask of match"), ins.mnemonic)
        value = warp.regs[a]
        if everyone:
            same = warp.mask == _group(value, lane(value, lowest_lane(warp.mask)), warp.mask)
            warp.put(d, warp.mask if same else 0)
            warp.put(p, FULL if same else 0)
        elif type(value) is int:
            warp.put(d, warp.mask)
        else:
            groups = [_group(value, x, warp.mask) for x in value.tolist()]
            warp.put(d, np.array(groups, np.uint32))

    return operation


def _group(value: Value, wanted: int, mask: int) -> int:
    """The active lanes that hold `wanted`."""
    if type(value) is int:
        return mask if value == wanted else 0
    return lane_mask(value == wanted) & mask  # type: ignore[arg-type]
