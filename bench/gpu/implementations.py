"""The ways to multiply on a GPU that are compared: ours, torch's dense products, its int4 operator.

Each goes round copies of one weight. On the CPU the same names mean the operators there, so that a
run without a GPU takes the same road.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from bench.gpu.limits import Traffic, dense_traffic, number_of_copies, packed_traffic
from bench.gpu.weight import GpuWeight, mean_error
from torch import Tensor
from torch.nn import functional

from marlin import ops
from marlin.errors import MarlinError

__all__ = ["DENSE", "NAMES", "OURS", "Absent", "GpuImplementation", "WrongResultError", "make"]

# Of the result against the float32 product of the same weight: mean error over mean magnitude. Ours
# is off by the rounding of the result, 1.5e-4 in float16 and 1.2e-3 in bfloat16. Others also round
# weights, and sums.
OUR_TOLERANCES = {torch.float16: 1e-3, torch.bfloat16: 4e-3}
PEER_TOLERANCES = {torch.float16: 4e-3, torch.bfloat16: 2e-2}

SCALE_BYTES = 2
TORCH_GROUP_BYTES = 4  # a scale and a zero point, bfloat16 each
INNER_K_TILES = 8  # of torch's packing: what it multiplies fastest, 16 bytes a load

Multiply = Callable[[Tensor, int], Tensor]


class Absent(Exception):
    """An implementation cannot run here, or not this shape; the message says why."""


class WrongResultError(Exception):
    """A result is not the product: it gets no time."""


@dataclass(frozen=True)
class GpuImplementation:
    """One way to multiply.

    dtype: of activations and result.
    multiply: activations (m, k) by the copy of a number, which counts on past the last copy.
    traffic: of a product with m rows.
    """

    name: str
    dtype: torch.dtype
    tolerance: float
    copies: int
    multiply: Multiply
    traffic: Callable[[int], Traffic]

    @property
    def is_ours(self) -> bool:
        return self.name in OURS

    def error(self, weight: GpuWeight, a: Tensor) -> float:
        """The mean error of the product of a (m, k) with the first and the last copy.

        Raises WrongResultError above the tolerance, Absent where it does not run; an error of the
        device, after which nothing runs, as it is.
        """
        wanted = weight.product(a)
        errors = []
        for copy in (0, self.copies - 1):
            try:
                got = self.multiply(a, copy)
            except torch.AcceleratorError:
                raise
            except (RuntimeError, MarlinError) as error:
                raise Absent(_first_line(error)) from error
            errors.append(mean_error(got, wanted))
        worst = max(errors)
        if not all(error <= self.tolerance for error in errors):  # NaN is not
            raise WrongResultError(
                f"{self.name} is wrong by {worst:.1e} for {weight.shape}, "
                f"group {weight.group_size}, m {a.shape[0]}: at most {self.tolerance:.0e} is right"
            )
        return worst


def make(name: str, weight: GpuWeight, cache_bytes: int) -> GpuImplementation:
    """The implementation of one of NAMES.

    cache_bytes: of the cache that the copies must outgrow. Raises Absent; an error of the device as
    it is.
    """
    make_one, dtype = _MAKERS[name]
    try:
        return make_one(name, weight, dtype, cache_bytes)
    except torch.AcceleratorError:
        raise
    except (RuntimeError, MarlinError) as error:
        raise Absent(_first_line(error)) from error


def _ours(name: str, weight: GpuWeight, dtype: torch.dtype, cache_bytes: int) -> GpuImplementation:
    shape, group_size = weight.shape, weight.group_size
    packed = ops.repack(weight.plain(), shape.n, shape.k)
    scales = ops.groups_of_device(weight.scales.to(dtype), shape.n)
    count = number_of_copies(packed.nbytes + scales.nbytes, cache_bytes)
    copies = [(packed.clone(), scales.clone()) for _ in range(count)]

    def multiply(a: Tensor, number: int) -> Tensor:
        codes, groups = copies[number % count]
        return ops.gemm(a, codes, groups, None, None, shape.n, shape.k, group_size)

    def traffic(m: int) -> Traffic:
        return packed_traffic(shape, m, group_size, SCALE_BYTES)

    return GpuImplementation(name, dtype, OUR_TOLERANCES[dtype], count, multiply, traffic)


def _dense(name: str, weight: GpuWeight, dtype: torch.dtype, cache_bytes: int) -> GpuImplementation:
    shape = weight.shape
    dense = weight.exact.to(dtype)
    count = number_of_copies(dense.nbytes, cache_bytes)
    copies = [dense.clone() for _ in range(count)]

    def multiply(a: Tensor, number: int) -> Tensor:
        return functional.linear(a, copies[number % count])

    def traffic(m: int) -> Traffic:
        return dense_traffic(shape, m)

    return GpuImplementation(name, dtype, PEER_TOLERANCES[dtype], count, multiply, traffic)


def _torch_int4(
    name: str, weight: GpuWeight, dtype: torch.dtype, cache_bytes: int
) -> GpuImplementation:
    shape, group_size = weight.shape, weight.group_size
    aten = torch.ops.aten
    of_output = weight.codes.T.contiguous()  # (n, k)
    if of_output.is_cuda:
        pairs = (of_output[:, ::2] << 4) | of_output[:, 1::2]  # (n, k // 2)
        packed = aten._convert_weight_to_int4pack(pairs.contiguous(), INNER_K_TILES)
        operator = aten._weight_int4pack_mm
    else:
        packed = aten._convert_weight_to_int4pack_for_cpu(of_output.int(), INNER_K_TILES)
        operator = aten._weight_int4pack_mm_for_cpu
    # The operator's zero is the value of code 8.
    groups = torch.stack((weight.scales, torch.zeros_like(weight.scales)), dim=-1)  # (groups, n, 2)
    count = number_of_copies(packed.nbytes + groups.nbytes, cache_bytes)
    copies = [(packed.clone(), groups.clone()) for _ in range(count)]
    rows_of_group = shape.k if group_size == -1 else group_size

    def multiply(a: Tensor, number: int) -> Tensor:
        codes, scales_and_zeros = copies[number % count]
        result: Tensor = operator(a, codes, rows_of_group, scales_and_zeros)
        return result

    def traffic(m: int) -> Traffic:
        return packed_traffic(shape, m, group_size, TORCH_GROUP_BYTES)

    return GpuImplementation(name, dtype, PEER_TOLERANCES[dtype], count, multiply, traffic)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


_Make = Callable[[str, GpuWeight, torch.dtype, int], GpuImplementation]

_MAKERS: dict[str, tuple[_Make, torch.dtype]] = {
    "marlin-fp16": (_ours, torch.float16),
    "marlin-bf16": (_ours, torch.bfloat16),
    "torch-fp16": (_dense, torch.float16),
    "torch-bf16": (_dense, torch.bfloat16),
    "torch-int4": (_torch_int4, torch.bfloat16),
}
NAMES = tuple(_MAKERS)
OURS = ("marlin-fp16", "marlin-bf16")
DENSE = ("torch-fp16", "torch-bf16")
