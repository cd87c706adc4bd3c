"""Calls of a module's own functions, inlined.

Without recursion a program stays the same with the bodies of its functions in place of their calls. Inlined,
lanes that diverge inside a function need nothing that a branch does not have, and every instruction keeps its
line. What an instruction names is made unique by the number of its call (`%r1@3`); a parameter of a function
is the caller's `.param` variable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from b200sim.faults import Unsupported
from b200sim.ptx.body import CARRY
from b200sim.ptx.syntax import (
    Address,
    Instruction,
    Kernel,
    Operand,
    Pair,
    Parameter,
    Register,
    Symbol,
    Vector,
)

Rename = Callable[[str], str]


def inline_calls(kernel: Kernel, functions: dict[str, Kernel]) -> None:
    """Replace every call of one of `functions` by its body, in place; calls of other names stay.

    Raises `Unsupported` for recursion and for arguments that are not `.param` variables of the right size.
    """
    if any(ins.opcode == "call" and ins.target in functions for ins in kernel.instructions):
        _Inliner(kernel, functions).run()


class _Inliner:
    def __init__(self, kernel: Kernel, functions: dict[str, Kernel]) -> None:
        self.kernel = kernel
        self.functions = functions
        self.instructions: list[Instruction] = []
        self.labels: dict[str, int] = {}
        self.calls = 0

    def run(self) -> None:
        self._body(self.kernel, lambda name: name, "", ())
        self.kernel.instructions = self.instructions
        self.kernel.labels = self.labels

    def _body(self, source: Kernel, rename: Rename, after: str, chain: tuple[str, ...]) -> None:
        """The instructions of `source` under new names; its `ret` goes to the label `after`."""
        label_at: dict[int, list[str]] = {}
        for label, index in source.labels.items():
            label_at.setdefault(index, []).append(rename(label))
        for index, ins in enumerate(source.instructions):
            for label in label_at.get(index, ()):
                self.labels[label] = len(self.instructions)
            ins = _renamed(ins, rename)
            if ins.opcode == "call" and ins.target in self.functions:
                self._call(ins, chain)
            elif ins.opcode == "ret" and after:
                self.instructions.append(replace(ins, opcode="bra", modifiers=(), target=after))
            else:
                self.instructions.append(ins)
        for label in label_at.get(len(source.instructions), ()):
            self.labels[label] = len(self.instructions)

    def _call(self, ins: Instruction, chain: tuple[str, ...]) -> None:
        assert ins.target is not None
        if ins.target in chain:
            raise Unsupported(f"recursion: {' calls '.join((*chain, ins.target))}").at(ins.place())
        function = self.functions[ins.target]
        self.calls += 1
        suffix = f"@{self.calls}"
        results, arguments = ins.operands
        names = {name: name + suffix for name in (*function.register_bits, *function.labels)}
        names.pop(CARRY, None)
        names |= self._passed(ins, function.returns, results)
        names |= self._passed(ins, function.parameters, arguments)
        names |= self._framed(function, suffix)
        for name, bits in function.register_bits.items():
            self.kernel.register_bits[names.get(name, name)] = bits
        after = f"after call{suffix}"
        if ins.guard is not None:
            negated = Register(ins.guard.name, not ins.guard.negated)
            self.instructions.append(
                replace(ins, opcode="bra", modifiers=(), operands=(), guard=negated, target=after)
            )
        self._body(function, lambda name: names.get(name, name), after, (*chain, ins.target))
        self.labels[after] = len(self.instructions)

    def _passed(self, ins: Instruction, formal: list[Parameter], actual: Operand) -> dict[str, str]:
        """Names of a function's parameters (or results) to the caller's variables."""
        assert isinstance(actual, Vector)
        if len(formal) != len(actual.items):
            raise Unsupported(
                f"a call of {ins.target} with {len(actual.items)} values; it has {len(formal)}"
            ).at(ins.place())
        names = {}
        for parameter, operand in zip(formal, actual.items, strict=True):
            variable = (
                self.kernel.arguments.variables.get(operand.name) if isinstance(operand, Symbol) else None
            )
            if variable is None or variable.size < parameter.size:
                raise Unsupported(f"a call of {ins.target} that passes {operand} for {parameter.name}").at(
                    ins.place()
                )
            names[parameter.name] = operand.name  # type: ignore[union-attr]
        return names

    def _framed(self, function: Kernel, suffix: str) -> dict[str, str]:
        """New names of a function's own `.local` and `.param` variables, which get places in the kernel's."""
        names = {}
        for frame, own in (
            (self.kernel.local, function.local),
            (self.kernel.arguments, function.arguments),
        ):
            for name, variable in own.variables.items():
                names[name] = name + suffix
                frame.place(name + suffix, variable.size, variable.align)
        return names


def _renamed(ins: Instruction, rename: Rename) -> Instruction:
    guard = ins.guard and Register(rename(ins.guard.name), ins.guard.negated)
    target = ins.target and rename(ins.target)
    return replace(
        ins,
        operands=tuple(_operand(operand, rename) for operand in ins.operands),
        guard=guard,
        target=target,
        targets=tuple(map(rename, ins.targets)),
    )


def _operand(operand: Operand, rename: Rename) -> Operand:
    if isinstance(operand, Register):
        return Register(rename(operand.name), operand.negated)
    if isinstance(operand, Symbol):
        return Symbol(rename(operand.name), operand.offset)
    if isinstance(operand, Vector):
        return Vector(tuple(_operand(item, rename) for item in operand.items))
    if isinstance(operand, Pair):
        return Pair(_operand(operand.first, rename), _operand(operand.second, rename))
    if isinstance(operand, Address):
        base = _operand(operand.base, rename)
        coordinates = tuple(_operand(item, rename) for item in operand.coordinates)
        return replace(operand, base=base, coordinates=coordinates)  # type: ignore[arg-type]
    return operand
