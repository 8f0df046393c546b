"""Products of activations and weights of 4 or 8 bits, and what must come of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Product", "Scalar", "make_product", "mean_error", "to_bits", "to_floats"]

Scalar = Literal["float16", "bfloat16"]
Activations = Literal["gaussian", "positive", "alternating", "outliers"]
Bits = npt.NDArray[np.uint16]  # of a float16 or a bfloat16
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Product:
    """Operands in the plain layout, and the exact result.

    Attributes:
        a: Activations (m, k), bits.
        codes: Weights (k, n), 0 .. 15 or 0 .. 255.
        scales: (groups, n), bits.
        zeros: Zero points (groups, n), 0 .. 15, or None: all are 8 or 128.
        bias: (n,), bits, or None.
        exact: (m, n).
    """

    scalar: Scalar
    group_size: int
    a: Bits
    codes: npt.NDArray[np.uint8]
    scales: Bits
    zeros: npt.NDArray[np.uint8] | None
    bias: Bits | None
    exact: Floats
    bits: int = 4

    @property
    def shape(self) -> tuple[int, int, int]:
        """m, n, k."""
        return self.a.shape[0], self.codes.shape[1], self.codes.shape[0]


def make_product(
    m: int,
    n: int,
    k: int,
    group_size: int,
    *,
    bits: int = 4,
    scalar: Scalar = "float16",
    has_zeros: bool = False,
    has_bias: bool = False,
    activations: Activations = "gaussian",
    scale_range: int = 0,
    seed: int = 0,
) -> Product:
    """A product with random operands; a `group_size` of -1 is one group per column.

    Scales are near 0.01, or up to 2**scale_range times smaller, each of its own.
    """
    rng = np.random.default_rng((seed, m, n, k, group_size + 1))
    rows = k if group_size == -1 else group_size
    a = to_bits(_activations(rng, m, k, activations), scalar)
    codes = rng.integers(0, 2**bits, (k, n), np.uint8)
    sizes = 0.01 * rng.uniform(0.5, 1.5, (k // rows, n))
    zeros = rng.integers(0, 16, (k // rows, n), np.uint8) if has_zeros else None
    bias = to_bits(rng.standard_normal(n), scalar) if has_bias else None
    scales = to_bits(sizes * 2.0 ** -rng.integers(0, scale_range + 1, sizes.shape), scalar)

    offsets = (
        2.0 ** (bits - 1) if zeros is None else np.repeat(zeros, rows, axis=0).astype(np.float64)
    )
    weights = (codes - offsets) * np.repeat(to_floats(scales, scalar), rows, axis=0)
    exact = to_floats(a, scalar) @ weights
    if bias is not None:
        exact = exact + to_floats(bias, scalar)
    return Product(scalar, rows, a, codes, scales, zeros, bias, exact, bits)


def mean_error(result: Bits, product: Product) -> float:
    """Mean error over mean magnitude, against the exact result rounded as the result is."""
    wanted = to_floats(to_bits(product.exact, product.scalar), product.scalar)
    got = to_floats(result, product.scalar)
    return float(np.abs(got - wanted).mean() / np.abs(wanted).mean())


def to_bits(values: Floats, scalar: Scalar) -> Bits:
    """Rounded to nearest even."""
    if scalar == "float16":
        return values.astype(np.float16).view(np.uint16)
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def to_floats(bits: Bits, scalar: Scalar) -> Floats:
    if scalar == "float16":
        return bits.view(np.float16).astype(np.float64)
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def _activations(rng: np.random.Generator, m: int, k: int, kind: Activations) -> Floats:
    values = rng.standard_normal((m, k))
    if kind == "positive":
        return np.abs(values)
    if kind == "alternating":
        return np.abs(values) * np.where(np.arange(k) % 2 == 0, 1, -1)
    if kind == "outliers":
        values[:, rng.choice(k, max(1, k // 100), replace=False)] *= 100
    return values
