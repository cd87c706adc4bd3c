"""Uninitialised values: silent while they decide nothing, an error with both places once they do."""

# ruff: noqa: E501
from __future__ import annotations

import pytest

from b200sim.sanitizer.findings import Finding
from tests.sanitizer.corpus_small import ALLOC, DEALLOC, MAP_START, small, waiting, with_map
from tests.sanitizer.run import run_ptx

# %t3 is poison in all lanes (from shared memory), %t4 is good; %d5 addresses an element per thread of C.
START = """
.reg .b16 %h<4>; .reg .f32 %f<4>;
ld.param.u64 %c, [p0]; mul.wide.u32 %d5, %tid, 4; add.s64 %d5, %c, %d5; and.b32 %r1, %tid, 31;
shl.b32 %t10, %tid, 4; add.s32 %t10, %t10, %smem;
ld.shared.b32 %t3, [%smem+2048];
mov.u32 %t4, 0;
"""
STORE = "st.global.b32 [%d5], %t5;"


def found(body: str, start: str = START, **more) -> list[Finding]:  # type: ignore[no-untyped-def]
    return list(run_ptx(small("values", "", start + body, **more)).findings)


SILENT = {
    "never used": "",
    "computed with, and dropped": "add.s32 %t5, %t3, 1; mul.lo.s32 %t5, %t5, %t5;",
    "overwritten": "mov.u32 %t5, %t3; mov.u32 %t5, 7;" + STORE,
    "not selected": "setp.ne.u32 %p, %t4, 0; selp.b32 %t5, %t3, %t4, %p;" + STORE,
    "not stored, by predicate": "setp.ne.u32 %p, %t4, 0; mov.u32 %t5, %t3; @%p " + STORE,
    "not stored, by branch": "setp.eq.u32 %p, %t4, 0; mov.u32 %t5, %t3; @%p bra DONE;" + STORE,
    "the other half stored": "cvt.u16.u32 %h1, %t4; cvt.u16.u32 %h2, %t3; mov.b32 %t5, {%h1, %h2};"
    "mov.b32 {%h3, _}, %t5; st.global.b16 [%d5], %h3;",
    "the other half of a conversion stored": "mov.b32 %f1, %t3; mov.b32 %f2, %t4;"
    "cvt.rn.f16x2.f32 %t5, %f1, %f2; st.global.b16 [%d5], %t5;",
    "masked": "and.b32 %t5, %t3, 0xFF00; shr.u32 %t5, %t5, 16;" + STORE,
    "shifted out": "shl.b32 %t5, %t3, 24; and.b32 %t5, %t5, 0xFF;" + STORE,
    "other bytes permuted": "prmt.b32 %t5, %t3, %t4, 0x7654;" + STORE,
    "false and unknown": "setp.ne.u32 %p, %t3, 0; setp.ne.u32 %q, %t4, 0; and.pred %p, %p, %q; @%p " + STORE,
    "through shared memory, not stored": "st.shared.b32 [%t10+512], %t3; ld.shared.b32 %t5, [%t10+512];",
    "written over in shared memory": "st.shared.b32 [%t10+512], %t3; st.shared.b32 [%t10+512], %t4;"
    "ld.shared.b32 %t5, [%t10+512];" + STORE,
    "another lane's": "setp.eq.u32 %p, %r1, 5; mov.u32 %t6, %t4; @%p mov.u32 %t6, %t3;"
    "shfl.sync.idx.b32 %t5, %t6, 4, 31, -1;" + STORE,
    "a ballot without its bit": "setp.ne.u32 %p, %t3, 0; setp.ne.u32 %q, %r1, 3; @%q setp.ne.u32 %p, %t4, 0;"
    "vote.sync.ballot.b32 %t5, %p, -1; and.b32 %t5, %t5, 0xF7;" + STORE,
    "the good element of a vector": "st.shared.b32 [%t10+512], %t4; ld.shared.v2.b32 {%t5, %t6}, [%t10+512];" + STORE,
    "written on both ways": "setp.lt.u32 %p, %tid, 16; @%p mov.u32 %r5, 1; @!%p mov.u32 %r5, 2; mov.u32 %t5, %r5;"
    + STORE,
}  # fmt: skip

