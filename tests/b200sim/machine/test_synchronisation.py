"""Barriers: named, cluster, mbarrier; their phases, counts and misuse."""

from __future__ import annotations

import numpy as np
import pytest
from ptx_harness import DYNAMIC, lanes, run_kernel

from b200sim.faults import Fault

HEAD = """.reg .b64 %o, %w, %st; .reg .b32 %t, %l, %wid, %v, %u, %r; .reg .pred %p, %q, %one, %first;
ld.param.u64 %o, [p0]; mov.u32 %t, %tid.x; mov.u32 %l, %laneid; mov.u32 %wid, %warpid;
mov.u32 %r, %cluster_ctarank;
setp.eq.u32 %first, %t, 0; setp.eq.u32 %one, %l, 0;
"""


def run(body: str, words: int = 64, threads: int = 32, **launch) -> np.ndarray:
    out = np.zeros(words, np.uint32)
    run_kernel(HEAD + body, [out], shared=DYNAMIC, shared_bytes=1024, block=(threads, 1, 1), **launch)
    return out


# -- named barriers ---------------------------------------------------------------------------------------


def test_bar_sync_orders_all_warps():
    """Every warp writes, all meet, every warp reads its neighbour's word; several rounds."""
    out = run(
        """shl.b32 %u, %wid, 2; add.s32 %u, %u, smem; mov.b32 %v, 1;
        ROUND: mad.lo.s32 %t, %v, 100, %wid; st.shared.b32 [%u], %t; bar.sync 0;
        add.s32 %t, %wid, 1; and.b32 %t, %t, 3; shl.b32 %t, %t, 2; add.s32 %t, %t, smem;
        ld.shared.b32 %t, [%t];
        mul.wide.u32 %w, %wid, 4; add.s64 %w, %o, %w; st.global.b32 [%w], %t;
        bar.sync 0; add.s32 %v, %v, 1; setp.lt.s32 %p, %v, 4; @%p bra ROUND;""",
        threads=128,
    )  # fmt: skip
    assert out[:4].tolist() == [301, 302, 303, 300]


def test_producer_consumer_with_arrive_and_register_operands():
    """Warp 0 arrives without waiting on barrier 3, warps 1 and 2 wait there; warp 3 is not concerned."""
    out = run(
        """setp.eq.u32 %p, %wid, 3; @%p ret; mov.b32 %v, 3; mov.b32 %u, 96;
        setp.ne.u32 %p, %wid, 0; @%p bra WAIT; st.shared.b32 [smem], 55; bar.arrive 3, 96; ret;
        WAIT: bar.sync %v, %u; ld.shared.b32 %t, [smem]; mul.wide.u32 %w, %wid, 4; add.s64 %w, %o, %w;
        st.global.b32 [%w], %t;""",
        threads=128,
    )  # fmt: skip
    assert out[:4].tolist() == [0, 55, 55, 0]


def test_exited_warps_are_not_waited_for():
    """A barrier without a count waits for the warps that are left, whenever the others exit."""
    out = run(
        """setp.eq.u32 %p, %wid, 0; @%p ret;
        setp.ne.u32 %q, %wid, 3; @%q bra SYNC; bar.sync 1, 32; ret;
        SYNC: bar.sync 0; red.global.add.u32 [%o], 1; bar.sync 0; st.global.b32 [%o+4], 1;""",
        threads=128,
    )  # fmt: skip
    assert out[:2].tolist() == [64, 1]


def test_bar_red():
    out = run(
        """setp.lt.u32 %p, %t, 40; bar.red.popc.u32 %v, 0, %p; st.global.b32 [%o], %v;
        bar.red.and.pred %q, 0, %p; selp.b32 %v, 1, 2, %q; st.global.b32 [%o+4], %v;
        bar.red.or.pred %q, 0, 64, %p; selp.b32 %v, 1, 2, %q; st.global.b32 [%o+8], %v;
        setp.ge.u32 %p, %t, 0; bar.red.and.pred %q, 0, %p; selp.b32 %v, 1, 2, %q; st.global.b32 [%o+12], %v;
        bar.red.or.pred %q, 0, !%p; selp.b32 %v, 1, 2, %q; st.global.b32 [%o+16], %v;""",
        threads=64,
    )  # fmt: skip
    assert out[:5].tolist() == [40, 2, 1, 1, 2]


