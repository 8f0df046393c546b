from __future__ import annotations

import math

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from marlin.errors import CancelledError, InvalidArgumentError
from marlin.perplexity import measure_perplexity
from tests.tiny_model import CONTEXT, tiny_llama, tiny_tokenizer

TEXT = "The quick brown fox jumps over the lazy dog. " * 8


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return tiny_llama()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


def _by_definition(model: LlamaForCausalLM, text: str, length: int, stride: int) -> float:
    """Mean nll in float64, one token at a time, each in the first window that reaches it."""
    ids = list(text.encode())
    total = 0.0
    with torch.inference_mode():
        for i in range(1, len(ids)):
            start = max(0, math.ceil((i - length) / stride)) * stride
            logits = model(torch.tensor([ids[start:i]])).logits[0, -1].double()
            total -= float(logits.log_softmax(-1)[ids[i]])
    return total / (len(ids) - 1)


@pytest.mark.parametrize(
    ("length", "stride"), [(32, 32), (32, 16), (32, 5), (32, 1), (CONTEXT, CONTEXT), (1, 1)]
)
def test_it_is_the_mean_over_windows_by_definition(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, length: int, stride: int
) -> None:
    text = TEXT[:101]
    result = measure_perplexity(model, tokenizer, text, context_length=length, stride=stride)
    assert result.tokens == 100
    assert result.nll == pytest.approx(_by_definition(model, text, length, stride), abs=2e-5)
    assert result.perplexity == math.exp(result.nll)


def test_by_default_windows_are_as_long_as_the_model_allows_and_do_not_overlap(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    default = measure_perplexity(model, tokenizer, TEXT)
    spelled = measure_perplexity(model, tokenizer, TEXT, context_length=CONTEXT, stride=CONTEXT)
    assert default.nll == spelled.nll


def test_a_model_that_knows_nothing_has_the_size_of_the_vocabulary(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.model.norm.weight.zero_()
    assert measure_perplexity(model, tokenizer, TEXT).perplexity == pytest.approx(257, rel=1e-6)


def test_max_tokens_takes_the_beginning(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    cut = measure_perplexity(model, tokenizer, TEXT, max_tokens=50)
    assert cut.tokens == 49
    assert cut.nll == measure_perplexity(model, tokenizer, TEXT[:50]).nll


def test_progress_goes_up_to_all_tokens(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    seen: list[tuple[int, int]] = []
    result = measure_perplexity(
        model,
        tokenizer,
        TEXT,
        context_length=64,
        stride=32,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[0] == (64, result.tokens)
    assert seen[-1] == (result.tokens, result.tokens)
    assert sorted(seen) == seen


def test_what_progress_raises_comes_out(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    def cancel(done: int, total: int) -> None:
        raise CancelledError("The call was cancelled.")

    with pytest.raises(CancelledError):
        measure_perplexity(model, tokenizer, TEXT, progress=cancel)


def test_logits_that_are_nan_are_an_error(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(InvalidArgumentError, match="finite logits"):
        measure_perplexity(model, tokenizer, TEXT)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("context_length", 0),
        ("context_length", CONTEXT + 1),
        ("context_length", "8"),
        ("stride", 0),
        ("stride", CONTEXT + 1),
        ("stride", True),
        ("max_tokens", 0),
        ("text", ""),
        ("text", "a"),
        ("text", 7),
    ],
)
def test_an_option_out_of_range_is_named(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, option: str, value: object
) -> None:
    options: dict[str, object] = {"text": TEXT, option: value}
    with pytest.raises(InvalidArgumentError, match=f"`{option}`"):
        measure_perplexity(model, tokenizer, **options)  # type: ignore[arg-type]
