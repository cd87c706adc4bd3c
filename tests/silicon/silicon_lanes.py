# ruff: noqa: E501  (one PTX statement after the other reads best on its line)
"""Cases of instructions that work lane by lane or across the lanes of a warp."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from silicon_case import LANES, REDUCTIONS, ROUNDS, Case, random_of

SPECIAL_INTEGERS = (0, 1, 2, 3, 31, 32, 33, 63, 64, 127, 128, 255, 256)
SPECIAL_FLOATS = (
    0x00000000, 0x80000000, 0x3F800000, 0xBF800000, 0x40490FDB, 0x00000001, 0x807FFFFF, 0x00800000, 0x7F7FFFFF,
    0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC12345, 0x7F800001, 0x4B000000, 0x4B800001, 0xCF000000, 0x4F7FFFFF,
    0x477FE000, 0x477FEFFF, 0x477FF000, 0x33800000, 0x33000000, 0x33000001, 0x387FC000, 0x43E00000, 0x43E80000,
    0x3F000000, 0x3FC00000, 0x40200000, 0xBF000000, 0xC0200000,
)  # fmt: skip
LETTERS = "abc"


def operands(name: str, kinds: list[str]) -> np.ndarray:
    """uint8 of (round, operand, lane) in 8 bytes each. Kinds: "i" or "f" and a width, or "n": 0..70."""
    random = random_of(name)
    values = random.integers(0, 2**64, (ROUNDS, len(kinds), LANES), np.uint64, endpoint=False)
    for i, kind in enumerate(kinds):
        column = values[:, i]
        if kind == "n":
            column[:] = random.integers(0, 71, column.shape)
        elif kind == "f32":
            special = random.choice(np.array(SPECIAL_FLOATS, np.uint64), column.shape)
            moderate = (
                random.standard_normal(column.shape) * 2.0 ** random.integers(-20, 40, column.shape)
            ).astype(np.float32)
            column[:] = np.where(random.random(column.shape) < 0.5, special, moderate.view(np.uint32))
        elif kind == "f64":
            special = random.choice(np.array(SPECIAL_FLOATS, np.uint32).view(np.float32), column.shape)
            with np.errstate(invalid="ignore"):
                numbers = np.where(
                    random.random(column.shape) < 0.3, special, random.standard_normal(column.shape) * 1e3
                )
            column[:] = numbers.astype(np.float64).view(np.uint64)
        elif kind[0] == "i":
            ones = np.uint64(2 ** int(kind[1:]) - 1)
            special = random.choice(np.array(SPECIAL_INTEGERS, np.uint64), column.shape)
            special = np.where(random.random(column.shape) < 0.5, special, ~special)
            column[:] = np.where(random.random(column.shape) < 0.4, special, column) & ones
    return values.view(np.uint8).reshape(-1)


def lanewise(name: str, instruction: str, result: int, kinds: list[str], widths: list[int]) -> Case:
    """`instruction` with {d} and {a}, {b}, {c}; results (`result` bits, 1: predicate) go out as 8 bytes."""
    registers = [f".reg .{'pred' if result == 1 else f'b{result}'} %d;"]
    loads = []
    for i, width in enumerate(widths):
        registers.append(f".reg .b{width} %{LETTERS[i]};")
        loads.append(f"ld.global.b{width} %{LETTERS[i]}, [%in+{i * LANES * 8}];")
    widen = {1: "selp.b64 %w, 1, 0, %d;", 64: "mov.b64 %w, %d;"}.get(result, f"cvt.u64.u{result} %w, %d;")
    fields = {"d": "%d", **{letter: f"%{letter}" for letter in LETTERS}}
    body = "\n".join(
        [
            ".reg .b64 %in, %out, %l, %w; .reg .b32 %lane, %round; .reg .pred %more;",
            *registers,
            "ld.param.u64 %in, [p0]; ld.param.u64 %out, [p1]; mov.u32 %lane, %tid.x; mul.wide.u32 %l, %lane, 8;",
            "add.s64 %in, %in, %l; add.s64 %out, %out, %l; mov.b32 %round, 0;",
            "AGAIN:",
            *loads,
            instruction.format(**fields),
            widen,
            "st.global.b64 [%out], %w;",
            f"add.s64 %in, %in, {len(widths) * LANES * 8}; add.s64 %out, %out, {LANES * 8};",
            f"add.s32 %round, %round, 1; setp.lt.s32 %more, %round, {ROUNDS}; @%more bra AGAIN;",
            "ret;",
        ]
    )
    return Case(name, body, operands(name, kinds), ROUNDS * LANES * 8)


def integer_cases() -> Iterator[Case]:
    def case(
        family: str,
        mnemonic: str,
        result: int,
        widths: list[int],
        kinds: list[str] | None = None,
        tail: str = "",
    ) -> Case:
        sources = ", ".join(f"{{{letter}}}" for letter in LETTERS[: len(widths)])
        kinds = kinds or [f"i{width}" for width in widths]
        return lanewise(
            f"{family}/{mnemonic}{tail}", f"{mnemonic} {{d}}, {sources}{tail};", result, kinds, widths
        )

    for bits in (16, 32, 64):
        for sign in "us":
            kind = f"{sign}{bits}"
            for operation in ("add", "sub", "mul.lo", "mul.hi", "min", "max", "div", "rem"):
                # What a division by zero gives is not defined by the ISA but is what it is on the GPU.
                yield case("integer", f"{operation}.{kind}", bits, [bits] * 2)
            yield case("integer", f"mad.lo.{kind}", bits, [bits] * 3)
            if bits < 64:
                yield case("integer", f"mul.wide.{kind}", 2 * bits, [bits] * 2)
                yield case("integer", f"mad.wide.{kind}", 2 * bits, [bits, bits, 2 * bits])
            yield case("logic", f"shr.{kind}", bits, [bits, 32], [f"i{bits}", "n"])
        yield case("integer", f"neg.s{bits}", bits, [bits])
        yield case("integer", f"abs.s{bits}", bits, [bits])
        for operation in ("and", "or", "xor"):
            yield case("logic", f"{operation}.b{bits}", bits, [bits] * 2)
        yield case("logic", f"not.b{bits}", bits, [bits])
        yield case("logic", f"cnot.b{bits}", bits, [bits])
        yield case("logic", f"shl.b{bits}", bits, [bits, 32], [f"i{bits}", "n"])
    for bits in (32, 64):
        for operation in ("popc", "clz"):
            yield case("logic", f"{operation}.b{bits}", 32, [bits])
        yield case("logic", f"brev.b{bits}", bits, [bits])
        for sign in "us":
            yield case("logic", f"bfind.{sign}{bits}", 32, [bits])
            yield case("logic", f"bfind.shiftamt.{sign}{bits}", 32, [bits])
            yield case("logic", f"bfe.{sign}{bits}", bits, [bits, 32, 32], [f"i{bits}", "n", "n"])
    for direction in "lr":
        for mode in ("clamp", "wrap"):
            yield case("logic", f"shf.{direction}.{mode}.b32", 32, [32] * 3, ["i32", "i32", "n"])
    for mode in ("",):
        yield case("logic", f"prmt.b32{mode}", 32, [32] * 3)
    tables = random_of("lop3").permutation(256)[:22]
    for table in (0xEA, 0x96, *map(int, tables)):
        yield case("logic", "lop3.b32", 32, [32] * 3, tail=f", {table:#x}")
    for compare in ("eq", "ne", "lt", "le", "gt", "ge"):
        for kind in ("s16", "u16", "s32", "u32", "s64", "u64"):
            bits = int(kind[1:])
            yield case("compare", f"setp.{compare}.{kind}", 1, [bits] * 2)
    for bits in (16, 32, 64):
        instruction = f"{{{{ .reg .pred p; setp.lt.s32 p, {{c}}, 0; selp.b{bits} {{d}}, {{a}}, {{b}}, p; }}}}"
        yield lanewise(
            f"compare/selp.b{bits}", instruction, bits, [f"i{bits}"] * 2 + ["i32"], [bits, bits, 32]
        )


def float_cases() -> Iterator[Case]:
    for ftz in ("", ".ftz"):
        for operation in ("add", "sub", "mul"):
            yield lanewise(
                f"float/{operation}.rn{ftz}.f32",
                f"{operation}.rn{ftz}.f32 {{d}}, {{a}}, {{b}};",
                32,
                ["f32"] * 2,
                [32] * 2,
            )
        for operation in ("min", "max"):
            yield lanewise(
                f"float/{operation}{ftz}.f32",
                f"{operation}{ftz}.f32 {{d}}, {{a}}, {{b}};",
                32,
                ["f32"] * 2,
                [32] * 2,
            )
        yield lanewise(
            f"float/fma.rn{ftz}.f32",
            f"fma.rn{ftz}.f32 {{d}}, {{a}}, {{b}}, {{c}};",
            32,
            ["f32"] * 3,
            [32] * 3,
        )
    for operation in ("add", "sub", "mul"):
        yield lanewise(
            f"float/{operation}.rn.f64", f"{operation}.rn.f64 {{d}}, {{a}}, {{b}};", 64, ["f64"] * 2, [64] * 2
        )
    for operation in ("add", "sub", "mul"):
        yield lanewise(
            f"float/{operation}.rn.f16x2",
            f"{operation}.rn.f16x2 {{d}}, {{a}}, {{b}};",
            32,
            ["i32"] * 2,
            [32] * 2,
        )
    yield lanewise("float/fma.rn.f16x2", "fma.rn.f16x2 {d}, {a}, {b}, {c};", 32, ["i32"] * 3, [32] * 3)
    for operation in ("neg", "abs"):
        yield lanewise(f"float/{operation}.f32", f"{operation}.f32 {{d}}, {{a}};", 32, ["f32"], [32])
    for operation in ("sqrt.rn", "rcp.rn", "div.rn"):
        sources, count = ("{a}, {b}", 2) if operation[0] == "d" else ("{a}", 1)
        yield lanewise(
            f"float/{operation}.f32", f"{operation}.f32 {{d}}, {sources};", 32, ["f32"] * count, [32] * count
        )
    for compare in (
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "equ",
        "neu",
        "ltu",
        "leu",
        "gtu",
        "geu",
        "num",
        "nan",
    ):
        yield lanewise(
            f"compare/setp.{compare}.f32",
            f"setp.{compare}.f32 {{d}}, {{a}}, {{b}};",
            1,
            ["f32"] * 2,
            [32] * 2,
        )


def convert_cases() -> Iterator[Case]:
    def case(mnemonic: str, result: int, widths: list[int], kinds: list[str]) -> Case:
        sources = ", ".join(f"{{{letter}}}" for letter in LETTERS[: len(widths)])
        return lanewise(f"convert/{mnemonic}", f"{mnemonic} {{d}}, {sources};", result, kinds, widths)

    for to in ("s16", "u16", "s32", "u32", "s64", "u64"):
        for source in ("s16", "u16", "s32", "u32", "s64", "u64"):
            if to != source:
                bits, width = int(to[1:]), int(source[1:])
                yield case(f"cvt.{to}.{source}", bits, [width], [f"i{width}"])
        for mode in ("rni", "rzi", "rmi", "rpi"):
            yield case(f"cvt.{mode}.{to}.f32", int(to[1:]), [32], ["f32"])
        yield case(f"cvt.rzi.{to}.f64", int(to[1:]), [64], ["f64"])
        for target in ("f32", "f64"):
            yield case(f"cvt.rn.{target}.{to}", int(target[1:]), [int(to[1:])], [f"i{to[1:]}"])
    yield case("cvt.rn.f16.f32", 16, [32], ["f32"])
    yield case("cvt.rn.bf16.f32", 16, [32], ["f32"])
    yield case("cvt.f32.f16", 32, [16], ["i16"])
    yield case("cvt.f32.bf16", 32, [16], ["i16"])
    yield case("cvt.f64.f32", 64, [32], ["f32"])
    yield case("cvt.rn.f32.f64", 32, [64], ["f64"])
    yield case("cvt.sat.f32.f32", 32, [32], ["f32"])
    for mode in ("rni", "rzi", "rmi", "rpi"):
        yield case(f"cvt.{mode}.f32.f32", 32, [32], ["f32"])
    for to in ("f16x2", "bf16x2"):
        yield case(f"cvt.rn.{to}.f32", 32, [32, 32], ["f32"] * 2)
        yield case(f"cvt.rn.relu.{to}.f32", 32, [32, 32], ["f32"] * 2)
    for to in ("e4m3x2", "e5m2x2"):
        yield case(f"cvt.rn.satfinite.{to}.f32", 16, [32, 32], ["f32"] * 2)
        yield case(f"cvt.rn.satfinite.relu.{to}.f32", 16, [32, 32], ["f32"] * 2)
        yield case(f"cvt.rn.f16x2.{to}", 32, [16], ["i16"])


def warp_cases() -> Iterator[Case]:
    def case(
        name: str,
        instruction: str,
        result: int = 32,
        kinds: list[str] | None = None,
        widths: list[int] | None = None,
    ) -> Case:
        return lanewise(f"warp/{name}", instruction, result, kinds or ["i32"], widths or [32])

    for mode in ("up", "down", "bfly", "idx"):
        for clamp in (0x0, 0x1F, 0x181F, 0x1C1F, 0x0F, 0x1003):
            instruction = f"shfl.sync.{mode}.b32 {{d}}, {{a}}, {{b}}, {clamp}, -1;"
            yield case(f"shfl.{mode}.{clamp:#x}", instruction, 32, ["i32", "n"], [32, 32])
        instruction = f"{{{{ .reg .b32 t; shfl.sync.{mode}.b32 t|{{d}}, {{a}}, {{b}}, 0x181F, -1; }}}}"
        yield case(f"shfl.{mode}.in_range", instruction, 1, ["i32", "n"], [32, 32])
    for mode in ("any", "all", "uni"):
        instruction = f"{{{{ .reg .pred p; setp.lt.s32 p, {{a}}, 0; vote.sync.{mode}.pred {{d}}, p, -1; }}}}"
        yield case(f"vote.{mode}", instruction, 1)
    yield case("vote.ballot", "{{ .reg .pred p; setp.lt.s32 p, {a}, 0; vote.sync.ballot.b32 {d}, p, -1; }}")
    for operation in ("add", "min", "max"):
        for kind in ("u32", "s32"):
            yield case(f"redux.{operation}.{kind}", f"redux.sync.{operation}.{kind} {{d}}, {{a}}, -1;")
    for operation in ("and", "or", "xor"):
        yield case(f"redux.{operation}.b32", f"redux.sync.{operation}.b32 {{d}}, {{a}}, -1;")
    yield case("match.any.b32", "match.any.sync.b32 {d}, {a}, -1;", 32, ["n"])
    yield case("match.all.b32", "match.all.sync.b32 {d}, {a}, -1;", 32, ["n"])
    yield case("match.any.b64", "match.any.sync.b64 {d}, {a}, -1;", 32, ["n"], [64])
    some = "{{ .reg .pred p; setp.lt.s32 p, {a}, 0; mov.b32 {d}, 7; @!p bra SKIP; %s SKIP: }}"
    yield case("activemask", some % "activemask.b32 {d};")
    yield case("elect", "{{ .reg .pred p; .reg .b32 t; elect.sync t|p, -1; selp.b32 {d}, t, 99, p; }}")


def memory_cases() -> Iterator[Case]:
    smem = ".extern .shared .align 16 .b8 smem[];"
    start = (
        ".reg .b64 %in, %out, %l, %g, %r; .reg .b32 %lane, %s, %x<8>, %base; .reg .b16 %h<8>;"
        "ld.param.u64 %in, [p0]; ld.param.u64 %out, [p1]; mov.u32 %lane, %tid.x; mov.u32 %base, smem;"
        "mul.wide.u32 %l, %lane, 16; add.s64 %in, %in, %l; add.s64 %out, %out, %l;"
        "mul.lo.s32 %s, %lane, 16; add.s32 %s, %s, %base;"
    )

    def case(name: str, body: str) -> Case:
        data = random_of(f"memory/{name}").integers(0, 256, 4096).astype(np.uint8)
        return Case(
            f"memory/{name}", start + "\n" + body + "\nret;", data, 1024, shared_bytes=4096, shared=smem
        )

    for kind in ("u8", "s8", "u16", "s16", "b32"):
        for offset in (0, 2, 4):
            if offset % (4 if kind == "b32" else 1) == 0:
                yield case(
                    f"ld.{kind}+{offset}", f"ld.global.{kind} %x0, [%in+{offset}]; st.global.b32 [%out], %x0;"
                )
    yield case(
        "ld.v4",
        "ld.global.v4.b32 {%x0, %x1, %x2, %x3}, [%in]; st.global.v4.b32 [%out], {%x3, %x2, %x1, %x0};",
    )
    yield case("ld.v2.b64", "ld.global.v2.b64 {%g, %r}, [%in]; st.global.v2.b64 [%out], {%r, %g};")
    yield case(
        "ld.v4.u8",
        "ld.global.v4.u8 {%h0, %h1, %h2, %h3}, [%in]; st.global.v4.u16 [%out], {%h0, %h1, %h2, %h3};",
    )
    yield case("st.u8", "ld.global.b32 %x0, [%in]; st.global.u8 [%out], %x0; st.global.u16 [%out+2], %x0;")
    yield case(
        "shared",
        "ld.global.v4.b32 {%x0, %x1, %x2, %x3}, [%in]; st.shared.v4.b32 [%s], {%x0, %x1, %x2, %x3}; bar.sync 0;"
        " xor.b32 %s, %lane, 5; mul.lo.s32 %s, %s, 16; add.s32 %s, %s, %base; ld.shared.v2.b32 {%x4, %x5}, [%s+8]; st.global.v2.b32 [%out], {%x4, %x5};",
    )
    for space, place in (("global", "%out"), ("shared", "%s")):
        fill = (
            "ld.global.v4.b32 {%x0, %x1, %x2, %x3}, [%in];"
            f" st.{space}.v4.b32 [{place}], {{%x0, %x1, %x2, %x3}};"
        )
        back = (
            ""
            if space == "global"
            else "ld.shared.v4.b32 {%x4, %x5, %x6, %x7}, [%s]; st.global.v4.b32 [%out], {%x4, %x5, %x6, %x7};"
        )
        take = " st.global.b32 [%o2], %x4;"
        aside = ".reg .b64 %o2; add.s64 %o2, %out, 512;"
        for operation in (*REDUCTIONS, "exch.b32"):
            yield case(
                f"atom.{space}.{operation}",
                f"{aside} {fill} atom.{space}.{operation} %x4, [{place}], %x1; {take} {back}",
            )
        yield case(
            f"atom.{space}.cas.b32",
            f"{aside} {fill} atom.{space}.cas.b32 %x4, [{place}], %x0, %x2; {take} atom.{space}.cas.b32 %x5, [{place}+4], %x0, %x2; {back}",
        )
        yield case(
            f"atom.{space}.sum",
            f"{aside} {fill} bar.sync 0; {'add.s64 %g, %out, 0; sub.s64 %g, %g, %l;' if space == 'global' else ''} red.{space}.add.u32 [{'%g' if space == 'global' else '%base'}], %x2; bar.sync 0; {back}",
        )
    for count in (1, 2, 4):
        registers = ", ".join(f"%x{i}" for i in range(count))
        for trans in ("", ".trans"):
            fill = "ld.global.v4.b32 {%x0, %x1, %x2, %x3}, [%in]; st.shared.v4.b32 [%s], {%x0, %x1, %x2, %x3}; bar.sync 0;"
            yield case(
                f"ldmatrix.x{count}{trans}",
                f"{fill} ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{registers}}}, [%s]; st.global.b32 [%out], %x0; st.global.b32 [%out+8], %x{count - 1};",
            )
            yield case(
                f"stmatrix.x{count}{trans}",
                f"{fill} stmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 [%s], {{{registers}}}; bar.sync 0; ld.shared.v4.b32 {{%x4, %x5, %x6, %x7}}, [%s]; st.global.v4.b32 [%out], {{%x4, %x5, %x6, %x7}};",
            )


def cases() -> list[Case]:
    return [*integer_cases(), *float_cases(), *convert_cases(), *warp_cases(), *memory_cases()]
