"""Asynchronous copies as instructions: tensor and bulk loads and stores, multicast, groups, descriptors.

What a copy does with its bytes is tested with the TMA unit; here it is that the operands reach it, who is
signalled, what waits for what, and how often an instruction of several lanes happens.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ptx_harness import DYNAMIC, aligned, lanes, run_kernel

from b200sim.faults import Fault
from b200sim.machine.observer import Observer
from b200sim.machine.schedule import Eager, ProgramOrder, SeededRandom
from b200sim.tma.encoding import encode
from b200sim.tma.tensor_map import ElementType, Swizzle, TensorMap

HEAD = """.reg .b64 %a<9>, %w; .reg .b32 %t, %l, %wid, %v, %u, %r, %bar, %d, %c<6>;
    .reg .pred %p, %q, %one, %first;
mov.u32 %t, %tid.x; mov.u32 %l, %laneid; mov.u32 %wid, %warpid; mov.u32 %r, %cluster_ctarank;
setp.eq.u32 %first, %t, 0; setp.eq.u32 %one, %l, 0; mov.u32 %bar, smem; add.s32 %d, %bar, 1024;
"""
LOAD = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
TENSOR_LOAD = "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
INIT = "@%first mbarrier.init.shared.b64 [%bar], 1; fence.mbarrier_init.release.cluster; bar.sync 0;\n"
CLUSTER_SYNC = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;\n"


def expect(nbytes: int) -> str:
    return f"@%one mbarrier.arrive.expect_tx.shared.b64 _, [%bar], {nbytes};\n"


def wait(parity: int = 0, name: str = "WAIT") -> str:
    return f"{name}: mbarrier.try_wait.parity.shared.b64 %q, [%bar], {parity}, 1000000; @!%q bra {name};\n"


def load_parameters(count: int) -> str:
    return "".join(f"ld.param.u64 %a{i}, [p{i}];\n" for i in range(count))


def run(body: str, arrays, **launch):
    launch.setdefault("shared_bytes", 8192)
    return run_kernel(HEAD + load_parameters(len(arrays)) + body, arrays, shared=DYNAMIC, **launch)


def map_of(array: np.ndarray, box: tuple[int, ...], swizzle: Swizzle = Swizzle.NONE) -> np.ndarray:
    """The descriptor of a whole array (dimension 0 last), as 128 aligned bytes."""
    kinds = {
        "uint8": ElementType.U8,
        "uint16": ElementType.U16,
        "uint32": ElementType.U32,
        "int32": ElementType.S32,
    }
    tensor_map = TensorMap(
        array.ctypes.data,
        kinds[array.dtype.name],
        array.shape[::-1],
        array.strides[::-1][1:],
        box,
        swizzle=swizzle,
    )
    return aligned(np.frombuffer(encode(tensor_map), np.uint8))


def numbers(*shape: int, dtype=np.uint32) -> np.ndarray:
    return aligned(np.arange(1, 1 + np.prod(shape), dtype=dtype).reshape(shape))


def window(array: np.ndarray, start: tuple[int, ...], size: tuple[int, ...]) -> np.ndarray:
    """A box with zeros where it leaves the array; start and size from dimension 0 (the last axis) on."""
    result = np.zeros(size[::-1], array.dtype)
    for index in itertools.product(*(range(n) for n in size[::-1])):
        at = tuple(i + s for i, s in zip(index, start[::-1], strict=True))
        if all(0 <= x < n for x, n in zip(at, array.shape, strict=True)):
            result[index] = array[at]
    return result


def coordinates(values: tuple[int, ...]) -> str:
    """A mix of immediates and registers."""
    return "{" + ", ".join(f"%c{i}" if i % 2 else str(v) for i, v in enumerate(values)) + "}"


def set_coordinates(values: tuple[int, ...]) -> str:
    return "".join(f"mov.b32 %c{i}, {v};\n" for i, v in enumerate(values))


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "schedule", [ProgramOrder(), Eager(), SeededRandom(5)], ids=["program", "eager", "random"]
)
def test_tensor_load_then_store(rank, schedule):
    """A box that overhangs at both ends is loaded, zeros outside, and stored elsewhere, clipped."""
    shape, box, start, target = (
        (16, 5, 4, 3, 3)[:rank],
        (8, 3, 2, 2, 2)[:rank],
        (12, -1, 3, -1, 1)[:rank],
        (12, 3, 0, 1, 2)[:rank],
    )
    source, out = numbers(*shape[::-1]), aligned(np.zeros(shape[::-1], np.uint32))
    maps = [map_of(source, box), map_of(out, box)]
    nbytes = 4 * int(np.prod(box))
    machine = run(
        INIT + expect(nbytes) + set_coordinates(start)
        + f"""@%one
            cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint
            [%d], [%a2, {coordinates(start)}], [%bar], 0;
        """ + wait() + set_coordinates(target)
        + f"""@%one cp.async.bulk.tensor.{rank}d.global.shared::cta.tile.bulk_group [%a3,
            {coordinates(target)}], [%d];
        cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;""",
        [source, out, *maps], schedule=schedule,
    )  # fmt: skip
    expected = np.zeros_like(out)
    loaded = window(source, start, box)
    for index in itertools.product(*(range(n) for n in box[::-1])):
        at = tuple(i + s for i, s in zip(index, target[::-1], strict=True))
        if all(x < n for x, n in zip(at, out.shape, strict=True)):
            expected[at] = loaded[index]
    assert (out == expected).all() and expected.any()
    counters = machine.counters
    assert (counters.tma_loads, counters.tma_load_bytes, counters.tma_stores) == (1, nbytes, 1)


def test_swizzled_load_lands_where_the_address_bits_say():
    source = numbers(16, 64, dtype=np.uint16)
    dump = aligned(np.zeros(2048 // 4, np.uint32))
    run(
        INIT + expect(2048) + """@%one
        cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes
        [%d], [%a2, {0, 0}], [%bar];""" + wait()
        + """mov.b32 %v, 0; COPY: add.s32 %u, %v, %t; shl.b32 %u, %u, 2; cvt.u64.u32 %w, %u;
            add.s64 %w, %w, %a1;
        add.s32 %u, %u, %d; ld.shared.b32 %u, [%u]; st.global.b32 [%w], %u; add.s32 %v, %v, 32;
        setp.lt.s32 %p, %v, 512;
        @%p bra COPY;""",
        [source, dump, map_of(source, (64, 16), Swizzle.B128)],
    )  # fmt: skip
    flat = dump.view(np.uint16)
    for row in range(16):
        for k in range(64):
            address = 0x800 + row * 128 + k * 2
            address ^= (address >> 7 & 7) << 4
            assert flat[(address - 0x800) // 2] == source[row, k]


@pytest.mark.parametrize("mask", [0b1010, 0b0001, 0b1111])
def test_multicast(mask):
    """CTA 2 loads for the CTAs of the mask: data and bytes arrive in each of them, on its own barrier."""
    source, out = numbers(1, 32), aligned(np.zeros((4, 32), np.uint32))
    machine = run(
        INIT + CLUSTER_SYNC
        + f"""mov.b32 %v, {mask}; shr.u32 %v, %v, %r; and.b32 %v, %v, 1; setp.eq.u32 %p, %v, 0;
        .reg .b16 %mask; mov.b16 %mask, {mask}; setp.eq.u32 %q, %r, 2; and.pred %q, %q, %one;
        @%p bra SEND;""" + expect(128)
        + """SEND: @%q
          cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster
          [%d], [%a2, {0, 0}], [%bar], %mask;
        @%p bra END;""" + wait()
        + """shl.b32 %v, %l, 2; add.s32 %u, %d, %v; ld.shared.b32 %u, [%u]; mad.lo.s32 %v, %r, 128, %v;
        cvt.u64.u32 %w, %v; add.s64 %w, %w, %a1; st.global.b32 [%w], %u; END:""" + CLUSTER_SYNC,
        [source, out, map_of(source, (32, 1))], grid=(4, 1, 1), cluster=(4, 1, 1),
    )  # fmt: skip
    for rank in range(4):
        assert (out[rank] == (source[0] if mask >> rank & 1 else 0)).all()
    assert machine.counters.tma_load_bytes == 128
    assert machine.counters.tma_multicast_bytes == 128 * bin(mask).count("1")


def test_both_ctas_of_a_pair_signal_the_even_one():
    """.cta_group::2 with bit 24 of the barrier address cleared: CTA 0 alone learns of both loads."""
    source, out = numbers(2, 32), aligned(np.zeros(64, np.uint32))
    run(
        INIT + CLUSTER_SYNC
        + """and.b32 %bar, %bar, 0xFEFFFFF8; setp.eq.u32 %p, %r, 0; and.pred %q, %p, %one;
        @%q mbarrier.arrive.expect_tx.shared::cluster.b64 _, [%bar], 256;
        @%one cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.cta_group::2
          [%d], [%a2, {0, %r}], [%bar];
        @!%p bra END;""" + wait()
        + """shl.b32 %v, %l, 2; add.s32 %u, %d, %v; cvt.u64.u32 %w, %v; add.s64 %w, %w, %a1;
            ld.shared.b32 %v, [%u];
        st.global.b32 [%w], %v; mapa.shared::cluster.u32 %u, %u, 1; ld.shared::cluster.b32 %v, [%u];
        st.global.b32 [%w+128], %v; END:""" + CLUSTER_SYNC,
        [source, out, map_of(source, (32, 1))], grid=(2, 1, 1), cluster=(2, 1, 1),
    )  # fmt: skip
    assert (out.reshape(2, 32) == source).all()


def test_load_without_an_elected_lane_happens_32_times_and_an_equal_store_once():
    source, out = numbers(1, 32), aligned(np.zeros((1, 32), np.uint32))
    machine = run(
        INIT + expect(32 * 128)
        + """cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%d], [%a2, {0,
            0}], [%bar];
        """ + wait() + """cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%a3, {0, 0}], [%d];
        cp.async.bulk.commit_group; cp.async.bulk.wait_group.read 0;""",
        [source, out, map_of(source, (32, 1)), map_of(out, (32, 1))],
    )  # fmt: skip
    assert (out == source).all()
    assert (machine.counters.tma_loads, machine.counters.tma_stores) == (32, 1)


@pytest.mark.parametrize("lanes_active", [1, 5])
def test_reductions_happen_once_per_lane(lanes_active):
    out, flat = numbers(1, 32), numbers(8)
    run(
        f"""shl.b32 %v, %l, 2; add.s32 %v, %v, %d; st.shared.b32 [%v], 10; bar.sync 0;
            fence.proxy.async.shared::cta;
        setp.lt.u32 %p, %l, {lanes_active};
        @%p cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [%a2, {{0, 0}}], [%d];
        @%p cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%a1], [%d], 32;
        cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;""",
        [out, flat, map_of(out, (32, 1))],
    )  # fmt: skip
    assert out[0].tolist() == [i + 1 + 10 * lanes_active for i in range(32)]
    assert flat.tolist() == [i + 1 + 10 * lanes_active for i in range(8)]


# -- one-dimensional copies -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schedule", [ProgramOrder(), Eager(), SeededRandom(1)], ids=["program", "eager", "random"]
)
def test_bulk_load_copy_to_peer_and_store(schedule):
    """Global to CTA 0, CTA 0 to CTA 1 over the cluster, CTA 1 to global."""
    source, out = numbers(64), aligned(np.zeros(64, np.uint32))
    run(
        INIT + CLUSTER_SYNC + expect(256)
        + """setp.ne.u32 %p, %r, 0; @%p bra RECEIVE;
        @%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%d], [%a0], 256, [%bar];
        """ + wait(0, "W0")
        + """mapa.shared::cluster.u32 %u, %d, 1; mapa.shared::cluster.u32 %v, %bar, 1; mov.b32 %c0, 256;
        @%one cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%u+512], [%d], %c0,
        [%v]; bra END;
        RECEIVE: """ + wait(0, "W1")
        + """@%one cp.async.bulk.global.shared::cta.bulk_group [%a1], [%d+512], 256;
            cp.async.bulk.commit_group;
        cp.async.bulk.wait_group 0; END: """ + CLUSTER_SYNC,
        [source, out], grid=(2, 1, 1), cluster=(2, 1, 1), schedule=schedule,
    )  # fmt: skip
    assert (out == source).all()


def test_bulk_load_multicast():
    source, out = numbers(4), aligned(np.zeros(8, np.uint32))
    run(
        INIT + CLUSTER_SYNC + expect(16)
        + """.reg .b16 %m; mov.b16 %m, 3; setp.eq.u32 %q, %r, 0; and.pred %q, %q, %one;
        @%q cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%d],
        [%a0], 16, [%bar], %m;
        """ + wait()
        + """mul.wide.u32 %w, %r, 16; add.s64 %w, %w, %a1;
            @%one cp.async.bulk.global.shared::cta.bulk_group [%w], [%d], 16;
        cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;""" + CLUSTER_SYNC,
        [source, out], grid=(2, 1, 1), cluster=(2, 1, 1),
    )  # fmt: skip
    assert (out.reshape(2, 4) == source).all()


# -- groups -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [0, 1, 2, 3])
def test_wait_group_leaves_only_the_newest(allowed):
    """Three stores in a group each; under the default order nothing lands before it has to."""
    out, seen = aligned(np.zeros(12, np.uint32)), aligned(np.zeros(4, np.uint32))
    stores = "".join(
        f"@%one cp.async.bulk.global.shared::cta.bulk_group [%a0+{16 * i}], [%d], 16; "
        f"cp.async.bulk.commit_group;\n"
        for i in range(3)
    )
    looks = "".join(f"ld.global.b32 %v, [%a0+{16 * i}]; st.global.b32 [%a1+{4 * i}], %v;\n" for i in range(3))
    run(
        f"shl.b32 %v, %l, 2; add.s32 %v, %v, %d; st.shared.b32 [%v], 9; bar.sync 0;\n{stores}"
        f"cp.async.bulk.wait_group {allowed};\n{looks}",
        [out, seen],
    )
    assert seen[:3].tolist() == [9] * (3 - allowed) + [0] * allowed
    assert out.tolist() == [9] * 12  # what is left lands before the kernel ends


def test_groups_belong_to_threads():
    """Lane 0 has two groups, lane 1 one between them: a lane that waits leaves the other's groups alone."""
    out, seen = aligned(np.zeros(12, np.uint32)), aligned(np.zeros(4, np.uint32))
    run(
        """shl.b32 %v, %l, 2; add.s32 %v, %v, %d; st.shared.b32 [%v], 9; bar.sync 0; setp.eq.u32 %p, %l, 1;
        @%one cp.async.bulk.global.shared::cta.bulk_group [%a0], [%d], 16; @%one cp.async.bulk.commit_group;
        @%p cp.async.bulk.global.shared::cta.bulk_group [%a0+16], [%d], 16; @%p cp.async.bulk.commit_group;
        @%one cp.async.bulk.global.shared::cta.bulk_group [%a0+32], [%d], 16;
        @%one cp.async.bulk.commit_group;
        @!%p bra LANE0; cp.async.bulk.wait_group 1; bra SEEN; LANE0: cp.async.bulk.wait_group 1; SEEN:
        ld.global.b32 %v, [%a0]; st.global.b32 [%a1], %v; ld.global.b32 %v, [%a0+16];
        st.global.b32 [%a1+4], %v;
        ld.global.b32 %v, [%a0+32]; st.global.b32 [%a1+8], %v;""",
        [out, seen],
    )  # fmt: skip
    assert seen[:3].tolist() == [9, 0, 0]


