"""Operands of the operators on a device, with the exact result: what the tests of a real GPU share.

MARLIN_GPU_TESTS_ON=cpu makes them on the CPU, whose operators take the same arguments: that tries
the tests where there is no GPU. Needs torch, numpy and pytest.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from products import Bits, Product
from torch import Tensor

from marlin import ops
from marlin.codes import pack_codes, pack_zeros, symmetric_zero

__all__ = [
    "DEVICE",
    "IS_CUDA",
    "LAYER_TOLERANCE",
    "TOLERANCE",
    "Operands",
    "needs_cuda",
    "on_a_gpu",
    "operands_of",
    "poison",
    "random_operands",
    "worst_errors",
]

DEVICE = torch.device(os.environ.get("MARLIN_GPU_TESTS_ON", "cuda"))
IS_CUDA = DEVICE.type == "cuda"

# Of every file of such tests.
on_a_gpu = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        IS_CUDA and not torch.cuda.is_available(), reason="there is no CUDA GPU for torch"
    ),
]
# Of tests of what the CPU does not have: streams, graphs, other devices.
needs_cuda = pytest.mark.skipif(not IS_CUDA, reason="only a GPU has this")

# Mean error over mean magnitude, against the exact result rounded as the result is. The CPU rounds
# float16 activations to integers, and a layer has sums of any length.
TOLERANCE = 1e-4 if IS_CUDA else 1e-3
LAYER_TOLERANCE = 1e-3

EXACT_COLUMNS = 4096  # of a large weight that are float64 at a time
_MIB = 1 << 20

worst_errors: dict[str, float] = {}  # by dtype, of all results that were checked


@dataclass(frozen=True)
class Operands:
    """What `ops.gemm` takes, and the exact result.

    exact: (m, n) float64.
    """

    a: Tensor
    qweight: Tensor
    scales: Tensor
    qzeros: Tensor | None
    bias: Tensor | None
    size_n: int
    size_k: int
    group_size: int
    exact: Tensor
    perm: Tensor | None = None

    def gemm(self) -> Tensor:
        return ops.gemm(
            self.a,
            self.qweight,
            self.scales,
            self.qzeros,
            self.bias,
            self.size_n,
            self.size_k,
            self.group_size,
            perm=self.perm,
        )

    def error(self, result: Tensor) -> float:
        """The mean error over the mean magnitude; NaN if anything is."""
        wanted = self.exact.to(result.dtype).double()
        return float((result.double() - wanted).abs().mean() / wanted.abs().mean())

    def check(self, result: Tensor | None = None, tolerance: float = TOLERANCE) -> None:
        """Fails unless the result, of `gemm` by default, is the product."""
        error = self.error(self.gemm() if result is None else result)
        name = str(self.a.dtype).removeprefix("torch.")
        worst_errors[name] = max(error, worst_errors.get(name, 0.0))
        assert error <= tolerance, f"mean error {error:.2e}"

    def rows(self, begin: int, end: int) -> Operands:
        """The same weight with some of the rows."""
        return replace(self, a=self.a[begin:end], exact=self.exact[begin:end])


def operands_of(product: Product, device: torch.device = DEVICE) -> Operands:
    """The operands of a product that the simulator's tests take, too."""
    _, n, k = product.shape
    dtype = getattr(torch, product.scalar)

    def floats(bits: Bits) -> Tensor:
        return torch.from_numpy(bits.view(np.int16)).view(dtype).to(device)

    codes = torch.from_numpy(product.codes).to(device)
    zeros = None if product.zeros is None else torch.from_numpy(product.zeros).to(device)
    return Operands(
        a=floats(product.a),
        qweight=ops.repack(pack_codes(codes), n, k),
        scales=floats(product.scales),
        qzeros=None if zeros is None else pack_zeros(zeros),
        bias=None if product.bias is None else floats(product.bias),
        size_n=n,
        size_k=k,
        group_size=product.group_size,
        exact=torch.from_numpy(product.exact).to(device),
    )


def random_operands(
    m: int,
    n: int,
    k: int,
    group_size: int,
    dtype: torch.dtype = torch.float16,
    *,
    has_zeros: bool = False,
    seed: int = 0,
) -> Operands:
    """A product of the size of a layer, made on the device; a `group_size` of -1 is one group."""
    generator = torch.Generator(DEVICE).manual_seed(seed)
    rows = k if group_size == -1 else group_size

    def codes_of(count: int) -> Tensor:
        shape = (count, n)
        return torch.randint(0, 16, shape, dtype=torch.uint8, device=DEVICE, generator=generator)

    a = torch.randn(m, k, device=DEVICE, generator=generator).to(dtype)
    scales = (0.01 + 0.01 * torch.rand(k // rows, n, device=DEVICE, generator=generator)).to(dtype)
    codes = codes_of(k)
    zeros = codes_of(k // rows) if has_zeros else None
    return Operands(
        a=a,
        qweight=ops.repack(pack_codes(codes), n, k),
        scales=scales,
        qzeros=None if zeros is None else pack_zeros(zeros),
        bias=None,
        size_n=n,
        size_k=k,
        group_size=group_size,
        exact=_exact(a, codes, scales, zeros, rows),
    )


def poison() -> None:
    """Fills the free memory that torch keeps with NaN: what an operator allocates next holds NaN.

    On a GPU it fails if that does not come true; on the CPU it does nothing.
    """
    if not IS_CUDA:
        return
    torch.cuda.empty_cache()
    _fill_free_memory()
    for count in (256, 65536, 2 * _MIB, 12 * _MIB):
        assert torch.empty(count, device=DEVICE).isnan().all(), f"{count} floats are not poisoned"
    _fill_free_memory()  # once more: the looking has used some


def _fill_free_memory() -> None:
    # Up to 1 MiB is cut from pieces of 2 MiB, more from pieces of its own.
    sizes = [_MIB] * 32 + [64 * _MIB] * 4
    held = [torch.full((size // 4,), float("nan"), device=DEVICE) for size in sizes]
    torch.cuda.synchronize()
    del held


def _exact(a: Tensor, codes: Tensor, scales: Tensor, zeros: Tensor | None, rows: int) -> Tensor:
    """(m, n) float64, some columns at a time."""
    k, n = codes.shape
    exact = torch.empty(a.shape[0], n, dtype=torch.float64, device=a.device)
    for begin in range(0, n, EXACT_COLUMNS):
        columns = slice(begin, begin + EXACT_COLUMNS)
        grouped = codes[:, columns].double().view(k // rows, rows, -1)
        zero = symmetric_zero(4) if zeros is None else zeros[:, columns].unsqueeze(1)
        weights = (grouped - zero) * scales[:, columns].double().unsqueeze(1)
        exact[:, columns] = a.double() @ weights.view(k, -1)
    return exact
