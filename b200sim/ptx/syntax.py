"""The pieces of a parsed PTX kernel: operands, instructions, declarations. No meaning is attached here."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Register:
    """A register or special register, under its name made unique by scope (`%r12`, `%tid.x`, `P1#3`)."""

    name: str
    negated: bool = False  # `!%p1` as a predicate operand


@dataclass(frozen=True)
class Immediate:
    """An integer literal, or the bit pattern of a `0f`/`0d` floating-point literal."""

    value: int


@dataclass(frozen=True)
class Symbol:
    """A variable or parameter name with a byte offset; its value is its address."""

    name: str
    offset: int = 0


@dataclass(frozen=True)
class Address:
    """`[base+offset]`, and for tensor copies `[base, {coordinates}]`."""

    base: Register | Symbol | Immediate
    offset: int = 0
    coordinates: tuple[Operand, ...] = ()


@dataclass(frozen=True)
class Vector:
    """`{a, b, ...}`."""

    items: tuple[Operand, ...]


@dataclass(frozen=True)
class Pair:
    """`d|p`: a destination and its predicate."""

    first: Operand
    second: Operand


@dataclass(frozen=True)
class Sink:
    """`_`: the result is dropped."""


Operand = Register | Immediate | Symbol | Address | Vector | Pair | Sink


@dataclass
class Instruction:
    """One PTX statement.

    `opcode` is the first word of the mnemonic, `modifiers` the rest: `add.s32` is ("add", ("s32",)).
    `target` is the label of a branch, `source` the CuTe-DSL file and line that `.loc` named.
    """

    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: Register | None
    line: int
    source: tuple[str, int] | None
    text: str
    target: str | None = None

    @property
    def mnemonic(self) -> str:
        return ".".join((self.opcode, *self.modifiers))

    def has(self, modifier: str) -> bool:
        return modifier in self.modifiers

    def place(self) -> str:
        """`PTX line 572, gemm.py:399` for messages."""
        ptx = f"PTX line {self.line}: {self.text[:120]}"
        return f"{self.source[0]}:{self.source[1]} ({ptx})" if self.source else ptx


@dataclass(frozen=True)
class Parameter:
    """A kernel parameter: `size` bytes at `offset` in the parameter block."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class SharedVariable:
    """A `.shared` variable; `size` 0 is the extern array whose size the launch gives."""

    name: str
    align: int
    size: int


@dataclass
class Kernel:
    """One `.entry` of a PTX module."""

    name: str
    parameters: list[Parameter] = field(default_factory=list)
    shared: list[SharedVariable] = field(default_factory=list)
    register_bits: dict[str, int] = field(default_factory=dict)  # of every declared name; predicates are 1
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)  # label -> index of the instruction that follows
    target: str = ""  # what the module was compiled for: `sm_100a`
