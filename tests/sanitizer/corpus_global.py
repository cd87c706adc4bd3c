"""One defect each, and none, in kernels whose CTAs meet in global memory: flags, split K, grid barriers,
reductions, locks."""

# ruff: noqa: E501
from __future__ import annotations

import numpy as np

from b200sim.gpus import B200
from b200sim.tma.encoding import encode
from b200sim.tma.tensor_map import ElementType, TensorMap
from tests.b200sim.ptx_harness import aligned
from tests.sanitizer.corpus_ptx import Arrays, PtxDefect
from tests.sanitizer.corpus_small import FENCE, small, waiting

CTAS = 4
THREADS = 64
DATA = 1024  # byte in the workspace where data begins; flags and counters lie below


def workspace() -> tuple[Arrays, np.ndarray]:
    """Flags and data, all zero, and an output of one number per thread."""
    return [np.zeros(8192, np.uint32), np.zeros(THREADS, np.uint32)], np.arange(THREADS, dtype=np.uint32) + 7


def sums() -> tuple[Arrays, np.ndarray]:
    """The same; thread t of CTA i adds t + 10 i."""
    arrays, _ = workspace()
    return arrays, np.arange(THREADS, dtype=np.uint32) * CTAS + sum(10 * i for i in range(CTAS))


def mapped() -> tuple[Arrays, np.ndarray]:
    """As `workspace`, with a tensor map for 64 numbers of the data between the two."""
    work, out = workspace()[0]
    box = TensorMap(work.ctypes.data + DATA, ElementType.U32, (THREADS,), (), (THREADS,))
    return [work, aligned(encode(box)), out], workspace()[1]


def mapped_sums() -> tuple[Arrays, np.ndarray]:
    return mapped()[0], sums()[1]


def untouched() -> tuple[Arrays, np.ndarray]:
    return workspace()[0], np.zeros(THREADS, np.uint32)


START = """
ld.param.u64 %a, [p0]; ld.param.u64 %c, [p1]; mov.u32 %rank, %ctaid.x;
mul.wide.u32 %d1, %tid, 4; add.s64 %d2, %a, %d1; add.s64 %d3, %c, %d1;
"""
START_MAPPED = START.replace("%c, [p1]", "%b, [p1]; ld.param.u64 %c, [p2]")
ONE = "setp.ne.u32 %q, %tid, 0; @%q bra {label};"


def meeting(name: str, code: str, body: str, data=workspace, ctas: int = 2, **more) -> PtxDefect:  # type: ignore[no-untyped-def]
    launch = {"grid": (ctas, 1, 1), **more.pop("launch", {})}
    start = START_MAPPED if data in (mapped, mapped_sums) else START
    return small(name, code, start + body, data, THREADS // 32, launch=launch, deadline=60.0, **more)


def message(
    publish: str = "fence.acq_rel.gpu; st.relaxed.gpu.global.b32 [%a], 1;",
    poll: str = "ld.acquire.gpu.global.b32",
    after: str = "",
    before: str = "bar.sync 0;",
    write: str = "st.global.b32 [%d2+1024], %t1;",
    read: str = "ld.global.b32 %t3, [%d2+1024];",
) -> str:
    """CTA 0 writes 64 numbers and sets a flag; CTA 1 waits for it, reads them and writes them out."""
    return f"""
setp.ne.u32 %p, %rank, 0; @%p bra CONSUMER;
add.u32 %t1, %tid, 7; {write}
{before} {ONE.format(label="DONE")}
{publish}
bra DONE;
CONSUMER: {ONE.format(label="SEEN")}
POLL: {poll} %t2, [%a]; setp.eq.u32 %p, %t2, 0; @%p bra POLL;
{after}
SEEN: bar.sync 0;
{read}
st.global.b32 [%d3], %t3;"""


BULK_READ = (
    f"""
{ONE.format(label="LOADED")}
mbarrier.init.shared.b64 [%smem], 1; {FENCE}
mbarrier.arrive.expect_tx.shared.b64 _, [%smem], 256;
add.s64 %d4, %a, 1024;
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%smem+1024], [%d4], 256, [%smem];
LOADED: bar.sync 0;
"""
    + waiting(9, "%smem")
    + """
shl.b32 %t4, %tid, 2; add.s32 %t4, %t4, %smem; ld.shared.b32 %t3, [%t4+1024];"""
)
TENSOR_READ = BULK_READ.replace(
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%smem+1024], [%d4], 256,",
    "mov.u32 %t6, 0; cp.async.bulk.tensor.1d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%smem+1024], [%b, {%t6}],",
)
BULK_WRITE = f"""
shl.b32 %t4, %tid, 2; add.s32 %t4, %t4, %smem; st.shared.b32 [%t4+1024], %t1;
fence.proxy.async.shared::cta; bar.sync 0;
{ONE.format(label="DONE")}
add.s64 %d4, %a, 1024; add.s32 %t5, %smem, 1024;
cp.async.bulk.global.shared::cta.bulk_group [%d4], [%t5], 256;
cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;"""
BULK_ADD = "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%d4], [%t5], 256;"
TENSOR_ADD = "mov.u32 %t6, 0; cp.reduce.async.bulk.tensor.1d.global.shared::cta.add.tile.bulk_group [%b, {%t6}], [%t5];"

