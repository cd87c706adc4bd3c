"""The rules of order that Hopper has too, each as a kernel that keeps it and one that just does not.

The PTX ISA's sections are in `b200sim.sanitizer.rules`. What must be found is written down here by hand from
the manual's text; where its text and the model differ, the rule says so.
"""

import numpy as np
import pytest

from tests.sanitizer.corpus_small import ALLOC, CLUSTER, DEALLOC, FENCE, MEET, small, waiting
from tests.sanitizer.run import run_ptx

# Two warps and an mbarrier at 0 for one arrival; the word at 1024 is what they share.
START = """
ld.param.u64 %a, [p0];
setp.ne.u32 %p, %tid, 0; @%p bra READY;
mbarrier.init.shared.b64 [%smem], 1;
READY: bar.sync 0;
setp.ne.u32 %p, %warp, 0; @%p bra OTHER;
"""
WRITE = "st.shared.b32 [%smem+1024], %tid;"
READ = "ld.shared.b32 %t1, [%smem+1024];"
ARRIVE = "bar.warp.sync -1; @%one mbarrier.arrive.shared.b64 _, [%smem];"
RELAXED = "bar.warp.sync -1; @%one mbarrier.arrive.relaxed.cta.shared.b64 _, [%smem];"
FENCED = "fence.acq_rel.cta;"
WAIT = waiting(1, "%smem")
WAIT_RELAXED = WAIT.replace("try_wait.parity", "try_wait.parity.relaxed.cta")
EXPECT = "bar.warp.sync -1; @%one mbarrier.arrive.expect_tx.shared.b64 _, [%smem], 16;"
COPY = (
    "@%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%smem+2048], [%a], 16, [%smem];"
)
LANDED = "ld.shared.v4.b32 {%t2, %t3, %t4, %t5}, [%smem+2048];"


def found(body: str, warps: int = 2, **launch) -> set[str]:  # type: ignore[no-untyped-def, type-arg]
    data = lambda: ([np.zeros(256, np.uint32)], np.zeros(256, np.uint32))  # noqa: E731
    return run_ptx(small("rule", "", body, data, warps, launch=launch)).findings.codes()


def two_warps(first: str, second: str) -> set[str]:
    """What is found, apart from reads that come before any write."""
    return found(f"{START}{first}\nbra DONE;\nOTHER:\n{second}") - {"uninitialised_shared"}


@pytest.mark.parametrize(
    ("first", "second", "codes"),
    [
        (WRITE + ARRIVE, WAIT + READ, set()),
        (ARRIVE + WRITE, WAIT + READ, {"shared_race"}),
        (WRITE + ARRIVE, READ + WAIT, {"shared_race"}),
        (WRITE + RELAXED, WAIT + READ, {"shared_race"}),
        (WRITE + ARRIVE, WAIT_RELAXED + READ, {"shared_race"}),
        (WRITE + FENCED + RELAXED, WAIT_RELAXED + FENCED + READ, set()),
        (FENCED + WRITE + RELAXED, WAIT_RELAXED + FENCED + READ, {"shared_race"}),
    ],
    ids=["ordered", "late write", "early read", "relaxed", "relaxed wait", "fenced", "fence too early"],
)
def test_mbarriers(first: str, second: str, codes: set[str]) -> None:
    assert two_warps(first, second) == codes


@pytest.mark.parametrize(
    ("first", "second", "codes"),
    [
        (WRITE + "bar.sync 1, 64;", "bar.sync 1, 64;" + READ, set()),
        (WRITE + "bar.arrive 1, 64;", "bar.sync 1, 64;" + READ, set()),
        ("bar.arrive 1, 64;" + READ, WRITE + "bar.sync 1, 64;", {"shared_race"}),
        (WRITE + "bar.sync 1, 32;", "bar.sync 2, 32;" + READ, {"shared_race"}),
    ],
    ids=["sync", "arrive hands on", "arrive learns nothing", "two barriers"],
)
def test_named_barriers(first: str, second: str, codes: set[str]) -> None:
    assert two_warps(first, second) == codes


@pytest.mark.parametrize(
    ("meet", "codes"),
    [
        ("barrier.cluster.arrive; barrier.cluster.wait;", set()),
        ("barrier.cluster.arrive.relaxed; barrier.cluster.wait;", {"shared_race"}),
        ("fence.acq_rel.cluster; barrier.cluster.arrive.relaxed; barrier.cluster.wait;", set()),
    ],
    ids=["release", "relaxed", "fenced"],
)
def test_cluster_barrier(meet: str, codes: set[str]) -> None:
    """Each CTA writes into the other; the last barrier keeps both until the end."""
    body = f"""xor.b32 %t6, %rank, 1; mapa.shared::cluster.u32 %t7, %smem, %t6;
{MEET}
st.shared::cluster.b32 [%t7+1024], %tid;
{meet}
{READ}
{MEET}"""
    assert found(body, warps=1, **CLUSTER) == codes


