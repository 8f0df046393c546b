"""A key/value cache for decoding that writes in place, in the shape transformers models expect.

transformers' own growing layer concatenates, and so copies all earlier keys and values for every
token. Knows no sampling and no text.
"""

from __future__ import annotations

from torch import Tensor
from transformers import PretrainedConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

__all__ = ["GrowingLayer", "decoding_cache"]

# Room for this many more tokens when a buffer is laid out; it at least doubles after that.
_ROOM = 64


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # its __init_subclass__
    """Keys and values (batch, heads, length, head_dim): views of buffers that double when full.

    limit: the length that will not be passed; no buffer is made longer than it without need.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._limit = limit
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append (batch, heads, new, head_dim) states; returns all of them so far."""
        past = self.get_seq_length()
        length = past + key_states.shape[-2]
        if self._buffers is None or self._buffers[0].shape[-2] < length:
            capacity = max(length, min(self._limit, max(2 * past, length + _ROOM)))
            # What the base class keeps, whose own way to set it differs between versions.
            self.dtype, self.device = key_states.dtype, key_states.device
            self.is_initialized = True
            self._buffers = (
                _grown(self.keys, key_states, past, capacity),
                _grown(self.values, value_states, past, capacity),
            )
        keys, values = self._buffers
        keys[..., past:length, :] = key_states
        values[..., past:length, :] = value_states
        self.keys, self.values = keys[..., :length, :], values[..., :length, :]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the sequences at `indices` (n,)."""
        super().batch_select_indices(indices)
        self._buffers = None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Put the sequences into the order `beam_idx` (n,)."""
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]  # any integer tensor
        self._buffers = None


def _grown(held: Tensor | None, states: Tensor, past: int, capacity: int) -> Tensor:
    batch, heads, _, width = states.shape
    buffer = states.new_empty(batch, heads, capacity, width)
    if past:
        assert held is not None
        buffer[..., :past, :] = held
    return buffer


def decoding_cache(config: PretrainedConfig, limit: int) -> Cache:
    """A cache for one generation over at most `limit` positions.

    Layers that transformers caches in another way (sliding windows, recurrent states) stay as it
    makes them.
    """
    cache = DynamicCache(config=config)
    cache.layers = [
        GrowingLayer(limit) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache
