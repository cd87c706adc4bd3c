"""Tile copies against an element-by-element model, and against what an H200 was seen to do."""

from __future__ import annotations

import numpy as np
import pytest
import tile_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import MARGIN, PLAIN_TYPES, SHARED_BYTES, aligned, cases

from b200sim.faults import Fault, Unsupported
from b200sim.global_memory import GlobalMemory
from b200sim.tma import tile
from b200sim.tma.encoding import decode, encode
from b200sim.tma.tensor_map import Atomicity, ElementType, Swizzle, TensorMap
from b200sim.tma.validation import validate

RELAXED = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def memory_of(*arrays: np.ndarray, trim: int = 0) -> GlobalMemory:
    memory = GlobalMemory()
    for i, array in enumerate(arrays):
        memory.add(f"array {i}", array.ctypes.data + trim, array.nbytes - 2 * trim)
    return memory


def oob_element(tensor_map: TensorMap) -> int:
    """Zero, or the OOB-NaN: 0x7FF7 in every 16 bits whatever the type (H200)."""
    words = tile_model.BITS[int(tensor_map.element)] // 16
    return int("7ff7" * words, 16) if tensor_map.nan_fill else 0


# ---- against the model ----


@RELAXED
@given(cases())
def test_load_equals_model_and_leaves_the_rest_alone(case):
    expected = bytearray(case.shared.tobytes())
    tensor = case.arena[MARGIN:].tobytes()
    tensor_map = decode(encode(case.tensor_map))
    tile_model.load(tensor_map, case.coords, tensor, expected, case.offset, oob_element(tensor_map))

    # Only the tensor itself is registered: an in-range element can't lie outside of it.
    memory = memory_of(case.arena, trim=MARGIN)
    tile.check(tensor_map, case.coords, case.offset, case.shared.size)
    box = tile.load_box(tensor_map, case.coords, memory)
    assert box.dtype == np.uint8
    assert box.shape == (tensor_map.box_bytes,)
    tile.place(case.shared, case.offset, box, tensor_map)

    assert case.shared.tobytes() == bytes(expected)
    assert (tile.collect(case.shared, case.offset, tensor_map) == box).all()


@RELAXED
@given(cases(negative=False))
def test_store_equals_model_and_leaves_the_rest_alone(case):
    before = case.arena.tobytes()
    tensor = bytearray(before[MARGIN:])
    tile_model.store(case.tensor_map, case.coords, tensor, case.shared.tobytes(), case.offset)

    box = tile.collect(case.shared, case.offset, case.tensor_map)
    tile.store_box(case.tensor_map, case.coords, box, memory_of(case.arena))

    assert case.arena.tobytes() == before[:MARGIN] + bytes(tensor)


