# ruff: noqa: E501  (one PTX statement after the other reads best on its line)
"""Further cases that work lane by lane: byte permutation, carries, dot products, packing, roundings."""

from __future__ import annotations

from collections.abc import Iterator

from silicon_case import Case
from silicon_lanes import LETTERS, lanewise


def plain(family: str, mnemonic: str, result: int, kinds: list[str], tail: str = "") -> Case:
    """One instruction; sources of the kinds named, each as wide as its kind says ("n" 32 bits)."""
    sources = ", ".join(f"{{{letter}}}" for letter in LETTERS[: len(kinds)])
    text = f"{mnemonic} {{d}}, {sources}{tail};"
    return lanewise(f"{family}/{mnemonic}{tail}", text, result, kinds, widths_of(kinds))


def block(name: str, text: str, result: int, kinds: list[str]) -> Case:
    """Several instructions with registers of their own."""
    return lanewise(name, "{{ " + text + " }}", result, kinds, widths_of(kinds))


def widths_of(kinds: list[str]) -> list[int]:
    return [32 if kind == "n" else int(kind[1:]) for kind in kinds]


def permutation_cases() -> Iterator[Case]:
    for mode in ("f4e", "b4e", "rc8", "ecl", "ecr", "rc16"):
        yield plain("permute", f"prmt.b32.{mode}", 32, ["i32"] * 3)
        yield block(
            f"permute/prmt.b32.{mode}-low-bits",
            f".reg .b32 t; mov.u32 t, %laneid; prmt.b32.{mode} {{d}}, {{a}}, {{b}}, t;",
            32,
            ["i32"] * 2,
        )
    for selector in (0x3210, 0x7654, 0x5410, 0x7632, 0xBA98, 0xFEDC, 0x8888, 0xF0F0, 0x4321, 0x0008, 0x9A31):
        yield plain("permute", "prmt.b32", 32, ["i32"] * 2, f", {selector:#x}")
    for bits in (0x8080, 0xFFFF0000, 0x0808, 0x8888):
        text = f".reg .b32 t; or.b32 t, {{c}}, {bits:#x}; prmt.b32 {{d}}, {{a}}, {{b}}, t;"
        yield block(f"permute/prmt.b32-or-{bits:#x}", text, 32, ["i32"] * 3)


def carry_cases() -> Iterator[Case]:
    """Two instructions that share the carry flag; the result is both of theirs."""
    for kind in ("u32", "s32"):
        for first, second in (
            ("add.cc", "addc"),
            ("sub.cc", "subc"),
            ("add.cc", "addc.cc"),
            ("sub.cc", "subc.cc"),
        ):
            text = (
                f".reg .b32 x, y, z; {first}.{kind} x, {{a}}, {{b}}; {second}.{kind} y, {{b}}, {{c}};"
                f" {'addc' if 'add' in first else 'subc'}.{kind} z, y, 0; xor.b32 y, y, z; mov.b64 {{d}}, {{{{x, y}}}};"
            )
            yield block(f"carry/{first}-{second}.{kind}", text, 64, ["i32"] * 3)
        for half in ("lo", "hi"):
            text = (
                f".reg .b32 x, y; mad.{half}.cc.{kind} x, {{a}}, {{b}}, {{c}}; madc.{half}.{kind} y, {{b}}, {{c}}, {{a}};"
                " mov.b64 {d}, {{x, y}};"
            )
            yield block(f"carry/mad.{half}.cc.{kind}", text, 64, ["i32"] * 3)
    text = ".reg .b64 x, y; add.cc.u64 x, {a}, {b}; addc.u64 y, {b}, {a}; xor.b64 {d}, x, y;"
    yield block("carry/add.cc.u64", text, 64, ["i64"] * 2)


def integer_cases() -> Iterator[Case]:
    for a in ("u32", "s32"):
        for b in ("u32", "s32"):
            yield plain("dot", f"dp4a.{a}.{b}", 32, ["i32"] * 3)
            for half in ("lo", "hi"):
                yield plain("dot", f"dp2a.{half}.{a}.{b}", 32, ["i32"] * 3)
    for kind in ("u32", "s32"):
        yield plain("integer", f"mad.hi.{kind}", 32, ["i32"] * 3)
    for bits in (32, 64):
        text = f"bfi.b{bits} {{d}}, {{a}}, {{a}}, {{b}}, {{c}};"
        yield lanewise(f"logic/bfi.b{bits}", text, bits, [f"i{bits}", "n", "n"], [bits, 32, 32])
    for operation in ("and", "or", "xor"):
        text = (
            ".reg .pred p, q; setp.lt.s32 p, {a}, 0; setp.gt.s32 q, {b}, 0;"
            f" {operation}.pred p, p, q; not.pred q, p; selp.b32 {{d}}, {{a}}, {{b}}, q;"
        )
        yield block(f"predicate/{operation}.pred", text, 32, ["i32"] * 2)
        text = f".reg .pred p, q; setp.lt.s32 p, {{a}}, 0; setp.lt.{operation}.u32 p|q, {{a}}, {{b}}, p; selp.b32 {{d}}, 1, 2, q;"
        yield block(f"predicate/setp.lt.{operation}.u32", text, 32, ["i32"] * 2)
    for kind in ("u8", "s8", "u16", "s16"):
        if kind[1:] == "16":
            yield plain("pack", f"cvt.pack.sat.{kind}.s32", 32, ["i32"] * 2)
        else:
            yield plain("pack", f"cvt.pack.sat.{kind}.s32.b32", 32, ["i32"] * 3)
    for to, source in (
        ("u8", "s32"),
        ("s8", "s32"),
        ("u16", "s32"),
        ("s16", "u32"),
        ("u32", "s32"),
        ("s32", "u32"),
        ("s32", "s64"),
        ("u32", "s64"),
    ):
        bits = 16 if to[1:] == "8" else int(to[1:])  # no register has 8 bits
        yield plain("convert", f"cvt.sat.{to}.{source}", bits, [f"i{source[1:]}"])
    for to in ("u8", "s8"):
        yield plain("convert", f"cvt.{to}.s32", 32, ["i32"])
        yield plain("convert", f"cvt.s32.{to}", 32, ["i16"])
    text = ".reg .b32 x, y; mov.b64 {{x, y}}, {a}; mov.b64 {d}, {{y, x}};"
    yield block("pack/mov.b64-halves-exchanged", text, 64, ["i64"])


