"""The pieces of a parsed PTX kernel: operands, instructions, declarations. No meaning is attached here."""

from __future__ import annotations

from dataclasses import dataclass, field

from b200sim.ptx.directives import Directives

TYPE_BITS = {
    "pred": 1, "b8": 8, "u8": 8, "s8": 8, "b16": 16, "u16": 16, "s16": 16, "f16": 16, "bf16": 16,
    "f16x2": 32, "bf16x2": 32, "b32": 32, "u32": 32, "s32": 32, "f32": 32,
    "b64": 64, "u64": 64, "s64": 64, "f64": 64, "b128": 128,
}  # fmt: skip


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
    `target` is the label of a branch or the function of a call (operands: results, arguments), `targets` the
    labels of an indexed branch, `source` the CuTe-DSL file and line that `.loc` named.
    """

    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: Register | None
    line: int
    source: tuple[str, int] | None
    text: str
    target: str | None = None
    targets: tuple[str, ...] = ()

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


@dataclass(frozen=True)
class ModuleVariable:
    """A `.global` or `.const` variable; `data` is what it holds before the first launch."""

    name: str
    space: str
    align: int
    data: bytes


@dataclass(frozen=True)
class FrameVariable:
    """A variable of which every thread has its own: `size` bytes at `offset` in its frame."""

    offset: int
    size: int
    align: int


@dataclass
class Frame:
    """The memory of one state space that every thread has for itself."""

    variables: dict[str, FrameVariable] = field(default_factory=dict)
    size: int = 0

    def place(self, name: str, size: int, align: int) -> None:
        offset = -(-self.size // align) * align
        self.variables[name] = FrameVariable(offset, size, align)
        self.size = offset + size


@dataclass
class Kernel:
    """One `.entry` of a PTX module, or a `.func` before it is inlined.

    `local` holds the `.local` variables, `arguments` the `.param` variables that pass values to and from
    functions.
    """

    name: str
    parameters: list[Parameter] = field(default_factory=list)
    shared: list[SharedVariable] = field(default_factory=list)
    variables: list[ModuleVariable] = field(default_factory=list)
    register_bits: dict[str, int] = field(default_factory=dict)  # of every declared name; predicates are 1
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)  # label -> index of the instruction that follows
    local: Frame = field(default_factory=Frame)
    arguments: Frame = field(default_factory=Frame)
    returns: list[Parameter] = field(default_factory=list)  # of a function
    target: str = ""  # what the module was compiled for: `sm_100a`
    directives: Directives = field(default_factory=Directives)
