"""A small warp-specialised kernel in PTX, to break: bulk loads, tcgen05.mma, tcgen05.ld, a bulk store.

One CTA, six warps. C[t] = A[t] B[t]^T for TILES tiles of 128 x 32 outputs, fp16 in and fp32 out, K = 16 per
step and STEPS steps per tile. Warp 4 loads into STAGES stages, warp 5 multiplies, warps 0-3 read tensor
memory and stage the tile in shared memory for a bulk store. Operands lie in global memory as core matrices
(8 rows x 16 bytes), the layout that an unswizzled descriptor wants.

Lines end in a tag, `// @name`: `without` drops the tagged line, `changed` replaces it.
"""

from __future__ import annotations

import re

import numpy as np

ROWS, COLUMNS, K = 128, 32, 16
TILES, STEPS, STAGES = 2, 5, 2
A_BYTES, B_BYTES = ROWS * K * 2, COLUMNS * K * 2
STAGE_BYTES = A_BYTES + B_BYTES
HEADER = 1024
OUT = HEADER + STAGES * STAGE_BYTES + 1024 - STAGES * STAGE_BYTES % 1024
OUT_BYTES = ROWS * COLUMNS * 4
SHARED_BYTES = OUT + OUT_BYTES
THREADS = 192

# kind::f16: D fp32, A and B fp16, N / 8 from bit 17, M / 16 from bit 24
IDESC = 1 << 4 | COLUMNS // 8 << 17 | ROWS // 16 << 24


def descriptor(leading: int, stride: int) -> int:
    return (leading >> 4) << 16 | (stride >> 4) << 32 | 1 << 46


