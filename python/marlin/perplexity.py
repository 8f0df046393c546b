"""Perplexity of a causal LM on a text, over sliding windows.

With tokens x[0..n), context length L and stride S <= L, window k runs the model on x[kS .. kS + L)
and scores the tokens that no window before it has scored, up to x[kS + L]. So every token but the
first is scored once, with at least L - S tokens of context (or all there are), and

    nll = -1/(n - 1) * sum over i >= 1 of log p(x[i] | context of its window)
    perplexity = exp(nll)

log p is computed in float32 from the model's logits and summed in float64. Knows no files.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from marlin.errors import InvalidArgumentError
from marlin.generation import context_length as model_context_length
from marlin.options import check_positive, shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["PerplexityResult", "measure_perplexity"]

# Where neither the caller nor the model says how long a window is.
_DEFAULT_CONTEXT = 2048
# Rows of logits that are widened to float32 at a time: a whole window of a large vocabulary would
# take as much memory as the model.
_ROWS = 256


@dataclass(frozen=True)
class PerplexityResult:
    """`perplexity` = exp(`nll`), the mean over `tokens` scored tokens in nats."""

    perplexity: float
    nll: float
    tokens: int
    seconds: float


def measure_perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    context_length: int | None = None,
    stride: int | None = None,
    max_tokens: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PerplexityResult:
    """Perplexity of `model`, in eval mode, on `text`; see the module for the formula.

    context_length: tokens of a window; None takes the model's own limit.
    stride: tokens from window to window, at most `context_length`; None takes `context_length`.
    max_tokens: uses only so many tokens from the beginning of `text`.
    progress: called with (done, total) scored tokens after every window; what it raises comes out.

    Raises InvalidArgumentError for an option out of range, a text of fewer than two tokens, and a
    model whose logits are not finite.
    """
    limit = model_context_length(model)
    length = _checked_length(context_length, limit)
    step = length if stride is None else stride
    check_positive("stride", step)
    if step > length:
        raise InvalidArgumentError(
            f"`stride` must be at most `context_length` {length}, else tokens would be left out, "
            f"got {step}."
        )
    if max_tokens is not None:
        check_positive("max_tokens", max_tokens)
    if not isinstance(text, str):
        raise InvalidArgumentError(f"`text` must be a string, got {shown(text)}.")
    started = time.perf_counter()
    ids: list[int] = tokenizer(text, verbose=False)["input_ids"][:max_tokens]
    if len(ids) < 2:
        raise InvalidArgumentError(
            f"`text` must have at least two tokens to predict one from the other, got {len(ids)}."
        )
    total = len(ids) - 1
    loss = torch.zeros((), dtype=torch.float64)
    done = 0
    for tokens, fresh in _windows(torch.tensor(ids), length, step):
        loss += _window_loss(model, tokens, fresh)
        done += fresh
        if progress is not None:
            progress(done, total)
    nll = float(loss) / total
    if math.isnan(nll):
        raise InvalidArgumentError("`model` must give finite logits, got NaN.")
    return PerplexityResult(
        perplexity=math.exp(nll) if nll < math.log(torch.finfo(torch.float64).max) else math.inf,
        nll=nll,
        tokens=total,
        seconds=time.perf_counter() - started,
    )


def _windows(ids: Tensor, length: int, stride: int) -> Iterator[tuple[Tensor, int]]:
    """Each window with the token after it (at most length + 1,), and how many of them are new."""
    scored = 1
    start = 0
    while scored < len(ids):
        end = min(start + length + 1, len(ids))
        yield ids[start:end], end - scored
        scored = end
        start += stride


@torch.inference_mode()
def _window_loss(model: PreTrainedModel, tokens: Tensor, fresh: int) -> Tensor:
    """Sum of -log p over the last `fresh` of `tokens` (n,), given those before: float64 scalar."""
    embedding = model.get_input_embeddings().weight
    assert isinstance(embedding, Tensor)
    tokens = tokens.to(embedding.device)
    takes_keep = "logits_to_keep" in inspect.signature(model.forward).parameters
    logits = model(
        input_ids=tokens[:-1].unsqueeze(0),
        use_cache=False,
        **({"logits_to_keep": fresh} if takes_keep else {}),
    ).logits[0, -fresh:]
    targets_of = tokens[-fresh:]
    loss = torch.zeros((), dtype=torch.float64)
    for begin in range(0, fresh, _ROWS):
        scores = logits[begin : begin + _ROWS].float()
        targets = targets_of[begin : begin + _ROWS]
        chosen = scores.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        loss += (scores.logsumexp(dim=-1) - chosen).double().sum().cpu()
    return loss


def _checked_length(context_length: int | None, limit: int | None) -> int:
    if context_length is None:
        return _DEFAULT_CONTEXT if limit is None else limit
    check_positive("context_length", context_length)
    if limit is not None and context_length > limit:
        raise InvalidArgumentError(
            f"`context_length` must be at most {limit}, what the model was made for, "
            f"got {context_length}."
        )
    return context_length
