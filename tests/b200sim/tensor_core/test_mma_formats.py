"""Decode tables of the narrow formats against their definitions and against torch."""

from __future__ import annotations

import mma_oracle as oracle
import numpy as np
import pytest
import torch

from b200sim.tensor_core import formats


@pytest.mark.parametrize(("name", "dtype"), [("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)])
def test_eight_bit_formats_match_torch(name: str, dtype: torch.dtype) -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(dtype).to(torch.float32).numpy()
    assert np.array_equal(formats.VALUES[name], codes, equal_nan=True)


def test_scale_formats() -> None:
    for code in range(256):
        for name, decode in (("ue4m3", oracle.ue4m3), ("ue8m0", oracle.ue8m0)):
            want, got = decode(code), float(formats.SCALE_VALUES[name][code])
            assert (got != got) if want is None else got == float(want), f"{name} code {code:#x}"


def test_scale_exponents() -> None:
    assert formats.SCALE_EXPONENTS["ue4m3"][[0x00, 0x01, 0x08, 0x38, 0x7E]].tolist() == [-126, -6, -6, 0, 8]
    assert formats.SCALE_EXPONENTS["ue8m0"][[0, 127, 254]].tolist() == [-127, 0, 127]


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("e3m2", {0x00: 0, 0x01: 0.0625, 0x03: 0.1875, 0x04: 0.25, 0x0C: 1, 0x1F: 28, 0x3F: -28}),
        ("e2m3", {0x00: 0, 0x01: 0.125, 0x07: 0.875, 0x08: 1, 0x1F: 7.5, 0x28: -1}),
        ("e2m1", {0x1: 0.5, 0x2: 1, 0x3: 1.5, 0x4: 2, 0x5: 3, 0x6: 4, 0x7: 6, 0xF: -6}),
    ],
)
def test_six_and_four_bit_formats(name: str, samples: dict[int, float]) -> None:
    assert {code: float(formats.VALUES[name][code]) for code in samples} == samples


def test_unpack_e2m1_takes_the_low_nibble_first() -> None:
    packed = np.arange(256, dtype=np.uint8).reshape(8, 32)
    got = formats.unpack_e2m1(packed)
    for row in range(8):
        for element in range(64):
            code = int(packed[row, element // 2]) >> 4 * (element % 2)
            assert float(got[row, element]) == float(oracle.e2m1(code))


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_containers_are_dense_streams_with_padding(bits: int) -> None:
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 1 << bits, (3, 32))
    packed = np.full((3, 32), 0xEE, dtype=np.uint8)
    for row in range(3):
        for chunk in range(2):
            stream = sum(int(codes[row, 16 * chunk + i]) << bits * i for i in range(16))
            packed[row, 16 * chunk : 16 * chunk + 2 * bits] = list(stream.to_bytes(2 * bits, "little"))
    assert np.array_equal(formats.unpack_containers(packed, bits), codes)
