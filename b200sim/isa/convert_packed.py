"""cvt to and from packed pairs of 16-bit and smaller floating-point formats, and cvt.pack (PTX ISA 9.7.9.21,
9.7.9.22)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from b200sim.faults import Unsupported
from b200sim.isa.floating import clamped
from b200sim.isa.formats import half_codes, narrow_float, scale_codes
from b200sim.isa.registry import check_modifiers
from b200sim.machine.program import Operation
from b200sim.machine.values import UNSIGNED, Value, floats, per_lane, signed, width_mask
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import Instruction

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

SMALL = ("e4m3x2", "e5m2x2", "e2m1x2", "e2m3x2", "e3m2x2")
HALVES = ("f16x2", "bf16x2")


def widen_pair(ins: Instruction, binder: Binder, to: str, source: str) -> Operation:
    """cvt.rn.f16x2.FMTx2 d, a, and cvt.rn.bf16x2.ue8m0x2 d, a: both numbers, exactly."""
    check_modifiers(ins, "rn", "relu", to, source)
    scales = (to, source) == ("bf16x2", "ue8m0x2")
    if not scales and (to != "f16x2" or source not in SMALL):
        raise Unsupported(ins.mnemonic)
    table, width = _scale_table() if scales else half_codes(source[:-2])
    if ins.has("relu"):
        table = np.where((table >> 15 == 1) & (table & 0x7FFF <= 0x7C00), np.uint16(0), table)
    d, a = binder.write(ins.operands[0]), binder.read(ins.operands[1])
    ones = width_mask(width)

    def operation(warp: Warp) -> None:
        codes = np.atleast_1d(np.asarray(warp.regs[a], np.uint32))
        shift = 4 if width == 4 else 8
        low, high = table[codes & ones], table[codes >> shift & ones]
        packed = high.astype(np.uint32) << np.uint32(16) | low
        warp.put(d, int(packed[0]) if packed.size == 1 else packed)

    return operation


def _scale_table() -> tuple[Any, int]:
    """bf16 patterns of 2^(code - 127); code 0 is the subnormal 2^-127, code 255 NaN."""
    codes = np.arange(256, dtype=np.uint16) << 7
    codes[0], codes[255] = 0x0040, 0x7FFF
    return codes, 8


def narrow_pair(ins: Instruction, binder: Binder, to: str, source: str) -> Operation:
    """cvt.ROUND[.satfinite][.relu].FMTx2.f32 d, a, b: a to the upper half, b to the lower; or of a pair
    .f16x2 or .bf16x2 in one register: its upper half to the upper one."""
    convert_lanes, width = _narrowing(ins, to, source)
    relu = ins.has("relu")
    d = binder.write(ins.operands[0])
    if len(ins.operands) != (3 if source == "f32" else 2):
        raise Unsupported(f"{ins.mnemonic} with {len(ins.operands)} operands")
    dtype = UNSIGNED[binder.bits[d]]
    slots = [binder.source(operand, 32) for operand in ins.operands[1:]]
    if len(slots) == 1:
        a = slots[0]

        def pair(warp: Warp) -> tuple[Any, Any]:
            return _halves(warp.regs[a], source)
    else:
        a, b = slots

        def pair(warp: Warp) -> tuple[Any, Any]:
            return floats(warp.regs[a], 32), floats(warp.regs[b], 32)

    def operation(warp: Warp) -> None:
        x, y = pair(warp)
        if relu:
            x, y = clamped(x, False, True), clamped(y, False, True)
        if x.size == y.size:
            low, high = convert_lanes(np.array((y, x))).astype(dtype)
        else:
            low, high = convert_lanes(y).astype(dtype), convert_lanes(x).astype(dtype)
        packed = (high << dtype.type(width)) | low
        warp.put(d, int(packed[0]) if packed.size == 1 else packed)

    return operation


def _narrowing(ins: Instruction, to: str, source: str) -> tuple[Callable[[Any], Any], int]:
    """The conversion of fp32 lanes to codes, and their width in bits."""
    rounding = ins.modifiers[0]
    if to == "ue8m0x2":
        check_modifiers(ins, "rz", "rp", "satfinite", "f32", "bf16x2", to)
        if rounding not in ("rz", "rp") or source not in ("f32", "bf16x2"):
            raise Unsupported(ins.mnemonic)
        up, saturate = rounding == "rp", ins.has("satfinite")
        return (lambda x: scale_codes(x, up, saturate)), 8
    halves = to in HALVES
    if not halves and to not in SMALL:
        raise Unsupported(ins.mnemonic)
    check_modifiers(ins, "rn", *(("rz",) if halves else ()), "satfinite", "relu", source, to)
    if rounding not in ("rn", "rz") or source not in (("f32",) if halves else ("f32", *HALVES)):
        raise Unsupported(ins.mnemonic)
    return narrow_float(to[:-2], ins.has("satfinite"), rounding)


def _halves(value: Value, kind: str) -> tuple[Any, Any]:
    """The upper and lower numbers of a pair, as fp32."""
    words = np.atleast_1d(np.asarray(value, np.uint32))
    if kind == "bf16x2":
        return (words & np.uint32(0xFFFF0000)).view(np.float32), (words << np.uint32(16)).view(np.float32)
    codes = words.view(np.uint16).reshape(-1, 2)
    high, low = (np.ascontiguousarray(codes[:, i]).view(np.float16).astype(np.float32) for i in (1, 0))
    return high, low


def pack(ins: Instruction, binder: Binder) -> Operation:
    """cvt.pack.sat.TYPE.s32[.b32] d, a, b[, c]: {a, b} clamped to TYPE; c moves up behind them."""
    to = ins.modifiers[2]
    check_modifiers(ins, "pack", "sat", to, "s32", "b32")
    sizes = {f"{sign}{bits}": bits for sign in "us" for bits in (2, 4, 8, 16)}
    if to not in sizes or ins.modifiers[3:] != (("s32",) if sizes[to] == 16 else ("s32", "b32")):
        raise Unsupported(ins.mnemonic)
    bits, from_signed = sizes[to], to[0] == "s"
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if from_signed else (0, (1 << bits) - 1)
    d = binder.write(ins.operands[0])
    slots = [binder.source(operand, 32) for operand in ins.operands[1:]]

    def one(a: int, b: int, c: int = 0) -> int:
        x, y = (min(max(signed(v, 32), low), high) & width_mask(bits) for v in (a, b))
        return (c << 2 * bits | x << bits | y) & 0xFFFFFFFF

    compute = per_lane(one, 32)

    def operation(warp: Warp) -> None:
        warp.put(d, compute(*(warp.regs[slot] for slot in slots)))

    return operation
