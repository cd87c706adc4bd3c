"""Loads and stores (PTX ISA 9.7.9.8 ld, 9.7.9.11 st), and hints."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from b200sim.faults import Fault, Unsupported
from b200sim.isa.addresses import LOCAL_WINDOW, SHARED_WINDOW
from b200sim.isa.local_memory import read_argument, read_local, write_argument, write_local
from b200sim.isa.registry import check_modifiers, instruction
from b200sim.machine.program import Operation
from b200sim.machine.values import FULL, LANES, SIGNED, UNSIGNED, Value, lane, lane_array, lowest_lane, spread
from b200sim.ptx.binder import Binder, type_of
from b200sim.ptx.syntax import TYPE_BITS, FrameVariable, Instruction, Vector

if TYPE_CHECKING:
    from b200sim.machine.cta import Cta
    from b200sim.machine.warp import Warp

ORDERINGS = ("weak", "relaxed", "acquire", "release", "acq_rel", "volatile", "cta", "cluster", "gpu", "sys")
HINTS = (
    "L1::no_allocate", "L1::evict_first", "L1::evict_last", "L1::evict_normal", "L1::evict_unchanged",
    "L2::evict_first", "L2::evict_last", "L2::evict_normal", "L2::cache_hint", "L2::64B", "L2::128B",
    "L2::256B",
    "ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "unified",
)  # fmt: skip
ARGUMENT = "argument of a call"  # the space of .param variables that are not the kernel's
ALL_64 = (1 << 64) - 1
SPACES = (
    "global",
    "shared",
    "shared::cta",
    "shared::cluster",
    "param",
    "param::entry",
    "param::func",
    "local",
    "const",
)


class Access:
    """What one ld or st does per lane: `count` elements of `size` bytes from a base slot plus an offset."""

    def __init__(self, ins: Instruction, binder: Binder, address_operand: int) -> None:
        check_modifiers(ins, *ORDERINGS, *HINTS, *SPACES, "v2", "v4", "v8", *TYPE_BITS)
        self.ins = ins
        self.type = type_of(ins)
        self.size = TYPE_BITS[self.type] // 8
        self.base, self.offset = binder.address(ins.operands[address_operand])
        vector = next((int(word[1:]) for word in ins.modifiers if word in ("v2", "v4", "v8")), 1)
        self.bytes = vector * self.size
        self.space = next((word for word in ins.modifiers if word in SPACES), "generic")
        self.name = ins.mnemonic
        passed = binder.argument(ins.operands[address_operand])
        if passed is not None:
            self._bind_argument(passed)

    def _bind_argument(self, variable: FrameVariable) -> None:
        """A `.param` variable of a call: memory of the thread; its offset is known now."""
        self.space = ARGUMENT
        if not 0 <= self.offset <= variable.size - self.bytes:
            raise Unsupported(f"{self.name} at byte {self.offset} of an argument of {variable.size} bytes")

    def address(self, warp: Warp) -> Value:
        base = warp.regs[self.base]
        if type(base) is int:
            return base + self.offset & ALL_64
        value = base + (self.offset & ((1 << 8 * base.itemsize) - 1))  # wraps
        if self.space == "generic" and value.dtype != np.uint64:
            value = value.astype(np.uint64)
        return value

    def check_alignment(self, address: Value, warp: Warp) -> None:
        if self.bytes == 1:
            return
        low = address & (self.bytes - 1)
        wrong = low if type(low) is int else int((low * lane_array(warp.mask)).max())
        if wrong:
            raise Fault(
                "misaligned",
                f"{self.name} of {self.bytes} bytes at an address that is {wrong} bytes past alignment",
            )


@instruction("ld")
def load(ins: Instruction, binder: Binder) -> Operation:
    destination = ins.operands[0]
    slots = binder.writes(destination)
    access = Access(ins, binder, 1)
    if access.size == 16:
        return _load_128(access, slots[0])
    widen = [_widener(access, binder.bits[slot]) for slot in slots]
    read = _reader(access)
    global_read = access.space == "global"

    def operation(warp: Warp) -> None:
        address = access.address(warp)
        access.check_alignment(address, warp)
        if global_read:
            warp.cta.grid.counters.global_load_bytes += access.bytes * warp.mask.bit_count()
        for i, slot in enumerate(slots):
            warp.put(slot, widen[i](read(warp, address + i * access.size, access)))

    return operation


def _reader(access: Access) -> Callable[[Warp, Value, Access], Value]:
    """How elements of a state space are read; parameters lie in global memory."""
    special = {"generic": _read_generic, "local": read_local, ARGUMENT: read_argument}
    if access.space in special:
        return special[access.space]
    return _read_shared if access.space.startswith("shared") else _read_global


def _load_128(access: Access, slot: int) -> Operation:
    """ld.b128: two 64-bit halves, checked as one access."""
    access.size = 8
    read = _reader(access)

    def operation(warp: Warp) -> None:
        address = access.address(warp)
        access.check_alignment(address, warp)
        low, high = read(warp, address, access), read(warp, address + 8, access)
        if type(low) is int and type(high) is int:
            warp.put(slot, low | high << 64)
        else:
            halves = zip(low.tolist(), high.tolist(), strict=True)  # type: ignore[union-attr]
            warp.put(slot, np.array([x | y << 64 for x, y in halves], object))

    return operation


def _store_128(access: Access, slot: int) -> Operation:
    """st.b128: two 64-bit halves, checked as one access."""
    access.size = 8
    write = _writer(access)

    def operation(warp: Warp) -> None:
        address, value = access.address(warp), warp.regs[slot]
        access.check_alignment(address, warp)
        if type(value) is int:
            low, high = value & ALL_64, value >> 64
        else:
            low, high = (np.array([x >> shift & ALL_64 for x in value], np.uint64) for shift in (0, 64))  # type: ignore[assignment]
        write(warp, address, low, access)
        write(warp, address + 8, high, access)

    return operation


def _widener(access: Access, register: int) -> Callable[[Value], Value]:
    """Bring a loaded element to its register's width: sign-extended for .s types, zero-extended else."""
    bits = access.size * 8
    if register <= bits:
        return lambda value: value
    from_signed = access.type[0] == "s"
    ones = (1 << register) - 1

    def widen(value: Value) -> Value:
        if type(value) is int:
            return (value - ((value >> (bits - 1)) << bits)) & ones if from_signed else value
        if from_signed:
            return value.view(SIGNED[bits]).astype(SIGNED[register]).view(UNSIGNED[register])  # type: ignore[union-attr]
        return value.astype(UNSIGNED[register])  # type: ignore[union-attr]

    return widen


