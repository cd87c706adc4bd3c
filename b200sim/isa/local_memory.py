"""The .local state space (PTX ISA 5.1.5) and .param as calls use it (5.1.6.4): memory of a thread alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from b200sim.faults import Fault
from b200sim.machine.thread_memory import ThreadMemory
from b200sim.machine.values import Value, lane, lane_array, lowest_lane
from b200sim.ptx.binder import LOCAL_BASE

if TYPE_CHECKING:
    from b200sim.isa.memory import Access
    from b200sim.machine.warp import Warp


def read_local(warp: Warp, address: Value, access: Access) -> Value:
    memory = checked(warp, address, access.size, access.name)
    return memory.read(address - LOCAL_BASE, access.size, warp.mask)


def write_local(warp: Warp, address: Value, value: Value, access: Access) -> None:
    memory = checked(warp, address, access.size, access.name)
    memory.write(address - LOCAL_BASE, value, access.size, warp.mask)


def checked(warp: Warp, address: Value, nbytes: int, what: str) -> ThreadMemory:
    """The warp's local memory, if `nbytes` at these .local addresses lie in it for all active lanes."""
    memory = warp.local
    end = LOCAL_BASE + memory.nbytes - nbytes
    if type(address) is int:
        if LOCAL_BASE <= address <= end:
            return memory
        wrong = lowest_lane(warp.mask)
    else:
        outside = ((address < LOCAL_BASE) | (address.astype(np.int64) > end)) & lane_array(warp.mask)  # type: ignore[union-attr, operator]
        if not outside.any():
            return memory
        wrong = int(np.argmax(outside))
    raise Fault(
        "local_out_of_bounds",
        f"{what} of {nbytes} bytes at local offset {lane(address, wrong) - LOCAL_BASE:#x} of thread "
        f"{warp.thread(wrong)}; a thread of this kernel has {memory.nbytes} bytes of local memory",
    )


def read_argument(warp: Warp, offset: Value, access: Access) -> Value:
    """ld.param of a variable that passes a value to or from a function; checked when it was decoded."""
    return warp.arguments.read(offset, access.size, warp.mask)


def write_argument(warp: Warp, offset: Value, value: Value, access: Access) -> None:
    warp.arguments.write(offset, value, access.size, warp.mask)
