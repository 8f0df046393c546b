"""A layer with activation order, as GPTQ writes it, for tests."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from marlin import primitives

__all__ = ["PlainLayer", "random_layer"]


class PlainLayer(NamedTuple):
    """Tensors in the plain layout with `g_idx`, and the weight (N, K) that they stand for."""

    qweight: Tensor
    scales: Tensor
    qzeros: Tensor | None
    g_idx: Tensor
    weight: Tensor


def random_layer(
    size_k: int = 128, size_n: int = 16, group_size: int = 32, *, bits: int = 4, zeros: bool = False
) -> PlainLayer:
    """The rows of every group are anywhere; a last group may be short."""
    groups = -(-size_k // group_size)
    codes = torch.randint(0, 1 << bits, (size_k, size_n))
    scales = 0.01 + torch.rand(groups, size_n)
    points = torch.randint(0, 16, (groups, -(-size_n // 8) * 8))
    g_idx = (torch.arange(size_k) // group_size)[torch.randperm(size_k)]
    zero = points[g_idx, :size_n] if zeros else primitives.symmetric_zero(bits)
    return PlainLayer(
        primitives.pack_codes(codes, bits),
        scales,
        primitives.pack_zeros(points) if zeros else None,
        g_idx.int(),
        ((codes - zero) * scales[g_idx]).t().contiguous(),
    )
