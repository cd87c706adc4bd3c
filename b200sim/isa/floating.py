"""Floating-point arithmetic (PTX ISA 9.7.3, 9.7.4): IEEE operations in numpy, one rounding each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from b200sim.faults import Unsupported
from b200sim.isa.registry import Operation, check_modifiers, instruction
from b200sim.isa.values import FLOAT, UNSIGNED, Value, floats, from_lanes, spread
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import Instruction

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

# kind -> (register bits, bits of one number)
KINDS = {"f16": (16, 16), "f16x2": (32, 16), "f32": (32, 32), "f32x2": (64, 32), "f64": (64, 64)}
NAN = {16: 0x7FFF, 32: 0x7FFFFFFF}  # what the hardware writes for any NaN result; f64 keeps its payload
_SMALLEST_NORMAL = {2: 2.0**-14, 4: 2.0**-126}


def _fused(a: Any, b: Any, c: Any) -> Any:
    """a * b + c with one rounding to fp16 or fp32.

    The product is exact in double. The double sum is rounded to odd before it is rounded to the result's
    format, which makes two roundings equal to one (Boldo and Melquiond, 2008).
    """
    wide = [np.asarray(x, np.float64) for x in (a, b, c)]
    product = wide[0] * wide[1]
    total = product + wide[2]
    back = total - product
    error = (product - (total - back)) + (wide[2] - back)  # TwoSum: exact
    bits = np.ascontiguousarray(total).view(np.int64)
    inexact = (error != 0) & np.isfinite(total)
    toward = np.where((error > 0) == (total > 0), 1, -1)
    odd = np.where(inexact & (bits & 1 == 0), bits + toward, bits)
    return odd.view(np.float64).astype(a.dtype)


def _extreme(choose: Callable[[Any, Any], Any], prefer_negative: bool) -> Callable[[Any, Any], Any]:
    """min or max: a NaN loses against a number, and -0 is smaller than +0."""

    def compute(a: Any, b: Any) -> Any:
        sign = np.signbit(a) | np.signbit(b) if prefer_negative else np.signbit(a) & np.signbit(b)
        both_zero = (a == 0) & (b == 0)
        return np.where(both_zero, np.where(sign, -0.0, 0.0).astype(a.dtype), choose(a, b))

    return compute


def _through_double(compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Approximate functions are given with nearly correct rounding, which hardware does not promise."""
    return lambda a: compute(a.astype(np.float64)).astype(a.dtype)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "min": _extreme(np.fmin, True),
    "max": _extreme(np.fmax, False),
    "neg": lambda a: -a,
    "abs": np.abs,
    "fma": _fused,
    "mad": _fused,
    "sqrt": np.sqrt,
    "rcp": lambda a: np.asarray(1, a.dtype) / a,
    "ex2": _through_double(np.exp2),
    "lg2": _through_double(np.log2),
    "rsqrt": _through_double(lambda a: 1 / np.sqrt(a)),
    "tanh": _through_double(np.tanh),
    "sin": _through_double(np.sin),
    "cos": _through_double(np.cos),
}
_KEEP_NAN = ("neg", "abs")  # sign operations on the bits; for fp32 an H200 gives its one NaN all the same


def flush(lanes: Any) -> Any:
    """.ftz: subnormal numbers become zeros of the same sign."""
    small = np.abs(lanes) < _SMALLEST_NORMAL[lanes.dtype.itemsize]
    return np.where(small, np.copysign(np.zeros_like(lanes), lanes), lanes)


def canonical_nan(lanes: Any) -> Any:
    """fp16 and fp32 results that are NaN get the hardware's one NaN pattern. Takes and gives an array."""
    bits = lanes.dtype.itemsize * 8
    wrong = np.isnan(lanes)
    if bits == 64 or not wrong.any():
        return lanes
    return np.where(
        wrong, UNSIGNED[bits].type(NAN[bits]), np.ascontiguousarray(lanes).view(UNSIGNED[bits])
    ).view(FLOAT[bits])


def decode_float(ins: Instruction, binder: Binder) -> Operation:
    """f16, f16x2, f32, f32x2 and f64; rounding to nearest even."""
    check_modifiers(ins, "rn", "ftz", "approx", "full", *KINDS)
    kind = ins.modifiers[-1]
    if kind not in KINDS or (kind == "f64" and ins.opcode in ("fma", "mad")):
        raise Unsupported(ins.mnemonic)
    compute = OPERATIONS[ins.opcode]
    ftz, keep_nan = ins.has("ftz"), ins.opcode in _KEEP_NAN and kind != "f32"
    bits, lane_bits = KINDS[kind]
    d = binder.write(ins.operands[0])
    sources = [binder.source(operand, bits) for operand in ins.operands[1:]]

    def calculate(numbers: list[Any]) -> Any:
        with np.errstate(all="ignore"):
            if ftz:
                return canonical_nan(flush(compute(*map(flush, numbers))))
            result = compute(*numbers)
            return result if keep_nan else canonical_nan(result)

    def single(warp: Warp) -> None:
        numbers = [floats(warp.regs[slot], bits) for slot in sources]
        warp.put(d, from_lanes(np.ascontiguousarray(calculate(numbers)), bits))

    def packed(warp: Warp) -> None:
        values = [warp.regs[slot] for slot in sources]
        uniform = all(type(value) is int for value in values)
        result = calculate([_parts(value, bits, lane_bits) for value in values])
        lanes = np.ascontiguousarray(result).view(UNSIGNED[bits])
        warp.put(d, int(lanes[0]) if uniform else lanes)

    return single if bits == lane_bits else packed


def _parts(value: Value, bits: int, lane_bits: int) -> Any:
    """All the numbers in a packed register, lane after lane."""
    return np.ascontiguousarray(spread(value, bits)).view(FLOAT[lane_bits])


@instruction("sqrt", "rcp", "ex2", "lg2", "rsqrt", "tanh", "sin", "cos")
def transcendental(ins: Instruction, binder: Binder) -> Operation:
    return decode_float(ins, binder)
