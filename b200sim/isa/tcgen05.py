"""The fifth-generation tensor core's pipe: tcgen05 mma, cp, shift and commit (PTX ISA 9.7.16).

They are asynchronous and go through one pipe per issuing thread, in order. With .cta_group::2 one thread
drives the tensor cores of both CTAs of its pair.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from b200sim.faults import Fault, Unsupported
from b200sim.isa.addresses import shared_address
from b200sim.isa.registry import check_modifiers, instruction
from b200sim.machine.asynchronous import AsyncOperation
from b200sim.machine.cta import Cta
from b200sim.machine.observer import Commit, Detail, TensorCoreWork
from b200sim.machine.program import Operation
from b200sim.machine.values import lane
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import Address, Instruction, Vector
from b200sim.tensor_core.copy import copy_to_tensor_memory, copy_touches, shift_down, shift_touches
from b200sim.tensor_core.mma import (
    block_scaled_touches,
    dense_touches,
    mma_block_scaled,
    mma_dense,
    mma_flops,
)

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

SCALE_VECTORS = {
    "scale_vec::1X": 1, "scale_vec::2X": 2, "scale_vec::4X": 4, "block16": 4, "block32": 2,
}  # fmt: skip
COLLECTORS = tuple(f"collector::{m}::{use}" for m in "ab" for use in ("fill", "use", "lastuse", "discard"))


def _pair(warp: Warp, ins: Instruction) -> list[Cta]:
    """The CTAs whose tensor cores work: the own one, or the pair with the even rank first."""
    if not ins.has("cta_group::2"):
        return [warp.cta]
    cluster, even = warp.cta.cluster, warp.cta.rank & ~1
    if even + 1 >= len(cluster.ctas):
        raise Fault("cta_pair", f"{ins.mnemonic} in a cluster of {len(cluster.ctas)} CTA(s): it needs a pair")
    return [cluster.live_cta(even, ins.mnemonic), cluster.live_cta(even + 1, ins.mnemonic)]


def _post(
    warp: Warp,
    ins: Instruction,
    thread: int,
    perform: Callable[[], None],
    detail: Callable[[], Detail],
) -> None:
    pipe = ("tensor core", warp.cta.rank, warp.index, thread)
    task = AsyncOperation(
        f"tcgen05.{ins.modifiers[0]}", perform, warp, ins.place(), pipe, ins=ins, thread=thread
    )
    if warp.cta.grid.observer is not None:
        task.detail = detail()
    warp.cta.cluster.post(task)


@instruction("tcgen05.cp")
def copy(ins: Instruction, binder: Binder) -> Operation:
    """tcgen05.cp.cta_group.SHAPE[.multicast][.formats] [address], descriptor: shared to tensor memory."""
    _, _, shape, *rest = ins.modifiers
    multicast = next((word for word in rest if word.startswith("warpx")), None)
    formats = ".".join(word for word in rest if word != multicast) or None
    base, offset = binder.address(ins.operands[0])
    descriptor = binder.source(ins.operands[1], 64)

    def issue(warp: Warp, i: int) -> None:
        address, word = lane(warp.regs[base], i) + offset, lane(warp.regs[descriptor], i)
        ctas, counters = _pair(warp, ins), warp.cta.grid.counters

        def perform() -> None:
            started = time.perf_counter()
            copy_to_tensor_memory(
                ctas, shape=shape, multicast=multicast, address=address, descriptor=word, formats=formats
            )
            counters.scale_copies += 1
            counters.tensor_core_seconds += time.perf_counter() - started

        def detail() -> Detail:
            key = (shape, multicast, address, word, len(ctas))
            return TensorCoreWork(
                ctas, key, lambda: copy_touches(len(ctas), shape, address, word), {"source": word}
            )

        _post(warp, ins, i, perform, detail)

    return _per_lane(issue)


def _per_lane(issue: Callable[[Warp, int], None]) -> Operation:
    def operation(warp: Warp) -> None:
        for i in warp.active_lanes():
            issue(warp, i)

    return operation


@instruction("tcgen05.shift")
def shift(ins: Instruction, binder: Binder) -> Operation:
    check_modifiers(ins, "shift", "cta_group::1", "cta_group::2", "down")
    base, offset = binder.address(ins.operands[0])

    def issue(warp: Warp, i: int) -> None:
        address, ctas = lane(warp.regs[base], i) + offset, _pair(warp, ins)

        def detail() -> Detail:
            key = ("shift", address, len(ctas))
            return TensorCoreWork(ctas, key, lambda: shift_touches(len(ctas), address), {})

        _post(warp, ins, i, lambda: shift_down(ctas, address=address), detail)

    return _per_lane(issue)


@instruction("tcgen05.mma")
def multiply(ins: Instruction, binder: Binder) -> Operation:
    kind = next(word for word in ins.modifiers if word.startswith("kind::"))[len("kind::") :]
    check_modifiers(
        ins,
        "mma",
        "cta_group::1",
        "cta_group::2",
        f"kind::{kind}",
        "block_scale",
        *SCALE_VECTORS,
        *COLLECTORS,
    )
    return _block_scaled(ins, binder, kind) if ins.has("block_scale") else _dense(ins, binder, kind)


def _block_scaled(ins: Instruction, binder: Binder, kind: str) -> Operation:
    """tcgen05.mma....block_scale [d], a, b, idesc, [scale a], [scale b], enable-input-d."""
    scale_vec = next((SCALE_VECTORS[word] for word in ins.modifiers if word in SCALE_VECTORS), None)
    if scale_vec is None:
        scale_vec = {"mxf8f6f4": 1, "mxf4": 2}.get(kind)
    if scale_vec is None:
        raise Unsupported(f"{ins.mnemonic} without .scale_vec")
    if isinstance(ins.operands[1], Address):
        raise Unsupported(f"{ins.mnemonic} with A in tensor memory")
    d, d_offset = binder.address(ins.operands[0])
    a, b = (binder.source(operand, 64) for operand in ins.operands[1:3])
    idesc = binder.source(ins.operands[3], 32)
    (sfa, sfa_offset), (sfb, sfb_offset) = (binder.address(operand) for operand in ins.operands[4:6])
    enable, flip = binder.predicate(ins.operands[6])
    group = 2 if ins.has("cta_group::2") else 1

    def issue(warp: Warp, i: int) -> None:
        regs = warp.regs
        ctas, counters = _pair(warp, ins), warp.cta.grid.counters
        word = lane(regs[idesc], i)
        arguments: dict[str, Any] = {
            "d_address": lane(regs[d], i) + d_offset,
            "a_descriptor": lane(regs[a], i),
            "b_descriptor": lane(regs[b], i),
            "idesc": word,
            "sfa_address": lane(regs[sfa], i) + sfa_offset,
            "sfb_address": lane(regs[sfb], i) + sfb_offset,
            "accumulate": bool((regs[enable] ^ flip) >> i & 1),
        }

        def perform() -> None:
            started = time.perf_counter()
            mma_block_scaled(ctas, kind=kind, scale_vec=scale_vec, **arguments)
            counters.mma_instructions += 1
            counters.mma_flops += mma_flops(word, kind, scale_vec, group)
            counters.tensor_core_seconds += time.perf_counter() - started

        def detail() -> Detail:
            names = {"A": arguments["a_descriptor"], "B": arguments["b_descriptor"]}
            key = (kind, scale_vec, group, *arguments.values())
            return TensorCoreWork(
                ctas,
                key,
                lambda: block_scaled_touches(group, kind=kind, scale_vec=scale_vec, **arguments),
                names,
                arguments["accumulate"],
            )

        _post(warp, ins, i, perform, detail)

    return _per_lane(issue)


def _dense(ins: Instruction, binder: Binder, kind: str) -> Operation:
    """tcgen05.mma.kind [d], a, b, idesc[, {disabled lanes}], enable-input-d[, scale-input-d]."""
    d, d_offset = binder.address(ins.operands[0])
    a_in_tensor_memory = isinstance(ins.operands[1], Address)
    a, a_offset = (
        binder.address(ins.operands[1]) if a_in_tensor_memory else (binder.source(ins.operands[1], 64), 0)
    )
    b, idesc = binder.source(ins.operands[2], 64), binder.source(ins.operands[3], 32)
    rest = list(ins.operands[4:])
    disabled = binder.reads(rest.pop(0)) if isinstance(rest[0], Vector) else None
    enable, flip = binder.predicate(rest.pop(0))
    scale = binder.source(rest[0], 32) if rest else None
    group = 2 if ins.has("cta_group::2") else 1

    def issue(warp: Warp, i: int) -> None:
        regs = warp.regs
        ctas, counters = _pair(warp, ins), warp.cta.grid.counters
        word, operand = lane(regs[idesc], i), lane(regs[a], i) + a_offset
        arguments: dict[str, Any] = {
            "d_address": lane(regs[d], i) + d_offset,
            ("a_address" if a_in_tensor_memory else "a_descriptor"): operand,
            "b_descriptor": lane(regs[b], i),
            "idesc": word,
            "accumulate": bool((regs[enable] ^ flip) >> i & 1),
            "disable_lanes": None if disabled is None else [lane(regs[slot], i) for slot in disabled],
            "scale_d": 0 if scale is None else lane(regs[scale], i),
        }

        def perform() -> None:
            started = time.perf_counter()
            mma_dense(ctas, kind=kind, **arguments)
            counters.mma_instructions += 1
            counters.mma_flops += mma_flops(word, kind, None, group)
            counters.tensor_core_seconds += time.perf_counter() - started

        def detail() -> Detail:
            what = {
                name: arguments.get(name)
                for name in ("d_address", "a_descriptor", "a_address", "b_descriptor")
            }
            where = what | {"idesc": word, "accumulate": arguments["accumulate"]}
            names = {"B": arguments["b_descriptor"]}
            if not a_in_tensor_memory:
                names["A"] = operand
            key = (kind, group, *where.values())
            touches = partial(dense_touches, group, kind=kind, **where)  # type: ignore[arg-type]
            return TensorCoreWork(ctas, key, touches, names, arguments["accumulate"])

        _post(warp, ins, i, perform, detail)

    return _per_lane(issue)


@instruction("tcgen05.commit")
def commit(ins: Instruction, binder: Binder) -> Operation:
    """tcgen05.commit...[.multicast::cluster] [mbarrier][, mask]: one arrival when earlier work is done."""
    check_modifiers(
        ins, "commit", "cta_group::1", "cta_group::2", "mbarrier::arrive::one", "shared::cluster",
        "multicast::cluster", "b64",
    )  # fmt: skip
    base, offset = binder.address(ins.operands[0])
    mask_slot = binder.source(ins.operands[1], 16) if ins.has("multicast::cluster") else None

    def issue(warp: Warp, i: int) -> None:
        address = shared_address(lane(warp.regs[base], i) + offset)
        cluster, place = warp.cta.cluster, address & 0xFFFFFF
        mask = None if mask_slot is None else lane(warp.regs[mask_slot], i) & 0xFFFF
        ranks = [address >> 24] if mask is None else [rank for rank in range(16) if mask >> rank & 1]

        def perform() -> None:
            for rank in ranks:
                cluster.live_cta(rank, ins.mnemonic).barrier(place).arrive()

        def detail() -> Detail:
            return Commit([(cluster.ctas[rank], place) for rank in ranks if rank < len(cluster.ctas)])

        _post(warp, ins, i, perform, detail)

    return _per_lane(issue)
