"""What `Int4Linear` and `Int8Linear` share: widths, activation formats, activation order.

test_linear.py has the behaviour of a 4-bit layer in full.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from marlin import Int4Linear, Int8Linear, primitives
from marlin.errors import InvalidArgumentError, UnsupportedError
from marlin.linear import linear_class
from marlin.primitives import FLOAT_DTYPES, GROUP_SIZES
from marlin.quantized_linear import QuantizedLinear
from tests.act_order_model import random_layer

CLASSES = (Int4Linear, Int8Linear)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


# Widths


def test_each_width_has_its_class() -> None:
    assert linear_class(4) is Int4Linear
    assert linear_class(8) is Int8Linear
    with pytest.raises(UnsupportedError, match="`bits` must be 4 or 8, got 2"):
        linear_class(2)


@pytest.mark.parametrize("dtype", FLOAT_DTYPES)
@pytest.mark.parametrize("group_size", GROUP_SIZES)
@pytest.mark.parametrize(("in_features", "out_features"), [(128, 64), (100, 30), (1, 1), (300, 72)])
def test_8_bits_are_near_the_linear_that_they_come_from(
    in_features: int, out_features: int, group_size: int, dtype: torch.dtype
) -> None:
    linear = nn.Linear(in_features, out_features, dtype=dtype)
    layer = Int8Linear.from_linear(linear, group_size)
    weight = linear.weight.detach()
    # One rounding of the scale to its dtype is as large as that of a code.
    assert relative_error(layer.dequantize(), weight) < 0.008 + torch.finfo(dtype).eps
    a = torch.randn(2, 3, in_features, dtype=dtype)
    product = layer(a)
    assert (product.shape, product.dtype) == ((2, 3, out_features), dtype)
    expected = primitives.linear(
        a.float(), layer.plain_qweight(), layer.plain_scales(), None, group_size, bits=8
    )
    assert linear.bias is not None
    expected = expected[..., :out_features] + linear.bias.detach().float()
    assert relative_error(product.detach(), expected) < 1e-4 + torch.finfo(dtype).eps


def test_8_bits_take_twice_the_words() -> None:
    layer = Int8Linear(256, 128, dtype=torch.float16)
    assert layer.plain_shapes["qweight"] == (64, 128)
    assert layer.weight_bytes == 256 * 128 + 2 * 128 * 2
    assert not layer.dequantize().any()
    assert repr(layer) == (
        "Int8Linear(in_features=256, out_features=128, bias=True, group_size=128, symmetric=True)"
    )


def test_gradients_reach_the_input_of_8_bits() -> None:
    layer = Int8Linear.from_linear(nn.Linear(100, 30))
    a = torch.randn(4, 100, requires_grad=True)
    layer(a).sum().backward()
    assert a.grad is not None
    assert relative_error(a.grad, layer.dequantize().sum(0).expand(4, 100)) < 1e-5


# Activation formats


@pytest.mark.parametrize("activation", ["int16", "int8"])
@pytest.mark.parametrize("kind", CLASSES)
def test_the_activation_format_reaches_the_kernel(
    kind: type[QuantizedLinear], activation: str
) -> None:
    linear = nn.Linear(256, 64, bias=False)
    layer = kind.from_linear(linear, activation=activation)
    a = torch.randn(5, 256)
    expected = primitives.linear(
        a,
        layer.plain_qweight(),
        layer.plain_scales(),
        None,
        128,
        bits=kind.bits,
        activation=activation,
    )
    assert relative_error(layer(a), expected) < 2e-6
    layer.activation = "int16" if activation == "int8" else "int8"
    assert relative_error(layer(a), expected) > 1e-3


@pytest.mark.parametrize("kind", CLASSES)
def test_the_activation_format_shows_and_is_not_saved(kind: type[QuantizedLinear]) -> None:
    layer = kind(64, 16, activation="int8")
    assert layer.extra_repr().endswith("symmetric=True, activation='int8'")
    other = kind(64, 16)
    assert "activation" not in repr(other)
    assert other.state_dict().keys() == layer.state_dict().keys()
    other.load_state_dict(layer.state_dict())
    assert other.activation == "auto"
    words = torch.zeros(*layer.plain_shapes["qweight"], dtype=torch.int32)
    made = kind.from_quantized(words, torch.ones(1, 16), activation="int16")
    assert made.activation == "int16"


def test_a_refused_activation_leaves_the_one_there_was() -> None:
    layer = Int4Linear(64, 16, activation="int8")
    with pytest.raises(InvalidArgumentError, match="got 'float8'"):
        layer.activation = "float8"
    assert layer.activation == "int8"


# Activation order


@pytest.mark.parametrize("zeros", [False, True], ids=["symmetric", "zeros"])
@pytest.mark.parametrize(
    ("size_k", "size_n", "group_size"), [(128, 16, 32), (256, 72, 128), (200, 12, 64), (40, 8, 32)]
)
def test_a_layer_multiplies_by_the_weight_in_the_order_of_the_model(
    size_k: int, size_n: int, group_size: int, zeros: bool
) -> None:
    plain = random_layer(size_k, size_n, group_size, zeros=zeros)
    layer = Int4Linear.from_quantized(*plain[:3], group_size=group_size, g_idx=plain.g_idx)
    assert (layer.in_features, layer.out_features) == (size_k, size_n)
    assert torch.equal(layer.dequantize(), plain.weight)
    a = torch.randn(6, size_k)
    assert relative_error(layer(a), a @ plain.weight.t()) < 1e-4
    rows = size_k // 8
    assert torch.equal(layer.plain_qweight()[:rows, :size_n], plain.qweight)


def test_8_bits_have_an_order_too() -> None:
    plain = random_layer(bits=8)
    layer = Int8Linear.from_quantized(*plain[:3], group_size=32, g_idx=plain.g_idx)
    assert torch.equal(layer.dequantize(), plain.weight)
    a = torch.randn(6, 128)
    assert relative_error(layer(a), a @ plain.weight.t()) < 1e-4


def test_gradients_come_back_in_the_order_of_the_model() -> None:
    plain = random_layer()
    layer = Int4Linear.from_quantized(*plain[:3], group_size=32, g_idx=plain.g_idx)
    a = torch.randn(3, 128, requires_grad=True)
    grad = torch.randn(3, 16)
    (got,) = torch.autograd.grad(layer(a), a, grad)
    torch.testing.assert_close(got, grad @ plain.weight, rtol=1e-4, atol=1e-4)


def test_the_order_shows_and_weighs() -> None:
    plain = random_layer()
    layer = Int4Linear.from_quantized(*plain[:3], group_size=32, g_idx=plain.g_idx)
    assert layer.extra_repr().endswith("symmetric=True, act_order=True")
    bare = Int4Linear.from_quantized(*plain[:3], group_size=32)
    assert layer.weight_bytes == bare.weight_bytes + 2 * 4 * 128


@pytest.mark.parametrize("group_size", [32, -1])
def test_groups_that_are_neighbours_need_no_order(group_size: int) -> None:
    plain = random_layer()
    scales = plain.scales if group_size == 32 else plain.scales[:1]
    g_idx = torch.arange(128, dtype=torch.int32) // (32 if group_size == 32 else 128)
    layer = Int4Linear.from_quantized(plain.qweight, scales, group_size=group_size, g_idx=g_idx)
    assert layer.g_idx is None
    assert layer.perm is None
    assert "g_idx" not in layer.state_dict()


def test_a_layer_with_order_compiles_without_a_break() -> None:
    torch.compiler.reset()
    plain = random_layer()
    layer = Int4Linear.from_quantized(
        *plain[:3], group_size=32, g_idx=plain.g_idx, activation="int8"
    )
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    a = torch.randn(4, 128)
    with torch.no_grad():
        assert torch.equal(compiled(a), layer(a))


WORDS, SCALES = torch.zeros(8, 16, dtype=torch.int32), torch.ones(2, 16)
G_IDX = torch.arange(64, dtype=torch.int32) % 2
REFUSALS: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    (
        "zero points with 8 bits",
        lambda: Int8Linear(64, 16, symmetric=False),
        UnsupportedError,
        "`symmetric` must be true with 8 bits, got False.",
    ),
    (
        "rounding to 8 bits with zero points",
        lambda: Int8Linear.from_linear(nn.Linear(64, 16), symmetric=False),
        UnsupportedError,
        "`symmetric` must be true with 8 bits, got False.",
    ),
    (
        "qzeros with 8 bits",
        lambda: Int8Linear.from_quantized(
            torch.zeros(16, 16).int(), SCALES, torch.zeros(2, 2).int(), group_size=32
        ),
        UnsupportedError,
        "`qzeros` must be None with codes of 8 bits, which are symmetric.",
    ),
    (
        "an activation that is misspelt",
        lambda: Int4Linear(64, 16, activation="int 8"),
        InvalidArgumentError,
        "`activation` must be one of auto, int16, bfloat16, int8, got 'int 8'.",
    ),
    (
        "bfloat16 activations with 8 bits",
        lambda: Int8Linear.from_linear(nn.Linear(64, 16), activation="bfloat16"),
        UnsupportedError,
        "`activation` must be auto, int16 or int8 for weights of 8 bits, got 'bfloat16'.",
    ),
    (
        "a g_idx of another length",
        lambda: Int4Linear.from_quantized(
            WORDS, SCALES, group_size=32, g_idx=torch.zeros(65, dtype=torch.int32)
        ),
        InvalidArgumentError,
        "`g_idx` must be int32 of shape [64], got int32 of shape [65].",
    ),
    (
        "a g_idx of another dtype",
        lambda: Int4Linear.from_quantized(WORDS, SCALES, group_size=32, g_idx=G_IDX.long()),
        InvalidArgumentError,
        "`g_idx` must be int32 of shape [64], got int64 of shape [64].",
    ),
    (
        "a group out of range",
        lambda: Int4Linear.from_quantized(WORDS, SCALES, group_size=32, g_idx=G_IDX + 1),
        InvalidArgumentError,
        "`g_idx` must hold groups in 0..1, got 2 at row 1.",
    ),
    (
        "uneven groups",
        lambda: Int4Linear.from_quantized(WORDS, SCALES, group_size=32, g_idx=G_IDX * 0),
        InvalidArgumentError,
        "`g_idx` must put 32 rows in each group, got 64 in group 0.",
    ),
]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [case[1:] for case in REFUSALS],
    ids=[case[0] for case in REFUSALS],
)
def test_refuses(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
