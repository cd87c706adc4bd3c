"""Integer arithmetic and logic, lane by lane, against Python's integers."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ptx_harness import each_way, lanes, to_signed

QUICK = settings(max_examples=8, deadline=None)
KINDS = ["u16", "s16", "u32", "s32", "u64", "s64"]


def values(bits: int, seed: int) -> list[int]:
    """32 values of a width, every second one where carries and signs change."""
    rng = random.Random(seed)
    top = 1 << bits
    special = [0, 1, 2, top - 1, top - 2, top // 2, top // 2 - 1, top // 2 + 1, 1 << bits // 2]
    return [
        rng.choice(special) if rng.random() < 0.5 else rng.randrange(top) >> rng.randrange(bits)
        for _ in range(32)
    ]


def column(bits: int) -> st.SearchStrategy[list[int]]:
    return st.integers(0, 2**32).map(lambda seed: values(bits, seed))


def nonzero(bits: int) -> st.SearchStrategy[list[int]]:
    return column(bits).map(lambda row: [value or 1 for value in row])


def one_of(*choices: int) -> st.SearchStrategy[list[int]]:
    return st.integers(0, 2**32).map(lambda seed: random.Random(seed).choices(choices, k=32))


def number(value: int, kind: str) -> int:
    return to_signed(value, int(kind[1:])) if kind[0] == "s" else value


def truncated_quotient(a: int, b: int) -> int:
    return abs(a) // abs(b) * (-1 if (a < 0) != (b < 0) else 1)


ARITHMETIC = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul.lo": lambda a, b: a * b,
    "min": min,
    "max": max,
    "div": truncated_quotient,
    "rem": lambda a, b: a - b * truncated_quotient(a, b),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ARITHMETIC)
def test_two_operands(name, kind):
    bits = int(kind[1:])
    second = nonzero(bits) if name in ("div", "rem") else column(bits)

    @QUICK
    @given(column(bits), second)
    def check(a, b):
        def oracle(x, y):
            return ARITHMETIC[name](number(x, kind), number(y, kind)) % (1 << bits)

        each_way(f"{name}.{kind} {{d}}, {{a}}, {{b}};", bits, [(bits, a), (bits, b)], oracle)

    check()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["mul.hi", "mul.wide", "mad.lo", "mad.hi", "mad.wide"])
def test_products(name, kind):
    bits = int(kind[1:])
    opcode, part = name.split(".")
    if part == "wide" and bits == 64:
        pytest.skip("no 128-bit product")
    out = 2 * bits if part == "wide" else bits

    @QUICK
    @given(column(bits), column(bits), column(out))
    def check(a, b, c):
        def oracle(x, y, z=0):
            product = number(x, kind) * number(y, kind)
            return ((product >> bits if part == "hi" else product) + z) % (1 << out)

        operands = [(bits, a), (bits, b), (out, c)][: 3 if opcode == "mad" else 2]
        places = "{d}, {a}, {b}" + (", {c}" if opcode == "mad" else "")
        each_way(f"{name}.{kind} {places};", out, operands, oracle)

    check()


@pytest.mark.parametrize("kind", ["s16", "s32", "s64"])
@pytest.mark.parametrize("name", ["neg", "abs"])
def test_sign(name, kind):
    bits = int(kind[1:])

    @QUICK
    @given(column(bits))
    def check(a):
        def oracle(x):
            value = number(x, kind)
            return (-value if name == "neg" else abs(value)) % (1 << bits)

        each_way(f"{name}.{kind} {{d}}, {{a}};", bits, [(bits, a)], oracle)

    check()


LOGIC = {"and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b}


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("name", [*LOGIC, "not", "cnot"])
def test_logic(name, bits):
    @QUICK
    @given(column(bits), column(bits))
    def check(a, b):
        if name == "not":
            each_way(f"not.b{bits} {{d}}, {{a}};", bits, [(bits, a)], lambda x: x ^ (1 << bits) - 1)
        elif name == "cnot":
            each_way(f"cnot.b{bits} {{d}}, {{a}};", bits, [(bits, a)], lambda x: int(x == 0))
        else:
            each_way(f"{name}.b{bits} {{d}}, {{a}}, {{b}};", bits, [(bits, a), (bits, b)], LOGIC[name])

    check()


@pytest.mark.parametrize("name", LOGIC)
def test_predicate_logic(name):
    @QUICK
    @given(one_of(0, 1), one_of(0, 1))
    def check(a, b):
        each_way(f"{name}.pred {{d}}, {{a}}, {{b}};", 1, [(1, a), (1, b)], LOGIC[name])
        each_way(
            f"{name}.pred {{d}}, {{a}}, !{{b}};", 1, [(1, a), (1, b)], lambda x, y: LOGIC[name](x, 1 - y)
        )

    check()
    each_way("not.pred {d}, {a};", 1, [(1, [0, 1] * 16)], lambda x: 1 - x)


@pytest.mark.parametrize("kind", ["shl.b16", "shl.b32", "shl.b64", *(f"shr.{k}" for k in KINDS), "shr.b32"])
def test_shifts_clamp_the_amount(kind):
    opcode, operand = kind.split(".")
    bits = int(operand[1:])
    amounts = one_of(*range(bits + 2), 255, 256, 1 << 31, (1 << 32) - 1)

    @QUICK
    @given(column(bits), amounts)
    def check(a, n):
        def oracle(x, count):
            if opcode == "shl":
                return x * 2 ** min(count, 64) % 2**bits
            return number(x, operand) // 2 ** min(count, 64) % 2**bits

        each_way(f"{kind} {{d}}, {{a}}, {{b}};", bits, [(bits, a), (32, n)], oracle)

    check()


@pytest.mark.parametrize("direction", "lr")
@pytest.mark.parametrize("mode", ["clamp", "wrap"])
def test_funnel_shift(direction, mode):
    @QUICK
    @given(column(32), column(32), one_of(*range(70)))
    def check(a, b, c):
        def oracle(low, high, count):
            n = count % 32 if mode == "wrap" else min(count, 32)
            both = high << 32 | low
            return (both << n >> 32 if direction == "l" else both >> n) & 0xFFFFFFFF

        each_way(
            f"shf.{direction}.{mode}.b32 {{d}}, {{a}}, {{b}}, {{c}};", 32, [(32, a), (32, b), (32, c)], oracle
        )

    check()


@given(column(32), column(32), column(32), st.integers(0, 255))
@settings(max_examples=12, deadline=None)
def test_lop3(a, b, c, table):
    def oracle(x, y, z):
        picks = ((x >> i & 1) << 2 | (y >> i & 1) << 1 | z >> i & 1 for i in range(32))
        return sum((table >> pick & 1) << i for i, pick in enumerate(picks))

    each_way(f"lop3.b32 {{d}}, {{a}}, {{b}}, {{c}}, {table:#x};", 32, [(32, a), (32, b), (32, c)], oracle)


def leading(x: int, bits: int) -> int:
    return next((i for i in range(bits - 1, -1, -1) if x >> i & 1), -1)


@pytest.mark.parametrize("bits", [32, 64])
def test_bit_counts(bits):
    @QUICK
    @given(column(bits))
    def check(a):
        each_way(f"popc.b{bits} {{d}}, {{a}};", 32, [(bits, a)], lambda x: bin(x).count("1"))
        each_way(f"clz.b{bits} {{d}}, {{a}};", 32, [(bits, a)], lambda x: bits - 1 - leading(x, bits))
        each_way(
            f"brev.b{bits} {{d}}, {{a}};", bits, [(bits, a)],
            lambda x: sum((x >> i & 1) << (bits - 1 - i) for i in range(bits)),
        )  # fmt: skip
        each_way(f"bfind.u{bits} {{d}}, {{a}};", 32, [(bits, a)], lambda x: leading(x, bits) % 2**32)
        each_way(
            f"bfind.s{bits} {{d}}, {{a}};", 32, [(bits, a)],
            lambda x: leading(x if to_signed(x, bits) >= 0 else ~x % 2**bits, bits) % 2**32,
        )  # fmt: skip
        each_way(
            f"bfind.shiftamt.u{bits} {{d}}, {{a}};", 32, [(bits, a)],
            lambda x: bits - 1 - leading(x, bits) if x else 2**32 - 1,
        )  # fmt: skip

    check()


def field_extract(a: int, position: int, length: int, kind: str) -> int:
    """The pseudo-code of PTX ISA 9.7.1.19, bit by bit."""
    msb = int(kind[1:]) - 1
    position, length = position & 0xFF, length & 0xFF
    sign = 0
    if kind[0] == "s" and length:
        sign = a >> min(position + length - 1, msb) & 1
    result = 0
    for i in range(msb + 1):
        bit = a >> position + i & 1 if i < length and position + i <= msb else sign
        result |= bit << i
    return result


def field_insert(a: int, b: int, position: int, length: int, bits: int) -> int:
    position, length = position & 0xFF, length & 0xFF
    for i in range(length):
        if position + i < bits:
            b = b & ~(1 << position + i) | (a >> i & 1) << position + i
    return b


@pytest.mark.parametrize("bits", [32, 64])
def test_bit_fields(bits):
    amounts = one_of(0, 1, 5, 31, 32, 33, 63, 64, 255, 256)

    @QUICK
    @given(column(bits), column(bits), amounts, amounts)
    def check(a, b, position, length):
        for sign in "us":
            each_way(
                f"bfe.{sign}{bits} {{d}}, {{a}}, {{b}}, {{c}};", bits,
                [(bits, a), (32, position), (32, length)],
                lambda x, p, n, kind=f"{sign}{bits}": field_extract(x, p, n, kind),
            )  # fmt: skip
        each_way(
            f"bfi.b{bits} {{d}}, {{a}}, {{b}}, {{c}}, {{e}};", bits,
            [(bits, a), (bits, b), (32, position), (32, length)],
            lambda x, y, p, n: field_insert(x, y, p, n, bits),
        )  # fmt: skip

    check()


@QUICK
@given(column(32), column(32), column(32))
def test_byte_permute(a, b, selector):
    def oracle(x, y, s):
        pool = [*x.to_bytes(4, "little"), *y.to_bytes(4, "little")]
        picked = [(pool[s >> 4 * i & 7], s >> 4 * i & 8) for i in range(4)]
        return int.from_bytes(
            bytes((255 if byte > 127 else 0) if sign else byte for byte, sign in picked), "little"
        )

    each_way("prmt.b32 {d}, {a}, {b}, {c};", 32, [(32, a), (32, b), (32, selector)], oracle)


# Bytes of d from the lowest on, for the selector's lowest bits 0 to 3 (PTX ISA, prmt, table of modes).
PERMUTATIONS = {
    "f4e": ("0123", "1234", "2345", "3456"),
    "b4e": ("0765", "1076", "2107", "3210"),
    "rc8": ("0000", "1111", "2222", "3333"),
    "ecl": ("0123", "1123", "2223", "3333"),
    "ecr": ("0000", "0111", "0122", "0123"),
    "rc16": ("0101", "2323", "0101", "2323"),
}


@QUICK
@given(column(32), column(32), column(32), st.sampled_from(list(PERMUTATIONS)))
def test_byte_permute_modes(a, b, selector, mode):
    def oracle(x, y, s):
        pool = [*x.to_bytes(4, "little"), *y.to_bytes(4, "little")]
        return int.from_bytes(bytes(pool[int(i)] for i in PERMUTATIONS[mode][s & 3]), "little")

    each_way(f"prmt.b32.{mode} {{d}}, {{a}}, {{b}}, {{c}};", 32, [(32, a), (32, b), (32, selector)], oracle)


COMPARISONS = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
}  # fmt: skip
UNSIGNED_ALIASES = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}


@pytest.mark.parametrize("kind", [*KINDS, "b16", "b32", "b64"])
def test_comparisons(kind):
    bits = int(kind[1:])
    names = ["eq", "ne"] if kind[0] == "b" else list(COMPARISONS)
    names += list(UNSIGNED_ALIASES) if kind[0] == "u" else []

    @settings(max_examples=2, deadline=None)
    @given(column(bits), column(bits))
    def check(a, b):
        b[3], b[7] = a[3], a[7]
        for name in names:
            compare = COMPARISONS[UNSIGNED_ALIASES.get(name, name)]
            each_way(
                f"setp.{name}.{kind} {{d}}, {{a}}, {{b}};", 1, [(bits, a), (bits, b)],
                lambda x, y, compare=compare: int(compare(number(x, kind), number(y, kind))),
            )  # fmt: skip

    check()


@pytest.mark.parametrize("name", LOGIC)
@pytest.mark.parametrize("flip", ["", "!"])
def test_comparison_combined_with_a_predicate(name, flip):
    a, b, p = list(range(32)), [16] * 8 + [3] * 24, [0, 1, 1, 0] * 8

    def oracle(x, y, z):
        z = 1 - z if flip else z
        return LOGIC[name](int(x < y), z), LOGIC[name](int(x >= y), z)

    each_way(
        f"setp.lt.{name}.s32 {{d0}}|{{d1}}, {{a}}, {{b}}, {flip}{{c}};",
        [1, 1],
        [(32, a), (32, b), (1, p)],
        oracle,
    )


def test_comparison_with_its_complement():
    each_way(
        "setp.lt.s32 {d0}|{d1}, {a}, {b};", [1, 1], [(32, list(range(32))), (32, [7] * 32)],
        lambda x, y: (int(x < y), int(x >= y)),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["b16", "b32", "b64", "s32", "u32", "f32", "u64"])
def test_select(kind):
    bits = int(kind[1:])
    a, b, p = [i * 3 for i in range(32)], [1000 + i for i in range(32)], [1, 0, 0, 1, 1] * 6 + [0, 1]
    each_way(
        f"selp.{kind} {{d}}, {{a}}, {{b}}, {{c}};",
        bits,
        [(bits, a), (bits, b), (1, p)],
        lambda x, y, z: x if z else y,
    )
    each_way(
        f"selp.{kind} {{d}}, {{a}}, {{b}}, !{{c}};",
        bits,
        [(bits, a), (bits, b), (1, p)],
        lambda x, y, z: y if z else x,
    )


def test_immediates_take_the_width_of_the_type():
    """Negative and hexadecimal literals, decimal ones with the suffix U, in every operand place."""
    a = [i * 0x01010101 for i in range(32)]
    cases = {
        "add.s32 {d}, {a}, -5;": lambda x: (x - 5) % 2**32,
        "sub.s32 {d}, -5, {a};": lambda x: (-5 - x) % 2**32,
        "and.b32 {d}, {a}, -16777224;": lambda x: x & 0xFEFFFFF8,
        "mul.lo.s32 {d}, {a}, 0x10001;": lambda x: x * 0x10001 % 2**32,
        "max.s32 {d}, {a}, -1;": lambda x: max(to_signed(x, 32), -1) % 2**32,
        "shr.s32 {d}, -16, {a};": lambda x: (-16 >> min(x, 32)) % 2**32,
        "mad.lo.s32 {d}, {a}, 3, -7;": lambda x: (3 * x - 7) % 2**32,
        "add.u32 {d}, {a}, 4294967295U;": lambda x: (x - 1) % 2**32,
        "mov.b32 {d}, -1;": lambda x: 2**32 - 1,
        "mov.u32 {d}, 0f3F800000;": lambda x: 0x3F800000,
    }
    for text, oracle in cases.items():
        each_way(text, 32, [(32, a)], oracle)
    each_way("mul.wide.s32 {d}, {a}, -3;", 64, [(32, a)], lambda x: to_signed(x, 32) * -3 % 2**64)
    each_way("add.s64 {d}, {a}, -8;", 64, [(64, a)], lambda x: (x - 8) % 2**64)


@pytest.mark.parametrize("name", ["div", "rem"])
@pytest.mark.parametrize("kind", ["s32", "u64"])
def test_division_by_zero_gives_ones(name, kind):
    bits = int(kind[1:])
    found = lanes(
        f"{name}.{kind} %d, %a, %b;", {"%d": bits}, {"%a": (bits, 40), "%b": (bits, [0, 7] * 16)}
    )  # fmt: skip
    assert found["%d"] == [2**bits - 1, 40 // 7 if name == "div" else 40 % 7] * 16


@pytest.mark.parametrize("kinds", ["u32.u32", "s32.s32", "u32.s32", "s32.u32"])
@pytest.mark.parametrize("name", ["dp4a", "dp2a.lo", "dp2a.hi"])
def test_dot_products(name, kinds):
    def parts(value: int, kind: str, size: int) -> list[int]:
        return np.frombuffer(value.to_bytes(4, "little"), f"{'i' if kind[0] == 's' else 'u'}{size}").tolist()

    def oracle(a, b, c):
        kind_a, kind_b = kinds.split(".")
        x, y = parts(a, kind_a, 4 // (4 if name == "dp4a" else 2)), parts(b, kind_b, 1)
        y = y[2:] if name == "dp2a.hi" else y[: len(x)]
        return (c + sum(p * q for p, q in zip(x, y, strict=True))) % 2**32

    @settings(max_examples=5, deadline=None)
    @given(*[st.lists(st.integers(0, 2**32 - 1), min_size=32, max_size=32)] * 3)
    def check(a, b, c):
        each_way(f"{name}.{kinds} {{d}}, {{a}}, {{b}}, {{c}};", 32, [(32, a), (32, b), (32, c)], oracle)

    check()


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("subtract", [False, True])
def test_a_chain_of_carries_adds_and_subtracts_numbers_of_three_words(bits, subtract):
    names = ("sub.cc", "subc.cc", "subc") if subtract else ("add.cc", "addc.cc", "addc")
    rng = random.Random(bits)
    ones = (1 << bits) - 1
    words = [[rng.choice([0, 1, ones, rng.getrandbits(bits)]) for _ in range(32)] for _ in range(6)]
    for uniform in (False, True):
        rows = [row[0] if uniform else row for row in words]
        inputs = {f"%a{i}": (bits, row) for i, row in enumerate(rows)}
        found = lanes(
            "".join(f"{n}.u{bits} %d{i}, %a{i}, %a{i + 3};" for i, n in enumerate(names)),
            {f"%d{i}": bits for i in range(3)},
            inputs,
        )
        for lane in range(32):
            x, y = (sum(words[k + i][0 if uniform else lane] << i * bits for i in range(3)) for k in (0, 3))
            got = sum(found[f"%d{i}"][lane] << i * bits for i in range(3))
            assert got == (x - y if subtract else x + y) % (1 << 3 * bits)


@pytest.mark.parametrize("bits", [32, 64])
def test_multiply_add_with_carry_gives_a_full_product(bits):
    """(a1 a0) * b + (c2 c1 c0), as compilers chain it."""
    rng = random.Random(bits + 1)
    ones = (1 << bits) - 1
    words = [[rng.choice([0, 1, ones, rng.getrandbits(bits)]) for _ in range(32)] for _ in range(6)]
    inputs = dict(zip(("%a0", "%a1", "%b", "%c0", "%c1", "%c2"), ((bits, row) for row in words), strict=True))
    found = lanes(
        f"mad.lo.cc.u{bits} %d0, %a0, %b, %c0; madc.hi.cc.u{bits} %d1, %a0, %b, %c1;"
        f"addc.u{bits} %d2, %c2, 0;"
        f"mad.lo.cc.u{bits} %d1, %a1, %b, %d1; madc.hi.u{bits} %d2, %a1, %b, %d2;",
        {f"%d{i}": bits for i in range(3)},
        inputs,
    )
    for lane in range(32):
        a0, a1, b, c0, c1, c2 = (row[lane] for row in words)
        want = ((a1 << bits | a0) * b + (c2 << 2 * bits | c1 << bits | c0)) % (1 << 3 * bits)
        assert sum(found[f"%d{i}"][lane] << i * bits for i in range(3)) == want


def test_the_carry_of_a_lane_survives_another_branch():
    mask = 0x0F0FF0F0
    values = [0xFFFFFFFF if i % 3 else 5 for i in range(32)]
    found = lanes(
        "setp.ne.u32 %p, %m, 0; add.cc.u32 %x, %a, 1; @!%p bra SKIP; add.cc.u32 %y, 0, 0; SKIP:"
        "addc.u32 %d, 0, 0;",
        {"%d": 32},
        {"%a": (32, values), "%m": (32, [mask >> i & 1 for i in range(32)])},
        declare=".reg .pred %p; .reg .b32 %x, %y;",
    )["%d"]
    assert found == [0 if mask >> i & 1 else int(values[i] == 0xFFFFFFFF) for i in range(32)]
