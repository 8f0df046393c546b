"""The number formats of activations: by hand, at their limits, and what they refuse."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from marlin import activations
from marlin.activations import quantize_activations, round_activations
from marlin.errors import InvalidArgumentError, UnsupportedError


def test_the_largest_of_a_stretch_gets_the_largest_integer() -> None:
    a = torch.tensor([[1.0, -2.0, 0.5, 0.0], [0.25, 0.25, -0.125, 0.0625]])
    values, scales = quantize_activations(a, 2, 8)
    assert values.tolist() == [[64, -127, 127, 0], [127, 127, -127, 64]]
    assert values.dtype == torch.int32
    expected = torch.tensor([[2.0, 0.5], [0.25, 0.125]]) / torch.tensor(127.0)
    assert torch.equal(scales, expected)


def test_halves_round_to_even() -> None:
    a = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5])
    values, scales = quantize_activations(a, 6, 8)
    assert values.tolist() == [127, 0, 2, 2, 0, -2]
    assert scales.tolist() == [1.0]


@pytest.mark.parametrize(("bits", "limit"), [(8, 127), (16, 32767)])
def test_the_bound_is_divided_and_not_multiplied_by_a_reciprocal(bits: int, limit: int) -> None:
    a = torch.rand(1000, 32)
    values, scales = quantize_activations(a, 32, bits)
    # Both divisions are correctly rounded, which float64 gives, rounded again.
    bound = a.amax(-1, keepdim=True)
    inverse = (limit / bound.double()).float()
    assert torch.equal(values, (a * inverse).round().int())
    assert torch.equal(scales, (bound.double() / limit).float())


def test_no_integer_leaves_its_range() -> None:
    a = torch.randn(4096, 32) * torch.logspace(-30, 30, 4096).unsqueeze(-1)
    for bits, limit in ((8, 127), (16, 32767)):
        values = quantize_activations(a, 32, bits).values
        assert int(values.abs().max()) == limit


def test_zeros_and_tiny_values_have_a_scale() -> None:
    values, scales = quantize_activations(torch.tensor([0.0, 0.0, 1e-38, -1e-38]), 2, 16)
    assert values.tolist() == [0, 0, 0, 0]
    assert bool((scales > 0).all())


@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
def test_a_stretch_that_is_not_finite_has_a_nan_scale(bad: float) -> None:
    values, scales = quantize_activations(torch.tensor([1.0, bad, 1.0, 2.0]), 2, 16)
    assert values[:2].tolist() == [0, 0]
    assert bool(scales[0].isnan())
    assert bool(scales[1].isfinite())


@pytest.mark.parametrize("columns", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("activation", ["int16", "int8"])
def test_the_last_stretch_may_be_shorter(activation: str, columns: int) -> None:
    stretch = activations.STRETCH_ROWS[activation]
    bits = activations.INTEGER_BITS[activation]
    a = torch.randn(3, columns)
    values, scales = quantize_activations(a, stretch, bits)
    assert values.shape == a.shape
    assert scales.shape == (3, -(-columns // stretch))
    last = (scales.shape[1] - 1) * stretch
    alone = quantize_activations(a[:, last:], stretch, bits)
    assert torch.equal(values[:, last:], alone.values)
    assert torch.equal(scales[:, -1:], alone.scales)
    assert round_activations(a, activation).shape == a.shape


@pytest.mark.parametrize(
    ("activation", "bound"), [("int16", 1e-4), ("bfloat16", 3e-3), ("int8", 1.2e-2)]
)
def test_a_rounded_activation_is_near(activation: str, bound: float) -> None:
    a = torch.randn(64, 256)
    rounded = round_activations(a, activation)
    assert rounded.dtype == torch.float64
    error = float((rounded - a).norm() / a.norm())
    assert bound / 10 < error < bound


DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "quantization.md"
ROW = re.compile(
    r"^\| 4 \| (32|128) \| (int16|bfloat16|int8) \| (\S+) \| (\S+) \| (\S+) \|$", re.MULTILINE
)
DOCUMENTED = [
    (int(rows), activation, factor, float(error))
    for rows, activation, *errors in ROW.findall(DOCUMENT.read_text())
    for factor, error in zip((1, 30, 100), errors, strict=True)
]


@pytest.mark.parametrize(("rows", "activation", "factor", "documented"), DOCUMENTED)
def test_the_error_of_a_product_is_the_documented_one(
    rows: int, activation: str, factor: int, documented: float
) -> None:
    torch.manual_seed(0)
    a, weight = torch.randn(64, 4096), torch.randn(4096, 512).double()
    a[:, torch.randperm(4096)[:8]] *= factor
    exact = a.double() @ weight
    error = float((round_activations(a, activation) @ weight - exact).norm() / exact.norm())
    # Other inputs, and a weight that is not rounded: where few channels are large, few count.
    assert error == pytest.approx(documented, rel=0.15)


def test_every_format_is_documented() -> None:
    assert len(DOCUMENTED) == 18


def test_in_weight_order_pads_and_then_permutes() -> None:
    perm = torch.tensor([3, 0, 2, 1], dtype=torch.int32)
    got = activations.in_weight_order(torch.tensor([[10.0, 11.0, 12.0]]), 4, perm)
    assert got.tolist() == [[0.0, 10.0, 12.0, 11.0]]


@pytest.mark.parametrize("activation", activations.ACTIVATIONS)
def test_every_format_is_accepted_for_4_bits(activation: str) -> None:
    activations.check_activation(activation, 4)


REFUSALS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (
        lambda: activations.check_activation("int4", 4),
        InvalidArgumentError,
        "`activation` must be one of auto, int16, bfloat16, int8, got 'int4'.",
    ),
    (
        lambda: activations.check_activation("bfloat16", 8),
        UnsupportedError,
        "`activation` must be auto, int16 or int8 for weights of 8 bits, got 'bfloat16'.",
    ),
    (
        lambda: quantize_activations(torch.tensor(1.0), 32, 8),
        InvalidArgumentError,
        "`a` must have at least one dimension, got a scalar.",
    ),
    (
        lambda: round_activations(torch.ones(2, 32), "auto"),
        InvalidArgumentError,
        "`activation` must be int16, bfloat16 or int8, got 'auto'.",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS)
def test_refuses(call: Callable[[], Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
