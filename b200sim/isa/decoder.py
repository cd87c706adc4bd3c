"""From a parsed kernel to a program: basic blocks of bound operations, and liveness for divergent warps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import b200sim.isa.families  # noqa: F401  (fills the registry)
from b200sim.faults import Unsupported
from b200sim.isa.registry import converges, decode, decode_terminator, is_terminator
from b200sim.isa.wgmma import fragment_slots, guarded, guarded_move
from b200sim.machine.program import BLOCK_NUMBER, Block, Operation, Program, Terminator
from b200sim.ptx.binder import Binder, Usage
from b200sim.ptx.syntax import Instruction, Kernel, Register

if TYPE_CHECKING:
    from b200sim.machine.warp import Warp


def decode_kernel(kernel: Kernel) -> Program:
    """Raises `Unsupported`, with the place in the source, for what this simulator has no semantics for."""
    binder = Binder(kernel)
    fragments = fragment_slots(kernel, binder)
    blocks = _Decoder(kernel, binder, fragments).blocks()
    _solve_liveness(blocks)
    ranks = [
        number | (BLOCK_NUMBER + 1 if converges(block.instructions[0]) else 0)
        for number, block in enumerate(blocks)
    ]
    return Program(kernel, binder, fragments, blocks, ranks)


class _Decoder:
    def __init__(self, kernel: Kernel, binder: Binder, fragments: frozenset[int]) -> None:
        self.kernel = kernel
        self.binder = binder
        self.fragments = fragments
        self.branch_around: dict[int, str] = {}  # index of a guarded terminator -> label after it

    def blocks(self) -> list[Block]:
        instructions, labels = self._without_guarded_terminators()
        starts = self._block_starts(instructions, labels)
        numbers = {start: number for number, start in enumerate(starts)}
        self.binder.block_of_label = {name: numbers[index] for name, index in labels.items()}
        bounds = [*starts, len(instructions)]
        return [
            self._block(instructions[a:b], n) for n, (a, b) in enumerate(zip(starts, bounds[1:], strict=True))
        ]

    def _without_guarded_terminators(self) -> tuple[list[Instruction], dict[str, int]]:
        """`@p wait` becomes `@!p bra next; wait; next:`, so that only branches diverge."""
        instructions: list[Instruction] = []
        new_index: list[int] = []
        labels: dict[str, int] = {}
        for ins in self.kernel.instructions:
            new_index.append(len(instructions))
            if ins.guard is not None and ins.opcode != "bra" and is_terminator(ins):
                around = f"around {ins.line}.{len(instructions)}"
                negated = Register(ins.guard.name, not ins.guard.negated)
                instructions.append(
                    Instruction("bra", (), (), negated, ins.line, ins.source, ins.text, target=around)
                )
                ins = replace(ins, guard=None)
                labels[around] = len(instructions) + 1
            instructions.append(ins)
        new_index.append(len(instructions))
        labels.update({name: new_index[index] for name, index in self.kernel.labels.items()})
        instructions.append(Instruction("ret", (), (), None, 0, None, "end of kernel"))
        return instructions, labels

    def _block_starts(self, instructions: list[Instruction], labels: dict[str, int]) -> list[int]:
        starts = {0, *(index for index in labels.values())}
        for index, ins in enumerate(instructions):
            if is_terminator(ins):
                starts.add(index + 1)
                if ins.opcode not in ("bra", "ret", "exit"):
                    starts.add(index)  # what may block, or run again, stands alone
            elif converges(ins):
                starts.add(index)
        return sorted(start for start in starts if start < len(instructions))

    def _block(self, instructions: list[Instruction], number: int) -> Block:
        self.binder.next_block = number + 1
        operations: list[Operation] = []
        usages: list[Usage] = []
        *plain, last = instructions
        for ins in plain:
            operations.append(self._operation(ins, usages))
        if is_terminator(last):
            usage = self.binder.begin()
            end = decode_terminator(last, self.binder)
            reads, writes = self._fragments_of(last, usage)
            if reads or writes:
                end = guarded(end, last, reads, writes)
            usages.append(usage)
        else:
            operations.append(self._operation(last, usages))
            end = _fall_through(number + 1)
        return Block(operations, end, instructions, self._successors(last, number), usages=usages)

    def _operation(self, ins: Instruction, usages: list[Usage]) -> Operation:
        usage = self.binder.begin()
        operation = decode(ins, self.binder)
        reads, writes = self._fragments_of(ins, usage)
        if reads or writes:
            if ins.opcode == "mov":
                operation = guarded_move(operation, ins, self.binder)
            else:
                operation = guarded(operation, ins, reads, writes)
        if ins.guard is not None:
            slot, flip = self.binder.predicate(ins.guard)
            usage.reads |= usage.writes  # lanes that are switched off keep the old value
            operation = _guarded(operation, slot, flip)
        usages.append(usage)
        return operation

    def _fragments_of(self, ins: Instruction, usage: Usage) -> tuple[list[int], list[int]]:
        """The registers that a tensor core may be using and that this instruction reads and writes."""
        if not self.fragments or ins.opcode == "wgmma":
            return [], []
        return sorted(self.fragments & usage.reads), sorted(self.fragments & usage.writes)

    def _successors(self, last: Instruction, number: int) -> list[int]:
        if last.opcode in ("ret", "exit", "trap"):
            return []
        if last.opcode == "bra":
            assert last.target is not None
            target = self._block_of(last.target, last)
            return [target] if last.guard is None else [target, number + 1]
        if last.opcode == "brx":
            return [number, *(self._block_of(label, last) for label in last.targets)]
        return [number + 1]

    def _block_of(self, label: str, ins: Instruction) -> int:
        if label not in self.binder.block_of_label:
            raise Unsupported(f"branch to unknown label {label}").at(ins.place())
        return self.binder.block_of_label[label]


def _fall_through(target: int) -> Terminator:
    def end(warp: Warp) -> int:
        return target

    return end


def _guarded(operation: Operation, slot: int, flip: int) -> Operation:
    def guarded(warp: Warp) -> None:
        active = (warp.regs[slot] ^ flip) & warp.mask
        if active == warp.mask:
            operation(warp)
        elif active:
            warp.run_masked(operation, active)

    return guarded


def _solve_liveness(blocks: list[Block]) -> None:
    """Backward dataflow over slots, as bit sets: live_in = use | (live_out & ~define)."""
    use, define = [], []
    for block in blocks:
        used = defined = 0
        for usage in reversed(block.usages):
            writes = _bits(usage.writes)
            used = (used & ~writes) | _bits(usage.reads)
            defined |= writes
        use.append(used)
        define.append(defined)
    changed = True
    while changed:
        changed = False
        for number in range(len(blocks) - 1, -1, -1):
            live_out = 0
            for successor in blocks[number].successors:
                live_out |= blocks[successor].live_in
            live_in = use[number] | (live_out & ~define[number])
            if live_in != blocks[number].live_in:
                blocks[number].live_in = live_in
                changed = True


def _bits(slots: set[int]) -> int:
    bits = 0
    for slot in slots:
        bits |= 1 << slot
    return bits