A_DESCRIPTOR = descriptor(ROWS // 8 * 128, 128)
B_DESCRIPTOR = descriptor(COLUMNS // 8 * 128, 128)

WAIT = """{{ .reg .pred p{n};
AGAIN{n}: mbarrier.try_wait.parity.shared.b64 p{n}, [{bar}], {parity}, 10000000;
@p{n} bra PASSED{n};
bra AGAIN{n};
PASSED{n}: }}"""


def wait(number: int, barrier: str, parity: str) -> str:
    """On one line, so that one tag covers it."""
    return WAIT.format(n=number, bar=barrier, parity=parity).replace("\n", " ")


KERNEL = f"""
.reg .b32 %tid, %warp, %lane, %smem, %bar, %full, %empty, %accfull, %accempty, %slot, %tmem, %addr, %out;
.reg .b32 %stage, %parity, %step, %tile, %accparity, %data, %t, %r<32>, %line, %where, %offset;
.reg .b64 %a, %b, %c, %da, %db, %field, %t64;
.reg .pred %p, %q, %acc, %leader;
ld.param.u64 %a, [p0]; ld.param.u64 %b, [p1]; ld.param.u64 %c, [p2];
mov.u32 %tid, %tid.x; shr.u32 %warp, %tid, 5; and.b32 %lane, %tid, 31;
mov.u32 %smem, smem; add.s32 %out, %smem, {OUT};
add.s32 %full, %smem, 0; add.s32 %empty, %smem, 16; add.s32 %accfull, %smem, 32; add.s32 %accempty, %smem, 40;
add.s32 %slot, %smem, 48;
elect.sync _|%leader, -1;

setp.ne.u32 %p, %warp, 4; @%p bra NOINIT;
@!%leader bra NOINIT;
mbarrier.init.shared.b64 [%full], 1; // @init full
mbarrier.init.shared.b64 [%full+8], 1;
mbarrier.init.shared.b64 [%empty], 1;
mbarrier.init.shared.b64 [%empty+8], 1;
mbarrier.init.shared.b64 [%accfull], 1;
mbarrier.init.shared.b64 [%accempty], 128; // @init accempty
fence.mbarrier_init.release.cluster;
NOINIT:
bar.warp.sync -1;
setp.ne.u32 %p, %warp, 5; @%p bra NOALLOC;
tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%slot], 32; // @alloc
tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned; // @relinquish
NOALLOC:
bar.sync 0; // @start barrier
ld.shared.b32 %tmem, [%slot];

setp.eq.u32 %p, %warp, 4; @%p bra LOAD;
setp.eq.u32 %p, %warp, 5; @%p bra MULTIPLY;
bra STORE;

LOAD:
@!%leader bra JOIN; // @elect load
mov.u32 %stage, 0; mov.u32 %parity, 1; mov.u32 %step, 0;
NEXTLOAD:
shl.b32 %t, %stage, 3; add.s32 %bar, %empty, %t;
{wait(1, "%bar", "%parity")} // @wait empty
shl.b32 %t, %stage, 3; add.s32 %bar, %full, %t;
mul.lo.s32 %addr, %stage, {STAGE_BYTES}; add.s32 %addr, %addr, %smem; add.s32 %addr, %addr, {HEADER};
mbarrier.arrive.expect_tx.shared.b64 _, [%bar], {STAGE_BYTES}; // @expect
mul.wide.u32 %t64, %step, {A_BYTES}; add.s64 %t64, %a, %t64;
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%addr], [%t64], {
    A_BYTES
}, [%bar]; // @load a
mul.wide.u32 %t64, %step, {B_BYTES}; add.s64 %t64, %b, %t64;
add.s32 %addr, %addr, {A_BYTES};
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%addr], [%t64], {
    B_BYTES
}, [%bar]; // @load b
add.s32 %stage, %stage, 1;
setp.eq.u32 %p, %stage, {STAGES}; @%p mov.u32 %stage, 0; @%p xor.b32 %parity, %parity, 1;
add.s32 %step, %step, 1; setp.lt.u32 %p, %step, {TILES * STEPS}; @%p bra NEXTLOAD;
bra JOIN;

MULTIPLY:
@!%leader bra JOIN; // @elect multiply
mov.u32 %stage, 0; mov.u32 %parity, 0; mov.u32 %tile, 0; mov.u32 %accparity, 1;
NEXTTILE:
{wait(2, "%accempty", "%accparity")} // @wait accempty
tcgen05.fence::after_thread_sync; // @fence after
mov.u32 %step, 0;
NEXTSTEP:
shl.b32 %t, %stage, 3; add.s32 %bar, %full, %t;
{wait(3, "%bar", "%parity")} // @wait full
mul.lo.s32 %addr, %stage, {STAGE_BYTES}; add.s32 %addr, %addr, %smem; add.s32 %addr, %addr, {HEADER};
and.b32 %addr, %addr, 0xFFFFFF; shr.u32 %t, %addr, 4; cvt.u64.u32 %field, %t;
mov.b64 %da, {A_DESCRIPTOR}; // @descriptor a
add.s64 %da, %da, %field;
mov.b64 %db, {B_DESCRIPTOR}; add.s64 %db, %db, %field; add.s64 %db, %db, {A_BYTES >> 4};
setp.ne.u32 %acc, %step, 0; // @accumulate
tcgen05.mma.cta_group::1.kind::f16 [%tmem], %da, %db, {IDESC}, %acc; // @mma
shl.b32 %t, %stage, 3; add.s32 %bar, %empty, %t;
tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%bar]; // @commit empty
add.s32 %stage, %stage, 1;
setp.eq.u32 %p, %stage, {STAGES}; @%p mov.u32 %stage, 0; @%p xor.b32 %parity, %parity, 1;
add.s32 %step, %step, 1; setp.lt.u32 %p, %step, {STEPS}; @%p bra NEXTSTEP;
tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%accfull]; // @commit accfull
xor.b32 %accparity, %accparity, 1;
add.s32 %tile, %tile, 1; setp.lt.u32 %p, %tile, {TILES}; @%p bra NEXTTILE;
bra JOIN;

STORE:
mov.u32 %tile, 0; mov.u32 %accparity, 0;
shl.b32 %t, %warp, 21; add.s32 %where, %tmem, %t;
mul.lo.s32 %line, %tid, {COLUMNS * 4}; add.s32 %line, %line, %out;
NEXTSTORE:
{wait(4, "%accfull", "%accparity")} // @wait accfull
tcgen05.fence::after_thread_sync;
tcgen05.ld.sync.aligned.32x32b.x32.b32 {{{", ".join(f"%r{i}" for i in range(32))}}}, [%where]; // @ld
tcgen05.wait::ld.sync.aligned; // @wait ld
tcgen05.fence::before_thread_sync;
mbarrier.arrive.shared.b64 _, [%accempty]; // @arrive accempty
setp.ne.u32 %p, %tid, 0; @%p bra NOTFIRST;
cp.async.bulk.wait_group.read 0; // @wait group
NOTFIRST:
bar.sync 1, 128; // @barrier before staging
{
    " ".join(
        f"st.shared.v4.b32 [%line+{16 * i}], {{%r{4 * i}, %r{4 * i + 1}, %r{4 * i + 2}, %r{4 * i + 3}}};"
        for i in range(8)
    )
} // @staging
fence.proxy.async.shared::cta; // @proxy fence
bar.sync 1, 128; // @barrier after staging
setp.ne.u32 %p, %tid, 0; @%p bra NOSTORE;
mul.wide.u32 %t64, %tile, {OUT_BYTES}; add.s64 %t64, %c, %t64;
cp.async.bulk.global.shared::cta.bulk_group [%t64], [%out], {OUT_BYTES}; // @store
cp.async.bulk.commit_group; // @commit group
NOSTORE:
xor.b32 %accparity, %accparity, 1;
add.s32 %tile, %tile, 1; setp.lt.u32 %p, %tile, {TILES}; @%p bra NEXTSTORE;
setp.ne.u32 %p, %tid, 0; @%p bra JOIN;
cp.async.bulk.wait_group 0; // @wait last group

JOIN:
bar.warp.sync -1;
bar.sync 0; // @end barrier
setp.ne.u32 %p, %warp, 5; @%p bra DONE;
tcgen05.dealloc.cta_group::1.sync.aligned.b32 %tmem, 32; // @dealloc
DONE:
ret;
"""


def without(*tags: str, kernel: str = KERNEL) -> str:
    for tag in tags:
        pattern = rf"^.*// @{re.escape(tag)}$"
        kernel, count = re.subn(pattern, "", kernel, flags=re.M)
        assert count == 1, tag
    return kernel


def changed(tag: str, find: str, replace: str, kernel: str = KERNEL) -> str:
    (line,) = re.findall(rf"^.*// @{re.escape(tag)}$", kernel, flags=re.M)
    assert find in line, (tag, find)
    return kernel.replace(line, line.replace(find, replace))


def inserted(after: str, text: str, kernel: str = KERNEL) -> str:
    """`text` on a line of its own after the tagged one."""
    (line,) = re.findall(rf"^.*// @{re.escape(after)}$", kernel, flags=re.M)
    return kernel.replace(line, f"{line}\n{text}")


def operands(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A and B as the kernel wants them, and the C that it must compute, (TILES, ROWS, COLUMNS) fp32."""
    rng = np.random.default_rng(seed)
    a = rng.integers(-3, 4, (TILES, STEPS, ROWS, K)).astype(np.float16)
    b = rng.integers(-3, 4, (TILES, STEPS, COLUMNS, K)).astype(np.float16)
    c = np.einsum("tsmk,tsnk->tmn", a.astype(np.float32), b.astype(np.float32))
    return _cores(a), _cores(b), c


def _cores(x: np.ndarray) -> np.ndarray:
    """(tiles, steps, rows, 16) to (tiles, steps, K chunks, rows / 8, 8, 8 elements)."""
    tiles, steps, rows, k = x.shape
    return np.ascontiguousarray(x.reshape(tiles, steps, rows // 8, 8, k // 8, 8).transpose(0, 1, 4, 2, 3, 5))
