"""Numerics of the 4-bit block-scaled MMA against scalar integer arithmetic."""

from __future__ import annotations

import mma_oracle as oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from b200sim.tensor_core import block_scaled

DECODERS = {"ue4m3": (oracle.ue4m3, -6), "ue8m0": (oracle.ue8m0, -127)}


def packed(rng: np.random.Generator, rows: int, mask: int = 0xFF) -> np.ndarray:
    return rng.integers(0, 256, (rows, 32), dtype=np.uint8) & np.uint8(mask)


def operand(data: np.ndarray, codes: np.ndarray, scale_format: str) -> block_scaled.Operand:
    return block_scaled.operand(block_scaled.decode(data), codes, scale_format)


def expected(
    a: np.ndarray, b: np.ndarray, sfa: np.ndarray, sfb: np.ndarray, c: float, scale_format: str
) -> int:
    """One output from one packed row of A and of B."""
    decode, min_exponent = DECODERS[scale_format]
    a_row = [oracle.e2m1(int(a[i // 2]) >> 4 * (i % 2)) for i in range(64)]
    b_row = [oracle.e2m1(int(b[i // 2]) >> 4 * (i % 2)) for i in range(64)]
    scales = [[decode(int(code)) for code in row] for row in (sfa, sfb)]
    return oracle.block_scaled(a_row, b_row, *scales, float(c), min_exponent)


def check(
    a: np.ndarray,
    b: np.ndarray,
    sfa: np.ndarray,
    sfb: np.ndarray,
    c: np.ndarray | None,
    scale_format: str,
    samples: list[tuple[int, int]],
) -> None:
    result = block_scaled.multiply_accumulate(
        operand(a, sfa, scale_format), operand(b, sfb, scale_format), c
    ).view(np.uint32)
    for m, n in samples:
        before = 0.0 if c is None else float(c[m, n])
        want = expected(a[m], b[n], sfa[m], sfb[n], before, scale_format)
        assert hex(result[m, n]) == hex(want), f"element {m},{n}, C = {before!r}"


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale_format=st.sampled_from(["ue4m3", "ue8m0"]),
    scale_range=st.sampled_from([(0, 256), (0x38, 0x41), (0, 16), (0x60, 0x80), (110, 144), (0, 1)]),
    mask=st.sampled_from([0xFF, 0xBB, 0x00]),
    c_exponent=st.sampled_from([None, -149, -60, -22, -12, -3, 0, 6, 13, 17, 30, 100, 127]),
)
def test_matches_the_scalar_rule(
    seed: int, scale_format: str, scale_range: tuple[int, int], mask: int, c_exponent: int | None
) -> None:
    rng = np.random.default_rng(seed)
    a, b = packed(rng, 12, mask), packed(rng, 9)
    sfa, sfb = (rng.integers(*scale_range, (rows, 4)).astype(np.uint8) for rows in (12, 9))
    c = None
    if c_exponent is not None:
        c = np.ldexp(rng.uniform(-1.99, 1.99, (12, 9)), c_exponent).astype(np.float32)
    samples = [(int(m), int(n)) for m, n in zip(rng.integers(0, 12, 14), rng.integers(0, 9, 14), strict=True)]
    check(a, b, sfa, sfb, c, scale_format, samples)


@pytest.mark.parametrize("c_exponent", [-4, 4, 22, 24, 26])
def test_cancellation_and_last_place_rounding_with_official_data(c_exponent: int) -> None:
    """C close to -A B, and C so large that the sum needs truncation to 24 bits, on the fast way."""
    rng = np.random.default_rng(100 + c_exponent)
    a, b = packed(rng, 32, 0xBB), packed(rng, 32, 0xBB)
    sfa, sfb = (np.where(rng.integers(0, 2, (32, 4)), 0x38, 0x40).astype(np.uint8) for _ in range(2))
    product = block_scaled.multiply_accumulate(operand(a, sfa, "ue4m3"), operand(b, sfb, "ue4m3"), None)
    noise = np.ldexp(rng.integers(-7, 8, product.shape), c_exponent).astype(np.float32)
    c = np.float32(noise - product) if c_exponent < 20 else noise + np.float32(0.25)
    check(a, b, sfa, sfb, c, "ue4m3", [(m, int(rng.integers(32))) for m in range(32)])


def test_truncation_is_toward_zero_not_to_nearest() -> None:
    """2**24 + 1.5 has no fp32: toward zero it is 2**24, to nearest it would be 2**24 + 2."""
    a = np.zeros((1, 32), dtype=np.uint8)
    b = np.zeros((1, 32), dtype=np.uint8)
    a[0, 0], b[0, 0] = 0x02, 0x03  # 1.0 * 1.5
    ones = np.full((1, 4), 0x38, dtype=np.uint8)
    for sign in (1, -1):
        c = np.array([[sign * 2.0**24]], dtype=np.float32)
        a_signed = a | np.uint8(0x08 if sign < 0 else 0)
        result = block_scaled.multiply_accumulate(
            operand(a_signed, ones, "ue4m3"), operand(b, ones, "ue4m3"), c
        )
        assert float(result[0, 0]) == sign * 2.0**24


def test_small_accumulator_bits_are_lost_to_alignment() -> None:
    """With a block at exponent 16 the last kept bit is 2**-19: C = 2**-20 vanishes even beside a zero sum."""
    zeros = np.zeros((1, 32), dtype=np.uint8)
    large = np.full((1, 4), 0x78, dtype=np.uint8)  # 256 = 2**8
    c = np.array([[2.0**-20]], dtype=np.float32)
    result = block_scaled.multiply_accumulate(
        operand(zeros, large, "ue4m3"), operand(zeros, large, "ue4m3"), c
    )
    assert result.view(np.uint32)[0, 0] == 0
    kept = block_scaled.multiply_accumulate(
        operand(zeros, large, "ue4m3"), operand(zeros, large, "ue4m3"), c * np.float32(2)
    )
    assert float(kept[0, 0]) == 2.0**-19


def test_every_pair_of_finite_e4m3_scales() -> None:
    """All 127 x 127 pairs at once, one element each: 1.5 * SFA * 1 * SFB is exact in fp32."""
    codes = np.arange(127, dtype=np.uint8)
    data = np.zeros((127, 32), dtype=np.uint8)
    data[:, 0] = 0x03
    ones = np.zeros((127, 32), dtype=np.uint8)
    ones[:, 0] = 0x02
    scales = np.zeros((127, 4), dtype=np.uint8)
    scales[:, 0] = codes
    result = block_scaled.multiply_accumulate(
        operand(data, scales, "ue4m3"), operand(ones, scales, "ue4m3"), None
    )
    values = [oracle.ue4m3(code) for code in range(127)]
    for m, left in enumerate(values):
        for n, right in enumerate(values):
            assert left is not None and right is not None
            assert float(result[m, n]) == 1.5 * float(left) * float(right)


def test_nan_scales_and_nan_accumulators() -> None:
    rng = np.random.default_rng(3)
    a, b = packed(rng, 8), packed(rng, 8)
    sfa, sfb = np.full((8, 4), 0x38, dtype=np.uint8), np.full((8, 4), 0x38, dtype=np.uint8)
    sfa[2, 3], sfb[5, 0] = 0x7F, 0xFF  # 0xFF: bit 7 is padding, the rest is NaN
    c = np.zeros((8, 8), dtype=np.float32)
    c.view(np.uint32)[6, 6] = 0xFFFFFFFF  # poison
    result = block_scaled.multiply_accumulate(operand(a, sfa, "ue4m3"), operand(b, sfb, "ue4m3"), c)
    nan = np.zeros((8, 8), dtype=bool)
    nan[2], nan[:, 5], nan[6, 6] = True, True, True
    assert (result.view(np.uint32)[nan] == oracle.NAN_BITS).all()
    check(a, b, sfa, sfb, c, "ue4m3", [(m, n) for m in range(8) for n in range(8)])


def test_nan_padding_rows_leave_the_other_rows_exact() -> None:
    """NaN scales in some rows, and the NaN accumulators they caused earlier, change nothing elsewhere."""
    rng = np.random.default_rng(4)
    a, b = packed(rng, 16, 0xBB), packed(rng, 8, 0xBB)
    sfa, sfb = np.full((16, 4), 0x40, dtype=np.uint8), np.full((8, 4), 0x38, dtype=np.uint8)
    sfa[10:] = 0x7F
    c = rng.integers(-50, 50, (16, 8)).astype(np.float32)
    c[10:] = np.nan
    check(a, b, sfa, sfb, c, "ue4m3", [(m, n) for m in range(16) for n in range(8)])


def test_infinite_accumulator_stays_and_overflow_is_infinite() -> None:
    a = np.full((1, 32), 0x77, dtype=np.uint8)
    big = np.full((1, 4), 254, dtype=np.uint8)  # 2**127
    result = block_scaled.multiply_accumulate(operand(a, big, "ue8m0"), operand(a, big, "ue8m0"), None)
    assert result[0, 0] == np.inf
    ones = np.full((1, 4), 0x38, dtype=np.uint8)
    c = np.array([[-np.inf]], dtype=np.float32)
    result = block_scaled.multiply_accumulate(operand(a, ones, "ue4m3"), operand(a, ones, "ue4m3"), c)
    assert result[0, 0] == -np.inf


def test_zero_results_are_positive() -> None:
    a = np.full((4, 32), 0x88, dtype=np.uint8)  # -0
    ones = np.full((4, 4), 0x38, dtype=np.uint8)
    c = np.full((4, 4), -0.0, dtype=np.float32)
    for before in (None, c):
        result = block_scaled.multiply_accumulate(
            operand(a, ones, "ue4m3"), operand(a, ones, "ue4m3"), before
        )
        assert (result.view(np.uint32) == 0).all()


@pytest.mark.parametrize("data", ["random", "large"])
@pytest.mark.parametrize(
    ("scale_range", "way"), [((0x38, 0x41), "float32"), ((0x28, 0x50), "float64"), ((0, 0x7F), "rule")]
)
def test_fast_ways_equal_the_rule_over_a_whole_accumulation(
    scale_range: tuple[int, int], way: str, data: str
) -> None:
    """Every element of a tile, against the vectorised rule (itself checked against the scalar one above).

    Large data: only 1.5 and 6, so that sums grow past 24 bits and their last bits are in use.
    """
    rng = np.random.default_rng(9)
    a, b = packed(rng, 128), packed(rng, 64)
    if data == "large":
        a, b = a & 0x44 | 0x33, b & 0x44 | 0x33
    sfa, sfb = (rng.integers(*scale_range, (rows, 4)).astype(np.uint8) for rows in (128, 64))
    left, right = operand(a, sfa, "ue4m3"), operand(b, sfb, "ue4m3")
    c: np.ndarray | None = None
    for _ in range(4):  # the accumulator as a kernel builds it up
        assert (way == "rule") == (block_scaled._exact(left, right, c) is None)
        result = block_scaled.multiply_accumulate(left, right, c)
        assert np.array_equal(
            result.view(np.uint32), block_scaled.by_the_rule(left, right, c).view(np.uint32)
        )
        c = result


@pytest.mark.parametrize("scale", [0x38, 0x40, 0x41])
def test_accumulators_of_every_size_beside_zero_sums(scale: int) -> None:
    """Beside blocks whose sum is zero, C keeps only the bits above 2**-35 of the blocks' exponent."""
    zeros = np.zeros((40, 32), dtype=np.uint8)
    scales = np.full((40, 4), scale, dtype=np.uint8)
    rng = np.random.default_rng(scale)
    c = np.ldexp(rng.uniform(1, 2, (40, 40)), np.arange(-42, -2)[:, None]).astype(np.float32)
    check(zeros, zeros, scales, scales, c, "ue4m3", [(m, n) for m in range(40) for n in (0, 1, 2)])
    check(zeros, zeros, scales, scales, -c[:1].repeat(40, axis=0), "ue4m3", [(m, m) for m in range(0, 40, 9)])