REPORTED = {
    "stored": "mov.u32 %t5, %t3;" + STORE,
    "computed with, and stored": "add.s32 %t5, %t3, %t4; shr.u32 %t5, %t5, 3;" + STORE,
    "selected": "setp.eq.u32 %p, %t4, 0; selp.b32 %t5, %t3, %t4, %p;" + STORE,
    "chosen by": "setp.eq.u32 %p, %t3, 0; selp.b32 %t5, %t4, %r1, %p;" + STORE,
    "branched on": "setp.eq.u32 %p, %t3, 0; @%p bra DONE; mov.u32 %t5, 0;",
    "executed by": "setp.eq.u32 %p, %t3, 0; mov.u32 %t5, %t4; @%p " + STORE,
    "moved by": "setp.eq.u32 %p, %t3, 0; mov.u32 %t5, 1; @%p mov.u32 %t5, 2;" + STORE,
    "an address": "and.b32 %t5, %t3, 0xFC; add.s32 %t5, %t5, %smem; ld.shared.b32 %t5, [%t5];",
    "its half stored": "cvt.u16.u32 %h1, %t4; cvt.u16.u32 %h2, %t3; mov.b32 %t5, {%h1, %h2};"
    "mov.b32 {_, %h3}, %t5; st.global.b16 [%d5], %h3;",
    "the upper half of a conversion": "mov.b32 %f1, %t3; mov.b32 %f2, %t4; cvt.rn.f16x2.f32 %t5, %f1, %f2;"
    "shr.u32 %t5, %t5, 16;" + STORE,
    "true and unknown": "setp.ne.u32 %p, %t3, 0; setp.eq.u32 %q, %t4, 0; and.pred %p, %p, %q; mov.u32 %t5, 0; @%p "
    + STORE,
    "through shared memory": "st.shared.b32 [%t10+512], %t3; ld.shared.b32 %t5, [%t10+512];" + STORE,
    "through a matrix": "stmatrix.sync.aligned.m8n8.x1.shared.b16 [%t10+512], {%t3}; bar.warp.sync -1;"
    "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%t5}, [%t10+512];" + STORE,
    "in one lane": "setp.eq.u32 %p, %r1, 5; mov.u32 %t5, %t4; @%p mov.u32 %t5, %t3;" + STORE,
    "of another lane": "setp.eq.u32 %p, %r1, 5; mov.u32 %t6, %t4; @%p mov.u32 %t6, %t3;"
    "shfl.sync.idx.b32 %t5, %t6, 5, 31, -1;" + STORE,
    "added to global memory": "red.global.add.u32 [%d5], %t3;",
    "an mbarrier's count": "and.b32 %t5, %t3, 1; add.s32 %t5, %t5, 1; mbarrier.init.shared.b64 [%smem], %t5;",
}  # fmt: skip


@pytest.mark.parametrize("name", SILENT)
def test_a_value_that_decides_nothing_is_no_finding(name: str) -> None:
    assert [f.message for f in found(SILENT[name])] == []


@pytest.mark.parametrize("name", REPORTED)
def test_a_value_that_decides_something_is_reported_with_both_places(name: str) -> None:
    (finding,) = found(REPORTED[name])
    assert finding.code == "uninitialised_shared"
    assert finding.first is not None and "[%smem+2048]" in finding.first.as_dict()["ptx"]
    assert finding.second is not None and "%smem+2048" not in finding.second.as_dict()["ptx"]


