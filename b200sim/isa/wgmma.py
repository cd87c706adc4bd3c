"""Warpgroup matrix multiplication: wgmma.mma_async, fence, commit_group, wait_group (PTX ISA 9.7.15, sm_90a).

mma_async is asynchronous: it happens when the schedule says so, and until a wait_group that covers it its
registers belong to the tensor core. `fragment_slots` and `guarded` let the rest of the program find out:
every other instruction that reads or writes such a register reports it first. Compilers rename accumulators
between one mma_async and the next (`mov`, packing and unpacking of halves), set them after the fence, and
leave it to ptxas to coalesce all that: such moves are followed, not refused, and need no fence.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from b200sim.faults import Fault, Unsupported
from b200sim.isa.registry import check_modifiers, instruction, terminator
from b200sim.machine.observer import WarpgroupWork
from b200sim.machine.program import BLOCKED, Operation, Terminator
from b200sim.machine.values import spread
from b200sim.machine.warpgroup import InFlight, Joint, Warpgroup
from b200sim.ptx.binder import Binder
from b200sim.ptx.syntax import Immediate, Instruction, Kernel, Operand, Register, Vector
from b200sim.tensor_core.descriptors import SmemDescriptor
from b200sim.tensor_core.touch import Touch, shared
from b200sim.tensor_core.wgmma import K_OF, Shape, multiply_accumulate
from b200sim.tensor_core.wgmma_layouts import A_REGISTERS, ROWS, WARPS, a_rows, d_registers

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp

Result = TypeVar("Result")
_SHAPE = re.compile(r"m64n(\d+)k(\d+)$")
_A, _B, _SCALE_D = "the matrix descriptor of A", "the matrix descriptor of B", "scale-d"


@instruction("wgmma.fence")
def fence(ins: Instruction, binder: Binder) -> Operation:
    """Orders earlier accesses of threads to registers before those of later mma_async."""
    check_modifiers(ins, "fence", "sync", "aligned")

    def operation(warp: Warp) -> None:
        warp.require_all_lanes(ins.mnemonic)
        warp.registers_in_use.fence()

    return operation


@instruction("wgmma.commit_group")
def commit_group(ins: Instruction, binder: Binder) -> Operation:
    check_modifiers(ins, "commit_group", "sync", "aligned")

    def operation(warp: Warp) -> None:
        warp.require_all_lanes(ins.mnemonic)
        warp.registers_in_use.commit()

    return operation


@terminator("wgmma.wait_group")
def wait_group(ins: Instruction, binder: Binder) -> Terminator:
    """Wait until at most N of the warp's newest groups are under way; the results of others are visible."""
    check_modifiers(ins, "wait_group", "sync", "aligned")
    allowed = _constant(ins, ins.operands[0], range(1 << 20), "N")
    following = binder.next_block

    def operation(warp: Warp) -> int:
        warp.require_all_lanes(ins.mnemonic)
        use = warp.registers_in_use
        if not use.reached(allowed):
            use.block(warp)
            return BLOCKED
        watch = warp.cta.grid.observer
        if watch is not None:
            watch.wgmma_passed(warp, ins, use.waited_for)
        return following

    return operation


@dataclass(frozen=True)
class _Multiply:
    """A decoded mma_async: slots of its operands, and its immediates."""

    shape: Shape
    d: tuple[int, ...]
    a: tuple[int, ...]  # registers, or the one that holds A's descriptor
    a_in_registers: bool
    b: int
    scale_d: int
    scale_d_flip: int
    negate_a: bool
    negate_b: bool
    mn_major_a: bool
    mn_major_b: bool

    @property
    def d_bits(self) -> int:
        return _bits(self.d)

    @property
    def a_bits(self) -> int:
        return _bits(self.a) if self.a_in_registers else 0


@instruction("wgmma.mma_async")
def multiply(ins: Instruction, binder: Binder) -> Operation:
    """wgmma.mma_async.sync.aligned.SHAPE.D.A.B d, a, b-desc, scale-d, scale-a, scale-b[, trans-a][, trans-b]

    a: four registers or a descriptor. trans-a only with a descriptor, both only for 16-bit types.
    """
    what = _decode(ins, binder)
    d_bits, a_bits = what.d_bits, what.a_bits

    def perform(group: Warpgroup, joint: Joint) -> None:
        started = time.perf_counter()
        counters = group.cta.grid.counters
        before = joint.before() if joint.arguments[_SCALE_D] else None
        a, b = _a_operand(what, group, joint), _b_operand(what, group, joint)
        joint.finish(multiply_accumulate(what.shape, a, b, before, what.negate_a, what.negate_b))
        counters.mma_instructions += 1
        counters.mma_flops += what.shape.flops
        counters.tensor_core_seconds += time.perf_counter() - started

    def operation(warp: Warp) -> None:
        warp.require_all_lanes(ins.mnemonic)
        use = warp.registers_in_use
        use.check_issue(ins, what.shape, d_bits, a_bits)
        group, regs = warp.cta.warpgroup(warp), warp.regs
        arguments = _arguments(what, warp)
        fragment = [regs[slot] for slot in what.a] if what.a_in_registers else []
        for value in fragment:
            if isinstance(value, InFlight):
                use.refuse_value(value, ins)
        before = [regs[slot] for slot in what.d]
        joint = group.issue(
            warp, ins, what.shape, arguments, fragment, before, lambda whole: perform(group, whole)
        )
        use.add(joint, what.d, d_bits, a_bits)
        watch = warp.cta.grid.observer
        if watch is not None:
            watch.wgmma_issued(warp, ins, _detail(what, joint))

    return operation


