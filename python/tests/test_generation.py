from __future__ import annotations

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from marlin import decoding
from marlin.decoding import DecodingBatch
from marlin.errors import CancelledError, InvalidArgumentError
from marlin.generation import GenerationChunk, GenerationSummary, generate
from tests.tiny_model import CONTEXT, END, tiny_llama, tiny_tokenizer

PROMPTS = ["def main():", "x", "import os\nimport sys\n"]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return tiny_llama()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


class Run:
    """All of one generation, by prompt."""

    def __init__(
        self,
        model: LlamaForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        prompts: str | list[str],
        **options: object,
    ) -> None:
        self.chunks: list[GenerationChunk] = []
        stream = generate(model, tokenizer, prompts, **options)  # type: ignore[arg-type]
        while True:
            try:
                self.chunks.append(next(stream))
            except StopIteration as end:
                self.summary: GenerationSummary = end.value
                break

    def text(self, index: int = 0) -> str:
        return "".join(chunk.text for chunk in self.chunks if chunk.index == index)

    def tokens(self, index: int = 0) -> list[int]:
        return [token for chunk in self.chunks if chunk.index == index for token in chunk.tokens]

    def reason(self, index: int = 0) -> str | None:
        reasons = [c.finish_reason for c in self.chunks if c.index == index and c.finish_reason]
        assert len(reasons) == 1
        return reasons[0]


def _reference(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: str, steps: int
) -> list[int]:
    """Greedy tokens without any cache: the whole text through the model for each."""
    ids = tokenizer(prompt)["input_ids"]
    begin = len(ids)
    with torch.inference_mode():
        for _ in range(steps):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
            if ids[-1] == END:
                break
    return list(ids[begin:])


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_tokens_equal_those_of_a_model_run_without_a_cache(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: str
) -> None:
    run = Run(model, tokenizer, prompt, max_new_tokens=40)
    assert run.tokens() == _reference(model, tokenizer, prompt, 40)


