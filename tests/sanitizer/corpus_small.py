"""One defect each in kernels made for one hazard, a few lines of PTX."""

# ruff: noqa: E501, UP030, UP032
from __future__ import annotations

import numpy as np

from b200sim.tma.encoding import encode
from b200sim.tma.tensor_map import ElementType, Swizzle, TensorMap
from tests.sanitizer.corpus_ptx import Arrays, PtxDefect

SHARED = 4096
REGISTERS = """
.reg .b32 %t<16>, %r<64>, %smem, %tid, %warp, %rank; .reg .b64 %a, %b, %c, %d<8>; .reg .pred %p, %q, %one;
mov.u32 %tid, %tid.x; shr.u32 %warp, %tid, 5; mov.u32 %smem, smem; mov.u32 %rank, %cluster_ctarank;
elect.sync _|%one, -1;
"""
FENCE = "fence.mbarrier_init.release.cluster;"
WAIT = """{{ .reg .pred w{n};
L{n}: mbarrier.try_wait.parity.shared.b64 w{n}, [{bar}], {parity}, 10000000;
@w{n} bra M{n};
bra L{n};
M{n}: }}"""


def waiting(number: int, barrier: str, parity: int = 0) -> str:
    return WAIT.format(n=number, bar=barrier, parity=parity)


def nothing() -> tuple[Arrays, np.ndarray]:
    """No input; the kernel leaves its output as it is."""
    return [np.zeros(256, np.uint32)], np.zeros(256, np.uint32)


def numbers() -> tuple[Arrays, np.ndarray]:
    """An input of 0..4095 and an output that its first 256 elements are expected in."""
    source = np.arange(4096, dtype=np.uint32)
    return [source, np.zeros(256, np.uint32)], source[:256].copy()


