"""Shared-memory and instruction descriptors: field decoding, layouts, every refusal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from b200sim.faults import Fault
from b200sim.tensor_core.descriptors import InstructionDescriptor, SmemDescriptor

SWIZZLE_CODES = {0: 0, 32: 6, 64: 4, 128: 2}


def encode(start: int, leading: int, stride: int, swizzle: int) -> int:
    return start >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | 1 << 46 | SWIZZLE_CODES[swizzle] << 61


def swap_chunks(address: int, swizzle: int) -> int:
    """The swizzle in words: in row i of the pattern, 16-byte chunk j changes places with chunk j xor i."""
    row_of_128, inside = divmod(address, 128)
    chunk, byte = divmod(inside, 16)
    span = swizzle // 16  # chunks per pattern row
    if span == 0:
        return address
    first = chunk // span * span
    return row_of_128 * 128 + (first + ((chunk - first) ^ (row_of_128 % span))) * 16 + byte


@settings(max_examples=150, deadline=None)
@given(
    start=st.integers(0, 2000).map(lambda x: 16 * x),
    leading=st.integers(1, 100).map(lambda x: 16 * x),
    stride=st.integers(1, 200).map(lambda x: 16 * x),
    swizzle=st.sampled_from([0, 32, 64, 128]),
)
def test_k_major_rows_byte_by_byte(start: int, leading: int, stride: int, swizzle: int) -> None:
    smem = np.random.default_rng(0).integers(0, 256, 0x20000, dtype=np.uint8)
    descriptor = SmemDescriptor.decode(encode(start, leading, stride, swizzle))
    got = descriptor.read_rows(smem, 32, 32, "A")
    for row in range(32):
        group, inside = divmod(row, 8)
        for byte in range(32):
            if swizzle:
                address = start + group * stride + inside * swizzle + byte
            else:
                address = start + group * stride + inside * 16 + byte // 16 * leading + byte % 16
            assert got[row, byte] == smem[swap_chunks(address, swizzle)]


@settings(max_examples=100, deadline=None)
@given(
    start=st.integers(0, 500).map(lambda x: 16 * x),
    leading=st.integers(1, 100).map(lambda x: 16 * x),
    stride=st.integers(1, 100).map(lambda x: 16 * x),
    swizzle=st.sampled_from([0, 32, 64, 128]),
)
def test_mn_major_columns_element_by_element(start: int, leading: int, stride: int, swizzle: int) -> None:
    """16-bit elements, PTX ISA 9.7.16.3.3: ((T,s,m),(8,k)), T = 8 elements a chunk, s chunks a row."""
    smem = np.random.default_rng(1).integers(0, 256, 0x20000, dtype=np.uint8)
    descriptor = SmemDescriptor.decode(encode(start, leading, stride, swizzle))
    got = descriptor.read_columns(smem, 16, 128, "B").view(np.uint16)
    for k in range(16):
        for x in range(0, 64, 5):
            within, chunk = x % 8, x // 8
            if swizzle:
                s = swizzle // 16
                offset = chunk % s * 16 + chunk // s * leading + k % 8 * swizzle + k // 8 * stride
            else:
                offset = chunk * stride + k % 8 * 16 + k // 8 * leading
            address = swap_chunks(start + offset, swizzle) + 2 * within
            assert got[k, x] == int(smem[address]) | int(smem[address + 1]) << 8


def test_cached_indices_do_not_mix_descriptors() -> None:
    smem = np.arange(0x8000, dtype=np.uint32).view(np.uint8)
    words = smem.view(np.uint32)
    for start in (0, 16, 1024, 0, 16):
        got = SmemDescriptor.decode(encode(start, 16, 128, 0)).read_rows(smem, 32, 16, "SFA").view(np.uint32)
        assert np.array_equal(got.reshape(-1), words[start // 4 : start // 4 + 128])
        got[:] = 0  # results are copies: nothing cached or in memory changes
    assert words[5] == 5


def test_sample_descriptors() -> None:
    tile = SmemDescriptor.decode(0x4000404000010000 | 0x680 >> 4)
    assert (tile.start, tile.stride_offset, tile.swizzle) == (0x680, 1024, 128)
    scales = SmemDescriptor.decode(0x0000400800010000 | 0x12340 >> 4)
    assert (scales.start, scales.leading_offset, scales.stride_offset, scales.swizzle) == (
        0x12340,
        16,
        128,
        0,
    )


def test_reads_past_the_end_of_shared_memory() -> None:
    smem = np.zeros(4096, dtype=np.uint8)
    SmemDescriptor.decode(encode(3072, 16, 1024, 128)).read_rows(smem, 8, 32, "A")
    with pytest.raises(Fault):  # row 7 lies at 0xf80, its chunk 0 moves to chunk 7: 0xff0
        SmemDescriptor.decode(encode(3072, 16, 1024, 128)).read_rows(smem[:0xFFF], 8, 32, "A")
    with pytest.raises(Fault, match=r"A: .*0xc00\.\.0x13ff for 16 rows.*ends at 0x1000") as info:
        SmemDescriptor.decode(encode(3072, 16, 1024, 128)).read_rows(smem, 16, 32, "A")
    assert info.value.code == "smem_out_of_bounds"


@pytest.mark.parametrize(
    ("flip", "code"),
    [
        (1 << 46, "smem_descriptor_version"),
        (1 << 47, "smem_descriptor_version"),
        (1 << 49, "unsupported"),
        (1 << 52, "unsupported"),
        (1 << 55, "smem_descriptor_reserved"),
        (1 << 14, "smem_descriptor_reserved"),
        (3 << 61, "smem_descriptor_swizzle"),
        (5 << 61, "smem_descriptor_swizzle"),
        (7 << 61, "smem_descriptor_swizzle"),
        (1 << 61, "unsupported"),
    ],
)
def test_illegal_smem_descriptors(flip: int, code: str) -> None:
    with pytest.raises(Fault) as info:
        SmemDescriptor.decode(encode(1024, 16, 1024, 0) ^ flip)
    assert info.value.code == code


def block_idesc(m: int = 128, n: int = 128, **fields: int) -> int:
    """Table 44, field by field."""
    shifts = {"sparse": 2, "sfb": 4, "a": 7, "b": 10, "neg_a": 13, "neg_b": 14, "ta": 15, "tb": 16, "sf": 23}
    shifts |= {"sfa": 29, "k": 31, "bit3": 3, "bit6": 6}
    bits = n // 8 << 17 | m // 16 << 24
    for name, value in ({"a": 1, "b": 1} | fields).items():
        bits |= value << shifts[name]
    return bits


def test_sample_instruction_descriptors() -> None:
    assert block_idesc() == 0x08200480
    one = InstructionDescriptor.decode(0x08200480, "mxf4nvf4", 1, 4)
    assert (one.m, one.n, one.k, one.a_format, one.scale_format) == (128, 128, 64, "e2m1", "ue4m3")
    pair = InstructionDescriptor.decode(0x10400480, "mxf4nvf4", 2, 4)
    assert (pair.m, pair.n) == (256, 256)


def test_every_shape_of_block_scaled_kinds() -> None:
    """Table 39: M 128 (one CTA) or 128, 256 (pair); N in steps of 8 or 16 up to 256; nothing else."""
    for group, legal_m, step in ((1, {128}, 8), (2, {128, 256}, 16)):
        for m in range(0, 512, 16):
            for n in range(0, 512, 8):
                bits = block_idesc(m, n)
                if m in legal_m and n and n <= 256 and n % step == 0:
                    got = InstructionDescriptor.decode(bits, "mxf4nvf4", group, 4)
                    assert (got.m, got.n) == (m, n)
                else:
                    with pytest.raises(Fault) as info:
                        InstructionDescriptor.decode(bits, "mxf4nvf4", group, 4)
                    assert info.value.code in ("idesc_m", "idesc_n")


@pytest.mark.parametrize(
    ("fields", "kind", "vec", "code", "text"),
    [
        ({"a": 0}, "mxf4nvf4", 4, "idesc_format", "A format .* is 0, must be 1"),
        ({"b": 5}, "mxf4", 2, "idesc_format", "B format .* is 5"),
        ({"a": 2, "b": 0, "sf": 1}, "mxf8f6f4", 1, "idesc_format", "A format .* is 2"),
        ({"ta": 1}, "mxf4nvf4", 4, "idesc_transpose", "e2m1 is K-major"),
        ({"tb": 1, "b": 3, "a": 0, "sf": 1}, "mxf8f6f4", 1, "idesc_transpose", "e2m3 is K-major"),
        ({"sfb": 2}, "mxf4nvf4", 4, "idesc_sf_id", "SFB id .* is 2"),
        ({"sfa": 1, "sf": 1}, "mxf4", 2, "idesc_sf_id", "SFA id .* is 1"),
        ({"sf": 0}, "mxf4", 2, "idesc_scale_format", "ue4m3"),
        ({"sf": 0}, "mxf4nvf4", 2, "idesc_scale_format", "ue4m3"),
        ({"bit3": 1}, "mxf4nvf4", 4, "idesc_reserved", "bits 3:3"),
        ({"bit6": 1}, "mxf4nvf4", 4, "idesc_reserved", "bits 6:6"),
        ({"k": 1}, "mxf4nvf4", 4, "unsupported", "K = 96"),
        ({"sparse": 1}, "mxf4nvf4", 4, "unsupported", "sparse"),
        ({"sf": 1}, "mxf4", 4, "mma_scale_vec", "scale_vec::4X"),
        ({}, "mxf4nvf4", 1, "mma_scale_vec", "must be 2X, 4X"),
    ],
)
def test_illegal_block_scaled_descriptors(
    fields: dict[str, int], kind: str, vec: int, code: str, text: str
) -> None:
    with pytest.raises(Fault, match=text) as info:
        InstructionDescriptor.decode(block_idesc(**fields), kind, 1, vec)
    assert info.value.code == code


def dense_idesc(m: int, n: int, d: int = 1, a: int = 0, b: int = 0, extra: int = 0) -> int:
    return d << 4 | a << 7 | b << 10 | n // 8 << 17 | m // 16 << 24 | extra


def test_dense_descriptors() -> None:
    f16 = InstructionDescriptor.decode(dense_idesc(64, 8, a=0, b=1), "f16", 1)
    assert (f16.m, f16.n, f16.k, f16.a_format, f16.b_format, f16.d_format) == (
        64,
        8,
        16,
        "f16",
        "bf16",
        "f32",
    )
    assert InstructionDescriptor.decode(dense_idesc(256, 48), "f16", 2).m == 256
    assert InstructionDescriptor.decode(dense_idesc(128, 8, a=2, b=2), "tf32", 1).k == 8
    assert InstructionDescriptor.decode(dense_idesc(128, 8, a=5, b=3), "f8f6f4", 1).a_format == "e2m1"
    assert InstructionDescriptor.decode(dense_idesc(128, 24, d=2, a=1), "i8", 1).a_format == "s8"
    for bits, kind, group, code in (
        (dense_idesc(256, 64), "f16", 1, "idesc_m"),
        (dense_idesc(64, 64), "f16", 2, "idesc_m"),
        (dense_idesc(128, 24), "f16", 2, "idesc_n"),
        (dense_idesc(128, 40, d=2), "i8", 1, "idesc_n"),
        (dense_idesc(128, 24, extra=1 << 16), "f8f6f4", 1, "idesc_n"),
        (dense_idesc(128, 64, d=2), "f16", 1, "idesc_format"),
        (dense_idesc(128, 64, d=0, a=1), "f16", 1, "idesc_format"),
        (dense_idesc(128, 64, a=0, b=0), "tf32", 1, "idesc_format"),
        (dense_idesc(128, 64, extra=1 << 23), "f16", 1, "idesc_reserved"),
        (dense_idesc(128, 64, extra=1 << 3), "f16", 1, "idesc_reserved"),
        (dense_idesc(128, 64, extra=1 << 2), "f16", 1, "unsupported"),
        (dense_idesc(128, 64), "f64", 1, "unsupported"),
    ):
        with pytest.raises(Fault) as info:
            InstructionDescriptor.decode(bits, kind, group)
        assert info.value.code == code, hex(bits)