@pytest.mark.parametrize(
    ("first", "second", "codes"),
    [
        (EXPECT + COPY, WAIT + LANDED, set()),
        (EXPECT + COPY, LANDED + WAIT, {"load_not_awaited"}),
        (WRITE + EXPECT + COPY, WAIT + READ + LANDED, set()),
        (EXPECT + WRITE + COPY, WAIT + READ + LANDED, {"shared_race"}),
    ],
    ids=["awaited", "not awaited", "write before the arrival", "write before the copy only"],
)
def test_completion_of_a_copy(first: str, second: str, codes: set[str]) -> None:
    """complete_tx orders the copy, not what its thread did before (8.9.1.1): the arrival does that."""
    assert two_warps(first, second) == codes


@pytest.mark.parametrize(
    ("before", "codes"),
    [
        ("st.shared.b32 [%smem+2048], %tid;\nfence.proxy.async.shared::cta;", set()),
        ("st.shared.b32 [%smem+2048], %tid;", {"proxy_fence_missing"}),
        ("fence.proxy.async.shared::cta;\nst.shared.b32 [%smem+2048], %tid;", {"proxy_fence_missing"}),
    ],
    ids=["fenced", "not fenced", "fence too early"],
)
def test_proxies(before: str, codes: set[str]) -> None:
    """A generic write, then a copy over the same place by the same warp."""
    assert two_warps(before + EXPECT + COPY, WAIT + LANDED) == codes


def test_a_copy_after_a_generic_read_needs_order_only() -> None:
    again = "@%one mbarrier.arrive.expect_tx.shared.b64 _, [%smem], 16;\n" + COPY + waiting(3, "%smem", 1)
    first = f"{EXPECT}{COPY}{waiting(2, '%smem')}bar.sync 1, 64;\n{again}"
    assert two_warps(first, WAIT + LANDED + "bar.sync 1, 64;") == set()
    assert two_warps(first, "bar.sync 1, 64;\n" + WAIT + LANDED) >= {"load_not_awaited"}


LANES = """shl.b32 %t4, %tid, 4; cvt.u64.u32 %d5, %t4; and.b64 %d5, %d5, 496; add.s64 %d5, %d5, %a;
add.s32 %t4, %t4, %smem;
"""
LANES_COPY = COPY.replace("@%one ", "").replace("[%smem+2048], [%a]", "[%t4+2048], [%d5]")


@pytest.mark.parametrize(("count", "codes"), [(32, set()), (1, {"issued_by_many_lanes"})])
def test_each_lane_may_expect_and_copy_its_own_bytes(count: int, codes: set[str]) -> None:
    """A barrier for 32 arrivals, on which each lane arrives with expect_tx; one for a single arrival."""
    body = f"""{START.split("setp.ne.u32 %p, %warp")[0].replace("b64 [%smem], 1;", f"b64 [%smem], {count};")}
{LANES}{EXPECT.replace("@%one ", "")}
{LANES_COPY}
{WAIT}
ld.shared.v4.b32 {{%t10, %t11, %t12, %t13}}, [%t4+2048];"""
    assert found(body, warps=1) & {"issued_by_many_lanes", "expect_tx_mismatch"} == codes


@pytest.mark.parametrize(
    ("init", "meet", "codes"),
    [
        ("", MEET, set()),
        ("", "barrier.cluster.arrive.relaxed; barrier.cluster.wait;", {"mbarrier_init_not_fenced"}),
        (FENCE, "barrier.cluster.arrive.relaxed; barrier.cluster.wait;", set()),
    ],
    ids=["release", "relaxed", "fenced"],
)
def test_copies_signal_an_mbarrier_of_another_cta(init: str, meet: str, codes: set[str]) -> None:
    """The copy uses the mbarrier through the generic proxy: memory order is enough."""
    body = f"""ld.param.u64 %a, [p0];
setp.ne.u32 %p, %tid, 0; @%p bra READY;
mbarrier.init.shared.b64 [%smem], 1; {init}
READY: {meet}
{EXPECT}
xor.b32 %t6, %rank, 1; mapa.shared::cluster.u32 %t7, %smem, %t6; add.s32 %t8, %t7, 2048;
{COPY.replace("[%smem+2048]", "[%t8]").replace("[%smem]", "[%t7]")}
{WAIT}
{LANDED}
{MEET}"""
    assert found(body, warps=1, **CLUSTER) == codes


