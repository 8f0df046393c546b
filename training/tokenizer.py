"""Byte-level BPE, trained on the corpus: no text is unknown, and all of it survives a round trip.

Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

__all__ = ["END_OF_TEXT", "PADDING", "train_tokenizer"]

END_OF_TEXT = "<|endoftext|>"
PADDING = "<|padding|>"


def train_tokenizer(
    texts: Sequence[str], vocab_size: int, context_length: int
) -> PreTrainedTokenizerFast:
    """Train a tokenizer of `vocab_size` entries, the two special tokens and the 256 bytes included.

    The result depends on `texts` and their order only.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    make: Any = PreTrainedTokenizerFast  # its constructor is not annotated
    made: PreTrainedTokenizerFast = make(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=PADDING,
        padding_side="left",
        model_max_length=context_length,
        # Removing the space before "," would turn source code into other source code.
        clean_up_tokenization_spaces=False,
    )
    return made
