"""Runs PTX snippets on the simulated machine: per-lane values in, per-lane values out.

A snippet is the body of a kernel. `run_kernel` launches any body with pointer parameters; `lanes` loads
per-lane inputs into registers, runs the snippet in one warp and returns what each lane holds afterwards.
While a snippet runs, every value that an instruction writes is checked to have the form that
`b200sim.machine.values` promises (an int in range, or 32 unsigned lanes of the register's width).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from b200sim.global_memory import GlobalMemory
from b200sim.isa.decoder import decode_kernel
from b200sim.machine.grid import Grid
from b200sim.machine.program import Program
from b200sim.machine.schedule import Schedule
from b200sim.machine.warpgroup import InFlight
from b200sim.ptx.parser import parse

FULL = 0xFFFFFFFF
OLD = {1: 0, 8: 0x5A, 16: 0xA5A5, 32: 0xA5A5A5A5, 64: 0xA5A5A5A5_5A5A5A5A}  # a register before the snippet
Values = int | Sequence[int]


def module(
    body: str,
    pointers: int = 0,
    shared: str = "",
    target: str = "sm_100a",
    directives: str = ".reqntid 32, 1, 1",
) -> str:
    """A PTX module with one entry `kernel` and `pointers` parameters `p0`, `p1`, ... of type .u64."""
    parameters = ",\n".join(f"  .param .u64 p{i}" for i in range(pointers))
    return (
        f".version 8.8\n.target {target}\n.address_size 64\n\n{shared}\n"
        f".visible .entry kernel(\n{parameters}\n)\n{directives}\n{{\n{body}\n}}\n"
    )


@lru_cache(maxsize=2048)
def program(text: str) -> Program:
    """The decoded kernel, its operations wrapped so that they check what they write."""
    decoded = decode_kernel(next(iter(parse(text).values())))
    for block in decoded.blocks:
        block.operations = [
            _checked(operation, ins.text, sorted(usage.writes), decoded.binder.bits)
            for operation, ins, usage in zip(block.operations, block.instructions, block.usages, strict=False)
        ]
    return decoded


def _checked(operation: Callable, text: str, slots: list[int], bits: list[int]) -> Callable:
    def run(warp) -> None:
        operation(warp)
        for slot in slots:
            check_form(warp.regs[slot], bits[slot], text)

    return run


def check_form(value: object, bits: int, text: str) -> None:
    if value is None or isinstance(value, InFlight):
        return
    if type(value) is int:
        limit = 32 if bits == 1 else bits
        assert 0 <= value < 1 << limit, f"{text} wrote {value:#x} to a register of {bits} bits"
        return
    assert isinstance(value, np.ndarray), f"{text} wrote a {type(value)}"
    expected = np.dtype(object) if bits == 128 else np.dtype(f"u{bits // 8}")
    assert value.dtype == expected, f"{text} wrote {value.dtype} to a register of {bits} bits"
    assert value.shape == (32,), f"{text} wrote a value of shape {value.shape}"


def aligned(values: np.ndarray | bytes, align: int = 128) -> np.ndarray:
    """A copy whose address is a multiple of `align`."""
    source = np.frombuffer(values, np.uint8) if isinstance(values, bytes) else values
    room = np.zeros(source.nbytes + align, np.uint8)
    start = -room.ctypes.data % align
    copy = room[start : start + source.nbytes].view(source.dtype).reshape(source.shape)
    copy[...] = source
    return copy


def make_grid(
    text: str,
    arrays: Sequence[np.ndarray] = (),
    *,
    grid: tuple[int, int, int] = (1, 1, 1),
    block: tuple[int, int, int] = (32, 1, 1),
    cluster: tuple[int, int, int] = (1, 1, 1),
    shared_bytes: int = 0,
    schedule: Schedule | None = None,
    scalars: Sequence[int] = (),
    **options,
) -> Grid:
    """A launch whose parameters are the addresses of the arrays (and then 64-bit scalars)."""
    memory = GlobalMemory()
    for i, array in enumerate(arrays):
        memory.add(f"array {i}", array.ctypes.data, array.nbytes)
    values = [array.ctypes.data for array in arrays] + list(scalars)
    parameters = np.zeros(max(len(values), 1) + 16, np.uint64)
    shift = -(parameters.ctypes.data // 8) % 16
    parameters[shift : shift + len(values)] = values
    base = parameters.ctypes.data + 8 * shift
    memory.add("kernel parameters", base, max(8 * len(values), 8), writable=False)
    launch = Grid(
        program(text),
        memory,
        grid=grid,
        block=block,
        cluster=cluster,
        shared_bytes=shared_bytes,
        parameter_base=base,
        schedule=schedule,
        **options,
    )
    launch.keep_alive = (parameters, *arrays)  # type: ignore[attr-defined]
    return launch


def run_kernel(
    body: str, arrays: Sequence[np.ndarray] = (), *, shared: str = "", target: str = "sm_100a", **launch
) -> Grid:
    """Run a kernel body; parameter i is `[p<i>]`, the address of array i."""
    count = len(arrays) + len(launch.get("scalars", ()))
    machine = make_grid(module(body, count, shared, target), arrays, **launch)
    machine.run()
    return machine


DYNAMIC = ".extern .shared .align 1024 .b8 smem[];"


# -- one warp, registers in and out -----------------------------------------------------------------------


def lanes(
    snippet: str,
    outputs: dict[str, int],
    inputs: dict[str, tuple[int, Values]] | None = None,
    *,
    declare: str = "",
    old: bool = True,
    shared_bytes: int = 0,
    threads: int = 32,
    arrays: Sequence[np.ndarray] = (),
) -> dict[str, list[int]]:
    """Run `snippet` in one warp.

    `inputs` and `outputs` map register names to their width in bits (1 for a predicate); an input's value
    is an int (the same in all lanes, and a plain int in the simulator) or 32 ints. Outputs hold `OLD`
    before the snippet unless `old` is False. Arrays are passed as parameters p2, p3, ... .
    """
    inputs = inputs or {}
    text, data = _snippet_module(snippet, outputs, inputs, declare, old, len(arrays))
    results = np.full((max(len(outputs), 1), 32, 2), 0xDEADBEEF_DEADBEEF, np.uint64)
    machine = make_grid(text, [data, results, *arrays], shared_bytes=shared_bytes, block=(threads, 1, 1))
    machine.run()
    found = {}
    for row, (name, bits) in zip(results, outputs.items(), strict=False):
        ones = (1 << max(bits, 1)) - 1
        found[name] = [(int(low) | int(high) << 64 if bits == 128 else int(low) & ones) for low, high in row]
    return found


def _snippet_module(snippet, outputs, inputs, declare, old, arrays) -> tuple[str, np.ndarray]:
    registers, loads, stores = [], [], []
    data = np.zeros((max(len(inputs), 1), 32, 2), np.uint64)
    for index, (name, (bits, values)) in enumerate(inputs.items()):
        registers.append(_declaration(name, bits))
        uniform = isinstance(values, int)
        for i in range(32):
            value = values if uniform else values[i]  # type: ignore[index]
            data[index, i] = value & (1 << 64) - 1, value >> 64 & (1 << 64) - 1
        loads.append(_load(name, bits, "%in" if uniform else "%inl", index * 512))
    for index, (name, bits) in enumerate(outputs.items()):
        if name not in inputs:
            registers.append(_declaration(name, bits))
            if old and bits != 128:
                loads.append(f"mov.{_moved(bits)} {name}, {OLD[bits]};")
        stores.append(_store(name, bits, index * 512))
    body = "\n".join(
        [
            ".reg .b64 %in, %inl, %out, %lane64, %t64<2>; .reg .b32 %lane, %t32; .reg .pred %tp;",
            *registers,
            declare,
            "ld.param.u64 %in, [p0]; ld.param.u64 %out, [p1];",
            "mov.u32 %lane, %laneid; mul.wide.u32 %lane64, %lane, 16;",
            "add.s64 %inl, %in, %lane64; add.s64 %out, %out, %lane64;",
            *loads,
            snippet,
            *stores,
            "ret;",
        ]
    )
    return module(body, 2 + arrays, DYNAMIC), data


def _declaration(name: str, bits: int) -> str:
    return f".reg .{'pred' if bits == 1 else f'b{bits}'} {name};"


def _moved(bits: int) -> str:
    return "pred" if bits == 1 else f"b{bits}"


def _load(name: str, bits: int, base: str, offset: int) -> str:
    if bits == 1:
        return f"ld.global.b32 %t32, [{base}+{offset}]; setp.ne.b32 {name}, %t32, 0;"
    if bits == 128:
        return f"ld.global.v2.b64 {{%t640, %t641}}, [{base}+{offset}]; mov.b128 {name}, {{%t640, %t641}};"
    return f"ld.global.b{bits} {name}, [{base}+{offset}];"


def _store(name: str, bits: int, offset: int) -> str:
    if bits == 1:
        return f"selp.b32 %t32, 1, 0, {name}; st.global.b32 [%out+{offset}], %t32;"
    if bits == 128:
        return f"mov.b128 {{%t640, %t641}}, {name}; st.global.v2.b64 [%out+{offset}], {{%t640, %t641}};"
    return f"st.global.b{bits} [%out+{offset}], {name};"


# -- one instruction under every kind of execution --------------------------------------------------------


def each_way(
    instruction: str,
    output_bits: int | Sequence[int],
    operands: Sequence[tuple[int, Sequence[int]]],
    oracle: Callable[..., int | tuple[int, ...]],
    mask: int = 0x00FF13C5,
    uniform: Sequence[Sequence[int]] | None = None,
) -> None:
    """Check one lane-wise instruction against `oracle(*operand values) -> result(s)` for every lane.

    `instruction` has `{d}` (`{d0}`, `{d1}`, ...) for results and `{a}`, `{b}`, `{c}`, `{e}` for operands.
    Runs with all operands varying, with each operand alone uniform and with all uniform; each of these for
    the whole warp, guarded by a predicate, and inside a divergent branch.
    """
    widths = (output_bits,) if isinstance(output_bits, int) else tuple(output_bits)
    shapes = uniform or [(), *([i] for i in range(len(operands)) if len(operands) > 1), range(len(operands))]
    shapes = tuple(tuple(shape) for shape in shapes)
    text = _each_way_module(instruction, widths, tuple(bits for bits, _ in operands), shapes)
    data = np.zeros((len(operands) + 1, 32, 8), np.uint8)
    for row, (bits, values) in zip(data, operands, strict=False):
        row[:, : max(bits // 8, 1)] = np.array(values, f"u{max(bits // 8, 1)}").view(np.uint8).reshape(32, -1)
    data[-1, :, 0] = [mask >> i & 1 for i in range(32)]
    results = np.zeros((len(shapes), 3, len(widths), 32), np.uint64)
    make_grid(text, [data, results]).run()
    for fixed, by_mask in zip(shapes, results.tolist(), strict=True):
        for i in range(32):
            row = [v[0] if j in fixed else v[i] for j, (_, v) in enumerate(operands)]
            wanted = oracle(*row)
            wanted = wanted if isinstance(wanted, tuple) else (wanted,)
            for how, found in zip(("whole warp", "guarded", "divergent"), by_mask, strict=True):
                active = how == "whole warp" or mask >> i & 1
                for bits, value, lanes_found in zip(widths, wanted, found, strict=True):
                    expected = value if active else OLD[bits]
                    assert lanes_found[i] == expected, (
                        f"{instruction!r} ({how}) lane {i}, operands {[hex(v) for v in row]}, "
                        f"uniform {list(fixed)}: got {lanes_found[i]:#x}, expected {expected:#x}"
                    )


@lru_cache(maxsize=1024)
def _each_way_module(
    instruction: str,
    widths: tuple[int, ...],
    operand_bits: tuple[int, ...],
    shapes: tuple[tuple[int, ...], ...],
) -> str:
    """One kernel that runs the instruction in all its forms, one after the other."""
    names = ["%d"] if "{d}" in instruction else [f"%d{i}" for i in range(len(widths))]
    letters = "abce"[: len(operand_bits)]
    fields = {letter: f"%{letter}" for letter in letters} | {name[1:]: name for name in names}
    text = instruction.format(**fields)
    lines = [
        ".reg .b64 %in, %inl, %out, %lane64, %wide; .reg .b32 %lane, %t32; .reg .pred %active;",
        *(_declaration(name, bits) for name, bits in zip(names, widths, strict=True)),
        *(_declaration(f"%{letter}", bits) for letter, bits in zip(letters, operand_bits, strict=True)),
        "ld.param.u64 %in, [p0]; ld.param.u64 %out, [p1];",
        "mov.u32 %lane, %laneid; mul.wide.u32 %lane64, %lane, 8;",
        "add.s64 %inl, %in, %lane64; add.s64 %out, %out, %lane64;",
        _load("%active", 1, "%inl", len(letters) * 256),
    ]
    place = 0
    for number, fixed in enumerate(shapes):
        for i, (letter, bits) in enumerate(zip(letters, operand_bits, strict=True)):
            lines.append(_load(f"%{letter}", bits, "%in" if i in fixed else "%inl", i * 256))
        skip = f"SKIP{number}"
        for snippet in (text, f"@%active {text}", f"@!%active bra {skip};\n{text}\n{skip}:"):
            lines += [
                f"mov.{_moved(bits)} {name}, {OLD[bits]};" for name, bits in zip(names, widths, strict=True)
            ]
            lines.append(snippet)
            for name, bits in zip(names, widths, strict=True):
                lines.append(_store64(name, bits, place))
                place += 256
    return module("\n".join([*lines, "ret;"]), 2)


def _store64(name: str, bits: int, offset: int) -> str:
    """Store a register zero-extended to 64 bits."""
    if bits == 1:
        widen = f"selp.b64 %wide, 1, 0, {name};"
    elif bits == 64:
        widen = f"mov.b64 %wide, {name};"
    else:
        widen = f"cvt.u64.u{bits} %wide, {name};"
    return f"{widen} st.global.b64 [%out+{offset}], %wide;"


def to_signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) & 1 else value
