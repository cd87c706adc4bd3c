"""The registry of global allocations: what may be touched, and what the message says otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import aligned

from b200sim.faults import Fault
from b200sim.global_memory import GlobalMemory

POOL = aligned(8192)
BASE = POOL.ctypes.data


def registry(*ranges: tuple[str, int, int]) -> GlobalMemory:
    memory = GlobalMemory()
    for name, start, size in ranges:
        memory.add(name, BASE + start, size)
    return memory


def fault_of(act) -> Fault:
    with pytest.raises(Fault) as caught:
        act()
    return caught.value


# ---- contiguous ----


@given(st.lists(st.integers(0, 4200), min_size=1, max_size=12), st.integers(1, 300))
def test_view_gives_memory_or_faults(starts, size):
    # A: [512, 1512), a hole of 8, B: [1520, 3520), C right behind: [3520, 4000).
    memory = registry(("B", 1520, 2000), ("C", 3520, 480), ("A", 512, 1000))
    inside = [(512, 1512), (1520, 3520), (3520, 4000)]
    POOL[:] = np.arange(POOL.size) % 253
    for start in starts:
        if any(low <= start and start + size <= high for low, high in inside):
            assert (memory.view(BASE + start, size) == POOL[start : start + size]).all()
        else:
            assert fault_of(lambda s=start: memory.view(BASE + s, size)).code == "global_out_of_bounds"


def test_view_is_memory_itself_and_read_only_unless_asked():
    memory = registry(("A", 0, 256))
    view = memory.view(BASE + 16, 8, write=True)
    view[:] = 7
    assert POOL[15:25].tolist() == [POOL[15], *[7] * 8, POOL[24]]
    with pytest.raises(ValueError):
        memory.view(BASE + 16, 8)[:] = 1


@pytest.mark.parametrize(
    ("start", "size", "words"),
    [
        (1500, 20, "it runs 8 bytes past the end of 'A' ["),
        (1512, 16, "it begins 0 bytes past the end of 'A' ["),
        (1540, 4, "it begins 28 bytes past the end of 'A' ["),
        (508, 8, "it begins 4 bytes before 'A' ["),
        (1990, 8, "it begins 10 bytes before 'B' ["),
        (3000, 100, "it begins 600 bytes past the end of 'B' ["),
    ],
)
def test_out_of_bounds_names_the_nearest_allocation_and_the_distance(start, size, words):
    fault = fault_of(lambda: registry(("A", 512, 1000), ("B", 2000, 400)).view(BASE + start, size))
    assert fault.code == "global_out_of_bounds"
    assert f"read of {size} bytes at {BASE + start:#x}" in fault.message
    assert words in fault.message
    assert "bytes)" in fault.message


def test_one_byte_too_many_faults_also_right_after_a_good_access():
    memory = registry(("A", 512, 1000), ("B", 2000, 400))
    for start, size in ((512, 1000), (2000, 400), (1500, 12)):
        memory.view(BASE + start, size)
        assert fault_of(lambda s=start, n=size: memory.view(BASE + s, n + 1)).code == "global_out_of_bounds"
        memory.view(BASE + start, size)
        assert (
            fault_of(lambda s=start, n=size: memory.view(BASE + s - 1, n + 2)).code == "global_out_of_bounds"
        )


def test_empty_registry_and_null():
    fault = fault_of(lambda: GlobalMemory().view(0, 4))
    assert (fault.code, "no global memory is allocated" in fault.message) == ("global_out_of_bounds", True)
    assert fault_of(lambda: registry(("A", 0, 64)).view(0, 4, True)).message.startswith(
        "write of 4 bytes at 0x0 "
    )


def test_inputs_can_be_protected():
    memory = GlobalMemory()
    memory.add("A", BASE, 64, writable=False)
    assert memory.view(BASE, 64).size == 64
    for act in (
        lambda: memory.view(BASE + 16, 4, write=True),
        lambda: memory.strided(BASE + 16, (2,), (8,), 4, write=True),
        lambda: memory.scatter(lanes(BASE + 16, 1), np.zeros(1, np.uint32), 4, None),
    ):
        fault = fault_of(act)
        assert fault.code == "global_write_to_input"
        assert "'A'" in fault.message and "16 bytes from its start" in fault.message


# ---- the registry ----


def test_freed_memory_is_named_until_it_is_used_again():
    memory = registry(("A", 0, 256), ("B", 256, 256))
    memory.view(BASE + 256, 16)
    memory.remove(BASE + 256)
    fault = fault_of(lambda: memory.view(BASE + 300, 16))
    assert fault.code == "global_use_after_free"
    assert "'B'" in fault.message
    assert memory.find(BASE + 300) is None
    assert fault_of(lambda: memory.gather(lanes(BASE + 300, 2), 4)).code == "global_use_after_free"
    memory.add("C", BASE + 256, 64)
    assert memory.view(BASE + 256, 64).size == 64
    assert fault_of(lambda: memory.view(BASE + 330, 4)).code == "global_out_of_bounds"


def test_reuse_of_one_freed_range_keeps_the_others_in_mind():
    memory = registry(("A", 0, 256), ("B", 256, 256), ("C", 512, 256))
    for start in (0, 256, 512):
        memory.remove(BASE + start)
    memory.add("D", BASE + 256, 256)
    for start in (0, 255, 512, 700):
        assert fault_of(lambda s=start: memory.view(BASE + s, 1)).code == "global_use_after_free"


def test_add_refuses_overlap_and_renames_the_same_range():
    memory = registry(("A", 0, 256))
    for start, size in ((0, 128), (255, 2), (100, 50), (128, 512)):
        with pytest.raises(ValueError, match="overlaps 'A'"):
            memory.add("B", BASE + start, size)
    memory.add("B", BASE + 256, 16)
    memory.add("again", BASE, 256, writable=False)
    assert [(a.name, a.writable) for a in memory.allocations] == [("again", False), ("B", True)]
    memory.add("empty", BASE, 0)
    memory.remove(BASE + 4000)
    assert len(memory.allocations) == 2
    assert memory.find(BASE + 271).name == "B"
    assert memory.find(BASE + 272) is None


# ---- strided ----


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 60)), min_size=1, max_size=4),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.integers(0, 64),
)
def test_strided_addresses_every_element(dims, itemsize, start):
    POOL[:] = np.random.default_rng(5).integers(0, 256, POOL.size, dtype=np.uint8)
    memory = registry(("A", 0, 700))
    shape, strides = [n for n, _ in dims], [s for _, s in dims]
    last = start + sum((n - 1) * s for n, s in dims) + itemsize

    def take():
        return memory.strided(BASE + start, shape, strides, itemsize)

    if 0 in shape:
        assert take().shape == tuple(shape)
    elif last > 700:
        fault = fault_of(take)
        assert fault.code == "global_out_of_bounds"
        assert f"{last - 700} bytes past the end" in fault.message
    else:
        view = take()
        assert view.shape == tuple(shape)
        for index in np.ndindex(*shape):
            at = start + sum(i * s for i, s in zip(index, strides, strict=True))
            assert view[index].tobytes() == POOL[at : at + itemsize].tobytes()


def test_strided_writes_go_to_memory():
    memory = registry(("A", 0, 256))
    POOL[:64] = 0
    memory.strided(BASE + 4, (2, 3), (24, 8), 4, write=True)[...] = [[1, 2, 3], [4, 5, 6]]
    assert POOL[:56].view(np.uint32).tolist() == [0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 0]
    with pytest.raises(ValueError):
        memory.strided(BASE, (2,), (8,), 4)[...] = 1


# ---- lanes ----


def lanes(base: int, count: int, stride: int = 4) -> np.ndarray:
    return base + np.arange(count, dtype=np.uint64) * np.uint64(stride)


@given(
    st.sampled_from([1, 2, 4, 8]),
    st.lists(st.tuples(st.integers(0, 127), st.booleans()), min_size=32, max_size=32),
    st.booleans(),
    st.booleans(),
)
def test_gather_and_scatter_are_one_access_per_lane(itemsize, picks, odd_base, masked):
    # Two allocations with a gap; the first may begin at an odd address, so that its words are not aligned
    # to its base.
    POOL[:] = np.random.default_rng(9).integers(0, 256, POOL.size, dtype=np.uint8)
    shift = 8 - 1 if odd_base else 0
    memory = registry(("A", 8 - shift, 64 * 8 + shift), ("B", 4096, 64 * 8))
    offsets = [8 + 8 * slot if slot < 64 else 4096 + 8 * (slot - 64) for slot, _ in picks]
    on = [flag or not masked for _, flag in picks]
    addresses = np.array([BASE + o for o in offsets], np.uint64)
    mask = np.array(on) if masked else None

    got = memory.gather(addresses, itemsize, mask)
    assert got.dtype == np.dtype(f"u{itemsize}")
    words = [int.from_bytes(POOL[o : o + itemsize].tobytes(), "little") for o in offsets]
    assert got.tolist() == [word if flag else 0 for word, flag in zip(words, on, strict=True)]

    expected = bytearray(POOL.tobytes())
    values = [(lane * 0x0123456789ABCDEF + 77) % 256**itemsize for lane in range(32)]
    for offset, value, flag in zip(offsets, values, on, strict=True):
        if flag:
            expected[offset : offset + itemsize] = value.to_bytes(itemsize, "little")
    memory.scatter(addresses, np.array(values, f"u{itemsize}"), itemsize, mask)
    assert POOL.tobytes() == bytes(expected)


@pytest.mark.parametrize("stride", [4, 8])
def test_the_lane_that_misses_is_named_and_nothing_is_stored(stride):
    memory = registry(("A", 0, 29 * stride))
    POOL[:] = 0
    addresses = lanes(BASE, 32, stride)
    for act in (
        lambda: memory.gather(addresses, 4, None),
        lambda: memory.scatter(addresses, np.ones(32, np.uint32), 4, None),
    ):
        fault = fault_of(act)
        assert fault.code == "global_out_of_bounds"
        assert fault.message.startswith("lane 29: ")
        assert "begins 0 bytes past the end of 'A'" in fault.message
    assert not POOL.any()
    mask = np.arange(32) < 29
    memory.scatter(addresses, np.ones(32, np.uint32), 4, mask)
    assert int(POOL.sum()) == 29


@pytest.mark.parametrize(("itemsize", "first", "lane"), [(2, 1, 0), (4, 2, 0), (8, 4, 0), (8, 0, 1)])
def test_misaligned_lanes_fault(itemsize, first, lane):
    memory = registry(("A", 0, 1024))
    addresses = lanes(BASE + first, 32, 4)
    for act in (
        lambda: memory.gather(addresses, itemsize, None),
        lambda: memory.scatter(addresses, np.zeros(32, f"u{itemsize}"), itemsize, None),
    ):
        fault = fault_of(act)
        assert fault.code == "global_misaligned"
        assert fault.message.startswith(f"lane {lane}: ")


def test_lanes_misaligned_in_an_allocation_with_an_odd_base_fault():
    memory = registry(("A", 1, 1024))
    fault = fault_of(lambda: memory.gather(lanes(BASE + 1, 32), 4, None))
    assert fault.code == "global_misaligned"


def test_lanes_that_are_off_may_point_anywhere():
    memory = registry(("A", 0, 64))
    POOL[:64] = 3
    addresses = np.full(32, 1, np.uint64)
    addresses[5] = BASE + 60
    mask = np.arange(32) == 5
    assert memory.gather(addresses, 4, mask).tolist() == [
        0x03030303 if lane == 5 else 0 for lane in range(32)
    ]
    none = np.zeros(32, bool)
    assert not memory.gather(addresses, 4, none).any()
    memory.scatter(addresses, np.zeros(32, np.uint32), 4, none)


def test_lanes_below_the_allocation_tried_first_fault():
    memory = registry(("A", 512, 512))
    addresses = lanes(BASE + 512, 32)
    addresses[31] = BASE + 508
    fault = fault_of(lambda: memory.gather(addresses, 4, None))
    assert fault.message.startswith("lane 31: ")
    assert "begins 4 bytes before 'A'" in fault.message
