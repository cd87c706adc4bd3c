# ruff: noqa: E501  (one PTX statement after the other reads best on its line)
"""Cases of clusters of several CTAs: who is who, shared memory of other CTAs, barriers, copies between CTAs.

Every CTA writes its own part of the output. Shared memory of a CTA: two mbarriers, at 0 and 8, and the tile from
1024 on, which `tile()` fills with the CTA's part of the input.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from silicon_case import REDUCTIONS, Case, random_of

from b200sim.tma.tensor_map import ElementType, Swizzle, TensorMap

SMEM = ".extern .shared .align 1024 .b8 smem[];"
TILE_BYTES = 1024
START = """
.reg .b64 %in, %out, %map, %g, %h, %q; .reg .b32 %t, %s, %r, %bar, %tile, %rank, %size, %next, %far, %farbar, %x<10>; .reg .b16 %b; .reg .pred %first, %p, %more, %zero;
ld.param.u64 %in, [p0]; ld.param.u64 %out, [p1]; ld.param.u64 %map, [p2]; mov.u32 %t, %tid.x; mov.u32 %bar, smem;
add.s32 %tile, %bar, 1024; setp.eq.s32 %first, %t, 0; mov.u32 %rank, %cluster_ctarank; mov.u32 %size, %cluster_nctarank; setp.eq.s32 %zero, %rank, 0;
add.s32 %next, %rank, 1; rem.u32 %next, %next, %size; mapa.shared::cluster.u32 %far, %tile, %next; mapa.shared::cluster.u32 %farbar, %bar, %next;
"""
MEET = " barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;\n"
INIT = (
    "@%first mbarrier.init.shared::cta.b64 [%bar], {}; @%first mbarrier.init.shared::cta.b64 [%bar+8], 1; fence.mbarrier_init.release.cluster; fence.proxy.async;"
    + MEET
)
WAIT = "WAIT: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p, [%bar], 0; @!%p bra WAIT;\n"
EXPECT = "@%first mbarrier.arrive.expect_tx.shared::cta.b64 _, [%bar], {};"


def part(count: int = TILE_BYTES) -> str:
    """Input and output pointers of this CTA."""
    return f"mul.lo.u32 %x0, %rank, {count}; cvt.u64.u32 %g, %x0; add.s64 %in, %in, %g; add.s64 %out, %out, %g;\n"


def tile(count: int = TILE_BYTES) -> str:
    """All threads: input to the tile."""
    return f"""shl.b32 %x7, %t, 2;
FILL: cvt.u64.u32 %g, %x7; add.s64 %g, %in, %g; ld.global.b32 %x0, [%g]; add.s32 %s, %tile, %x7; st.shared.b32 [%s], %x0;
add.s32 %x7, %x7, 128; setp.lt.u32 %more, %x7, {count}; @%more bra FILL; fence.proxy.async; bar.sync 0;
"""


def show(count: int = TILE_BYTES) -> str:
    """All threads: the tile to the output. No CTA leaves while others may reach its shared memory."""
    return f"""bar.sync 0; shl.b32 %x7, %t, 2;
