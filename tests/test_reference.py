"""Inputs and ground truth against independent arithmetic: Python's fractions and numpy's rounding."""

from __future__ import annotations

import random
import struct
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import generate_input, ref_kernel, second_opinion
from reference_exact import (
    dequantise,
    exact_gemm,
    float32_sums_are_exact,
    round_to_float16,
    scale_range,
    sum_bound,
)
from reference_inputs import draw_padding, reorder_scales

SIZES = {"m": (40, 130, 1), "n": (136, 8, 256), "k": (256, 320, 64), "g": 3}
CPU = torch.device("cpu")


# ------------------------------------------------------------------------------- formats, from their bits


def e2m1(code: int) -> Fraction:
    """Sign, two exponent bits (bias 1), one mantissa bit; exponent 0 is subnormal."""
    sign, exponent, mantissa = code >> 3, code >> 1 & 3, code & 1
    size = Fraction(2 + mantissa, 2) * 2 ** (exponent - 1) if exponent else Fraction(mantissa, 2)
    return -size if sign else size


def e4m3(byte: int) -> Fraction:
    """Sign, four exponent bits (bias 7), three mantissa bits; 0x7F and 0xFF are NaN and not asked for."""
    sign, exponent, mantissa = byte >> 7, byte >> 3 & 15, byte & 7
    size = Fraction(8 + mantissa, 8) * Fraction(2) ** (exponent - 7) if exponent else Fraction(mantissa, 512)
    return -size if sign else size


