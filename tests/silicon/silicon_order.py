# ruff: noqa: E501  (one PTX statement after the other reads best on its line)
"""Cases of memory accesses with an order, a scope or a hint, atomics beyond 32-bit integers, generic addresses."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from silicon_case import LANES, Case, random_of

START = """
.reg .b64 %in, %out, %l, %g, %r, %q; .reg .b32 %lane, %s, %base, %x<8>; .reg .b16 %h<4>; .reg .pred %p, %first;
ld.param.u64 %in, [p0]; ld.param.u64 %out, [p1]; mov.u32 %lane, %tid.x; mov.u32 %base, smem;
mul.wide.u32 %l, %lane, 16; add.s64 %in, %in, %l; add.s64 %out, %out, %l; setp.eq.s32 %first, %lane, 0;
shl.b32 %s, %lane, 4; add.s32 %s, %s, %base;
"""
ROW = 16 * LANES  # bytes: one access of a warp
FLOATS = (
    0.0,
    -0.0,
    1.0,
    -1.5,
    1e-42,
    -1e-42,
    3e-39,
    1.2e-38,
    3.4e38,
    -3.4e38,
    np.inf,
    -np.inf,
    np.nan,
    65504.0,
    1e-7,
)


def case(name: str, body: str, *, about: str = "", floats: bool = False) -> Case:
    data = random_of(f"order/{name}").integers(0, 256, 4096).astype(np.uint8)
    if floats:
        random = random_of(f"order/floats/{name}")
        numbers = random.standard_normal(1024) * 2.0 ** random.integers(-30, 30, 1024)
        special = random.choice(np.array(FLOATS), 1024)
        data = np.where(random.random(1024) < 0.5, numbers, special).astype(np.float32).view(np.uint8)
    smem = ".extern .shared .align 16 .b8 smem[];"
    return Case(
        f"order/{name}", START + body + "\nret;", data, 3 * ROW, shared_bytes=4096, shared=smem, about=about
    )


LOAD = "ld.global.v4.b32 {%x0, %x1, %x2, %x3}, [%in];"


def ordered_cases() -> Iterator[Case]:
    for scope in ("cta", "cluster", "gpu", "sys"):
        for order in ("relaxed", "acquire"):
            yield case(
                f"ld.{order}.{scope}",
                f"ld.{order}.{scope}.global.b32 %x0, [%in+4]; st.global.b32 [%out], %x0;",
            )
        for order in ("relaxed", "release"):
            yield case(f"st.{order}.{scope}", f"{LOAD} st.{order}.{scope}.global.b32 [%out+8], %x1;")
        for order in ("relaxed", "acquire", "release", "acq_rel"):
            body = f"{LOAD} st.global.b32 [%out], %x0; atom.{order}.{scope}.global.add.u32 %x4, [%out], %x1; st.global.b32 [%out+4], %x4;"
            yield case(f"atom.{order}.{scope}", body)
        for order in ("relaxed", "release"):
            body = f"{LOAD} st.global.v4.b32 [%out], {{%x0, %x1, %x2, %x3}}; ld.global.b64 %q, [%in+8]; red.{order}.{scope}.global.add.u64 [%out], %q;"
            yield case(f"red.{order}.{scope}.u64", body)
        for fence in ("acq_rel", "sc"):
            body = f"{LOAD} st.global.b32 [%out], %x0; fence.{fence}.{scope}; bar.warp.sync -1; xor.b32 %x4, %lane, 1; shl.b32 %x4, %x4, 4; cvt.u64.u32 %g, %x4; sub.s64 %q, %out, %l; add.s64 %g, %g, %q; ld.global.b32 %x5, [%g]; st.global.b32 [%out+4], %x5;"
            yield case(f"fence.{fence}.{scope}", body, about="a lane reads what its neighbour wrote before")
    yield case(
        "ld.volatile",
        "ld.volatile.global.v2.b32 {%x0, %x1}, [%in]; st.volatile.global.v2.b32 [%out], {%x1, %x0};",
    )
    for hint in (
        "nc",
        "L1::no_allocate",
        "ca",
        "cg",
        "cs",
        "nc.L1::no_allocate",
        "L1::evict_last",
        "lu",
        "cv",
    ):
        yield case(
            f"ld.{hint}",
            f"ld.global.{hint}.v4.b32 {{%x0, %x1, %x2, %x3}}, [%in]; st.global.v4.b32 [%out], {{%x3, %x1, %x2, %x0}};",
        )
    for hint in ("wb", "cg", "cs", "wt"):
        yield case(f"st.{hint}", f"{LOAD} st.global.{hint}.v2.b32 [%out+8], {{%x3, %x1}};")
    policy = "createpolicy.fractional.L2::evict_first.b64 %q, 1.0;"
    yield case(
        "ld.L2::cache_hint",
        f"{policy} ld.global.L2::cache_hint.v4.b32 {{%x0, %x1, %x2, %x3}}, [%in], %q; st.global.v4.b32 [%out], {{%x3, %x1, %x2, %x0}};",
    )
    yield case("membar", f"{LOAD} st.global.b32 [%out], %x0; membar.gl; membar.cta; membar.sys;")


def generic_cases() -> Iterator[Case]:
    shared = (
        "st.shared.v4.b32 [%s], {%x0, %x1, %x2, %x3}; bar.sync 0; cvt.u64.u32 %g, %s; cvta.shared.u64 %g, %g;"
    )
    yield case(
        "generic-ld-shared",
        f"{LOAD} {shared} ld.v2.b32 {{%x4, %x5}}, [%g+8]; st.global.v2.b32 [%out], {{%x4, %x5}};",
    )
    yield case(
        "generic-st-shared",
        f"{LOAD} {shared} st.b32 [%g+4], %x3; ld.shared.v2.b32 {{%x4, %x5}}, [%s]; st.global.v2.b32 [%out], {{%x4, %x5}};",
    )
    yield case(
        "generic-global",
        f"{LOAD} cvta.global.u64 %g, %out; st.v4.b32 [%g], {{%x3, %x2, %x1, %x0}}; cvta.to.global.u64 %r, %g; ld.global.b32 %x5, [%r]; st.global.b32 [%out+8], %x5;",
    )
    yield case(
        "generic-atom-shared",
        f"{LOAD} {shared} atom.add.u32 %x4, [%g], %x1; ld.shared.b32 %x5, [%s]; st.global.v2.b32 [%out], {{%x4, %x5}};",
    )
    tests = "".join(
        f" isspacep.{space} %p, {place}; selp.b32 %x4, {1 << i}, 0, %p; or.b32 %x5, %x5, %x4;"
        for i, (space, place) in enumerate(
            (s, p)
            for s in ("global", "shared", "shared::cta", "shared::cluster", "local")
            for p in ("%g", "%out")
        )
    )
    yield case("isspacep", f"{LOAD} {shared} mov.b32 %x5, 0; {tests} st.global.b32 [%out], %x5;")
    yield case(
        "cvta-shared-back",
        f"{LOAD} {shared} cvta.to.shared.u64 %r, %g; cvt.u32.u64 %x4, %r; sub.u32 %x4, %x4, %s; st.global.b32 [%out], %x4;",
    )


def atomic_cases() -> Iterator[Case]:
    for space, place in (("global", "%out"), ("shared", "%s")):
        fill = f"ld.global.v2.b64 {{%g, %r}}, [%in]; ld.global.b64 %q, [%in+{ROW}]; st.{space}.v2.b64 [{place}], {{%g, %r}};"
        back = (
            ""
            if space == "global"
            else " ld.shared.v2.b64 {%g, %r}, [%s]; st.global.v2.b64 [%out], {%g, %r};"
        )
        aside = f" st.global.b64 [%out+{ROW}], %q;"
        for operation in (
            "add.u64",
            "min.s64",
            "min.u64",
            "max.s64",
            "max.u64",
            "and.b64",
            "or.b64",
            "xor.b64",
            "exch.b64",
        ):
            yield case(
                f"atom.{space}.{operation}",
                f"{fill} atom.{space}.{operation} %q, [{place}], %r;{aside}{back}",
            )
        yield case(
            f"atom.{space}.cas.b64", f"{fill} atom.{space}.cas.b64 %q, [{place}], %g, %r;{aside}{back}"
        )
        yield case(
            f"atom.{space}.cas.b64-fails", f"{fill} atom.{space}.cas.b64 %q, [{place}], %r, %q;{aside}{back}"
        )
        yield case(
            f"atom.{space}.cas.b16",
            f"ld.global.v4.b16 {{%h0, %h1, %h2, %h3}}, [%in]; st.{space}.v2.b16 [{place}], {{%h0, %h1}}; atom.{space}.cas.b16 %h3, [{place}], %h0, %h2; ld.{space}.v2.b16 {{%h0, %h1}}, [{place}]; st.global.v4.b16 [%out], {{%h0, %h1, %h2, %h3}};",
        )
        for kind, note in (("f32", "global sums flush subnormal numbers"), ("f64", "")):
            bits = kind[1:]
            value = "%x1" if bits == "32" else "%r"
            old = "%x4" if bits == "32" else "%q"
            load = LOAD if bits == "32" else "ld.global.v2.b64 {%g, %r}, [%in];"
            put = f"st.{space}.b32 [{place}], %x0;" if bits == "32" else f"st.{space}.b64 [{place}], %g;"
            get = f" ld.{space}.b{bits} {value}, [{place}]; st.global.b{bits} [%out], {value}; st.global.b{bits} [%out+{ROW}], {old};"
            yield case(
                f"atom.{space}.add.{kind}",
                f"{load} {put} atom.{space}.add.{kind} {old}, [{place}], {value};{get}",
                floats=bits == "32",
                about=note,
            )
        for kind in ("f16x2", "bf16x2"):
            yield case(
                f"atom.{space}.add.noftz.{kind}",
                f"{LOAD} st.{space}.b32 [{place}], %x0; atom.{space}.add.noftz.{kind} %x4, [{place}], %x1; ld.{space}.b32 %x5, [{place}]; st.global.b32 [%out], %x5; st.global.b32 [%out+{ROW}], %x4;",
            )
        for kind in ("f16", "bf16"):
            yield case(
                f"atom.{space}.add.noftz.{kind}",
                f"ld.global.v4.b16 {{%h0, %h1, %h2, %h3}}, [%in]; st.{space}.v2.b16 [{place}], {{%h0, %h1}}; atom.{space}.add.noftz.{kind} %h3, [{place}], %h2; ld.{space}.v2.b16 {{%h0, %h1}}, [{place}]; st.global.v4.b16 [%out], {{%h0, %h1, %h2, %h3}};",
            )
    for operation in ("add.u32", "min.s32", "max.u32", "and.b32", "or.b32", "xor.b32", "inc.u32", "dec.u32"):
        yield case(
            f"red.global.{operation}",
            f"{LOAD} st.global.b32 [%out], %x0; red.global.{operation} [%out], %x1;",
        )
    yield case(
        "red.release.gpu.global.add.u64",
        "ld.global.v2.b64 {%g, %r}, [%in]; st.global.b64 [%out], %g; red.release.gpu.global.add.u64 [%out], %r;",
        about="as the barrier of submissions/hopper.py's grid arrives",
    )
    pair, quad = "{%x0, %x1}", "{%x0, %x1, %x2, %x3}"
    for vector, kind, values in (
        ("v2", "f32", pair),
        ("v4", "f32", quad),
        ("v2", "f16x2", pair),
        ("v4", "bf16x2", quad),
    ):
        noftz = "" if kind == "f32" else ".noftz"
        more = f"ld.global.v4.b32 {quad}, [%in]; st.global.v4.b32 [%out], {quad}; ld.global.v4.b32 {quad}, [%in+{ROW}];"
        yield case(
            f"red.global.add{noftz}.{vector}.{kind}",
            f"{more} red.global.add{noftz}.{vector}.{kind} [%out], {values};",
            floats=kind == "f32",
        )
    for operation in ("min", "max"):
        more = f"ld.global.v4.b32 {quad}, [%in]; st.global.v4.b32 [%out], {quad}; ld.global.v4.b32 {quad}, [%in+{ROW}];"
        yield case(
            f"red.global.{operation}.noftz.v2.f16x2",
            f"{more} red.global.{operation}.noftz.v2.f16x2 [%out], {pair};",
        )


def cases() -> list[Case]:
    return [*ordered_cases(), *generic_cases(), *atomic_cases()]
