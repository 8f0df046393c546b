"""`torch.compile(fullgraph=True)` of quantised models: no graph break, and the same numbers.

With the `aot_eager` backend: it traces the graph, the fake kernels and the autograd of the operator
like any other, and needs no C++ compiler.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from marlin import quantize_
from marlin.linear import Int4Linear


def small_model(symmetric: bool = True) -> nn.Module:
    model = nn.Sequential(nn.Linear(100, 64), nn.GELU(), nn.Linear(64, 30))
    quantize_(model, group_size=32, symmetric=symmetric)
    return model


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch.compiler.reset()


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_quantised_model_compiles_without_a_break(symmetric: bool) -> None:
    model = small_model(symmetric)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    a = torch.randn(4, 100)
    with torch.no_grad():
        torch.testing.assert_close(compiled(a), model(a))


def test_gradients_are_those_of_the_eager_model() -> None:
    model = small_model()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    grads: list[Tensor] = []
    for run in (model, compiled):
        a = torch.ones(3, 100, requires_grad=True)
        run(a).square().sum().backward()
        assert a.grad is not None
        grads.append(a.grad)
    torch.testing.assert_close(grads[1], grads[0])


def test_one_graph_serves_every_number_of_rows() -> None:
    model = small_model()
    graphs = 0

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> object:
        nonlocal graphs
        graphs += 1
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
    with torch.no_grad():
        for rows in (2, 3, 17):
            a = torch.randn(rows, 100)
            torch.testing.assert_close(compiled(a), model(a))
    assert graphs == 1


def test_autocast_is_traced() -> None:
    layer = Int4Linear.from_linear(nn.Linear(64, 16))

    def run(a: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return layer(a)  # type: ignore[no-any-return]

    a = torch.randn(2, 64)
    product = torch.compile(run, fullgraph=True, backend="aot_eager")(a)
    assert product.dtype == torch.bfloat16
    torch.testing.assert_close(product, run(a))
