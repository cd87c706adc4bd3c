"""wgmma under the sanitizer: what it reads of shared memory must have arrived, and stay until it is over."""

from __future__ import annotations

import numpy as np
import pytest

from b200sim.machine.grid import Grid
from b200sim.machine.schedule import Schedule
from b200sim.sanitizer import Report, sanitize_grid
from tests.b200sim.ptx_harness import DYNAMIC, aligned, make_grid, module

N, SHARED = 16, 8192
A_AT, B_AT, BAR = 1024, 1024 + 64 * 32, 0  # core matrices: 8 rows x 16 B, SBO 256, LBO 128
DESCRIPTOR = 256 >> 4 << 32 | 128 >> 4 << 16
BYTES = (64 + N) * 32
D = "{" + ", ".join(f"%d{i}" for i in range(N // 2)) + "}"

START = f"""
.reg .b64 %a, %c, %da, %db, %t64; .reg .b32 %t, %s, %v, %u, %d<{N // 2}>; .reg .pred %p, %first, %q;
ld.param.u64 %a, [p0]; ld.param.u64 %c, [p1];
mov.u32 %t, %tid.x; mov.u32 %s, smem; setp.eq.u32 %first, %t, 0;
add.s32 %v, %s, {A_AT}; shr.u32 %v, %v, 4; or.b32 %v, %v, {DESCRIPTOR & 0xFFFFFFFF};
mov.b64 %da, {{%v, {DESCRIPTOR >> 32}}};
add.s32 %v, %s, {B_AT}; shr.u32 %v, %v, 4; or.b32 %v, %v, {DESCRIPTOR & 0xFFFFFFFF};
mov.b64 %db, {{%v, {DESCRIPTOR >> 32}}};
@%first mbarrier.init.shared.b64 [%s], 1; bar.sync 0;
"""
LOAD = f"""@%first mbarrier.arrive.expect_tx.shared.b64 _, [%s], {BYTES};
@%first cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%s+{A_AT}], [%a], {BYTES}, [%s];
"""
LANDED = "WAIT0: mbarrier.try_wait.parity.shared.b64 %q, [%s], 0; @!%q bra WAIT0;\n"
LANDED_AGAIN = "WAIT1: mbarrier.try_wait.parity.shared.b64 %q, [%s], 1; @!%q bra WAIT1;\n"
# Thread t copies 20 bytes: 128 threads, 2560 bytes
STORE = (
    "mul.lo.u32 %u, %t, 20; cvt.u64.u32 %t64, %u; add.s64 %t64, %t64, %a; add.s32 %u, %u, %s;\n"
    + "".join(
        f"ld.global.b32 %v, [%t64+{4 * i}]; st.shared.b32 [%u+{A_AT + 4 * i}], %v;\n"
        for i in range(BYTES // 512)
    )
)
MULTIPLY = f"""wgmma.fence.sync.aligned;
wgmma.mma_async.sync.aligned.m64n{N}k16.f32.f16.f16 {D}, %da, %db, 0, 1, 1, 0, 0;
wgmma.commit_group.sync.aligned;
"""
DONE = "wgmma.wait_group.sync.aligned 0;\n"
FENCE, BARRIER = "fence.proxy.async;\n", "bar.sync 0;\n"
END = f"mul.lo.u32 %u, %t, {2 * N}; cvt.u64.u32 %t64, %u; add.s64 %c, %c, %t64;\n" + "".join(
    f"st.global.b32 [%c+{4 * i}], %d{i};\n" for i in range(N // 2)
)


def found(body: str, schedules: int = 1) -> Report:
    def grid(order: Schedule) -> Grid:
        values = np.random.default_rng(1).integers(-4, 5, BYTES // 2).astype(np.float16)
        arrays = [aligned(values), aligned(np.zeros(128 * N // 2, np.float32))]
        text = module(START + body + END + "ret;", 2, DYNAMIC, "sm_90a")
        return make_grid(text, arrays, block=(128, 1, 1), shared_bytes=SHARED, schedule=order)

    return sanitize_grid(grid, schedules=schedules)


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        (LOAD + LANDED + MULTIPLY + DONE, set()),
        (LOAD + MULTIPLY + DONE, {"load_not_awaited"}),
        (STORE + FENCE + BARRIER + MULTIPLY + DONE, set()),
        (STORE + BARRIER + MULTIPLY + DONE, {"proxy_fence_missing"}),
        (STORE + FENCE + MULTIPLY + DONE, {"shared_race"}),
        (MULTIPLY + DONE, {"uninitialised_shared"}),
        # the operands' memory is filled again
        (LOAD + LANDED + MULTIPLY + DONE + BARRIER + LOAD + LANDED_AGAIN, set()),
        (LOAD + LANDED + MULTIPLY + BARRIER + LOAD + DONE + LANDED_AGAIN, {"stage_overwritten"}),
        (LOAD + LANDED + MULTIPLY + DONE + BARRIER + STORE, set()),
        (LOAD + LANDED + MULTIPLY + BARRIER + STORE + DONE, {"stage_overwritten"}),
        # one warp's wait speaks for its warpgroup
        (
            LOAD + LANDED + MULTIPLY + "setp.ge.u32 %p, %t, 32; @%p bra OTHERS;\n" + DONE + LOAD
            + "OTHERS:\n" + DONE + LANDED_AGAIN,
            set(),
        ),
    ],
)  # fmt: skip
def test_wgmma(body: str, codes: set[str]) -> None:
    """These codes, or nothing; what comes too early may break other rules as well."""
    report = found(body)
    errors = {finding.code for finding in report.findings.errors}
    assert codes <= errors and bool(errors) == bool(codes), report.text()


def test_a_group_that_is_still_under_way_keeps_its_operands() -> None:
    """wait_group 1 covers the first group only; both read the same place."""
    body = LOAD + LANDED + MULTIPLY + MULTIPLY + "wgmma.wait_group.sync.aligned 1;\n" + BARRIER + STORE + DONE
    assert {finding.code for finding in found(body).findings.errors} == {"stage_overwritten"}


def test_what_is_found_names_both_sides_and_the_missing_edge() -> None:
    errors = found(LOAD + LANDED + MULTIPLY + BARRIER + STORE + DONE).findings.errors
    for finding in errors:
        assert "write by st.shared.b32 is not ordered after the wgmma.mma_async (" in finding.message
        assert "no wgmma.wait_group that covers it by a warp of its warpgroup" in finding.edge


def test_it_is_the_same_under_other_orders() -> None:
    report = found(LOAD + LANDED + MULTIPLY + DONE + BARRIER + LOAD + LANDED_AGAIN, schedules=8)
    assert report.ok and len(report.explored) == 8


def test_leaving_without_waiting() -> None:
    report = found(LOAD + LANDED + MULTIPLY + "ret;\n")
    assert "peer_exited" in report.findings.codes()