ADD_UP = "ld.global.b32 %t3, [%d3]; add.u32 %t3, %t3, %t1; st.global.b32 [%d3], %t3;"
MINE = "mul.lo.u32 %t1, %rank, 10; add.u32 %t1, %t1, %tid;"


def turnstile(wait: str = "", release: str = "red.release.gpu.global.add.u32 [%a], 1;") -> str:
    """Split K one after the other: CTA i adds its part to the output when the semaphore says i."""
    wait = wait or (
        f"{ONE.format(label='MYTURN')}\nPOLL: ld.acquire.gpu.global.b32 %t2, [%a]; "
        "setp.ne.u32 %p, %t2, %rank; @%p bra POLL;\nMYTURN: bar.sync 0;"
    )
    return f"{MINE}\n{wait}\n{ADD_UP}\nbar.sync 0; {ONE.format(label='DONE')}\n{release}"


def last_adds(
    before: str = "fence.acq_rel.gpu;", after: str = "fence.acq_rel.gpu;", atom: str = "atom.add.gpu"
) -> str:
    """Split K side by side: partial sums go to the workspace, and who comes last adds them up."""
    return f"""{MINE}
mul.wide.u32 %d4, %rank, 256; add.s64 %d4, %d4, %d2; st.global.b32 [%d4+1024], %t1;
bar.sync 0; {ONE.format(label="COUNTED")}
{before} {atom}.global.u32 %t2, [%a], 1;
{after} st.shared.b32 [%smem+512], %t2;
COUNTED: bar.sync 0;
ld.shared.b32 %t2, [%smem+512]; setp.ne.u32 %p, %t2, {CTAS - 1}; @%p bra DONE;
ld.global.b32 %t3, [%d2+1024]; ld.global.b32 %t4, [%d2+1280]; add.u32 %t3, %t3, %t4;
ld.global.b32 %t4, [%d2+1536]; add.u32 %t3, %t3, %t4; ld.global.b32 %t4, [%d2+1792]; add.u32 %t3, %t3, %t4;
st.global.b32 [%d3], %t3;"""


def grid_barrier(
    number: int, scope: str = "gpu", after: str = "fence.acq_rel.gpu;", count: int = CTAS
) -> str:
    """Everybody adds one and waits until all have."""
    return f"""bar.sync 0; {ONE.format(label=f"MET{number}")}
fence.acq_rel.{scope}; red.relaxed.{scope}.global.add.u32 [%a+{4 * number}], 1;
ASK{number}: ld.relaxed.{scope}.global.b32 %t2, [%a+{4 * number}]; setp.lt.u32 %p, %t2, {count}; @%p bra ASK{number};
{after}
MET{number}: bar.sync 0;"""


def shift_around(barrier: str = "", again: str = "") -> str:
    """Each CTA writes its part, all meet, each reads its neighbour's; all meet again and CTA 0's is written."""
    return f"""{MINE}
mul.wide.u32 %d4, %rank, 256; add.s64 %d4, %d4, %d2; st.global.b32 [%d4+1024], %t1;
{barrier or grid_barrier(0)}
add.u32 %t5, %rank, 1; and.b32 %t5, %t5, {CTAS - 1}; mul.wide.u32 %d5, %t5, 256; add.s64 %d5, %d5, %d2;
ld.global.b32 %t3, [%d5+1024];
{again or grid_barrier(1)}
st.global.b32 [%d4+1024], %t3;
setp.ne.u32 %p, %rank, {CTAS - 1}; @%p bra DONE; add.u32 %t3, %t3, 7; st.global.b32 [%d3], %t3;"""


