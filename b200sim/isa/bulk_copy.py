"""Bulk asynchronous copies: the tensor memory accelerator (PTX ISA 9.7.9.25 and 9.7.9.27).

An instruction checks what can be refused at issue, snapshots its operands and posts one operation per
active lane; identical stores of several lanes are one operation, as the compiler makes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from b200sim.faults import Fault, Unsupported
from b200sim.isa.registry import check_modifiers, instruction, terminator
from b200sim.machine.asynchronous import AsyncOperation
from b200sim.machine.cta import Cta
from b200sim.machine.observer import BulkLoad, BulkStore, TensorLoad, TensorStore
from b200sim.machine.program import BLOCKED, Operation, Terminator
from b200sim.machine.values import lane, lowest_lane, signed
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import Address, Instruction
from b200sim.tma import bulk, tile

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

WORDS = (
    "async", "bulk", "tensor", "1d", "2d", "3d", "4d", "5d", "global", "shared::cta", "shared::cluster",
    "tile",
    "mbarrier::complete_tx::bytes", "multicast::cluster", "cta_group::1", "cta_group::2", "L2::cache_hint",
    "bulk_group", "cp_mask", "tile::gather4", "tile::scatter4",
)  # fmt: skip


def _optional(ins: Instruction, operands: list, binder: Binder) -> tuple[int | None, int | None]:
    """Slots of the CTA mask of a multicast and of the byte mask; the cache policy is read by nobody."""
    mask = binder.read(operands.pop(0)) if ins.has("multicast::cluster") else None
    if ins.has("L2::cache_hint"):
        operands.pop(0)
    byte_mask = binder.read(operands.pop(0)) if ins.has("cp_mask") else None
    return mask, byte_mask


def _receivers(warp: Warp, destination: int, mask: int | None, what: str) -> list[Cta]:
    """The CTAs that a load writes: those of the multicast mask, or the one the destination address names."""
    cluster = warp.cta.cluster
    if mask is None:
        return [cluster.live_cta(destination >> 24, what)]
    ranks = [rank for rank in range(16) if mask >> rank & 1]
    if not ranks:
        raise Fault("multicast_mask", f"{what} with an empty CTA mask")
    return [cluster.live_cta(rank, what) for rank in ranks]


def _signalled(ins: Instruction, receiver: Cta, barrier: int) -> tuple[Cta, int]:
    """Where the bytes that reach `receiver` are counted: the same offset in that CTA, or with .cta_group::2
    in the CTA of its pair whose parity the mbarrier address names (PTX ISA 9.7.9.27.1.2)."""
    rank, offset = barrier >> 24, barrier & 0xFFFFFF
    if ins.has("cta_group::2"):
        return receiver.cluster.live_cta((receiver.rank & ~1) | (rank & 1), ins.mnemonic), offset
    return receiver, offset


@instruction("cp.async.bulk.tensor")
def tensor_copy(ins: Instruction, binder: Binder) -> Operation:
    check_modifiers(ins, *WORDS)
    if ins.modifiers[4] == "global":
        return _tensor_store(ins, binder, None)
    if ins.modifiers[5] != "global":
        raise Unsupported(ins.mnemonic)
    return _tensor_load(ins, binder)


def _tensor_load(ins: Instruction, binder: Binder) -> Operation:
    """cp.async.bulk.tensor.Nd.shared::cluster.global [dst], [map, {coordinates}], [mbarrier][, mask]."""
    dst, dst_offset = binder.address(ins.operands[0])
    map_slot, map_offset = binder.address(ins.operands[1])
    coordinates = binder.coordinates(ins.operands[1])
    bar, bar_offset = binder.address(ins.operands[2])
    mask_slot, _ = _optional(ins, list(ins.operands[3:]), binder)
    gather = ins.has("tile::gather4")

    def issue(warp: Warp, i: int) -> None:
        regs, cta = warp.regs, warp.cta
        destination = lane(regs[dst], i) + dst_offset
        offset = destination & 0xFFFFFF
        coords = [signed(lane(regs[slot], i), 32) for slot in coordinates]
        tensor_map = cta.tensor_map(lane(regs[map_slot], i) + map_offset)
        mask = None if mask_slot is None else lane(regs[mask_slot], i) & 0xFFFF
        if not gather:
            tile.check(tensor_map, coords, offset, len(cta.smem))
        receivers = _receivers(warp, destination, mask, ins.mnemonic)
        barrier = lane(regs[bar], i) + bar_offset
        if mask is None and not ins.has("cta_group::2") and barrier >> 24 != destination >> 24:
            raise Fault(
                "tma_barrier",
                f"{ins.mnemonic}: the mbarrier ({barrier:#x}) is not in the CTA that receives the data "
                f"({destination:#x}); only .cta_group::2 may signal the other CTA of the pair",
            )
        nbytes = 4 * tensor_map.row_bytes if gather else tensor_map.box_bytes

        def perform() -> None:
            started = time.perf_counter()
            load = tile.gather4_box if gather else tile.load_box
            box = load(tensor_map, coords, cta.grid.memory)
            for receiver in receivers:
                tile.place(receiver.smem, offset, box, tensor_map)
            for receiver in receivers:
                signal, at = _signalled(ins, receiver, barrier)
                signal.barrier(at).complete(nbytes)
            counters = cta.grid.counters
            counters.tma_loads += 1
            counters.tma_load_bytes += nbytes
            counters.tma_multicast_bytes += nbytes * len(receivers)
            counters.tma_seconds += time.perf_counter() - started

        task = AsyncOperation("tma load", perform, warp, ins.place(), ins=ins, thread=i)
        if cta.grid.observer is not None:
            signals = [_signalled(ins, receiver, barrier) for receiver in receivers]
            at = lane(regs[map_slot], i) + map_offset
            task.detail = TensorLoad(tensor_map, at, coords, offset, nbytes, receivers, signals)
        cta.cluster.post(task)

    return _for_each_lane(issue)


def _for_each_lane(issue: Callable[[Warp, int], None]) -> Operation:
    def operation(warp: Warp) -> None:
        for i in warp.active_lanes():
            issue(warp, i)

    return operation


@instruction("cp.reduce.async.bulk.tensor")
def tensor_reduce(ins: Instruction, binder: Binder) -> Operation:
    operations = ("add", "min", "max", "inc", "dec", "and", "or", "xor")
    check_modifiers(ins, *WORDS, "reduce", *operations)
    return _tensor_store(ins, binder, next(word for word in ins.modifiers if word in operations))


def _tensor_store(ins: Instruction, binder: Binder, reduction: str | None) -> Operation:
    """cp[.reduce].async.bulk.tensor.Nd.global.shared::cta.tile.bulk_group [map, {coordinates}], [src]."""
    map_slot, map_offset = binder.address(ins.operands[0])
    coordinates = binder.coordinates(ins.operands[0])
    src, src_offset = binder.address(ins.operands[1])
    if ins.has("tile::scatter4"):
        raise Unsupported(ins.mnemonic)

    def issue(warp: Warp, lanes: int, address: int, source: int, *coords: int) -> None:
        cta = warp.cta
        tensor_map = cta.tensor_map(address)
        offset = cta.offset(source, tensor_map.box_bytes, ins.mnemonic)
        tile.check(tensor_map, coords, offset, len(cta.smem), store=True)

        def perform() -> None:
            started = time.perf_counter()
            box = tile.collect(cta.smem, offset, tensor_map)
            if reduction is None:
                tile.store_box(tensor_map, coords, box, cta.grid.memory)
            else:
                tile.reduce_box(tensor_map, coords, box, cta.grid.memory, reduction)
            counters = cta.grid.counters
            counters.tma_stores += 1
            counters.tma_store_bytes += tensor_map.box_bytes
            counters.tma_seconds += time.perf_counter() - started

        task = AsyncOperation("tma store", perform, warp, ins.place(), ins=ins, thread=lowest_lane(lanes))
        if cta.grid.observer is not None:
            task.detail = TensorStore(tensor_map, address, coords, offset, lanes, reduction)
        _post_store(warp, lanes, task)

    def operation(warp: Warp) -> None:
        regs = warp.regs
        slots = (map_slot, src, *coordinates)
        if reduction is None and all(type(regs[slot]) is int for slot in slots):
            lanes = [(warp.active_lanes()[0], warp.mask)]
        else:
            lanes = [(i, 1 << i) for i in warp.active_lanes()]
        distinct: dict[tuple[int, ...], int] = {}  # what is stored -> the lanes that asked for it
        for i, bits in lanes:
            coords = tuple(signed(lane(regs[slot], i), 32) for slot in coordinates)
            key = (lane(regs[map_slot], i) + map_offset, lane(regs[src], i) + src_offset, *coords)
            if reduction is not None:
                issue(warp, bits, *key)
            else:
                distinct[key] = distinct.get(key, 0) | bits
        for key, bits in distinct.items():
            issue(warp, bits, *key)

    return operation


def _post_store(warp: Warp, lanes: int, operation: AsyncOperation) -> None:
    warp.bulk_groups.add(lanes, operation)
    warp.cta.cluster.post(operation)


# -- copies without a tensor map --------------------------------------------------------------------------


@instruction("cp.async.bulk")
def bulk_copy(ins: Instruction, binder: Binder) -> Operation:
    """cp.async.bulk.DST.SRC [dst], [src], size, ...: a run of bytes."""
    check_modifiers(ins, *WORDS)
    to, source = ins.modifiers[2:4]
    if to in ("shared::cluster", "shared::cta") and source == "global":
        return _bulk_load(ins, binder, from_shared=False)
    if to == "shared::cluster" and source == "shared::cta":
        return _bulk_load(ins, binder, from_shared=True)
    if to == "global" and source == "shared::cta":
        return _bulk_store(ins, binder)
    raise Unsupported(ins.mnemonic)


def _bulk_load(ins: Instruction, binder: Binder, from_shared: bool) -> Operation:
    dst, dst_offset = binder.address(ins.operands[0])
    src, src_offset = binder.address(ins.operands[1])
    size_slot = binder.source(ins.operands[2], 32)
    bar, bar_offset = binder.address(ins.operands[3])
    mask_slot, _ = _optional(ins, list(ins.operands[4:]), binder)

    def issue(warp: Warp, i: int) -> None:
        regs, cta = warp.regs, warp.cta
        destination, source = lane(regs[dst], i) + dst_offset, lane(regs[src], i) + src_offset
        size, barrier = lane(regs[size_slot], i), lane(regs[bar], i) + bar_offset
        mask = None if mask_slot is None else lane(regs[mask_slot], i) & 0xFFFF
        receivers = _receivers(warp, destination, mask, ins.mnemonic)
        bulk.check_size(size)
        if mask is None and barrier >> 24 != destination >> 24:
            raise Fault(
                "tma_barrier",
                f"{ins.mnemonic}: the mbarrier ({barrier:#x}) must be in the CTA that receives the data "
                f"({destination:#x})",
            )

        def perform() -> None:
            if from_shared:
                data = bulk.read_shared(cta.smem, cta.offset(source, size, ins.mnemonic), size)
            else:
                data = bulk.read_global(cta.grid.memory, source, size)
            for receiver in receivers:
                bulk.write_shared(receiver.smem, destination & 0xFFFFFF, data)
                receiver.barrier(barrier & 0xFFFFFF).complete(size)
            counters = cta.grid.counters
            if not from_shared:
                counters.tma_loads += 1
                counters.tma_load_bytes += size
                counters.tma_multicast_bytes += size * len(receivers)

        task = AsyncOperation("bulk load", perform, warp, ins.place(), ins=ins, thread=i)
        if cta.grid.observer is not None:
            shared_source = source & 0xFFFFFF if from_shared else None
            signals = [(receiver, barrier & 0xFFFFFF) for receiver in receivers]
            place = destination & 0xFFFFFF
            address = None if from_shared else source
            task.detail = BulkLoad(address, shared_source, place, size, receivers, signals)
        cta.cluster.post(task)

    return _for_each_lane(issue)


def _bulk_store(ins: Instruction, binder: Binder) -> Operation:
    dst, dst_offset = binder.address(ins.operands[0])
    src, src_offset = binder.address(ins.operands[1])
    size_slot = binder.source(ins.operands[2], 32)
    _, byte_mask_slot = _optional(ins, list(ins.operands[3:]), binder)

    def perform_one(warp: Warp, to: int, offset: int, size: int, byte_mask: int | None) -> None:
        memory = warp.cta.grid.memory
        bulk.write_global(memory, to, bulk.read_shared(warp.cta.smem, offset, size), byte_mask)
        warp.cta.grid.counters.tma_stores += 1
        warp.cta.grid.counters.tma_store_bytes += size

    def operation(warp: Warp) -> None:
        regs = warp.regs
        distinct: dict[tuple[int, int, int, int | None], int] = {}
        for i in warp.active_lanes():
            size = lane(regs[size_slot], i)
            bulk.check_size(size)
            offset = warp.cta.offset(lane(regs[src], i) + src_offset, size, ins.mnemonic)
            byte_mask = None if byte_mask_slot is None else lane(regs[byte_mask_slot], i)
            key = (lane(regs[dst], i) + dst_offset, offset, size, byte_mask)
            distinct[key] = distinct.get(key, 0) | 1 << i
        for key, lanes in distinct.items():
            task = AsyncOperation("bulk store", _bound(perform_one, warp, key), warp, ins.place())
            task.ins, task.thread = ins, lowest_lane(lanes)
            if warp.cta.grid.observer is not None:
                task.detail = BulkStore(key[0], key[1], key[2], lanes, None)
            _post_store(warp, lanes, task)

    return operation


def _bound(perform: Callable[..., None], warp: Warp, key: tuple) -> Callable[[], None]:
    return lambda: perform(warp, *key)


@instruction("cp.reduce.async.bulk")
def bulk_reduce(ins: Instruction, binder: Binder) -> Operation:
    """cp.reduce.async.bulk.global.shared::cta.bulk_group.OP[.noftz].TYPE [dst], [src], size."""
    operations = ("add", "min", "max", "inc", "dec", "and", "or", "xor")
    types = ("u32", "s32", "u64", "s64", "b32", "b64", "f16", "bf16", "f32", "f64")
    check_modifiers(ins, *WORDS, "reduce", "noftz", *operations, *types)
    if ins.modifiers[3:5] != ("global", "shared::cta"):
        raise Unsupported(ins.mnemonic)
    reduction = next(word for word in ins.modifiers if word in operations)
    dst, dst_offset = binder.address(ins.operands[0])
    src, src_offset = binder.address(ins.operands[1])
    size_slot = binder.source(ins.operands[2], 32)

    def issue(warp: Warp, i: int) -> None:
        cta, size = warp.cta, lane(warp.regs[size_slot], i)
        to = lane(warp.regs[dst], i) + dst_offset
        bulk.check_size(size)
        offset = cta.offset(lane(warp.regs[src], i) + src_offset, size, ins.mnemonic)

        def perform() -> None:
            data: NDArray[np.uint8] = bulk.read_shared(cta.smem, offset, size)
            bulk.reduce_global(cta.grid.memory, to, data, reduction, ins.modifiers[-1])
            cta.grid.counters.tma_stores += 1
            cta.grid.counters.tma_store_bytes += size

        task = AsyncOperation("bulk reduce", perform, warp, ins.place(), ins=ins, thread=i)
        if cta.grid.observer is not None:
            task.detail = BulkStore(to, offset, size, 1 << i, reduction)
        _post_store(warp, 1 << i, task)

    return _for_each_lane(issue)


@instruction("cp.async.bulk.prefetch")
def prefetch(ins: Instruction, binder: Binder) -> Operation:
    """A hint to fetch into L2."""
    assert isinstance(ins.operands[0], Address)

    def operation(warp: Warp) -> None:
        return None

    return operation


@instruction("cp.async.bulk.prefetch.tensor")
def tensor_prefetch(ins: Instruction, binder: Binder) -> Operation:
    """cp.async.bulk.prefetch.tensor.Nd.L2.global.tile [map, {coordinates}][, policy]: a hint, checked."""
    check_modifiers(ins, *WORDS, "prefetch", "L2")
    map_slot, map_offset = binder.address(ins.operands[0])
    coordinates = binder.coordinates(ins.operands[0])

    def issue(warp: Warp, i: int) -> None:
        tensor_map = warp.cta.tensor_map(lane(warp.regs[map_slot], i) + map_offset)
        coords = [signed(lane(warp.regs[slot], i), 32) for slot in coordinates]
        tile.check_coords(tensor_map, coords)
        watch = warp.cta.grid.observer
        if watch is not None:
            watch.prefetched(warp, ins, tensor_map, coords)

    return _for_each_lane(issue)


# -- bulk groups ------------------------------------------------------------------------------------------


@instruction("cp.async.bulk.commit_group")
def commit_group(ins: Instruction, binder: Binder) -> Operation:
    def operation(warp: Warp) -> None:
        watch = warp.cta.grid.observer
        if watch is not None:
            watch.bulk_commit(warp, ins, warp.mask)
        warp.bulk_groups.commit(warp.mask)

    return operation


@terminator("cp.async.bulk.wait_group")
def wait_group(ins: Instruction, binder: Binder) -> Terminator:
    """cp.async.bulk.wait_group[.read] n: at most n of this thread's newest groups are still under way.

    With .read only the sources (and tensor maps) need to have been read; here both happen at once.
    """
    check_modifiers(ins, "async", "bulk", "wait_group", "read")
    newest = binder.source(ins.operands[0], 32)
    following = binder.next_block

    def operation(warp: Warp) -> int:
        allowed = warp.uniform(newest, "the count of wait_group")
        if warp.bulk_groups.reached(warp.mask, allowed):
            watch = warp.cta.grid.observer
            if watch is not None:
                watch.bulk_passed(warp, ins, warp.mask, allowed, ins.has("read"))
            return following
        warp.bulk_groups.block(warp)
        return BLOCKED

    return operation
