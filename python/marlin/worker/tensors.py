"""The tensors that travel: which dtypes, how many dimensions, and where new ones are made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch

from marlin.worker.arena import Arena
from marlin.worker.handles import describe_dtype

__all__ = ["DTYPES", "MAX_BYTES", "MAX_DIMENSIONS", "allocate_tensor", "byte_length"]

DTYPES: Final = {
    describe_dtype(dtype): dtype
    for dtype in (
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int8,
        torch.uint8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.bool,
    )
}
MAX_DIMENSIONS: Final = 8
# What a signed 64-bit size holds; torch's sizes are such.
MAX_BYTES: Final = 2**63 - 1


def byte_length(dtype: torch.dtype, shape: Sequence[int]) -> int | None:
    """Bytes of a dense tensor; None where they, or one of its sizes, do not fit in 63 bits."""
    # Python integers do not overflow; the bound keeps what reaches torch within 64 bits.
    nbytes = math.prod(shape) * dtype.itemsize
    return None if max((nbytes, *shape)) > MAX_BYTES else nbytes


def allocate_tensor(arena: Arena | None, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
    """An uninitialised tensor in the worker's partition, or in plain memory without an arena."""
    nbytes = math.prod(shape) * dtype.itemsize
    if arena is None or nbytes == 0:
        return torch.empty(list(shape), dtype=dtype)
    return torch.frombuffer(arena.allocate(nbytes), dtype=dtype).view(list(shape))