def _arguments(what: _Multiply, warp: Warp) -> dict[str, Any]:
    """What must be the same in all lanes and warps."""
    enabled = (warp.regs[what.scale_d] ^ what.scale_d_flip) & warp.mask
    if enabled not in (0, warp.mask):
        raise Fault("not_uniform", f"scale-d must be the same in all lanes, found {enabled:#010x}")
    arguments = {_B: warp.uniform(what.b, _B), _SCALE_D: enabled != 0}
    if not what.a_in_registers:
        arguments[_A] = warp.uniform(what.a[0], _A)
    return arguments


def _detail(what: _Multiply, joint: Joint) -> WarpgroupWork:
    """What it reads of shared memory, for observers."""
    operands = {"B": (joint.arguments[_B], what.shape.n, what.mn_major_b)}
    if not what.a_in_registers:
        operands["A"] = joint.arguments[_A], ROWS, what.mn_major_a

    def touches() -> list[Touch]:
        return [
            shared(name, 0, SmemDescriptor.decode_wgmma(word).chunks(rows, what.shape.k, mn_major))
            for name, (word, rows, mn_major) in operands.items()
        ]

    key = ("wgmma", what.shape.k, *operands.values())
    return WarpgroupWork(joint.number, key, touches, {name: word for name, (word, _, _) in operands.items()})


def _a_operand(what: _Multiply, group: Warpgroup, joint: Joint) -> np.ndarray:
    if what.a_in_registers:
        words = [[spread(value, 32) for value in joint.fragments[rank]] for rank in range(WARPS)]
        return a_rows(np.array(words))
    descriptor = SmemDescriptor.decode_wgmma(joint.arguments[_A])
    return descriptor.read(group.cta.smem, ROWS, what.shape.k, what.mn_major_a, "A of wgmma.mma_async")


def _b_operand(what: _Multiply, group: Warpgroup, joint: Joint) -> np.ndarray:
    descriptor = SmemDescriptor.decode_wgmma(joint.arguments[_B])
    name = "B of wgmma.mma_async"
    return descriptor.read(group.cta.smem, what.shape.n, what.shape.k, what.mn_major_b, name)


# -- decoding ---------------------------------------------------------------------------------------------


def _decode(ins: Instruction, binder: Binder) -> _Multiply:
    shape = _shape(ins)
    d, a, b, scale_d, *immediates = ins.operands
    in_registers = isinstance(a, Vector)
    transposable = shape.k == 16
    wanted = 2 + (2 - in_registers if transposable else 0)
    if len(immediates) != wanted:
        raise Unsupported(f"{ins.mnemonic} with {len(ins.operands)} operands; known with {4 + wanted}")
    negate_a, negate_b = (_constant(ins, x, (1, -1), "imm-scale") == -1 for x in immediates[:2])
    trans = [bool(_constant(ins, x, (0, 1), "imm-trans")) for x in immediates[2:]]
    if isinstance(scale_d, Immediate) and not scale_d.value:
        slots, enable, flip = binder.writes(d), *binder.predicate(scale_d)
    else:
        slots = binder.reads(d)
        slots, (enable, flip) = binder.writes(d), binder.predicate(scale_d)
    fragment = binder.reads(a) if in_registers else [binder.source(a, 64)]
    _check_count(ins, "D", len(slots), d_registers(shape.n, shape.d_format))
    if in_registers:
        _check_count(ins, "A", len(fragment), A_REGISTERS)
    return _Multiply(
        shape=shape,
        d=tuple(slots),
        a=tuple(fragment),
        a_in_registers=in_registers,
        b=binder.source(b, 64),
        scale_d=enable,
        scale_d_flip=flip,
        negate_a=negate_a,
        negate_b=negate_b,
        mn_major_a=trans[0] if len(trans) == 2 else False,
        mn_major_b=trans[-1] if trans else False,
    )


