"""Cases of wgmma.mma_async (PTX ISA 9.7.15): numerics, and where it takes its operands from.

Every round of a kernel copies an image to shared memory, loads D (and A, if from registers), multiplies and
writes D's registers out, thread by thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from silicon_case import Bytes, Case, random_of
from silicon_numbers import FORMATS, KINDS, ROWS, Codes, Kind, pseudo_random_low_bits

THREADS = 128
K_BYTES = 32
K_OF = {"f16": 16, "bf16": 16, "tf32": 8, "e4m3": 32, "e5m2": 32}
IMAGE_BYTES = 40960  # of shared memory in the cases of layouts
SWIZZLE_CODES = {0: 0, 128: 1, 64: 2, 32: 3}
SMEM = ".extern .shared .align 1024 .b8 smem[];"
FENCE, COMMIT = "wgmma.fence.sync.aligned;", "wgmma.commit_group.sync.aligned;"


@dataclass(frozen=True)
class Types:
    """D, A, B and N of an instruction."""

    d: str
    a: str
    b: str
    n: int = 8

    @property
    def k(self) -> int:
        return K_OF[self.a]

    @property
    def registers(self) -> int:
        """Of D, in a thread."""
        return self.n // 2 if self.d == "f32" else self.n // 4

    @property
    def name(self) -> str:
        return f"{self.d}.{self.a}.{self.b}"

    def multiply(self, a: str, b: str, tail: str) -> str:
        d = registers("d", self.registers)
        return f"wgmma.mma_async.sync.aligned.m64n{self.n}k{self.k}.{self.name} {d}, {a}, {b}, {tail};"


def registers(prefix: str, count: int) -> str:
    return "{" + ", ".join(f"%{prefix}{i}" for i in range(count)) + "}"


@dataclass(frozen=True)
class Place:
    """A matrix descriptor; all in bytes. `start` counts from the image's beginning."""

    start: int
    leading: int = 128
    stride: int = 256
    swizzle: int = 0
    base_offset: int = 0

    def load(self, register: str) -> str:
        constant = self.leading >> 4 << 16 | self.stride >> 4 << 32
        constant |= self.base_offset << 49 | SWIZZLE_CODES[self.swizzle] << 62
        return (
            f"add.s32 %s, %base, {self.start}; shr.u32 %s, %s, 4; cvt.u64.u32 {register}, %s;"
            f" or.b64 {register}, {register}, {constant:#x};"
        )


def kernel(types: Types, multiplies: str, image_bytes: int, a_in_registers: bool, rounds: int) -> str:
    """PTX: `multiplies` between the loads and the stores of every round."""
    fragments = "add.s64 %g, %in, %l; ld.global.v4.b32 {%f0, %f1, %f2, %f3}, [%g];" if a_in_registers else ""
    count = types.registers
    d_bytes = 4 * count
    loads = "".join(f" ld.global.b32 %d{i}, [%g+{4 * i}];" for i in range(count))
    stores = "".join(f" st.global.b32 [%g+{4 * i}], %d{i};" for i in range(count))
    return f"""
.reg .b64 %in, %out, %g, %l, %da, %db; .reg .b32 %t, %i, %s, %base, %round, %x<4>, %f<4>, %d<{count}>;
.reg .pred %more, %yes, %no;
ld.param.u64 %in, [p0]; ld.param.u64 %out, [p1]; mov.u32 %t, %tid.x; mov.u32 %base, smem; mov.b32 %round, 0;
setp.eq.u32 %yes, %base, %base; setp.ne.u32 %no, %base, %base;
AGAIN: mov.u32 %i, %t;
COPY: mul.wide.u32 %g, %i, 16; add.s64 %g, %in, %g; ld.global.v4.b32 {{%x0, %x1, %x2, %x3}}, [%g];
shl.b32 %s, %i, 4; add.s32 %s, %s, %base; st.shared.v4.b32 [%s], {{%x0, %x1, %x2, %x3}};
add.s32 %i, %i, {THREADS}; setp.lt.u32 %more, %i, {image_bytes // 16}; @%more bra COPY;
fence.proxy.async; bar.sync 0;
add.s64 %in, %in, {image_bytes}; mul.wide.u32 %l, %t, 16; {fragments}
add.s64 %in, %in, {16 * THREADS * a_in_registers}; mul.wide.u32 %l, %t, {d_bytes}; add.s64 %g, %in, %l;
{loads}
add.s64 %in, %in, {d_bytes * THREADS};
{multiplies}
add.s64 %g, %out, %l;
{stores}
bar.sync 0; add.s64 %out, %out, {d_bytes * THREADS}; add.s32 %round, %round, 1;
setp.lt.u32 %more, %round, {rounds}; @%more bra AGAIN;
ret;"""


