"""Fits time = fixed + bytes / bandwidth: what a call costs before it moves a byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["FixedCosts", "fit_fixed_costs"]


@dataclass(frozen=True)
class FixedCosts:
    """The line through the measured times.

    worst: the largest relative distance of a time from the line.
    """

    fixed_seconds: float
    bytes_per_second: float
    worst: float

    def seconds(self, size: float) -> float:
        """What the line says of `size` bytes."""
        return self.fixed_seconds + size / self.bytes_per_second


def fit_fixed_costs(sizes: Sequence[float], seconds: Sequence[float]) -> FixedCosts:
    """The line of least squares of the relative distances, so that small sizes count as large ones.

    Raises ValueError for fewer than two different sizes, and where time does not grow with size.
    """
    if len(set(sizes)) < 2:
        raise ValueError(f"a line needs two sizes, got {sorted(set(sizes))}")
    # Of (fixed + slope * size) / time - 1.
    weights = [1 / (time * time) for time in seconds]
    total = sum(weights)
    mean_size = sum(w * size for w, size in zip(weights, sizes, strict=True)) / total
    mean_time = sum(w * time for w, time in zip(weights, seconds, strict=True)) / total
    above = sum(
        w * (size - mean_size) * (time - mean_time)
        for w, size, time in zip(weights, sizes, seconds, strict=True)
    )
    below = sum(w * (size - mean_size) ** 2 for w, size in zip(weights, sizes, strict=True))
    slope = above / below
    if slope <= 0:
        raise ValueError("the times do not grow with the sizes")
    line = FixedCosts(mean_time - slope * mean_size, 1 / slope, 0.0)
    worst = max(
        abs(line.seconds(size) / time - 1) for size, time in zip(sizes, seconds, strict=True)
    )
    return FixedCosts(line.fixed_seconds, line.bytes_per_second, worst)
