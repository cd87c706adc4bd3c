"""Launch shapes, special registers, cluster launch control."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ptx_harness import DYNAMIC, FULL, OLD, lanes, run_kernel

from b200sim.gpus import B200
from b200sim.machine.schedule import Eager, ProgramOrder, SeededRandom

NAMES = ["%tid.x", "%tid.y", "%tid.z", "%ntid.x", "%ntid.y", "%ntid.z", "%ctaid.x", "%ctaid.y", "%ctaid.z",
         "%nctaid.x", "%nctaid.y", "%nctaid.z", "%clusterid.x", "%clusterid.y", "%clusterid.z",
         "%nclusterid.x", "%nclusterid.y",
         "%cluster_ctaid.x", "%cluster_ctaid.y", "%cluster_nctaid.x", "%cluster_nctaid.y", "%cluster_ctarank",
         "%cluster_nctarank", "%laneid", "%warpid", "%nwarpid", "%dynamic_smem_size"]  # fmt: skip


def test_special_registers():
    grid, block, cluster = (4, 4, 2), (20, 2, 2), (2, 2, 1)
    threads, ctas = 80, 32
    out = np.zeros((ctas, threads, len(NAMES)), np.uint32)
    reads = "".join(f"mov.u32 %v, {name}; st.global.b32 [%o+{4 * i}], %v;\n" for i, name in enumerate(NAMES))
    run_kernel(
        f""".reg .b64 %o, %w; .reg .b32 %i, %v; ld.param.u64 %o, [p0];
        mov.u32 %i, %ctaid.z; mov.u32 %v, %nctaid.y; mul.lo.s32 %i, %i, %v; mov.u32 %v, %ctaid.y;
        add.s32 %i, %i, %v;
        mov.u32 %v, %nctaid.x; mul.lo.s32 %i, %i, %v; mov.u32 %v, %ctaid.x; add.s32 %i, %i, %v;
        mul.lo.s32 %i, %i, {threads};
        mov.u32 %v, %warpid; shl.b32 %v, %v, 5; add.s32 %i, %i, %v; mov.u32 %v, %laneid; add.s32 %i, %i, %v;
        mul.wide.u32 %w, %i, {4 * len(NAMES)}; add.s64 %o, %o, %w; {reads}""",
        [out], grid=grid, block=block, cluster=cluster, shared=DYNAMIC, shared_bytes=96,
    )  # fmt: skip
    for (z, y, x), t in itertools.product(itertools.product(range(2), range(4), range(4)), range(threads)):
        found = dict(zip(NAMES, out[(z * 4 + y) * 4 + x, t].tolist(), strict=True))
        assert [found[f"%tid.{a}"] for a in "xyz"] == [t % 20, t // 20 % 2, t // 40]
        assert [found[f"%ctaid.{a}"] for a in "xyz"] == [x, y, z]
        assert [found[f"%clusterid.{a}"] for a in "xyz"] == [x // 2, y // 2, z]
        assert [found[f"%cluster_ctaid.{a}"] for a in "xy"] == [x % 2, y % 2]
        assert found["%cluster_ctarank"] == x % 2 + 2 * (y % 2)
        assert (found["%laneid"], found["%warpid"], found["%nwarpid"]) == (t % 32, t // 32, 3)
    fixed = {"%ntid": block, "%nctaid": grid, "%nclusterid": (2, 2), "%cluster_nctaid": cluster[:2]}
    for name, values in fixed.items():
        for axis, value in zip("xyz", values, strict=False):
            assert (out[:, :, NAMES.index(f"{name}.{axis}")] == value).all()
    assert (out[:, :, NAMES.index("%cluster_nctarank")] == 4).all()
    assert (out[:, :, NAMES.index("%dynamic_smem_size")] == 96).all()


def test_lane_masks_and_clocks():
    names = ["eq", "lt", "le", "gt", "ge"]
    found = lanes(
        "".join(f"mov.u32 %{n}, %lanemask_{n};" for n in names)
        + "mov.u64 %c0, %clock64; mov.u64 %t0, %globaltimer; nanosleep.u32 1; mov.u64 %c1, %clock64; "
          "mov.u64 %t1, %globaltimer;",
        {f"%{n}": 32 for n in names} | dict.fromkeys(("%c0", "%c1", "%t0", "%t1"), 64),
    )  # fmt: skip
    for i in range(32):
        low = (1 << i) - 1
        expected = {
            "eq": 1 << i,
            "lt": low,
            "le": low | 1 << i,
            "gt": FULL & ~(low | 1 << i),
            "ge": FULL & ~low,
        }
        assert {n: found[f"%{n}"][i] for n in names} == expected
        assert found["%c1"][i] > found["%c0"][i] and found["%t1"][i] > found["%t0"][i]


@pytest.mark.parametrize("threads", [1, 31, 33, 100])
def test_partial_warps(threads):
    """Threads that do not exist write nothing, take no part in votes, and are not waited for."""
    out = np.zeros(128, np.uint32)
    run_kernel(
        """.reg .b64 %o, %w; .reg .b32 %t, %v; ld.param.u64 %o, [p0]; mov.u32 %t, %tid.x;
            mul.wide.u32 %w, %t, 4;
        add.s64 %o, %o, %w; vote.sync.ballot.b32 %v, 1, -1; bar.sync 0; st.global.b32 [%o], %v;""",
        [out], block=(threads, 1, 1),
    )  # fmt: skip
    expected = [0] * 128
    for t in range(threads):
        in_warp = min(threads - t // 32 * 32, 32)
        expected[t] = (1 << in_warp) - 1
    assert out.tolist() == expected


def test_more_clusters_than_fit_run_one_after_the_other():
    out = np.zeros(50, np.uint32)
    machine = run_kernel(
        """.reg .b64 %o, %w; .reg .b32 %c; ld.param.u64 %o, [p0]; mov.u32 %c, %ctaid.x;
            mul.wide.u32 %w, %c, 4;
        add.s64 %o, %o, %w; add.s32 %c, %c, 1; red.global.add.u32 [%o], %c;""",
        [out], grid=(50, 1, 1), cluster=(2, 1, 1), gpu=B200.with_sms(4),
    )  # fmt: skip
    assert (out == 32 * np.arange(1, 51)).all()
    assert machine.counters.warp_instructions == 50 * 7


CLC = """
.reg .b64 %o, %w; .reg .b32 %s, %x, %y, %z, %r, %l, %n, %parity; .reg .b128 %h;
.reg .pred %p, %q, %one, %first, %won;
ld.param.u64 %o, [p0]; mov.u32 %s, smem; mov.u32 %x, %ctaid.x; mov.u32 %y, %ctaid.y;
mov.u32 %r, %cluster_ctarank;
mov.u32 %l, %laneid; setp.eq.u32 %one, %l, 0; @%one mbarrier.init.shared.b64 [%s], 1; mov.b32 %parity, 0;
setp.eq.u32 %first, %r, 0; and.pred %first, %first, %one;
barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
TILE: mov.u32 %n, %nctaid.x; mad.lo.s32 %n, %y, %n, %x; mul.wide.u32 %w, %n, 4; add.s64 %w, %w, %o;
@%one red.global.add.u32 [%w], 1;
@%one mbarrier.arrive.expect_tx.shared.b64 _, [%s], 16;
barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
@%first
clusterlaunchcontrol.try_cancel.async.shared::cta.mbarrier::complete_tx::bytes.multicast::cluster::all.b128
  [smem+16], [%s];
