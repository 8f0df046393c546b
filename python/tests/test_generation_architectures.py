"""Generation in batches, with a cache, against the bare model: in families that differ in what they
cache and in how they know a token's place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    PretrainedConfig,
    Qwen3Config,
)

from marlin.generation import generate
from tests.tiny_model import CONTEXT, END, tiny_tokenizer

STEPS = 30
PROMPTS = ["def main():", "x", "import os\nimport sys\n"]
COMMON: dict[str, Any] = {
    "vocab_size": END + 1,
    "hidden_size": 64,
    "initializer_range": 0.2,
    "bos_token_id": END,
    "eos_token_id": END,
    "pad_token_id": None,
}
LLAMA_LIKE: dict[str, Any] = {
    **COMMON,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
}


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(GPT2Config(**COMMON, n_layer=2, n_head=4, n_positions=CONTEXT), id="learned"),
        pytest.param(BloomConfig(**COMMON, n_layer=2, n_head=4), id="alibi"),
        pytest.param(Qwen3Config(**LLAMA_LIKE, head_dim=16), id="rotary"),
        pytest.param(MistralConfig(**LLAMA_LIKE, sliding_window=16), id="sliding-window"),
        pytest.param(
            MixtralConfig(**LLAMA_LIKE, num_local_experts=4, num_experts_per_tok=2), id="experts"
        ),
        pytest.param(MambaConfig(**COMMON, num_hidden_layers=2), id="recurrent"),
    ],
)
def test_a_batch_equals_the_model_run_without_a_cache(config: PretrainedConfig) -> None:
    build: Any = AutoModelForCausalLM.from_config  # not annotated
    model = build(config)
    model.train(False)
    tokens: list[list[int]] = [[] for _ in PROMPTS]
    for chunk in generate(model, tiny_tokenizer(), PROMPTS, max_new_tokens=STEPS):
        tokens[chunk.index] += chunk.tokens
    for prompt, got in zip(PROMPTS, tokens, strict=True):
        ids = list(prompt.encode())
        with torch.inference_mode():
            while len(ids) < len(prompt) + STEPS and ids[-1] != END:
                logits = model(torch.tensor([ids]), use_cache=False).logits
                ids.append(int(logits[0, -1].argmax()))
        assert got == ids[len(prompt) :]