def reduced(wait: str = "cp.async.bulk.wait_group 0;", add: str = BULK_ADD) -> str:
    """Every CTA adds 64 numbers to the workspace with a bulk reduction; who comes last copies the sums out."""
    return f"""{MINE}
shl.b32 %t4, %tid, 2; add.s32 %t4, %t4, %smem; st.shared.b32 [%t4+1024], %t1;
fence.proxy.async.shared::cta; bar.sync 0;
{ONE.format(label="COUNTED")}
add.s64 %d4, %a, 1024; add.s32 %t5, %smem, 1024;
{add} cp.async.bulk.commit_group; {wait}
fence.acq_rel.gpu; atom.add.gpu.global.u32 %t2, [%a], 1; fence.acq_rel.gpu; st.shared.b32 [%smem+512], %t2;
COUNTED: bar.sync 0;
ld.shared.b32 %t2, [%smem+512]; setp.ne.u32 %p, %t2, {CTAS - 1}; @%p bra DONE;
ld.global.b32 %t3, [%d2+1024]; st.global.b32 [%d3], %t3;"""


def locked(
    acquire: str = "atom.acquire.gpu.global.cas.b32",
    release: str = "atom.release.gpu.global.exch.b32 %t2, [%a], 0;",
) -> str:
    """A lock around a sum in the output."""
    return f"""{MINE}
{ONE.format(label="MINE")}
TRY: {acquire} %t2, [%a], 0, 1; setp.ne.u32 %p, %t2, 0; @%p bra TRY;
MINE: bar.sync 0;
{ADD_UP}
bar.sync 0; {ONE.format(label="DONE")}
{release}"""


BOTH_LOCKS = f"""
{ONE.format(label="DONE")}
shl.b32 %t1, %rank, 2; xor.b32 %t2, %t1, 4; cvt.u64.u32 %d4, %t1; cvt.u64.u32 %d5, %t2;
add.s64 %d4, %d4, %a; add.s64 %d5, %d5, %a; red.relaxed.gpu.global.add.u32 [%a+8], 1;
TAKE: atom.acquire.gpu.global.cas.b32 %t3, [%d4], 0, 1; setp.ne.u32 %p, %t3, 0; @%p bra TAKE;
ALL: ld.relaxed.gpu.global.b32 %t3, [%a+8]; setp.ne.u32 %p, %t3, 2; @%p bra ALL;
OTHER: atom.acquire.gpu.global.cas.b32 %t3, [%d5], 0, 1; setp.ne.u32 %p, %t3, 0; @%p bra OTHER;
st.release.gpu.global.b32 [%d5], 0; st.release.gpu.global.b32 [%d4], 0;"""
SHARED_FLAG = """
setp.ne.u32 %p, %warp, 0; @%p bra DONE; st.shared.b32 [%smem+512], 0;
POLL: ld.volatile.shared.b32 %t2, [%smem+512]; setp.eq.u32 %p, %t2, 0; @%p bra POLL;"""
RED_ALL = "{mine}\nred.relaxed.{scope}.global.add.u32 [%d3], %t1;"
PLAIN_POLL = "ld.global.b32"