W: mbarrier.try_wait.parity.shared.b64 %q, [%s], %parity, 100000; @!%q bra W; xor.b32 %parity, %parity, 1;
ld.shared.b128 %h, [smem+16]; clusterlaunchcontrol.query_cancel.is_canceled.pred.b128 %won, %h;
@!%won bra END;
clusterlaunchcontrol.query_cancel.get_first_ctaid::x.b32.b128 %x, %h; add.s32 %x, %x, %r;
clusterlaunchcontrol.query_cancel.get_first_ctaid::y.b32.b128 %y, %h;
clusterlaunchcontrol.query_cancel.get_first_ctaid.v4.b32.b128 {%n, %z, _, _}, %h; setp.ne.u32 %p, %z, %y;
@%p trap;
bra TILE; END:
"""


@pytest.mark.parametrize("order", [ProgramOrder, Eager, lambda: SeededRandom(4)])
@pytest.mark.parametrize("sms", [2, 6, 148])
def test_cluster_launch_control(order, sms):
    """Every tile is done exactly once, by the cluster it was launched for or by one that took it over."""
    out = np.zeros((3, 8), np.uint32)
    machine = run_kernel(CLC, [out], grid=(8, 3, 1), cluster=(2, 1, 1), shared=DYNAMIC, shared_bytes=64,
                         gpu=B200.with_sms(sms), schedule=order())  # fmt: skip
    assert (out == 1).all()
    assert machine.counters.warp_instructions > 0


def test_hints_change_nothing():
    found = lanes(
        """ld.param.u64 %q, [p2]; prefetch.global.L2 [%q]; prefetch.tensormap [%q]; fence.acq_rel.gpu;
            membar.gl;
        fence.proxy.async; fence.mbarrier_init.release.cluster; griddepcontrol.wait;
        griddepcontrol.launch_dependents;
        createpolicy.fractional.L2::evict_first.b64 %q, 1.0;""",
        {"%d": 32}, declare=".reg .b64 %q;", arrays=[np.zeros(128, np.uint8)],
    )  # fmt: skip
    assert found["%d"] == [OLD[32]] * 32
