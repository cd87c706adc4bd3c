"""Allocation, ownership and the register maps of tcgen05.ld and tcgen05.st."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from b200sim.faults import Fault
from b200sim.tensor_memory import TensorMemory, register_count

SHAPES = ["32x32b", "16x64b", "16x128b", "16x256b", "16x32bx2"]


def filled() -> TensorMemory:
    """Cell (lane, column) holds lane << 16 | column."""
    memory = TensorMemory()
    memory.allocate(512)
    memory.cells[:] = np.arange(128)[:, None] << 16 | np.arange(512)[None, :]
    return memory


def fragment(shape: str, num: int, half_split: int) -> dict[tuple[int, int], tuple[int, int]]:
    """(register, thread) -> (lane, column): built walking the cells in memory order, not from the formulas.

    The 16-lane shapes are tiles of 8 lanes in which four threads share a lane (PTX ISA figures 183-187).
    """
    cells: dict[tuple[int, int], tuple[int, int]] = {}
    if shape == "32x32b":
        for lane in range(32):
            for column in range(num):
                cells[column, lane] = lane, column
    elif shape == "16x64b":
        for repeat in range(num):  # two columns: thread pairs alternate between upper and lower 8 lanes
            for lane in range(16):
                for column in range(2):
                    cells[repeat, 4 * (lane % 8) + 2 * column + lane // 8] = lane, 2 * repeat + column
    elif shape == "16x128b":
        for repeat in range(num):
            for lane in range(16):
                for column in range(4):
                    cells[2 * repeat + lane // 8, 4 * (lane % 8) + column] = lane, 4 * repeat + column
    elif shape == "16x256b":
        for repeat in range(num):
            for lane in range(16):
                for column in range(8):
                    register = 4 * repeat + 2 * (lane // 8) + column % 2
                    cells[register, 4 * (lane % 8) + column // 2] = lane, 8 * repeat + column
    else:
        for lane in range(16):
            for column in range(num):
                cells[column, lane] = lane, column
                cells[column, lane + 16] = lane, column + half_split
    return cells


def legal_nums(shape: str) -> list[int]:
    return [1 << i for i in range(8) if (1 << i) * register_count(shape, 1) <= 128]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("warp", [0, 3, 6])
def test_load_puts_every_cell_in_its_register(shape: str, warp: int) -> None:
    memory = filled()
    for num in legal_nums(shape):
        for low in (0, 16) if shape != "32x32b" else (0,):
            lane, column = 32 * (warp % 4) + low, 3
            got = memory.load(shape, num, lane << 16 | column, warp, half_split=num)
            assert got.dtype == np.uint32 and got.shape == (register_count(shape, num), 32)
            want = np.zeros_like(got)
            for (register, thread), (row, offset) in fragment(shape, num, num).items():
                want[register, thread] = lane + row << 16 | column + offset
            assert np.array_equal(got, want), f".x{num}"


@pytest.mark.parametrize("shape", SHAPES)
def test_packed_load_joins_low_halves_of_two_columns(shape: str) -> None:
    memory = filled()
    memory.cells |= 0xABCD0000
    num = 4
    got = memory.load(shape, num, 32 << 16 | 8, 1, pack16=True, half_split=2 * num)
    for (register, thread), (_, logical) in fragment(shape, num, 0).items():
        column = 8 + 2 * logical + (2 * num if shape == "16x32bx2" and thread >= 16 else 0)
        assert int(got[register, thread]) == column | (column + 1) << 16


@settings(max_examples=60, deadline=None)
@given(data=st.data(), shape=st.sampled_from(SHAPES), warp=st.integers(0, 3), packed=st.booleans())
def test_store_then_load_returns_the_registers_and_touches_nothing_else(
    data: st.DataObject, shape: str, warp: int, packed: bool
) -> None:
    memory = TensorMemory()
    memory.allocate(512)
    before = memory.cells.copy()
    num = data.draw(st.sampled_from(legal_nums(shape)))
    memory_columns = {"32x32b": 1, "16x64b": 2, "16x128b": 4, "16x256b": 8, "16x32bx2": 2}[shape] * num
    width = memory_columns * (2 if packed else 1)
    column = data.draw(st.integers(0, 512 - width))
    split = num * (2 if packed else 1)
    registers = np.random.default_rng(column).integers(
        0, 2**32, (register_count(shape, num), 32), dtype=np.uint32
    )
    address = 32 * warp << 16 | column
    memory.store(shape, num, address, warp, registers, unpack16=packed, half_split=split)
    assert np.array_equal(memory.load(shape, num, address, warp, pack16=packed, half_split=split), registers)
    touched = np.zeros((128, 512), dtype=bool)
    for lane, lanes, first, columns in memory.span(shape, num, address, packed, split):
        touched[lane : lane + lanes, first : first + columns] = True
    assert np.array_equal(memory.cells[~touched], before[~touched])
    assert int(touched.sum()) == registers.size * (2 if packed else 1)


def test_load_is_a_snapshot() -> None:
    memory = filled()
    got = memory.load("32x32b", 2, 0, 0)
    memory.cells[:] = 0
    assert int(got[1, 5]) == 5 << 16 | 1


def test_fresh_memory_is_poisoned() -> None:
    assert (TensorMemory().cells == 0xFFFFFFFF).all()


@pytest.mark.parametrize(("warp", "lane"), [(0, 32), (1, 0), (5, 0), (2, 80), (3, 64)])
def test_a_warp_reaches_only_its_quarter(warp: int, lane: int) -> None:
    with pytest.raises(Fault, match=rf"lane {lane}.*owns lanes {32 * (warp % 4)}") as info:
        filled().load("32x32b", 1, lane << 16, warp)
    assert info.value.code == "tmem_lane_ownership"


def test_sixteen_lane_shapes_start_at_either_half_only() -> None:
    memory = filled()
    assert int(memory.load("16x64b", 1, 48 << 16, 1)[0, 0]) == 48 << 16
    with pytest.raises(Fault) as info:
        memory.load("16x64b", 1, 40 << 16, 1)
    assert info.value.code == "tmem_lane_ownership"


@pytest.mark.parametrize(
    ("shape", "num"), [("32x32b", 256), ("32x32b", 3), ("16x256b", 64), ("16x128b", 128), ("8x8", 1)]
)
def test_illegal_shapes(shape: str, num: int) -> None:
    with pytest.raises(Fault) as info:
        filled().load(shape, num, 0, 0)
    assert info.value.code == "tmem_shape"


def test_allocation_takes_the_lowest_aligned_block_and_waits_when_full() -> None:
    memory = TensorMemory()
    assert memory.allocate(32) == 0
    assert memory.allocate(128) == 128
    assert memory.allocate(64) == 64
    assert memory.allocate(256) == 256
    assert memory.allocate(64) is None
    assert memory.allocate(32) == 32
    memory.free(128, 128)
    assert memory.allocate(64) == 128
    assert memory.allocations == {0: 32, 32: 32, 64: 64, 128: 64, 256: 256}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([32, 64, 128, 256, 512])), max_size=30))
def test_allocations_never_overlap(steps: list[tuple[bool, int]]) -> None:
    memory = TensorMemory()
    for release, columns in steps:
        if release and memory.allocations:
            memory.free(*next(iter(memory.allocations.items())))
        else:
            memory.allocate(columns)
        owned = [c for first, n in memory.allocations.items() for c in range(first, first + n)]
        assert len(owned) == len(set(owned)) and all(
            first % n == 0 for first, n in memory.allocations.items()
        )


@pytest.mark.parametrize("columns", [0, 16, 48, 96, 1024])
def test_allocation_sizes(columns: int) -> None:
    with pytest.raises(Fault, match=str(columns)) as info:
        TensorMemory().allocate(columns)
    assert info.value.code == "tmem_alloc_size"


def test_allocation_misuse() -> None:
    memory = TensorMemory()
    memory.allocate(64)
    for address, columns in ((0, 32), (32, 64), (1 << 16, 64)):
        with pytest.raises(Fault, match=r"columns 0\.\.63") as info:
            memory.free(address, columns)
        assert info.value.code == "tmem_free_mismatch"
    with pytest.raises(Fault) as info:
        memory.check_leaks()
    assert info.value.code == "tmem_leak"
    memory.relinquish()
    with pytest.raises(Fault) as info:
        memory.allocate(32)
    assert info.value.code == "tmem_alloc_after_relinquish"
    memory.free(0, 64)
    memory.check_leaks()


def test_ranges_must_be_inside_and_allocated() -> None:
    memory = TensorMemory()
    memory.allocate(64)
    memory.allocate(32)
    memory.check_range(0, 128, 0, 96, "x")  # two adjacent allocations together
    with pytest.raises(Fault, match=r"columns 90\.\.97") as info:
        memory.check_range(0, 128, 90, 8, "x")
    assert info.value.code == "tmem_not_allocated"
    for lane, lanes, column, columns in ((0, 129, 0, 1), (127, 2, 0, 1), (0, 1, 511, 2), (0, 1, 600, 1)):
        with pytest.raises(Fault) as info:
            memory.check_range(lane, lanes, column, columns, "x")
        assert info.value.code == "tmem_out_of_range"
    with pytest.raises(Fault) as info:
        memory.load("32x32b", 128, 0, 0)
    assert info.value.code == "tmem_not_allocated"