STORE = "@%one cp.async.bulk.global.shared::cta.bulk_group [%a], [%smem+1024], 256;\n"
STORES = (
    "".join(f"st.shared.b32 [%t4+{1024 + 128 * i}], %tid;\n" for i in range(4))
    + "fence.proxy.async.shared::cta; bar.warp.sync -1;\n"
    + STORE + "@%one cp.async.bulk.commit_group;\n"
    + STORE.replace("[%a]", "[%a+256]").replace("1024", "1280") + "@%one cp.async.bulk.commit_group;\n"
)  # fmt: skip


@pytest.mark.parametrize(
    ("allowed", "again", "codes"),
    [
        (1, 1024, set()),
        (1, 1280, {"store_source_overwritten"}),
        (0, 1280, set()),
        (2, 1024, {"store_source_overwritten"}),
    ],
)
def test_wait_group(allowed: int, again: int, codes: set[str]) -> None:
    """Two stores, each in a group: `wait_group.read 1` is over when the first has read its source."""
    body = f"""ld.param.u64 %a, [p0];
shl.b32 %t4, %tid, 2; add.s32 %t4, %t4, %smem;
{STORES}
@%one cp.async.bulk.wait_group.read {allowed};
bar.warp.sync -1;
st.shared.b32 [%t4+{again}], %tid;
@%one cp.async.bulk.wait_group 0;
"""
    assert found(body, warps=1) == codes


@pytest.mark.parametrize(
    ("told", "codes"),
    [(True, set()), (False, {"store_source_overwritten"})],
    ids=["the receiver says so", "nobody says so"],
)
def test_the_source_of_a_copy_to_another_cta(told: bool, codes: set[str]) -> None:
    """Its reads are over when the copy is complete (9.7.9.25.1), which the receiver's mbarrier signals: the
    sender may write there again once the receiver has told it."""
    tell = f"""@%one mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%t7+8];
{waiting(2, "%smem+8")}"""
    body = f"""setp.ne.u32 %p, %tid, 0; @%p bra READY;
mbarrier.init.shared.b64 [%smem], 1; mbarrier.init.shared.b64 [%smem+8], 1;
READY: {MEET}
xor.b32 %t6, %rank, 1; mapa.shared::cluster.u32 %t7, %smem, %t6; add.s32 %t8, %t7, 2048;
shl.b32 %t4, %tid, 2; add.s32 %t4, %t4, %smem;
st.shared.b32 [%t4+1024], %tid;
fence.proxy.async.shared::cta; bar.warp.sync -1;
{EXPECT.replace("16;", "128;")}
@%one cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%t8], [%smem+1024], 128, [%t7];
{WAIT}
ld.shared.b32 %t9, [%t4+2048];
bar.warp.sync -1;
{tell if told else ""}
st.shared.b32 [%t4+1024], %tid;
{MEET}"""
    assert found(body, warps=1, **CLUSTER) == codes


NO_FLAG = "st.shared.b32 [%smem+1028], 0; bar.sync 1, 64; mov.u32 %t8, 7;"
SPIN = """bar.sync 1, 64;
SPIN: ld{how}.shared.b32 %t9, [%smem+1028]; setp.ne.u32 %p, %t9, 7; @%p bra SPIN;"""
SET = "{fence}st{how}.shared.b32 [%smem+1028], %t8;"


@pytest.mark.parametrize(
    ("how", "fence", "seen", "fence_after", "codes"),
    [
        (".release.cta", "", ".acquire.cta", "", set()),
        (".relaxed.cta", "", ".acquire.cta", "", {"shared_race"}),
        (".release.cta", "", ".relaxed.cta", "", {"shared_race"}),
        (".relaxed.cta", FENCED, ".relaxed.cta", FENCED, set()),
        (".volatile", FENCED, ".volatile", FENCED, set()),
        ("", FENCED, ".acquire.cta", "", {"shared_race"}),
    ],
    ids=["release", "relaxed store", "relaxed load", "fences", "volatile", "weak store"],
)
def test_flags_in_shared_memory(how: str, fence: str, seen: str, fence_after: str, codes: set[str]) -> None:
    """One warp writes and sets a flag, the other waits for the flag and reads."""
    first = NO_FLAG + WRITE + SET.format(how=how, fence=fence)
    assert two_warps(first, SPIN.format(how=seen) + fence_after + READ) == codes


