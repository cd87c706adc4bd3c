"""Operands to slots of a warp's register file.

Every register has a slot, and so has every constant the program mentions: immediates, special registers,
addresses of parameters and shared variables. An operation therefore reads all operands the same way,
`warp.regs[slot]`. What a slot holds before the first instruction is described by `Constant`s.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from b200sim.faults import Unsupported
from b200sim.ptx.body import CARRY
from b200sim.ptx.syntax import (
    TYPE_BITS,
    Address,
    FrameVariable,
    Immediate,
    Instruction,
    Kernel,
    Operand,
    Pair,
    Register,
    Sink,
    Symbol,
    Vector,
)

LOCAL_BASE = 0x100  # the first address of a thread's .local variables; what lies below is nobody's

# PTX ISA 10. %clock and its like are read by `mov` alone.
SPECIAL_REGISTERS = frozenset(
    [
        "%tid",
        "%ntid",
        "%laneid",
        "%warpid",
        "%nwarpid",
        "%ctaid",
        "%nctaid",
        "%smid",
        "%nsmid",
        "%gridid",
        "%clusterid",
        "%nclusterid",
        "%cluster_ctaid",
        "%cluster_nctaid",
        "%cluster_ctarank",
        "%cluster_nctarank",
        "%is_explicit_cluster",
        "%lanemask_eq",
        "%lanemask_le",
        "%lanemask_lt",
        "%lanemask_ge",
        "%lanemask_gt",
        "%clock",
        "%clock_hi",
        "%clock64",
        "%globaltimer",
        "%globaltimer_lo",
        "%globaltimer_hi",
        "%dynamic_smem_size",
        "%total_smem_size",
    ]
)


@dataclass(frozen=True)
class Constant:
    """A slot's value from the start: `kind` is immediate, special, parameter, shared or variable."""

    kind: str
    name: str = ""
    value: int = 0


@dataclass
class Usage:
    """The slots that one instruction reads and writes, for liveness."""

    reads: set[int] = field(default_factory=set)
    writes: set[int] = field(default_factory=set)


