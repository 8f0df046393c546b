"""The number formats in which kernels multiply activations, in plain PyTorch, bit for bit.

An integer format cuts K into segments that lie inside a group. Each row has one scale per segment:

    scale = max(amax |a|, 1e-30) / limit       limit = 32767 (int16) or 127 (int8)
    value = a * (limit / max(amax |a|, 1e-30)), rounded half to even, in float32
    a     ~ value * scale

A segment with an infinity or a NaN has values of 0 and the scale NaN. Knows no weight.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from marlin.errors import InvalidArgumentError, UnsupportedError

__all__ = [
    "ACTIVATIONS",
    "QuantizedActivations",
    "check_activation",
    "in_weight_order",
    "quantize_activations",
    "round_activations",
    "segment_rows",
]

# "auto" is bfloat16 as it is where a kernel can multiply it, and int16 otherwise.
ACTIVATIONS = ("auto", "int16", "bfloat16", "int8")
INTEGER_BITS = {"int16": 16, "int8": 8}

# Rows of K with one scale, at most: in 64 rows with one giant, 16 bits keep the error below 1e-4.
LONGEST_SEGMENT = {"int16": 64, "int8": 128}
SHORTEST_SEGMENT = 32

SMALLEST_BOUND = 1e-30  # whose reciprocal still fits float32


class QuantizedActivations(NamedTuple):
    """values int32 (..., K); scales float32 (..., K / segment)."""

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


def segment_rows(rows: int, activation: str) -> int:
    """Rows in a segment of an integer format, for groups of `rows`: the most that divide them."""
    segment = LONGEST_SEGMENT[activation]
    while rows % segment and segment > SHORTEST_SEGMENT:
        segment //= 2
    return segment


def quantize_activations(a: Tensor, segment: int, bits: int) -> QuantizedActivations:
    """`a` (..., K) of any float dtype as integers of 16 or 8 `bits`."""
    if a.ndim == 0 or a.shape[-1] % segment:
        raise InvalidArgumentError(
            f"`a` must have a multiple of {segment} columns, got shape {list(a.shape)}."
        )
    segments = a.float().reshape(*a.shape[:-1], a.shape[-1] // segment, segment)
    largest = segments.abs().amax(-1)  # (..., segments)
    is_finite = largest.isfinite()
    bound = torch.where(is_finite, largest, 0.0).clamp(min=SMALLEST_BOUND)
    # A tensor: torch divides a Python number by a tensor as a product with the reciprocal.
    limit = torch.tensor(float(2 ** (bits - 1) - 1), device=a.device)
    scaled = (segments * (limit / bound).unsqueeze(-1)).round()
    values = torch.where(is_finite.unsqueeze(-1), scaled, 0.0).to(torch.int32)
    scales = torch.where(is_finite, bound / limit, torch.nan)
    return QuantizedActivations(values.flatten(-2), scales)


def round_activations(a: Tensor, rows: int, activation: str) -> Tensor:
    """`a` (..., K) as a format keeps it, float64, for weights with groups of `rows`."""
    if activation == "bfloat16":
        return a.bfloat16().double()
    if activation not in INTEGER_BITS:
        raise InvalidArgumentError(
            f"`activation` must be int16, bfloat16 or int8, got {activation!r}."
        )
    segment = segment_rows(rows, activation)
    values, scales = quantize_activations(a, segment, INTEGER_BITS[activation])
    return values.double() * scales.double().repeat_interleave(segment, dim=-1)


def in_weight_order(a: Tensor, size_k: int, perm: Tensor | None) -> Tensor:
    """`a` (..., k <= K) with zeros for missing columns, in the order of the weight's rows."""
    a = functional.pad(a, (0, size_k - a.shape[-1]))
    return a if perm is None else a[..., perm.long()]