def _shape(ins: Instruction) -> Shape:
    """Shape and types of the mnemonic. Unsupported: integer, single-bit and sparse multiplications."""
    found = next(filter(None, map(_SHAPE.match, ins.modifiers)), None)
    if found is None:
        raise Unsupported(f"{ins.mnemonic}: no shape m64nNkK")
    form = ("mma_async", "sync", "aligned", found[0])
    check_modifiers(ins, *form, "f32", *K_OF)
    types = [word for word in ins.modifiers if word not in form]
    n, k = int(found[1]), int(found[2])
    if len(types) != 3:
        raise Unsupported(f"{ins.mnemonic}: expected the types of D, A and B")
    d_format, a_format, b_format = types
    same = a_format == b_format or {a_format, b_format} <= {"e4m3", "e5m2"}
    known = K_OF.get(a_format) == k and same and n % 8 == 0 and 8 <= n <= 256
    half_sums = a_format in ("f16", "e4m3", "e5m2")
    if not known or d_format not in (("f32", "f16") if half_sums else ("f32",)):
        raise Unsupported(f"{ins.mnemonic}: no such combination of shape and types in PTX ISA 9.7.15.2")
    return Shape(n, k, d_format, a_format, b_format)


def _constant(ins: Instruction, operand: Operand, allowed: Sequence[int], what: str) -> int:
    if not isinstance(operand, Immediate) or operand.value not in allowed:
        listed = " or ".join(map(str, allowed)) if len(allowed) < 4 else f"{allowed[0]} or more"
        raise Unsupported(f"{ins.mnemonic}: {what} is {operand}, must be the constant {listed}")
    return operand.value


def _check_count(ins: Instruction, operand: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise Unsupported(f"{ins.mnemonic}: {operand} has {found} registers, must have {wanted}")


def _bits(slots: Sequence[int]) -> int:
    bits = 0
    for slot in slots:
        bits |= 1 << slot
    return bits


# -- the rest of the program ------------------------------------------------------------------------------


def fragment_slots(kernel: Kernel, binder: Binder) -> frozenset[int]:
    """The registers that any mma_async of the kernel uses for D or A, and those that D may be moved to."""
    names: set[str] = set()
    for ins in kernel.instructions:
        if ins.opcode == "wgmma" and ins.has("mma_async"):
            for operand in ins.operands[:2]:
                names.update(_names(operand) if isinstance(operand, Vector) else ())
    moves = [ins for ins in kernel.instructions if ins.opcode == "mov"] if names else []
    before = -1
    while before != len(names):
        before = len(names)
        for ins in moves:
            if not names.isdisjoint(_names(ins.operands[1])):
                names.update(_names(ins.operands[0]))
    return frozenset(binder.names[name] for name in names if name in binder.names)


def _names(operand: Operand) -> list[str]:
    """The declared registers of an operand, in order."""
    items = operand.items if isinstance(operand, Vector) else (operand,)
    return [item.name for item in items if isinstance(item, Register)]


def guarded(
    operation: Callable[[Warp], Result], ins: Instruction, reads: Sequence[int], writes: Sequence[int]
) -> Callable[[Warp], Result]:
    """An operation that reports, before it happens, that it touches these registers of fragments."""
    touched = _bits((*reads, *writes))

    def checked(warp: Warp) -> Result:
        for slot in reads:
            value = warp.regs[slot]
            if type(value) is InFlight:
                warp.registers_in_use.refuse_value(value, ins)
        warp.registers_in_use.touch(touched, ins)
        return operation(warp)

    return checked


def guarded_move(operation: Operation, ins: Instruction, binder: Binder) -> Operation:
    """A `mov` that renames a value in flight, or touches no register that is in use."""
    writes, reads = (
        [binder.names[name] for name in _names(operand) if name in binder.names] for operand in ins.operands
    )
    plain, touched = guarded(operation, ins, reads, writes), _bits((*reads, *writes))

    def move(warp: Warp) -> None:
        values = [warp.regs[slot] for slot in reads]
        if not any(type(value) is InFlight for value in values):
            warp.registers_in_use.check_free(touched, ins)
            operation(warp)
            return
        renamed = _renamed(values, len(writes))
        if renamed is None or warp.mask != warp.alive:
            plain(warp)  # which says what is wrong
            return
        for slot, value in zip(writes, renamed, strict=True):
            warp.regs[slot] = value

    return move


def _renamed(values: list[Any], count: int) -> list[InFlight] | None:
    """What a move of these values to so many registers leaves there: themselves, halves, or the whole."""
    if len(values) == 1 and isinstance(values[0], InFlight):
        if count == 1:
            return values
        return values[0].halves() if count == 2 and values[0].half is None else None
    whole = InFlight.whole(values)
    return [whole] if whole is not None and count == 1 else None