GLOBAL_DEFECTS = [
    meeting("flag set without a release fence", "global_read_unordered", message("st.relaxed.gpu.global.b32 [%a], 1;")),
    meeting("fence after the flag instead of before it", "global_read_unordered",
            message("st.relaxed.gpu.global.b32 [%a], 1; fence.acq_rel.gpu;")),
    meeting("flag polled without an acquire", "global_read_unordered", message(poll="ld.relaxed.gpu.global.b32")),
    meeting("flag set by a plain store", "global_read_unordered", message("fence.acq_rel.gpu; st.global.b32 [%a], 1;")),
    meeting("flag polled by a plain load", "global_read_unordered", message(poll=PLAIN_POLL, after="fence.acq_rel.gpu;")),
    meeting("flag set before the other warps have written", "global_read_unordered", message(before="")),
    meeting("read without waiting for the flag", "global_read_unordered",
            message().replace("POLL:", "bra SEEN; POLL:")),
    meeting("flag released for the CTA only", "scope_too_narrow", message("st.release.cta.global.b32 [%a], 1;")),
    meeting("flag released for the cluster only", "scope_too_narrow", message("st.release.cluster.global.b32 [%a], 1;")),
    meeting("fence for the CTA only before the flag", "scope_too_narrow",
            message("fence.acq_rel.cta; st.relaxed.gpu.global.b32 [%a], 1;")),
    meeting("fence for the CTA only after the flag", "scope_too_narrow",
            message(poll="ld.relaxed.gpu.global.b32", after="fence.acq_rel.cta;")),
    meeting("bulk load of what another CTA stored, no proxy fence", "proxy_fence_missing", message(read=BULK_READ)),
    meeting("bulk load of what another CTA's bulk store wrote, no proxy fence", "proxy_fence_missing",
            message(write=BULK_WRITE, before="", read=BULK_READ)),
    meeting("tensor load of what another CTA stored, no proxy fence", "proxy_fence_missing",
            message(read=TENSOR_READ), mapped),
    meeting("tensor load before the flag is seen", "global_read_unordered",
            message("fence.proxy.async; st.release.gpu.global.b32 [%a], 1;", read=TENSOR_READ).replace("POLL:", "bra SEEN; POLL:"), mapped),
    meeting("proxy fence for shared memory only", "proxy_fence_missing",
            message("fence.proxy.async.shared::cta; fence.acq_rel.gpu; st.relaxed.gpu.global.b32 [%a], 1;", read=BULK_READ)),
    meeting("flag after a bulk store that was waited for with .read", "global_read_unordered",
            message(write=BULK_WRITE.replace("wait_group", "wait_group.read"), before="")),
    meeting("split K without its turn", "global_race", turnstile("bar.sync 0;"), sums, CTAS),
    meeting("split K, turn given before the sum is written", "global_read_unordered",
            turnstile().replace(ADD_UP + "\nbar.sync 0;", "bar.sync 0;") + "\n" + ADD_UP, sums, CTAS),
    meeting("partial sums counted without a fence", "global_read_unordered", last_adds(before=""), sums, CTAS),
    meeting("partial sums read without a fence", "global_read_unordered", last_adds(after=""), sums, CTAS),
    meeting("partial sums counted for the cluster only", "scope_too_narrow", last_adds(atom="atom.add.cluster"), sums, CTAS),
    meeting("grid barrier for the CTA only", "scope_too_narrow", shift_around(grid_barrier(0, "cta")), ctas=CTAS),
    meeting("grid barrier without a fence behind it", "global_read_unordered", shift_around(grid_barrier(0, after="")), ctas=CTAS),
    meeting("neighbour's part overwritten without a second barrier", "global_read_unordered",
            shift_around(again="bar.sync 0;"), ctas=CTAS),
    meeting("reduction read before it has written", "global_read_unordered", reduced("cp.async.bulk.wait_group.read 0;"), sums, CTAS),
    meeting("tensor reduction read before it has written", "global_read_unordered",
            reduced("cp.async.bulk.wait_group.read 0;", TENSOR_ADD), mapped_sums, CTAS),
    meeting("reduction read before its group is awaited", "global_read_unordered", reduced(""), sums, CTAS),
    meeting("atomic sums of two CTAs with scope .cta", "scope_too_narrow", RED_ALL.format(mine=MINE, scope="cta"), sums, CTAS),
    meeting("lock taken without an acquire", "global_read_unordered", locked("atom.relaxed.gpu.global.cas.b32"), sums, CTAS),
    meeting("flag that nobody sets", "deadlock", message("bra DONE;"), untouched),
    meeting("flag that nobody sets, polled with nanosleep", "deadlock",
            message("bra DONE;").replace("@%p bra POLL;", "@!%p bra SEEN; nanosleep.u32 64; bra POLL;"), untouched),
    meeting("lock that is never given back", "deadlock", locked(release=""), untouched, CTAS),
    meeting("two locks in different order", "deadlock", BOTH_LOCKS, untouched),
    meeting("grid barrier of more CTAs than fit", "deadlock", shift_around(), untouched, CTAS, launch={"gpu": B200.with_sms(2)}),
    meeting("flag in shared memory that nobody sets", "deadlock", SHARED_FLAG, untouched, 1),
    meeting("lock given back by a plain store", "global_race", locked(release="fence.acq_rel.gpu; st.global.b32 [%a], 0;"), sums, CTAS),
]  # fmt: skip