def test_empty_groups_and_uncommitted_copies():
    """An empty group is complete at once; a copy that no commit has closed is not waited for."""
    out, seen = aligned(np.zeros(4, np.uint32)), aligned(np.zeros(4, np.uint32))
    run(
        """@%one st.shared.b32 [%d], 9; cp.async.bulk.commit_group; cp.async.bulk.commit_group;
            cp.async.bulk.wait_group 0;
        @%one cp.async.bulk.global.shared::cta.bulk_group [%a0], [%d], 16; cp.async.bulk.wait_group 0;
        ld.global.b32 %v, [%a0]; st.global.b32 [%a1], %v; cp.async.bulk.commit_group;
        cp.async.bulk.wait_group.read 0;
        ld.global.b32 %v, [%a0]; st.global.b32 [%a1+4], %v;""",
        [out, seen],
    )  # fmt: skip
    assert seen[:2].tolist() == [0, 9]


def test_cp_async_groups_zero_fill_and_barrier():
    source, out = numbers(128), aligned(np.zeros(4 * 32, np.uint32))
    run(
        INIT.replace("[%bar], 1", "[%bar], 32")
        + """shl.b32 %v, %l, 4; add.s32 %u, %d, %v; cvt.u64.u32 %w, %v; add.s64 %a2, %a0, %w;
            add.s64 %a3, %a1, %w;
        mov.b32 %c0, %l; cp.async.ca.shared.global [%u], [%a2], 4; cp.async.commit_group;
        cp.async.cg.shared.global.L2::128B [%u], [%a2], 16, %c0; cp.async.commit_group; cp.async.wait_group 1;
        ld.shared.b32 %v, [%u]; st.global.b32 [%a3], %v; cp.async.wait_all;
        ld.shared.b32 %v, [%u+4]; st.global.b32 [%a3+4], %v;
        cp.async.ca.shared.global [%u+8], [%a2], 8; cp.async.mbarrier.arrive.noinc.shared.b64 [%bar];"""
        + wait() + "ld.shared.v2.b32 {%c0, %c1}, [%u+8]; st.global.v2.b32 [%a3+8], {%c0, %c1};",
        [source, out],
    )  # fmt: skip
    rows = out.reshape(32, 4)
    assert (rows[:, 0] == source[::4]).all()
    raw = source.view(np.uint8).reshape(32, 16)
    for i in range(32):
        kept = bytes(raw[i, : min(i, 16)]).ljust(16, b"\0")
        assert rows[i, 1] == int.from_bytes(kept[4:8], "little")
    assert (rows[:, 2] == source[::4]).all() and (rows[:, 3] == source[1::4]).all()


