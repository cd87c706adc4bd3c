"""Decode tables of the narrow floating-point formats that the tensor core reads.

Sources: OCP Microscaling Formats 1.0 (e2m1, e2m3, e3m2, e8m0), OCP 8-bit FP 1.0 (e4m3, e5m2), PTX ISA 5.2.3;
UE4M3 is e4m3 whose sign bit is padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Exponent that the summation rule gives to a zero scale or accumulator: that of the smallest normal fp32
# (microsoft/MMA-Sim, mmasim/simulator/arithmetic.py).
ZERO_EXPONENT = -126


@dataclass(frozen=True)
class MiniFloat:
    """A sign, `exponent_bits`, `mantissa_bits` format with subnormals.

    `specials`: "none"; "nan" = only the all-ones code is NaN (e4m3); "ieee" = the top exponent holds
    infinities and NaNs.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    specials: str = "none"

    @property
    def bias(self) -> int:
        return (1 << self.exponent_bits - 1) - 1

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal number, which subnormals keep."""
        return 1 - self.bias

    def value(self, code: int) -> float:
        """The number that one code stands for; codes wider than the format lose their upper bits."""
        sign = -1.0 if code >> (self.exponent_bits + self.mantissa_bits) & 1 else 1.0
        exponent = code >> self.mantissa_bits & (1 << self.exponent_bits) - 1
        mantissa = code & (1 << self.mantissa_bits) - 1
        top = (1 << self.exponent_bits) - 1
        if self.specials == "ieee" and exponent == top:
            return float("nan") if mantissa else sign * float("inf")
        if self.specials == "nan" and exponent == top and mantissa == (1 << self.mantissa_bits) - 1:
            return float("nan")
        if exponent == 0:
            return float(sign * mantissa * 2.0 ** (self.min_exponent - self.mantissa_bits))
        significand = 1 + mantissa * 2.0**-self.mantissa_bits
        return float(sign * significand * 2.0 ** (exponent - self.bias))

    def table(self) -> np.ndarray:
        """float32 (256,): the value of every 8-bit container."""
        return np.array([self.value(code) for code in range(256)], dtype=np.float32)


E2M1 = MiniFloat("e2m1", 2, 1)
E2M3 = MiniFloat("e2m3", 2, 3)
E3M2 = MiniFloat("e3m2", 3, 2)
E4M3 = MiniFloat("e4m3", 4, 3, "nan")
E5M2 = MiniFloat("e5m2", 5, 2, "ieee")
MINI_FLOATS = {f.name: f for f in (E2M1, E2M3, E3M2, E4M3, E5M2)}
VALUES = {name: f.table() for name, f in MINI_FLOATS.items()}

# The two scale formats, by code. UE4M3: bit 7 is ignored, 0x7F is NaN. UE8M0: 2**(code - 127), 255 is NaN.
UE4M3_VALUES = np.array([E4M3.value(code & 0x7F) for code in range(256)], dtype=np.float32)
UE8M0_VALUES = np.array([2.0 ** (code - 127) for code in range(255)] + [np.nan], dtype=np.float32)
SCALE_VALUES = {"ue4m3": UE4M3_VALUES, "ue8m0": UE8M0_VALUES}


def exponents(values: np.ndarray, min_exponent: int) -> np.ndarray:
    """int32 exponents as the summation rule sees them: subnormals keep `min_exponent`, zero has -126."""
    exponent = np.frexp(values)[1].astype(np.int32) - 1
    np.maximum(exponent, min_exponent, out=exponent)
    exponent[values == 0] = ZERO_EXPONENT
    return exponent


# UE8M0 code 0 is 2**-127: its exponent is kept, there are no subnormals.
SCALE_EXPONENTS = {
    "ue4m3": exponents(np.nan_to_num(UE4M3_VALUES, nan=1.0), E4M3.min_exponent),
    "ue8m0": np.concatenate([np.arange(-127, 128, dtype=np.int32), np.zeros(1, dtype=np.int32)]),
}

# Four packed e2m1 codes (16 bits, lowest nibble first) -> four float32, as one 16-byte item per entry.
_QUADS = np.arange(1 << 16)[:, None] >> np.array([0, 4, 8, 12]) & 0xF
_E2M1_QUADS = np.ascontiguousarray(VALUES["e2m1"][_QUADS]).view(np.complex128).reshape(-1)


def unpack_e2m1(packed: np.ndarray) -> np.ndarray:
    """float32 (rows, 2 * bytes) from uint8 (rows, bytes): element 2i in the low nibble of byte i."""
    rows, size = packed.shape
    return _E2M1_QUADS.take(packed.view(np.uint16)).view(np.float32).reshape(rows, 2 * size)


def unpack_containers(packed: np.ndarray, bits: int) -> np.ndarray:
    """uint8 codes (rows, 16 * chunks) from uint8 (rows, 16 * chunks) of kind::f8f6f4 shared memory.

    Each 16-byte chunk holds 16 elements: 8-bit ones fill it; 6-bit ones fill its first 12 bytes and 4-bit
    ones its first 8, densely, lowest bits first (PTX ISA 9.7.16.10.4.4).
    """
    if bits == 8:
        return packed
    rows, size = packed.shape
    chunks = packed.reshape(rows, size // 16, 16)[:, :, : 2 * bits]
    stream = np.unpackbits(chunks, axis=2, bitorder="little").reshape(rows, size // 16, 16, bits)
    return np.packbits(stream, axis=3, bitorder="little").reshape(rows, size)