PUBLISH = {
    "fence and relaxed store": "fence.acq_rel.gpu; st.relaxed.gpu.global.b32 [%a], 1;",
    "releasing store": "st.release.gpu.global.b32 [%a], 1;",
    "system scope": "st.release.sys.global.b32 [%a], 1;",
    "membar and volatile store": "membar.gl; st.volatile.global.b32 [%a], 1;",
    "releasing reduction": "red.release.gpu.global.add.u32 [%a], 1;",
    "fence and atomic": "fence.sc.gpu; atom.add.global.u32 %t9, [%a], 1;",
    "release fence": "fence.release.gpu; red.relaxed.gpu.global.or.b32 [%a], 1;",
    "releasing store, then a relaxed one": "st.release.gpu.global.b32 [%a], 1; st.relaxed.gpu.global.b32 [%a], 2;",
}
POLLS = {
    "acquiring load": ("ld.acquire.gpu.global.b32", ""),
    "relaxed load and fence": ("ld.relaxed.gpu.global.b32", "fence.acq_rel.gpu;"),
    "volatile load and membar": ("ld.volatile.global.b32", "membar.gl;"),
    "relaxed load, acquire fence": ("ld.relaxed.sys.global.b32", "fence.acquire.sys;"),
    "relaxed load, then an acquiring one": (
        "ld.relaxed.gpu.global.b32",
        "ld.acquire.gpu.global.b32 %t2, [%a];",
    ),
}
GLOBAL_CLEAN = [
    *(meeting(f"{p}, {q}", "", message(publish, *poll)) for p, publish in PUBLISH.items() for q, poll in POLLS.items()),
    meeting("atomic poll", "", message(poll="atom.acquire.gpu.global.or.b32").replace("%t2, [%a]; setp", "%t2, [%a], 0; setp")),
    meeting("bulk load after a proxy fence by the writer", "", message(
        write="st.global.b32 [%d2+1024], %t1; fence.proxy.async;", read=BULK_READ)),
    meeting("bulk load after a proxy fence by the reader", "", message(read="fence.proxy.async.global; bar.sync 0;" + BULK_READ)),
    meeting("bulk store, wait, release, plain read", "", message(write=BULK_WRITE, before="")),
    meeting("bulk store, wait, release, proxy fence, bulk load", "", message(
        write=BULK_WRITE, before="", read="fence.proxy.async; bar.sync 0;" + BULK_READ)),
    meeting("split K one after the other", "", turnstile(), sums, CTAS),
    meeting("split K side by side", "", last_adds(), sums, CTAS),
    meeting("split K with an acq_rel counter", "", last_adds("", "", "atom.acq_rel.gpu.add").replace(
        "atom.acq_rel.gpu.add.global.u32", "atom.acq_rel.gpu.global.add.u32"), sums, CTAS),
    meeting("grid barriers", "", shift_around(), ctas=CTAS),
    meeting("grid barriers of a cluster", "", shift_around(grid_barrier(0, "cluster"), grid_barrier(1, "cluster")),
            ctas=CTAS, launch={"cluster": (CTAS, 1, 1)}),
    meeting("tensor reductions", "", reduced(add=TENSOR_ADD), mapped_sums, CTAS),
    meeting("tensor load after a proxy fence by the writer", "", message(
        write="st.global.b32 [%d2+1024], %t1; fence.proxy.async.global;", read=TENSOR_READ), mapped),
    meeting("bulk reductions", "", reduced(), sums, CTAS),
    meeting("atomic sums", "", RED_ALL.format(mine=MINE, scope="gpu"), sums, CTAS),
    meeting("lock", "", locked(), sums, CTAS),
    meeting("lock with fences", "", locked(
        "atom.relaxed.gpu.global.cas.b32", "fence.acq_rel.gpu; st.relaxed.gpu.global.b32 [%a], 0;").replace(
        "\nMINE:", "\nfence.acq_rel.gpu;\nMINE:"), sums, CTAS),
]  # fmt: skip
