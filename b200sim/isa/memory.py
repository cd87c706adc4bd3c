"""Loads, stores and atomics (PTX ISA 9.7.9.8 ld, 9.7.9.11 st, 9.7.13.5 atom)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from b200sim.faults import Fault, Unsupported
from b200sim.isa.addresses import SHARED_WINDOW
from b200sim.isa.registry import Operation, check_modifiers, instruction
from b200sim.isa.values import FULL, LANES, SIGNED, UNSIGNED, Value, lane, lane_array, lowest_lane, spread
from b200sim.ptx.binder import Binder, type_of
from b200sim.ptx.parser import TYPE_BITS
from b200sim.ptx.syntax import Instruction, Vector

if TYPE_CHECKING:
    from b200sim.machine.cta import Cta
    from b200sim.machine.warp import Warp

ORDERINGS = ("weak", "relaxed", "acquire", "release", "acq_rel", "volatile", "cta", "cluster", "gpu", "sys")
HINTS = (
    "L1::no_allocate", "L1::evict_first", "L1::evict_last", "L1::evict_normal", "L1::evict_unchanged",
    "L2::evict_first", "L2::evict_last", "L2::evict_normal", "L2::cache_hint", "L2::64B", "L2::128B", "L2::256B",
    "ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "unified",
)  # fmt: skip
SPACES = ("global", "shared", "shared::cta", "shared::cluster", "param", "param::entry")


class _Access:
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

    def address(self, warp: Warp) -> Value:
        base = warp.regs[self.base]
        if type(base) is int:
            return base + self.offset
        value = base + (self.offset & ((1 << 8 * base.itemsize) - 1))  # type: ignore[union-attr]  # wraps
        if self.space == "generic" and value.dtype != np.uint64:
            value = value.astype(np.uint64)
        return value

    def check_alignment(self, address: Value, warp: Warp) -> None:
        if self.bytes == 1:
            return
        low = address & (self.bytes - 1)
        if type(low) is int:
            wrong = low
        else:
            wrong = int((low * lane_array(warp.mask)).max())  # type: ignore[operator]
        if wrong:
            raise Fault(
                "misaligned",
                f"{self.name} of {self.bytes} bytes at an address that is {wrong} bytes past alignment",
            )


@instruction("ld")
def load(ins: Instruction, binder: Binder) -> Operation:
    destination = ins.operands[0]
    slots = binder.writes(destination)
    access = _Access(ins, binder, 1)
    if access.size == 16:
        raise Unsupported(ins.mnemonic)
    widen = _widener(access, [_register_bits(binder, slot) for slot in slots])
    read = {"param": _read_global, "param::entry": _read_global, "global": _read_global}.get(
        access.space, _read_shared
    )
    if access.space == "generic":
        read = _read_generic
    global_read = access.space == "global"

    def operation(warp: Warp) -> None:
        address = access.address(warp)
        access.check_alignment(address, warp)
        if global_read:
            warp.cta.grid.counters.global_load_bytes += access.bytes * warp.mask.bit_count()
        for i, slot in enumerate(slots):
            warp.put(slot, widen(read(warp, address + i * access.size, access)))

    return operation


def _register_bits(binder: Binder, slot: int) -> int:
    return binder.bits[slot]


def _widener(access: _Access, register_bits: list[int]) -> Callable[[Value], Value]:
    """Bring a loaded element to its register's width: sign-extended for .s types, zero-extended else."""
    bits, register = access.size * 8, register_bits[0]
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


def _read_global(warp: Warp, address: Value, access: _Access) -> Value:
    memory = warp.cta.grid.memory
    if type(address) is int:
        return int.from_bytes(memory.view(address, access.size), "little")
    mask = None if warp.mask == FULL else lane_array(warp.mask)
    return memory.gather(address, access.size, mask)


