"""The models of bench_decode.py: a Llama of random weights, its 4-bit copy, and greedy decoding.

The only part of the bench that needs transformers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

import marlin
from marlin.quantize import MethodSettings, register_method

__all__ = ["Decoder", "fused", "make_model", "quantized", "weight_bytes"]

METHOD = "bench-nearest"


def make_model(
    *, layers: int, hidden: int, intermediate: int, heads: int, kv_heads: int, vocab: int
) -> LlamaForCausalLM:
    """A Llama in bfloat16 and eval mode. Its text is noise; it costs what any Llama costs."""
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)
    model.train(False)
    return model


def quantized(model: LlamaForCausalLM, group_size: int, **options: str) -> LlamaForCausalLM:
    """A copy of `model` with its Linears in 4 bits, all but `lm_head`.

    options: of `marlin.quantize_`, such as `activation`.
    """
    result = copy.deepcopy(model)
    quantize: Callable[..., object] = marlin.quantize_
    quantize(result, METHOD, group_size=group_size, **options)
    return result


def fused(model: nn.Module) -> str | None:
    """Fuses the Linears that share an input, in place; why not, where marlin cannot."""
    fuse = getattr(marlin, "fuse_", None)
    if fuse is None:
        return "this marlin has no `fuse_`"
    fuse(model)
    return None


def weight_bytes(model: LlamaForCausalLM) -> int:
    """Bytes that every token reads: all parameters and buffers, but of the embeddings a row."""
    tensors = [*model.parameters(), *model.buffers()]
    storages = [tensor.untyped_storage() for tensor in tensors]  # fused layers may share one
    held = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    embedding = model.get_input_embeddings().weight
    assert isinstance(embedding, Tensor)
    return held - embedding.nbytes


class Decoder:
    """Decodes from one prompt again and again, one sequence, the likeliest token each time.

    prompt: tokens. steps: tokens of one call of `decode`.
    forward: the model or its compiled form; the prompt is read by the model itself.
    """

    def __init__(
        self,
        model: LlamaForCausalLM,
        forward: Callable[..., Any],
        prompt: Sequence[int],
        steps: int,
    ) -> None:
        self._forward = forward
        self._steps = steps
        # Buffers of one size: what is compiled then fits every step.
        self._cache = StaticCache(config=model.config, max_cache_len=len(prompt) + steps)
        ids = torch.tensor([prompt])
        self._positions = torch.arange(len(prompt) + steps).unsqueeze(0)
        output = model(
            input_ids=ids,
            position_ids=self._positions[:, : len(prompt)],
            cache=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._first = output.logits[:, -1].argmax(-1, keepdim=True)
        self._length = len(prompt)

    def decode(self) -> list[int]:
        """The tokens of `steps` steps after the prompt: the same at every call."""
        token, tokens = self._first, []
        for place in range(self._length, self._length + self._steps):
            output = self._forward(
                input_ids=token,
                position_ids=self._positions[:, place : place + 1],
                cache=self._cache,
                use_cache=True,
            )
            token = output.logits[:, -1].argmax(-1, keepdim=True)
            tokens.append(int(token))
        self._cache.crop(-self._steps)
        return tokens


def _round_to_nearest(
    model: nn.Module, names: Sequence[str], settings: MethodSettings
) -> Iterator[tuple[str, marlin.Int4Linear]]:
    # Without the search for better scales, which takes minutes and changes no time of a product.
    for name in names:
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        yield (
            name,
            marlin.Int4Linear.from_linear(
                linear, settings.group_size, settings.symmetric, search=False
            ),
        )


register_method(METHOD, _round_to_nearest)
