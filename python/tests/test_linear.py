"""`Int4Linear`: numbers, state dicts, moves, gradients, and what it refuses."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from marlin import Int4Linear, primitives
from marlin.errors import InvalidArgumentError
from marlin.primitives import FLOAT_DTYPES, GROUP_SIZES, pack_codes, pack_zeros

# Relative Frobenius error of the result: of rounding to the dtype, and of the kernels' fp32 sums.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 6e-3}

SHAPES = [(128, 64), (100, 30), (256, 72), (1, 1), (33, 9), (300, 200)]


def plain_tensors(layer: Int4Linear) -> tuple[Tensor, Tensor, Tensor | None]:
    return layer.plain_qweight(), layer.plain_scales(), layer.plain_qzeros()


@torch.no_grad()
def reference(layer: Int4Linear, a: Tensor) -> Tensor:
    """The product by the numeric definition, before it is rounded to the dtype of `a`."""
    qweight, scales, qzeros = plain_tensors(layer)
    product = primitives.linear(a.float(), qweight, scales, qzeros, layer.group_size)
    product = product[..., : layer.out_features]
    return product if layer.bias is None else product + layer.bias.float()


def assert_near(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert actual.shape == expected.shape
    error = float((actual.detach().float() - expected).norm() / expected.norm())
    assert error < TOLERANCE[dtype], f"relative error {error:.2e}"


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", GROUP_SIZES)
@pytest.mark.parametrize(("in_features", "out_features"), SHAPES)
def test_multiplies_by_the_quantised_weight(
    in_features: int, out_features: int, group_size: int, symmetric: bool, dtype: torch.dtype
) -> None:
    linear = nn.Linear(in_features, out_features, dtype=dtype)
    layer = Int4Linear.from_linear(linear, group_size, symmetric)
    a = torch.randn(2, 3, in_features, dtype=dtype)
    product = layer(a)
    assert product.dtype == dtype
    assert product.is_contiguous()
    assert_near(product, reference(layer, a), dtype)


@pytest.mark.parametrize("symmetric", [True, False])
def test_is_near_the_linear_that_it_comes_from(symmetric: bool) -> None:
    linear = nn.Linear(512, 300)
    layer = Int4Linear.from_linear(linear, 32, symmetric)
    a = torch.randn(16, 512)
    expected = linear(a)
    assert (layer(a) - expected).norm() < 0.1 * expected.norm()
    # A uniform weight; docs/quantization.md has the figures for Gaussian ones.
    assert (layer.dequantize() - linear.weight).norm() < 0.07 * linear.weight.norm()


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0), (2, 1, 3)])
def test_keeps_leading_dimensions(shape: tuple[int, ...]) -> None:
    layer = Int4Linear.from_linear(nn.Linear(40, 12))
    assert layer(torch.randn(*shape, 40)).shape == (*shape, 12)


@pytest.mark.parametrize("out_features", [16, 13])
def test_the_shape_of_the_result_can_be_asked_on_meta(out_features: int) -> None:
    layer = Int4Linear(100, out_features, device="meta")
    output = layer(torch.empty(2, 3, 100, dtype=torch.float16, device="meta"))
    assert (output.shape, output.dtype) == ((2, 3, out_features), torch.float16)
    assert output.is_meta


def test_takes_inputs_that_are_not_contiguous() -> None:
    layer = Int4Linear.from_linear(nn.Linear(64, 16))
    a = torch.randn(64, 5).t()
    torch.testing.assert_close(layer(a), layer(a.contiguous()))


def test_a_fresh_layer_is_zero_and_shaped_like_nn_linear() -> None:
    layer = Int4Linear(100, 30, dtype=torch.bfloat16, symmetric=False, group_size=64)
    linear = nn.Linear(100, 30, dtype=torch.bfloat16)
    a = torch.randn(4, 100, dtype=torch.bfloat16)
    assert layer(a).shape == linear(a).shape
    assert not layer.dequantize().any()
    assert layer(a).abs().max() < 1e-6
    assert layer.bias is not None
    assert layer.bias.dtype == torch.bfloat16
    assert Int4Linear(100, 30, bias=False).bias is None


def test_extra_repr_names_the_settings() -> None:
    assert repr(Int4Linear(100, 30, bias=False, group_size=-1, symmetric=False)) == (
        "Int4Linear(in_features=100, out_features=30, bias=False, group_size=-1, symmetric=False)"
    )


def test_weight_bytes_are_those_of_the_buffers() -> None:
    layer = Int4Linear(256, 128, group_size=128, symmetric=False, dtype=torch.float16)
    codes, scales, zeros = 256 * 128 // 2, 2 * 128 * 2, 2 * 128 // 2
    assert layer.weight_bytes == codes + scales + zeros


def test_from_linear_takes_the_training_flag_and_shares_the_bias() -> None:
    linear = nn.Linear(32, 8).eval()
    layer = Int4Linear.from_linear(linear)
    assert not layer.training
    assert layer.bias is linear.bias


# State dicts


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_state_dict_has_the_plain_layout_with_padding(symmetric: bool) -> None:
    layer = Int4Linear.from_linear(nn.Linear(100, 30).half(), 64, symmetric)
    state = layer.state_dict()
    expected = {"qweight": (16, 32), "scales": (2, 32), "qzeros": (2, 4), "bias": (30,)}
    if symmetric:
        del expected["qzeros"]
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected
    weight = primitives.dequantize(state["qweight"], state["scales"], state.get("qzeros"), 64)
    assert torch.equal(weight[:30, :100], layer.dequantize())


@pytest.mark.parametrize(("device", "assign"), [("cpu", False), ("cpu", True), ("meta", True)])
def test_a_state_dict_comes_back(device: str, assign: bool, tmp_path: Path) -> None:
    layer = Int4Linear.from_linear(nn.Linear(100, 30), 64, symmetric=False)
    save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    other = Int4Linear(100, 30, group_size=64, symmetric=False, device=device)
    assert other.load_state_dict(load_file(tmp_path / "layer.safetensors"), assign=assign) == (
        [],
        [],
    )
    a = torch.randn(3, 100)
    assert torch.equal(other(a), layer(a))
    assert isinstance(other.bias, nn.Parameter)
    for name, tensor in layer.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


def test_loading_casts_scales_to_the_module_unless_they_are_assigned() -> None:
    state = Int4Linear.from_linear(nn.Linear(32, 8).half()).state_dict()
    layer = Int4Linear(32, 8)
    layer.load_state_dict(state)
    assert layer.scales.dtype == torch.float32
    layer.load_state_dict(state, assign=True)
    assert layer.scales.dtype == torch.float16


def test_loading_does_not_change_the_dict_it_was_given() -> None:
    state = Int4Linear.from_linear(nn.Linear(32, 8)).state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    Int4Linear(32, 8).load_state_dict(state)
    for name, tensor in before.items():
        assert torch.equal(state[name], tensor)


BAD_STATES: list[tuple[str, dict[str, Tensor | None], str]] = [
    ("a missing tensor", {"scales": None}, 'Missing key(s) in state_dict: "0.scales"'),
    ("an extra tensor", {"qzeros": torch.zeros(1)}, 'Unexpected key(s) in state_dict: "0.qzeros"'),
    (
        "another shape",
        {"qweight": torch.zeros(4, 16, dtype=torch.int32)},
        "`0.qweight` must be int32 of shape [8, 16], got int32 of shape [4, 16].",
    ),
    (
        "another dtype",
        {"qweight": torch.zeros(8, 16)},
        "`0.qweight` must be int32 of shape [8, 16], got float32 of shape [8, 16].",
    ),
    (
        "scales of another dtype",
        {"scales": torch.ones(2, 16, dtype=torch.float64)},
        "`0.scales` must be float16 or bfloat16 or float32 of shape [2, 16], "
        "got float64 of shape [2, 16].",
    ),
    (
        "a NaN scale",
        {"scales": torch.tensor([[1.0] * 16, [1.0] * 15 + [float("nan")]])},
        "`0.scales` must be finite, got nan at group 1, column 15.",
    ),
    (
        "a scale that overflows the module's dtype",
        {"scales": torch.full((2, 16), 1e6)},
        "`0.scales` must be finite, got inf at group 0, column 0.",
    ),
    ("a bias of another shape", {"bias": torch.zeros(3)}, "size mismatch for 0.bias"),
]


@pytest.mark.parametrize(
    ("change", "message"), [case[1:] for case in BAD_STATES], ids=[case[0] for case in BAD_STATES]
)
def test_refuses_to_load(change: dict[str, Tensor | None], message: str) -> None:
    model = nn.Sequential(Int4Linear.from_linear(nn.Linear(64, 16).half(), 32))
    a = torch.randn(2, 64).half()
    before = model(a)
    state = model.state_dict()
    for name, tensor in change.items():
        if tensor is None:
            del state["0." + name]
        else:
            state["0." + name] = tensor
    with pytest.raises(RuntimeError, match=re.escape(message)):
        model.load_state_dict(state)
    assert torch.equal(model(a), before)


# Moves and copies


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_to_dtype_changes_scales_and_bias_only(dtype: torch.dtype) -> None:
    layer = Int4Linear.from_linear(nn.Linear(64, 16), 32)
    qweight = layer.qweight
    moved = layer.to(dtype)
    assert moved is layer
    assert layer.bias is not None
    assert (layer.scales.dtype, layer.bias.dtype) == (dtype, dtype)
    assert torch.equal(layer.qweight, qweight)
    a = torch.randn(4, 64).to(dtype)
    assert_near(layer(a), reference(layer, a), dtype)


def test_half_and_bfloat16_work_on_a_model() -> None:
    model = nn.Sequential(Int4Linear.from_linear(nn.Linear(64, 16)))
    assert model.half()(torch.randn(2, 64).half()).dtype == torch.float16
    assert model.bfloat16()(torch.randn(2, 64).bfloat16()).dtype == torch.bfloat16


def test_moving_to_meta_and_back_keeps_shapes_right() -> None:
    layer = Int4Linear.from_linear(nn.Linear(100, 30), 64, symmetric=False)
    state = layer.state_dict()
    layer.to("meta")
    assert layer.qweight.shape == (16, 32)
    assert layer.state_dict()["qweight"].shape == (16, 32)
    layer.to_empty(device="cpu")
    layer.load_state_dict(state)
    assert torch.equal(layer.state_dict()["qweight"], state["qweight"])
    assert layer(torch.randn(1, 100)).shape == (1, 30)


def test_a_deep_copy_is_equal_and_apart() -> None:
    layer = Int4Linear.from_linear(nn.Linear(64, 16), symmetric=False)
    twin = copy.deepcopy(layer)
    a = torch.randn(2, 64)
    expected = layer(a)
    assert torch.equal(twin(a), expected)
    layer.scales.zero_()
    assert torch.equal(twin(a), expected)


# Gradients and autocast


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
def test_gradients_flow_to_input_and_bias(dtype: torch.dtype) -> None:
    layer = Int4Linear.from_linear(nn.Linear(100, 30).to(dtype), 32)
    twin = nn.Linear(100, 30).to(dtype)
    with torch.no_grad():
        twin.weight.copy_(layer.dequantize())
    a = torch.randn(2, 3, 100, dtype=dtype, requires_grad=True)
    b = a.detach().clone().requires_grad_()
    grad = torch.randn(2, 3, 30, dtype=dtype)
    layer(a).backward(grad)
    twin(b).backward(grad)
    assert a.grad is not None
    assert b.grad is not None
    assert layer.bias is not None
    assert layer.bias.grad is not None
    assert twin.bias.grad is not None
    assert_near(a.grad, b.grad.float(), dtype)
    assert_near(layer.bias.grad, twin.bias.grad.float(), dtype)


def test_the_weight_is_no_parameter() -> None:
    layer = Int4Linear.from_linear(nn.Linear(32, 8))
    assert [name for name, _ in layer.named_parameters()] == ["bias"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_the_dtype_that_nn_linear_gives(dtype: torch.dtype) -> None:
    linear = nn.Linear(64, 30)
    layer = Int4Linear.from_linear(linear)
    for a in (torch.randn(2, 64), torch.randn(2, 64, dtype=torch.float16)):
        with torch.autocast("cpu", dtype):
            product = layer(a)
            assert product.dtype == linear(a).dtype == dtype
        assert_near(product, reference(layer, a.to(dtype)), dtype)


def test_autocast_passes_gradients_in_the_dtype_of_the_input() -> None:
    layer = Int4Linear.from_linear(nn.Linear(64, 16))
    a = torch.randn(2, 64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        product = layer(a)
    product.sum().backward()
    assert a.grad is not None
    assert a.grad.dtype == torch.float32
    expected = layer.dequantize().sum(0).expand(2, 64)
    assert_near(a.grad, expected, torch.bfloat16)


# Plain tensors


@pytest.mark.parametrize("symmetric", [True, False])
def test_from_quantized_pads_tensors_of_any_size(symmetric: bool) -> None:
    codes = torch.randint(0, 16, (72, 11))
    scales, zeros = torch.rand(2, 11), torch.randint(0, 16, (2, 16))
    layer = Int4Linear.from_quantized(
        pack_codes(codes), scales, None if symmetric else pack_zeros(zeros), group_size=64
    )
    assert (layer.in_features, layer.out_features) == (72, 11)
    zero = torch.full((2, 11), 8) if symmetric else zeros[:, :11]
    rows = torch.arange(72) // 64
    expected = (codes - zero[rows]) * scales[rows]
    torch.testing.assert_close(layer.dequantize(), expected.t())


WORDS, SCALES = torch.zeros(8, 16, dtype=torch.int32), torch.ones(2, 16)
REFUSALS: list[tuple[str, Callable[[], object], str]] = [
    (
        "sizes that are no sizes",
        lambda: Int4Linear(0, 8),
        "`in_features` must be a positive integer, got 0.",
    ),
    (
        "an unknown group size",
        lambda: Int4Linear(8, 8, group_size=16),
        "`group_size` must be 32, 64, 128 or -1 (one group for a whole column), got 16.",
    ),
    (
        "a dtype without kernels",
        lambda: Int4Linear(8, 8, dtype=torch.float64),
        "`dtype` must be float16, bfloat16 or float32, got float64.",
    ),
    (
        "an input with other columns",
        lambda: Int4Linear(64, 8)(torch.zeros(2, 63)),
        "`input` must have 64 columns, got shape [2, 63].",
    ),
    (
        "a NaN scale",
        lambda: Int4Linear.from_quantized(WORDS, SCALES * torch.nan, group_size=32),
        "`scales` must be finite, got nan at group 0, column 0.",
    ),
    (
        "features that are not those of the tensors",
        lambda: Int4Linear.from_quantized(WORDS, SCALES, group_size=32, in_features=32),
        "`qweight` must hold 32 rows and 16 columns for 32 -> 16 features, got 64 and 16.",
    ),
    (
        "a bias of another size",
        lambda: Int4Linear.from_quantized(WORDS, SCALES, None, torch.zeros(3), group_size=32),
        "`bias` must have shape [16], got [3].",
    ),
    (
        "words of another dtype",
        lambda: Int4Linear.from_quantized(WORDS.float(), SCALES, group_size=32),
        "`qweight` must be an int32 matrix, got float32 of shape [8, 16].",
    ),
]


@pytest.mark.parametrize(
    ("call", "message"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS]
)
def test_refuses(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{re.escape(message)}$"):
        call()


def test_an_input_of_another_dtype_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgumentError, match=r"`a`: expected dtype .* got Double"):
        Int4Linear(32, 8)(torch.zeros(1, 32, dtype=torch.float64))
