"""CTAs that meet in global memory: what is ordered stays silent in every order; what reports say."""

import pytest

from b200sim.machine.schedule import schedule
from b200sim.sanitizer.findings import Finding
from tests.sanitizer.corpus_global import (
    CTAS,
    GLOBAL_CLEAN,
    GLOBAL_DEFECTS,
    last_adds,
    meeting,
    message,
    sums,
)
from tests.sanitizer.corpus_ptx import PtxDefect
from tests.sanitizer.corpus_small import waiting
from tests.sanitizer.run import run_ptx

ORDERS = ("program-order", "eager", "consumers-first", "late:bulk", "starve:0", "random:1", "random:2")


def findings_of(body: PtxDefect, order: str = "program-order") -> list[Finding]:
    return list(run_ptx(body, lambda: schedule(order)).findings)


@pytest.mark.parametrize("body", GLOBAL_CLEAN, ids=lambda body: body.name)
def test_kernels_whose_ctas_meet_are_clean(body: PtxDefect) -> None:
    for order in ORDERS if "," not in body.name else ORDERS[:1]:
        outcome = run_ptx(body, lambda order=order: schedule(order))
        assert outcome.values == "right", order
        assert [f.message for f in outcome.findings] == [], order


@pytest.mark.parametrize("body", GLOBAL_DEFECTS[::3], ids=lambda body: body.name)
def test_defects_are_found_in_whatever_order(body: PtxDefect) -> None:
    for order in ORDERS[1:]:
        assert body.code in {f.code for f in findings_of(body, order)}, order


def test_a_report_names_the_missing_release_or_acquire() -> None:
    unreleased = findings_of(meeting("", "", message("st.relaxed.gpu.global.b32 [%a], 1;")))
    assert {f.edge.split(":")[0] for f in unreleased} == {"no release by CTA (0,0,0)"}
    unacquired = findings_of(meeting("", "", message(poll="ld.relaxed.gpu.global.b32")))
    assert {f.edge.split(":")[0] for f in unacquired} == {"no acquire by CTA (1,0,0)"}
    early = findings_of(meeting("", "", message(before="")))
    assert {f.edge.split(";")[0] for f in early} == {"no release by CTA (0,0,0) after this access"}


def test_a_report_names_the_scope_and_who_has_it() -> None:
    narrow = message("fence.acq_rel.cta; st.relaxed.gpu.global.b32 [%a], 1;")
    [pair] = findings_of(meeting("", "", narrow))
    assert pair.edge.startswith("fence.acq_rel.cta of CTA (0,0,0) warp 0 (PTX line ")
    assert pair.edge.endswith("has scope .cta; .gpu or wider would include both threads")
    assert pair.first is not None and pair.first.as_dict()["by"] == "CTA (0,0,0) warp 1"


def relayed(load: str) -> str:
    """`message`, but CTA 1 waits for the flag with `load` and does `{tell}`, and CTA 2 is the consumer."""
    return message().replace(
        "CONSUMER:",
        f"""CONSUMER:
    setp.ne.u32 %p, %rank, 1; @%p bra LAST;
    setp.ne.u32 %q, %tid, 0; @%q bra DONE;
    RELAY: {load}.gpu.global.b32 %t2, [%a]; setp.eq.u32 %p, %t2, 0; @%p bra RELAY;
    {{tell}} bra DONE;
    LAST:""",
    )


def test_what_a_cta_acquired_goes_on_to_its_warps_and_to_ctas_that_acquire_from_it() -> None:
    """CTA 0 tells CTA 1, and CTA 1 tells CTA 2, which reads what CTA 0 wrote."""
    body = relayed("ld.acquire").replace(
        "POLL: ld.acquire.gpu.global.b32 %t2, [%a]", "POLL: ld.acquire.gpu.global.b32 %t2, [%a+4]"
    )
    released = meeting("", "", body.replace("{tell}", "st.release.gpu.global.b32 [%a+4], 1;"), ctas=3)
    assert findings_of(released) == []
    relaxed = meeting("", "", body.replace("{tell}", "st.relaxed.gpu.global.b32 [%a+4], 1;"), ctas=3)
    assert {f.code for f in findings_of(relaxed)} == {"global_read_unordered"}


def test_every_part_of_a_counter_counts() -> None:
    """One CTA of four adds to the counter without a fence: its part is not ordered, the others' are."""
    fence = "setp.eq.u32 %p, %rank, 2; @%p bra NOFENCE; fence.acq_rel.gpu; NOFENCE:"
    found = findings_of(meeting("", "", last_adds(before=fence), sums, CTAS))
    assert {f.code for f in found} == {"global_read_unordered"}
    assert {f.first.as_dict()["by"].split(" warp")[0] for f in found if f.first} == {"CTA (2,0,0)"}


def test_a_plain_store_ends_what_was_released_before_it() -> None:
    """CTA 1 stores to the flag where CTA 0 has released: who reads that store learns nothing of CTA 0."""
    body = relayed("ld.relaxed").replace(
        "setp.eq.u32 %p, %t2, 0; @%p bra POLL", "setp.ne.u32 %p, %t2, 3; @%p bra POLL"
    )
    store = meeting("", "", body.replace("{tell}", "st.relaxed.gpu.global.b32 [%a], 3;"), ctas=3)
    assert {f.code for f in findings_of(store)} == {"global_read_unordered"}
    atomic = meeting("", "", body.replace("{tell}", "red.relaxed.gpu.global.add.u32 [%a], 2;"), ctas=3)
    assert findings_of(atomic) == []  # PTX ISA 8.9.2: a chain of atomic operations goes on


@pytest.mark.parametrize(("width", "racy"), [(8, False), (16, False), (32, True)])
def test_neighbouring_elements_of_two_ctas_do_not_collide(width: int, racy: bool) -> None:
    """Each CTA stores `width` bits at its own byte or half word."""
    step = 1 if width == 8 else 2
    body = f".reg .b16 %h; cvt.u16.u32 %h, %rank; mul.wide.u32 %d4, %rank, {step}; add.s64 %d4, %d4, %a;\n"
    if racy:
        body = "shr.u32 %t2, %rank, 1; mul.wide.u32 %d4, %t2, 4; add.s64 %d4, %d4, %a;\n"
    body += f"setp.ne.u32 %q, %tid, 0; @%q bra DONE; st.global.b{width} [%d4], {'%rank' if racy else '%h'};"
    found = {f.code for f in findings_of(meeting("", "", body, ctas=4))}
    assert found == ({"global_race"} if racy else set())


def test_a_fence_hands_on_what_a_relaxed_wait_before_it_saw() -> None:
    """Warp 1 tells warp 0 by an mbarrier, waited for relaxed; the fence of warp 0 acquires and releases."""
    wait = waiting(1, "%smem").replace("try_wait.parity", "try_wait.parity.relaxed.cta")
    told = f"""setp.ne.u32 %q, %warp, 0; @%q mbarrier.arrive.shared.b64 _, [%smem]; @%q bra DONE;
    {wait}"""
    init = (
        "setp.ne.u32 %q, %tid, 0; @%q bra READY; mbarrier.init.shared.b64 [%smem], 32; READY: bar.sync 0;\n"
    )
    ordered = message(before=told + "\nsetp.ne.u32 %q, %tid, 0; @%q bra DONE;")
    assert findings_of(meeting("", "", init + ordered)) == []
    early = ordered.replace(wait, "fence.acq_rel.gpu;" + wait).replace(
        "fence.acq_rel.gpu; st.relaxed", "st.relaxed"
    )
    assert {f.code for f in findings_of(meeting("", "", init + early))} == {"global_read_unordered"}