def with_map(rewritable: bool = True) -> tuple[Arrays, np.ndarray]:
    """An input, a tensor map for boxes of 256 of its elements, and the output."""
    memory = np.zeros(4096 + 64, np.uint32)
    shift = -(memory.ctypes.data // 4) % 32
    source = memory[shift : shift + 4096]
    source[:] = np.arange(4096)
    box = TensorMap(
        address=source.ctypes.data, element=ElementType.U32, dims=(4096,), strides=(), box=(256,),
        element_strides=(1,), swizzle=Swizzle.NONE,
    )  # fmt: skip
    room = np.zeros(256 + 128, np.uint8)
    at = -room.ctypes.data % 128
    tensor_map = room[at : at + 128]
    tensor_map[:] = np.frombuffer(encode(box), np.uint8)
    return [source, tensor_map, np.zeros(256, np.uint32)], np.arange(256, dtype=np.uint32)


def small(name: str, code: str, body: str, data=nothing, warps: int = 1, **more) -> PtxDefect:  # type: ignore[no-untyped-def]
    launch = {"block": (32 * warps, 1, 1), "shared_bytes": SHARED, **more.pop("launch", {})}
    return PtxDefect(name, code, REGISTERS + body + "\nDONE: ret;", data, launch, **more)


COPY_OUT = """
shl.b32 %t10, %tid, 2; add.s32 %t10, %t10, %smem; add.s32 %t10, %t10, 1024;
mul.wide.u32 %d5, %tid, 4; add.s64 %d5, %c, %d5;
ld.shared.b32 %t11, [%t10]; st.global.b32 [%d5], %t11;
ld.shared.b32 %t11, [%t10+512]; st.global.b32 [%d5+512], %t11;
"""
LOAD_BOX = """cp.async.bulk.tensor.1d.shared::cluster.global.tile.mbarrier::complete_tx::bytes
 [%t4], [%b, {%t5}], [%smem];"""
EDIT = """
st.shared.b32 [%smem+512], 0;
cvta.to.global.u64 %d1, %b;
tensormap.replace.tile.global_address.global.b1024.b64 [%b], %a;
"""
MAP_START = f"""
ld.param.u64 %a, [p0]; ld.param.u64 %b, [p1]; ld.param.u64 %c, [p2];
add.s32 %t4, %smem, 1024; mov.u32 %t5, 0;
setp.ne.u32 %p, %tid, 0; @%p bra READY;
mbarrier.init.shared.b64 [%smem], 1; {FENCE}
READY: bar.sync 0;
"""


def load_box(number: int, parity: int = 0, before: str = "") -> str:
    return f"""setp.ne.u32 %p, %tid, 0; @%p bra LOADED{number};
{before}
mbarrier.arrive.expect_tx.shared.b64 _, [%smem], 1024;
{LOAD_BOX.replace(chr(10), " ")}
LOADED{number}:
{waiting(number, "%smem", parity)}
"""


ALLOC = """
setp.ne.u32 %p, %warp, 0; @%p bra ALLOCATED;
tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%smem+64], 32;
tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;
ALLOCATED: bar.sync 0;
ld.shared.b32 %t1, [%smem+64];
"""
DEALLOC = """
bar.sync 0;
setp.ne.u32 %p, %warp, 0; @%p bra DONE;
tcgen05.dealloc.cta_group::1.sync.aligned.b32 %t1, 32;
"""
ST = "shl.b32 %t2, %warp, 21; add.s32 %t2, %t2, %t1;\ntcgen05.st.sync.aligned.32x32b.x1.b32 [%t2], {%tid};"
LD = "tcgen05.ld.sync.aligned.32x32b.x1.b32 {%t3}, [%t2]; tcgen05.wait::ld.sync.aligned;"
STORE_T3 = """
mul.wide.u32 %d5, %tid, 4; ld.param.u64 %c, [p0]; add.s64 %d5, %c, %d5; st.global.b32 [%d5], %t3;
"""


def phases(missed: int, between: str, last: str = "") -> str:
    """Warp 1 arrives and waits for phases 0 to `missed`; warp 0 waits for the first and for the last."""
    rest = "".join(
        "@%one mbarrier.arrive.shared.b64 _, [%smem];\n" + waiting(3 + n, "%smem", n % 2)
        for n in range(1, missed + 1)
    )
    return (
        "setp.ne.u32 %p, %tid, 0; @%p bra READY;\nmbarrier.init.shared.b64 [%smem], 1;\nREADY: bar.sync 0;\n"
        "setp.ne.u32 %p, %warp, 0; @%p bra OTHER;\n" + waiting(1, "%smem") + "bar.sync 1, 64;\n" + between
        + waiting(2, "%smem", missed % 2) + "bra DONE;\nOTHER:\n@%one mbarrier.arrive.shared.b64 _, [%smem];\n"
        + waiting(3, "%smem") + "bar.sync 1, 64;\n" + rest + last
    )  # fmt: skip


# %t9: the word of this lane, %t8: that of the next
LANE_WORDS = """
and.b32 %t9, %tid, 31; add.s32 %t8, %t9, 1; and.b32 %t8, %t8, 31; shl.b32 %t9, %t9, 2; shl.b32 %t8, %t8, 2;
add.s32 %t9, %t9, %smem; add.s32 %t9, %t9, 1024; add.s32 %t8, %t8, %smem; add.s32 %t8, %t8, 1024;
"""
ONE_LOADS = """
ld.param.u64 %a, [p0];
@!%one bra ISSUED;
mbarrier.init.shared.b64 [%smem], 1; fence.mbarrier_init.release.cluster;
mbarrier.arrive.expect_tx.shared.b64 _, [%smem], 128;
add.s32 %t6, %smem, 1024;
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%t6], [%a], 128, [%smem];
ISSUED:
"""
ONE_WAITS = "@!%one bra WAITED;\n" + waiting(1, "%smem") + "\nWAITED:\n"
READ_LOADED = """
ld.shared.b32 %t3, [%t9]; mul.wide.u32 %d5, %tid, 4; add.s64 %d5, %a, %d5; st.global.b32 [%d5+512], %t3;
"""
TWO_WARPS = (
    LANE_WORDS
    + """
setp.ne.u32 %p, %tid, 0; @%p bra READY;
mbarrier.init.shared.b64 [%smem], 1;
READY: bar.sync 0;
setp.ne.u32 %p, %warp, 0; @%p bra OTHER;
"""
)


def scaled(scales: str) -> str:
    """One block-scaled MMA of zeros, N = 32, with `scales` in all bytes of the scale factors."""
    values = (4096 >> 4) << 16 | (128 >> 4) << 32 | 1 << 46
    idesc = 1 << 7 | 1 << 10 | 32 // 8 << 17 | 128 // 16 << 24
    return f"""
mov.u32 %r0, 0; shl.b32 %t4, %tid, 5; add.s32 %t4, %t4, %smem; add.s32 %t4, %t4, 1024;
st.shared.v4.b32 [%t4], {{%r0, %r0, %r0, %r0}}; st.shared.v4.b32 [%t4+16], {{%r0, %r0, %r0, %r0}};
st.shared.v4.b32 [%t4+4096], {{%r0, %r0, %r0, %r0}}; st.shared.v4.b32 [%t4+4112], {{%r0, %r0, %r0, %r0}};
fence.proxy.async.shared::cta;
setp.ne.u32 %p, %tid, 0; @%p bra READY;
mbarrier.init.shared.b64 [%smem], 1; {FENCE}
READY:
setp.ne.u32 %p, %warp, 0; @%p bra ALLOCATED;
tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%smem+64], 64;
tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;
ALLOCATED: bar.sync 0;
ld.shared.b32 %t1, [%smem+64];
shl.b32 %t2, %warp, 21; add.s32 %t2, %t2, %t1; mov.u32 %t3, {scales};
tcgen05.st.sync.aligned.32x32b.x8.b32 [%t2+32], {{%t3, %t3, %t3, %t3, %t3, %t3, %t3, %t3}};
tcgen05.wait::st.sync.aligned;
tcgen05.fence::before_thread_sync;
bar.sync 0;
tcgen05.fence::after_thread_sync;
setp.ne.u32 %p, %tid, 0; @%p bra JOIN;
add.s32 %t4, %smem, 1024; and.b32 %t4, %t4, 0xFFFFFF; shr.u32 %t4, %t4, 4; cvt.u64.u32 %d2, %t4;
add.s64 %d1, %d2, {values}; mov.pred %p, 0; add.s32 %t5, %t1, 32; add.s32 %t6, %t1, 36;
tcgen05.mma.cta_group::1.kind::mxf4nvf4.block_scale.scale_vec::4X [%t1], %d1, %d1, {idesc}, [%t5], [%t6], %p;
tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%smem];
{waiting(7, "%smem").replace(chr(10), " ")}
JOIN:
bar.sync 0;
setp.ne.u32 %p, %warp, 0; @%p bra DONE;
tcgen05.dealloc.cta_group::1.sync.aligned.b32 %t1, 64;
"""


CLUSTER = {"grid": (2, 1, 1), "cluster": (2, 1, 1)}
MEET = "barrier.cluster.arrive; barrier.cluster.wait;"
INIT = "setp.ne.u32 %p, %tid, 0; @%p bra READY;\nmbarrier.init.shared.b64 [%smem], 1;\n{fence}\nREADY:"
REMOTE = "xor.b32 %t6, %rank, 1; mapa.shared::cluster.u32 %t7, %smem, %t6;"
CANCEL = (
    "clusterlaunchcontrol.try_cancel.async.shared::cta.mbarrier::complete_tx::bytes.b128 [%smem+32], [%smem];"
)
CANCEL_START = f"""
@!%one bra DONE;
mbarrier.init.shared.b64 [%smem], 1; {FENCE}
mbarrier.arrive.expect_tx.shared.b64 _, [%smem], 16;
{CANCEL}
"""
QUERY = """
ld.shared.v2.b64 {%d1, %d2}, [%smem+32];
{ .reg .b128 h; mov.b128 h, {%d1, %d2};
clusterlaunchcontrol.query_cancel.is_canceled.pred.b128 %q, h; }
"""

SMALL_DEFECTS = [
    small("map used without an acquire fence after its rewrite", "tensor_map_stale",
          MAP_START + load_box(1) + load_box(2, 1, EDIT) + COPY_OUT, with_map, 4),
    small("map rewritten while a load may read it", "tensor_map_in_use",
          MAP_START + f"setp.ne.u32 %p, %tid, 0; @%p bra NEXT;\n"
          f"mbarrier.arrive.expect_tx.shared.b64 _, [%smem], 1024;\n{LOAD_BOX.replace(chr(10), ' ')}\n{EDIT}\nNEXT:\n"
          + waiting(1, "%smem") + COPY_OUT, with_map, 4),
    small("coordinates of another rank than the map's", "tma_argument",
          MAP_START + load_box(1).replace("1d", "2d").replace("{%t5}", "{%t5, %t5}") + COPY_OUT, with_map, 4),
    small("threads read a load without waiting", "load_not_awaited",
          MAP_START + "setp.ne.u32 %p, %tid, 0; @%p bra NEXT;\n"
          f"mbarrier.arrive.expect_tx.shared.b64 _, [%smem], 1024;\n{LOAD_BOX.replace(chr(10), ' ')}\nNEXT: bar.sync 0;\n"
          + COPY_OUT + waiting(1, "%smem"), with_map, 4),
    small("two loads to one place", "load_overwritten",
          MAP_START + "setp.ne.u32 %p, %tid, 0; @%p bra NEXT;\n"
          f"mbarrier.arrive.expect_tx.shared.b64 _, [%smem], 2048;\n{LOAD_BOX.replace(chr(10), ' ')}\n"
          f"mov.u32 %t5, 0;\n{LOAD_BOX.replace(chr(10), ' ')}\nNEXT:\n" + waiting(1, "%smem") + COPY_OUT, with_map, 4),
    small("tensor memory stored and loaded without wait::st", "tmem_store_not_awaited",
          ALLOC + ST + LD + DEALLOC, warps=4),
    small("tensor memory stored to C that nobody wrote", "uninitialised_tensor_memory",
          ALLOC + ST.split("\n")[0] + LD + STORE_T3 + DEALLOC, warps=4),
    small("two threads multiply into one accumulator", "tmem_race",
          ALLOC + "setp.gt.u32 %p, %warp, 1; @%p bra JOIN;\n@!%one bra JOIN;\n"
          "mov.b64 %d1, {0}; shr.u32 %t4, %smem, 4; add.s32 %t4, %t4, 64; cvt.u64.u32 %d2, %t4; add.s64 %d1, %d1, %d2;\n"
          "mov.pred %p, 0;\ntcgen05.mma.cta_group::1.kind::f16 [%t1], %d1, %d1, {1}, %p;\nJOIN:".format(
              (128 >> 4) << 16 | (128 >> 4) << 32 | 1 << 46, 1 << 4 | 1 << 17 | 8 << 24) + DEALLOC, warps=4),
    small("shared memory written by one warp, read by another", "shared_race",
          "st.shared.b32 [%smem+1024], %tid;\nsetp.ne.u32 %p, %warp, 1; @%p bra DONE; ld.shared.b32 %t1, [%smem+1024];",
          warps=2),
    small("lanes exchange words without bar.warp.sync", "warp_not_synchronised",
          LANE_WORDS + "st.shared.b32 [%t9], %tid; ld.shared.b32 %t3, [%t8];" + STORE_T3),
    small("one lane writes for the warp, without bar.warp.sync", "warp_not_synchronised",
          "@%one st.shared.b32 [%smem+1024], 7; ld.shared.b32 %t3, [%smem+1024];" + STORE_T3),
    small("bar.warp.sync of half of the lanes that exchange", "warp_not_synchronised",
          LANE_WORDS + "st.shared.b32 [%t9], %tid; setp.lt.u32 %p, %tid, 16; @!%p bra OTHERS;\nbar.warp.sync 0xFFFF;\n"
          "OTHERS: ld.shared.b32 %t3, [%t8];" + STORE_T3),
    small("a word read by one lane, then overwritten by another", "warp_not_synchronised",
          LANE_WORDS + "st.shared.b32 [%t9], %tid; bar.warp.sync -1; ld.shared.b32 %t3, [%t8]; st.shared.b32 [%t9], 9;"
          + STORE_T3),
    small("one lane arrives for the writes of all, without bar.warp.sync", "warp_not_synchronised",
          TWO_WARPS + "st.shared.b32 [%t9], %tid; @%one mbarrier.arrive.shared.b64 _, [%smem]; bra DONE;\nOTHER:\n"
          + waiting(1, "%smem") + "ld.shared.b32 %t3, [%t8];" + STORE_T3, warps=2),
    small("one lane issues the bulk store of what all wrote, without bar.warp.sync", "warp_not_synchronised",
          LANE_WORDS + "st.shared.b32 [%t9], %tid; fence.proxy.async.shared::cta; ld.param.u64 %c, [p0];\n"
          "@!%one bra DONE; add.s32 %t4, %smem, 1024;\n"
          "cp.async.bulk.global.shared::cta.bulk_group [%c], [%t4], 128;\n"
          "cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;"),
    small("one lane waits for a load, all read it", "warp_not_synchronised",
          LANE_WORDS + ONE_LOADS + ONE_WAITS + READ_LOADED),
    small("one lane waits for the store's source, all overwrite it", "warp_not_synchronised",
          LANE_WORDS + "st.shared.b32 [%t9], %tid; fence.proxy.async.shared::cta; bar.warp.sync -1; ld.param.u64 %c, [p0];\n"
          "@!%one bra NEXT; add.s32 %t4, %smem, 1024;\n"
          "cp.async.bulk.global.shared::cta.bulk_group [%c], [%t4], 128;\n"
          "cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;\nNEXT: st.shared.b32 [%t9], 7;"),
    small("lanes exchange words with only a shfl in between", "warp_met_without_barrier",
          LANE_WORDS + "st.shared.b32 [%t9], %tid; shfl.sync.idx.b32 %t4, %t9, 0, 31, -1; ld.shared.b32 %t3, [%t8];"
          + STORE_T3),
    small("elected by elect.sync, arrives for the writes of all", "warp_met_without_barrier",
          TWO_WARPS + "st.shared.b32 [%t9], %tid; elect.sync _|%one, -1; @%one mbarrier.arrive.shared.b64 _, [%smem];"
          "bra DONE;\nOTHER:\n" + waiting(1, "%smem") + "ld.shared.b32 %t3, [%t8];" + STORE_T3, warps=2),
    small("register stored that nothing writes", "uninitialised_register",
          "ld.param.u64 %a, [p0]; st.global.b32 [%a], %r5;"),
    small("register set on one of two ways", "uninitialised_register",
          "setp.lt.u32 %p, %tid, 16; @%p mov.u32 %t3, 1;" + STORE_T3),
    small("branch on shared memory that nobody wrote", "uninitialised_shared",
          "ld.shared.b32 %t3, [%smem+1024]; setp.eq.u32 %p, %t3, 7; @%p bra DONE; mov.u32 %t3, 0;" + STORE_T3),
    small("half a word of shared memory stored to C", "uninitialised_shared",
          "st.shared.b16 [%smem+1024], 7; ld.shared.b32 %t3, [%smem+1024];" + STORE_T3),
    small("mbarrier used by another warp without a barrier", "mbarrier_init_unordered",
          "setp.ne.u32 %p, %warp, 0; @%p bra OTHER;\n@%one mbarrier.init.shared.b64 [%smem], 1;\nbra DONE;\n"
          "OTHER: @%one mbarrier.arrive.shared.b64 _, [%smem];", warps=2),
    small("peer's mbarrier without fence.mbarrier_init", "mbarrier_init_not_fenced",
          INIT.format(fence="") + "barrier.cluster.arrive.relaxed; barrier.cluster.wait;\n" + REMOTE
          + "@%one mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%t7];\n"
          + waiting(1, "%smem") + MEET, launch=CLUSTER),
    small("arrival at a peer that may have exited", "peer_exited",
          INIT.format(fence=FENCE) + MEET + REMOTE
          + "@%one mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%t7];", launch=CLUSTER),
    small("barrier.cluster.arrive twice", "cluster_barrier",
          "barrier.cluster.arrive; barrier.cluster.arrive; barrier.cluster.wait;", launch=CLUSTER),
    small("more bytes expected than any copy brings, at the end", "expect_tx_left_over",
          f"@!%one bra DONE;\nmbarrier.init.shared.b64 [%smem], 1; {FENCE}\n"
          "mbarrier.arrive.expect_tx.shared.b64 _, [%smem], 64;"),
    small("expect_tx of less than arrives", "expect_tx_mismatch",
          MAP_START + load_box(1).replace("1024;", "1008;") + COPY_OUT, with_map, 4),
    small("mbarrier ahead of its waiter", "phase_skipped",
          "setp.ne.u32 %p, %warp, 0; @%p bra WAITER;\n@%one mbarrier.init.shared.b64 [%smem], 1;\nbar.sync 0;\n"
          + "@%one mbarrier.arrive.shared.b64 _, [%smem];\n" * 3
          + "bar.sync 1, 64;\nbra DONE;\nWAITER: bar.sync 0;\nbar.sync 1, 64;\n" + waiting(1, "%smem"), warps=2),
    small("a wait that may miss a phase", "phase_not_awaited", phases(2, "nanosleep.u32 100;"), warps=2),
    small("a wait that may miss two phases", "phase_not_awaited", phases(3, "nanosleep.u32 100;"), warps=2),
    small("mbarrier invalidated and used", "mbarrier_uninitialised",
          "@!%one bra DONE;\nmbarrier.init.shared.b64 [%smem], 1;\nmbarrier.inval.shared.b64 [%smem];\n"
          "mbarrier.arrive.shared.b64 _, [%smem];"),
    small("two mbarriers, each side waits for the other", "deadlock",
          "setp.ne.u32 %p, %tid, 0; @%p bra READY;\nmbarrier.init.shared.b64 [%smem], 1;\n"
          "mbarrier.init.shared.b64 [%smem+8], 1;\nREADY: bar.sync 0;\nsetp.ne.u32 %p, %warp, 0; @%p bra OTHER;\n"
          + waiting(1, "%smem") + "@%one mbarrier.arrive.shared.b64 _, [%smem+8];\nbra DONE;\nOTHER:\n"
          + waiting(2, "%smem+8") + "@%one mbarrier.arrive.shared.b64 _, [%smem];", warps=2),
    small("response of try_cancel read at once", "clc_response_early", CANCEL_START + QUERY + waiting(1, "%smem")),
    small("try_cancel after a failed one", "clc_after_failure",
          CANCEL_START + waiting(1, "%smem") + QUERY + "mbarrier.arrive.expect_tx.shared.b64 _, [%smem], 16;\n"
          "fence.proxy.async.shared::cta;\n" + CANCEL + waiting(2, "%smem", 1)),
    small("response overwritten without fence.proxy.async", "clc_response_overwritten",
          CANCEL_START + waiting(1, "%smem") + QUERY + "mbarrier.arrive.expect_tx.shared.b64 _, [%smem], 16;\n"
          + CANCEL + waiting(2, "%smem", 1), launch={"grid": (4, 1, 1)}),
    small("two CTAs write one element", "global_race",
          "ld.param.u64 %a, [p0]; st.global.b32 [%a], 0;", launch={"grid": (2, 1, 1)}),
    small("misaligned global address", "global_misaligned", "ld.param.u64 %a, [p0]; ld.global.b32 %t1, [%a+2];"),
    small("shared memory beyond the CTA's", "shared_out_of_bounds", f"st.shared.b32 [%smem+{SHARED}], %tid;"),
    small("a failed assertion", "trap", "trap;"),
    small("named barrier for one and a half warps", "named_barrier", "bar.sync 1, 48;"),
    small("wait for parity 2", "illegal",
          "@!%one bra DONE;\nmbarrier.init.shared.b64 [%smem], 1;\n" + waiting(1, "%smem", 2)),
    small("one column stored to C that nobody wrote", "uninitialised_tensor_memory",
          ALLOC + ST + "tcgen05.wait::st.sync.aligned;\ntcgen05.ld.sync.aligned.32x32b.x2.b32 {%t4, %t3}, [%t2];\n"
          "tcgen05.wait::ld.sync.aligned;\n" + STORE_T3 + DEALLOC, warps=4),
    small("scale factors that differ between lane quarters", "scale_factor_copies", scaled("%warp"),
          warps=4, launch={"shared_bytes": 16384}),
    small("scale factors with their sign bit set", "scale_factor_sign", scaled("0xB8B8B8B8"),
          warps=4, launch={"shared_bytes": 16384}),
    small("one negative scale factor among positive ones", "scale_factor_sign", scaled("0x38388138"),
          warps=4, launch={"shared_bytes": 16384}),
    small("operations that no commit covers", "never_committed",
          scaled("0x38383838").replace("tcgen05.commit", "// tcgen05.commit").replace("{ .reg .pred w7", "// {"),
          warps=4, launch={"shared_bytes": 16384}),
    small("tensor memory's address written over an mbarrier", "mbarrier_overwritten",
          INIT.format(fence=FENCE).replace("[%smem]", "[%smem+64]") + ALLOC + DEALLOC, warps=4),
    small("mbarrier for a million arrivals and more", "mbarrier_count",
          "mbarrier.init.shared.b64 [%smem], 0x200000;"),
]  # fmt: skip
