"""Floating-point arithmetic (PTX ISA 9.7.3, 9.7.4): IEEE operations in numpy, one rounding each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from b200sim.faults import Unsupported
from b200sim.isa import rounding
from b200sim.isa.registry import check_modifiers, instruction
from b200sim.machine.program import Operation
from b200sim.machine.values import FLOAT, UNSIGNED, Value, floats, from_lanes, spread
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import Instruction

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

# kind -> (register bits, bits of one number)
KINDS = {
    "f16": (16, 16), "f16x2": (32, 16), "bf16": (16, 16), "bf16x2": (32, 16), "f32": (32, 32),
    "f32x2": (64, 32), "f64": (64, 64),
}  # fmt: skip
NAN = {16: 0x7FFF, 32: 0x7FFFFFFF}  # what the hardware writes for any NaN result; f64 keeps its payload
_SMALLEST_NORMAL = {2: 2.0**-14, 4: 2.0**-126}
_SUMS = ("add", "sub", "mul", "fma", "mad")
# Beside .rn, .ftz, .approx and .full, which all take where PTX has them: what sums of a kind take.
_SUM_WORDS: dict[str, tuple[str, ...]] = {
    "f16": ("sat", "relu"), "f16x2": ("sat", "relu"), "bf16": ("relu",), "bf16x2": ("relu",),
    "f32": ("rz", "rm", "rp", "sat"), "f32x2": ("rz", "rm", "rp"), "f64": ("rz", "rm", "rp"),
}  # fmt: skip
Lanes = Any  # an array of floating-point numbers


def _extreme(choose: Callable[[Lanes, Lanes], Lanes], prefer_negative: bool) -> Callable[..., Lanes]:
    """min or max: -0 is smaller than +0; what becomes of NaN is for `choose` to say."""

    def compute(a: Lanes, b: Lanes) -> Lanes:
        sign = np.signbit(a) | np.signbit(b) if prefer_negative else np.signbit(a) & np.signbit(b)
        both_zero = (a == 0) & (b == 0)
        return np.where(both_zero, np.where(sign, -0.0, 0.0).astype(a.dtype), choose(a, b))

    return compute


def _number_wins(choose: Callable[[Lanes, Lanes], Lanes]) -> Callable[[Lanes, Lanes], Lanes]:
    """Against any NaN. (np.fmin and np.fmax give NaN for a lone signalling NaN, but not in an array.)"""
    return lambda a, b: np.where(np.isnan(b), a, np.where(np.isnan(a), b, choose(a, b)))


def minimum_maximum(
    name: str, keeps_nan: bool, magnitudes: bool, xorsign: bool = False
) -> Callable[..., Lanes]:
    """min or max of arrays, element by element. A NaN loses against a number, or wins if `keeps_nan`;
    `magnitudes` are compared without signs, with `xorsign` the result gets the product of the signs."""
    of_two = np.minimum if name == "min" else np.maximum
    choose = _extreme(of_two if keeps_nan else _number_wins(of_two), name == "min")

    def compute(first: Lanes, *others: Lanes) -> Lanes:
        result = np.abs(first) if magnitudes else first
        negative = np.signbit(first)
        for other in others:
            result = choose(result, np.abs(other) if magnitudes else other)
            negative = negative ^ np.signbit(other)
        return np.where(negative, -result, result) if xorsign else result

    return compute


def _through_double(compute: Callable[[Lanes], Lanes]) -> Callable[[Lanes], Lanes]:
    """Approximate functions are given with nearly correct rounding, which hardware does not promise."""
    return lambda a: compute(a.astype(np.float64)).astype(a.dtype)


_FUNCTIONS: dict[str, Callable[..., Lanes]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: np.where(np.isnan(a), a, -a),
    "abs": lambda a: np.where(np.isnan(a), a, np.abs(a)),
    "sqrt": np.sqrt,
    "rcp": lambda a: np.asarray(1, a.dtype) / a,
    "ex2": _through_double(np.exp2),
    "lg2": _through_double(np.log2),
    "rsqrt": _through_double(lambda a: 1 / np.sqrt(a)),
    "tanh": _through_double(np.tanh),
    "sin": _through_double(np.sin),
    "cos": _through_double(np.cos),
}
# PTX leaves open what neg and abs make of a NaN (9.7.3.9, 9.7.3.10, 9.7.4.5, 9.7.4.6), but for abs.f64, which
# passes it through. On an H200 so does neg.f64; 16 and 32 bits give its one NaN (tests/silicon).
_SIGNS = ("neg", "abs")


def _sum(opcode: str, compute: Callable[[Lanes, Lanes, Lanes], Lanes]) -> Callable[..., Lanes]:
    """add, sub, mul and fma as a * b + c."""
    if opcode == "add":
        return lambda a, b: compute(a, np.ones_like(a), b)
    if opcode == "sub":
        return lambda a, b: compute(a, np.ones_like(a), -b)
    if opcode == "mul":  # a zero of the product's own sign leaves every product as it is
        return lambda a, b: compute(a, b, np.where(np.signbit(a) ^ np.signbit(b), -0.0, 0.0).astype(a.dtype))
    return compute


def _function(ins: Instruction, kind: str) -> Callable[..., Lanes]:
    """The instruction on arrays of fp16, fp32 or fp64."""
    if ins.opcode in ("min", "max"):
        return minimum_maximum(ins.opcode, ins.has("NaN"), ins.has("abs"), ins.has("xorsign"))
    direction = next((word for word in ins.modifiers if word in rounding.DIRECTIONS), "rn")
    if ins.opcode in _FUNCTIONS and direction == "rn":
        return _FUNCTIONS[ins.opcode]
    if kind == "f64":
        return _sum(ins.opcode, rounding.fused_doubles(direction))
    return _sum(ins.opcode, rounding.fused(direction, FLOAT[KINDS[kind][1]]))


def flush(lanes: Lanes) -> Lanes:
    """.ftz: subnormal numbers become zeros of the same sign."""
    small = np.abs(lanes) < _SMALLEST_NORMAL[lanes.dtype.itemsize]
    return np.where(small, np.copysign(np.zeros_like(lanes), lanes), lanes)


def canonical_nan(lanes: Lanes) -> Lanes:
    """fp16 and fp32 results that are NaN get the hardware's one NaN pattern. Takes and gives an array."""
    bits = lanes.dtype.itemsize * 8
    wrong = np.isnan(lanes)
    if bits == 64 or not wrong.any():
        return lanes
    return np.where(
        wrong, UNSIGNED[bits].type(NAN[bits]), np.ascontiguousarray(lanes).view(UNSIGNED[bits])
    ).view(FLOAT[bits])