def _active(warp: Warp, address: Value) -> Value:
    """The addresses of the active lanes."""
    return address if type(address) is int or warp.mask == FULL else address[lane_array(warp.mask)]  # type: ignore[index]


def _watch_global(warp: Warp, address: Value, access: Access, kind: str) -> None:
    watch = warp.cta.grid.observer
    if watch is not None and not access.space.startswith("param"):
        watch.global_access(warp, access.ins, _active(warp, address), access.size, kind)


def _watch_shared(warp: Warp, cta: Cta, offsets: Value, access: Access, kind: str) -> None:
    watch = warp.cta.grid.observer
    if watch is not None:
        watch.shared_access(warp, access.ins, cta, _active(warp, offsets), access.size, kind)


def _read_global(warp: Warp, address: Value, access: Access) -> Value:
    _watch_global(warp, address, access, "read")
    memory = warp.cta.grid.memory
    if type(address) is int:
        return int.from_bytes(memory.view(address, access.size), "little")
    mask = None if warp.mask == FULL else lane_array(warp.mask)
    return memory.gather(address, access.size, mask)  # type: ignore[arg-type]


def _read_shared(warp: Warp, address: Value, access: Access) -> Value:
    if type(address) is int:
        cta, offset = _shared_target(warp, address, access)
        _watch_shared(warp, cta, offset, access, "read")
        return int(cta.smem_views[access.size][offset // access.size])
    found = _shared_lanes(warp, address, access)  # type: ignore[arg-type]
    if found is None:
        values = np.zeros(LANES, UNSIGNED[8 * access.size])
        for i in warp.active_lanes():
            cta, offset = _shared_target(warp, lane(address, i), access)
            _watch_shared(warp, cta, offset, access, "read")
            values[i] = cta.smem_views[access.size][offset // access.size]
        return values
    cta, offsets = found
    _watch_shared(warp, cta, offsets, access, "read")
    return cta.smem_views[access.size][offsets // access.size]


def _read_generic(warp: Warp, address: Value, access: Access) -> Value:
    first = lane(address, lowest_lane(warp.mask))
    if first >= SHARED_WINDOW:
        if first >= LOCAL_WINDOW:
            return read_local(warp, address - LOCAL_WINDOW, access)
        return _read_shared(warp, address - SHARED_WINDOW, access)
    return _read_global(warp, address, access)


def _shared_target(warp: Warp, address: int, access: Access) -> tuple[Cta, int]:
    """The CTA and offset of a uniform shared address; only .shared::cluster may leave the own CTA."""
    if access.space in ("shared::cluster", "generic") and address >> 24 != warp.cta.rank:
        cta, offset = warp.cta.cluster.cta_of(address, access.name)
        cta = warp.cta.cluster.live_cta(cta.rank, access.name)
        cta.check_shared(offset, access.size, access.name)
        return cta, offset
    return warp.cta, warp.cta.offset(address, access.size, access.name)


def _shared_lanes(
    warp: Warp, address: NDArray[np.unsignedinteger], access: Access
) -> tuple[Cta, NDArray[np.unsignedinteger]] | None:
    """The CTA and the offset per lane; inactive lanes get the first active lane's, so that they are harmless.

    None if the lanes reach several CTAs: then they go one after the other.
    """
    first = address[lowest_lane(warp.mask)]
    if warp.mask != FULL:
        address = np.where(lane_array(warp.mask), address, first)
    low, high = int(address.min()), int(address.max())
    if low >> 24 != high >> 24:
        return None
    cta, _ = _shared_target(warp, low, access)
    _shared_target(warp, high, access)
    return cta, address & 0xFFFFFF  # type: ignore[return-value]


@instruction("st")
def store(ins: Instruction, binder: Binder) -> Operation:
    access = Access(ins, binder, 0)
    source = ins.operands[1]
    items = source.items if isinstance(source, Vector) else (source,)
    slots = [binder.source(item, access.size * 8) for item in items]
    if access.size == 16:
        return _store_128(access, slots[0])
    write = _writer(access)
    global_write = access.space == "global"

    def operation(warp: Warp) -> None:
        address = access.address(warp)
        access.check_alignment(address, warp)
        if global_write:
            warp.cta.grid.counters.global_store_bytes += access.bytes * warp.mask.bit_count()
        for i, slot in enumerate(slots):
            write(warp, address + i * access.size, warp.regs[slot], access)

    return operation


def _writer(access: Access) -> Callable[[Warp, Value, Value, Access], None]:
    if access.space.startswith(("param", "const")):
        raise Unsupported(f"{access.name}: the parameters of a kernel and .const are read-only")
    writers = {
        "global": _write_global,
        "generic": _write_generic,
        "local": write_local,
        ARGUMENT: write_argument,
    }
    return writers.get(access.space, _write_shared)


def _element(value: Value, size: int) -> Value:
    """The low `size` bytes of a register."""
    if type(value) is int:
        return value & ((1 << 8 * size) - 1)
    return value.astype(UNSIGNED[8 * size]) if value.itemsize != size else value  # type: ignore[union-attr]


def _write_global(warp: Warp, address: Value, value: Value, access: Access) -> None:
    _watch_global(warp, address, access, "write")
    memory, size = warp.cta.grid.memory, access.size
    value = _element(value, size)
    if type(address) is int:
        last = lane(value, warp.mask.bit_length() - 1)  # all lanes write one place: the highest wins
        memory.view(address, size, write=True)[:] = np.frombuffer(last.to_bytes(size, "little"), np.uint8)
        return
    mask = None if warp.mask == FULL else lane_array(warp.mask)
    memory.scatter(address, spread(value, 8 * size), size, mask)  # type: ignore[arg-type]


def _write_shared(warp: Warp, address: Value, value: Value, access: Access) -> None:
    size = access.size
    value = _element(value, size)
    if type(address) is int:
        cta, offset = _shared_target(warp, address, access)
        _watch_shared(warp, cta, offset, access, "write")
        cta.smem_views[size][offset // size] = lane(value, warp.mask.bit_length() - 1)
        return
    found = _shared_lanes(warp, address, access)  # type: ignore[arg-type]
    if found is None:
        for i in warp.active_lanes():
            cta, offset = _shared_target(warp, lane(address, i), access)
            _watch_shared(warp, cta, offset, access, "write")
            cta.smem_views[size][offset // size] = lane(value, i)
        return
    cta, offsets = found
    _watch_shared(warp, cta, offsets, access, "write")
    if warp.mask == FULL:
        cta.smem_views[size][offsets // size] = value
    else:
        active = lane_array(warp.mask)
        cta.smem_views[size][offsets[active] // size] = spread(value, 8 * size)[active]


def _write_generic(warp: Warp, address: Value, value: Value, access: Access) -> None:
    first = lane(address, lowest_lane(warp.mask))
    if first >= LOCAL_WINDOW:
        write_local(warp, address - LOCAL_WINDOW, value, access)
    elif first >= SHARED_WINDOW:
        _write_shared(warp, address - SHARED_WINDOW, value, access)
    else:
        _write_global(warp, address, value, access)


@instruction("prefetch", "prefetchu", "applypriority", "discard", "createpolicy")
def cache_hint(ins: Instruction, binder: Binder) -> Operation:
    """Hints have no effect on values; createpolicy yields an opaque 64-bit policy."""
    if ins.opcode == "discard":
        raise Unsupported("discard.L2 (its data becomes undefined)")
    if ins.opcode == "createpolicy":
        d = binder.write(ins.operands[0])

        def policy(warp: Warp) -> None:
            warp.put(d, 0)

        return policy
    binder.address(ins.operands[0])

    def operation(warp: Warp) -> None:
        return None

    return operation
