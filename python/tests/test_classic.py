"""The original Marlin interface: numbers, layouts, conversions that are kept, and refusals."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import marlin
from marlin import classic
from marlin.errors import InvalidArgumentError, UnsupportedError
from marlin.layouts import marlin_scales_to_plain, marlin_to_plain
from marlin.primitives import dequantize

K, N = 256, 512
SHAPES = [(128, 256, -1), (128, 256, 128), (K, N, -1), (K, N, 128)]


def packed_layer(infeatures: int, outfeatures: int, groupsize: int) -> classic.Layer:
    linear = nn.Linear(infeatures, outfeatures, bias=False).half()
    layer = marlin.Layer(infeatures, outfeatures, groupsize)
    rows = layer.groupsize
    largest = linear.weight.detach().view(outfeatures, -1, rows).abs().amax(-1)
    layer.pack(linear, largest / 7)
    return layer


def weight_of(layer: classic.Layer) -> Tensor:
    """The weight (n, k) by the published layout and the numeric definition."""
    scales = marlin_scales_to_plain(layer.s).float()
    group_size = -1 if len(scales) == 1 else 128
    return dequantize(marlin_to_plain(layer.B), scales, None, group_size)


def assert_near(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    error = float((actual.float() - expected.float()).norm() / expected.float().norm())
    assert error < 1e-3, f"relative error {error:.2e}"


@pytest.mark.parametrize(("infeatures", "outfeatures", "groupsize"), SHAPES)
def test_a_packed_layer_multiplies_by_the_rounded_weight(
    infeatures: int, outfeatures: int, groupsize: int
) -> None:
    linear = nn.Linear(infeatures, outfeatures, bias=False).half()
    layer = marlin.Layer(infeatures, outfeatures, groupsize)
    weight = linear.weight.detach().float().view(outfeatures, -1, layer.groupsize)
    scales = (weight.abs().amax(-1) / 7).half()  # (n, groups)
    layer.pack(linear, scales)
    steps = (weight / scales.float().unsqueeze(-1)).round().clamp(-8, 7)
    rounded = (steps * scales.float().unsqueeze(-1)).view(outfeatures, infeatures)
    assert torch.equal(weight_of(layer), rounded)
    a = torch.randn(2, 3, infeatures).half()
    product = layer(a)
    assert product.dtype == torch.float16
    assert_near(product, a.float() @ rounded.t())


def test_mul_writes_into_its_output() -> None:
    layer = packed_layer(K, N, 128)
    a, c = torch.randn(5, K).half(), torch.full((5, N), 7.0).half()
    result = marlin.mul(a, layer.B, c, layer.s, layer.workspace, 64, 256, 108, 16)  # type: ignore[func-returns-value]
    assert result is None
    assert_near(c, a.float() @ weight_of(layer).t())


def test_buffers_have_the_published_names_and_shapes() -> None:
    layer = marlin.Layer(K, N, 128)
    shapes = {name: (tuple(b.shape), b.dtype) for name, b in layer.named_buffers()}
    assert shapes == {
        "B": ((16, 1024), torch.int32),
        "s": ((2, 512), torch.float16),
        "workspace": ((64,), torch.int32),
    }
    assert set(layer.state_dict()) == {"B", "s"}
    assert repr(layer) == "Layer(infeatures=256, outfeatures=512, groupsize=128)"


def test_a_state_dict_comes_back() -> None:
    layer, other = packed_layer(K, N, 128), marlin.Layer(K, N, 128)
    a = torch.randn(2, K).half()
    assert other(a).abs().max() < 1e-6
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(a), layer(a))


def test_a_conversion_is_made_once() -> None:
    layer = packed_layer(K, N, -1)
    a = torch.randn(1, K).half()
    layer(a)
    first = classic._converted[id(layer.B)]
    layer(a)
    assert classic._converted[id(layer.B)] is first


@pytest.mark.parametrize("name", ["B", "s"])
def test_a_change_in_place_is_seen(name: str) -> None:
    layer = packed_layer(K, N, 128)
    a = torch.randn(1, K).half()
    before = layer(a)
    getattr(layer, name).copy_(getattr(layer, name).flip(0))
    after = layer(a)
    assert not torch.equal(after, before)
    assert_near(after, a.float() @ weight_of(layer).t())


def test_other_memory_is_seen() -> None:
    layer, other = packed_layer(K, N, 128), packed_layer(K, N, 128)
    a = torch.randn(1, K).half()
    layer(a)
    layer.B.data = other.B.data
    layer.s.data = other.s.data
    assert torch.equal(layer(a), other(a))


def test_conversions_die_with_their_tensors() -> None:
    layer = packed_layer(K, N, 128)
    layer(torch.randn(1, K).half())
    key = id(layer.B)
    assert key in classic._converted
    del layer
    gc.collect()
    assert key not in classic._converted


def test_inference_tensors_work_without_being_kept() -> None:
    with torch.inference_mode():
        layer = packed_layer(K, N, 128)
        a = torch.randn(1, K).half()
        assert_near(layer(a), a.float() @ weight_of(layer).t())
    assert id(layer.B) not in classic._converted


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(128, 256, bias=False)
        self.inner = nn.Sequential(nn.Linear(256, 256, bias=False), nn.ReLU())
        self.head = nn.Linear(256, 10)


def test_replace_linear_swaps_what_the_filter_takes() -> None:
    net = Net()
    seen: list[str] = []

    def name_filter(name: str) -> bool:
        seen.append(name)
        return "head" not in name

    marlin.replace_linear(net, name_filter, groupsize=128, name="net")
    assert sorted(seen) == ["net.head", "net.inner.0", "net.up"]
    assert isinstance(net.up, classic.Layer)
    assert isinstance(net.inner[0], classic.Layer)
    assert net.inner[0].groupsize == 128
    assert isinstance(net.head, nn.Linear)


def test_replace_linear_keeps_shared_linears_shared() -> None:
    linear = nn.Linear(128, 256, bias=False)
    net = nn.ModuleDict({"a": linear, "b": nn.Sequential(linear)})
    marlin.replace_linear(net)
    assert isinstance(net["a"], classic.Layer)
    assert net["a"] is net.get_submodule("b.0")


@pytest.mark.parametrize(
    ("name_filter", "message"),
    [
        (lambda _: True, "must leave out Linears with a bias, which a Layer does not add, got"),
        (lambda n: n != "head", "Linear `odd`: `outfeatures` must be a multiple of 256, got 100."),
    ],
)
def test_replace_linear_replaces_all_or_nothing(
    name_filter: Callable[[str], bool], message: str
) -> None:
    net = Net()
    net.odd = nn.Linear(128, 100, bias=False)
    with pytest.raises(InvalidArgumentError, match=re.escape(message)):
        marlin.replace_linear(net, name_filter)
    assert not any(isinstance(module, classic.Layer) for module in net.modules())


def half(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float16)


def words(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int32)


def call(
    A: Tensor | None = None,
    B: Tensor | None = None,
    C: Tensor | None = None,
    s: Tensor | None = None,
    workspace: Tensor | None = None,
    thread: tuple[int, int] = (-1, -1),
    max_par: int = 16,
) -> None:
    marlin.mul(
        half(2, K) if A is None else A,
        words(K // 16, 2 * N) if B is None else B,
        half(2, N) if C is None else C,
        half(1, N) if s is None else s,
        words(N // 128 * 16) if workspace is None else workspace,
        thread_k=thread[0],
        thread_n=thread[1],
        max_par=max_par,
    )


REFUSALS: list[tuple[Callable[[], object], str]] = [
    (lambda: call(A=half(2, K).float()), "`A` must be a float16 matrix, got float32 of shape"),
    (lambda: call(A=half(1, 2, K)), "`A` must be a float16 matrix, got float16 of shape [1, 2, "),
    (
        lambda: call(A=half(2, 200)),
        "`A` and `C` must have columns in multiples of 128 and 128, or of 64 and 256, got 200 and",
    ),
    (lambda: call(A=half(2, 64), C=half(2, 384)), "`A` and `C` must have columns in multiples of"),
    (lambda: call(A=half(2, 0)), "`A` and `C` must have columns in multiples of"),
    (
        lambda: call(C=half(2, 384), thread=(64, 256)),
        "`A` and `C` must have columns in multiples of 64 and 256, got 256 and 384.",
    ),
    (lambda: call(C=half(3, N)), "`C` must have 2 rows, got 3."),
    (
        lambda: call(A=half(2, 192), B=words(12, 1024), s=half(2, N)),
        "`s` must have 512 columns and 1 row, got shape [2, 512].",
    ),
    (lambda: call(C=half(2, N).to("meta")), "`C` must be on the device of `A`, cpu, got meta."),
    (lambda: call(B=words(16, 512)), "`B` must be int32 of shape [16, 1024], got int32 of"),
    (lambda: call(B=words(16, 1024).long()), "`B` must be int32 of shape [16, 1024], got int64"),
    (lambda: call(s=half(4, N)), "`s` must have 512 columns and 1 row, or 2 for groups of 128"),
    (lambda: call(s=half(1, N) * torch.inf), "`scales` must be finite, got nan at group 0"),
    (lambda: call(workspace=words(63)), "`workspace` must have at least 64 items, got 63."),
    (lambda: call(max_par=0), "`max_par` must be at least 1, got 0."),
    (lambda: marlin.Layer(K, N, 64), "`groupsize` must be -1 or 128, got 64."),
    (lambda: marlin.Layer(100, N), "`infeatures` must be a multiple of 128, got 100."),
    (lambda: marlin.Layer(K, 128), "`outfeatures` must be a multiple of 256, got 128."),
]


@pytest.mark.parametrize(("action", "message"), REFUSALS)
def test_refuses(action: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{re.escape(message)}"):
        action()


def test_unknown_thread_shapes_are_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="`thread_k` and `thread_n` must be"):
        call(thread=(256, 256))


def linear(dtype: torch.dtype = torch.float16, bias: bool = False, n: int = N) -> nn.Linear:
    return nn.Linear(K, n, bias=bias, dtype=dtype)


def nan_linear() -> nn.Linear:
    bad = linear()
    with torch.no_grad():
        bad.weight[3, 4] = torch.nan
    return bad


def test_a_bias_is_left_out_with_a_warning() -> None:
    module, layer = linear(bias=True), marlin.Layer(K, N)
    with pytest.warns(UserWarning, match="a bias, which a Layer does not add"):
        layer.pack(module, torch.ones(N, 1))
    assert not layer(half(1, K)).any()


@pytest.mark.parametrize(
    ("module", "scales", "message"),
    [
        (linear(torch.float32), torch.ones(N, 2), "must have a float16 weight, got float32."),
        (linear(n=256), torch.ones(N, 2), "must have a weight of shape [512, 256], got [256, 256]"),
        (nan_linear(), torch.ones(N, 2), "must have a finite weight"),
        (linear(), torch.ones(2, N), "`scales` must have shape [512, 2], one column per group"),
        (linear(), torch.ones(N, 2) * torch.nan, "`scales` must be finite, got nan"),
        (linear(), torch.ones(N, 2) * 1e-9, "`scales` must not be zero in float16"),
    ],
)
def test_pack_refuses(module: nn.Linear, scales: Tensor, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape(message)):
        marlin.Layer(K, N, 128).pack(module, scales)
