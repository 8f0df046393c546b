"""`Int4Linear` and `Int8Linear`: `nn.Linear` with its weight in 4 or 8 bits."""

from __future__ import annotations

from marlin.primitives import check_bits
from marlin.quantized_linear import QuantizedLinear

__all__ = ["Int4Linear", "Int8Linear", "linear_class"]


class Int4Linear(QuantizedLinear):
    """A Linear with its weight in 4 bits, symmetric or with zero points; see QuantizedLinear."""

    bits = 4


class Int8Linear(QuantizedLinear):
    """A Linear with its weight in 8 bits, symmetric; see QuantizedLinear."""

    bits = 8


def linear_class(bits: int) -> type[QuantizedLinear]:
    """The class of a layer with `bits`; UnsupportedError where there is none."""
    check_bits(bits)
    return Int4Linear if bits == Int4Linear.bits else Int8Linear
