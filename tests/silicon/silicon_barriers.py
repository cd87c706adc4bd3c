# ruff: noqa: E501  (one PTX statement after the other reads best on its line)
"""Further cases of mbarriers; named barriers between warps; cp.async with its groups; special registers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from silicon_async import asynchronous, copy_out, fill_shared, noise
from silicon_case import LANES, Case

SHOW = " st.global.b32 [%out], %x0; add.s64 %out, %out, 4;"  # thread 0 shows one number after the other
LOOK = (
    " mbarrier.test_wait.parity.shared::cta.b64 %p, [%bar], 0; selp.b32 %x0, 1, 0, %p;"
    " mbarrier.test_wait.parity.shared::cta.b64 %p, [%bar], 1; selp.b32 %x1, 2, 0, %p; or.b32 %x0, %x0, %x1;"
    + SHOW
)
COUNT = " mbarrier.pending_count.b64 %x0, %g;" + SHOW
STEPS = {
    "arrive": "mbarrier.arrive.shared::cta.b64 %g, [%bar];",
    "arrive2": "mbarrier.arrive.shared::cta.b64 %g, [%bar], 2;",
    "arrive5": "mov.b32 %x2, 5; mbarrier.arrive.shared::cta.b64 %g, [%bar], %x2;",
    "release": "mbarrier.arrive.release.cta.shared::cta.b64 %g, [%bar];",
    "no_complete": "mbarrier.arrive.noComplete.shared::cta.b64 %g, [%bar], 1;",
    "no_complete2": "mbarrier.arrive.noComplete.release.cta.shared::cta.b64 %g, [%bar], 2;",
    "drop": "mbarrier.arrive_drop.shared::cta.b64 %g, [%bar];",
    "drop2": "mbarrier.arrive_drop.shared::cta.b64 %g, [%bar], 2;",
    "drop_no_complete": "mbarrier.arrive_drop.noComplete.shared::cta.b64 %g, [%bar], 1;",
    "drop_expect": "mbarrier.arrive_drop.expect_tx.shared::cta.b64 %g, [%bar], 32;",
    "arrive_expect": "mbarrier.arrive.expect_tx.shared::cta.b64 %g, [%bar], 32;",
    "expect": "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%bar], 32;",
    "complete": "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%bar], 32;",
    "complete8": "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%bar], 8;",
    "again1": "mbarrier.inval.shared::cta.b64 [%bar]; mbarrier.init.shared::cta.b64 [%bar], 1;",
    "again3": "mbarrier.inval.shared::cta.b64 [%bar]; mbarrier.init.shared::cta.b64 [%bar], 3;",
}
GIVES_STATE = ("arrive", "release", "no_complete", "drop")
SEQUENCES = [
    (4, ["arrive", "arrive", "arrive", "arrive", "arrive"]),
    (7, ["arrive2", "arrive5", "arrive2", "arrive", "drop2"]),
    (5, ["no_complete", "no_complete2", "arrive", "release", "no_complete", "no_complete2", "arrive2"]),
    (3, ["drop_no_complete", "arrive2", "arrive", "arrive", "arrive"]),
    (6, ["drop2", "drop", "arrive2", "arrive", "arrive2", "arrive", "arrive"]),
    (2, ["drop_expect", "arrive", "complete", "arrive", "arrive"]),
    (2, ["arrive_expect", "arrive_expect", "complete", "complete", "arrive", "arrive"]),
    (1, ["arrive", "arrive", "arrive", "again3", "arrive", "arrive", "arrive", "arrive"]),
    (3, ["arrive", "again1", "arrive", "arrive", "again3", "arrive"]),
    (1, ["complete8", "complete8", "complete8", "complete8", "expect", "arrive", "arrive"]),
    (2, ["arrive_expect", "complete8", "complete8", "arrive", "complete8", "complete8", "arrive"]),
    (1048575, ["arrive5", "arrive", "drop2", "no_complete2"]),
    (300000, ["arrive"] * 3 + ["drop"] * 3),
]  # fmt: skip


def mbarrier_cases() -> Iterator[Case]:
    """After each step: whether phases of parity 0 and 1 count as complete, and the step's pending count."""
    for number, (count, sequence) in enumerate(SEQUENCES):
        body = f"@!%first ret; mbarrier.init.shared::cta.b64 [%bar], {count};{LOOK}\n"
        for step in sequence:
            body += STEPS[step] + LOOK + (COUNT if step.startswith(GIVES_STATE) else "") + "\n"
        yield asynchronous(f"mbarrier/pending-{number}-{count}", body + "ret;", noise("mbarrier", 128), 256)
    yield from waiting_cases()


