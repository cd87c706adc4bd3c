"""Floating-point formats with Python's fractions: decode a pattern, round an exact value to a pattern.

Independent of numpy and of the simulator, bit by bit from the definition of the formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

Number = Fraction | str  # "inf", "-inf", "nan"


@dataclass(frozen=True)
class Format:
    """`exponent` and `mantissa` bits; `inf`: the top exponent is infinity and NaN; `nan`: canonical NaN."""

    exponent: int
    mantissa: int
    inf: bool
    nan: int
    largest: int  # code of the largest finite value

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa

    @property
    def bias(self) -> int:
        return 2 ** (self.exponent - 1) - 1

    def sign(self, code: int) -> int:
        return code >> (self.bits - 1) & 1

    def decode(self, code: int) -> Number:
        magnitude = code & (1 << (self.bits - 1)) - 1
        if magnitude > self.largest:
            if self.inf and magnitude == self.largest + 1:
                return "-inf" if self.sign(code) else "inf"
            return "nan"
        e, m = magnitude >> self.mantissa, magnitude & (1 << self.mantissa) - 1
        scale = Fraction(2) ** (max(e, 1) - self.bias - self.mantissa)
        value = scale * (m + (1 << self.mantissa if e else 0))
        return -value if self.sign(code) else value

    def encode(
        self, value: Number, negative_zero: bool = False, saturate: bool = False, direction: str = "rn"
    ) -> int:
        """Round to nearest, ties to even, or as `direction` says: rz, rm (down), rp (up).

        Overflow gives infinity, or the largest value.
        """
        if value == "nan":
            return self.nan
        sign_bit = 1 << (self.bits - 1)
        overflow = self.largest if saturate or not self.inf else self.largest + 1
        if isinstance(value, str):
            return overflow | (sign_bit if value == "-inf" else 0)
        sign = sign_bit if value < 0 or (value == 0 and negative_zero) else 0
        magnitude = abs(value)
        exponent = max(floor_log2(magnitude), 1 - self.bias) if magnitude else 1 - self.bias
        steps = magnitude / Fraction(2) ** (exponent - self.mantissa)
        whole = steps.numerator // steps.denominator
        rest = steps - whole
        if direction == "rn":
            whole += rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2)
        elif rest:
            whole += direction == ("rm" if value < 0 else "rp")
        # `whole` counts units in the last place from the start of this binade; a carry moves to the next.
        code = whole + (exponent - (1 - self.bias)) * (1 << self.mantissa)
        if code > self.largest and direction not in ("rn", "rm" if value < 0 else "rp"):
            return self.largest | sign
        return (overflow if code > self.largest else code) | sign


def floor_log2(value: Fraction) -> int:
    estimate = value.numerator.bit_length() - value.denominator.bit_length()
    return estimate if Fraction(2) ** estimate <= value else estimate - 1


F16 = Format(5, 10, True, 0x7FFF, 0x7BFF)
BF16 = Format(8, 7, True, 0x7FFF, 0x7F7F)
F32 = Format(8, 23, True, 0x7FFFFFFF, 0x7F7FFFFF)
F64 = Format(11, 52, True, 0x7FFFFFFFFFFFFFFF, 0x7FEFFFFFFFFFFFFF)
E4M3 = Format(4, 3, False, 0x7F, 0x7E)
E5M2 = Format(5, 2, False, 0x7F, 0x7B)  # as a target of .satfinite; see decode_e5m2 for its infinities
E2M1 = Format(2, 1, False, 0x7, 0x7)
E2M3 = Format(2, 3, False, 0x1F, 0x1F)
E3M2 = Format(3, 2, False, 0x1F, 0x1F)
E5M2_IEEE = Format(5, 2, True, 0x7F, 0x7B)


def add(x: Number, y: Number) -> Number:
    if isinstance(x, str) or isinstance(y, str):
        kinds = {x, y} & {"nan", "inf", "-inf"}
        return "nan" if "nan" in kinds or kinds == {"inf", "-inf"} else kinds.pop()
    return x + y


def multiply(x: Number, y: Number) -> Number:
    if not isinstance(x, str) and not isinstance(y, str):
        return x * y
    if "nan" in (x, y) or 0 in (x, y):
        return "nan"
    negative = sum(v == "-inf" if isinstance(v, str) else v < 0 for v in (x, y))
    return "-inf" if negative == 1 else "inf"


def fused(form: Format, a: int, b: int, c: int, ftz: bool = False, direction: str = "rn") -> int:
    """Pattern of a * b + c, rounded once. A sum of opposite numbers is +0, or -0 when rounding down."""
    if ftz:
        a, b, c = (flushed(form, x) for x in (a, b, c))
    product, addend = multiply(form.decode(a), form.decode(b)), form.decode(c)
    product_sign = form.sign(a) ^ form.sign(b)
    if product == 0 and addend == 0 and product_sign == form.sign(c):
        negative_zero = bool(product_sign)
    else:
        negative_zero = direction == "rm"
    result = form.encode(add(product, addend), negative_zero, direction=direction)
    return flushed(form, result) if ftz else result


def flushed(form: Format, code: int) -> int:
    magnitude = code & (1 << (form.bits - 1)) - 1
    return code & ~magnitude if magnitude < 1 << form.mantissa else code
