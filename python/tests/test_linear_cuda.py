"""Quantised layers on every device: moves, state dicts, gradients, compile, fused models.

What holds on a GPU as on the CPU; `npm run test:gpu` runs the half of it that needs one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marlin import Int4Linear, fuse_, ops, quantize_
from tests.act_order_model import random_layer
from tests.devices import CUDA, DEVICES

BFLOAT16 = 6e-3  # relative Frobenius error of a product of bfloat16, and of its rounded result


def relative_error(actual: Tensor, expected: Tensor) -> float:
    difference = actual.detach().cpu().double() - expected.detach().cpu().double()
    return float(difference.norm() / expected.detach().cpu().double().norm())


def act_order_layer(zeros: bool = True, bias: bool = True) -> Int4Linear:
    """128 rows in another order, of which the last 28 have no feature; 72 columns."""
    qweight, scales, qzeros, g_idx, _ = random_layer(128, 72, zeros=zeros)
    return Int4Linear.from_quantized(
        qweight,
        scales,
        qzeros,
        torch.randn(72) if bias else None,
        group_size=32,
        in_features=100,
        g_idx=g_idx,
    )


def plain_layer(symmetric: bool = True) -> Int4Linear:
    return Int4Linear.from_linear(nn.Linear(100, 30), 64, symmetric)


LAYERS: dict[str, Callable[[], Int4Linear]] = {
    "symmetric": plain_layer,
    "zeros": lambda: plain_layer(False),
    "act-order": act_order_layer,
    "symmetric act-order": lambda: act_order_layer(zeros=False, bias=False),
}


def assert_same_state(one: nn.Module, other: nn.Module) -> None:
    state, wanted = one.state_dict(), other.state_dict()
    assert list(state) == list(wanted)
    for name, tensor in state.items():
        assert torch.equal(tensor.cpu(), wanted[name].cpu()), name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_goes_and_comes_back_with_every_bit(name: str, device: str) -> None:
    layer = LAYERS[name]()
    before = copy.deepcopy(layer)
    a = torch.randn(3, 100)
    wanted = layer(a)
    moved = layer.to(device)
    assert moved is layer
    for tensor in (*layer.buffers(), *layer.parameters()):
        assert tensor.device.type == device
    assert_same_state(layer, before)
    assert torch.equal(layer.dequantize().cpu(), before.dequantize())
    assert relative_error(layer(a.to(device)), wanted) < BFLOAT16
    layer.cpu()
    for (tensor_name, tensor), (_, old) in zip(
        layer.named_buffers(), before.named_buffers(), strict=True
    ):
        assert torch.equal(tensor, old), tensor_name
    assert torch.equal(layer(a), wanted)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("source", DEVICES)
@pytest.mark.parametrize("name", LAYERS)
def test_a_state_dict_comes_to_its_device(
    name: str, source: str, assign: bool, device: str
) -> None:
    layer = LAYERS[name]()
    state = {key: tensor.to(source) for key, tensor in layer.state_dict().items()}
    fresh = Int4Linear(
        100,
        layer.out_features,
        layer.bias is not None,
        group_size=layer.group_size,
        symmetric=layer.symmetric,
        device=device,
    )
    fresh.load_state_dict(state, strict=layer.g_idx is None, assign=assign)
    assert fresh.qweight.device.type == (source if assign else device)
    assert_same_state(fresh, layer)
    a = torch.randn(3, 100)
    got = fresh(a.to(fresh.qweight.device))
    assert relative_error(got, layer(a)) < BFLOAT16


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_is_quantised_and_converted_where_it_is(dtype: torch.dtype, device: str) -> None:
    model = nn.Sequential(nn.Linear(128, 96), nn.GELU(), nn.Linear(96, 40)).to(device)
    here = copy.deepcopy(model).cpu()
    quantize_(model, group_size=32)
    quantize_(here, group_size=32)
    a = torch.randn(5, 128).to(dtype)
    result = model.to(dtype)(a.to(device))
    assert (result.dtype, result.device.type) == (dtype, device)
    # The search among scales may choose another one where sums have another order.
    assert relative_error(result, here.to(dtype)(a)) < 3e-2


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_the_dequantized_layer(
    name: str, dtype: torch.dtype, device: str
) -> None:
    layer = LAYERS[name]().to(device, dtype)
    weight = layer.dequantize().double()
    a = torch.randn(2, 3, 100).to(device, dtype).requires_grad_()
    result = layer(a)
    grad = torch.randn(result.shape).to(device, dtype)
    result.backward(grad)
    limit = 4 * torch.finfo(dtype).eps
    assert a.grad is not None
    assert relative_error(a.grad, grad.double() @ weight) < limit
    if layer.bias is not None:
        assert layer.bias.grad is not None
        assert relative_error(layer.bias.grad, grad.double().sum((0, 1))) < limit


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_gives_what_nn_linear_gives(dtype: torch.dtype, device: str) -> None:
    layer = plain_layer().to(device)
    linear = nn.Linear(100, 30).to(device)
    linear.load_state_dict({"weight": layer.dequantize(), "bias": layer.state_dict()["bias"]})
    a = torch.randn(4, 100, device=device, requires_grad=True)
    with torch.autocast(device, dtype):
        result, wanted = layer(a), linear(a)
    assert result.dtype == wanted.dtype == dtype
    assert relative_error(result, wanted) < 2 * BFLOAT16
    result.sum().backward()
    assert a.grad is not None
    assert a.grad.dtype == torch.float32


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_model_compiles_without_a_break(dynamic: bool, device: str) -> None:
    torch.compiler.reset()
    model = nn.Sequential(act_order_layer(), nn.GELU(), Int4Linear.from_linear(nn.Linear(72, 24)))
    model = model.to(device)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for rows in (2, 5):
        a = torch.randn(rows, 100, device=device)
        with torch.no_grad():
            torch.testing.assert_close(compiled(a), model(a))
        grads = []
        for run in (model, compiled):
            b = a.clone().requires_grad_()
            run(b).square().sum().backward()
            grads.append(b.grad)
        torch.testing.assert_close(*grads)


# Inductor itself uses what torch has deprecated, and has advice.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("device", [CUDA])
def test_inductor_gives_what_eager_gives(device: str) -> None:
    torch.compiler.reset()
    model = nn.Sequential(plain_layer(), nn.ReLU()).to(device, torch.float16)
    compiled = torch.compile(model, fullgraph=True)
    a = torch.randn(4, 100, device=device, dtype=torch.float16)
    with torch.no_grad():
        torch.testing.assert_close(compiled(a), model(a))


class Block(nn.Module):
    """Projections that can be fused, as models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.mlp = Mlp()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.attention(x)
        return self.mlp(torch.cat([q, k, v], -1))  # type: ignore[no-any-return]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(128, 128)
        self.k_proj = nn.Linear(128, 64, bias=False)
        self.v_proj = nn.Linear(128, 64, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(256, 192, bias=False)
        self.up_proj = nn.Linear(256, 192, bias=False)
        self.down_proj = nn.Linear(192, 128, bias=False)
        self.act_fn = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_fused_model_gives_what_it_gave(
    dtype: torch.dtype, symmetric: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Block().to(dtype)
    quantize_(model, group_size=32, symmetric=symmetric)
    model = model.to(device)
    plain = copy.deepcopy(model)
    assert [group.name for group in fuse_(model).fused] == ["attention", "mlp"]
    assert_same_state(model, plain)
    calls: list[str] = []
    gemm = ops.gemm

    def counted(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        calls.append(kwargs.get("epilogue", "none"))
        return gemm(*args, **kwargs)

    monkeypatch.setattr(ops, "gemm", counted)
    for shape in ((1, 128), (2, 5, 128)):
        x = torch.randn(*shape).to(device, dtype)
        calls.clear()
        with torch.no_grad():
            got = model(x)
        assert calls == ["none", "silu_mul", "none"]
        with torch.autocast(device, torch.bfloat16), torch.no_grad():
            calls.clear()
            model(x)
            assert len(calls) == 6
        assert relative_error(got, plain(x)) < 2 * BFLOAT16


@pytest.mark.parametrize("device", DEVICES)
def test_a_fused_model_moves_fused(device: str) -> None:
    model = Block()
    quantize_(model, group_size=32)
    plain = copy.deepcopy(model)
    fuse_(model)
    for place in (device, "cpu", device):
        model.to(place)
        assert_same_state(model, plain)
        attention: Any = model.attention
        assert attention._joint.whole is not None
        assert attention._joint.whole.qweight.device.type == place
        x = torch.randn(2, 128)
        with torch.no_grad():
            assert relative_error(model(x.to(place)), plain(x)) < 2 * BFLOAT16