def to_float16(value: Fraction) -> float:
    """Rounded once, to nearest even, by Python's struct; overflow is infinite."""
    assert Fraction(float(value)) == value, "the detour over float must not round"
    try:
        return struct.unpack("<e", struct.pack("<e", float(value)))[0]
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def element(data, group: int, i: int, j: int) -> Fraction:
    """Element (i, j) of a group's exact product."""
    a, b, _ = data[0][group]
    sfa, sfb = data[1][group]
    rows = [x[r, :, 0].view(torch.uint8).tolist() for x, r in ((a, i), (b, j), (sfa, i), (sfb, j))]
    total = Fraction(0)
    for at in range(2 * len(rows[0])):
        left, right = (row[at // 2] >> 4 * (at % 2) & 15 for row in rows[:2])
        total += e2m1(left) * e4m3(rows[2][at // 16]) * e2m1(right) * e4m3(rows[3][at // 16])
    return total


def test_formats_decode_as_torch_has_them() -> None:
    every = torch.arange(256).to(torch.uint8)
    scales = every.view(torch.float8_e4m3fn).float().tolist()
    assert all(float(e4m3(byte)) == scales[byte] for byte in range(256) if byte not in (0x7F, 0xFF))
    values = dequantise(every.reshape(16, 16).repeat(1, 1), torch.ones(16, 2).to(torch.float8_e4m3fn))
    expected = [float(e2m1(byte >> shift & 15)) for byte in range(256) for shift in (0, 4)]
    assert values.flatten().tolist() == expected


# ------------------------------------------------------------------------------- inputs


def official_draws(m, n, k, g, seed):
    """The official generator's random calls in their order, all on the CPU; blocked scales by the formula."""
    torch.manual_seed(seed)
    groups = []
    for mi, ni, ki in zip(m, n, k, strict=True):
        a = torch.randint(255, (1, mi, ki // 2), dtype=torch.uint8) & 0xBB
        b = torch.randint(255, (1, ni, ki // 2), dtype=torch.uint8) & 0xBB
        c = torch.randn((1, mi, ni), dtype=torch.float16)
        scales = [torch.randint(1, 3, (1, rows, ki // 16), dtype=torch.int8) for rows in (mi, ni)]
        blocked = []
        for rows, scale in zip((mi, ni), scales, strict=True):
            rest_rows, rest_k = -(-rows // 128), -(-ki // 64)
            shape = (1, rest_rows, rest_k, 32, 4, 4)
            memory = torch.randint(1, 3, shape, dtype=torch.int8).flatten().clone()
            for row in range(rows):
                for block in range(ki // 16):
                    memory[blocked_offset(row, block, rest_k)] = scale[0, row, block]
            blocked.append(memory)
        groups.append((a, b, c, scales, blocked))
    return groups


def blocked_offset(row: int, block: int, rest_k: int) -> int:
    return ((row // 128) * rest_k + block // 4) * 512 + row % 32 * 16 + row // 32 % 4 * 4 + block % 4


def memory_of(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor without gaps, in the order of its memory."""
    assert tensor.numel() == tensor.untyped_storage().nbytes() // tensor.element_size()
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())


def test_inputs_are_the_official_draws() -> None:
    abc, sfasfb, reordered, sizes = generate_input(*SIZES.values(), 1111, device="cpu")
    assert sizes == [(m, n, k, 1) for m, n, k in zip(SIZES["m"], SIZES["n"], SIZES["k"], strict=True)]
    for group, (a, b, c, scales, blocked) in enumerate(official_draws(**SIZES, seed=1111)):
        for got, want in zip(abc[group], (a, b, c), strict=True):
            assert torch.equal(memory_of(got), want.flatten().view(torch.uint8))
        for got, want in zip(sfasfb[group], scales, strict=True):
            assert torch.equal(memory_of(got), want.to(torch.float8_e4m3fn).flatten().view(torch.uint8))
        for got, want in zip(reordered[group], blocked, strict=True):
            assert torch.equal(memory_of(got), want.to(torch.float8_e4m3fn).view(torch.uint8))


def test_inputs_have_the_official_types_shapes_and_strides() -> None:
    m, n, k = 130, 136, 320
    abc, sfasfb, reordered, _ = generate_input((m,), (n,), (k,), 1, 7, device="cpu")
    a, b, c = abc[0]
    expected = {
        a: (torch.float4_e2m1fn_x2, (m, k // 2, 1), (k // 2, 1, m * k // 2)),
        b: (torch.float4_e2m1fn_x2, (n, k // 2, 1), (k // 2, 1, n * k // 2)),
        c: (torch.float16, (m, n, 1), (n, 1, m * n)),
        sfasfb[0][0]: (torch.float8_e4m3fn, (m, 20, 1), (20, 1, m * 20)),
        sfasfb[0][1]: (torch.float8_e4m3fn, (n, 20, 1), (20, 1, n * 20)),
        reordered[0][0]: (torch.float8_e4m3fn, (32, 4, 2, 4, 5, 1), (16, 4, 2560, 1, 512, 5120)),
        reordered[0][1]: (torch.float8_e4m3fn, (32, 4, 2, 4, 5, 1), (16, 4, 2560, 1, 512, 5120)),
    }
    for tensor, facts in expected.items():
        assert (tensor.dtype, tuple(tensor.shape), tensor.stride()) == facts
        assert tensor.device == CPU


def test_seeds_decide_the_inputs() -> None:
    one, again, other = (generate_input(**SIZES, seed=seed, device="cpu") for seed in (1, 1, 2))
    for group in range(3):
        for index in range(3):
            first = memory_of(one[0][group][index])
            assert torch.equal(first, memory_of(again[0][group][index]))
            assert not torch.equal(first, memory_of(other[0][group][index]))


@given(
    rows=st.integers(1, 300),
    blocks=st.integers(1, 21),
    batch=st.integers(1, 2),
    distribution=st.sampled_from(["official", "full", "nan_padding"]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_blocked_layout_follows_its_formula(rows, blocks, batch, distribution, seed) -> None:
    rest_rows, rest_k = -(-rows // 128), -(-blocks // 4)
    torch.manual_seed(seed)
    scales = torch.randint(0, 127, (batch, rows, blocks), dtype=torch.uint8)
    before = draw_padding((batch, rest_rows, rest_k, 32, 4, 4), distribution, CPU)
    expected = before.clone().reshape(batch, -1)
    row, block = np.meshgrid(np.arange(rows), np.arange(blocks), indexing="ij")
    offset = (row // 128 * rest_k + block // 4) * 512 + row % 32 * 16 + row // 32 % 4 * 4 + block % 4
    expected[:, offset.ravel()] = scales.reshape(batch, -1)
    plain = scales.view(torch.float8_e4m3fn).permute(1, 2, 0)
    blocked = reorder_scales(plain, before)
    assert torch.equal(memory_of(blocked), expected.flatten())
    where = random.Random(seed)
    for _ in range(10):  # the six-dimensional index of the problem statement
        i, j, batch_index = where.randrange(rows), where.randrange(blocks), where.randrange(batch)
        at = blocked[i % 32, i // 32 % 4, i // 128, j % 4, j // 4, batch_index]
        assert at.view(torch.uint8) == scales[batch_index, i, j]


def test_nan_padding_is_everywhere_but_in_the_problem() -> None:
    data = generate_input(**SIZES, seed=3, device="cpu", distribution="nan_padding")
    plain = generate_input(**SIZES, seed=3, device="cpu")
    for group in range(3):
        for index in range(2):
            memory = memory_of(data[2][group][index])
            scales = data[1][group][index]
            nan = torch.isnan(memory.view(torch.float8_e4m3fn).float())
            assert int((~nan).sum()) == scales.numel()
            assert not torch.isnan(scales.float()).any()
            if nan.any():
                assert set(memory[nan].tolist()) == {0x7F, 0xFF}
    assert torch.equal(memory_of(data[0][0][0]), memory_of(plain[0][0][0])), (
        "the first draw is the official one"
    )
    assert all(torch.isfinite(result).all() for result in ref_kernel(data))


def test_full_range_results_are_finite_and_infinite_small_and_large() -> None:
    data = generate_input((256,), (256,), (512,), 1, 5, device="cpu", distribution="full")
    (result,) = ref_kernel(data)
    assert 0.01 < torch.isinf(result).float().mean() < 0.2
    assert 0.005 < (result.abs() < 1).float().mean() < 0.2
    scales = data[1][0][0].view(torch.uint8)
    assert int(scales.max()) < 0x7F
    assert int(scales[3::8].max()) < 0x18 and int(scales[0::8].max()) <= 0x48 < int(scales[7::8].max())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"g": 2}, "m has 3 entries for g = 2 groups"),
        ({"g": 0}, "g = 0"),
        ({"m": (1, 0, 1)}, r"m\[1\] = 0"),
        ({"n": (8, 8, 12)}, r"n\[2\] = 12: expected a positive multiple of 8"),
        ({"k": (32, 64, 64)}, r"k\[0\] = 32: expected a positive multiple of 64"),
        ({"distribution": "uniform"}, "distribution 'uniform'"),
    ],
)
def test_sizes_outside_the_problem_are_refused(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        generate_input(**{**SIZES, "seed": 1, "device": "cpu", **change})


# ------------------------------------------------------------------------------- ground truth


@pytest.mark.parametrize("distribution", ["official", "full", "nan_padding"])
def test_reference_is_the_exact_product_rounded_once(distribution: str) -> None:
    """Sampled elements of every group, in all three arithmetics: k = 2048 of the full range needs limbs."""
    sizes = {"m": (40, 16, 9), "n": (136, 8, 64), "k": (256, 2048, 64), "g": 3}
    data = generate_input(**sizes, seed=11, device="cpu", distribution=distribution)
    results = ref_kernel(data)
    where = random.Random(1)
    for group, (m, n, _, _) in enumerate(data[3]):
        picks = [(where.randrange(m), where.randrange(n)) for _ in range(30)]
        picks += [(i, j) for i in (3, 7) for j in (3, 7)]  # quiet and loud rows of the full range
        for i, j in picks:
            assert float(results[group][i, j, 0]) == to_float16(element(data, group, i, j)), (group, i, j)
    bounds = [sum_bound(k, *scales) for k, scales in zip(sizes["k"], data[1], strict=True)]
    if distribution == "full":
        assert 2**24 < bounds[0] <= 2**53 < bounds[1]
    else:
        assert max(bounds) <= 2**24


def test_reference_returns_new_tensors_like_c_and_touches_nothing() -> None:
    data = generate_input(**SIZES, seed=4, device="cpu")
    before = [memory_of(t).clone() for part in data[:3] for group in part for t in group]
    for result, (_, _, c) in zip(ref_kernel(data), data[0], strict=True):
        assert (result.dtype, result.shape, result.stride()) == (c.dtype, c.shape, c.stride())
        assert result.data_ptr() != c.data_ptr()
    after = [memory_of(t) for part in data[:3] for group in part for t in group]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def packed(code: int, rows: int, k: int) -> torch.Tensor:
    return torch.full((rows, k // 2), code * 17, dtype=torch.uint8)


def scales_of(byte: int, rows: int, k: int) -> torch.Tensor:
    return torch.full((rows, k // 16), byte, dtype=torch.uint8).view(torch.float8_e4m3fn)


@pytest.mark.parametrize("k, scale", [(29056, 0x40), (1024, 0x7E), (4096, 0x7E), (64, 0x01), (64, 0x00)])
def test_the_largest_sums_are_exact(k: int, scale: int) -> None:
    """All products alike and as large as they get."""
    a, b = packed(7, 3, k), packed(15, 2, k)
    got = exact_gemm(a, scales_of(scale, 3, k), b, scales_of(scale, 2, k))
    expected = k * 6 * -6 * e4m3(scale) ** 2
    if abs(expected) < 2**33:
        assert (got == float(expected)).all() and Fraction(float(expected)) == expected
    assert round_to_float16(got).flatten().tolist() == [to_float16(expected) + 0.0] * 6


@pytest.mark.parametrize("k, bits", [(64, 2**53), (1152, 2**53), (2048, 2**63), (65536, 2**63)])
def test_the_widest_sums_are_exact(k: int, bits: int) -> None:
    """The largest and the smallest products in one sum: float64 up to its limit, then limbs."""
    scale = scales_of(0x7E, 1, k)
    scale.view(torch.uint8)[0, -1] = 0x01
    a, b = packed(7, 1, k), packed(15, 1, k)
    b.view(torch.uint8)[0, -1] = 0xF1  # 0.5 and -6
    bound = sum_bound(k, scale, scale)
    assert bound <= bits and (bound > 2**53) == (bits > 2**53)
    expected = (k - 16) * -36 * e4m3(0x7E) ** 2 + (15 * -36 + 3) * e4m3(1) ** 2
    got = float(exact_gemm(a, scale, b, scale))
    clamped = max(expected, Fraction(-(2**33)))
    assert Fraction(got) == clamped


@given(st.lists(st.integers(0, 126), min_size=4, max_size=8), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_sum_bound_is_an_upper_bound_in_whole_units(scale_bytes: list[int], seed: int) -> None:
    k = 16 * len(scale_bytes)
    scales = torch.tensor([scale_bytes], dtype=torch.uint8).view(torch.float8_e4m3fn)
    unit, largest = scale_range(scales)
    values = [e4m3(byte) for byte in scale_bytes]
    assert largest == max(values)
    assert all((value / Fraction(unit)).denominator == 1 for value in values)
    codes = np.random.default_rng(seed).integers(0, 256, (2, k // 2), dtype=np.uint8)
    left, right = ([byte >> shift & 15 for byte in row.tolist() for shift in (0, 4)] for row in codes)
    products = [
        e2m1(x) * e2m1(y) * values[at // 16] ** 2 for at, (x, y) in enumerate(zip(left, right, strict=True))
    ]
    units = [abs(p) / (Fraction(unit) ** 2 / 4) for p in products]
    assert all(u.denominator == 1 for u in units)
    assert sum(units) <= sum_bound(k, scales, scales)
    exact = exact_gemm(torch.from_numpy(codes[:1]), scales, torch.from_numpy(codes[1:]), scales)
    assert Fraction(float(exact)) == sum(products)


def test_float32_owes_bits_up_to_its_limit() -> None:
    twos = scales_of(0x40, 1, 64)
    ones_and_twos = torch.tensor([[0x38, 0x40, 0x38, 0x40]], dtype=torch.uint8).view(torch.float8_e4m3fn)
    assert float32_sums_are_exact(29127, ones_and_twos, ones_and_twos)
    assert not float32_sums_are_exact(29128, ones_and_twos, ones_and_twos)
    assert float32_sums_are_exact(29128 * 4 - 8, twos, twos), "only twos: the unit is larger"


def test_nan_scales_and_endless_sums_are_refused() -> None:
    for byte in (0x7F, 0xFF):
        with pytest.raises(ValueError, match="NaN"):
            exact_gemm(packed(1, 1, 64), scales_of(byte, 1, 64), packed(1, 1, 64), scales_of(0x38, 1, 64))
    k = 2**20 + 64
    with pytest.raises(ValueError, match=f"k = {k}"):
        exact_gemm(packed(1, 1, k), scales_of(0x38, 1, k), packed(1, 1, k), scales_of(0x38, 1, k))


def test_rounding_at_every_float16_and_every_tie() -> None:
    """Each finite float16, each midpoint to its neighbour, and both sides of it, too close for float32."""
    bits = np.arange(0, 0x7C00, dtype=np.uint16)
    values = bits.view(np.float16).astype(np.float64)
    following = np.append(values[1:], 65536.0)
    middle = (values + following) / 2
    points = np.concatenate([values, middle, middle * (1 - 2.0**-50), middle * (1 + 2.0**-50)])
    points = np.concatenate([points, -points, [1e9, -1e9, 2.0**33]])
    narrow = points.astype(np.float32)
    for values in (points, narrow):
        with np.errstate(over="ignore"):
            expected = values.astype(np.float16) + np.float16(0)  # numpy rounds to float16 in one step
        got = round_to_float16(torch.from_numpy(values)).numpy()
        assert (got.view(np.uint16) == expected.view(np.uint16)).all()
    assert round_to_float16(torch.tensor([65519.99, 65520.0])).tolist() == [65504.0, float("inf")]


def test_second_opinion_needs_a_gpu_that_multiplies_nvfp4() -> None:
    data = generate_input((8,), (8,), (64,), 1, 1, device="cpu")
    assert second_opinion(data) is None


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] < 10,
    reason="needs a Blackwell GPU",
)
def test_second_opinion_agrees() -> None:
    data = generate_input(**{**SIZES, "n": (128, 256, 128)}, seed=1111)
    for ours, theirs in zip(ref_kernel(data), second_opinion(data), strict=True):
        assert torch.equal(ours, theirs)
