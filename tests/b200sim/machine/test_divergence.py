"""Divergence and reconvergence: random structured programs against an interpreter of one lane at a time."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ptx_harness import FULL, OLD, lanes, run_kernel

REGISTERS = [f"%r{i}" for i in range(6)]
OPERATORS = {
    "add.u32": lambda a, b: a + b, "sub.u32": lambda a, b: a - b, "mul.lo.u32": lambda a, b: a * b,
    "xor.b32": lambda a, b: a ^ b, "and.b32": lambda a, b: a & b, "max.u32": max,
}  # fmt: skip
RELATIONS = {
    "lt": lambda a, b: a < b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
}
MASK32 = 0xFFFFFFFF
DEPTH = 3


class Writer:
    """A random program as PTX text and, statement by statement, as a tree for the reference interpreter."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.labels = 0
        self.loops = 0
        self.cold: list[str] = []  # blocks put at the end of the kernel, as compilers do with unlikely ones

    def label(self) -> str:
        self.labels += 1
        return f"$L{self.labels}"

    def operand(self) -> str:
        pick = self.random.random()
        if pick < 0.6:
            return self.random.choice(REGISTERS)
        return "%lane" if pick < 0.75 else str(self.random.randrange(5))

    def body(self, depth: int, size: int) -> tuple[list[str], list]:
        text, tree = [], []
        for _ in range(size):
            lines, node = self.statement(depth)
            text += lines
            tree.append(node)
        return text, tree

    def statement(self, depth: int):
        kinds = ["assign"] * 4 + ["guarded"] * 2 + ["select", "leave"]
        kinds += ["if", "else", "loop", "cold"] if depth else []
        kinds += ["gather"] if depth == DEPTH else []
        kind = self.random.choice(kinds)
        if kind == "leave" and self.random.random() < 0.7:
            kind = "assign"
        condition = self.random.choice(list(RELATIONS)), self.operand(), self.operand()
        relation, a, b = condition
        test = f"setp.{relation}.u32 %p, {a}, {b};"
        if kind in ("assign", "guarded"):
            name, d = self.random.choice(list(OPERATORS)), self.random.choice(REGISTERS)
            x, y = self.operand(), self.operand()
            line = f"{name} {d}, {x}, {y};"
            if kind == "assign":
                return [line], ("assign", name, d, x, y)
            return [test, f"@%p {line}"], ("if", condition, [("assign", name, d, x, y)], [])
        if kind == "leave":
            return [test, "@%p bra EXIT;"], ("leave", condition)
        if kind == "select":
            d = self.random.choice(REGISTERS)
            chosen = [("assign", "add.u32", d, value, "0") for value in ("1", "2")]
            return [test, f"selp.b32 {d}, 1, 2, %p;"], ("if", condition, chosen[:1], chosen[1:])
        if kind == "gather":  # every lane comes here, whatever way it takes
            return ["bar.warp.sync -1;"], ("if", ("eq", "0", "0"), [], [])
        then_text, then_tree = self.body(depth - 1, self.random.randrange(1, 4))
        if kind == "if":
            skip = self.label()
            return [test, f"@!%p bra {skip};", *then_text, f"{skip}:"], ("if", condition, then_tree, [])
        if kind == "cold":
            there, back = self.label(), self.label()
            self.cold += [f"{there}:", *then_text, f"bra {back};"]
            return [test, f"@%p bra {there};", f"{back}:"], ("if", condition, then_tree, [])
        if kind == "else":
            else_text, else_tree = self.body(depth - 1, self.random.randrange(1, 4))
            other, end = self.label(), self.label()
            text = [
                test,
                f"@!%p bra {other};",
                *then_text,
                f"bra.uni {end};",
                f"{other}:",
                *else_text,
                f"{end}:",
            ]
            return text, ("if", condition, then_tree, else_tree)
        # A loop whose trip count differs between lanes: ((register or lane) & 3) + 1 times.
        self.loops += 1
        counter, start = f"%c{self.loops}", self.random.choice([*REGISTERS, "%lane"])
        head = self.label()
        text = [f"and.b32 {counter}, {start}, 3;", f"{head}:", *then_text, f"setp.ne.u32 %p, {counter}, 0;",
                f"sub.u32 {counter}, {counter}, 1;", f"@%p bra {head};"]  # fmt: skip
        return text, ("loop", start, then_tree)


class Left(Exception):
    pass


