"""The sequences that are being decoded: their cache, mask and positions, and one step of the model.

Knows tokens only: no text, and not when a sequence ends.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.integrations import sdpa_attention

from marlin.kv_cache import GrowingLayer, decoding_cache
from marlin.sampling import choose

__all__ = ["DecodingBatch"]


class DecodingBatch:
    """Sequences that run together. All that grows with them is laid out once, for the whole run.

    Shorter prompts are padded on the left, masked there, and counted from their own first token.

    prompts: the tokens of each, at least one.
    steps: most calls of `step` there will be.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[list[int]], steps: int) -> None:
        self._model = model
        embedding = model.get_input_embeddings().weight
        assert isinstance(embedding, Tensor)
        self._device = embedding.device
        width = max(len(ids) for ids in prompts)
        pads = [width - len(ids) for ids in prompts]
        self.rows = list(range(len(prompts)))
        self._length = width
        with torch.inference_mode():
            # Any token can stand in for padding: the mask hides it.
            padded = [[ids[0]] * pad + ids for pad, ids in zip(pads, prompts, strict=True)]
            self._next = torch.tensor(padded, device=self._device)  # (n, width), later (n, 1)
            start = torch.tensor(pads, device=self._device).unsqueeze(1)
            slots = torch.arange(width + steps, device=self._device)
            self._positions = (slots - start).clamp_(min=0)  # (n, width + steps)
            # Without padding there is nothing to mask, and attention takes its faster path.
            self._mask = (slots >= start).long() if any(pads) else None
        self._cache = decoding_cache(model.config, width + steps)
        self._visible: Tensor | None = None
        if self._mask is None and _is_faster_masked(model, self._cache, self._device):
            self._visible = torch.ones(1, 1, 1, width + steps, dtype=torch.bool)
        # Where every layer is a recurrence nothing is left to hide after the first step, and such
        # models would apply the mask to the new token.
        self._is_recurrent = all(getattr(self._cache, "is_linear", [False]))
        parameters = inspect.signature(model.forward).parameters
        # transformers renamed the argument in 5.x.
        self._cache_name = "cache" if "cache" in parameters else "past_key_values"
        self._options = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    @torch.inference_mode()
    def step(self, draws: Tensor | None, temperature: float, top_p: float) -> list[int]:
        """Run the model over what is new, and choose one more token for each of `rows`.

        draws: see `sampling.choose`.
        """
        begin = self._length - self._next.shape[1]
        output = self._model(
            input_ids=self._next,
            attention_mask=self._attention_mask(),
            position_ids=self._positions[:, begin : self._length],
            use_cache=True,
            **{self._cache_name: self._cache},
            **self._options,
        )
        if draws is not None:
            draws = draws.to(self._device)
        if self._is_recurrent:
            self._mask = None
        chosen = choose(output.logits[:, -1], draws, temperature, top_p)
        self._next = chosen.unsqueeze(1)
        self._length += 1
        tokens: list[int] = chosen.tolist()
        return tokens

    def _attention_mask(self) -> Tensor | None:
        if self._mask is not None:
            return self._mask[:, : self._length]
        if self._visible is not None and self._next.shape[1] == 1:
            return self._visible[..., : self._length]
        return None

    @torch.inference_mode()
    def keep(self, places: list[int]) -> None:
        """Drop every row but those at `places`: a finished sequence costs no more work."""
        index = torch.tensor(places, device=self._device)
        self.rows = [self.rows[place] for place in places]
        self._next = self._next[index]
        self._positions = self._positions[index]
        if self._mask is not None:
            self._mask = self._mask[index]
        self._cache.batch_select_indices(index)


def _is_faster_masked(model: PreTrainedModel, cache: Cache, device: torch.device) -> bool:
    """Whether a mask that hides nothing makes the attention of one new token faster.

    On the CPU torch's attention reads keys and values that several heads share once for each head,
    and prepares them again: 5.5 ms a layer for 32 heads in bfloat16 over 1024 tokens. With a mask
    newer versions of transformers see to it that they are read once: 0.4 ms.
    """
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_attention_heads", None)
    shared = getattr(config, "num_key_value_heads", None)
    return (
        device.type == "cpu"
        and hasattr(sdpa_attention, "pack_gqa")
        and config._attn_implementation == "sdpa"
        and isinstance(heads, int)
        and isinstance(shared, int)
        and shared < heads
        # Other layers would read the mask otherwise: sliding windows, recurrences.
        and all(isinstance(layer, GrowingLayer) for layer in cache.layers)
    )