def float_cases() -> Iterator[Case]:
    for mode in ("rz", "rm", "rp"):
        for ftz in ("", ".ftz"):
            yield plain("float", f"add.{mode}{ftz}.f32", 32, ["f32"] * 2)
            yield plain("float", f"mul.{mode}{ftz}.f32", 32, ["f32"] * 2)
        yield plain("float", f"sub.{mode}.f32", 32, ["f32"] * 2)
        yield plain("float", f"fma.{mode}.f32", 32, ["f32"] * 3)
        yield plain("float", f"add.{mode}.f64", 64, ["f64"] * 2)
        yield plain("float", f"fma.{mode}.f64", 64, ["f64"] * 3)
    yield plain("float", "fma.rn.f64", 64, ["f64"] * 3)
    for operation in ("add", "mul"):
        yield plain("float", f"{operation}.rn.sat.f32", 32, ["f32"] * 2)
    yield plain("float", "fma.rn.sat.f32", 32, ["f32"] * 3)
    for kind, width in (("f16", 16), ("bf16", 16), ("bf16x2", 32)):
        for operation in ("add", "sub", "mul"):
            yield plain("float", f"{operation}.rn.{kind}", width, [f"i{width}"] * 2)
        yield plain("float", f"fma.rn.{kind}", width, [f"i{width}"] * 3)
        yield plain("float", f"fma.rn.relu.{kind}", width, [f"i{width}"] * 3)
    yield plain("float", "fma.rn.relu.f16x2", 32, ["i32"] * 3)
    yield plain("float", "fma.rn.sat.f16x2", 32, ["i32"] * 3)
    for operation in ("min", "max"):
        for word in ("", ".NaN", ".xorsign.abs", ".NaN.xorsign.abs"):
            for kind, width in (("f16x2", 32), ("bf16x2", 32), ("f32", 32)):
                if (word, kind) != ("", "f32"):
                    source = "f32" if kind == "f32" else f"i{width}"
                    yield plain("float", f"{operation}{word}.{kind}", width, [source] * 2)
        yield plain("float", f"{operation}.f64", 64, ["f64"] * 2)
    for operation in ("neg", "abs"):
        for kind in ("f16x2", "bf16x2"):
            yield plain("float", f"{operation}.{kind}", 32, ["i32"])
        yield plain("float", f"{operation}.f64", 64, ["f64"])
        yield plain("float", f"{operation}.ftz.f32", 32, ["f32"])
    for mode in ("rz", "rm", "rp"):
        yield plain("convert", f"cvt.{mode}.f32.s64", 32, ["i64"])
        yield plain("convert", f"cvt.{mode}.f32.f64", 32, ["f64"])
    yield plain("convert", "cvt.rn.f16.f64", 16, ["f64"])
    for mode in ("rna", "rn", "rz"):
        yield plain("convert", f"cvt.{mode}.tf32.f32", 32, ["f32"])
    for to in ("f16", "bf16"):
        yield plain("convert", f"cvt.rz.{to}.f32", 16, ["f32"])
        yield plain("convert", f"cvt.rn.relu.{to}.f32", 16, ["f32"])
        yield plain("convert", f"cvt.rz.{to}x2.f32", 32, ["f32"] * 2)
        yield plain("convert", f"cvt.rni.s32.{to}", 32, ["i16"])
    for to in ("e4m3x2", "e5m2x2"):
        yield plain("convert", f"cvt.rn.satfinite.{to}.f16x2", 16, ["i32"])
        yield plain("convert", f"cvt.rn.relu.f16x2.{to}", 32, ["i16"])
    yield plain("convert", "cvt.rn.ftz.f16.f32", 16, ["f32"])
    yield plain("convert", "cvt.ftz.f32.f16", 32, ["i16"])
    yield plain("convert", "cvt.rn.ftz.f32.f64", 32, ["f64"])
    for compare in ("lt", "geu", "neu"):
        yield plain("compare", f"setp.{compare}.f16", 1, ["i16"] * 2)
        yield plain("compare", f"setp.{compare}.f64", 1, ["f64"] * 2)
        yield plain("compare", f"setp.{compare}.ftz.f32", 1, ["f32"] * 2)


def cases() -> list[Case]:
    return [*permutation_cases(), *carry_cases(), *integer_cases(), *float_cases()]
