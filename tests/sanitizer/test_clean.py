"""No findings where there is no defect: the pipeline under many schedules, and its benign variants."""

import numpy as np
import pytest

from b200sim.machine.schedule import exploration, schedule
from b200sim.sanitizer import Report, sanitize_grid
from tests.sanitizer.corpus_ptx import PtxDefect
from tests.sanitizer.corpus_small import ALLOC, DEALLOC, LD, ST, phases, scaled, small
from tests.sanitizer.pipeline import KERNEL, changed
from tests.sanitizer.run import run_ptx


def report_of(body: PtxDefect, **how) -> Report:
    def make(order):
        arrays, _ = body.data()
        return body.grid(arrays, order)

    return sanitize_grid(make, **how)


@pytest.mark.parametrize("name", exploration(24, 3))
def test_the_pipeline_is_clean_and_right(name: str) -> None:
    outcome = run_ptx(PtxDefect("clean", "", KERNEL), lambda: schedule(name))
    assert outcome.values == "right"
    assert [f.message for f in outcome.findings] == []


BENIGN = {
    "mbarriers initialised by all lanes": KERNEL.replace("@!%leader bra NOINIT;\n", ""),
    "store issued by all lanes": KERNEL.replace(
        "setp.ne.u32 %p, %tid, 0; @%p bra NOSTORE;", "setp.ne.u32 %p, %warp, 0; @%p bra NOSTORE;"
    )
    .replace("setp.ne.u32 %p, %tid, 0; @%p bra NOTFIRST;", "setp.ne.u32 %p, %warp, 0; @%p bra NOTFIRST;")
    .replace("setp.ne.u32 %p, %tid, 0; @%p bra JOIN;", "setp.ne.u32 %p, %warp, 0; @%p bra JOIN;"),
    "an empty bulk group": KERNEL.replace(
        "cp.async.bulk.commit_group;", "cp.async.bulk.commit_group; cp.async.bulk.commit_group;"
    ),
    "wait_group without .read": changed("wait group", "wait_group.read", "wait_group"),
}


@pytest.mark.parametrize("name", BENIGN)
def test_benign_patterns_are_no_errors(name: str) -> None:
    outcome = run_ptx(PtxDefect(name, "", BENIGN[name]))
    assert outcome.values == "right"
    assert [f.message for f in outcome.findings.errors] == []


def test_wait_ld_is_not_missed_where_the_registers_were_read() -> None:
    used = LD.replace("tcgen05.wait::ld.sync.aligned;", "add.s32 %t3, %t3, 1;")
    body = ALLOC + ST + "tcgen05.wait::st.sync.aligned;\n" + used + DEALLOC
    findings = run_ptx(small("consumed", "", body, warps=4)).findings
    assert findings.codes() == {"wait_ld_missing"} and not findings.errors
    unread = body.replace("add.s32 %t3, %t3, 1;", "")
    assert "tmem_freed_in_use" in run_ptx(small("not consumed", "", unread, warps=4)).findings.codes()


def test_fence_by_the_writer_covers_all_its_earlier_writes_and_no_later_ones() -> None:
    late = KERNEL.replace(
        "fence.proxy.async.shared::cta; // @proxy fence",
        "fence.proxy.async.shared::cta; st.shared.b32 [%line], %r0; // @proxy fence",
    )
    outcome = run_ptx(PtxDefect("written after the fence", "", late))
    assert outcome.findings.codes() == {"proxy_fence_missing"}
    assert outcome.values == "right"


@pytest.mark.parametrize(("bytes_", "racy"), [(2, False), (4, True)])
def test_elements_smaller_than_a_shadow_cell_do_not_collide(bytes_: int, racy: bool) -> None:
    store = f"shl.b32 %t1, %warp, 1; add.s32 %t1, %t1, %smem; @%one st.shared.b{8 * bytes_} [%t1+1024], "
    value = "%tid;" if bytes_ == 4 else "%h;"
    body = ".reg .b16 %h; cvt.u16.u32 %h, %tid;\n" + store + value
    if racy:
        body = body.replace("shl.b32 %t1, %warp, 1;", "shl.b32 %t1, %warp, 2; and.b32 %t1, %t1, 0;")
    found = run_ptx(small("halves", "", body, warps=2)).findings.codes()
    assert ("shared_race" in found) == racy


@pytest.mark.parametrize("scales", ["0x38383838", "0x80808080", "0xFF80807F"])
def test_the_sign_of_zero_and_nan_scale_factors_is_no_finding(scales: str) -> None:
    body = small("scales", "", scaled(scales), warps=4, launch={"shared_bytes": 16384})
    assert run_ptx(body).findings.codes() == set()


def test_phases_that_somebody_else_waited_for_need_no_wait() -> None:
    """The barrier at the end says that warp 1 has seen them all."""
    body = phases(2, "bar.sync 2, 64;", "bar.sync 2, 64;")
    assert run_ptx(small("phases", "", body, warps=2)).findings.codes() == set()


def test_findings_do_not_depend_on_the_order_of_the_run() -> None:
    """The unordered pair is the same whichever side happens first."""
    body = KERNEL.replace("tcgen05.wait::ld.sync.aligned;", "")
    for name in ("program-order", "eager", "consumers-first", "random:5"):
        outcome = run_ptx(PtxDefect("no wait", "", body), lambda name=name: schedule(name))
        assert "tmem_overwritten_while_loading" in outcome.findings.codes(), name
        assert np.all(outcome.values == "right")
