"""Cluster launch control (PTX ISA 9.7.13.17, .18): a running cluster takes over one that has not started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from b200sim.faults import Fault, Unsupported
from b200sim.isa.addresses import shared_address
from b200sim.isa.registry import check_modifiers, instruction
from b200sim.machine.asynchronous import AsyncOperation
from b200sim.machine.observer import TryCancel
from b200sim.machine.program import Operation
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import Instruction

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

RESPONSE_BYTES = 16


def _response(first_cta: tuple[int, int, int] | None) -> bytes:
    """word 0 = x, word 1 = y | z << 16, bit 0 of word 2 = success."""
    if first_cta is None:
        return bytes(RESPONSE_BYTES)
    x, y, z = first_cta
    return np.array([x, y | z << 16, 1, 0], np.uint32).tobytes()


@instruction("clusterlaunchcontrol.try_cancel")
def try_cancel(ins: Instruction, binder: Binder) -> Operation:
    """try_cancel.async [response], [mbarrier]: 16 bytes arrive as a transaction, everywhere if multicast."""
    check_modifiers(
        ins,
        "try_cancel",
        "async",
        "shared::cta",
        "mbarrier::complete_tx::bytes",
        "multicast::cluster::all",
        "b128",
    )
    response, response_offset = binder.address(ins.operands[0])
    barrier, barrier_offset = binder.address(ins.operands[1])
    everyone = ins.has("multicast::cluster::all")

    def operation(warp: Warp) -> None:
        cta = warp.cta
        target = shared_address(warp.uniform(response, "the address of a response") + response_offset)
        place = cta.offset(target, RESPONSE_BYTES, ins.mnemonic)
        mbarrier = shared_address(warp.uniform(barrier, "the address of an mbarrier") + barrier_offset)
        signal = cta.offset(mbarrier, 8, ins.mnemonic)
        if place % RESPONSE_BYTES:
            raise Fault(
                "misaligned", f"try_cancel response at shared offset {place:#x}, not a multiple of 16"
            )
        receivers = cta.cluster.ctas if everyone else [cta]

        def perform() -> None:
            data = np.frombuffer(_response(cta.grid.cancel_next()), np.uint8)
            for receiver in receivers:
                receiver.smem[place : place + RESPONSE_BYTES] = data
                receiver.barrier(signal).complete(RESPONSE_BYTES)

        for i in warp.active_lanes():
            task = AsyncOperation("try_cancel", perform, warp, ins.place(), ins=ins, thread=i)
            if cta.grid.observer is not None:
                task.detail = TryCancel(place, receivers, [(receiver, signal) for receiver in receivers])
            cta.cluster.post(task)

    return operation


@instruction("clusterlaunchcontrol.query_cancel")
def query_cancel(ins: Instruction, binder: Binder) -> Operation:
    """query_cancel.is_canceled.pred.b128 p, r; query_cancel.get_first_ctaid::x.b32.b128 d, r.

    The CTA index in the response of a failed try_cancel is undefined, but may be read: CuTe-DSL's helper
    always does. It is all ones here.
    """
    destinations = binder.writes(ins.operands[0])
    source = binder.read(ins.operands[1])
    field = ins.modifiers[1]
    if field not in ("is_canceled", "get_first_ctaid", *(f"get_first_ctaid::{axis}" for axis in "xyz")):
        raise Unsupported(ins.mnemonic)

    def operation(warp: Warp) -> None:
        response = warp.uniform(source, "a try_cancel response")
        success = response >> 64 & 1
        if field == "is_canceled":
            if warp.cta.grid.observer is not None:
                warp.cta.grid.observer.cancel_queried(warp, ins, bool(success))
            warp.put(destinations[0], 0xFFFFFFFF if success else 0)
            return
        ctaid = (0xFFFFFFFF,) * 4
        if success:
            ctaid = (response & 0xFFFFFFFF, response >> 32 & 0xFFFF, response >> 48 & 0xFFFF, 0)
        wanted = ctaid if field == "get_first_ctaid" else ctaid["xyz".index(field[-1]) :]
        for slot, value in zip(destinations, wanted, strict=False):
            warp.put(slot, value)

    return operation