# -- descriptors edited on the device ---------------------------------------------------------------------

EDIT = """shl.b32 %v, %l, 2; cvt.u64.u32 %w, %v; add.s64 %w, %w, %a2; ld.global.b32 %u, [%w];
    add.s32 %v, %v, %d;
st.shared.b32 [%v+256], %u; bar.warp.sync -1;
@%one tensormap.replace.tile.global_address.shared::cta.b1024.b64 [%d+256], SOURCE;
@%one tensormap.replace.tile.global_dim.shared::cta.b1024.b32 [%d+256], 0, 16; bar.warp.sync -1;
tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned [%a3], [%d+256], 128;
"""
ACQUIRE = "fence.proxy.tensormap::generic.acquire.gpu [%a3], 128;\n"
FETCH = """@%one cp.async.bulk.tensor.1d.shared::cluster.global.mbarrier::complete_tx::bytes [%d], [%a3,
    {0}], [%bar];
"""


@pytest.mark.parametrize("acquire", [True, False])
def test_edited_descriptor_is_seen_after_the_acquire_fence(acquire):
    """Without the fence the CTA goes on with the descriptor that it has fetched before."""
    first, second, out = numbers(32), aligned(numbers(32) + 100), aligned(np.zeros((2, 32), np.uint32))
    workspace = aligned(np.zeros(128, np.uint8))
    body = INIT
    for round_, source in enumerate(("%a0", "%a1")):
        body += (
            EDIT.replace("SOURCE", source) + (ACQUIRE if acquire or round_ == 0 else "") + expect(128) + FETCH
        )
        body += wait(round_, f"W{round_}")
        body += f"""shl.b32 %v, %l, 2; add.s32 %u, %d, %v; ld.shared.b32 %u, [%u]; cvt.u64.u32 %w, %v;
            add.s64 %w, %w, %a4;
        st.global.b32 [%w+{128 * round_}], %u; bar.warp.sync -1;"""
    run(body, [first, second, map_of(first, (32,)), workspace, out])
    clipped = lambda row: [*row[:16].tolist(), *[0] * 16]  # noqa: E731  # global_dim was set to 16
    assert out[0].tolist() == clipped(first)
    assert out[1].tolist() == clipped(second if acquire else first)


