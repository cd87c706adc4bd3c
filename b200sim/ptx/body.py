"""The body of one PTX function to instructions: statements, scopes, operands (PTX ISA 9.1, chapters 4 and 5).

Inline assembly and calls open `{ ... }` scopes that declare registers, parameters and labels again under the
same names, so a name is made unique by the number of the scope that declared it (`P1#3`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from b200sim.faults import Unsupported
from b200sim.ptx.syntax import (
    TYPE_BITS,
    Address,
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

_LOC = re.compile(r"\.loc\s+(\d+)\s+(\d+)")
_OF_A_LINE = re.compile(r"\.(loc|file)\s")  # directives that no semicolon ends
_REG_RANGE = re.compile(r"([%\w$]+)<(\d+)>$")
_LABEL = re.compile(r"([%\w$]+)\s*:(?!:)")
_STATEMENT = re.compile(r"(?:@(!?)([%\w$]+)\s+)?([a-z][\w.:]*)\s*(.*)$", re.S)
_ADDRESS = re.compile(r"([%\w$.]+)\s*(?:([+-])\s*(-?\w+))?$")
_INTEGER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|\d+)U?$")
_FLOAT = re.compile(r"0[fFdD]([0-9a-fA-F]{8,16})$")
_PER_THREAD = re.compile(r"\.(local|param)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$%]+)(?:\[(\d+)\])?$")
_CALL = re.compile(r"(?:\(([^)]*)\)\s*,\s*)?([\w$%.]+)\s*(?:,\s*\(([^)]*)\))?\s*(,.*)?$")


CARRY = "CC.CF"  # the condition code register's carry flag (PTX ISA 9.7.2): implicit in add.cc, addc, madc


class Body:
    """Reads one `{ ... }` function body statement by statement."""

    def __init__(self, kernel: Kernel, files: dict[int, str]) -> None:
        self.kernel = kernel
        self.files = files
        self.source: tuple[str, int] | None = None
        self.scopes: list[tuple[int, set[str]]] = []  # (number, names declared there), innermost last
        self.scope_count = 0
        self.scope_labels: dict[int, set[str]] = {}
        self.last_label = ""
        self.branch_targets: dict[str, tuple[str, ...]] = {}  # of `.branchtargets`, by its label

    def read(self, text: str, start: int) -> None:
        statements = list(_statements(text, start))
        self._collect_labels(statements)
        self.scope_count = 0
        for line, statement in statements:
            self._statement(line, statement)

    def _collect_labels(self, statements: list[tuple[int, str]]) -> None:
        """Branches may point forward, so the labels of every scope are known before operands are read."""
        stack: list[int] = []
        for _, statement in statements:
            if statement == "{":
                self.scope_labels[self.scope_count] = set()
                stack.append(self.scope_count)
                self.scope_count += 1
            elif statement == "}":
                stack.pop()
            elif statement.endswith(":"):
                self.scope_labels[stack[-1]].add(statement[:-1].strip())

    def _statement(self, line: int, statement: str) -> None:
        if statement == "{":
            self.scopes.append((self.scope_count, set(self.scope_labels[self.scope_count])))
            self.scope_count += 1
        elif statement == "}":
            self.scopes.pop()
        elif statement.endswith(":"):
            self.last_label = self._unique(statement[:-1].strip())
            self.kernel.labels[self.last_label] = len(self.kernel.instructions)
        elif statement.startswith("."):
            self._directive(line, statement)
        else:
            self._instruction(line, statement)

    def _directive(self, line: int, statement: str) -> None:
        word = statement.split(None, 1)[0]
        if word == ".loc":
            match = _LOC.match(statement)
            if match and int(match[2]) > 0:
                self.source = (self.files.get(int(match[1]), "?"), int(match[2]))
        elif word == ".reg":
            _, kind, names = statement.split(None, 2)
            for name in names.split(","):
                self._declare(name.strip(), TYPE_BITS[kind[1:]])
        elif word in (".local", ".param"):
            self._declare_in_frame(line, statement)
        elif word == ".branchtargets":
            labels = _split(statement.removeprefix(word).strip())
            self.branch_targets[self.last_label] = tuple(map(self._unique, labels))
        elif word not in (".pragma", ".file", ".shared"):
            raise Unsupported(f"PTX line {line}: directive {statement!r} inside a kernel")

    def _declare(self, name: str, bits: int) -> None:
        ranged = _REG_RANGE.match(name)
        names = [f"{ranged[1]}{i}" for i in range(int(ranged[2]))] if ranged else [name]
        self.scopes[-1][1].update(names)
        for each in names:
            self.kernel.register_bits[self._unique(each)] = bits

    def _declare_in_frame(self, line: int, statement: str) -> None:
        match = _PER_THREAD.match(statement)
        if match is None:
            raise Unsupported(f"PTX line {line}: declaration {statement!r}")
        space, align, kind, name, count = match.groups()
        element = TYPE_BITS[kind] // 8
        self.scopes[-1][1].add(name)
        frame = self.kernel.local if space == "local" else self.kernel.arguments
        frame.place(self._unique(name), element * int(count or 1), int(align or element))

    def _unique(self, name: str) -> str:
        for number, names in reversed(self.scopes):
            if name in names:
                return name if number == 0 else f"{name}#{number}"
        return name

    def _instruction(self, line: int, statement: str) -> None:
        match = _STATEMENT.match(statement)
        if match is None:
            raise Unsupported(f"PTX line {line}: cannot read {statement!r}")
        negated, guard, mnemonic, rest = match.groups()
        opcode, *modifiers = mnemonic.split(".")
        target = None
        targets: tuple[str, ...] = ()
        operands: tuple[Operand, ...] = ()
        if opcode == "call":
            target, operands = self._call(rest, line)
        elif opcode == "bra":
            target = self._unique(rest.strip())
        elif opcode == "brx":
            index, targets = self._indexed_branch(rest, line)
            operands = (index,)
        else:
            operands = tuple(self._operand(part, line) for part in _split(rest))
        if "cc" in modifiers or opcode in ("addc", "subc", "madc"):
            self.kernel.register_bits[CARRY] = 1
        self.kernel.instructions.append(
            Instruction(
                opcode,
                tuple(modifiers),
                operands,
                Register(self._unique(guard), bool(negated)) if guard else None,
                line,
                self.source,
                " ".join(statement.split()),
                target,
                targets,
            )
        )

    def _indexed_branch(self, text: str, line: int) -> tuple[Operand, tuple[str, ...]]:
        """`index, table`: the index, and the labels of the table."""
        index, *tables = _split(text)
        table = self._unique(tables[0]) if len(tables) == 1 else ""
        if table not in self.branch_targets:
            raise Unsupported(f"PTX line {line}: brx.idx {text} names no .branchtargets before it")
        return self._operand(index, line), self.branch_targets[table]

    def _call(self, text: str, line: int) -> tuple[str, tuple[Operand, ...]]:
        """`(results), function, (arguments)`: the function, and results and arguments as two vectors."""
        match = _CALL.match(" ".join(text.split()))
        if match is None:
            raise Unsupported(f"PTX line {line}: call {text!r}")
        results, function, arguments, prototype = match.groups()
        if prototype is not None or function[0] == "%":
            raise Unsupported(f"PTX line {line}: an indirect call through {function}")
        sides = ((results or "").strip(), (arguments or "").strip())
        return function, tuple(
            Vector(tuple(self._operand(part, line) for part in _split(side))) for side in sides
        )

    def _operand(self, text: str, line: int) -> Operand:
        if text[0] == "[":
            return self._address(text, line)
        if text[0] == "{":
            return Vector(tuple(self._operand(part, line) for part in _split(text[1:-1])))
        if text == "_":
            return Sink()
        if "|" in text:
            first, second = text.split("|")
            return Pair(self._operand(first.strip(), line), self._operand(second.strip(), line))
        if text[0] == "!":
            return Register(self._unique(text[1:].strip()), negated=True)
        literal = _literal(text)
        if literal is not None:
            return Immediate(literal)
        return self._name(text, line)

    def _name(self, text: str, line: int) -> Register | Symbol:
        match = _ADDRESS.match(text)
        if match is None:
            raise Unsupported(f"PTX line {line}: operand {text!r}")
        name = self._unique(match[1])
        if match[2] is None and (name in self.kernel.register_bits or name[0] == "%"):
            return Register(name)
        return Symbol(name, _signed(match[2], match[3]))

    def _address(self, text: str, line: int) -> Address:
        base, *coordinates = _split(text[1:-1])
        literal = _literal(base)
        if literal is not None:
            return Address(Immediate(literal))
        match = _ADDRESS.match(base)
        if match is None:
            raise Unsupported(f"PTX line {line}: address {text!r}")
        operand = self._operand(match[1], line)
        assert isinstance(operand, Register | Symbol)
        items: tuple[Operand, ...] = ()
        if coordinates:
            vector = self._operand(coordinates[0], line)
            assert isinstance(vector, Vector)
            items = vector.items
        return Address(operand, _signed(match[2], match[3]), items)


def _signed(sign: str | None, digits: str | None) -> int:
    if digits is None:
        return 0
    return -int(digits, 0) if sign == "-" else int(digits, 0)


def _literal(text: str) -> int | None:
    if _INTEGER.match(text):
        return int(text.rstrip("U"), 0)
    match = _FLOAT.match(text)
    return int(match[1], 16) if match else None


def _split(text: str) -> list[str]:
    """Split at the commas that stand outside braces and brackets."""
    if "{" not in text and "[" not in text:
        return [part.strip() for part in text.split(",") if part.strip()]
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        if char in "{[":
            depth += 1
        elif char in "}]":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    parts.append(text[start:].strip())
    return [part for part in parts if part]


def _statements(text: str, start: int) -> Iterator[tuple[int, str]]:
    """Yield (line, statement) of the body that opens at `text[start]`.

    Scope braces and labels (with their colon) are statements of their own; `.loc` and `.file` end with
    their line, everything else with a semicolon. A brace inside a statement belongs to a vector operand.
    """
    first_line = text.count("\n", 0, start) + 1
    depth, pending, pending_line = 0, "", 0
    for number, line in enumerate(text[start:].split("\n"), first_line):
        rest = line.strip()
        while rest:
            if not pending:
                pending_line = number
                if _OF_A_LINE.match(rest):
                    yield number, rest
                    break
                if rest[0] in "{}":
                    depth += 1 if rest[0] == "{" else -1
                    yield number, rest[0]
                    if depth == 0:
                        return
                    rest = rest[1:].lstrip()
                    continue
                label = _LABEL.match(rest)
                if label:
                    yield number, label[0]
                    rest = rest[label.end() :].lstrip()
                    continue
            head, semicolon, tail = rest.partition(";")
            pending = f"{pending} {head}" if pending else head
            if semicolon:
                if pending.strip():
                    yield pending_line, pending.strip()
                pending = ""
            rest = tail.lstrip() if semicolon else ""
    raise Unsupported("the PTX module ends inside a function")