COPY: add.s32 %s, %tile, %x7; ld.shared.b32 %x0, [%s]; cvt.u64.u32 %g, %x7; add.s64 %g, %out, %g; st.global.b32 [%g], %x0;
add.s32 %x7, %x7, 128; setp.lt.u32 %more, %x7, {count}; @%more bra COPY;
{MEET}ret;
"""


def clustered(name: str, body: str, ctas: int, output_bytes: int = TILE_BYTES, **more: object) -> Case:
    """A grid of one cluster of `ctas`; `output_bytes` for each."""
    data = random_of(f"cluster/{name}").integers(0, 256, max(8192, ctas * TILE_BYTES)).astype(np.uint8)
    shape = (ctas, 1, 1)
    return Case(
        f"cluster/{name}-{ctas}", START + body, data, ctas * output_bytes, shared_bytes=6144, shared=SMEM,
        grid=shape, cluster=shape, **more,
    )  # type: ignore[arg-type]  # fmt: skip


LANE = "shl.b32 %x6, %t, 4; add.s32 %s, %tile, %x6; add.s32 %r, %far, %x6; cvt.u64.u32 %q, %x6; add.s64 %q, %out, %q;"


# ---- Who is who --------------------------------------------------------------------------------------------


def register_cases() -> Iterator[Case]:
    names = [
        f"%{name}.{axis}"
        for name in ("ctaid", "nctaid", "clusterid", "nclusterid", "cluster_ctaid", "cluster_nctaid")
        for axis in "xyz"
    ]
    names += ["%cluster_ctarank", "%cluster_nctarank"]
    shapes = [((2, 1, 1), (6, 1, 1)), ((1, 2, 1), (2, 4, 1)), ((2, 2, 1), (4, 4, 2)), ((1, 1, 2), (2, 1, 4)), ((4, 1, 1), (8, 2, 1)),
              ((2, 1, 2), (4, 2, 4)), ((8, 1, 1), (8, 1, 1)), ((1, 4, 2), (1, 8, 2)), ((3, 1, 1), (6, 2, 1)), ((2, 3, 1), (2, 6, 2))]  # fmt: skip
    for cluster, grid in shapes:
        body = "@!%first ret; mov.u32 %x0, %ctaid.z; mov.u32 %x1, %nctaid.y; mul.lo.u32 %x0, %x0, %x1; mov.u32 %x1, %ctaid.y; add.u32 %x0, %x0, %x1;"
        body += "mov.u32 %x1, %nctaid.x; mul.lo.u32 %x0, %x0, %x1; mov.u32 %x1, %ctaid.x; add.u32 %x0, %x0, %x1; mul.wide.u32 %g, %x0, 128; add.s64 %out, %out, %g;\n"
        body += "\n".join(
            f"mov.u32 %x0, {name}; st.global.b32 [%out+{4 * i}], %x0;" for i, name in enumerate(names)
        )
        name = f"cluster/registers-{'x'.join(map(str, cluster))}-of-{'x'.join(map(str, grid))}"
        output = 128 * int(np.prod(grid))
        yield Case(
            name,
            START + body + "\nret;",
            np.zeros(128, np.uint8),
            output,
            shared_bytes=2048,
            shared=SMEM,
            grid=grid,
            cluster=cluster,
        )


def address_cases() -> Iterator[Case]:
    for ctas in (2, 4, 8):
        body = (
            part(256)
            + "@!%first bra DONE; mov.u32 %x1, 0; mov.u64 %h, %out;\nNEXT: mapa.shared::cluster.u32 %x2, %tile, %x1; st.global.b32 [%h], %x2;"
        )
        body += "getctarank.shared::cluster.u32 %x3, %x2; st.global.b32 [%h+4], %x3; sub.u32 %x4, %x2, %tile; st.global.b32 [%h+8], %x4; st.global.b32 [%h+12], %tile;"
        body += (
            "add.s64 %h, %h, 16; add.u32 %x1, %x1, 1; setp.lt.u32 %p, %x1, %size; @%p bra NEXT; DONE:"
            + MEET
            + "ret;"
        )
        about = "addresses themselves: the rank of the CTA is in bits 24 and up, one's own included"
        yield clustered("addresses", body, ctas, 256, about=about)
        body = (
            part(256)
            + "@!%first bra DONE; cvt.u64.u32 %g, %tile; cvta.shared.u64 %g, %g; mapa.u64 %h, %g, %next; getctarank.u64 %x0, %h; st.global.b32 [%out], %x0; getctarank.u64 %x0, %g; st.global.b32 [%out+4], %x0;"
        )
        body += "isspacep.shared::cluster %p, %h; selp.b32 %x0, 1, 0, %p; st.global.b32 [%out+8], %x0; isspacep.shared::cta %p, %h; selp.b32 %x0, 1, 0, %p; st.global.b32 [%out+12], %x0; isspacep.shared::cta %p, %g; selp.b32 %x0, 1, 0, %p; st.global.b32 [%out+16], %x0;"
        body += "sub.s64 %q, %h, %g; st.global.b64 [%out+24], %q; cvta.to.shared.u64 %q, %h; cvt.u32.u64 %x0, %q; st.global.b32 [%out+32], %x0; mapa.u64 %q, %h, %rank; setp.eq.u64 %p, %q, %g; selp.b32 %x0, 1, 0, %p; st.global.b32 [%out+36], %x0; DONE:"
        yield clustered("generic-addresses", body + MEET + "ret;", ctas, 256)


# ---- Shared memory of another CTA --------------------------------------------------------------------------


def remote_cases() -> Iterator[Case]:
    loads = {
        "b32": "ld.shared::cluster.b32 %x0, [%r+4]; st.global.b32 [%q], %x0;",
        "u8": "ld.shared::cluster.u8 %x0, [%r+3]; st.global.b32 [%q], %x0;",
        "s16": "ld.shared::cluster.s16 %x0, [%r+6]; st.global.b32 [%q], %x0;",
        "b64": "ld.shared::cluster.b64 %g, [%r+8]; st.global.b64 [%q], %g;",
        "v2.b32": "ld.shared::cluster.v2.b32 {%x0, %x1}, [%r+8]; st.global.v2.b32 [%q], {%x1, %x0};",
        "v4.b32": "ld.shared::cluster.v4.b32 {%x0, %x1, %x2, %x3}, [%r]; st.global.v4.b32 [%q], {%x3, %x2, %x1, %x0};",
        "acquire": "ld.acquire.cluster.shared::cluster.b32 %x0, [%r]; st.global.b32 [%q], %x0;",
        "relaxed": "ld.relaxed.cluster.shared::cluster.b32 %x0, [%r]; st.global.b32 [%q], %x0;",
        "generic": "cvt.u64.u32 %g, %s; cvta.shared.u64 %g, %g; mapa.u64 %h, %g, %next; ld.v2.b32 {%x0, %x1}, [%h]; st.global.v2.b32 [%q], {%x0, %x1};",
    }
    for name, load in loads.items():
        for ctas in (2, 4) if name in ("b32", "v4.b32", "generic") else (2,):
            yield clustered(f"ld.{name}", part() + tile() + MEET + LANE + load + MEET + "ret;", ctas)
    source = "ld.global.v4.b32 {%x0, %x1, %x2, %x3}, [%h];"
    start = "cvt.u64.u32 %h, %x6; add.s64 %h, %in, %h; add.s64 %h, %h, 512;" + source
    stores = {
        "b32": "st.shared::cluster.b32 [%r+4], %x0;",
        "u8": "st.shared::cluster.u8 [%r+7], %x0;",
        "u16": "st.shared::cluster.u16 [%r+2], %x1;",
        "v2.b64": "mov.b64 %g, {%x0, %x2}; mov.b64 %h, {%x1, %x3}; st.shared::cluster.v2.b64 [%r], {%h, %g};",
        "v4.b32": "st.shared::cluster.v4.b32 [%r], {%x3, %x2, %x1, %x0};",
        "release": "st.release.cluster.shared::cluster.b32 [%r+4], %x0;",
        "generic": "cvt.u64.u32 %g, %s; cvta.shared.u64 %g, %g; mapa.u64 %h, %g, %next; st.v2.b32 [%h], {%x1, %x0};",
        "lanes-apart": "and.b32 %x4, %t, 1; mapa.shared::cluster.u32 %r, %s, %x4; mad.lo.u32 %r, %rank, 4, %r; st.shared::cluster.b32 [%r], %x0;",
    }
    for name, store in stores.items():
        for ctas in (2, 4) if name in ("b32", "v4.b32") else (2,):
            yield clustered(
                f"st.{name}", part() + tile(512) + MEET + LANE + start + store + MEET + show(512), ctas
            )
    for operation in (
        "add.u32",
        "min.s32",
        "max.u32",
        "and.b32",
        "or.b32",
        "xor.b32",
        "exch.b32",
        "inc.u32",
        "dec.u32",
    ):
        body = (
            f"{start} atom.shared::cluster.{operation} %x4, [%r], %x1; add.s64 %q, %q, 512; st.global.b32 [%q], %x4;"
            + MEET
            + show(512)
        )
        yield clustered(f"atom.{operation}", part() + tile(512) + MEET + LANE + body, 2)
    wide = (
        f"{start} mov.b64 %g, {{%x0, %x1}}; atom.shared::cluster.add.u64 %h, [%r+8], %g; add.s64 %q, %q, 512; st.global.b64 [%q], %h;"
        + MEET
        + show(512)
    )
    yield clustered("atom.add.u64", part() + tile(512) + MEET + LANE + wide, 2)
    compare = (
        f"{start} ld.shared::cluster.b32 %x5, [%r]; and.b32 %x4, %t, 1; sub.u32 %x5, %x5, %x4; atom.shared::cluster.cas.b32 %x4, [%r], %x5, %x1; add.s64 %q, %q, 512; st.global.b32 [%q], %x4;"
        + MEET
        + show(512)
    )
    yield clustered("atom.cas.b32", part() + tile(512) + MEET + LANE + compare, 2)
    everyone = "mapa.shared::cluster.u32 %r, %s, 0; {} atom.acq_rel.cluster.shared::cluster.add.u32 %x4, [%r], %x1; red.relaxed.cluster.shared::cluster.xor.b32 [%r+4], %x2;"
    for ctas in (2, 4, 8):
        yield clustered(
            "sum-at-0",
            part() + tile(512) + MEET + LANE + everyone.format(start) + MEET + show(512),
            ctas,
            about="all CTAs add to the first one's",
        )


# ---- Barriers ----------------------------------------------------------------------------------------------


def barrier_cases() -> Iterator[Case]:
    """Rounds of a ring: everyone passes a word on, and meets; in all forms of the barrier."""
    forms = {
        "plain": (
            "barrier.cluster.arrive; barrier.cluster.wait;",
            "barrier.cluster.arrive; barrier.cluster.wait;",
        ),
        "aligned": (MEET, MEET),
        "relaxed": (
            "fence.acq_rel.cluster; barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.acquire.aligned;",
        )
        * 2,
        "split": ("barrier.cluster.arrive.release; add.u32 %x5, %x5, %rank; barrier.cluster.wait.acquire;",)
        * 2,
    }
    for name, (before, after) in forms.items():
        for ctas in (2, 4, 8) if name == "aligned" else (2,):
            body = (
                part(128)
                + "shl.b32 %x6, %t, 2; add.s32 %r, %far, %x6; add.s32 %s, %tile, %x6; cvt.u64.u32 %g, %x6; add.s64 %h, %in, %g; add.s64 %out, %out, %g; ld.global.b32 %x5, [%h]; mov.b32 %x4, 0;\n"
            )
            body += f"ROUND: st.shared::cluster.b32 [%r], %x5; {before} ld.shared.b32 %x3, [%s]; mad.lo.u32 %x5, %x3, 3, %x4; {after} add.u32 %x4, %x4, 1; setp.lt.u32 %p, %x4, 5; @%p bra ROUND; st.global.b32 [%out], %x5; ret;"
            yield clustered(f"ring-{name}", body, ctas, 128)
    late = (
        part(128)
        + "setp.ge.u32 %p, %t, 32; @%p bra LEAVE;"
        + "shl.b32 %x6, %t, 2; add.s32 %r, %far, %x6; add.s32 %s, %tile, %x6; st.shared::cluster.b32 [%r], %x6;"
        + MEET
    )
    late += (
        "ld.shared.b32 %x3, [%s]; cvt.u64.u32 %g, %x6; add.s64 %out, %out, %g; st.global.b32 [%out], %x3;"
        + MEET
        + "LEAVE: ret;"
    )
    yield clustered("warp-leaves", late, 2, 128, threads=64, about="a warp that has exited counts as arrived")
    flag = (
        part(128)
        + "@%first st.shared.b32 [%bar+16], 0;"
        + MEET
        + "shl.b32 %x6, %t, 2; add.s32 %r, %far, %x6; add.s32 %s, %tile, %x6; st.shared::cluster.b32 [%r], %x6; bar.warp.sync -1; fence.acq_rel.cluster; add.s32 %x5, %farbar, 16;"
    )
    flag += (
        "@%first st.release.cluster.shared::cluster.b32 [%x5], 7;\nSPIN: ld.acquire.cluster.shared::cluster.b32 %x4, [%bar+16]; setp.ne.u32 %p, %x4, 7; @%p bra SPIN; ld.shared.b32 %x3, [%s]; cvt.u64.u32 %g, %x6; add.s64 %out, %out, %g; st.global.b32 [%out], %x3;"
        + MEET
        + "ret;"
    )
    for ctas in (2, 4):
        yield clustered("flag", flag, ctas, 128, about="a message and a flag, released and acquired")
    yield from remote_mbarrier_cases()


def remote_mbarrier_cases() -> Iterator[Case]:
    """Thread 0 of CTA 0 takes steps on the mbarrier of the last CTA; that CTA shows after each what it sees."""
    steps = {
        "arrive": "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r];",
        "arrive2": "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r], 2;",
        "plain": "mbarrier.arrive.shared::cluster.b64 _, [%r];",
        "drop": "mbarrier.arrive_drop.release.cluster.shared::cluster.b64 _, [%r];",
        "arrive_expect": "mbarrier.arrive.expect_tx.release.cluster.shared::cluster.b64 _, [%r], 64;",
        "expect": "mbarrier.expect_tx.relaxed.cluster.shared::cluster.b64 [%r], 64;",
        "complete": "mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [%r], 64;",
        "complete16": "mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [%r], 16;",
    }
    look = "".join(
        f"@%more mbarrier.test_wait.parity.acquire.cluster.shared::cta.b64 %p, [%bar], {i}; selp.b32 %x{i}, {i + 1}, 0, %p;"
        for i in (0, 1)
    )
    look += " or.b32 %x0, %x0, %x1; @%more st.global.b32 [%out], %x0; add.s64 %out, %out, 4;"
    sequences = [(1, ["arrive"] * 4), (3, ["arrive", "arrive2", "arrive2", "plain"]), (2, ["plain", "drop", "arrive", "arrive"]),
                 (1, ["arrive_expect", "complete", "arrive"]), (2, ["expect", "arrive", "arrive", "complete16", "complete16", "complete16", "complete16", "arrive2"]),
                 (2, ["complete", "arrive", "arrive_expect", "arrive_expect", "arrive", "complete"])]  # fmt: skip
    for number, (count, sequence) in enumerate(sequences):
        body = (
            "setp.eq.u32 %p, %next, 0; and.pred %more, %p, %first; sub.u32 %x9, %size, 1; mapa.shared::cluster.u32 %r, %bar, %x9; and.pred %zero, %zero, %first;"
            + INIT.format(count)
            + look
            + MEET
        )
        for step in sequence:
            body += f"\n@%zero {steps[step]}" + MEET + look + MEET
        yield clustered(f"mbarrier-{number}-{count}", body + MEET + "ret;", 2, 64)
    for ctas in (2, 4, 8):
        body = (
            part(128)
            + f"@%first mbarrier.init.shared::cta.b64 [%bar], {32 * ctas}; fence.mbarrier_init.release.cluster;"
            + MEET
        )
        body += "mov.b32 %x1, 0;\nEACH: mapa.shared::cluster.u32 %r, %bar, %x1; mapa.shared::cluster.u32 %s, %tile, %x1; mad.lo.u32 %s, %rank, 128, %s; shl.b32 %x2, %t, 2; add.u32 %s, %s, %x2; mad.lo.u32 %x3, %rank, 1000, %x2;"
        body += (
            "st.shared::cluster.b32 [%s], %x3; mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r]; add.u32 %x1, %x1, 1; setp.lt.u32 %p, %x1, %size; @%p bra EACH;\n"
            + WAIT
        )
        body += "mov.b32 %x1, 0; mov.b32 %x4, 0; add.u32 %s, %tile, %x2;\nSUM: ld.shared.b32 %x3, [%s]; mad.lo.u32 %x4, %x4, 7, %x3; add.u32 %s, %s, 128; add.u32 %x1, %x1, 1; setp.lt.u32 %p, %x1, %size; @%p bra SUM; cvt.u64.u32 %g, %x2; add.s64 %out, %out, %g; st.global.b32 [%out], %x4;"
        yield clustered(
            "all-to-all",
            body + MEET + "ret;",
            ctas,
            128,
            about="every thread stores to every CTA and arrives there",
        )


# ---- Asynchronous stores and copies ------------------------------------------------------------------------


def async_store_cases() -> Iterator[Case]:
    start = "cvt.u64.u32 %h, %x6; add.s64 %h, %in, %h; ld.global.v4.b32 {%x0, %x1, %x2, %x3}, [%h+512]; mov.b64 %g, {%x0, %x1}; mov.b64 %h, {%x2, %x3};"
    form = "mbarrier::complete_tx::bytes"
    stores = {
        "st.b32": (4, f"st.async.weak.shared::cluster.{form}.b32 [%r+4], %x0, [%farbar];"),
        "st.u64": (8, f"st.async.weak.shared::cluster.{form}.u64 [%r+8], %g, [%farbar];"),
        "st.v2.b32": (8, f"st.async.shared::cluster.{form}.v2.b32 [%r], {{%x1, %x0}}, [%farbar];"),
        "st.v4.b32": (16, f"st.async.shared::cluster.{form}.v4.b32 [%r], {{%x3, %x2, %x1, %x0}}, [%farbar];"),
        "st.v2.b64": (16, f"st.async.shared::cluster.{form}.v2.b64 [%r], {{%h, %g}}, [%farbar];"),
    }
    for operation in REDUCTIONS:
        stores[f"red.{operation}"] = (
            4,
            f"red.async.relaxed.cluster.shared::cluster.{form}.{operation} [%r+4], %x0, [%farbar];",
        )
    stores["red.add.u64"] = (
        8,
        f"red.async.relaxed.cluster.shared::cluster.{form}.add.u64 [%r+8], %g, [%farbar];",
    )
    for name, (size, store) in stores.items():
        for ctas in (2, 4) if name in ("st.v4.b32", "red.add.u32") else (2,):
            body = (
                part()
                + tile(512)
                + INIT.format(1)
                + LANE
                + start
                + EXPECT.format(32 * size)
                + store
                + WAIT
                + show(512)
            )
            yield clustered(f"async-{name}", body, ctas)


def copy_cases() -> Iterator[Case]:
    form = "mbarrier::complete_tx::bytes"
    for size, to, source in (
        (16, 0, 0),
        (48, 16, 32),
        (256, 128, 0),
        (512, 0, 512),
        (400, 48, 256),
        (1024, 0, 0),
    ):
        copy = f"add.s32 %r, %far, {1024 + to}; add.s32 %s, %tile, {source}; @%first cp.async.bulk.shared::cluster.shared::cta.{form} [%r], [%s], {size}, [%farbar];\n"
        body = part(2048) + tile(2048) + INIT.format(1) + EXPECT.format(size)
        for ctas in (2, 4):
            yield clustered(f"bulk-{size}-{source}-{to}", body + copy + WAIT + show(2048), ctas, 2048)
    for ctas, masks in ((2, (1, 2, 3)), (4, (15, 5, 10, 9)), (8, (255, 0x96))):
        for mask in masks:
            for issuer in sorted({0, ctas - 1}):
                yield clustered(
                    f"bulk-multicast-{mask:#x}-by-{issuer}",
                    multicast(
                        f"cp.async.bulk.shared::cluster.global.{form}.multicast::cluster [%s], [%in+256], 512, [%bar], %b;",
                        mask,
                        issuer,
                        512,
                    ),
                    ctas,
                )
    far = f"@%first cp.async.bulk.shared::cluster.global.{form} [%far], [%in+64], 256, [%farbar];"
    yield clustered(
        "bulk-to-other",
        part() + tile() + INIT.format(1) + EXPECT.format(256) + far + "\n" + WAIT + show(),
        2,
        about="a copy from global memory into another CTA",
    )
    yield from tile_cases()


def multicast(copy: str, mask: int, issuer: int, size: int) -> str:
    """One CTA copies to those of the mask; these wait."""
    body = (
        part()
        + tile()
        + INIT.format(1)
        + f"mov.b16 %b, {mask}; mov.u32 %s, %tile; shr.u32 %x5, {mask}, %rank; and.b32 %x5, %x5, 1; setp.eq.u32 %more, %x5, 0;"
    )
    body += f"@%more bra PAST; {EXPECT.format(size)} PAST: {MEET} setp.eq.u32 %p, %rank, {issuer}; and.pred %p, %p, %first; @%p {copy}\n @%more bra DONE;\n{WAIT}DONE:"
    return body + show()


def tile_cases() -> Iterator[Case]:
    """TMA: multicast of a box, slices that CTAs load for each other, a box into another CTA."""
    form = "shared::cluster.global.tile.mbarrier::complete_tx::bytes"
    for swizzle in (Swizzle.NONE, Swizzle.B64, Swizzle.B128):
        row = 64 if swizzle is not Swizzle.B128 else 128
        box = TensorMap(0, ElementType.U8, (row, 40), (row,), (row, 8 if row == 64 else 4), swizzle=swizzle)
        for ctas, masks in ((2, (2, 3)), (4, (15, 6))):
            for mask in masks:
                copy = (
                    f"cp.async.bulk.tensor.2d.{form}.multicast::cluster [%s], [%map, {{0, 3}}], [%bar], %b;"
                )
                yield clustered(
                    f"tile-multicast-{swizzle.name.lower()}-{mask:#x}",
                    multicast(copy, mask, 0, 512),
                    ctas,
                    map=box,
                )
    box = TensorMap(0, ElementType.F16, (64, 40), (128,), (64, 2), swizzle=Swizzle.B128)
    for ctas in (2, 4):
        whole = 256 * ctas
        body = part() + tile() + INIT.format(1) + EXPECT.format(whole) + MEET
        body += f"mov.b16 %b, {2**ctas - 1}; mad.lo.u32 %s, %rank, 256, %tile; shl.b32 %x1, %rank, 1; add.u32 %x1, %x1, 5; mov.b32 %x0, 0; @%first cp.async.bulk.tensor.2d.{form}.multicast::cluster [%s], [%map, {{%x0, %x1}}], [%bar], %b;\n"
        yield clustered(
            "tile-slices",
            body + WAIT + show(),
            ctas,
            map=box,
            about="each CTA loads a slice for all, as submissions/hopper.py shares tokens",
        )
        hint = body.replace("multicast::cluster [%s]", "multicast::cluster.L2::cache_hint [%s]").replace(
            "[%bar], %b;", "[%bar], %b, %q;"
        )
        policy = "createpolicy.fractional.L2::evict_last.b64 %q, 1.0;"
        yield clustered("tile-slices-hint", policy + hint + WAIT + show(), ctas, map=box)
    copy = f"@%first cp.async.bulk.tensor.2d.{form} [%far], [%map, {{0, 7}}], [%farbar];\n"
    yield clustered(
        "tile-to-other",
        part() + tile() + INIT.format(1) + EXPECT.format(256) + copy + WAIT + show(),
        2,
        map=box,
        about="a box into another CTA",
    )
    edge = TensorMap(0, ElementType.F16, (60, 9), (128,), (64, 4), swizzle=Swizzle.B128)
    copy = f"cp.async.bulk.tensor.2d.{form}.multicast::cluster [%s], [%map, {{8, 7}}], [%bar], %b;"
    yield clustered(
        "tile-multicast-edge",
        multicast(copy, 3, 1, 512),
        2,
        map=edge,
        about="elements out of bounds are zeros everywhere",
    )


def cases() -> list[Case]:
    return [
        *register_cases(),
        *address_cases(),
        *remote_cases(),
        *barrier_cases(),
        *async_store_cases(),
        *copy_cases(),
    ]
