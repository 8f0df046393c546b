"""`tensor.*`: tensors in the shared memory, allocated by the worker."""

from __future__ import annotations

from marlin.errors import InvalidArgumentError
from marlin.worker.handlers import CallContext, handler
from marlin.worker.handles import Handle
from marlin.worker.tensors import DTYPES, MAX_DIMENSIONS, byte_length

__all__ = ["empty"]


@handler("tensor.empty")
def empty(context: CallContext, dtype: str, shape: list[int]) -> Handle:
    """A handle on an uninitialised tensor whose storage lies in the worker's partition."""
    kind = DTYPES.get(dtype)
    if kind is None:
        raise InvalidArgumentError(f"`dtype` must be one of {', '.join(DTYPES)}, got {dtype}.")
    if len(shape) > MAX_DIMENSIONS or any(size < 0 for size in shape):
        raise InvalidArgumentError(
            f"`shape` must be at most {MAX_DIMENSIONS} non-negative integers, got {shape}."
        )
    if byte_length(kind, shape) is None:
        raise InvalidArgumentError(f"`shape` must fit in 63 bits of bytes, got {shape}.")
    return context.export(context.allocate(kind, shape))
