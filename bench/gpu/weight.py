"""One weight of 4 bits on a device, in every form that an implementation multiplies by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from bench.shapes import LinearShape
from torch import Tensor

from marlin.codes import pack_codes
from marlin.primitives import QuantizedWeight, dequantize_codes

__all__ = ["GpuWeight", "mean_error"]


@dataclass(frozen=True)
class GpuWeight:
    """The weight (code - 8) * scale.

    group_size: -1 is one group per column.
    codes: (k, n) uint8 in 0..15; scales: (groups, n) bfloat16 whose values float16 has, too, so
        that one weight serves both.
    """

    shape: LinearShape
    group_size: int
    codes: Tensor
    scales: Tensor

    @classmethod
    def random(cls, shape: LinearShape, group_size: int, device: torch.device) -> GpuWeight:
        """Codes of all values alike, scales of 0.01 to 0.02."""
        groups = 1 if group_size == -1 else shape.k // group_size
        codes = torch.randint(0, 16, (shape.k, shape.n), dtype=torch.uint8, device=device)
        scales = 0.01 + 0.01 * torch.rand(groups, shape.n, device=device)
        return cls(shape, group_size, codes, scales.bfloat16())

    @cached_property
    def exact(self) -> Tensor:
        """(n, k) float32, not rounded: a code times a scale has few bits."""
        return dequantize_codes(QuantizedWeight(self.codes, self.scales.float(), None))

    def plain(self) -> Tensor:
        """The codes in the plain layout of docs/architecture.md: int32 (k / 8, n)."""
        return pack_codes(self.codes)

    def product(self, a: Tensor) -> Tensor:
        """a (m, k) of 16 bits by the weight, in float32: (m, n)."""
        return a.float() @ self.exact.T


def mean_error(got: Tensor, wanted: Tensor) -> float:
    """Mean error over mean magnitude; NaN if anything is."""
    error = (got.float() - wanted).abs().mean() / wanted.abs().mean()
    return float(error)