@pytest.mark.parametrize(
    ("code", "body"),
    [
        ("barrier_number", "bar.sync 16;"),
        ("barrier_count", "bar.sync 1, 33;"),
        ("barrier_count", "bar.sync 1, 0;"),
        ("barrier_count", "shl.b32 %v, %wid, 5; add.s32 %v, %v, 64; bar.sync 1, %v;"),
        ("barrier_count", "setp.eq.u32 %p, %wid, 0; @%p bar.arrive 2, 64; setp.eq.u32 %p, %wid, 1; "
                          "@%p bar.arrive 2, 96;"),
        ("divergent_aligned", "setp.lt.u32 %p, %l, 7; @%p bar.sync 0; bar.sync 1;"),
        ("divergent_aligned", "setp.lt.u32 %p, %l, 7; @%p bra L; bar.sync 0; bra M; L: bar.sync 0; M:"),
        ("not_uniform", "and.b32 %v, %l, 1; bar.sync %v, 64;"),
        ("unsupported", "setp.lt.u32 %p, %l, 7; @%p barrier.sync 0, 64; bar.sync 1;"),
    ],
)  # fmt: skip
def test_named_barrier_misuse(code, body):
    with pytest.raises(Fault) as caught:
        run(body, threads=128)
    assert caught.value.code == code


# -- cluster barrier --------------------------------------------------------------------------------------


def test_cluster_barrier_orders_ctas():
    out = run(
        """shl.b32 %v, %r, 2; mov.u32 %u, smem; mapa.shared::cluster.u32 %u, %u, 0; add.s32 %u, %u, %v;
            add.s32 %v, %r, 70;
        setp.eq.u32 %p, %wid, 0; @%p st.shared::cluster.b32 [%u], %v;
        barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;
        setp.ne.u32 %p, %r, 0; @%p bra END;
        ld.shared.v4.b32 {%v, %u, %t, %l}, [smem]; st.global.v4.b32 [%o], {%v, %u, %t, %l}; END:
        barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;""",
        threads=64, grid=(4, 1, 1), cluster=(4, 1, 1),
    )  # fmt: skip
    assert out[:4].tolist() == [70, 71, 72, 73]


@pytest.mark.parametrize("arrives_first", [True, False])
def test_cluster_barrier_with_warps_that_exit(arrives_first):
    """A warp that exits counts as arrived, once, whether it has arrived in this phase or not."""
    arrive = "barrier.cluster.arrive.aligned;" if arrives_first else ""
    out = run(
        f"""setp.ne.u32 %p, %wid, 1; @%p bra STAY; {arrive} ret;
        STAY: barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
        setp.ne.u32 %p, %wid, 0; @%p bra LATE; st.shared.b32 [smem], 5;
        LATE: barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; ld.shared.b32 %v, [smem];
        setp.eq.u32 %p, %wid, 2; @%p st.global.b32 [%o], %v;""",
        threads=96,
    )  # fmt: skip
    assert out[0] == 5


@pytest.mark.parametrize(
    "body", ["barrier.cluster.wait.aligned;", "barrier.cluster.arrive; barrier.cluster.arrive;"]
)
def test_cluster_barrier_misuse(body):
    with pytest.raises(Fault) as caught:
        run(body, grid=(2, 1, 1), cluster=(2, 1, 1))
    assert caught.value.code == "cluster_barrier"


# -- mbarriers --------------------------------------------------------------------------------------------

INIT = "@%first mbarrier.init.shared.b64 [smem], COUNT; bar.sync 0;"
WAIT = "LABEL: mbarrier.try_wait.parity.shared::cta.b64 %q, [smem], PARITY, 10000000; @!%q bra LABEL;"


def wait(parity: int, label: str) -> str:
    return WAIT.replace("LABEL", label).replace("PARITY", str(parity))


