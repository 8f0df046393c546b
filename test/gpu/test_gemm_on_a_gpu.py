"""The products of test_gemm.py on a real GPU, through the operators: `npm run test:gpu`.

Needs torch, numpy, pytest, a CUDA GPU, and the library built with MARLIN_CUDA=1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from products import Product, make_product, mean_error

from marlin import ops
from marlin.codes import pack_codes, pack_zeros

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
]

TOLERANCE = 1e-4
LAYERS = [(4096, 4096), (4096, 14336), (14336, 4096), (8192, 8192)]  # k, n


@dataclass(frozen=True)
class OnDevice:
    """A product's operands as the operators take them."""

    product: Product
    a: torch.Tensor
    qweight: torch.Tensor
    scales: torch.Tensor
    qzeros: torch.Tensor | None
    bias: torch.Tensor | None

    def gemm(self) -> torch.Tensor:
        _, n, k = self.product.shape
        return ops.gemm(
            self.a,
            self.qweight,
            self.scales,
            self.qzeros,
            self.bias,
            n,
            k,
            self.product.group_size,
        )

    def error(self, result: torch.Tensor) -> float:
        bits = result.view(torch.int16).cpu().numpy().view(np.uint16)
        return mean_error(bits, self.product)


def on_device(product: Product) -> OnDevice:
    _, n, k = product.shape
    dtype = getattr(torch, product.scalar)

    def floats(bits: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(bits.view(np.int16)).view(dtype).cuda()

    plain = pack_codes(torch.from_numpy(product.codes)).cuda()
    zeros = None
    if product.zeros is not None:
        zeros = pack_zeros(torch.from_numpy(product.zeros)).cuda()
    return OnDevice(
        product,
        floats(product.a),
        ops.repack(plain, n, k),
        floats(product.scales),
        zeros,
        None if product.bias is None else floats(product.bias),
    )


@pytest.mark.parametrize("m", [*range(1, 18), 31, 33, 65, 128])
@pytest.mark.parametrize("scalar", ["float16", "bfloat16"])
def test_every_row_count(scalar: str, m: int) -> None:
    case = on_device(make_product(m, 264, 256, 128, scalar=scalar, has_bias=True))
    assert case.error(case.gemm()) <= TOLERANCE


@pytest.mark.parametrize("group_size", [-1, 32, 64, 96, 128, 256])
@pytest.mark.parametrize("scalar", ["float16", "bfloat16"])
@pytest.mark.parametrize("has_zeros", [False, True])
@pytest.mark.parametrize("m", [5, 16, 20])
def test_every_type_and_group(m: int, has_zeros: bool, scalar: str, group_size: int) -> None:
    product = make_product(m, 72, 768, group_size, scalar=scalar, has_zeros=has_zeros)
    case = on_device(product)
    assert case.error(case.gemm()) <= TOLERANCE


@pytest.mark.parametrize(("k", "n"), LAYERS)
@pytest.mark.parametrize("m", [1, 16, 64])
def test_layers_of_models(m: int, k: int, n: int) -> None:
    case = on_device(make_product(m, n, k, 128))
    assert case.error(case.gemm()) <= TOLERANCE


@pytest.mark.parametrize("activations", ["positive", "alternating", "outliers"])
@pytest.mark.parametrize("group_size", [128, -1])
def test_no_pattern_of_activations_makes_sums_drift(group_size: int, activations: str) -> None:
    case = on_device(make_product(8, 256, 4096, group_size, activations=activations))
    assert case.error(case.gemm()) <= TOLERANCE


def test_fifty_replays_give_the_same_bits() -> None:
    case = on_device(make_product(16, 4096, 4096, 128))
    first = case.gemm()
    for _ in range(50):
        assert torch.equal(case.gemm(), first)


def test_a_captured_graph_gives_the_same_bits_when_it_is_replayed() -> None:
    case = on_device(make_product(4, 4096, 4096, 128))
    wanted = case.gemm()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = case.gemm()
    for _ in range(10):
        captured.fill_(float("nan"))
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(captured, wanted)


def test_two_streams_do_not_disturb_each_other() -> None:
    cases = [on_device(make_product(8, 4096, 4096, 128, seed=seed)) for seed in (0, 1)]
    wanted = [case.gemm() for case in cases]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in cases]
    results: list[list[torch.Tensor]] = [[], []]
    for _ in range(50):
        for case, stream, kept in zip(cases, streams, results, strict=True):
            with torch.cuda.stream(stream):
                kept.append(case.gemm())
    torch.cuda.synchronize()
    for kept, one in zip(results, wanted, strict=True):
        assert all(torch.equal(result, one) for result in kept)


def test_activations_of_any_stride_and_alignment() -> None:
    product = make_product(6, 256, 512, 128)
    case = on_device(product)
    wanted = case.gemm()
    wide = torch.zeros(6, 531, dtype=case.a.dtype, device="cuda")
    wide[:, 3:515] = case.a
    strided = OnDevice(product, wide[:, 3:515], case.qweight, case.scales, case.qzeros, case.bias)
    assert torch.equal(strided.gemm(), wanted)


def test_repack_and_unpack_are_inverse() -> None:
    plain = torch.randint(-(2**31), 2**31, (512, 264), dtype=torch.int64, device="cuda")
    plain = plain.to(torch.int32)
    packed = ops.repack(plain, 264, 4096)
    assert torch.equal(ops.unpack(packed, 264, 4096), plain)
