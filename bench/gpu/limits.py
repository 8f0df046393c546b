"""What a product must move and compute, the least time that takes, and how much of it is timed.

Pure arithmetic of sizes: knows no tensor and no device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.shapes import LinearShape

__all__ = [
    "Ceilings",
    "Traffic",
    "activation_bytes",
    "calls_of_graph",
    "dense_traffic",
    "number_of_copies",
    "packed_traffic",
]

HALF_BYTES = 2  # of a float16 or a bfloat16
# All copies of a weight against the L2 cache: what is left of a copy when it is used again is at
# most one part in so many.
CACHES_OF_COPIES = 6
MOST_CALLS = 512  # of one graph


@dataclass(frozen=True)
class Traffic:
    """What one product must do.

    weight_bytes: codes or weights, scales, zero points; bytes: these, activations and result.
    operations: a multiplication and its addition are two.
    """

    weight_bytes: int
    bytes: int
    operations: int


@dataclass(frozen=True)
class Ceilings:
    """What the device can do: bytes and operations per second, as measured on it."""

    bytes_per_second: float
    operations_per_second: float

    def least_seconds(self, traffic: Traffic) -> float:
        """No kernel with these bytes and operations is faster."""
        return max(
            traffic.bytes / self.bytes_per_second,
            traffic.operations / self.operations_per_second,
        )


def packed_traffic(shape: LinearShape, m: int, group_size: int, group_bytes: int) -> Traffic:
    """Of codes of 4 bits, and `group_bytes` for each group of each column.

    group_size: -1 is one group per column.
    """
    groups = 1 if group_size == -1 else shape.k // group_size
    return _traffic(shape, m, shape.k * shape.n // 2 + groups * shape.n * group_bytes)


def dense_traffic(shape: LinearShape, m: int) -> Traffic:
    """Of weights of 16 bits."""
    return _traffic(shape, m, shape.k * shape.n * HALF_BYTES)


def activation_bytes(shape: LinearShape, m: int) -> int:
    """Activations read once and result written once, 16 bits each."""
    return HALF_BYTES * m * (shape.k + shape.n)


def number_of_copies(weight_bytes: int, cache_bytes: int) -> int:
    """Copies of a weight to go round, so that each has left the cache when its turn comes; two
    at least."""
    return max(2, math.ceil(CACHES_OF_COPIES * cache_bytes / weight_bytes))


def calls_of_graph(copies: int, least_seconds: float, wanted_seconds: float) -> int:
    """Calls in one graph: whole rounds of the copies, for `wanted_seconds` if each takes its least.

    Not above MOST_CALLS, unless one round is.
    """
    calls = min(math.ceil(wanted_seconds / least_seconds), MOST_CALLS)
    return max(1, calls // copies) * copies


def _traffic(shape: LinearShape, m: int, weight_bytes: int) -> Traffic:
    return Traffic(
        weight_bytes=weight_bytes,
        bytes=weight_bytes + activation_bytes(shape, m),
        operations=2 * m * shape.k * shape.n,
    )