@pytest.mark.parametrize(("scope", "codes"), [("cta", {"shared_race"}), ("cluster", set())])
def test_strong_accesses_need_a_scope_that_holds_both(scope: str, codes: set[str]) -> None:
    body = f"""xor.b32 %t6, %rank, 1; mapa.shared::cluster.u32 %t7, %smem, %t6; mov.u32 %t8, 7;
st.shared.b32 [%smem+1024], 0;
{MEET}
@%one st.relaxed.{scope}.shared::cluster.b32 [%t7+1024], %t8;
ld.relaxed.{scope}.shared.b32 %t9, [%smem+1024];
{MEET}"""
    assert found(body, warps=1, **CLUSTER) == codes


ASYNC_COPY = "cp.async.ca.shared.global [%t4+2048], [%a], 4;\n"
ARRIVED = "cp.async.mbarrier.arrive.noinc.shared.b64 [%smem];\n"


@pytest.mark.parametrize(
    ("first", "second", "codes"),
    [
        (ASYNC_COPY + ARRIVED, WAIT + LANDED, set()),
        (ARRIVED + ASYNC_COPY, WAIT + LANDED, {"load_not_awaited"}),
        (ASYNC_COPY + WRITE + ARRIVED, WAIT + LANDED + READ, {"shared_race"}),
        (ASYNC_COPY + "cp.async.wait_all; bar.sync 1, 64;", "bar.sync 1, 64;" + LANDED, set()),
        (ASYNC_COPY + "bar.sync 1, 64;", "bar.sync 1, 64;" + LANDED, {"load_not_awaited"}),
    ],
    ids=["arrive", "arrive too early", "other memory", "wait_all", "no wait"],
)
def test_thread_copies(first: str, second: str, codes: set[str]) -> None:
    body = f"{START}shl.b32 %t4, %tid, 2; add.s32 %t4, %t4, %smem;\n{first}\nbra DONE;\nOTHER:\n{second}"
    assert found(body.replace("b64 [%smem], 1;", "b64 [%smem], 32;")) == codes


MMA = "tcgen05.mma.cta_group::1.kind::f16 [%t1], %d1, %d1, {idesc}, %p;"
COMMIT = "tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64"


@pytest.mark.parametrize(
    ("hand_on", "codes"),
    [
        ("tcgen05.fence::before_thread_sync;\n", set()),
        ("", {"tmem_race"}),
        (f"{COMMIT} [%smem+8];\n{waiting(5, '%smem+8')}", set()),
    ],
    ids=["fence", "nothing", "commit"],
)
def test_pipelined_operations_of_two_threads(hand_on: str, codes: set[str]) -> None:
    """Two threads multiply into one accumulator, one after the other."""
    values = (128 >> 4) << 16 | (128 >> 4) << 32 | 1 << 46
    mma = MMA.format(idesc=1 << 4 | 1 << 17 | 8 << 24)
    body = f"""
shl.b32 %t4, %tid, 5; add.s32 %t4, %t4, %smem; mov.u32 %r0, 0;
st.shared.v4.b32 [%t4+1024], {{%r0, %r0, %r0, %r0}}; st.shared.v4.b32 [%t4+1040], {{%r0, %r0, %r0, %r0}};
fence.proxy.async.shared::cta;
setp.ne.u32 %p, %tid, 0; @%p bra READY;
mbarrier.init.shared.b64 [%smem], 1; mbarrier.init.shared.b64 [%smem+8], 1;
mbarrier.init.shared.b64 [%smem+16], 1; {FENCE}
READY:
{ALLOC}
mov.b64 %d1, {values}; add.s32 %t4, %smem, 1024; shr.u32 %t4, %t4, 4; cvt.u64.u32 %d2, %t4;
add.s64 %d1, %d1, %d2;
mov.pred %p, 0;
setp.gt.u32 %q, %warp, 1; @%q bra JOIN;
@!%one bra JOIN;
setp.ne.u32 %q, %warp, 0; @%q bra SECOND;
{mma}
{hand_on}
mbarrier.arrive.shared.b64 _, [%smem];
{COMMIT} [%smem+16];
{waiting(6, "%smem+16")}
bra JOIN;
SECOND:
{waiting(7, "%smem")}
tcgen05.fence::after_thread_sync;
{mma}
{COMMIT} [%smem+8];
{waiting(8, "%smem+8", 1 if COMMIT in hand_on else 0)}
JOIN: bar.warp.sync -1;
{DEALLOC}"""
    assert found(body, warps=4, shared_bytes=8192) == codes
