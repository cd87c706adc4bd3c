"""Tensor maps: bit layout, tensormap.replace and the rules that make one bad."""

from __future__ import annotations

import dataclasses
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import PLAIN_TYPES

from b200sim.faults import Fault, Unsupported
from b200sim.tma.editing import replace
from b200sim.tma.encoding import decode, encode, read_fields
from b200sim.tma.tensor_map import Atomicity, ElementType, Swizzle, TensorMap


def words(raw: bytes) -> tuple[int, ...]:
    return struct.unpack("<32I", raw)


# NVFP4 operand A of 4096 x 4096 (K, M, L), tile 256 x 128, as CuTe-DSL 4.5.2 encodes it.
OPERAND = TensorMap(
    0x7F12_3456_7890,
    ElementType.B4X16,
    (4096, 4096, 1),
    (2048, 4096 * 2048),
    (256, 128, 1),
    swizzle=Swizzle.B128,
    large=True,
)
SCALES = TensorMap(
    0x1000, ElementType.U16, (256, 64, 32, 1), (512, 32768, 1 << 20), (256, 4, 1, 1), large=True
)
OUTPUT = TensorMap(
    0x2000,
    ElementType.F16,
    (4096, 4096, 1),
    (8192, 1 << 25),
    (32, 128, 1),
    swizzle=Swizzle.B64,
    large=True,
)


def test_words_of_the_maps_of_an_nvfp4_gemm():
    assert [words(encode(m))[2] for m in (OPERAND, SCALES, OUTPUT)] == [0x002465A2, 0x002400B2, 0x00244322]


def test_every_word_of_one_map():
    assert words(encode(OPERAND))[:16] == (
        0x34567890,
        0x7F12,
        0x002465A2,
        2048 >> 4,
        4096 * 2048 >> 4,
        0,
        0,
        0,
        4095,
        4095,
        0,
        0,
        0,
        255 << 24,
        127,
        0,
    )
    assert words(encode(OPERAND))[16:] == (0,) * 16


def test_high_bits_of_strides_box_and_element_strides():
    tensor_map = TensorMap(
        0x10,
        ElementType.BF16,
        (1 << 32, 2, 3, 4, 5),
        (0xFF_FFFF_FFF0, 0x0A_0000_0000, 0x50_0000_0020, 0xF0_0000_0010),
        (64, 256, 17, 1, 200),
        (1, 2, 8, 3, 5),
        Swizzle.B128,
        Atomicity.B64,
        nan_fill=True,
    )
    w = words(encode(tensor_map))
    assert w[2] == 2 | 4 << 4 | 10 << 7 | 3 << 13 | 1 << 15 | 2 << 17 | 3 << 19
    assert w[3:7] == (0xFFFF_FFFF, 0xA000_0000, 0x0000_0002, 0x0000_0001)
    assert w[7] == 0xF | 0 << 4 | 5 << 8 | 0xF << 12
    assert w[8:13] == (0xFFFF_FFFF, 1, 2, 3, 4)
    assert w[13] == 63 << 24 | 1 << 3 | 7 << 6 | 2 << 9 | 4 << 12
    assert w[14] == 255 | 16 << 8 | 0 << 16 | 199 << 24
    assert decode(encode(tensor_map)) == tensor_map


