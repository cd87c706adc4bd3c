"""One-dimensional bulk copies and reductions, against exact arithmetic in Python."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import aligned

from b200sim.faults import Fault
from b200sim.global_memory import GlobalMemory
from b200sim.tma import bulk

SIZES = st.integers(1, 40).map(lambda n: 16 * n)


def fresh(nbytes: int = 2048) -> tuple[np.ndarray, GlobalMemory]:
    array = aligned(nbytes)
    array[:] = np.arange(nbytes) * 11 % 241
    memory = GlobalMemory()
    memory.add("buffer", array.ctypes.data, nbytes)
    return array, memory


@given(SIZES, st.integers(0, 40), st.integers(0, 40))
def test_copies_move_exactly_the_bytes_asked_for(size, source_chunk, target_chunk):
    array, memory = fresh()
    original = array.tobytes()
    shared, peer = (np.full(0x400 + 2048, 0xFF, np.uint8) for _ in range(2))
    here, there = 0x400 + 16 * source_chunk, 0x400 + 16 * target_chunk

    data = bulk.read_global(memory, array.ctypes.data + 16 * source_chunk, size)
    array[:] = 0x99
    bulk.write_shared(shared, here, data)
    bulk.write_shared(peer, there, bulk.read_shared(shared, here, size))
    bulk.write_global(memory, array.ctypes.data + 16 * target_chunk, bulk.read_shared(peer, there, size))

    part = original[16 * source_chunk : 16 * source_chunk + size]
    assert shared.tobytes() == b"\xff" * here + part + b"\xff" * (shared.size - here - size)
    assert peer.tobytes() == b"\xff" * there + part + b"\xff" * (peer.size - there - size)
    before = 16 * target_chunk
    assert array.tobytes() == b"\x99" * before + part + b"\x99" * (2048 - before - size)


@given(st.integers(0, 0xFFFF))
def test_byte_mask_picks_bytes_of_every_16(mask):
    array, memory = fresh(64)
    before = array.tolist()
    bulk.write_global(memory, array.ctypes.data, np.full(48, 0xEE, np.uint8), byte_mask=mask)
    expected = [0xEE if i < 48 and mask >> i % 16 & 1 else old for i, old in enumerate(before)]
    assert array.tolist() == expected


@pytest.mark.parametrize(
    ("code", "act"),
    [
        ("bulk_size", lambda m, a, s: bulk.read_global(m, a, 24)),
        ("bulk_size", lambda m, a, s: bulk.read_shared(s, 0x400, 0)),
        ("bulk_size", lambda m, a, s: bulk.write_global(m, a, np.zeros(8, np.uint8))),
        ("bulk_misaligned", lambda m, a, s: bulk.read_global(m, a + 8, 16)),
        ("bulk_misaligned", lambda m, a, s: bulk.write_global(m, a + 4, np.zeros(16, np.uint8))),
        ("bulk_misaligned", lambda m, a, s: bulk.write_shared(s, 0x408, np.zeros(16, np.uint8))),
        (
            "bulk_misaligned",
            lambda m, a, s: bulk.reduce_global(m, a + 8, np.zeros(16, np.uint8), "add", "u32"),
        ),
        ("smem_out_of_bounds", lambda m, a, s: bulk.write_shared(s, 0x3F0, np.zeros(16, np.uint8))),
        ("smem_out_of_bounds", lambda m, a, s: bulk.read_shared(s, 0x7F0, 32)),
        ("global_out_of_bounds", lambda m, a, s: bulk.read_global(m, a + 2048, 16)),
        ("tma_bad_reduction", lambda m, a, s: bulk.reduce_global(m, a, np.zeros(16, np.uint8), "min", "f32")),
        ("tma_bad_reduction", lambda m, a, s: bulk.reduce_global(m, a, np.zeros(16, np.uint8), "add", "u8")),
        (
            "tma_bad_reduction",
            lambda m, a, s: bulk.reduce_shared(s, 0x400, np.zeros(16, np.uint8), "add", "f32"),
        ),
    ],
)
def test_faults(code, act):
    array, memory = fresh()
    before = array.copy()
    with pytest.raises(Fault) as caught:
        act(memory, array.ctypes.data, np.zeros(0x800, np.uint8))
    assert caught.value.code == code
    assert (array == before).all()


# ---- reductions ----


def reduced(operation: str, type_name: str, old: list[int], new: list[int], size: int) -> list[int]:
    """Run a reduction on raw words of `size` bytes; padded with zeros to 16 bytes."""
    dtype = np.dtype(f"u{size}")
    count = -(-len(old) * size // 16) * 16 // size
    array = aligned(count * size)
    words = array.view(dtype)
    words[: len(old)] = old
    data = np.zeros(count, dtype)
    data[: len(new)] = new
    memory = GlobalMemory()
    memory.add("target", array.ctypes.data, array.nbytes)
    bulk.reduce_global(memory, array.ctypes.data, data.view(np.uint8), operation, type_name)
    return words[: len(old)].tolist()


def round_half_even(value: Fraction, precision: int, smallest: int, largest: int) -> float:
    """Nearest number with `precision` bits, exponents of the last bit >= smallest; infinity from
    2**largest on."""
    if value == 0:
        return 0.0
    exponent = abs(value).numerator.bit_length() - abs(value).denominator.bit_length()
    if abs(value) < Fraction(2) ** exponent:
        exponent -= 1
    ulp = Fraction(2) ** max(exponent - precision + 1, smallest)
    rounded = round(value / ulp) * ulp  # Fraction rounds half to even
    if abs(rounded) >= Fraction(2) ** largest:
        return float("inf") if value > 0 else float("-inf")
    return float(rounded)


def from_bf16(raw: int) -> float:
    return struct.unpack("<f", struct.pack("<I", raw << 16))[0]


def from_f16(raw: int) -> float:
    return struct.unpack("<e", struct.pack("<H", raw))[0]


FORMATS = {
    "f16": (2, from_f16, lambda x: struct.unpack("<H", struct.pack("<e", x))[0], (11, -24, 16), 0x7FFF),
    "bf16": (
        2,
        from_bf16,
        lambda x: struct.unpack("<I", struct.pack("<f", x))[0] >> 16,
        (8, -133, 128),
        0x7FFF,
    ),
    "f32": (
        4,
        lambda raw: struct.unpack("<f", struct.pack("<I", raw))[0],
        lambda x: struct.unpack("<I", struct.pack("<f", x))[0],
        (24, -149, 128),
        0x7FFFFFFF,
    ),
}


def float_sum(name: str, a: int, b: int) -> int:
    _, read, write, rounding, nan = FORMATS[name]
    x, y = read(a), read(b)
    if x != x or y != y or (abs(x) == abs(y) == float("inf") and x != y):
        return nan
    if float("inf") in (abs(x), abs(y)):
        return write(x if abs(x) == float("inf") else y)
    exact = Fraction(x) + Fraction(y)
    if exact == 0:  # -0 only from two of them
        return write(-0.0) if str(x) == str(y) == "-0.0" else 0
    return write(round_half_even(exact, *rounding))


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_float_additions_are_correctly_rounded(name, data):
    size = FORMATS[name][0]
    raw = st.integers(0, 256**size - 1)
    close = st.builds(lambda x, d: (x + d) % 256**size, raw, st.integers(-40, 40))
    a = data.draw(st.lists(raw, min_size=1, max_size=8))
    b = [data.draw(st.one_of(raw, close, st.just(x ^ 1 << 8 * size - 1))) for x in a]
    got = reduced("add", name, a, b, size)
    expected = [float_sum(name, x, y) for x, y in zip(a, b, strict=True)]
    assert [hex(x) for x in got] == [hex(x) for x in expected]


@pytest.mark.parametrize("name", ["f16", "bf16"])
@pytest.mark.parametrize("operation", ["min", "max"])
@given(data=st.data())
def test_half_min_and_max_order_numbers_zeros_and_nan(name, operation, data):
    read = FORMATS[name][1]
    raw = st.one_of(st.integers(0, 0xFFFF), st.sampled_from([0, 0x8000, 0x7FFF, 0xFFFF]))
    a, b = data.draw(raw), data.draw(raw)
    x, y = read(a), read(b)
    if x != x or y != y:  # a number wins over NaN
        expected = 0x7FFF if x != x and y != y else (b if x != x else a)
    else:
        # Raw sign-magnitude order puts -0 below +0.
        low, high = sorted((a, b), key=lambda v: -(v & 0x7FFF) - 1 if v & 0x8000 else v)
        expected = low if operation == "min" else high
    assert hex(reduced(operation, name, [a], [b], 2)[0]) == hex(expected)


def test_double_additions():
    def word(x: float) -> int:
        return struct.unpack("<Q", struct.pack("<d", x))[0]

    assert reduced("add", "f64", [word(0.1), word(-3.5)], [word(0.2), word(1e300)], 8) == [
        word(0.1 + 0.2),
        word(1e300),
    ]


@pytest.mark.parametrize("size", [4, 8])
@given(data=st.data())
def test_integer_reductions(size, data):
    top = 256**size
    raw = st.one_of(st.integers(0, top - 1), st.sampled_from([0, 1, top // 2, top // 2 - 1, top - 1]))
    a, b = data.draw(raw), data.draw(raw)

    def signed(x: int) -> int:
        return x - top if x >= top // 2 else x

    bits = 8 * size
    expected = {
        ("add", f"u{bits}"): (a + b) % top,
        ("min", f"u{bits}"): min(a, b),
        ("max", f"u{bits}"): max(a, b),
        ("min", f"s{bits}"): min(a, b, key=signed),
        ("max", f"s{bits}"): max(a, b, key=signed),
        ("and", f"b{bits}"): a & b,
        ("or", f"b{bits}"): a | b,
        ("xor", f"b{bits}"): a ^ b,
    }
    if size == 4:
        expected["add", "s32"] = (a + b) % top
        expected["inc", "u32"] = 0 if a >= b else a + 1
        expected["dec", "u32"] = b if a == 0 or a > b else a - 1
    got = {key: reduced(*key, [a], [b], size)[0] for key in expected}
    assert got == expected


def test_reduction_into_a_peers_shared_memory():
    shared = np.zeros(0x480, np.uint8)
    shared[0x410:0x420].view(np.uint32)[:] = [1, 2, 3, 0xFFFFFFFF]
    bulk.reduce_shared(shared, 0x410, np.array([5, 5, 5, 5], np.uint32).view(np.uint8), "add", "u32")
    assert shared[0x410:0x420].view(np.uint32).tolist() == [6, 7, 8, 4]
    assert not shared[:0x410].any() and not shared[0x420:].any()
