"""wgmma's register fragments and shared memory layouts, element by element."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from b200sim.faults import Fault
from b200sim.tensor_core.descriptors import SmemDescriptor
from b200sim.tensor_core.wgmma_layouts import a_rows, d_matrix, d_registers, d_words

SWIZZLE_CODES = {16: 0, 128: 1, 64: 2, 32: 3}  # by the span of a pattern row in bytes; 16 is none


def encode(start: int, leading: int, stride: int, span: int, base_offset: int = 0) -> int:
    fields = (start >> 4, 0), (leading >> 4, 16), (stride >> 4, 32), (base_offset, 49)
    return sum(value << low for value, low in fields) | SWIZZLE_CODES[span] << 62


def swizzled(offset: int, span: int) -> int:
    """Swizzle<B, 4, 3> of CuTe with 2^B * 16 = span: bits 4.. are xored with bits 7..."""
    bits = {16: 0, 32: 1, 64: 2, 128: 3}[span]
    return offset ^ (offset & ((1 << bits) - 1) << 7) >> 3


# -- fragments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("element", [1, 2, 4])
def test_fragment_of_a(element):
    """Figures 148, 150 and 152 name rows and columns of the elements a0, a1, ... of a lane."""
    per_register = 4 // element
    matrix = np.arange(64 * 32, dtype=np.uint16).reshape(64, 32).astype(np.uint8)
    words = np.zeros((4, 4, 32), np.uint32)
    for warp in range(4):
        for lane in range(32):
            group, in_group = divmod(lane, 4)
            for i in range(4 * per_register):
                row = 16 * warp + group + (8 if i // per_register % 2 else 0)
                column = (
                    in_group * per_register
                    + i % per_register
                    + (4 * per_register if i >= 2 * per_register else 0)
                )
                raw = matrix[row, column * element : (column + 1) * element].tobytes()
                words[warp, i // per_register, lane] |= (
                    int.from_bytes(raw, "little") << i % per_register * 8 * element
                )
    assert np.array_equal(a_rows(words), matrix)


@pytest.mark.parametrize("n", [8, 24, 256])
@pytest.mark.parametrize("format_", ["f32", "f16"])
def test_fragment_of_d(n, format_):
    """Figures 149, 151 and 153: element d(i) of a lane."""
    bits = 32 if format_ == "f32" else 16
    matrix = np.arange(64 * n, dtype=f"u{bits // 8}").reshape(64, n)
    words = np.zeros((4, d_registers(n, format_), 32), np.uint32)
    per_register = 32 // bits
    for warp in range(4):
        for lane in range(32):
            for i in range(n // 2):
                row = 16 * warp + lane // 4 + (8 if i % 4 >= 2 else 0)
                column = i // 4 * 8 + lane % 4 * 2 + i % 2
                words[warp, i // per_register, lane] |= int(matrix[row, column]) << i % per_register * bits
    typed = matrix.view(f"f{bits // 8}")
    assert np.array_equal(d_matrix(words, format_).view(matrix.dtype), matrix)
    assert np.array_equal(d_words(typed), words)


# -- shared memory ----------------------------------------------------------------------------------------

START = 4096


@settings(max_examples=60, deadline=None)
@given(
    span=st.sampled_from([16, 32, 64, 128]),
    groups=st.integers(1, 5),
    step=st.integers(0, 3),
    extra=st.integers(0, 3),
    base=st.integers(0, 7),
    element=st.sampled_from([1, 2, 4]),
)
def test_k_major(span, groups, step, extra, base, element):
    """((8, m), (T, 2k)) : ((span, SBO), (1, T)) in bytes, or chunks LBO apart; a step of K is 32 bytes."""
    stride = 8 * span + extra * 1024
    leading = groups * (stride + 1024) if span == 16 else 16
    pattern = START + (128 * base if span > 16 else 0)
    first = 32 * step % span if span > 16 else 0
    memory = np.zeros(96 * 1024, np.uint8)
    rows = np.random.default_rng(base).integers(0, 256, (8 * groups, 32), dtype=np.uint8)
    for row in range(8 * groups):
        for byte in range(32):
            if span == 16:
                offset = row % 8 * 16 + row // 8 * stride + byte // 16 * leading + byte % 16
            else:
                offset = swizzled(row % 8 * span + row // 8 * stride + first + byte, span)
            memory[pattern + offset] = rows[row, byte]
    shift = base % {16: 1, 32: 2, 64: 4, 128: 8}[span]
    word = encode(pattern + first, leading, stride, span, base if shift else 0)
    descriptor = SmemDescriptor.decode_wgmma(word)
    assert np.array_equal(descriptor.read(memory, 8 * groups, 32 // element, False, "A"), rows)


@settings(max_examples=60, deadline=None)
@given(
    span=st.sampled_from([16, 32, 64, 128]),
    patterns=st.integers(1, 3),
    extra=st.integers(0, 2),
    swap=st.booleans(),
)
def test_mn_major(span, patterns, extra, swap):
    """((8, span / 16, m), (8, k)) : ((1, 8, LBO), (span / 2, SBO)) in 16-bit elements; unswizzled LBO and
    SBO change places."""
    columns = patterns * span // 2  # elements
    along_k, along_mn = 8 * span + 1024 * extra, 2 * (8 * span + 1024 * extra)
    if swap:
        along_k, along_mn = patterns * along_k, 8 * span
    memory = np.zeros(96 * 1024, np.uint8)
    values = np.random.default_rng(span).integers(0, 1 << 16, (columns, 16), dtype=np.uint16)
    for mn in range(columns):
        for k in range(16):
            inside, pattern = mn % (span // 2), mn // (span // 2)
            offset = inside * 2 + pattern * along_mn + k % 8 * span + k // 8 * along_k
            place = START + swizzled(offset, span)
            memory[place : place + 2] = np.frombuffer(values[mn, k].tobytes(), np.uint8)
    leading, stride = (along_k, along_mn) if span == 16 else (along_mn, along_k)
    descriptor = SmemDescriptor.decode_wgmma(encode(START, leading, stride, span))
    got = descriptor.read(memory, columns, 16, True, "B")
    assert np.array_equal(got.view(np.uint16), values)


@pytest.mark.parametrize("bit", [14, 15, 30, 31, 46, 47, 48, 52, 61])
def test_reserved_bits(bit):
    with pytest.raises(Fault) as caught:
        SmemDescriptor.decode_wgmma(encode(START, 16, 1024, 128) | 1 << bit)
    assert caught.value.code == "smem_descriptor_reserved"


def test_a_matrix_beyond_shared_memory():
    descriptor = SmemDescriptor.decode_wgmma(encode(START, 16, 1024, 128))
    with pytest.raises(Fault, match=r"smem_out_of_bounds.*B of wgmma"):
        descriptor.read(np.zeros(START + 1024 + 128, np.uint8), 24, 16, False, "B of wgmma.mma_async")
