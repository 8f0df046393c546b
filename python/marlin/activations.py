"""The number formats in which kernels multiply activations, in plain PyTorch, bit for bit.

An integer format cuts K into stretches, whatever the groups of the weight; the last one may be
shorter. Each row has one scale per stretch:

    scale = max(amax |a|, 1e-30) / limit       limit = 32767 (int16) or 127 (int8)
    value = a * (limit / max(amax |a|, 1e-30)), rounded half to even, in float32
    a     ~ value * scale

A stretch with an infinity or a NaN has values of 0 and the scale NaN. Knows no weight.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from marlin.errors import InvalidArgumentError, UnsupportedError

__all__ = [
    "ACTIVATIONS",
    "INTEGER_BITS",
    "STRETCH_ROWS",
    "QuantizedActivations",
    "check_activation",
    "in_weight_order",
    "quantize_activations",
    "round_activations",
]

# "auto" is bfloat16 as it is where a kernel can multiply it, and int16 otherwise.
ACTIVATIONS = ("auto", "int16", "bfloat16", "int8")
INTEGER_BITS = {"int16": 16, "int8": 8}

# Rows of K with one scale: in 64 rows with one giant, 16 bits keep the error below 1e-4.
STRETCH_ROWS = {"int16": 64, "int8": 128}

SMALLEST_BOUND = 1e-30  # whose reciprocal still fits float32


class QuantizedActivations(NamedTuple):
    """values int32 (..., K); scales float32 (..., ceil(K / stretch))."""

    values: Tensor
    scales: Tensor


def check_activation(activation: str, bits: int) -> None:
    """Refuses what is no format, and what no kernel multiplies by codes of `bits`."""
    if activation not in ACTIVATIONS:
        raise InvalidArgumentError(
            f"`activation` must be one of {', '.join(ACTIVATIONS)}, got {activation!r}."
        )
    if activation == "bfloat16" and bits != 4:
        raise UnsupportedError(
            "`activation` must be auto, int16 or int8 for weights of 8 bits, got 'bfloat16'."
        )


def quantize_activations(a: Tensor, stretch: int, bits: int) -> QuantizedActivations:
    """`a` (..., K) of any float dtype as integers of 16 or 8 `bits`, a scale per `stretch` rows."""
    if a.ndim == 0:
        raise InvalidArgumentError("`a` must have at least one dimension, got a scalar.")
    columns = a.shape[-1]
    count = -(-columns // stretch)
    padded = functional.pad(a.float(), (0, count * stretch - columns))
    stretches = padded.reshape(*a.shape[:-1], count, stretch)
    largest = stretches.abs().amax(-1)  # (..., stretches)
    is_finite = largest.isfinite()
    bound = torch.where(is_finite, largest, 0.0).clamp(min=SMALLEST_BOUND)
    # A tensor: torch divides a Python number by a tensor as a product with the reciprocal.
    limit = torch.tensor(float(2 ** (bits - 1) - 1), device=a.device)
    scaled = (stretches * (limit / bound).unsqueeze(-1)).round()
    values = torch.where(is_finite.unsqueeze(-1), scaled, 0.0).to(torch.int32)
    scales = torch.where(is_finite, bound / limit, torch.nan)
    return QuantizedActivations(values.flatten(-2)[..., :columns], scales)


def round_activations(a: Tensor, activation: str) -> Tensor:
    """`a` (..., K), in the order of the weight's rows, as a format keeps it, in float64."""
    if activation == "bfloat16":
        return a.bfloat16().double()
    if activation not in INTEGER_BITS:
        raise InvalidArgumentError(
            f"`activation` must be int16, bfloat16 or int8, got {activation!r}."
        )
    stretch = STRETCH_ROWS[activation]
    values, scales = quantize_activations(a, stretch, INTEGER_BITS[activation])
    per_column = scales.double().repeat_interleave(stretch, dim=-1)[..., : a.shape[-1]]
    return values.double() * per_column


def in_weight_order(a: Tensor, size_k: int, perm: Tensor | None) -> Tensor:
    """`a` (..., k <= K) with zeros for missing columns, in the order of the weight's rows."""
    a = functional.pad(a, (0, size_k - a.shape[-1]))
    return a if perm is None else a[..., perm.long()]