def clamped(lanes: Lanes, saturate: bool, relu: bool) -> Lanes:
    """.sat: to [0, 1], NaN to 0; .relu: negative numbers to 0. Neither gives -0."""
    if saturate:
        return np.clip(np.where(np.isnan(lanes), 0, lanes), 0, 1).astype(lanes.dtype) + 0
    return np.where(lanes <= 0, np.zeros_like(lanes), lanes) if relu else lanes


def _words(ins: Instruction, kind: str) -> tuple[str, ...]:
    if ins.opcode in ("min", "max"):
        return () if kind == "f64" else ("NaN", "abs", "xorsign")
    if ins.opcode not in _SUMS:
        return ()
    return tuple(word for word in _SUM_WORDS.get(kind, ()) if word != "relu" or ins.opcode == "fma")


def decode_float(ins: Instruction, binder: Binder) -> Operation:
    """f16, f16x2, bf16, bf16x2, f32, f32x2 and f64, rounded to nearest even or, beside 16 bits, as asked."""
    kind = ins.modifiers[-1]
    check_modifiers(ins, "rn", "ftz", "approx", "full", *_words(ins, kind), kind)
    if kind not in KINDS or (ins.has("xorsign") and not ins.has("abs")):
        raise Unsupported(ins.mnemonic)
    if kind.startswith("bf16"):
        return _decode_brain(ins, binder, kind)
    compute = _function(ins, kind)
    ftz, saturate, relu = ins.has("ftz"), ins.has("sat"), ins.has("relu")
    bits, lane_bits = KINDS[kind]
    d = binder.write(ins.operands[0])
    sources = [binder.source(operand, bits) for operand in ins.operands[1:]]

    def calculate(numbers: list[Lanes]) -> Lanes:
        with np.errstate(all="ignore"):
            result = flush(compute(*map(flush, numbers))) if ftz else compute(*numbers)
            if saturate or relu:
                result = clamped(result, saturate, relu)
            return canonical_nan(result)

    def single(warp: Warp) -> None:
        numbers = [floats(warp.regs[slot], bits) for slot in sources]
        warp.put(d, from_lanes(np.ascontiguousarray(calculate(numbers)), bits))

    def packed(warp: Warp) -> None:
        values = [warp.regs[slot] for slot in sources]
        uniform = all(type(value) is int for value in values)
        result = calculate([_parts(value, bits).view(FLOAT[lane_bits]) for value in values])
        lanes = np.ascontiguousarray(result).view(UNSIGNED[bits])
        warp.put(d, int(lanes[0]) if uniform else lanes)

    return single if bits == lane_bits else packed


def _parts(value: Value, bits: int) -> Any:
    """A register of all 32 lanes, one after the other."""
    return np.ascontiguousarray(spread(value, bits))


def _decode_brain(ins: Instruction, binder: Binder, kind: str) -> Operation:
    """bf16 and bf16x2: exact in double, or rounded to odd there, and then rounded once."""
    bits = KINDS[kind][0]
    saturate, relu = ins.has("sat"), ins.has("relu")
    if ins.opcode in _SUMS:
        compute = _sum(ins.opcode, rounding.odd_fused)
    elif ins.opcode in ("min", "max", "ex2", "tanh"):
        compute = _function(ins, kind)
    elif ins.opcode not in _SIGNS:
        raise Unsupported(ins.mnemonic)
    d = binder.write(ins.operands[0])
    sources = [binder.source(operand, bits) for operand in ins.operands[1:]]
    ftz = ins.has("ftz")

    def calculate(codes: list[Any]) -> Any:
        if ins.opcode in _SIGNS:
            magnitude = codes[0] & np.uint16(0x7FFF)
            result = codes[0] ^ np.uint16(0x8000) if ins.opcode == "neg" else magnitude
            return np.where(magnitude > 0x7F80, np.uint16(NAN[16]), result)
        numbers = [(code.astype(np.uint32) << np.uint32(16)).view(np.float32) for code in codes]
        if ftz:
            numbers = [flush(number) for number in numbers]
        with np.errstate(all="ignore"):
            result = compute(*(number.astype(np.float64) for number in numbers))
            return rounding.brain_codes(clamped(result, saturate, relu))

    def operation(warp: Warp) -> None:
        values = [warp.regs[slot] for slot in sources]
        uniform = all(type(value) is int for value in values)
        lanes = calculate([_parts(value, bits).view(np.uint16) for value in values]).view(UNSIGNED[bits])
        warp.put(d, int(lanes[0]) if uniform else lanes)

    return operation


@instruction("sqrt", "rcp", "ex2", "lg2", "rsqrt", "tanh", "sin", "cos")
def transcendental(ins: Instruction, binder: Binder) -> Operation:
    return decode_float(ins, binder)