def _read_shared(warp: Warp, address: Value, access: _Access) -> Value:
    if type(address) is int:
        cta, offset = _shared_target(warp, address, access)
        return int(cta.smem_views[access.size][offset // access.size])
    cta, offsets = _shared_lanes(warp, address, access)  # type: ignore[arg-type]
    return cta.smem_views[access.size][offsets // access.size]


def _read_generic(warp: Warp, address: Value, access: _Access) -> Value:
    first = lane(address, lowest_lane(warp.mask))
    if first >= SHARED_WINDOW:
        return _read_shared(warp, address - SHARED_WINDOW, access)
    return _read_global(warp, address, access)


def _shared_target(warp: Warp, address: int, access: _Access) -> tuple[Cta, int]:
    """The CTA and offset of a uniform shared address; only .shared::cluster may leave the own CTA."""
    if access.space == "shared::cluster" and address >> 24 != warp.cta.rank:
        cta, offset = warp.cta.cluster.cta_of(address, access.name)
        cta = warp.cta.cluster.live_cta(cta.rank, access.name)
        cta.check_shared(offset, access.size, access.name)
        return cta, offset
    return warp.cta, warp.cta.offset(address, access.size, access.name)


def _shared_lanes(warp: Warp, address: np.ndarray, access: _Access) -> tuple[Cta, np.ndarray]:  # type: ignore[type-arg]
    """Offsets per lane; inactive lanes get the first active lane's, so that they are harmless."""
    first = int(address[lowest_lane(warp.mask)])
    if warp.mask != FULL:
        address = np.where(lane_array(warp.mask), address, first)
    low, high = int(address.min()), int(address.max())
    if low >> 24 != high >> 24:
        raise Unsupported(f"{access.name}: lanes that reach different CTAs in one instruction")
    cta, _ = _shared_target(warp, low, access)
    _shared_target(warp, high, access)
    return cta, address & 0xFFFFFF


@instruction("st")
def store(ins: Instruction, binder: Binder) -> Operation:
    access = _Access(ins, binder, 0)
    source = ins.operands[1]
    items = source.items if isinstance(source, Vector) else (source,)
    slots = [binder.source(item, access.size * 8) for item in items]
    if access.size == 16:
        raise Unsupported(ins.mnemonic)
    write = {"global": _write_global, "generic": _write_generic}.get(access.space, _write_shared)
    global_write = access.space == "global"

    def operation(warp: Warp) -> None:
        address = access.address(warp)
        access.check_alignment(address, warp)
        if global_write:
            warp.cta.grid.counters.global_store_bytes += access.bytes * warp.mask.bit_count()
        for i, slot in enumerate(slots):
            write(warp, address + i * access.size, warp.regs[slot], access)

    return operation


def _element(value: Value, size: int) -> Value:
    """The low `size` bytes of a register."""
    if type(value) is int:
        return value & ((1 << 8 * size) - 1)
    return value.astype(UNSIGNED[8 * size]) if value.itemsize != size else value  # type: ignore[union-attr]


def _write_global(warp: Warp, address: Value, value: Value, access: _Access) -> None:
    memory, size = warp.cta.grid.memory, access.size
    value = _element(value, size)
    if type(address) is int:
        last = lane(value, warp.mask.bit_length() - 1)  # all lanes write one place: the highest wins
        memory.view(address, size, write=True)[:] = np.frombuffer(last.to_bytes(size, "little"), np.uint8)
        return
    mask = None if warp.mask == FULL else lane_array(warp.mask)
    memory.scatter(address, spread(value, 8 * size), size, mask)


def _write_shared(warp: Warp, address: Value, value: Value, access: _Access) -> None:
    size = access.size
    value = _element(value, size)
    if type(address) is int:
        cta, offset = _shared_target(warp, address, access)
        cta.smem_views[size][offset // size] = lane(value, warp.mask.bit_length() - 1)
        return
    cta, offsets = _shared_lanes(warp, address, access)  # type: ignore[arg-type]
    if warp.mask == FULL:
        cta.smem_views[size][offsets // size] = value
    else:
        active = lane_array(warp.mask)
        cta.smem_views[size][offsets[active] // size] = spread(value, 8 * size)[active]


def _write_generic(warp: Warp, address: Value, value: Value, access: _Access) -> None:
    if lane(address, lowest_lane(warp.mask)) >= SHARED_WINDOW:
        _write_shared(warp, address - SHARED_WINDOW, value, access)
    else:
        _write_global(warp, address, value, access)


ATOMICS: dict[str, Callable[[int, int, int], int]] = {
    "add": lambda old, b, _: old + b,
    "exch": lambda old, b, _: b,
    "cas": lambda old, b, c: c if old == b else old,
    "min": lambda old, b, _: min(old, b),
    "max": lambda old, b, _: max(old, b),
    "and": lambda old, b, _: old & b,
    "or": lambda old, b, _: old | b,
    "xor": lambda old, b, _: old ^ b,
    "inc": lambda old, b, _: 0 if old >= b else old + 1,
    "dec": lambda old, b, _: b if old == 0 or old > b else old - 1,
}


@instruction("atom", "red")
def atomic(ins: Instruction, binder: Binder) -> Operation:
    """Integer atomics, lane after lane. `red` is `atom` without a result."""
    check_modifiers(ins, *ORDERINGS, *SPACES, *ATOMICS, *TYPE_BITS)
    name = next(word for word in ins.modifiers if word in ATOMICS)
    kind = type_of(ins)
    if kind[0] == "f":
        raise Unsupported(f"{ins.mnemonic}: floating-point atomics")
    bits = TYPE_BITS[kind]
    result = ins.opcode == "atom"
    d = binder.write(ins.operands[0]) if result else None
    rest = ins.operands[1:] if result else ins.operands
    base, offset = binder.address(rest[0])
    sources = [binder.source(operand, bits) for operand in rest[1:]]
    combine, ones, from_signed = ATOMICS[name], (1 << bits) - 1, kind[0] == "s"
    space = next((word for word in ins.modifiers if word in SPACES), "generic")

    def number(x: int) -> int:
        return x - ((x >> (bits - 1)) << bits) if from_signed else x

    def operation(warp: Warp) -> None:
        old_values = np.zeros(LANES, UNSIGNED[bits])
        for i in warp.active_lanes():
            address = lane(warp.regs[base], i) + offset
            place: Any = _atomic_place(warp, address, bits // 8, space, ins.mnemonic)
            old = int(place[0])
            operands = [number(lane(warp.regs[slot], i)) for slot in sources]
            place[0] = combine(number(old), operands[0], operands[1] if len(operands) > 1 else 0) & ones
            old_values[i] = old
        if d is not None:
            single = warp.mask & (warp.mask - 1) == 0
            warp.put(d, int(old_values[lowest_lane(warp.mask)]) if single else old_values)

    return operation


def _atomic_place(warp: Warp, address: int, size: int, space: str, name: str) -> np.ndarray:  # type: ignore[type-arg]
    if address % size:
        raise Fault("misaligned", f"{name} at {address:#x}, not a multiple of {size}")
    if space.startswith("shared") or (space == "generic" and address >= SHARED_WINDOW):
        address -= SHARED_WINDOW if address >= SHARED_WINDOW else 0
        cta, offset = warp.cta.cluster.cta_of(address, name)
        cta.check_shared(offset, size, name)
        return cta.smem_views[size][offset // size : offset // size + 1]
    return warp.cta.grid.memory.view(address, size, write=True).view(f"u{size}")


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
