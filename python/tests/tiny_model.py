"""Writes the folder of a small random Llama with a byte-level tokenizer, in an instant.

Its text is noise; what it computes is what any Llama computes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

__all__ = ["CONTEXT", "END", "tiny_llama", "tiny_tokenizer", "write_tiny_model"]

CONTEXT = 96
END = 256  # the token after the 256 bytes


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token for every byte, then the end of text; a token's id is its byte."""
    letters = _byte_letters()
    vocabulary = {letter: byte for byte, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    make: Any = PreTrainedTokenizerFast  # its constructor is not annotated
    made: PreTrainedTokenizerFast = make(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", clean_up_tokenization_spaces=False
    )
    return made


def tiny_llama(
    *, hidden: int = 128, layers: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32
) -> LlamaForCausalLM:
    """A random model in eval mode, with weights large enough that its choices differ."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config)
    model.train(False)
    nn.Module.to(model, dtype)
    return model


def write_tiny_model(folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Writes model and tokenizer to `folder` as transformers does."""
    tiny_llama(dtype=dtype).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def _byte_letters() -> list[str]:
    """The printable letter that stands for each byte in a byte-level vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    shifted = {byte: chr(256 + place) for place, byte in enumerate(others)}
    return [shifted.get(byte, chr(byte)) for byte in range(256)]
