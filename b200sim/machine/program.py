"""What the machine runs: a kernel as basic blocks of operations, and how a block says where to go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from b200sim.ptx.syntax import Immediate

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp
    from b200sim.ptx.binder import Binder, Usage
    from b200sim.ptx.syntax import Instruction, Kernel

Operation = Callable[["Warp"], None]
Terminator = Callable[["Warp"], int]  # returns the number of the next block, or one of:
BLOCKED = -1  # the warp waits; woken, it runs this block again
EXITED = -2
YIELDED = -3  # still runnable, but gives way to others

BLOCK_NUMBER = (1 << 30) - 1  # the bits of a block's rank that are its number; see `Program`


@dataclass
class Block:
    """Instructions that run one after the other, and what ends them.

    A block that ends in something that may block holds nothing else, so that a woken warp can simply run
    the whole block again. `live_in` has bit s set if slot s may be read from here on before it is written.
    """

    operations: list[Operation]
    end: Terminator
    instructions: list[Instruction]  # of the operations, then of the terminator (if it is an instruction)
    successors: list[int]
    live_in: int = 0
    usages: list[Usage] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.instructions)

    def instruction_of(self, operation: Callable[..., object]) -> Instruction:
        """The instruction behind an operation of this block (the first one for a plain fall-through)."""
        for candidate, ins in zip((*self.operations, self.end), self.instructions, strict=False):
            if candidate is operation:
                return ins
        return self.instructions[-1]


@dataclass(eq=False)
class Program:
    """One kernel, ready to run. Blocks are numbered in program order, so a smaller number is a smaller PC.

    `ranks` orders divergent lanes: block n has rank n, or n + 2^30 if it begins with an instruction that
    lanes execute together and that therefore waits for lanes that are on their way.
    """

    kernel: Kernel
    binder: Binder
    fragments: frozenset[int]  # slots of registers that a tensor core may be using
    blocks: list[Block]
    ranks: list[int]

    def __post_init__(self) -> None:
        live = self.blocks[0].live_in
        registers = len(self.kernel.register_bits)
        self.may_be_unwritten = [slot for slot in range(registers) if live >> slot & 1]  # when first read

    def opcodes(self) -> set[str]:
        """Every mnemonic in the program."""
        return {ins.mnemonic for block in self.blocks for ins in block.instructions}

    def register_requests(self) -> list[tuple[str, int]]:
        """Every setmaxnreg: "inc" or "dec", and its count."""
        return [
            (ins.modifiers[0], operand.value)
            for ins in self.kernel.instructions
            if ins.opcode == "setmaxnreg"
            for operand in ins.operands
            if isinstance(operand, Immediate)
        ]
