"""The operators on every device: dtypes, gated products, gradients, opcheck, compile.

What holds on a GPU as on the CPU; `npm run test:gpu` runs the half of it that needs one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from marlin import ops, primitives
from tests.devices import CUDA, DEVICES, no_waiting

HALVES = (torch.float16, torch.bfloat16)
DTYPES = (*HALVES, torch.float32)
# Relative Frobenius errors: of sums before they are rounded, and of a product of bfloat16.
SUMS = 1e-4
BFLOAT16 = 5e-3


class Linear(NamedTuple):
    """A random 4-bit Linear on a device; `perm` puts its rows into another order."""

    plain: Tensor
    packed: Tensor
    scales: Tensor
    qzeros: Tensor | None
    perm: Tensor | None
    size_n: int
    size_k: int
    group_size: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.size_n, self.size_k, self.group_size

    @property
    def weight(self) -> Tensor:
        """(N, K) float64, with the columns of the activations."""
        weight = primitives.dequantize(
            self.plain, self.scales.float(), self.qzeros, self.group_size, perm=self.perm
        )
        return weight.double()

    def gemm(self, a: Tensor, bias: Tensor | None = None, **options: Any) -> Tensor:  # noqa: ANN401
        weights = (self.packed, self.scales, self.qzeros)
        return ops.gemm(a, *weights, bias, *self.sizes, perm=self.perm, **options)


def make_linear(
    device: str,
    size_n: int = 136,
    size_k: int = 256,
    group_size: int = 64,
    *,
    has_zeros: bool = False,
    has_perm: bool = False,
    dtype: torch.dtype = torch.float16,
) -> Linear:
    groups = 1 if group_size == -1 else size_k // group_size
    plain = primitives.pack_codes(torch.randint(0, 16, (size_k, size_n))).to(device)
    zeros = primitives.pack_zeros(torch.randint(0, 16, (groups, size_n))).to(device)
    return Linear(
        plain,
        ops.repack(plain, size_n, size_k),
        (0.001 + 0.02 * torch.rand(groups, size_n)).to(device, dtype),
        zeros if has_zeros else None,
        torch.randperm(size_k).to(device, torch.int32) if has_perm else None,
        size_n,
        size_k,
        group_size,
    )


def randn(device: str, *shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape).to(device, dtype)


def assert_close(actual: Tensor, exact: Tensor, tolerance: float) -> None:
    assert actual.shape == exact.shape
    error = float((actual.double() - exact).norm() / exact.norm())
    assert error <= tolerance, f"relative error {error:.2e}"


def tolerance(device: str, *dtypes: torch.dtype | None) -> float:
    """Of a product whose result has the first dtype."""
    if device == "cuda" and {*dtypes} - {None} != {torch.float16}:
        return BFLOAT16
    assert dtypes[0] is not None
    return SUMS + torch.finfo(dtypes[0]).eps / 2


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bias_dtype", [*DTYPES, None], ids=str)
@pytest.mark.parametrize("scale_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operands_may_have_any_dtypes(
    dtype: torch.dtype, scale_dtype: torch.dtype, bias_dtype: torch.dtype | None, device: str
) -> None:
    linear = make_linear(device, has_zeros=True, has_perm=True, dtype=scale_dtype)
    bias = None if bias_dtype is None else randn(device, 136, dtype=bias_dtype)
    for shape in ((250,), (3, 256), (2, 9, 250)):
        a = randn(device, *shape, dtype=dtype)
        result = linear.gemm(a, bias)
        exact = functional.pad(a.double(), (0, 256 - shape[-1])) @ linear.weight.T
        exact = exact if bias is None else exact + bias.double()
        assert result.dtype == dtype
        assert_close(result, exact, tolerance(device, dtype, scale_dtype, bias_dtype))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("dtype", "scale_dtype", "size", "scale"),
    [
        # Activations that float16 does not hold; on CUDA they may go to 2^28.
        (torch.float32, torch.float16, 1e7, 1.0),
        (torch.float32, torch.float32, 1e7, 1.0),
        (torch.bfloat16, torch.float16, 1e7, 1.0),
        # Scales that it does not hold.
        (torch.float16, torch.bfloat16, 1e-5, 1e7),
        (torch.float16, torch.float32, 1e-5, 1e7),
        (torch.float32, torch.float32, 1.0, 1e30),
    ],
    ids=str,
)
def test_no_number_becomes_infinite_on_the_way(
    dtype: torch.dtype, scale_dtype: torch.dtype, size: float, scale: float, device: str
) -> None:
    linear = make_linear(device, dtype=scale_dtype)
    linear = linear._replace(scales=linear.scales * scale)
    a = (size * torch.randn(5, 256)).to(device, dtype)
    limit = torch.finfo(torch.float16).max
    assert max(float(a.abs().max()), float(linear.scales.max())) > limit
    result = linear.gemm(a)
    assert bool(result.isfinite().all())
    assert_close(result, a.double() @ linear.weight.T, BFLOAT16)


@pytest.mark.parametrize("device", [CUDA])
def test_bfloat16_may_be_asked_for(device: str) -> None:
    linear = make_linear(device)
    a = randn(device, 4, 256, dtype=torch.float16)
    rounded = linear._replace(scales=linear.scales.bfloat16()).gemm(a.bfloat16())
    assert torch.equal(linear.gemm(a, activation="bfloat16"), rounded.half())
    assert not torch.equal(linear.gemm(a), rounded.half())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("scale_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_gated_product_is_that_of_the_formula(
    dtype: torch.dtype, scale_dtype: torch.dtype, has_bias: bool, device: str
) -> None:
    linear = make_linear(device, 384, has_perm=True, dtype=scale_dtype)
    bias = randn(device, 384, dtype=dtype) if has_bias else None
    for rows in ((1,), (3,), (2, 40), (0,), (2, 0)):
        a = randn(device, *rows, 256, dtype=dtype)
        result = linear.gemm(a, bias, epilogue="silu_mul")
        exact = a.double() @ linear.weight.T
        gate, other = (exact if bias is None else exact + bias.double()).chunk(2, -1)
        assert (result.shape, result.dtype) == ((*rows, 192), dtype)
        if result.numel():
            limit = 2 * tolerance(device, dtype, scale_dtype)
            assert_close(result, functional.silu(gate) * other, limit)


@pytest.mark.parametrize("device", DEVICES)
def test_a_gate_without_bounds_opens_and_closes(device: str) -> None:
    linear = make_linear(device, 128)
    a = torch.zeros(1, 256, dtype=torch.float16, device=device)
    bias = torch.ones(128, dtype=torch.float16, device=device)
    bias[:3] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    bias[64] = 2
    result = linear.gemm(a, bias, epilogue="silu_mul")[0]
    assert result[0] == torch.inf
    assert result[1] == 0
    assert result[2].isnan()
    assert bool((result[3:] == functional.silu(torch.ones(())).half().to(device)).all())


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("epilogue", ["none", "silu_mul"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_call_waits_for_nothing_and_can_be_captured(
    dtype: torch.dtype, epilogue: str, device: str
) -> None:
    linear = make_linear(device, 384, has_zeros=True, has_perm=True)
    a = randn(device, 3, 250, dtype=dtype)
    bias = randn(device, 384, dtype=torch.float32)
    with no_waiting():
        wanted = linear.gemm(a, bias, epilogue=epilogue)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = linear.gemm(a, bias, epilogue=epilogue)
    for _ in range(3):
        captured.fill_(torch.nan)
        graph.replay()
        assert torch.equal(captured, wanted)


def opcheck_samples(device: str) -> Iterator[tuple[str, tuple[object, ...]]]:
    linear = make_linear(device, 72, 64, 32, has_zeros=True, has_perm=True)
    weights = (linear.packed, linear.scales, linear.qzeros)
    for dtype in DTYPES:
        a = randn(device, 2, 3, 60, dtype=dtype).requires_grad_()
        bias = randn(device, 72, dtype=dtype).requires_grad_()
        tail = (72, 64, 32, 4, "auto", "none")
        yield "gemm", (a, *weights, bias, linear.perm, *tail)
        yield "gemm", (a.detach(), linear.packed, linear.scales, None, None, None, *tail)
    gated = make_linear(device, 128, 64, 32)
    tail = (128, 64, 32, 4, "auto", "silu_mul")
    for a in (torch.randn(64, 4).t(), torch.randn(0, 64)):
        yield "gemm", (a.to(device), gated.packed, gated.scales, None, None, None, *tail)
    yield "repack", (linear.plain, 72, 64, 4)
    yield "unpack", (linear.packed, 72, 64, 4)
    yield "join", ([linear.packed, linear.packed],)
    yield "dequantize", (*weights, 72, 64, 32, 4)
    yield "dequantize", (linear.packed, linear.scales.float(), None, 72, 64, 32, 4)


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device: str) -> None:
    for name, arguments in opcheck_samples(device):
        torch.library.opcheck(getattr(torch.ops.marlin, name).default, arguments)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("columns", [256, 250])
@pytest.mark.parametrize("has_perm", [False, True], ids=["in-order", "act-order"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_are_those_of_the_weight(
    dtype: torch.dtype, has_perm: bool, columns: int, device: str
) -> None:
    linear = make_linear(device, has_zeros=True, has_perm=has_perm)
    a = randn(device, 2, 3, columns, dtype=dtype).requires_grad_()
    bias = randn(device, 136, dtype=dtype).requires_grad_()
    grad = randn(device, 2, 3, 136, dtype=dtype)
    grad_a, grad_bias = torch.autograd.grad(linear.gemm(a, bias), (a, bias), grad)
    # The weight is rounded to the dtype, and the sum is that of a Linear.
    limit = 4 * torch.finfo(dtype).eps
    assert (grad_a.dtype, grad_bias.dtype) == (dtype, dtype)
    assert_close(grad_a, grad.double() @ linear.weight[:, :columns], limit)
    assert_close(grad_bias, grad.double().sum((0, 1)), limit)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size_n", [8, 64, 72, 200])
def test_layouts_are_inverse_and_dequantize_is_exact(size_n: int, device: str) -> None:
    for dtype in DTYPES:
        linear = make_linear(device, size_n, 96, 32, has_zeros=True, dtype=dtype)
        weights = (linear.scales, linear.qzeros)
        assert torch.equal(ops.unpack(linear.packed, size_n, 96), linear.plain)
        got = ops.dequantize(linear.packed, *weights, *linear.sizes)
        assert torch.equal(got, primitives.dequantize(linear.plain, *weights, 32))
    joined = ops.join([linear.packed, linear.packed[:0], linear.packed])
    assert torch.equal(joined, torch.cat([linear.packed, linear.packed]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("epilogue", ["none", "silu_mul"])
def test_compile_keeps_one_graph_and_every_bit(epilogue: str, device: str) -> None:
    torch.compiler.reset()
    linear = make_linear(device, 128, has_perm=True)

    def run(a: Tensor) -> Tensor:
        return linear.gemm(a, epilogue=epilogue)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager", dynamic=True)
    for m in (2, 5):
        a = randn(device, m, 256, dtype=torch.float16)
        assert torch.equal(compiled(a), run(a))
