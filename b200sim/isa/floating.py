"""Floating-point arithmetic (PTX ISA 9.7.3, 9.7.4): IEEE operations in numpy, one rounding each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from b200sim.faults import Unsupported
from b200sim.isa.registry import Operation, check_modifiers, instruction
from b200sim.isa.values import UNSIGNED, Value, floats, from_lanes, spread
from b200sim.ptx.binder import Binder, type_of
from b200sim.ptx.parser import TYPE_BITS
from b200sim.ptx.syntax import Instruction

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp


def _fused(a: Any, b: Any, c: Any) -> Any:
    """a * b + c with one rounding to fp32: exact product in double, and the sum's double rounding resolved.

    The double sum is rounded to odd before it is rounded to fp32, which makes two roundings equal to one
    (Boldo and Melquiond, 2008).
    """
    wide = [np.asarray(x, np.float64) for x in (a, b, c)]
    product = wide[0] * wide[1]
    total = product + wide[2]
    back = total - product
    error = (product - (total - back)) + (wide[2] - back)  # TwoSum: exact
    bits = total.view(np.int64)
    inexact = (error != 0) & np.isfinite(total)
    toward = np.where((error > 0) == (total > 0), 1, -1)
    odd = np.where(inexact & (bits & 1 == 0), bits + toward, bits)
    return odd.view(np.float64).astype(np.float32)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "min": np.fmin,
    "max": np.fmax,
    "neg": lambda a: -a,
    "abs": np.abs,
    "fma": _fused,
    "mad": _fused,
    "sqrt": np.sqrt,
    "rcp": lambda a: np.asarray(1, a.dtype) / a,
    "ex2": np.exp2,
    "lg2": np.log2,
    "rsqrt": lambda a: (1 / np.sqrt(a.astype(np.float64))).astype(a.dtype),
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
}


def decode_float(ins: Instruction, binder: Binder) -> Operation:
    """f16, f16x2, f32, f32x2 and f64. `.approx` results are correctly rounded here, which hardware does not promise."""
    check_modifiers(ins, "rn", "ftz", "approx", "full", "f16", "f16x2", "f32", "f32x2", "f64", "NaN")
    kind = next((word for word in reversed(ins.modifiers) if word in ("f32x2", *TYPE_BITS)), type_of(ins))
    if kind in ("bf16", "bf16x2") or (kind != "f32" and kind != "f32x2" and ins.opcode in ("fma", "mad")):
        raise Unsupported(ins.mnemonic)
    if ins.has("NaN"):
        raise Unsupported(f"{ins.mnemonic}: .NaN")
    compute = OPERATIONS[ins.opcode]
    lane_bits = {"f16x2": 16, "f32x2": 32}.get(kind, TYPE_BITS.get(kind, 64))
    bits = 64 if kind == "f32x2" else TYPE_BITS[kind]
    d = binder.write(ins.operands[0])
    sources = [binder.source(operand, bits) for operand in ins.operands[1:]]
    packed = bits != lane_bits

    def operation(warp: Warp) -> None:
        values = [warp.regs[slot] for slot in sources]
        with np.errstate(all="ignore"):
            if packed:
                warp.put(d, _packed(values, bits, lane_bits, compute))
            else:
                result = compute(*(floats(value, bits) for value in values))
                warp.put(d, from_lanes(np.ascontiguousarray(result), bits))

    return operation


def _packed(values: list[Value], bits: int, lane_bits: int, compute: Callable[..., Any]) -> Value:
    lanes = [np.ascontiguousarray(spread(value, bits)).view(f"f{lane_bits // 8}") for value in values]
    return np.ascontiguousarray(compute(*lanes)).view(UNSIGNED[bits])


@instruction("sqrt", "rcp", "ex2", "lg2", "rsqrt", "tanh", "sin", "cos")
def transcendental(ins: Instruction, binder: Binder) -> Operation:
    return decode_float(ins, binder)