def test_fresh_barrier_phases_and_parity():
    """Parity 1 of a fresh barrier has passed, parity 0 has not;
    both test_wait and one-shot try_wait say so."""
    answers = []
    for arrivals in range(4):
        snippet = "@%one mbarrier.init.shared.b64 [smem], 1; bar.warp.sync -1;\n"
        snippet += "@%one mbarrier.arrive.shared.b64 _, [smem];\n" * arrivals
        snippet += "".join(
            f"mbarrier.{kind}.parity.shared::cta.b64 %p{i}{parity}, [smem], {parity};\n"
            for i, kind in enumerate(("test_wait", "try_wait"))
            for parity in (0, 1)
        )
        names = {f"%p{i}{parity}": 1 for i in (0, 1) for parity in (0, 1)}
        found = lanes(snippet, names, {"%one": (1, [1] + [0] * 31)}, shared_bytes=64)
        answers.append([found[name][0] for name in names])
        assert all(len(set(column)) == 1 for column in found.values())
    assert answers == [[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]


def test_state_tokens():
    """The token of arrive names its phase: it passes when that phase completes, and stays passed."""
    found = lanes(
        """@%one mbarrier.init.shared.b64 [smem], 2; bar.warp.sync -1; @!%one bra END;
        mbarrier.arrive.shared.b64 %s, [smem]; mbarrier.test_wait.shared.b64 %a, [smem], %s;
        mbarrier.arrive.shared.b64 %s2, [smem]; mbarrier.test_wait.shared.b64 %b, [smem], %s;
        mbarrier.arrive.shared.b64 %s2, [smem]; mbarrier.try_wait.shared.b64 %c, [smem], %s2, 100000;
        mbarrier.test_wait.acquire.cta.shared::cta.b64 %e, [smem], %s; END:""",
        {"%a": 1, "%b": 1, "%c": 1, "%e": 1}, {"%one": (1, [1] + [0] * 31)},
        declare=".reg .b64 %s, %s2;", shared_bytes=64,
    )  # fmt: skip
    assert [found[n][0] for n in ("%a", "%b", "%c", "%e")] == [0, 1, 0, 1]


def test_lanes_arrive_one_by_one_with_counts():
    """32 lanes arrive 1 each, then 3 lanes with counts of their own; only then does the phase complete."""
    found = lanes(
        """@%one mbarrier.init.shared.b64 [smem], 38; bar.warp.sync -1;
        mbarrier.arrive.release.cta.shared::cta.b64 _, [smem];
        mbarrier.test_wait.parity.shared.b64 %a, [smem], 0;
        setp.lt.u32 %p, %lane, 3; add.s32 %n, %lane, 1; @%p mbarrier.arrive.shared.b64 _, [smem], %n;
        mbarrier.test_wait.parity.shared.b64 %b, [smem], 0;""",
        {"%a": 1, "%b": 1}, {"%one": (1, [1] + [0] * 31)}, declare=".reg .pred %p; "
                                                                   ".reg .b32 %n;", shared_bytes=64,
    )  # fmt: skip
    assert set(found["%a"]) == {0} and set(found["%b"]) == {1}


def test_transactions_may_run_ahead():
    """Bytes that complete before they are expected make the count negative; the phase waits for both."""
    found = lanes(
        """@%one mbarrier.init.shared.b64 [smem], 2; bar.warp.sync -1; @!%one bra END;
        mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [smem], 48;
        mbarrier.arrive.shared.b64 _, [smem];
        mbarrier.test_wait.parity.shared.b64 %a, [smem], 0;
        mbarrier.arrive.expect_tx.shared.b64 _, [smem], 64;
        mbarrier.test_wait.parity.shared.b64 %b, [smem], 0;
        mbarrier.complete_tx.shared::cluster.b64 [smem], 16;
        mbarrier.test_wait.parity.shared.b64 %c, [smem], 0;
        mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [smem], 32; mbarrier.arrive.shared.b64 _, [smem], 2;
        mbarrier.test_wait.parity.shared.b64 %e, [smem], 1;
        mbarrier.complete_tx.shared::cluster.b64 [smem], 32;
        mbarrier.test_wait.parity.shared.b64 %f, [smem], 1; END:""",
        {f"%{c}": 1 for c in "abcef"}, {"%one": (1, [1] + [0] * 31)}, shared_bytes=64,
    )  # fmt: skip
    assert [found[f"%{c}"][0] for c in "abcef"] == [0, 0, 1, 0, 1]


def test_arrive_drop_lowers_the_next_phases():
    found = lanes(
        """@%one mbarrier.init.shared.b64 [smem], 3; bar.warp.sync -1; @!%one bra END;
        mbarrier.arrive_drop.shared.b64 _, [smem]; mbarrier.arrive.shared.b64 _, [smem], 2;
        mbarrier.test_wait.parity.shared.b64 %a, [smem], 0; mbarrier.arrive.shared.b64 _, [smem], 2;
        mbarrier.test_wait.parity.shared.b64 %b, [smem], 1; END:""",
        {"%a": 1, "%b": 1}, {"%one": (1, [1] + [0] * 31)}, shared_bytes=64,
    )  # fmt: skip
    assert found["%a"][0] == found["%b"][0] == 1


@pytest.mark.parametrize("hint", [", 10000000", ""])
@pytest.mark.parametrize("kind", ["try_wait", "test_wait"])
def test_waiting_warps_are_woken(kind, hint):
    """Loops with and without a time limit, and polling with test_wait, end when another warp arrives."""
    if kind == "test_wait" and hint:
        hint = ""
    out = run(
        INIT.replace("COUNT", "1")
        + f"""setp.eq.u32 %p, %wid, 1; @%p bra ARRIVE;
        SPIN: mbarrier.{kind}.parity.shared.b64 %q, [smem], 0{hint}; @%q bra GO; bra SPIN;
        GO: ld.shared.b32 %v, [smem+64]; st.global.b32 [%o], %v; ret;
        ARRIVE: st.shared.b32 [smem+64], 9; nanosleep.u32 20; @%one mbarrier.arrive.shared.b64 _, [smem];""",
        threads=64,
    )  # fmt: skip
    assert out[0] == 9


@pytest.mark.parametrize("kind", ["try_wait", "test_wait"])
def test_lanes_may_wait_for_barriers_of_their_own(kind):
    """Lane i < 4 waits for barrier i with a parity of its own; another warp completes them out of order."""
    arrivals = "".join(
        f"@%one mbarrier.arrive.shared.b64 _, [smem+{8 * i}]; nanosleep.u32 5; nanosleep.u32 5;\n"
        for i in (2, 1, 3, 1)
    )
    out = run(
        """setp.lt.u32 %p, %t, 4; shl.b32 %v, %l, 3; add.s32 %v, %v, smem;
        @%p mbarrier.init.shared.b64 [%v], 1; bar.sync 0;
        setp.eq.u32 %q, %wid, 1; @%q bra ARRIVE; @!%p bra END; setp.lt.u32 %p, %l, 2; selp.b32 %u, 1, 0, %p;
        """
        + f"SPIN: mbarrier.{kind}.parity.shared.b64 %q, [%v], %u; @!%q bra SPIN;"
        + f"""mul.wide.u32 %w, %l, 4; add.s64 %w, %w, %o; st.global.b32 [%w], 1; bra END;
        ARRIVE: {arrivals} END:""",
        threads=64,
    )  # fmt: skip
    assert out[:4].tolist() == [1, 1, 1, 1]


def test_remote_arrival_and_expect():
    """CTA 1 arrives with bytes on CTA 0's barrier by mapa, and by a generic address."""
    out = run(
        INIT.replace("COUNT", "2")
        + """barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
        setp.eq.u32 %p, %r, 0; @%p bra WAITER; @!%one bra END;
        mov.u32 %v, smem; mapa.shared::cluster.u32 %v, %v, 0;
        mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%v];
        cvt.u64.u32 %w, %v; cvta.shared::cluster.u64 %w, %w; mbarrier.arrive.b64 _, [%w], 1; bra END;
        WAITER: """ + wait(0, "W") + """st.global.b32 [%o], 3; END:
        barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;""",
        grid=(2, 1, 1), cluster=(2, 1, 1),
    )  # fmt: skip
    assert out[0] == 3


@pytest.mark.parametrize(
    ("code", "body"),
    [
        ("mbarrier_uninitialised", "mbarrier.arrive.shared.b64 _, [smem+8];"),
        ("mbarrier_uninitialised", "mbarrier.try_wait.parity.shared.b64 %p, [smem+16], 0;"),
        ("mbarrier_uninitialised", "@%first mbarrier.inval.shared.b64 [smem]; bar.sync 0; "
                                   "mbarrier.arrive.shared.b64 _, [smem];"),
        ("mbarrier_overflow", "@%first mbarrier.arrive.shared.b64 _, [smem], 3;"),
        ("mbarrier_overflow", "mbarrier.arrive.expect_tx.shared.b64 _, [smem], 16;"),
        ("mbarrier_count", "@%first mbarrier.init.shared.b64 [smem+8], 0;"),
        ("mbarrier_count", "@%first mbarrier.init.shared.b64 [smem+8], 1048576;"),
        ("mbarrier_misaligned", "@%first mbarrier.init.shared.b64 [smem+4], 1;"),
        ("mbarrier_reinit", "@%first mbarrier.arrive.shared.b64 _, [smem]; "
                            "@%first mbarrier.init.shared.b64 [smem], 2;"),
        ("mbarrier_tx", "@%first mbarrier.expect_tx.shared.b64 [smem], 1048576;"),
        ("mbarrier_parity", "mbarrier.try_wait.parity.shared.b64 %p, [smem], 2;"),
        ("shared_wrong_cta", "mov.u32 %v, smem; or.b32 %v, %v, 0x3000000; "
                             "@%first mbarrier.arrive.shared::cluster.b64 _, [%v];"),
        ("shared_wrong_cta", "mov.u32 %v, smem; or.b32 %v, %v, 0x1000000; "
                             "mbarrier.try_wait.parity.shared.b64 %p, [%v], 0;"),
        ("shared_wrong_cta", "mov.u32 %v, smem; or.b32 %v, %v, 0x1000000; "
                             "@%first mbarrier.arrive.shared::cta.b64 _, [%v];"),
    ],
)  # fmt: skip
def test_mbarrier_misuse(code, body):
    with pytest.raises(Fault) as caught:
        run(INIT.replace("COUNT", "2") + body)
    assert caught.value.code == code
    if "0x3000000" not in body and "smem+4" not in body:
        assert (
            "shared offset 0x4" in str(caught.value)
            or "CTA rank 1" in str(caught.value)
            or "parity 2" in str(caught.value)
        )


ALL_ARRIVE = "mbarrier.arrive.shared::cta.b64 _, [smem]; bar.sync 0;"


@pytest.mark.parametrize("count", [32, 33, 63, 64])
def test_lanes_arrive_at_once(count):
    """Twice 32 arrivals fill one phase of 64 or two of 32; one warp's are not shared among two phases."""
    body = INIT.replace("COUNT", str(count)) + ALL_ARRIVE + ALL_ARRIVE
    if count % 32 == 0:
        run(body)
        return
    with pytest.raises(Fault, match=f"bring 32 arrivals .* expects only {count - 32} more") as caught:
        run(body)
    assert caught.value.code == "mbarrier_overflow"


def test_lanes_with_barriers_of_their_own_do_not_add_up():
    """Lane i arrives i + 1 times at once on a barrier that awaits as many; its phase completes."""
    out = run(
        """mov.u32 %u, smem; shl.b32 %v, %l, 3; add.s32 %u, %u, %v; add.s32 %v, %l, 1;
        mbarrier.init.shared.b64 [%u], %v; mbarrier.arrive.shared.b64 _, [%u], %v;
        mbarrier.test_wait.parity.shared.b64 %p, [%u], 0;
        mul.wide.u32 %w, %l, 4; add.s64 %w, %w, %o; @%p st.global.b32 [%w], 1;"""
    )
    assert out[:32].tolist() == [1] * 32


def test_reinitialising_after_inval_is_fine():
    out = run(
        INIT.replace("COUNT", "1") + """@!%first bra END; mbarrier.arrive.shared.b64 _, [smem];
            mbarrier.inval.shared.b64 [smem];
        mbarrier.init.shared.b64 [smem], 5; mbarrier.arrive.shared.b64 _, [smem], 5;
        mbarrier.test_wait.parity.shared.b64 %p, [smem], 0; @%p st.global.b32 [%o], 1; END:"""
    )  # fmt: skip
    assert out[0] == 1


def test_arrival_at_a_cta_that_has_exited():
    with pytest.raises(Fault) as caught:
        run(
            """setp.eq.u32 %p, %r, 0; @%p bra HERE; ret;
            HERE: bar.sync 0; mov.b32 %u, 0; LOOP: nanosleep.u32 100; add.s32 %u, %u, 1;
            setp.lt.s32 %p, %u, 5; @%p bra LOOP;
            mov.u32 %v, smem; mapa.shared::cluster.u32 %v, %v, 1;
            @%one mbarrier.arrive.shared::cluster.b64 _, [%v];""",
            grid=(2, 1, 1), cluster=(2, 1, 1),
        )  # fmt: skip
    assert caught.value.code == "cta_exited"
    assert "CTA (1,0,0) (rank 1), which has exited" in str(caught.value)


def test_pending_counts_of_states():
    """A state tells how many arrivals were missing before the warp's, and still names its phase."""
    snippet = """
        @%one mbarrier.init.shared.b64 [smem], 40; bar.warp.sync 0xffffffff;
        mbarrier.arrive.noComplete.shared.b64 %s, [smem], 1; mbarrier.pending_count.b64 %n, %s;
        mbarrier.test_wait.shared.b64 %a, [smem], %s;
        @%one mbarrier.arrive.shared.b64 %s2, [smem], 8; bar.warp.sync 0xffffffff;
        mbarrier.test_wait.shared.b64 %b, [smem], %s; @%one mbarrier.pending_count.b64 %m, %s2;
    """
    found = lanes(
        snippet,
        {"%n": 32, "%m": 32, "%a": 1, "%b": 1},
        {"%one": (1, [int(i == 0) for i in range(32)])},
        declare=".reg .b64 %s, %s2;",
        shared_bytes=64,
    )
    assert found["%n"] == [40] * 32
    assert (found["%a"], found["%b"]) == ([0] * 32, [1] * 32)
    assert found["%m"][0] == 8