def test_tensor_memory_keeps_what_was_stored_there() -> None:
    body = ALLOC + "shl.b32 %t2, %warp, 21; add.s32 %t2, %t2, %t1; ld.shared.b32 %t3, [%smem+2048];" + (
        "tcgen05.st.sync.aligned.32x32b.x2.b32 [%t2], {%tid, %t3}; tcgen05.wait::st.sync.aligned;"
        "tcgen05.ld.sync.aligned.32x32b.x2.b32 {%t4, %t5}, [%t2]; tcgen05.wait::ld.sync.aligned;"
        "mul.wide.u32 %d5, %tid, 4; ld.param.u64 %c, [p0]; add.s64 %d5, %c, %d5; st.global.b32 [%d5], VALUE;"
    )  # fmt: skip
    assert found(body.replace("VALUE", "%t4") + DEALLOC, "", warps=4) == []
    (finding,) = found(body.replace("VALUE", "%t5") + DEALLOC, "", warps=4)
    assert finding.code == "uninitialised_shared"


def test_packed_columns_are_told_apart() -> None:
    """tcgen05.ld.pack::16b: the odd column of each register was never written."""
    body = ALLOC + "shl.b32 %t2, %warp, 21; add.s32 %t2, %t2, %t1;" + (
        "tcgen05.st.sync.aligned.32x32b.x1.b32 [%t2], {%tid}; tcgen05.wait::st.sync.aligned;"
        "tcgen05.ld.sync.aligned.32x32b.x1.pack::16b.b32 {%t4}, [%t2]; tcgen05.wait::ld.sync.aligned;"
        "mul.wide.u32 %d5, %tid, 4; ld.param.u64 %c, [p0]; add.s64 %d5, %c, %d5; st.global.b16 [%d5], %t4;"
    )  # fmt: skip
    assert found(body + DEALLOC, "", warps=4) == []
    (finding,) = found(body.replace("st.global", "shr.u32 %t4, %t4, 16; st.global") + DEALLOC, "", warps=4)
    assert finding.code == "uninitialised_tensor_memory"


def test_a_register_written_on_one_way_only() -> None:
    body = "setp.lt.u32 %p, %tid, 16; @%p mov.u32 %r5, 1; mov.u32 %t5, %r5;" + STORE
    (finding,) = found(body)
    assert finding.code == "uninitialised_register"
    assert "lanes 16..31" in finding.message and "%r5" in finding.message


def tensor_store(count: int, elements: int) -> str:
    """`count` good words staged, then a box of 256 stored at `elements` before the tensor's end."""
    return MAP_START + (
        f"setp.lt.u32 %p, %tid, {count}; shl.b32 %t6, %tid, 2; add.s32 %t6, %t6, %t4; @%p st.shared.b32 [%t6], %tid;"
        "fence.proxy.async.shared::cta; bar.sync 0; setp.ne.u32 %p, %tid, 0; @%p bra DONE;"
        f"mov.u32 %t5, {4096 - elements};"
        "cp.async.bulk.tensor.1d.global.shared::cta.bulk_group [%b, {%t5}], [%t4];"
        "cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;"
    )


@pytest.mark.parametrize(("elements", "codes"), [(100, []), (104, ["uninitialised_shared"])])
def test_a_tensor_store_uses_what_lies_inside_the_tensor(elements: int, codes: list[str]) -> None:
    body = tensor_store(100, elements)
    assert [f.code for f in found(body, "", data=with_map, warps=4)] == codes


def test_a_load_makes_poisoned_shared_memory_good() -> None:
    load = (
        "st.shared.b32 [%smem+512], %t3; fence.proxy.async.shared::cta; bar.warp.sync -1;"
        "@!%one bra L9; mbarrier.init.shared.b64 [%smem], 1; fence.mbarrier_init.release.cluster;"
        "mbarrier.arrive.expect_tx.shared.b64 _, [%smem], 16; add.s32 %t6, %smem, 512;"
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%t6], [%c], 16, [%smem];\nL9: bar.warp.sync -1;\n"
        + waiting(1, "%smem") + "ld.shared.v4.b32 {%t5, %t6, %t7, %t8}, [%smem+512];" + STORE
    )  # fmt: skip
    assert [f.message for f in found(load)] == []