def test_a_batch_gives_the_texts_of_its_prompts_alone(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    together = Run(model, tokenizer, PROMPTS, max_new_tokens=60)
    for index, prompt in enumerate(PROMPTS):
        alone = Run(model, tokenizer, prompt, max_new_tokens=60)
        assert together.tokens(index) == alone.tokens()
        assert together.text(index) == alone.text()
        assert together.reason(index) == alone.reason()


def test_a_sampled_sequence_does_not_depend_on_the_rest_of_the_batch(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    options = {"max_new_tokens": 30, "temperature": 1.0, "top_p": 0.9, "seed": 5}
    together = Run(model, tokenizer, PROMPTS, **options)
    turned = Run(model, tokenizer, PROMPTS[::-1], **options)
    for index, prompt in enumerate(PROMPTS):
        alone = Run(model, tokenizer, prompt, **options)
        assert together.tokens(index) == alone.tokens() == turned.tokens(2 - index)


def test_sampling_repeats_with_its_seed_and_not_with_another(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    options = {"max_new_tokens": 40, "temperature": 1.0}
    torch.manual_seed(1)
    first = Run(model, tokenizer, "a", seed=7, **options)
    torch.manual_seed(2)
    assert Run(model, tokenizer, "a", seed=7, **options).tokens() == first.tokens()
    assert Run(model, tokenizer, "a", seed=8, **options).tokens() != first.tokens()


def test_sampling_leaves_the_global_generator_as_it_is(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    before = torch.get_rng_state()
    Run(model, tokenizer, "a", max_new_tokens=5, temperature=1.0)
    assert torch.equal(torch.get_rng_state(), before)


def test_copies_of_a_prompt_draw_differently(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    run = Run(model, tokenizer, ["a", "a"], max_new_tokens=40, temperature=1.0, seed=3)
    assert run.tokens(0) != run.tokens(1)


def test_a_shorter_sample_is_the_beginning_of_a_longer_one(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    short = Run(model, tokenizer, "a", max_new_tokens=9, temperature=1.0, seed=3)
    long = Run(model, tokenizer, "a", max_new_tokens=30, temperature=1.0, seed=3)
    assert short.tokens() == long.tokens()[: len(short.tokens())]


def test_every_token_is_reported_once_and_the_summary_counts_them(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    run = Run(model, tokenizer, PROMPTS, max_new_tokens=25)
    assert run.summary.new_tokens == sum(len(run.tokens(index)) for index in range(3))
    assert run.summary.prompt_tokens == sum(len(prompt) for prompt in PROMPTS)
    assert run.summary.seconds_prefill > 0
    assert run.summary.seconds_decode > 0


def test_max_new_tokens_ends_with_length(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    run = Run(model, tokenizer, "def", max_new_tokens=3)
    assert len(run.tokens()) == 3
    assert run.reason() == "length"


def test_the_end_of_the_context_ends_with_length_for_each_prompt_by_itself(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    prompts = ["a" * 90, "b" * 80]
    run = Run(model, tokenizer, prompts, max_new_tokens=1000)
    for index, prompt in enumerate(prompts):
        assert run.tokens(index) == _reference(model, tokenizer, prompt, CONTEXT - len(prompt))
        assert run.reason(index) == "length"


def test_the_end_token_ends_with_eos_and_gives_no_text(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = tiny_llama()
    ends = _reference(model, tokenizer, "def", 6)
    model.generation_config.eos_token_id = [ends[-1]]
    run = Run(model, tokenizer, "def", max_new_tokens=50)
    place = ends.index(ends[-1])
    assert run.tokens() == ends[: place + 1]
    assert run.reason() == "eos"
    assert run.text() == bytes(ends[:place]).decode("utf-8", "replace").rstrip("\ufffd")


def test_rows_that_end_early_leave_the_others_unchanged(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = tiny_llama()
    expected = [_reference(model, tokenizer, prompt, 40) for prompt in PROMPTS]
    # A token that ends one sequence early, and is not in another.
    end = next(token for token in expected[0][:10] if token not in expected[2])
    model.generation_config.eos_token_id = [end, END]
    run = Run(model, tokenizer, PROMPTS, max_new_tokens=40)
    for index, tokens in enumerate(expected):
        cut = tokens.index(end) + 1 if end in tokens else len(tokens)
        assert run.tokens(index) == tokens[:cut]
    assert run.reason(0) == "eos"
    assert run.reason(2) == "length"


def test_a_stop_string_ends_the_text_before_it(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    options = {"max_new_tokens": 60, "temperature": 1.0, "seed": 13}
    whole = Run(model, tokenizer, "def", **options).text()
    stop = whole[20:23]
    run = Run(model, tokenizer, "def", stop=["never in it", stop], **options)
    assert run.text() == whole[: whole.index(stop)]
    assert run.reason() == "stop"


def test_an_empty_prompt_starts_a_new_text(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    run = Run(model, tokenizer, "", max_new_tokens=5)
    assert run.summary.prompt_tokens == 1
    assert run.tokens() == _reference(model, tokenizer, "<|endoftext|>", 5)


def test_check_that_returns_true_cancels_all_sequences(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    calls = iter([False, False, True])
    run = Run(model, tokenizer, PROMPTS, max_new_tokens=50, check=lambda: next(calls))
    assert run.summary.new_tokens == 2 * len(PROMPTS)
    assert [run.reason(index) for index in range(3)] == ["cancelled"] * 3


def test_what_check_raises_comes_out(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    def check() -> None:
        raise CancelledError("The call was cancelled.")

    with pytest.raises(CancelledError):
        next(generate(model, tokenizer, "a", check=check))


def test_inference_mode_does_not_leak_to_the_consumer(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    for _ in generate(model, tokenizer, "a", max_new_tokens=3):
        assert not torch.is_inference_mode_enabled()


def test_logits_that_are_not_finite_are_an_error(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(InvalidArgumentError, match="finite logits"):
        next(generate(model, tokenizer, "a"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", 1.5),
        ("max_new_tokens", True),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", "hot"),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", float("inf")),
        ("seed", -1),
        ("seed", 2**63),
        ("seed", 1.0),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", 3),
        ("stop", b"a"),
        ("prompts", []),
        ("prompts", ["a", 1]),
        ("prompts", b"a"),
        ("prompts", "a" * CONTEXT),
    ],
)
def test_an_option_out_of_range_is_named(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, option: str, value: object
) -> None:
    options: dict[str, object] = {"prompts": "a", option: value}
    with pytest.raises(InvalidArgumentError, match=f"`{option}"):
        generate(model, tokenizer, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("prompts", [["def"], ["def", "imp"]])
def test_attention_that_is_faster_masked_chooses_the_same_tokens(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    masked = Run(model, tokenizer, prompts, max_new_tokens=40)
    assert DecodingBatch(model, [[1, 2]], 1)._visible is not None
    monkeypatch.setattr(decoding, "_is_faster_masked", lambda *_: False)
    plain = Run(model, tokenizer, prompts, max_new_tokens=40)
    for row in range(len(prompts)):
        assert masked.tokens(row) == plain.tokens(row)


@pytest.mark.parametrize("change", ["eager attention", "no shared heads"])
def test_attention_that_is_no_faster_masked_gets_no_mask(change: str) -> None:
    model = tiny_llama()
    if change == "eager attention":
        model.set_attn_implementation("eager")
    else:
        model.config.num_key_value_heads = model.config.num_attention_heads
    assert DecodingBatch(model, [[1, 2]], 1)._visible is None
