"""Rounding weights to codes: bounds, padding, the scale search, and numbers at the edge."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from marlin.errors import InvalidArgumentError, UnsupportedError
from marlin.primitives import (
    EMPTY_SCALE,
    FLOAT_DTYPES,
    GROUP_SIZES,
    QuantizedWeight,
    dequantize_codes,
    padded_in_features,
)
from marlin.rounding import quantize

group_sizes = st.sampled_from(GROUP_SIZES)


def spread(tensor: Tensor, size_k: int) -> Tensor:
    """(G, N) values -> (N, K), one for each weight."""
    return tensor.repeat_interleave(size_k // tensor.shape[0], dim=0).t()


def relative_error(weight: Tensor, rounded: QuantizedWeight) -> float:
    decoded = dequantize_codes(rounded)[: weight.shape[0], : weight.shape[1]].float()
    return float((decoded - weight.float()).norm() / weight.float().norm())


@given(
    out_features=st.integers(1, 20),
    in_features=st.integers(1, 200),
    group_size=group_sizes,
    symmetric=st.booleans(),
    search=st.booleans(),
    dtype=st.sampled_from(FLOAT_DTYPES),
    log_size=st.integers(-4, 3),
    seed=st.integers(0, 1000),
)
def test_weights_inside_the_range_are_off_by_at_most_half_a_step(
    out_features: int,
    in_features: int,
    group_size: int,
    symmetric: bool,
    search: bool,
    dtype: torch.dtype,
    log_size: int,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out_features, in_features, generator=generator) * 10.0**log_size
    weight = weight.to(dtype)
    rounded = quantize(weight, group_size, symmetric=symmetric, search=search)
    size_k = padded_in_features(in_features, group_size)
    assert rounded.codes.shape[0] == size_k
    assert (rounded.zeros is None) == symmetric
    exact = QuantizedWeight(rounded.codes, rounded.scales.float(), rounded.zeros)
    decoded = dequantize_codes(exact)[:out_features, :in_features]
    scale = spread(rounded.scales.float(), size_k)[:out_features, :in_features]
    zero = 8.0
    if rounded.zeros is not None:
        zero = spread(rounded.zeros.float(), size_k)[:out_features, :in_features]  # type: ignore[assignment]
    steps = weight.float() / scale + zero
    inside = (steps >= 0) & (steps <= 15)
    error = (decoded - weight.float()).abs()
    slack = 1e-6 * weight.float().abs()
    assert bool((error[inside] <= (scale.abs() / 2 + slack)[inside]).all())
    # What lies outside is clipped to the nearest end of the range.
    end = torch.where(steps < 0, 0.0, 15.0)
    clipped = (end - zero) * scale
    torch.testing.assert_close(decoded[~inside], clipped[~inside])


@given(group_size=group_sizes, symmetric=st.booleans(), seed=st.integers(0, 1000))
def test_the_search_never_makes_a_group_worse(group_size: int, symmetric: bool, seed: int) -> None:
    weight = torch.randn(8, 256, generator=torch.Generator().manual_seed(seed))
    rows = 256 if group_size == -1 else group_size

    def error_of_groups(search: bool) -> Tensor:
        rounded = quantize(weight, group_size, symmetric=symmetric, search=search)
        return (dequantize_codes(rounded) - weight).view(8, -1, rows).square().sum(-1)

    assert bool((error_of_groups(True) <= error_of_groups(False) * (1 + 1e-5)).all())


def test_without_search_nothing_of_a_group_with_zero_points_is_clipped() -> None:
    weight = torch.randn(64, 128) + 0.5
    rounded = quantize(weight, 32, symmetric=False, search=False)
    scale = spread(rounded.scales, 128)
    # Half a step of rounding, and the rounding of the zero point that shifts the range.
    assert bool(((dequantize_codes(rounded) - weight).abs() <= scale * 1.001).all())


def test_the_largest_weight_of_a_symmetric_group_is_exact_without_search() -> None:
    weight = torch.tensor([[0.5, -1.0, 4.0, 0.25]])
    rounded = quantize(weight, 32, search=False)
    assert rounded.scales[0, 0] == -0.5
    assert rounded.codes[:4, 0].tolist() == [7, 10, 0, 8]  # 7.5 rounds to even: 8 - 0.5


@pytest.mark.parametrize("symmetric", [True, False])
def test_padding_is_exactly_zero(symmetric: bool) -> None:
    weight = torch.randn(9, 100) + 3
    decoded = dequantize_codes(quantize(weight, 64, symmetric=symmetric))
    assert decoded.shape == (16, 128)
    assert not decoded[9:].any()
    assert not decoded[:, 100:].any()


@pytest.mark.parametrize("symmetric", [True, False])
def test_groups_of_zeros_stay_zero_and_have_a_scale(symmetric: bool) -> None:
    weight = torch.randn(8, 128)
    weight[:, 32:64] = 0
    rounded = quantize(weight, 32, symmetric=symmetric)
    assert not dequantize_codes(rounded)[:, 32:64].any()
    assert bool((rounded.scales[1] == EMPTY_SCALE).all())


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [1.0, -1.0])
def test_constant_groups_are_exact(symmetric: bool, value: float) -> None:
    rounded = quantize(torch.full((8, 32), value), 32, symmetric=symmetric, search=False)
    torch.testing.assert_close(dequantize_codes(rounded), torch.full((8, 32), value))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("size", [1e-7, 1e-6, 1e-3, 6e4])
def test_float16_scales_at_the_edge_of_their_range_lose_no_group(
    symmetric: bool, size: float
) -> None:
    weight = (torch.rand(8, 64) * 2 - 1).mul(size).half()
    rounded = quantize(weight, 32, symmetric=symmetric)
    assert bool((rounded.scales != 0).all())
    exact = dequantize_codes(QuantizedWeight(rounded.codes, rounded.scales.float(), rounded.zeros))
    half_step = spread(rounded.scales.float().abs(), 64).div(2)
    # 2**-24 is the smallest float16: finer steps than that cannot be asked for.
    assert bool(((exact - weight.float()).abs() <= half_step * 4 + 2.0**-25).all())


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e38, 3e38])
def test_float32_weights_at_the_edge_of_their_range_give_finite_results(
    symmetric: bool, size: float
) -> None:
    weight = torch.tensor([[size, -size] * 16])
    rounded = quantize(weight, 32, symmetric=symmetric)
    assert bool(torch.isfinite(rounded.scales).all())
    decoded = dequantize_codes(rounded)[:1]
    assert bool(torch.isfinite(decoded).all())
    if size > 1e-30:
        assert relative_error(weight / size, rounded._replace(scales=rounded.scales / size)) < 0.2


def test_a_scale_too_large_for_its_dtype_is_refused() -> None:
    message = (
        "`weight` needs a scale of 1.25e+05, and float16 holds at most 6.55e+04: "
        "pass `scale_dtype=torch.float32`."
    )
    with pytest.raises(InvalidArgumentError, match=f"^{re.escape(message)}$"):
        quantize(torch.full((1, 32), 1e6), 32, scale_dtype=torch.float16)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_with_their_place(value: float) -> None:
    weight = torch.randn(40, 70)
    weight[33, 65] = value
    message = f"`weight` must be finite, got {value} at row 33, column 65."
    with pytest.raises(InvalidArgumentError, match=f"^{re.escape(message)}$") as caught:
        quantize(weight, 32)
    assert caught.value.details == {"row": 33, "column": 65}


def test_a_large_matrix_is_the_same_as_its_rows() -> None:
    # More than one chunk, and a last one that is not full.
    weight = torch.randn(1100, 4096)
    whole = quantize(weight, 128, search=False)
    part = quantize(weight[1000:1016], 128, search=False)
    assert torch.equal(whole.codes[:, 1000:1016], part.codes)
    assert torch.equal(whole.scales[:, 1000:1016], part.scales)


def test_importance_moves_the_error_to_channels_that_matter_less() -> None:
    weight = torch.randn(256, 128)
    importance = torch.ones(128)
    importance[:16] = 1000
    plain = dequantize_codes(quantize(weight, 128)) - weight
    weighted = dequantize_codes(quantize(weight, 128, importance=importance)) - weight
    assert weighted[:, :16].norm() < 0.95 * plain[:, :16].norm()
    assert weighted.norm() > plain.norm()


def test_uniform_importance_changes_nothing() -> None:
    weight = torch.randn(16, 100)
    plain = quantize(weight, 64)
    weighted = quantize(weight, 64, importance=torch.full((100,), 4.0))
    assert torch.equal(plain.codes, weighted.codes)


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        (
            torch.ones(3),
            "`importance` must have one value per input channel, shape [32], got [3].",
        ),
        (
            torch.tensor([1.0] * 31 + [-1.0]),
            "`importance` must be finite and not negative, got -1.0 for channel 31.",
        ),
    ],
)
def test_bad_importance_is_refused(importance: Tensor, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{re.escape(message)}$"):
        quantize(torch.randn(2, 32), 32, importance=importance)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.ones(3), "`weight` must be a non-empty matrix (out_features, in_features), "),
        (torch.ones(0, 3), "`weight` must be a non-empty matrix (out_features, in_features), "),
        (torch.ones(1, 3).double(), "`weight` must be float16, bfloat16 or float32, got float64."),
    ],
)
def test_other_weights_are_refused(weight: Tensor, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{re.escape(message)}"):
        quantize(weight, 32)


DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "quantization.md"
ROW = re.compile(r"^\| (32|64|128|-1) \| [\d./ ]+ \|((?: 0\.\d{4} \|){4})$", re.MULTILINE)
DOCUMENTED = {int(size): cells.split("|")[:4] for size, cells in ROW.findall(DOCUMENT.read_text())}


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_the_error_on_gaussian_weights_is_the_documented_one(
    group_size: int, symmetric: bool, search: bool
) -> None:
    weight = torch.randn(128, 4096)
    rounded = quantize(
        weight, group_size, symmetric=symmetric, search=search, scale_dtype=torch.float16
    )
    documented = float(DOCUMENTED[group_size][2 * (not symmetric) + search])
    # Another matrix than the one of the document: its figures hold to a few tenths of a percent.
    assert relative_error(weight, rounded) == pytest.approx(documented, rel=0.02)


# 8 bits


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("group_size", [32, 128, -1])
def test_8_bits_are_off_by_half_a_step_of_an_eighth_of_the_bits(
    group_size: int, search: bool
) -> None:
    weight = torch.randn(20, 200)
    rounded = quantize(weight, group_size, search=search, bits=8)
    assert rounded.zeros is None
    exact = dequantize_codes(rounded, 8)[:20, :200]
    scale = spread(rounded.scales, rounded.codes.shape[0])[:20, :200]
    steps = weight / scale + 128
    inside = (steps >= 0) & (steps <= 255)
    assert bool(((exact - weight).abs() <= scale.abs() * 0.50001)[inside].all())
    assert float(inside.float().mean()) > 0.98


def test_8_bits_reach_both_ends_of_their_range() -> None:
    codes = quantize(torch.randn(64, 256), 32, search=False, bits=8).codes
    assert int(codes.min()) == 0
    assert int(codes.max()) > 240


@pytest.mark.parametrize("group_size", [32, 128, -1])
def test_the_search_pays_in_8_bits_too(group_size: int) -> None:
    weight = torch.randn(64, 2048)
    errors = []
    for search in (False, True):
        rounded = quantize(weight, group_size, search=search, bits=8)
        decoded = dequantize_codes(rounded, 8)
        errors.append(float((decoded - weight).norm() / weight.norm()))
    assert errors[1] < 0.995 * errors[0]


BYTES_ROW = re.compile(r"^\| (32|64|128|-1) \| 8\.\d+ \|((?: 0\.\d{5} \|){2})$", re.MULTILINE)
BYTES_DOCUMENTED = {
    int(size): cells.split("|")[:2] for size, cells in BYTES_ROW.findall(DOCUMENT.read_text())
}


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_the_error_of_8_bits_is_the_documented_one(group_size: int, search: bool) -> None:
    weight = torch.randn(128, 4096)
    rounded = quantize(weight, group_size, search=search, scale_dtype=torch.float16, bits=8)
    exact = QuantizedWeight(rounded.codes, rounded.scales.float(), None)
    error = float((dequantize_codes(exact, 8) - weight).norm() / weight.norm())
    documented = float(BYTES_DOCUMENTED[group_size][search])
    assert error == pytest.approx(documented, rel=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 5}, "`bits` must be 4 or 8, got 5."),
        ({"bits": 8, "symmetric": False}, "`symmetric` must be true with 8 bits, got False."),
    ],
)
def test_formats_without_kernels_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(UnsupportedError, match=f"^{re.escape(message)}$"):
        quantize(torch.ones(8, 32), 32, **options)  # type: ignore[arg-type]