def waiting_cases() -> Iterator[Case]:
    """States of earlier phases; all lanes at once; waits with a time limit; barriers side by side."""
    ask = " mbarrier.{0}.shared::cta.b64 %p, [%bar], %r{1}; selp.b32 %x0, 1, 0, %p;" + SHOW
    for wait in ("test_wait", "try_wait", "test_wait.acquire.cta", "try_wait.acquire.cta"):
        body = "@!%first ret; .reg .b64 %r<4>; mbarrier.init.shared::cta.b64 [%bar], 2;"
        body += " mbarrier.arrive.shared::cta.b64 %r0, [%bar];" + ask.format("test_wait", 0)
        body += " mbarrier.arrive.shared::cta.b64 %r1, [%bar];" + ask.format(wait, 0) + ask.format(wait, 1)
        body += (
            " mbarrier.arrive.shared::cta.b64 %r2, [%bar];" + ask.format("test_wait", 2) + ask.format(wait, 1)
        )
        body += " mbarrier.arrive.shared::cta.b64 %r3, [%bar];" + ask.format(wait, 2) + ask.format(wait, 3)
        yield asynchronous(f"mbarrier/states-{wait}", body + "ret;", noise("mbarrier", 128), 64)
    each = "shl.b32 %x6, %t, 2; cvt.u64.u32 %g, %x6; add.s64 %out, %out, %g;"
    init = "@%first mbarrier.init.shared::cta.b64 [%bar], {}; bar.sync 0;"
    look = " mbarrier.test_wait.parity.shared::cta.b64 %p, [%bar], {}; selp.b32 %x0, 1, 0, %p; st.global.b32 [%out+{}], %x0;"
    for count in (32, 33, 64):
        body = (
            init.format(count)
            + each
            + " mbarrier.arrive.shared::cta.b64 _, [%bar]; bar.sync 0;"
            + look.format(0, 0)
        )
        body += (
            " bar.sync 0; mbarrier.arrive.shared::cta.b64 _, [%bar]; bar.sync 0;"
            + look.format(0, 128)
            + look.format(1, 256)
        )
        # 33: the second arrival of 32 lanes meets one pending arrival.
        fault, about = ("mbarrier_overflow", "lanes arrive at once") if count == 33 else ("", "")
        yield asynchronous(
            f"mbarrier/lanes-{count}", body + "ret;", noise("mbarrier", 128), 384, fault=fault, about=about
        )
    body = (
        init.format(32)
        + each
        + " mbarrier.arrive.shared::cta.b64 %g, [%bar]; mbarrier.pending_count.b64 %x0, %g;"
    )
    body += " .reg .b32 %m, %n; redux.sync.add.u32 %m, %x0, -1; redux.sync.or.b32 %n, %x0, -1; st.global.b32 [%out], %m; st.global.b32 [%out+128], %n;"
    about = "lanes arrive at once: each sees 32 pending (for the state of a plain arrive PTX promises none)"
    yield asynchronous("mbarrier/lanes-pending", body + "ret;", noise("mbarrier", 128), 256, about=about)
    for wait in ("try_wait.parity", "try_wait.parity.acquire.cta"):
        limit = "@!%first ret; mbarrier.init.shared::cta.b64 [%bar], 1; mov.b32 %x2, 1000;"
        limit += f" mbarrier.{wait}.shared::cta.b64 %p, [%bar], 1, %x2; selp.b32 %x0, 1, 0, %p;{SHOW}"
        limit += f" mbarrier.{wait}.shared::cta.b64 %p, [%bar], 0, %x2; selp.b32 %x0, 1, 0, %p;{SHOW} ret;"
        yield asynchronous(f"mbarrier/limit-{wait}", limit, noise("mbarrier", 128), 64)
    own = "shl.b32 %x6, %t, 3; add.s32 %bar, %bar, %x6; add.s32 %x5, %t, 1; mbarrier.init.shared::cta.b64 [%bar], %x5;"
    own += (
        each
        + " mbarrier.arrive.shared::cta.b64 %g, [%bar]; mbarrier.pending_count.b64 %x0, %g; st.global.b32 [%out], %x0;"
    )
    own += " setp.gt.u32 %p, %t, 0; @!%p bra DONE; mbarrier.arrive.shared::cta.b64 _, [%bar], %t; DONE:"
    own += look.format(0, 128) + look.format(1, 256)
    yield asynchronous("mbarrier/one-per-lane", own + "ret;", noise("mbarrier", 128), 384)
    roles = (
        init.format(1)
        + """
setp.lt.u32 %p, %t, 32; @%p bra CONSUME; setp.eq.s32 %p, %t, 32; @!%p bra DONE; ld.global.b32 %x0, [%in+8]; st.shared.b32 [%tile], %x0;
mbarrier.arrive.release.cta.shared::cta.b64 _, [%bar]; bra DONE;
CONSUME: mbarrier.try_wait.parity.shared::cta.b64 %p, [%bar], 0; @!%p bra CONSUME; ld.shared.b32 %x0, [%tile];
"""
        + each
        + "st.global.b32 [%out], %x0; DONE: ret;"
    )
    yield asynchronous("mbarrier/between-warps", roles, noise("mbarrier-roles", 128), 128, threads=64)


