"""Operands of the operators on a device, with the exact result: what the tests of a real GPU share.

MARLIN_GPU_TESTS_ON=cpu makes them on the CPU, whose operators take the same arguments: that tries
the tests where there is no GPU. Needs torch, numpy and pytest.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from plan import plan_gemm, tolerance
from products import Bits, Product
from torch import Tensor

from marlin import ops
from marlin.codes import pack_codes, pack_zeros, symmetric_zero

__all__ = [
    "DEVICE",
    "IS_CUDA",
    "LAYER_TOLERANCE",
    "MIB",
    "Operands",
    "free_pieces",
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

# Mean error over mean magnitude, against the exact result rounded as the result is: of the CPU,
# which rounds float16 activations to integers, and of a layer, which has sums of any length.
CPU_TOLERANCE = LAYER_TOLERANCE = 1e-3

EXACT_COLUMNS = 4096  # of a large weight that are float64 at a time
MIB = 1 << 20
POISONED = (*[MIB] * 32, *[64 * MIB] * 4)  # at least so much memory, in pieces of both kinds

worst_errors: dict[str, float] = {}  # by dtype, of all results that were right


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
    bits: int = 4

    @property
    def tolerance(self) -> float:
        """Of the error, by what the plan says of the kernel."""
        if not IS_CUDA:
            return CPU_TOLERANCE
        return tolerance(
            plan_gemm(
                *(self.a.shape[:-1].numel(), self.size_n, self.size_k, self.group_size),
                bits=self.bits,
                has_zeros=self.qzeros is not None,
                is_bfloat16=self.a.dtype == torch.bfloat16,
                architecture=80,
                multiprocessors=1,
            )
        )

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
            bits=self.bits,
        )

    def error(self, result: Tensor) -> float:
        """The mean error over the mean magnitude, or NaN; computed where the result is."""
        wanted = self.exact.to(result.device).to(result.dtype).double()
        return float((result.double() - wanted).abs().mean() / wanted.abs().mean())

    def check(self, result: Tensor | None = None, tolerance: float | None = None) -> None:
        """Fails unless the result, of `gemm` by default, is the product."""
        error = self.error(self.gemm() if result is None else result)
        limit = self.tolerance if tolerance is None else tolerance
        assert error <= limit, f"mean error {error:.2e}, expected at most {limit:.0e}"
        name = str(self.a.dtype).removeprefix("torch.")
        worst_errors[name] = max(error, worst_errors.get(name, 0.0))

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
        qweight=ops.repack(pack_codes(codes, product.bits), n, k, product.bits),
        scales=floats(product.scales),
        qzeros=None if zeros is None else pack_zeros(zeros),
        bias=None if product.bias is None else floats(product.bias),
        size_n=n,
        size_k=k,
        group_size=product.group_size,
        exact=torch.from_numpy(product.exact).to(device),
        bits=product.bits,
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

    Of the current stream. On a GPU it fails if that does not come true; on the CPU it does nothing.
    """
    if not IS_CUDA:
        return
    torch.cuda.empty_cache()
    enough = [torch.empty(size, dtype=torch.uint8, device=DEVICE) for size in POISONED]
    del enough
    _fill_free_memory()
    for size in (1 << 10, 1 << 18, 8 * MIB, 48 * MIB):
        values = torch.empty(size // 4, device=DEVICE)
        assert values.isnan().all(), f"{size} bytes are not poisoned"
        del values
    _fill_free_memory()  # once more: the looking has used some


def free_pieces(segments: Sequence[Mapping[str, Any]], device: int, stream: int) -> list[int]:
    """The allocations that take all free memory of a stream, in bytes, the largest first.

    segments: of `torch.cuda.memory_snapshot`. Requests of up to 1 MiB are served from `small`
    segments alone, and larger ones from the others; memory of a graph is its own.
    """
    pieces = []
    for segment in segments:
        pool = tuple(segment.get("segment_pool_id", (0, 0)))
        if (segment["device"], segment["stream"], pool) != (device, stream, (0, 0)):
            continue
        for block in segment["blocks"]:
            size = block["size"]
            if block["state"] != "inactive":
                continue
            if segment["segment_type"] == "small":
                pieces += [MIB] * (size // MIB) + [size % MIB] * (size % MIB > 0)
            elif size > MIB:
                pieces.append(size)
    return sorted(pieces, reverse=True)


def _fill_free_memory() -> None:
    stream = torch.cuda.current_stream()
    segments = torch.cuda.memory_snapshot()
    pieces = free_pieces(segments, stream.device_index, stream.cuda_stream)
    held = [torch.full((size // 4,), float("nan"), device=DEVICE) for size in pieces]
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