@RELAXED
@given(cases(types=[ElementType.U32, ElementType.S32, ElementType.U64], negative=False), st.data())
def test_integer_reduction_equals_model(case, data):
    tensor_map = case.tensor_map
    operations = ["add", "and", "or", "xor", "min", "max"]
    if tensor_map.element is ElementType.U32:
        operations += ["inc", "dec"]
    operation = data.draw(st.sampled_from(operations))
    bits = tile_model.BITS[int(tensor_map.element)]
    before = case.arena.tobytes()
    old, new = before[MARGIN:], bytearray(before[MARGIN:])
    tile_model.store(tensor_map, case.coords, new, case.shared.tobytes(), case.offset)
    untouched = bytearray(len(new))
    tile_model.store(tensor_map, case.coords, untouched, b"\1" * SHARED_BYTES, case.offset)
    expected = bytearray(old)
    for at in range(0, len(new) * 8 - bits + 1, bits):
        if untouched[at // 8]:
            a, b = (tile_model.get_bits(x, at, bits) for x in (old, new))
            value = reduce_integers(operation, a, b, bits, tensor_map.element is ElementType.S32)
            tile_model.put_bits(expected, at, bits, value)

    box = tile.collect(case.shared, case.offset, tensor_map)
    tile.reduce_box(tensor_map, case.coords, box, memory_of(case.arena), operation)

    assert case.arena.tobytes() == before[:MARGIN] + bytes(expected)


def reduce_integers(operation: str, a: int, b: int, bits: int, signed: bool) -> int:
    top = 1 << bits

    def key(x: int) -> int:
        return x - top if signed and x >= top // 2 else x

    return {
        "add": lambda: (a + b) % top,
        "and": lambda: a & b,
        "or": lambda: a | b,
        "xor": lambda: a ^ b,
        "min": lambda: min(a, b, key=key),
        "max": lambda: max(a, b, key=key),
        "inc": lambda: 0 if a >= b else a + 1,
        "dec": lambda: b if a == 0 or a > b else a - 1,
    }[operation]()


@RELAXED
@given(
    st.sampled_from(PLAIN_TYPES), st.integers(0, 40), st.lists(st.integers(-3, 12), min_size=4, max_size=4)
)
def test_gather4_is_four_rows_and_scatter4_puts_them_back(element, column_chunk, rows):
    bits = tile_model.BITS[int(element)]
    column = column_chunk * 128 // bits
    arena = aligned(10 * 256)
    arena[:] = np.arange(arena.size) * 7 % 251
    memory = memory_of(arena)
    tensor_map = TensorMap(
        arena.ctypes.data, element, (256 * 8 // bits, 10), (256,), (512 // bits, 1), swizzle=Swizzle.B64
    )

    box = tile.gather4_box(tensor_map, (column, *rows), memory).reshape(4, 64)

    for got, row in zip(box, rows, strict=True):
        want = np.zeros(64, np.uint8)
        if 0 <= row < 10:
            part = arena[row * 256 : row * 256 + 256][column_chunk * 16 :][:64]
            want[: part.size] = part
        assert (got == want).all()

    shared = np.full(0x800, 0xAA, np.uint8)
    tile.place(shared, 0x480, box.reshape(-1), tensor_map)
    assert (tile.collect(shared, 0x480, tensor_map, nbytes=256) == box.reshape(-1)).all()
    assert (shared[:0x480] == 0xAA).all() and (shared[0x580:] == 0xAA).all()
    if min(rows) >= 0:
        before = arena.copy()
        arena[:] = 0xEE
        tile.scatter4_box(tensor_map, (column, *rows), box.reshape(-1), memory)
        changed = np.zeros((10, 256), bool)
        for row in rows:
            if row < 10:
                changed[row, column_chunk * 16 : column_chunk * 16 + 64] = True
        assert (arena == np.where(changed.reshape(-1), before, 0xEE)).all()


# ---- as seen on an H200 ----

# Which 16-byte chunk of a box of 12 rows lies in each chunk of shared memory, by 128-byte line from the
# destination on; "." is untouched. Dumps of 2-D u8 loads.
H200_CHUNKS = {
    (Swizzle.B32, 16, 1152): """
        .  0  .  1  .  2  .  3
        4  .  5  .  6  .  7  .
        .  8  .  9  . 10  . 11""",
    (Swizzle.B32, 32, 1152): """
        1  0  3  2  5  4  7  6
        8  9 10 11 12 13 14 15
       17 16 19 18 21 20 23 22""",
    (Swizzle.B64, 32, 1024): """
        0  1  .  .  2  3  .  .
        5  4  .  .  7  6  .  .
        .  .  8  9  .  . 10 11
        .  . 13 12  .  . 15 14
       16 17  .  . 18 19  .  .
       21 20  .  . 23 22  .  .""",
    (Swizzle.B64, 64, 1152): """
        1  0  3  2  5  4  7  6
       10 11  8  9 14 15 12 13
       19 18 17 16 23 22 21 20
       24 25 26 27 28 29 30 31
       33 32 35 34 37 36 39 38
       42 43 40 41 46 47 44 45""",
    (Swizzle.B128, 96, 1024): """
        0  1  2  3  4  5  .  .
        7  6  9  8 11 10  .  .
       14 15 12 13  .  . 16 17
       21 20 19 18  .  . 23 22
       28 29  .  . 24 25 26 27
       35 34  .  . 31 30 33 32
        .  . 40 41 38 39 36 37
        .  . 47 46 45 44 43 42
       48 49 50 51 52 53  .  .""",
}


@pytest.mark.parametrize(("swizzle", "row_bytes", "offset"), H200_CHUNKS)
def test_h200_swizzle_is_absolute_and_short_rows_keep_the_span(swizzle, row_bytes, offset):
    source = np.repeat(np.arange(row_bytes * 12 // 16, dtype=np.uint8), 16)
    tensor_map = TensorMap(
        source.ctypes.data & ~15,
        ElementType.U8,
        (row_bytes, 12),
        (row_bytes,),
        (row_bytes, 12),
        swizzle=swizzle,
    )
    shared = np.full(0x400 + 8192, 0xFF, np.uint8)
    tile.place(shared, offset + 0x400, source, tensor_map)
    expected = [-1 if c == "." else int(c) for c in H200_CHUNKS[swizzle, row_bytes, offset].split()]
    got = shared[offset + 0x400 :][: 16 * len(expected)].reshape(-1, 16).view(np.int8)
    assert [chunk.tolist() for chunk in got] == [[c] * 16 for c in expected]
    assert tensor_map.box_bytes == row_bytes * 12


def one_row(values: np.ndarray, element: ElementType, **fields) -> TensorMap:
    return TensorMap(values.ctypes.data, element, (values.size,), (), (values.size,), **fields)


def test_h200_tf32_load_rounds_to_nearest_even():
    pairs = [
        (0x00000001, 0x00000000),
        (0x80000001, 0x80000000),
        (0x007FFFFF, 0x00800000),
        (0x3F800FFF, 0x3F800000),
        (0x3F801000, 0x3F800000),
        (0x3F801001, 0x3F802000),
        (0x3F803000, 0x3F804000),
        (0xBF801800, 0xBF802000),
        (0x7F7FFFFF, 0x7F800000),
        (0x7F800000, 0x7F800000),
        (0x7F800001, 0x7FFFE000),
        (0xFFFFFFFF, 0x7FFFE000),
    ]
    source = aligned(48).view(np.uint32)
    source[:] = [a for a, _ in pairs]
    tensor_map = one_row(source, ElementType.F32, tf32=True, nan_fill=True)
    box = tile.load_box(tensor_map, (0,), memory_of(source)).view(np.uint32)
    assert [hex(x) for x in box] == [hex(b) for _, b in pairs]
    # Fill is not rounded, elements beside it are.
    shifted = tile.load_box(tensor_map, (4,), memory_of(source)).view(np.uint32)
    assert [hex(x) for x in shifted] == [hex(b) for _, b in pairs[4:]] + [hex(0x7FF77FF7)] * 4


@pytest.mark.parametrize(
    ("element", "a", "b", "total"),
    [
        (ElementType.F32, 0x00000001, 0x00000000, 0x00000001),
        (ElementType.F32, 0x00800001, 0x80800000, 0x00000001),
        (ElementType.F32, 0x7FC00000, 0x00000000, 0x7FFFFFFF),
        (ElementType.F32_FTZ, 0x00000001, 0x00000000, 0x00000000),
        (ElementType.F32_FTZ, 0x80000001, 0x80000000, 0x80000000),
        (ElementType.F32_FTZ, 0x00000001, 0x80800000, 0x80800000),
        (ElementType.F32_FTZ, 0x00800001, 0x80800000, 0x00000000),
        (ElementType.F32_FTZ, 0x80800000, 0x80800000, 0x81000000),
    ],
)
def test_h200_f32_addition_flushes_subnormals_only_with_ftz(element, a, b, total):
    target = aligned(16).view(np.uint32)
    target[:] = a
    box = np.full(4, b, np.uint32).view(np.uint8)
    tile.reduce_box(one_row(target, element), (0,), box, memory_of(target), "add")
    assert [hex(x) for x in target] == [hex(total)] * 4


def test_h200_store_fills_the_last_16_bytes_of_a_tensor_row():
    # 34 bf16 = 68 bytes in rows of 96: a store at element 24 writes bytes 48..79 of the row.
    target = aligned(2 * 96)
    target[:] = 0x55
    tensor_map = TensorMap(target.ctypes.data, ElementType.BF16, (34, 2), (96,), (32, 1))
    tile.store_box(tensor_map, (24, 1), np.arange(64, dtype=np.uint8), memory_of(target))
    expected = np.full(192, 0x55, np.uint8)
    expected[96 + 48 : 96 + 80] = np.arange(32)
    assert (target == expected).all()


# ---- atomicities, faults ----


@pytest.mark.parametrize(
    ("atomicity", "rows"),
    [
        (Atomicity.B32, ["01234567", "23016745", "45670123", "67452301"]),
        (Atomicity.B64, ["01234567", "45670123"]),
    ],
)
def test_wide_atomicity_follows_the_tables_of_ptx(atomicity, rows):
    # PTX ISA 5.5.7: the tables list the source chunk in each place, from a 1024-byte boundary on.
    tensor_map = TensorMap(
        0x1000, ElementType.U8, (128, 8), (128,), (128, 8), swizzle=Swizzle.B128, atomicity=atomicity
    )
    validate(tensor_map)
    box = np.repeat(np.arange(64, dtype=np.uint8), 16)
    shared = np.zeros(0x800 + 1024, np.uint8)
    tile.place(shared, 0x800, box, tensor_map)
    chunks = shared[0x800::16].reshape(8, 8)
    for line in range(8):
        assert (chunks[line] == [8 * line + int(c) for c in rows[line % len(rows)]]).all()


PLANE = aligned(64 * 256)
MAP = TensorMap(PLANE.ctypes.data, ElementType.F16, (128, 64), (256,), (64, 8), swizzle=Swizzle.B128)


@pytest.mark.parametrize(
    ("code", "coords", "offset", "store", "words"),
    [
        ("tma_rank", (0, 0, 0), 0x400, False, "3 coordinates for a tensor map of rank 2"),
        ("tma_bad_coordinate", (4, 0), 0x400, False, "start coordinate 4 of dimension 0 is 8 bytes"),
        ("tma_bad_coordinate", (-100, 0), 0x400, False, "-200 bytes"),
        ("tma_negative_store", (0, -1), 0x400, True, "(0, -1)"),
        ("tma_misaligned", (0, 0), 0x440, False, "0x440, which is not a multiple of 128"),
        ("smem_out_of_bounds", (0, 0), 0x380, False, "has [0x400, 0xc00)"),
        ("smem_out_of_bounds", (0, 0), 0x880, False, "1024 bytes at shared address 0x880"),
    ],
)
def test_check_names_what_is_wrong(code, coords, offset, store, words):
    with pytest.raises(Fault) as caught:
        tile.check(MAP, coords, offset, 0xC00, store=store)
    assert caught.value.code == code
    assert words in caught.value.message


def test_negative_coordinates_are_fine_for_loads():
    tile.check(MAP, (-64, -8), 0x800, 0xC00)
    assert not tile.load_box(MAP, (-64, -8), GlobalMemory()).any()


def test_box_wholly_out_of_range_touches_no_memory():
    assert not tile.load_box(MAP, (128, 0), GlobalMemory()).any()
    tile.store_box(MAP, (0, 64), np.ones(1024, np.uint8), GlobalMemory())


@pytest.mark.parametrize("address", [0x440, 0x3C0, 0x100, 0x900])
@pytest.mark.parametrize("swizzle", list(Swizzle))
def test_place_and_collect_refuse_bad_addresses(swizzle, address):
    tensor_map = TensorMap(0x1000, ElementType.U8, (64, 64), (64,), (32, 32), swizzle=swizzle)
    shared = np.zeros(0xC00, np.uint8)
    for act in (
        lambda: tile.place(shared, address, np.ones(1024, np.uint8), tensor_map),
        lambda: tile.collect(shared, address, tensor_map),
    ):
        with pytest.raises(Fault) as caught:
            act()
        assert caught.value.code == ("tma_misaligned" if address % 128 else "smem_out_of_bounds")
    assert not shared.any()


def test_map_larger_than_its_tensor_faults_with_box_and_map():
    memory = memory_of(PLANE)
    too_tall = TensorMap(PLANE.ctypes.data, ElementType.F16, (128, 70), (256,), (64, 8))
    for act in (
        lambda: tile.load_box(too_tall, (64, 60), memory),
        lambda: tile.load_box(too_tall, (0, 57), memory),
        lambda: tile.load_box(too_tall, (64, 63), memory),
        lambda: tile.store_box(too_tall, (64, 60), np.zeros(1024, np.uint8), memory),
    ):
        with pytest.raises(Fault) as caught:
            act()
        assert caught.value.code == "global_out_of_bounds"
        assert "bytes past the end of 'array 0'" in caught.value.message
        assert "(128, 70)" in caught.value.message
        assert "(box at (" in caught.value.message


def test_store_to_an_input_faults():
    memory = GlobalMemory()
    memory.add("A", PLANE.ctypes.data, PLANE.nbytes, writable=False)
    with pytest.raises(Fault) as caught:
        tile.store_box(MAP, (0, 0), np.zeros(1024, np.uint8), memory)
    assert caught.value.code == "global_write_to_input"
    assert "'A'" in caught.value.message


@pytest.mark.parametrize(
    ("operation", "element"),
    [
        ("add", ElementType.U8),
        ("add", ElementType.S64),
        ("min", ElementType.F32),
        ("max", ElementType.F64),
        ("inc", ElementType.S32),
        ("dec", ElementType.U64),
        ("and", ElementType.S64),
        ("xor", ElementType.F32),
        ("or", ElementType.BF16),
        ("mul", ElementType.U32),
    ],
)
@pytest.mark.parametrize("start", [0, 64])
def test_reductions_that_an_h200_refuses(operation, element, start):
    width = 128 // tile_model.BITS[int(element)]
    tensor_map = TensorMap(PLANE.ctypes.data, element, (width, 64), (256,), (width, 8))
    with pytest.raises(Fault) as caught:
        tile.reduce_box(tensor_map, (0, start), np.zeros(128, np.uint8), memory_of(PLANE), operation)
    assert caught.value.code == "tma_bad_reduction"


def test_reduction_onto_coinciding_elements_is_refused():
    tensor_map = TensorMap(PLANE.ctypes.data, ElementType.U32, (4, 8), (0,), (4, 8))
    with pytest.raises(Unsupported):
        tile.reduce_box(tensor_map, (0, 0), np.zeros(128, np.uint8), memory_of(PLANE), "add")


@pytest.mark.parametrize(
    ("tensor_map", "coords", "code"),
    [
        (MAP, (0, 1, 2, 3, 4), "bad_tensor_map"),
        (TensorMap(0x1000, ElementType.U8, (64,), (), (64,)), (0, 1, 2, 3, 4), "bad_tensor_map"),
        (TensorMap(0x1000, ElementType.U8, (64, 8), (64,), (64, 1)), (0, 1, 2), "tma_rank"),
    ],
)
def test_gather4_needs_a_one_row_box_and_five_coordinates(tensor_map, coords, code):
    with pytest.raises(Fault) as caught:
        tile.gather4_box(tensor_map, coords, memory_of(PLANE))
    assert caught.value.code == code