def named_barrier_cases() -> Iterator[Case]:
    """Four warps: halves of the CTA meet, one side only arrives, and votes."""
    warps = 128
    place = "shl.b32 %x6, %t, 2; cvt.u64.u32 %g, %x6; add.s64 %l, %in, %g; add.s64 %out, %out, %g; ld.global.b32 %x0, [%l]; add.s32 %s, %tile, %x6;"
    head = ".reg .b64 %l; .reg .b32 %y<4>; " + place
    exchange = (
        "xor.b32 %y0, %x6, {0}; add.s32 %y0, %y0, %tile; ld.shared.b32 %y1, [%y0]; st.global.b32 [%out], %y1;"
    )
    put = "st.shared.b32 [%s], %x0;"
    bodies = {
        "pairs": put + "shr.u32 %y2, %t, 6; add.s32 %y2, %y2, 1; bar.sync %y2, 64;" + exchange.format(128),
        "pairs-barrier": put + "shr.u32 %y2, %t, 6; add.s32 %y2, %y2, 14; barrier.sync.aligned %y2, 64;" + exchange.format(132),
        "all": put + "barrier.cta.sync.aligned 3;" + exchange.format(256),
        "all-128": put + "bar.sync 5, 128;" + exchange.format(384),
        "warp": put + "bar.warp.sync -1;" + exchange.format(4),
        "arrive": "setp.lt.u32 %p, %t, 64; @%p bra TAKE;" + put + "bar.arrive 1, 128; bar.sync 2, 128; bra DONE;"
                  "TAKE: bar.sync 1, 128;" + exchange.format(256) + "bar.arrive 2, 128; DONE:",
        "again": put + "bar.sync 1; xor.b32 %y0, %x6, 128; add.s32 %y0, %y0, %tile; ld.shared.b32 %y1, [%y0]; bar.sync 1;"
                 " add.u32 %y1, %y1, %x0; st.shared.b32 [%s], %y1; bar.sync 1;" + exchange.format(260),
    }  # fmt: skip
    for name, body in bodies.items():
        yield asynchronous(
            f"named/{name}", head + body + "ret;", noise(f"named/{name}", 512), 512, threads=warps
        )
    for word, result in (("popc.u32", "%y1"), ("and.pred", "%q"), ("or.pred", "%q")):
        for threshold in (0x80000000, 0, 0xFFFFFFFF, 0x00800000):
            vote = f".reg .pred %q; setp.lt.u32 %p, %x0, {threshold:#x}; bar.red.{word} {result}, 1, %p;"
            vote += " selp.b32 %y1, 1, 0, %q;" if result == "%q" else ""
            name = f"named/red.{word}-{threshold:#x}"
            yield asynchronous(
                name, head + vote + "st.global.b32 [%out], %y1; ret;", noise(name, 512), 512, threads=warps
            )
    count = ".reg .pred %q; setp.lt.u32 %p, %x0, 0x40000000; shr.u32 %y2, %t, 6; add.s32 %y2, %y2, 1; barrier.cta.red.popc.aligned.u32 %y1, %y2, 64, !%p; st.global.b32 [%out], %y1; ret;"
    yield asynchronous("named/red.popc-halves", head + count, noise("named/halves", 512), 512, threads=warps)


