"""Atomic read-modify-write operations on memory (PTX ISA 9.7.13.5 atom, 9.7.13.6 red)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from b200sim.faults import Fault, Unsupported
from b200sim.isa.addresses import SHARED_WINDOW, shared_address
from b200sim.isa.floating import canonical_nan, flush, minimum_maximum
from b200sim.isa.memory import HINTS, ORDERINGS, SPACES
from b200sim.isa.registry import check_modifiers, instruction
from b200sim.isa.rounding import brain_codes, narrowed, odd_fused
from b200sim.machine.program import Operation
from b200sim.machine.values import FLOAT, LANES, UNSIGNED, lane, lowest_lane, signed, width_mask
from b200sim.ptx.binder import Binder, type_of
from b200sim.ptx.syntax import TYPE_BITS, Instruction, Operand, Vector

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

HALF_KINDS = ("f16", "f16x2", "bf16", "bf16x2")
COMBINE: dict[str, Callable[[int, int, int], int]] = {
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
    """atom d, [a], b[, c]: lane after lane, each element of a vector or pair by itself. `red` is `atom`
    without a result."""
    check_modifiers(ins, *ORDERINGS, *HINTS, *SPACES, *COMBINE, "noftz", "v2", "v4", "v8", *TYPE_BITS)
    name = next(word for word in ins.modifiers if word in COMBINE)
    kind = type_of(ins)
    combine = _combination(ins, name, kind)
    # "atom.add.f32 on global memory flushes subnormal inputs and results to sign-preserving zero; on shared
    # memory [it] supports" them (PTX ISA 9.7.13.5; red: 9.7.13.6).
    combine_global = _add_f32_flushing if kind == "f32" else combine
    bits = TYPE_BITS[kind]
    result = ins.opcode == "atom"
    destinations = binder.writes(ins.operands[0]) if result else []
    address_operand, *operands = ins.operands[1:] if result else ins.operands
    base, offset = binder.address(address_operand)
    count = next((int(word[1:]) for word in ins.modifiers if word in ("v2", "v4", "v8")), 1)
    if count > 1:
        _check_vector(ins, kind, name)
        sources = [[binder.source(item, bits)] for item in _items(operands[0])]
    else:
        sources = [[binder.source(operand, bits) for operand in operands[: 2 if name == "cas" else 1]]]
    if len(sources) != count or (result and len(destinations) != count):
        raise Unsupported(f"{ins.mnemonic} with {len(sources)} values")
    space = next((word for word in ins.modifiers if word in SPACES), "generic")
    size = bits // 8

    def operation(warp: Warp) -> None:
        old_values = np.zeros((count, LANES), UNSIGNED[bits])
        for i in warp.active_lanes():
            address = lane(warp.regs[base], i) + offset
            if count > 1 and address % (count * size):
                raise Fault("misaligned", f"{ins.mnemonic} at {address:#x}, not a multiple of {count * size}")
            for j, slots in enumerate(sources):
                place = _place(warp, address + j * size, size, space, ins)
                old = int(place[0])
                values = [lane(warp.regs[slot], i) & width_mask(bits) for slot in slots]
                rule = combine if _in_shared(space, address) else combine_global
                place[0] = rule(old, values[0], values[-1])
                old_values[j, i] = old
        single = warp.mask & (warp.mask - 1) == 0
        for d, old_lanes in zip(destinations, old_values, strict=False):
            warp.put(d, int(old_lanes[lowest_lane(warp.mask)]) if single else old_lanes)

    return operation


def _items(operand: Operand) -> tuple[Operand, ...]:
    return operand.items if isinstance(operand, Vector) else (operand,)


def _check_vector(ins: Instruction, kind: str, name: str) -> None:
    """Vectors: fp32 sums of 2 or 4; 16-bit sums, minima and maxima, of 8 too unless they are pairs."""
    wide = ins.has("v8") and kind not in ("f16", "bf16")
    if ((kind != "f32" or name != "add") and kind not in HALF_KINDS) or wide or not ins.has("global"):
        raise Unsupported(ins.mnemonic)


def _combination(ins: Instruction, name: str, kind: str) -> Callable[[int, int, int], int]:
    """(old, b, c) -> new, on patterns."""
    if kind in HALF_KINDS:
        extremes = any(ins.has(word) for word in ("v2", "v4", "v8"))
        if not ins.has("noftz") or (name != "add" and not (extremes and name in ("min", "max"))):
            raise Unsupported(ins.mnemonic)
        return _on_halves(name, kind)
    if (
        kind == "b128"
        or ins.has("noftz")
        or (kind[0] == "f" and (name != "add" or kind not in ("f32", "f64")))
    ):
        raise Unsupported(ins.mnemonic)
    bits = TYPE_BITS[kind]
    return _float_add(bits) if kind[0] == "f" else on_integers(COMBINE[name], bits, kind[0] == "s")


def _on_halves(name: str, kind: str) -> Callable[[int, int, int], int]:
    """f16, bf16 and pairs of them: one rounding each."""
    dtype, brain = UNSIGNED[TYPE_BITS[kind]], kind.startswith("bf16")
    extreme = None if name == "add" else minimum_maximum(name, False, False)

    def numbers(pattern: int) -> NDArray[np.float64]:
        codes = np.array([pattern], dtype).view(np.uint16)
        values = (codes.astype(np.uint32) << 16).view(np.float32) if brain else codes.view(np.float16)
        return values.astype(np.float64)

    def combine(old: int, b: int, _: int) -> int:
        x, y = numbers(old), numbers(b)
        exact = odd_fused(x, np.ones_like(x), y) if extreme is None else extreme(x, y)
        codes = brain_codes(exact) if brain else canonical_nan(narrowed(exact, np.float16, "rn"))
        return int(np.ascontiguousarray(codes).view(dtype)[0])

    return combine


def on_integers(
    combine: Callable[[int, int, int], int], bits: int, from_signed: bool
) -> Callable[[int, int, int], int]:
    if not from_signed:
        return lambda old, b, c: combine(old, b, c) & width_mask(bits)
    return lambda old, b, c: combine(*(signed(x, bits) for x in (old, b, c))) & width_mask(bits)


def _float_add(bits: int) -> Callable[[int, int, int], int]:
    """An fp32 NaN is the hardware's one NaN."""

    def add(old: int, b: int, _: int) -> int:
        pair = np.array([old, b], UNSIGNED[bits]).view(FLOAT[bits])
        return int(canonical_nan(pair[:1] + pair[1:]).view(UNSIGNED[bits])[0])

    return add