class Binder:
    """Gives out slots while a kernel is decoded, and notes which instruction uses which."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.names = {name: slot for slot, name in enumerate(kernel.register_bits)}
        self.bits = list(kernel.register_bits.values())
        self.constants: dict[int, Constant] = {}
        self._constant_slots: dict[Constant, int] = {}
        self._parameters = {p.name: p for p in kernel.parameters}
        self._shared = {v.name for v in kernel.shared}
        self._variables = {v.name for v in kernel.variables}
        self.next_block = 0  # set by the program while it decodes terminators
        self.block_of_label: dict[str, int] = {}
        self.usage = Usage()

    @property
    def slot_count(self) -> int:
        return len(self.bits)

    def begin(self) -> Usage:
        """Start a new instruction: later reads and writes are recorded in the returned object."""
        self.usage = Usage()
        return self.usage

    # -- operands -------------------------------------------------------------------------------------

    def read(self, operand: Operand) -> int:
        """Slot of a source operand: register, immediate, symbol or special register."""
        slot = self._slot(operand)
        self.usage.reads.add(slot)
        return slot

    def reads(self, operand: Operand) -> list[int]:
        """Slots of a `{...}` source, or of a single one."""
        return [self.read(item) for item in (operand.items if isinstance(operand, Vector) else (operand,))]

    def write(self, operand: Operand) -> int:
        """Slot of a destination register; a sink gets a slot that nobody reads."""
        if isinstance(operand, Sink):
            return self._constant(Constant("sink"))
        if not isinstance(operand, Register):
            raise Unsupported(f"destination {operand}")
        slot = self._slot(operand)
        self.usage.writes.add(slot)
        return slot

    def writes(self, operand: Operand) -> list[int]:
        return [self.write(item) for item in (operand.items if isinstance(operand, Vector) else (operand,))]

    def pair(self, operand: Operand) -> tuple[int, int]:
        """Slots of `d|p`, or of `d` and a sink."""
        if isinstance(operand, Pair):
            return self.write(operand.first), self.write(operand.second)
        return self.write(operand), self.write(Sink())

    def predicate(self, operand: Operand) -> tuple[int, int]:
        """Slot of a predicate source and the mask to xor it with (all ones for `!p`)."""
        if isinstance(operand, Register):
            return self.read(Register(operand.name)), 0xFFFFFFFF if operand.negated else 0
        if isinstance(operand, Immediate):
            return self.read(Immediate(0xFFFFFFFF if operand.value else 0)), 0
        raise Unsupported(f"predicate {operand}")

    def address(self, operand: Operand) -> tuple[int, int]:
        """Slot of an address's base and the constant byte offset to add."""
        if not isinstance(operand, Address):
            raise Unsupported(f"expected an address in brackets, found {operand}")
        if isinstance(operand.base, Symbol):
            return self.read(Symbol(operand.base.name)), operand.base.offset + operand.offset
        return self.read(operand.base), operand.offset

    def argument(self, operand: Operand) -> FrameVariable | None:
        """The `.param` variable of a call that an address or name means, if it is one."""
        base = operand.base if isinstance(operand, Address) else operand
        return self.kernel.arguments.variables.get(base.name) if isinstance(base, Symbol) else None

    def carry(self) -> int:
        """Slot of the carry flag, to be added to the reads or writes of the instruction."""
        return self.names[CARRY]

    def coordinates(self, operand: Operand) -> list[int]:
        """Slots of the coordinate vector of a tensor address."""
        assert isinstance(operand, Address)
        return [self.source(item, 32) for item in operand.coordinates]

    def register_bits(self, operand: Operand) -> int:
        """Declared width of a register operand, in bits; 1 for predicates."""
        if not isinstance(operand, Register) or operand.name not in self.kernel.register_bits:
            raise Unsupported(f"expected a declared register, found {operand}")
        return self.kernel.register_bits[operand.name]

    # -- slots ----------------------------------------------------------------------------------------

    def _slot(self, operand: Operand) -> int:
        if isinstance(operand, Register):
            if operand.name in self.names:
                return self.names[operand.name]
            if operand.name.partition(".")[0] not in SPECIAL_REGISTERS:
                raise Unsupported(
                    f"register {operand.name}: neither declared nor a special register known here"
                )
            return self._constant(Constant("special", operand.name))
        if isinstance(operand, Immediate):
            return self._constant(Constant("immediate", value=operand.value))
        if isinstance(operand, Symbol):
            if operand.name in self._parameters:
                return self._constant(Constant("parameter", operand.name, operand.offset))
            if operand.name in self._shared:
                return self._constant(Constant("shared", operand.name, operand.offset))
            if operand.name in self._variables:
                return self._constant(Constant("variable", operand.name, operand.offset))
            if operand.name in self.kernel.local.variables:
                place = LOCAL_BASE + self.kernel.local.variables[operand.name].offset
                return self._constant(Constant("immediate", value=place + operand.offset))
            if operand.name in self.kernel.arguments.variables:
                place = self.kernel.arguments.variables[operand.name].offset
                return self._constant(Constant("immediate", value=place + operand.offset))
        raise Unsupported(f"operand {operand}")

    def _constant(self, constant: Constant) -> int:
        slot = self._constant_slots.get(constant)
        if slot is None:
            slot = len(self.bits)
            self._constant_slots[constant] = slot
            self.constants[slot] = constant
            self.bits.append(0 if constant.kind == "sink" else 64)
        return slot

    def immediate(self, value: int, bits: int) -> int:
        """Slot of a constant, as the pattern of the given width."""
        return self._constant(Constant("immediate", value=value & ((1 << bits) - 1)))

    def source(self, operand: Operand, bits: int) -> int:
        """Like `read`, with a negative immediate brought to its pattern of `bits`."""
        if isinstance(operand, Immediate):
            operand = Immediate(operand.value & ((1 << bits) - 1))
        return self.read(operand)


def type_of(ins: Instruction) -> str:
    """The operand type of an instruction: its last modifier that names one."""
    for modifier in reversed(ins.modifiers):
        if modifier in TYPE_BITS:
            return modifier
    raise Unsupported(f"{ins.mnemonic} names no type")


def bits_of(ins: Instruction) -> int:
    return TYPE_BITS[type_of(ins)]


def is_signed(ins: Instruction) -> bool:
    return type_of(ins)[0] == "s"
