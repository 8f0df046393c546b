"""Text generation over any transformers causal LM: batches, sampling, stop strings, streaming.

The loop is Marlin's own, so that each step can be streamed, cancelled and repeated bit for bit.
Knows no files and no wire. How the model is stepped is in decoding.py, what a sequence draws in
sampling.py, what a token reads as in text_stream.py.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from marlin.errors import InvalidArgumentError, UnsupportedError
from marlin.options import check_number, check_positive, shown
from marlin.sampling import uniforms
from marlin.text_stream import TextStream

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from marlin.decoding import DecodingBatch

__all__ = ["FinishReason", "GenerationChunk", "GenerationSummary", "context_length", "generate"]

FinishReason = Literal["stop", "length", "eos", "cancelled"]

_SEED_LIMIT = 2**63


@dataclass(frozen=True)
class GenerationChunk:
    """New text of one sequence.

    index: which prompt it continues.
    text: the new text, whole characters; may be empty in the last chunk of a sequence.
    tokens: ids of the tokens taken since the chunk before; over all chunks, every token once.
    finish_reason: None, or in the last chunk of a sequence `stop` (a stop string), `eos`, `length`
        (`max_new_tokens` or the model's context are used up) or `cancelled`.
    """

    index: int
    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class GenerationSummary:
    """What a generation cost: tokens of all sequences, seconds in the model and the sampling."""

    prompt_tokens: int
    new_tokens: int
    seconds_prefill: float
    seconds_decode: float


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: str | Sequence[str],
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
    stop: str | Sequence[str] | None = None,
    check: Callable[[], object] | None = None,
) -> Generator[GenerationChunk, None, GenerationSummary]:
    """Continue `prompts`; yields text as it becomes certain, and returns a summary.

    Arguments are checked at once; the model runs when chunks are asked for.

    model: a causal LM of transformers, in eval mode; `tokenizer`: its tokenizer.
    prompts: one text or several; several run as one batch, which computes what each would alone,
        up to the rounding of the model's dtype. An empty text starts a new document.
    max_new_tokens: most tokens of each sequence; the end of the model's context ends one, too.
    temperature: 0 takes the likeliest token; above, logits are divided by it.
    top_p: in (0, 1]: only the likeliest tokens that together reach this probability.
    seed: in [0, 2**63), makes sampling repeatable; None draws one. What a sequence draws depends
        on the seed and its own prompt, not on the rest of the batch (see `sampling.uniforms`).
    stop: texts that end a sequence; no part of them is emitted.
    check: called before each step. Returning True ends all sequences with `cancelled`; what it
        raises comes out.

    Raises InvalidArgumentError for an option out of range and for a prompt that does not fit the
    context, UnsupportedError for an encoder-decoder model.
    """
    texts = _checked_prompts(prompts)
    check_positive("max_new_tokens", max_new_tokens)
    check_number("temperature", temperature, "of at least 0", lambda value: value >= 0)
    check_number("top_p", top_p, "in (0, 1]", lambda value: 0 < value <= 1)
    seed = _checked_seed(seed)
    stops = _checked_stops(stop)
    if model.config.is_encoder_decoder:
        raise UnsupportedError(
            f"`model` must be a decoder-only causal LM, got {type(model).__name__}."
        )
    limit = context_length(model)
    encoded = [_encode(tokenizer, text, index, limit) for index, text in enumerate(texts)]
    budgets = [
        max_new_tokens if limit is None else min(max_new_tokens, limit - len(ids))
        for ids in encoded
    ]

    def decode(tokens: list[int]) -> str:
        text = tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text

    # transformers takes a second to import; `import marlin` must not.
    from marlin.decoding import DecodingBatch

    return _run(
        DecodingBatch(model, encoded, max(budgets)),
        [TextStream(decode, ids, stops) for ids in encoded],
        budgets,
        uniforms(seed, texts, max(budgets)) if temperature > 0 else None,
        (float(temperature), float(top_p)),
        _end_tokens(model, tokenizer),
        sum(map(len, encoded)),
        check,
    )


def context_length(model: PreTrainedModel) -> int | None:
    """Most positions the model was made for; None where its configuration sets no limit."""
    config = model.config.get_text_config(decoder=True)
    value = getattr(config, "max_position_embeddings", None)
    return value if isinstance(value, int) and value > 0 else None


def _run(
    batch: DecodingBatch,
    streams: Sequence[TextStream],
    budgets: Sequence[int],
    draws: Tensor | None,
    options: tuple[float, float],
    ends: frozenset[int],
    prompt_tokens: int,
    check: Callable[[], object] | None,
) -> Generator[GenerationChunk, None, GenerationSummary]:
    left = list(budgets)
    unsent: list[list[int]] = [[] for _ in streams]
    seconds: list[float] = []

    def chunk(row: int, text: str, reason: FinishReason | None) -> GenerationChunk:
        tokens, unsent[row] = tuple(unsent[row]), []
        return GenerationChunk(row, text, tokens, reason)

    going = list(range(len(streams)))
    while going:
        if check is not None and check() is True:
            for row in batch.rows:
                yield chunk(row, streams[row].finish(), "cancelled")
            break
        started = time.perf_counter()
        now = None if draws is None else draws[batch.rows, len(seconds)]
        tokens = batch.step(now, *options)
        chunks: list[GenerationChunk] = []
        going = []
        for place, (row, token) in enumerate(zip(batch.rows, tokens, strict=True)):
            left[row] -= 1
            unsent[row].append(token)
            text = "" if token in ends else streams[row].push(token)
            reason = _reason(token in ends, streams[row].stopped, left[row])
            if reason is None:
                going.append(place)
            else:
                text += streams[row].finish()
            if text or reason is not None:
                chunks.append(chunk(row, text, reason))
        if 0 < len(going) < len(batch.rows):
            batch.keep(going)
        seconds.append(time.perf_counter() - started)
        yield from chunks
    return GenerationSummary(
        prompt_tokens=prompt_tokens,
        new_tokens=sum(budgets) - sum(left),
        seconds_prefill=sum(seconds[:1]),
        seconds_decode=sum(seconds[1:]),
    )


def _reason(ended: bool, stopped: bool, left: int) -> FinishReason | None:
    if ended:
        return "eos"
    if stopped:
        return "stop"
    return None if left > 0 else "length"


def _checked_prompts(prompts: object) -> list[str]:
    if isinstance(prompts, str):
        return [prompts]
    if not isinstance(prompts, Sequence) or isinstance(prompts, bytes) or not prompts:
        raise InvalidArgumentError(
            f"`prompts` must be a string or a non-empty sequence of strings, got {shown(prompts)}."
        )
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise InvalidArgumentError(f"`prompts[{index}]` must be a string, got {shown(prompt)}.")
    return list(prompts)


def _checked_stops(stop: object) -> tuple[str, ...]:
    stops = () if stop is None else (stop,) if isinstance(stop, str) else stop
    if not isinstance(stops, Sequence) or isinstance(stops, bytes):
        raise InvalidArgumentError(
            f"`stop` must be None, a string or a sequence of strings, got {shown(stop)}."
        )
    for text in stops:
        if not isinstance(text, str) or not text:
            raise InvalidArgumentError(f"`stop` must hold non-empty strings, got {shown(text)}.")
    return tuple(stops)


def _checked_seed(seed: object) -> int:
    if seed is None:
        return secrets.randbelow(_SEED_LIMIT)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < _SEED_LIMIT:
        raise InvalidArgumentError(
            f"`seed` must be None or an integer in [0, 2**63), got {shown(seed)}."
        )
    return seed


def _encode(
    tokenizer: PreTrainedTokenizerBase, prompt: str, index: int, limit: int | None
) -> list[int]:
    ids: list[int] = tokenizer(prompt, verbose=False)["input_ids"]
    if not ids:
        begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        first = end if begin is None else begin
        if not isinstance(first, int):
            raise InvalidArgumentError(
                f"`prompts[{index}]` must not be empty, as the tokenizer has no token that begins "
                "a text."
            )
        return [first]
    if limit is not None and len(ids) >= limit:
        raise InvalidArgumentError(
            f"`prompts[{index}]` must have fewer tokens than the model's context length {limit}, "
            f"got {len(ids)}."
        )
    return ids


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end a text: those of the generation config, else config, else tokenizer."""
    for owner in (model.generation_config, model.config, tokenizer):
        value = getattr(owner, "eos_token_id", None)
        if value is not None:
            return frozenset([value] if isinstance(value, int) else value)
    return frozenset()