def _add_f32_flushing(old: int, b: int, _: int) -> int:
    pair = flush(np.array([old, b], np.uint32).view(np.float32))
    return int(canonical_nan(flush(pair[:1] + pair[1:])).view(np.uint32)[0])


def _in_shared(space: str, address: int) -> bool:
    return space.startswith("shared") or (space == "generic" and address >= SHARED_WINDOW)


def _place(warp: Warp, address: int, size: int, space: str, ins: Instruction) -> NDArray[np.unsignedinteger]:
    """The memory word at an address, as a writable array of one element."""
    watch, name = warp.cta.grid.observer, ins.mnemonic
    if address % size:
        raise Fault("misaligned", f"{name} at {address:#x}, not a multiple of {size}")
    if _in_shared(space, address):
        address = shared_address(address)
        cta, offset = warp.cta, address & 0xFFFFFF
        if address >> 24 == cta.rank or space in ("shared", "shared::cta"):
            offset = cta.offset(address, size, name)
        else:
            cta = cta.cluster.live_cta(address >> 24, name)
            cta.check_shared(offset, size, name)
        if watch is not None:
            watch.shared_access(warp, ins, cta, offset, size, "atomic")
        return cta.smem_views[size][offset // size : offset // size + 1]
    if watch is not None:
        watch.global_access(warp, ins, address, size, "atomic")
    return warp.cta.grid.memory.view(address, size, write=True).view(f"u{size}")
