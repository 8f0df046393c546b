from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from marlin.errors import InvalidArgumentError
from marlin.sampling import choose, uniforms

LOGITS = torch.tensor([[0.1, 2.0, -1.0, 1.5], [3.0, 3.0, 0.0, -5.0]])


def _shares(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """How often each token is chosen, over evenly spread draws: (vocab,)."""
    steps = 20_000
    draws = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    chosen = choose(logits.expand(steps, -1), draws, temperature, top_p)
    return torch.bincount(chosen, minlength=logits.shape[-1]).double() / steps


def test_without_draws_the_likeliest_token_is_taken_and_of_equal_ones_the_first() -> None:
    assert choose(LOGITS, None, 1.0, 1.0).tolist() == [1, 0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_chosen_with_the_probabilities_of_the_softmax(temperature: float) -> None:
    for row in LOGITS:
        expected = (row.double() / temperature).softmax(-1)
        torch.testing.assert_close(_shares(row, temperature, 1.0), expected, atol=1e-4, rtol=0)


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    row = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64).log()
    for top_p, kept in [(0.39, [1]), (0.41, [1, 3]), (0.69, [1, 3]), (0.71, [1, 3, 2])]:
        expected = torch.zeros(4, dtype=torch.float64)
        expected[kept] = row.exp()[kept]
        expected /= expected.sum()
        torch.testing.assert_close(_shares(row, 1.0, top_p), expected, atol=1e-4, rtol=0)


@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=20),
    st.floats(0, 1, exclude_max=True),
    st.floats(1e-6, 10),
    st.floats(1e-6, 1),
)
def test_no_draw_leaves_the_kept_tokens(
    values: list[float], draw: float, temperature: float, top_p: float
) -> None:
    logits = torch.tensor([values])
    token = int(choose(logits, torch.tensor([draw], dtype=torch.float64), temperature, top_p))
    probabilities = ((logits[0].double() - logits.max()) / temperature).softmax(-1)
    assert probabilities[token] > 0
    likelier = probabilities[probabilities > probabilities[token]].sum()
    assert likelier < top_p


def test_a_tiny_temperature_is_greedy() -> None:
    draws = torch.tensor([0.999, 0.0], dtype=torch.float64)
    assert choose(LOGITS, draws, 1e-30, 1.0).tolist() == [1, 0]


def test_excluded_tokens_are_never_chosen() -> None:
    row = torch.tensor([float("-inf"), 0.0, float("-inf")])
    assert _shares(row, 1.0, 1.0).tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(InvalidArgumentError, match="finite"):
        choose(torch.tensor([[0.0, value]]), None, 1.0, 1.0)


def test_a_row_of_uniforms_depends_on_seed_prompt_and_earlier_copies_only() -> None:
    whole = uniforms(1, ["a", "b", "a"], 40)
    assert whole.shape == (3, 40)
    assert torch.equal(uniforms(1, ["a"], 40)[0], whole[0])
    assert torch.equal(uniforms(1, ["a", "a"], 40)[1], whole[2])
    assert torch.equal(uniforms(1, ["a"], 7)[0], whole[0, :7])
    assert not torch.equal(whole[0], whole[2])
    assert not torch.equal(uniforms(2, ["a"], 40)[0], whole[0])