@st.composite
def tensor_maps(draw):
    rank = draw(st.integers(1, 5))
    element = draw(st.sampled_from(PLAIN_TYPES))
    bits = {"B4X16": 4, "U8": 8, "U16": 16, "F16": 16, "BF16": 16, "U64": 64, "S64": 64, "F64": 64}.get(
        element.name, 32
    )
    swizzle = draw(st.sampled_from(list(Swizzle)))
    atomicity = draw(st.sampled_from([Atomicity.B16, Atomicity.B32, Atomicity.B64]))
    floats = element.name in ("F16", "BF16", "F32", "F32_FTZ", "F64")
    span = {0: 256, 1: 32, 2: 64, 3: 128}[int(swizzle)]
    chunks = draw(st.integers(1, min(span // 16, 256 * bits // 128)))
    box, room = [chunks * 128 // bits], 227 * 1024 // (16 * chunks)  # rows that shared memory has room for
    for _ in range(rank - 1):
        box.append(draw(st.integers(1, min(256, room))))
        room //= box[-1]
    return TensorMap(
        16 * draw(st.integers(0, 2**44)),
        element,
        (2 * draw(st.integers(1, 2**31)), *(draw(st.integers(1, 2**32)) for _ in range(rank - 1))),
        tuple(16 * draw(st.integers(0, 2**36 - 1)) for _ in range(rank - 1)),
        tuple(box),
        tuple(draw(st.integers(1, 8)) for _ in range(rank)),
        swizzle,
        atomicity if swizzle is Swizzle.B128 else Atomicity.B16,
        nan_fill=floats and draw(st.booleans()),
        tf32=draw(st.booleans()),
        l2_promotion=draw(st.integers(0, 3)),
        large=draw(st.booleans()),
        kind=draw(st.sampled_from([0, 2])),
    )


@given(tensor_maps(), st.binary(min_size=64, max_size=64))
def test_round_trip_ignores_the_upper_half(tensor_map, garbage):
    raw = encode(tensor_map)
    assert len(raw) == 128
    assert decode(raw) == tensor_map
    assert decode(raw[:64] + garbage) == tensor_map


def test_sizes_of_a_box():
    tensor_map = TensorMap(
        0, ElementType.F16, (9, 9, 9, 9), (32, 32, 32), (16, 7, 8, 3), (5, 2, 3, 4), swizzle=Swizzle.B64
    )
    assert tensor_map.box_shape == (16, 4, 3, 1)
    assert tensor_map.row_bytes == 32
    assert tensor_map.box_bytes == 32 * 12
    assert tensor_map.shared_bytes == 64 * 12
    assert OPERAND.box_bytes == OPERAND.shared_bytes == 16384
    assert SCALES.box_bytes == SCALES.shared_bytes == 2048


# ---- tensormap.replace ----

REPLACED = [
    ("global_address", None, 0x7FFF_1234_5670, {"address": 0x7FFF_1234_5670}),
    ("global_dim", 0, 640, {"dims": (640, 4096, 1)}),
    ("global_dim", 1, 1 << 32, {"dims": (4096, 1 << 32, 1)}),
    ("global_stride", 0, 320, {"strides": (320, 4096 * 2048)}),
    ("global_stride", 1, (1 << 40) - 32, {"strides": (2048, (1 << 40) - 32)}),
    ("box_dim", 0, 128, {"box": (128, 128, 1)}),
    ("box_dim", 2, 256, {"box": (256, 128, 256)}),
    ("element_stride", 1, 8, {"element_strides": (1, 8, 1)}),
    ("elemtype", None, 13, {"element": ElementType.B4X16}),
    ("swizzle_mode", None, 3, {"swizzle": Swizzle.B128}),
    ("swizzle_atomicity", None, 3, {"atomicity": Atomicity.B64}),
    ("interleave_layout", None, 2, {"interleave": 2}),
    ("swizzle_mode", None, 4, {"swizzle": Swizzle.NONE, "swizzle96": True}),
]


@pytest.mark.parametrize(("field", "ordinal", "value", "change"), REPLACED)
def test_replace_changes_one_field(field, ordinal, value, change):
    raw = np.frombuffer(encode(OPERAND), np.uint8).copy()
    raw[64:] = 0xC3
    replace(raw, field, ordinal, value)
    assert raw[:64].tobytes() == encode(dataclasses.replace(OPERAND, **change))[:64]
    assert (raw[64:] == 0xC3).all()


@pytest.mark.parametrize(
    ("operand", "element", "tf32"),
    [(n, n, False) for n in range(11)]
    + [(11, 7, True), (12, 8, True), (13, 11, False), (14, 12, False), (15, 13, False)],
)
def test_replace_elemtype_operands_of_ptx_table_33(operand, element, tf32):
    raw = np.frombuffer(encode(dataclasses.replace(OUTPUT, tf32=True)), np.uint8).copy()
    replace(raw, "elemtype", None, operand)
    changed = read_fields(raw.tobytes())
    assert (int(changed.element), changed.tf32) == (element, tf32)
    assert dataclasses.replace(changed, element=OUTPUT.element, tf32=False) == OUTPUT


def test_replace_rank_takes_rank_minus_one_and_fill_mode_is_a_flag():
    raw = np.frombuffer(encode(OUTPUT), np.uint8).copy()
    replace(raw, "rank", None, 1)
    replace(raw, "fill_mode", None, 1)
    changed = decode(raw.tobytes())
    assert (changed.rank, changed.nan_fill, changed.dims) == (2, True, (4096, 4096))


def test_grouped_kernels_may_write_the_dimensions_that_a_rank_3_map_has_not():
    raw = np.frombuffer(encode(OPERAND), np.uint8).copy()
    for ordinal, size in enumerate((1536, 96, 1, 1, 1)):
        replace(raw, "global_dim", ordinal, size)
    for ordinal, stride in enumerate((768, 0, 0, 0)):
        replace(raw, "global_stride", ordinal, stride)
    changed = decode(raw.tobytes())
    assert changed == dataclasses.replace(OPERAND, dims=(1536, 96, 1), strides=(768, 0))


def test_replacing_a_dimension_by_zero_wraps_as_in_hardware():
    raw = np.frombuffer(encode(OPERAND), np.uint8).copy()
    replace(raw, "global_dim", 1, 0)
    assert decode(raw.tobytes()).dims == (4096, 1 << 32, 1)


@pytest.mark.parametrize(
    ("field", "ordinal", "value", "named"),
    [
        ("global_stride", 0, 24, "global_stride[0] = operand 24"),
        ("global_stride", 1, 1 << 40, "global_stride[1]"),
        ("global_stride", 4, 16, "global_stride = ordinal 4"),
        ("box_dim", 1, 0, "box_dim[1] = operand 0"),
        ("box_dim", 0, 257, "box_dim[0] = operand 257"),
        ("box_dim", None, 1, "box_dim = ordinal None"),
        ("global_dim", 5, 1, "global_dim = ordinal 5"),
        ("element_stride", 2, 9, "element_stride[2] = operand 9"),
        ("rank", None, 5, "rank = operand 5"),
        ("elemtype", None, 16, "elemtype = operand 16"),
        ("swizzle_mode", None, 5, "swizzle_mode = operand 5"),
        ("swizzle_atomicity", None, 4, "swizzle_atomicity = operand 4"),
        ("interleave_layout", None, 3, "interleave_layout = operand 3"),
        ("fill_mode", None, 2, "fill_mode = operand 2"),
    ],
)
def test_replace_refuses_operands_that_cannot_be_stored(field, ordinal, value, named):
    raw = np.frombuffer(encode(OPERAND), np.uint8).copy()
    with pytest.raises(Fault) as caught:
        replace(raw, field, ordinal, value)
    assert caught.value.code == "bad_tensor_map"
    assert named in caught.value.message
    assert raw.tobytes() == encode(OPERAND)


def test_replace_of_an_unknown_field_is_unsupported():
    with pytest.raises(Unsupported):
        replace(np.zeros(128, np.uint8), "colour", None, 1)


# ---- validation ----


@pytest.mark.parametrize(
    ("base", "change", "named"),
    [
        (OPERAND, {"dims": (4095, 4096, 1)}, "global_dim[0] = 4095"),
        (OPERAND, {"box": (248, 128, 1)}, "box_dim[0] = 248 elements of B4X16 are 124 bytes"),
        (OPERAND, {"swizzle": Swizzle.B64}, "128 bytes, more than the 64 bytes of swizzle B64"),
        (OPERAND, {"nan_fill": True}, "fill_mode"),
        (OUTPUT, {"box": (48, 128, 1)}, "96 bytes, more than the 64 bytes of swizzle B64"),
        (OUTPUT, {"box": (4, 128, 1)}, "box_dim[0] = 4 elements of F16 are 8 bytes"),
        (OUTPUT, {"atomicity": Atomicity.B32}, "swizzle_atomicity"),
        (OUTPUT, {"address": 0x2008}, "global_address = 0x2008"),
        (OUTPUT, {"address": 1 << 57}, "global_address = 0x200000000000000"),
        (OUTPUT, {"box": (32, 256, 15)}, "245760 bytes, more than shared memory has"),
        (OUTPUT, {"box": (32, 256, 29), "element_strides": (1, 2, 1)}, "237568 bytes, more than"),
    ],
)
def test_decode_names_the_bad_field(base, change, named):
    raw = np.frombuffer(encode(base), np.uint8).copy()
    raw[:64] = np.frombuffer(encode_unchecked(dataclasses.replace(base, **change)), np.uint8)[:64]
    with pytest.raises(Fault) as caught:
        decode(raw.tobytes())
    assert caught.value.code == "bad_tensor_map"
    assert named in caught.value.message


def encode_unchecked(tensor_map: TensorMap) -> bytes:
    """encode() refuses an address that the descriptor could hold: that is put in by hand."""
    raw = bytearray(encode(dataclasses.replace(tensor_map, address=0)))
    raw[:8] = tensor_map.address.to_bytes(8, "little")
    return bytes(raw)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"strides": (2056, 4096)}, "global_stride[0] = 2056"),
        ({"strides": (16, 1 << 40)}, "global_stride[1] = 1099511627776"),
        ({"strides": (16,)}, "global_stride = 2 dimensions, the tensor has 3"),
        ({"box": (256, 128)}, "box_dim = 2 dimensions"),
        ({"box": (256, 257, 1)}, "box_dim[1] = 257"),
        ({"box": (256, 0, 1)}, "box_dim[1] = 0"),
        ({"dims": (4096, 0, 1)}, "global_dim[1] = 0"),
        ({"element_strides": (1, 9, 1)}, "element_stride[1] = 9"),
        ({"dims": (1,) * 6}, "rank = 6"),
        ({"address": 4}, "global_address = 0x4"),
    ],
)
def test_encode_names_the_field_that_does_not_fit(change, named):
    with pytest.raises(Fault) as caught:
        encode(dataclasses.replace(OPERAND, **change))
    assert caught.value.code == "bad_tensor_map"
    assert named in caught.value.message


@pytest.mark.parametrize(
    "change",
    [
        {"interleave": 1},
        {"swizzle96": True},
        {"element": ElementType.B4X16_P64},
        {"element": ElementType.B6X16_P32},
        {"atomicity": Atomicity.B32_FLIP8},
    ],
)
def test_modes_the_simulator_has_not_are_unsupported(change):
    with pytest.raises(Unsupported):
        decode(encode(dataclasses.replace(OPERAND, **change)))


@pytest.mark.parametrize("fill", [0x00, 0xFF])
def test_an_uninitialised_descriptor_is_bad(fill):
    with pytest.raises(Fault) as caught:
        decode(bytes([fill]) * 128)
    assert caught.value.code == "bad_tensor_map"