def test_a_prefetch_moves_nothing_and_is_observed():
    class Prefetches(Observer):
        def prefetched(self, warp, ins, tensor_map, coords):
            seen.append((warp.index, tensor_map.box, tuple(coords)))

    seen: list[tuple] = []
    source = numbers(4, 32)
    machine = run(
        "@%one cp.async.bulk.prefetch.tensor.2d.L2.global.tile.L2::cache_hint [%a1, {8, 9}], 0;",
        [source, map_of(source, (16, 2))],
        block=(64, 1, 1),
        observer=Prefetches(),
    )
    assert seen == [(0, (16, 2), (8, 9)), (1, (16, 2), (8, 9))], "a box beyond the tensor is no fault"
    assert machine.counters.tma_load_bytes == 0


# -- misuse -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "body"),
    [
        ("bulk_size", "@%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%d], "
                      "[%a0], 24, [%bar];"),
        ("bulk_misaligned", f"@%one {LOAD} [%d+8], [%a0], 16, [%bar];"),
        ("global_out_of_bounds", f"@%one {LOAD} [%d], [%a0+128], 16, [%bar];"),
        ("mbarrier_uninitialised", f"@%one {LOAD} [%d], [%a0], 16, [%bar+8];"),
        ("tma_barrier", "mov.u32 %v, %bar; or.b32 %v, %v, 0x1000000; "
                        "@%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
                        " [%d], [%a0], 16, [%v];"),
        ("multicast_mask", ".reg .b16 %m; mov.b16 %m, 0; "
                           "@%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
                           ".multicast::cluster [%d], [%a0], 16, [%bar], %m;"),
        ("shared_wrong_cta", ".reg .b16 %m; mov.b16 %m, 2; "
                             "@%one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
                             ".multicast::cluster [%d], [%a0], 16, [%bar], %m;"),
        ("tensor_map_misaligned", f"@%one {TENSOR_LOAD} [%d], [%a1+16, {{0, 0}}], [%bar];"),
        ("unsupported", f"@%one {TENSOR_LOAD}.im2col [%d], [%a1, {{0, 0}}], [%bar];"),
        ("tma_rank", "@%one cp.async.bulk.prefetch.tensor.3d.L2.global.tile [%a1, {0, 0, 0}];"),
        ("tma_bad_coordinate", "@%one cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%a1, {1, 0}];"),
        ("unsupported", "@%one cp.async.bulk.prefetch.tensor.2d.L2.global.im2col [%a1, {0, 0}];"),
        ("misaligned", "cp.async.ca.shared.global [%d+2], [%a0], 4;"),
        ("divergent_aligned",
         "@%one tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned"
         " [%a1], [%d], 128; bar.warp.sync -1;"),
    ],
)  # fmt: skip
def test_misuse(code, body):
    source = numbers(1, 32)
    with pytest.raises(Fault) as caught:
        run(INIT + body, [source, map_of(source, (32, 1))])
    assert caught.value.code == code
    assert "PTX line" in str(caught.value)


def test_idle_lanes_do_nothing():
    found = lanes(
        "setp.gt.u32 %p, %lane, 99; @%p cp.async.bulk.commit_group; "
        "@%p cp.async.bulk.global.shared::cta.bulk_group [%n], [smem], 16; mov.b32 %d, 1;",
        {"%d": 32}, declare=".reg .pred %p; .reg .b64 %n;", shared_bytes=64,
    )  # fmt: skip
    assert found["%d"] == [1] * 32
