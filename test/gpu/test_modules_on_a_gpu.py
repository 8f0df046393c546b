"""Layers on a real GPU: moved there and back, the original Marlin interface, torch's own checks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from operands import DEVICE, LAYER_TOLERANCE, needs_cuda, on_a_gpu, random_operands
from torch import Tensor, nn

import marlin
from marlin import classic, ops, primitives

pytestmark = on_a_gpu

TYPES = [torch.float16, torch.bfloat16]


def mean_error(got: Tensor, wanted: Tensor) -> float:
    wanted = wanted.to(got.dtype).double()
    return float((got.double() - wanted).abs().mean() / wanted.abs().mean())


def dense(layer: marlin.Int4Linear, x: Tensor) -> Tensor:
    """The product in float64, of the weight as it is defined."""
    qweight, scales, qzeros = layer.plain_qweight(), layer.plain_scales(), layer.plain_qzeros()
    padded = primitives.dequantize(qweight, scales.float(), qzeros, layer.group_size)
    weight = padded[: layer.out_features, : layer.in_features].double()
    bias = None if layer.bias is None else layer.bias.double()
    return nn.functional.linear(x.double(), weight, bias).detach()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("group_size", [32, 128, -1])
def test_a_layer_moves_there_and_back(group_size: int, symmetric: bool, dtype: torch.dtype) -> None:
    linear = nn.Linear(500, 301, dtype=dtype)
    layer = marlin.Int4Linear.from_linear(linear, group_size, symmetric)
    plain = layer.state_dict()
    layer.to(DEVICE)
    for name, tensor in layer.state_dict().items():
        assert tensor.device.type == DEVICE.type
        assert torch.equal(tensor.cpu(), plain[name])
    for m in (1, 16, 40):
        x = torch.randn(m, 500, dtype=dtype, device=DEVICE)
        assert mean_error(layer(x).detach(), dense(layer, x)) <= LAYER_TOLERANCE
    layer.to("cpu")
    for name, tensor in layer.state_dict().items():
        assert torch.equal(tensor, plain[name])


@needs_cuda
@pytest.mark.parametrize("dtype", TYPES)
def test_a_compiled_model_runs_as_a_graph(dtype: torch.dtype) -> None:
    """torch.compile allows nothing but results to outlive a call in the memory of its graphs."""
    pytest.importorskip("triton")
    model = nn.Sequential(nn.Linear(512, 1024), nn.SiLU(), nn.Linear(1024, 512)).to(DEVICE, dtype)
    marlin.quantize_(model, group_size=128)
    compiled = torch.compile(model, mode="reduce-overhead", fullgraph=True)
    with torch.no_grad():
        for m in (1, 16, 130):
            x = torch.randn(m, 512, device=DEVICE, dtype=dtype)
            wanted = model(x)
            for _ in range(5):  # warms up, captures, replays
                assert mean_error(compiled(x).clone(), wanted) <= LAYER_TOLERANCE


def test_a_model_is_quantized_where_it_is() -> None:
    model = nn.Sequential(nn.Linear(512, 1024), nn.SiLU(), nn.Linear(1024, 512))
    model.to(DEVICE, torch.float16)
    x = torch.randn(9, 512, device=DEVICE, dtype=torch.float16)
    with torch.no_grad():
        wanted = model(x)
        marlin.quantize_(model, group_size=128)
        got = model(x)
    assert all(layer.qweight.device.type == DEVICE.type for layer in model[::2])
    assert mean_error(got, wanted) < 0.3  # of rounding to 4 bits


@pytest.mark.parametrize("groupsize", [128, -1])
def test_a_layer_of_the_original_interface(groupsize: int) -> None:
    layer = classic.Layer(256, 512, groupsize).to(DEVICE)
    linear = nn.Linear(256, 512, bias=False, dtype=torch.float16, device=DEVICE)
    groups = 1 if groupsize == -1 else 256 // groupsize
    scales = torch.full((512, groups), 0.01, dtype=torch.float16, device=DEVICE)
    codes = torch.randint(-8, 8, (512, 256), device=DEVICE)
    linear.weight.data = (codes * 0.01).half()
    layer.pack(linear, scales)
    x = torch.randn(3, 5, 256, dtype=torch.float16, device=DEVICE)
    wanted = x.double() @ (codes * scales[0, 0].double()).t()
    assert mean_error(layer(x), wanted) <= LAYER_TOLERANCE


def test_mul_of_the_original_interface_writes_its_result() -> None:
    layer = classic.Layer(256, 512, 128).to(DEVICE)
    layer.B.copy_(torch.randint(-(2**31), 2**31, layer.B.shape).to(torch.int32))
    layer.s.fill_(0.01)
    a = torch.randn(16, 256, dtype=torch.float16, device=DEVICE)
    result = torch.full((16, 512), float("nan"), dtype=torch.float16, device=DEVICE)
    classic.mul(a, layer.B, result, layer.s, layer.workspace)
    assert torch.equal(result, layer(a))
    assert result.isfinite().all()


def test_the_operators_keep_their_promises_to_torch() -> None:
    case = random_operands(6, 264, 512, 64, has_zeros=True)
    perm = torch.randperm(512, device=DEVICE).to(torch.int32)
    full = replace(case, perm=perm, a=case.a.clone().requires_grad_())
    sizes = (full.size_n, full.size_k, full.group_size, 4)
    groups = (full.scales, full.qzeros)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    operators = torch.ops.marlin
    for operator, arguments in (
        (operators.gemm, (full.a, full.qweight, *groups, None, perm, *sizes, "auto", "none")),
        (operators.dequantize, (full.qweight, *groups, *sizes)),
        (operators.unpack, (full.qweight, *sizes[:2], 4)),
        (operators.repack, (ops.unpack(full.qweight, *sizes[:2]), *sizes[:2], 4)),
    ):
        torch.library.opcheck(operator.default, arguments, test_utils=checks)