def copy_cases() -> Iterator[Case]:
    """cp.async: sizes, zeros behind short sources, groups, arrival on an mbarrier."""
    place = "shl.b32 %x6, %t, 4; cvt.u64.u32 %g, %x6; add.s64 %l, %in, %g; add.s32 %s, %tile, %x6;"
    head = ".reg .b64 %l; .reg .b32 %y<4>; " + fill_shared(1024, 2048) + place
    done = "cp.async.commit_group; cp.async.wait_group 0;"
    bodies = {}
    for form in ("ca-4", "ca-8", "ca-16", "cg-16"):
        kind, size = form.split("-")
        bodies[form] = f"cp.async.{kind}.shared.global [%s], [%l], {size};" + done
        bodies[f"{form}-short"] = (
            f"rem.u32 %y0, %t, {int(size) + 1}; cp.async.{kind}.shared.global [%s], [%l], {size}, %y0;" + done
        )
        bodies[f"{form}-hint"] = f"cp.async.{kind}.shared.global.L2::128B [%s+512], [%l+16], {size};" + done
    bodies["wait-all"] = (
        "cp.async.cg.shared.global [%s], [%l], 16; cp.async.ca.shared.global [%s+512], [%l+8], 4; cp.async.wait_all;"
    )
    bodies["groups"] = (
        "cp.async.cg.shared.global [%s], [%l], 16; cp.async.commit_group; cp.async.cg.shared.global [%s+512], [%l+16], 16; cp.async.commit_group; cp.async.wait_group 1; cp.async.wait_group 0;"
    )
    bodies["lanes"] = "setp.lt.u32 %p, %x6, 160; @%p cp.async.cg.shared.global [%s], [%l], 16;" + done
    wait = "WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p, [%bar], 0; @!%p bra WAIT;"
    for noinc, count in (("", 32), (".noinc", 32)):
        extra = " mbarrier.arrive.shared::cta.b64 _, [%bar];" if not noinc else ""
        bodies[f"mbarrier{noinc}"] = (
            f"@%first mbarrier.init.shared::cta.b64 [%bar], {count}; bar.sync 0; cp.async.cg.shared.global [%s], [%l], 16;"
            f" cp.async.mbarrier.arrive{noinc}.shared::cta.b64 [%bar];{extra} {wait}"
        )
    for name, body in bodies.items():
        yield asynchronous(f"copy/{name}", head + body + copy_out(1024), noise(f"copy/{name}", 4096), 1024)


def control_cases() -> Iterator[Case]:
    """Instructions that must leave all values as they are."""
    place = "shl.b32 %x6, %t, 2; cvt.u64.u32 %g, %x6; add.s64 %l, %in, %g; add.s64 %out, %out, %g; ld.global.b32 %x0, [%l];"
    head = ".reg .b64 %l; " + place
    back = "st.global.b32 [%out], %x0; ret;"
    bodies = {
        "griddepcontrol": "griddepcontrol.wait; griddepcontrol.launch_dependents;",
        "prefetch": "prefetch.global.L2 [%l]; prefetch.global.L1 [%in]; prefetch.tensormap [%map]; cp.async.bulk.prefetch.L2.global [%in], 512;",
        "nanosleep": "nanosleep.u32 100;",
    }
    for name, body in bodies.items():
        yield asynchronous(f"control/{name}", head + body + back, noise(f"control/{name}", 1024), 4 * LANES)
    sizes = [
        "%ntid.x",
        "%ntid.y",
        "%nctaid.x",
        "%ctaid.x",
        "%cluster_nctarank",
        "%cluster_ctarank",
        "%cluster_nctaid.x",
        "%cluster_ctaid.x",
        "%nclusterid.x",
        "%clusterid.x",
    ]
    show = "@!%first ret;" + "".join(f" mov.u32 %x0, {name};" + SHOW for name in sizes)
    yield asynchronous(
        "control/no-cluster",
        show + "ret;",
        np.zeros(128, np.uint8),
        4 * len(sizes),
        about="registers of clusters in a launch without",
    )
    lanes = [
        "%laneid",
        "%warpid",
        "%lanemask_eq",
        "%lanemask_le",
        "%lanemask_lt",
        "%lanemask_ge",
        "%lanemask_gt",
    ]
    body = "".join(
        f" mov.u32 %x0, {name}; st.global.b32 [%out+{256 * i}], %x0;" for i, name in enumerate(lanes)
    )
    yield asynchronous(
        "control/lanes",
        head + body + "ret;",
        noise("control/lanes", 256),
        7 * 256,
        threads=64,
        unspecified=(256, 512),
        about="%warpid is where a warp happens to run (PTX ISA 10.4); the H200 gave 1 and 2 for warps 0 and 1",
    )


def cases() -> list[Case]:
    return [*mbarrier_cases(), *named_barrier_cases(), *copy_cases(), *control_cases()]
