"""atom and red on 16-bit floats, pairs of them and vectors: against exact fractions, lane after lane."""

from __future__ import annotations

import exact_floats as xf
import numpy as np
import pytest
from ptx_harness import lanes, run_kernel
from test_floating import extreme, patterns

from b200sim.faults import Fault, Unsupported

FORMS = {
    "f16": (xf.F16, 1),
    "bf16": (xf.BF16, 1),
    "f16x2": (xf.F16, 2),
    "bf16x2": (xf.BF16, 2),
    "f32": (xf.F32, 1),
}
OPERATIONS = ("add", "min", "max")


def combined(form: xf.Format, name: str, old: int, b: int) -> int:
    if name == "add":  # fp32 sums in global memory flush subnormal numbers
        return xf.fused(form, old, form.bias << form.mantissa, b, form is xf.F32)
    return extreme(form, (old, b), name == "max")


def run(kind: str, name: str, count: int, opcode: str, words: str = "noftz."):
    """32 lanes combine `count` registers each into one of two vectors; memory, old values and inputs."""
    form, parts = FORMS[kind]
    bits, elements = form.bits * parts, count * parts
    dtype = np.dtype(f"u{form.bits // 8}")
    values = np.array([patterns(form, seed) for seed in range(elements)], dtype).T.copy()  # (32, elements)
    memory = np.array([patterns(form, 99)[: 2 * elements]], dtype).reshape(2, elements)
    start, old = memory.copy(), np.zeros_like(values)
    registers = [f"%v{i}" for i in range(count)]
    results = [f"%d{i}" for i in range(count)]
    step = elements * dtype.itemsize
    loads = "".join(f"ld.global.b{bits} {r}, [%in+{i * bits // 8}];" for i, r in enumerate(registers))
    stores = "".join(f"st.global.b{bits} [%out+{i * bits // 8}], {r};" for i, r in enumerate(results))
    vector = f"v{count}." if count > 1 else ""

    def braces(names: list[str]) -> str:
        return "{" + ", ".join(names) + "}" if count > 1 else names[0]

    result = braces(results) + ", " if opcode == "atom" else ""
    body = f""".reg .b{bits} {", ".join(registers + results)}; .reg .b64 %in, %out, %m, %t;
      .reg .b32 %l, %half;
      ld.param.u64 %m, [p0]; ld.param.u64 %in, [p1]; ld.param.u64 %out, [p2]; mov.u32 %l, %laneid;
      mul.wide.u32 %t, %l, {step}; add.u64 %in, %in, %t; add.u64 %out, %out, %t; and.b32 %half, %l, 1;
      mul.wide.u32 %t, %half, {step}; add.u64 %m, %m, %t; {loads}
      {opcode}.relaxed.gpu.global.{name}.{words}{vector}{kind} {result}[%m], {braces(registers)};
      {stores if opcode == "atom" else ""} ret;"""
    room = np.zeros((3, 4096), np.uint8)
    arrays = []
    for spare, array in zip(room, (memory, values, old), strict=True):
        shift = -spare.ctypes.data % 64
        view = spare[shift : shift + array.nbytes].view(dtype).reshape(array.shape)
        view[:] = array
        arrays.append(view)
    run_kernel(body, arrays)
    return form, start, values, arrays[0], arrays[2]


CASES = [
    *((kind, "add", 1) for kind in ("f16", "bf16", "f16x2", "bf16x2")),
    *((kind, name, count) for kind in ("f16", "bf16") for name in OPERATIONS for count in (2, 4, 8)),
    *((kind, name, count) for kind in ("f16x2", "bf16x2") for name in OPERATIONS for count in (2, 4)),
    ("f32", "add", 2),
    ("f32", "add", 4),
]  # fmt: skip


@pytest.mark.parametrize("opcode", ["atom", "red"])
@pytest.mark.parametrize("kind, name, count", CASES)
def test_every_element_by_itself(kind, name, count, opcode):
    form, memory, values, found, old = run(kind, name, count, opcode, "" if kind == "f32" else "noftz.")
    want, before = memory.tolist(), np.zeros_like(values).tolist()
    for lane in range(32):
        row = want[lane % 2]
        before[lane] = list(row)
        row[:] = [combined(form, name, x, y) for x, y in zip(row, values[lane].tolist(), strict=True)]
    assert found.tolist() == want
    if opcode == "atom":
        assert old.tolist() == before


@pytest.mark.parametrize("space", ["global", "shared", "shared-generic"])
def test_fp32_sums_flush_subnormals_in_global_memory_only(space):
    """PTX ISA 9.7.13.5. By lane: subnormal old value, summand and sum, NaN, plain numbers."""
    old = [0x80600000, 0x00900000, 0x01000000, 0x7F800001, 0x3F800000]
    summand = [0x00900000, 0x80600000, 0x80C00000, 0x3F800000, 0x3F800000]
    flushed = [0x00900000, 0x00900000, 0x00000000, 0x7FFFFFFF, 0x40000000]
    exact = [0x00300000, 0x00300000, 0x00400000, 0x7FFFFFFF, 0x40000000]
    rest = [0] * (32 - len(old))
    base = {
        "global": "ld.param.u64 %q, [p2];",
        "shared": "mov.b64 %q, smem;",
        "shared-generic": "mov.b64 %q, smem; cvta.shared.u64 %q, %q;",
    }[space]
    word = "" if space == "shared-generic" else f".{space}"
    found = lanes(
        f"""{base} mul.wide.u32 %t, %lane, 4; add.s64 %q, %q, %t; st{word}.b32 [%q], %old;
        atom{word}.add.f32 %d, [%q], %b; ld{word}.b32 %after, [%q];""",
        {"%d": 32, "%after": 32}, {"%old": (32, old + rest), "%b": (32, summand + rest)},
        declare=".reg .b64 %q, %t;", arrays=[np.zeros(32, np.uint32)], shared_bytes=128,
    )  # fmt: skip
    assert found["%d"] == old + rest
    assert found["%after"][: len(old)] == (flushed if space == "global" else exact)


@pytest.mark.parametrize(
    "instruction",
    ["red.global.add.f16 [%a], %h", "red.global.min.noftz.f16 [%a], %h", "red.global.max.f32 [%a], %r",
     "red.global.add.v8.f32 [%a], {%r, %r, %r, %r, %r, %r, %r, %r}", "red.shared.add.v2.f32 [%a], {%r, %r}",
     "red.global.add.v2.u32 [%a], {%r, %r}", "red.global.add.v4.f32 [%a], {%r, %r}",
     "red.global.add.noftz.f32 [%a], %r"],
)  # fmt: skip
def test_what_ptx_does_not_have_is_refused(instruction):
    with pytest.raises(Unsupported):
        run_kernel(f".reg .b64 %a; .reg .b16 %h; .reg .b32 %r; {instruction}; ret;")


def test_a_vector_must_be_aligned_as_a_whole():
    room = np.zeros(64, np.float32)
    with pytest.raises(Fault, match="not a multiple of 16"):
        run_kernel(
            ".reg .b64 %a; .reg .b32 %r; ld.param.u64 %a, [p0]; and.b64 %a, %a, -64; add.u64 %a, %a, 72;"
            "red.global.add.v4.f32 [%a], {%r, %r, %r, %r}; ret;",
            [room],
        )
