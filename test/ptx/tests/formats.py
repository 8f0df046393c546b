"""Floating point formats by their definition: bits to values and back, rounded from fractions."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction

import numpy as np


@dataclass(frozen=True)
class Format:
    """A format of `bits` bits.

    Attributes:
        precision: Bits of a significand, the leading one included.
        min_exponent: Of the smallest normal number.
        largest: The largest finite number.
        code: Of `struct`, that of the format itself or of the longer one whose upper half it is.
    """

    bits: int
    precision: int
    min_exponent: int
    largest: float
    code: str

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of arrays of its bits."""
        return np.dtype(f"u{self.bits // 8}")

    @property
    def smallest_normal(self) -> float:
        return math.ldexp(1.0, self.min_exponent)

    @property
    def _shift(self) -> int:
        return 8 * struct.calcsize(self.code) - self.bits

    def value(self, bits: int) -> float:
        size = struct.calcsize(self.code)
        return float(struct.unpack(self.code, (bits << self._shift).to_bytes(size, "little"))[0])

    def bits_of(self, value: float) -> int:
        """Of a value that the format has; NaN is the one with all bits below the sign."""
        if math.isnan(value):
            return (1 << (self.bits - 1)) - 1
        whole = int.from_bytes(struct.pack(self.code, value), "little")
        assert whole % (1 << self._shift) == 0, value
        return whole >> self._shift

    def flushed(self, value: float) -> float:
        """.ftz: subnormal numbers become zero of their sign."""
        return math.copysign(0.0, value) if abs(value) < self.smallest_normal else value

    def rounded(self, value: Fraction, mode: str = "rn", *, infinite: bool = True) -> float:
        """A value that is not zero, rounded as .rn, .rz, .rm, .rp or .rna say."""
        sign = -1 if value < 0 else 1
        magnitude = abs(value)
        exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
        if magnitude < Fraction(2) ** exponent:
            exponent -= 1
        ulp = Fraction(2) ** (max(exponent, self.min_exponent) - self.precision + 1)
        count, rest = divmod(magnitude / ulp, 1)
        half = Fraction(1, 2)
        is_away = {
            "rn": rest > half or (rest == half and count % 2 == 1),
            "rna": rest >= half,
            "rz": False,
            "rp": rest > 0 and sign > 0,
            "rm": rest > 0 and sign < 0,
        }[mode]
        result = (count + is_away) * ulp
        if result <= Fraction(self.largest):
            return sign * float(result)
        grows = mode in ("rn", "rna") or mode == ("rp" if sign > 0 else "rm")
        return sign * (math.inf if grows and infinite else self.largest)


FORMATS = {
    "f16": Format(16, 11, -14, 65504.0, "<e"),
    "bf16": Format(16, 8, -126, math.ldexp(255.0, 120), "<f"),
    "f32": Format(32, 24, -126, math.ldexp((1 << 24) - 1, 104), "<f"),
    "f64": Format(64, 53, -1022, math.ldexp((1 << 53) - 1, 971), "<d"),
}
TF32 = Format(32, 11, -126, math.ldexp((1 << 11) - 1, 117), "<f")


def floats(kind: str) -> np.ndarray:
    """Bits of the edge values of a format, of both signs; NaN comes last."""
    form = FORMATS[kind]
    infinity = form.bits_of(math.inf)
    one = form.bits_of(1.0)
    smallest_normal = form.bits_of(form.smallest_normal)
    magnitudes = [0, 1, smallest_normal - 1, smallest_normal, one - 1, one, one + 1, infinity - 1]
    magnitudes += [infinity, form.bits_of(1.5), form.bits_of(3.0), smallest_normal * 3 // 2]
    magnitudes += [form.bits_of(2.0 ** -(form.precision - 1)), form.bits_of(2.0**-form.precision)]
    sign = 1 << (form.bits - 1)
    return np.array([*magnitudes, *(m | sign for m in magnitudes), infinity + 1], form.dtype)