def multiplication(
    name: str,
    types: Types,
    rounds: list[list[Bytes]],
    multiplies: str,
    *,
    image_bytes: int,
    a_in_registers: bool,
    about: str = "",
) -> Case:
    """`rounds`: of each what it reads, in order: image, A's registers if any, D's registers."""
    data = np.concatenate([part.view(np.uint8).reshape(-1) for parts in rounds for part in parts])
    body = kernel(types, multiplies, image_bytes, a_in_registers, len(rounds))
    output = 4 * types.registers * THREADS * len(rounds)
    return Case(name, body, data, output, threads=THREADS, shared_bytes=image_bytes, shared=SMEM, about=about)


# ---- Register fragments and images ------------------------------------------------------------------------


def a_fragment(codes: Codes) -> Bytes:
    """Thread by thread, four registers of A (64, K): PTX ISA 9.7.15.5.1.1."""
    rows = np.ascontiguousarray(codes).view(np.uint32).reshape(ROWS, 8)
    thread, register = np.arange(THREADS)[:, None], np.arange(4)[None, :]
    row = thread // 32 * 16 + thread % 32 // 4 + 8 * (register % 2)
    return np.ascontiguousarray(rows[row, thread % 4 + 4 * (register // 2)])


def d_fragment(codes: Codes) -> Bytes:
    """Thread by thread, the elements of D (64, N) in the order of their registers."""
    thread, i = np.arange(THREADS)[:, None], np.arange(codes.shape[1] // 2)[None, :]
    row = thread // 32 * 16 + thread % 32 // 4 + 8 * (i // 2 % 2)
    return np.ascontiguousarray(codes[row, 8 * (i // 4) + 2 * (thread % 4) + i % 2])


def core_matrices(codes: Codes) -> Bytes:
    """K-major, unswizzled: eight rows of 16 bytes, two such per eight rows (LBO 128, SBO 256)."""
    rows = np.ascontiguousarray(codes).view(np.uint8).reshape(-1, 8, 2, 16)
    return np.ascontiguousarray(rows.transpose(0, 2, 1, 3)).reshape(-1)


# ---- Numerics ----------------------------------------------------------------------------------------------

ALL_TYPES = [
    Types("f32", "f16", "f16"), Types("f32", "bf16", "bf16"), Types("f32", "tf32", "tf32"),
    Types("f16", "f16", "f16"), Types("f32", "e4m3", "e4m3"), Types("f32", "e5m2", "e5m2"),
    Types("f16", "e4m3", "e4m3"), Types("f16", "e5m2", "e5m2"), Types("f32", "e4m3", "e5m2"),
    Types("f32", "e5m2", "e4m3"),
    Types("f16", "e4m3", "e5m2"), Types("f16", "e5m2", "e4m3"),
]  # fmt: skip
WHOLLY_TRIED = 7  # the first ones, with all kinds of operands


def numeric(
    name: str,
    types: Types,
    kind: Kind,
    *,
    a_in_registers: bool,
    rounds: int = 2,
    chain: int = 1,
    tail: str = "1, 1, 1",
) -> Case:
    """`chain` instructions add to the same D, in one group."""
    random = random_of(name)
    a, b, d = (FORMATS[name] for name in (types.a, types.b, types.d))
    step = K_BYTES * (ROWS + types.n)
    parts: list[list[Bytes]] = []
    for _ in range(rounds):
        drawn = [kind(random, a, b, d, types.k, types.n) for _ in range(chain)]
        image = np.concatenate([core_matrices(codes) for left, right, _ in drawn for codes in (left, right)])
        fragment = [a_fragment(drawn[0][0])] if a_in_registers else []
        parts.append([image, *fragment, d_fragment(drawn[0][2])])
    transposes = "" if types.k != 16 else ", 0" if a_in_registers else ", 0, 0"
    multiplies = FENCE
    for i in range(chain):
        multiplies += Place(i * step).load("%da") + Place(i * step + K_BYTES * ROWS).load("%db")
        multiplies += types.multiply(registers("f", 4) if a_in_registers else "%da", "%db", tail + transposes)
    multiplies += COMMIT + "wgmma.wait_group.sync.aligned 0;"
    about = (kind.__doc__ or "").split("\n")[0]
    return multiplication(
        name, types, parts, multiplies, image_bytes=step * chain, a_in_registers=a_in_registers, about=about
    )


def numeric_cases(seed: str = "", scale: int = 1) -> Iterator[Case]:
    """With another `seed`, the same kinds of operands with other numbers; `scale` times as many of them."""
    for number, types in enumerate(ALL_TYPES):
        chosen = KINDS if number < WHOLLY_TRIED else ("spread", "specials", "ladder")
        for index, kind in enumerate(chosen):
            name = f"wgmma/{types.name}-{kind}{seed}"
            rounds = scale * (4 if kind in ("ladder", "spread", "zeros") else 2)
            yield numeric(name, types, KINDS[kind], a_in_registers=bool((index + number) % 2), rounds=rounds)
        for kind in ("similar", "spread"):
            name = f"wgmma/{types.name}-chain-{kind}{seed}"
            yield numeric(name, types, KINDS[kind], a_in_registers=kind == "similar", rounds=scale, chain=4)
    low_bits, tf32 = pseudo_random_low_bits, Types("f32", "tf32", "tf32")
    for a_in_registers in (False, True):
        name = f"wgmma/{tf32.name}-low-bits-{'rs' if a_in_registers else 'ss'}{seed}"
        yield numeric(name, tf32, low_bits, a_in_registers=a_in_registers, rounds=2 * scale)
    for types in ALL_TYPES[:WHOLLY_TRIED]:
        for tail in ("1, -1, 1", "1, 1, -1", "1, -1, -1"):
            name = f"wgmma/{types.name}-negate-{tail[3:].replace(', ', '-')}{seed}"
            yield numeric(
                name, types, KINDS["specials"], a_in_registers=tail == "1, 1, -1", rounds=scale, tail=tail
            )
        for scale_d in ("0", "%no", "%yes"):
            name = f"wgmma/{types.name}-scale-d-{scale_d.strip('%')}{seed}"
            yield numeric(
                name,
                types,
                KINDS["specials"],
                a_in_registers=scale_d == "%no",
                rounds=scale,
                tail=f"{scale_d}, 1, 1",
            )


# ---- Where operands lie ------------------------------------------------------------------------------------


def integers(name: str, format_: str) -> Bytes:
    """An image full of small integers, so that every sum is exact and only the place matters."""
    what = FORMATS[format_]
    values = random_of(name).integers(-3, 4, IMAGE_BYTES * 8 // what.storage)
    magnitude = np.abs(values)
    exponent, fraction = np.where(magnitude > 1, 1, 0), np.where(magnitude == 3, 0.5, 0.0)
    codes = what.codes(values < 0, exponent, fraction)
    return np.where(values == 0, what.dtype.type(0), codes)


def placed(
    name: str,
    types: Types,
    a: Place | None,
    b: Place,
    *,
    majors: tuple[int, int] = (0, 0),
    about: str = "",
) -> Case:
    """One multiplication without D before it; `a` None: A from registers. Majors: 1 for MN-major."""
    image = integers(name, types.a)
    fragment = [] if a else [a_fragment(image[: ROWS * types.k].reshape(ROWS, types.k))]
    zero = np.zeros(THREADS * types.registers, np.uint32)
    transposes = "" if types.k != 16 else f", {majors[0]}, {majors[1]}" if a else f", {majors[1]}"
    multiplies = (a.load("%da") if a else "") + b.load("%db") + FENCE
    multiplies += types.multiply("%da" if a else registers("f", 4), "%db", f"0, 1, 1{transposes}")
    multiplies += COMMIT + "wgmma.wait_group.sync.aligned 0;"
    return multiplication(
        name,
        types,
        [[image, *fragment, zero]],
        multiplies,
        image_bytes=IMAGE_BYTES,
        a_in_registers=a is None,
        about=about,
    )


def layout_cases() -> Iterator[Case]:
    yield from size_cases()
    yield from swizzle_cases()
    yield from start_cases()
    f16 = Types("f32", "f16", "f16", 16)
    offsets = [(16, 32), (128, 128), (2048, 128), (1024, 256), (272, 784), (0, 256), (128, 0)]
    for leading, stride in offsets:
        place = Place(4096, leading, stride)
        for name, majors in (("k", (0, 0)), ("mn", (1, 1))):
            yield placed(f"wgmma/offsets-{name}-{leading}-{stride}", f16, place, place, majors=majors)


def size_cases() -> Iterator[Case]:
    """Every N up to 64, then some; sums in fp32 and fp16, A from either side."""
    place = Place(2048, 128, 256)
    for n in (*range(8, 65, 8), 72, 96, 120, 128, 136, 192, 248, 256):
        from_registers = n % 16 == 0
        types = Types("f16" if n % 24 == 0 else "f32", "f16", "f16", n)
        yield placed(f"wgmma/n{n}", types, None if from_registers else Place(0), place)
    for types in ALL_TYPES[1:WHOLLY_TRIED]:
        for n in (24, 104):
            wide = Types(types.d, types.a, types.b, n)
            yield placed(f"wgmma/n{n}-{types.name}", wide, Place(0) if n == 24 else None, place)


def swizzle_cases() -> Iterator[Case]:
    for swizzle in (0, 32, 64, 128):
        for a_major, b_major in ((0, 0), (0, 1), (1, 0), (1, 1)):
            for kind, n in (("f16", 64), ("bf16", 72)):
                # K-major: eight rows of the pattern, then the next. MN-major: LBO between pattern rows.
                a, b = (
                    Place(start, 8 * (swizzle or 16), 16 * (swizzle or 16), swizzle) for start in (0, 8192)
                )
                name = f"wgmma/swizzle{swizzle}-{'km'[a_major]}{'km'[b_major]}-{kind}"
                yield placed(name, Types("f32", kind, kind, n), a, b, majors=(a_major, b_major))
        for n in (8, 16, 40, 64, 128):
            b = Place(1024, 16 * (swizzle or 16), 8 * (swizzle or 16), swizzle)
            yield placed(
                f"wgmma/swizzle{swizzle}-rm-n{n}", Types("f32", "f16", "f16", n), None, b, majors=(0, 1)
            )
        for kind in ("tf32", "e4m3", "e5m2"):
            a, b = (Place(start, 16, 8 * (swizzle or 16), swizzle) for start in (0, 16384))
            yield placed(f"wgmma/swizzle{swizzle}-kk-{kind}", Types("f32", kind, kind, 32), a, b)


def start_cases() -> Iterator[Case]:
    """Starts inside a row of the swizzle pattern, as kernels step along K; patterns that begin anywhere."""
    types = Types("f32", "f16", "f16", 16)
    for swizzle in (64, 128):
        for step in range(32, swizzle, 32):
            place = Place(1024 + step, 16, 8 * swizzle, swizzle)
            yield placed(f"wgmma/step{step}-swizzle{swizzle}", types, place, place)
        for step in range(16, swizzle, 32):
            place = Place(1024 + step, 16, 8 * swizzle, swizzle)
            about = "a start that no stepping along K gives: the second chunk may be the next pattern row's"
            yield placed(f"wgmma/odd-step{step}-swizzle{swizzle}", types, place, place, about=about)
    for swizzle in (32, 64, 128):
        for row in (1, 2, 3, 5, 7):
            for base in sorted({0, row}):
                place = Place(1024 + 128 * row, 1024, 8 * swizzle, swizzle, base)
                about = "the pattern begins off its natural boundary" + (
                    ", and the base offset says so" if base else ""
                )
                for name, majors in (("k", (0, 0)), ("mn", (1, 1))):
                    if majors[0] and row not in (1, 5):
                        continue
                    yield placed(
                        f"wgmma/base{base}-row{row}-swizzle{swizzle}-{name}",
                        types,
                        place,
                        place,
                        majors=majors,
                        about=about,
                    )
    for leading in (0, 1024, 4096):
        place = Place(2048, leading, 1024, 128)
        about = "swizzled and K-major: the leading offset is not looked at"
        yield placed(f"wgmma/leading{leading}-swizzle128", types, place, place, about=about)
    a, b = Place(0, 16, 1024, 128), Place(8192, 16, 1024, 128)
    yield placed("wgmma/apart", types, a, b, about="A and B side by side, as kernels have them")


# ---- Order -------------------------------------------------------------------------------------------------


def order_cases() -> Iterator[Case]:
    """Several groups under way, D that goes from one to the next, and two accumulators."""
    types = Types("f32", "f16", "f16", 8)
    random = random_of("wgmma/order")
    f16, f32 = FORMATS["f16"], FORMATS["f32"]
    a, b, d = KINDS["similar"](random, f16, f16, f32, types.k, types.n)
    image = np.concatenate([core_matrices(a), core_matrices(b)])
    parts = [[image, a_fragment(a), d_fragment(d)]]
    load = Place(0).load("%da") + Place(2048).load("%db")
    shared, fragment = (types.multiply(what, "%db", tail) for what, tail in
                        (("%da", "1, 1, 1, 0, 0"), (registers("f", 4), "1, -1, 1, 0")))  # fmt: skip
    wait = "wgmma.wait_group.sync.aligned {};".format
    bodies = {
        "two-groups": FENCE + shared + COMMIT + shared + COMMIT + wait(1) + wait(0),
        "sources-mixed": FENCE + shared + fragment + shared + COMMIT + wait(0),
        "fence-between": FENCE + shared + COMMIT + wait(0) + FENCE + fragment + COMMIT + wait(0),
        "empty-group": COMMIT + FENCE + shared + COMMIT + COMMIT + wait(2) + wait(0),
        "changed-between": FENCE + shared + COMMIT + wait(0) + "add.f32 %d1, %d1, %d0;"
                           + FENCE + shared + COMMIT + wait(0),
    }  # fmt: skip
    for name, body in bodies.items():
        yield multiplication(
            f"wgmma/order-{name}", types, parts, load + body, image_bytes=len(image), a_in_registers=True
        )


def cases() -> list[Case]:
    return [*numeric_cases(), *layout_cases(), *order_cases()]