def interpret(tree, registers: dict[str, int], lane: int) -> None:
    def value(name: str) -> int:
        return lane if name == "%lane" else registers[name] if name in registers else int(name)

    for node in tree:
        if node[0] == "assign":
            _, name, d, a, b = node
            registers[d] = OPERATORS[name](value(a), value(b)) & MASK32
        elif node[0] in ("if", "leave"):
            relation, a, b = node[1]
            holds = RELATIONS[relation](value(a), value(b))
            if node[0] == "if":
                interpret(node[2] if holds else node[3], registers, lane)
            elif holds:
                raise Left
        else:
            for _ in range((value(node[1]) & 3) + 1):
                interpret(node[2], registers, lane)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_random_structured_programs(seed):
    writer = Writer(seed)
    text, tree = writer.body(DEPTH, 6)
    start = [
        [writer.random.choice([0, 1, 2, 3, writer.random.getrandbits(32)]) for _ in range(32)]
        for _ in REGISTERS
    ]
    uniform = [writer.random.random() < 0.4 for _ in REGISTERS]
    snippet = "\n".join([*text, "bra.uni EXIT;", *writer.cold, "EXIT:"])
    found = lanes(
        snippet, dict.fromkeys(REGISTERS, 32),
        {
            name: (32, column[0] if same else column)
            for name, column, same in zip(REGISTERS, start, uniform, strict=True)
        },
        declare=f".reg .pred %p; .reg .b32 %c<{writer.loops + 1}>;",
    )  # fmt: skip
    for lane in range(32):
        registers = {
            name: column[0 if same else lane]
            for name, column, same in zip(REGISTERS, start, uniform, strict=True)
        }
        with contextlib.suppress(Left):
            interpret(tree, registers, lane)
        for name in REGISTERS:
            assert found[name][lane] == registers[name], f"{name} of lane {lane} in\n{snippet}"


def test_value_written_in_one_branch_and_read_after_the_join():
    found = lanes(
        """setp.lt.u32 %p, %lane, 10; mov.b32 %d, 1; @%p bra THEN; mov.b32 %e, 5; bra JOIN;
        THEN: mov.b32 %d, 2; JOIN: add.u32 %d, %d, %d;""",
        {"%d": 32, "%e": 32}, declare=".reg .pred %p;",
    )  # fmt: skip
    assert found["%d"] == [4] * 10 + [2] * 22
    assert found["%e"] == [OLD[32]] * 10 + [5] * 22


@pytest.mark.parametrize("uniform_value", [True, False])
def test_value_of_lanes_that_left_a_loop_early_is_kept(uniform_value):
    value = "%i" if uniform_value else "%x"
    found = lanes(
        f"""mov.b32 %i, 0; LOOP: add.u32 %i, %i, 1; mul.lo.u32 %x, %i, %lane; mov.b32 %d, {value};
        setp.le.u32 %p, %i, %lane; @%p bra LOOP;""",
        {"%d": 32}, declare=".reg .pred %p; .reg .b32 %i, %x;",
    )  # fmt: skip
    assert found["%d"] == [(i + 1) * (1 if uniform_value else i) for i in range(32)]


def test_lanes_that_return_early_stay_out():
    """Their stores are not repeated, full-warp instructions need only those that are left."""
    out = np.zeros(32, np.uint32)
    run_kernel(
        """.reg .b64 %o, %w; .reg .b32 %l, %m; .reg .pred %p;
        ld.param.u64 %o, [p0]; mov.u32 %l, %laneid; mul.wide.u32 %w, %l, 4; add.s64 %o, %o, %w;
        st.global.b32 [%o], 7; setp.gt.u32 %p, %l, 19; @%p ret; setp.eq.u32 %p, %l, 3; @%p exit;
        bar.warp.sync -1; vote.sync.ballot.b32 %m, 1, -1; st.global.b32 [%o], %m; bar.sync 0;
        red.global.add.u32 [%o], 1;""",
        [out],
    )  # fmt: skip
    live = 0x000FFFF7
    assert out.tolist() == [live + 1 if live >> i & 1 else 7 for i in range(32)]


def test_guarded_terminator_at_the_very_end():
    out = np.zeros(1, np.uint32)
    run_kernel(
        """.reg .b64 %o; .reg .b32 %l; .reg .pred %p; ld.param.u64 %o, [p0]; mov.u32 %l, %laneid;
        setp.lt.u32 %p, %l, 5; red.global.add.u32 [%o], 1; @%p ret;""",
        [out],
    )  # fmt: skip
    assert out[0] == 32


def test_a_register_that_was_never_written_reads_as_ones():
    found = lanes("@%never mov.b32 %u, 3; mov.b32 %d, %u; add.u32 %e, %u, 2;", {"%d": 32, "%e": 32},
                  {"%never": (1, 0)}, declare=".reg .b32 %u;")  # fmt: skip
    assert found == {"%d": [FULL] * 32, "%e": [1] * 32}
