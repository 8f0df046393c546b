"""The ways to multiply by a 4-bit weight that are compared: ours, and torch's. ORT: peer_ort.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from bench.cells import Measured
from bench.peaks import last_level_cache
from bench.shapes import LinearShape
from torch import Tensor

from marlin import ops
from marlin.errors import MarlinError

__all__ = ["DEFAULT_NAMES", "NAMES", "Absent", "Implementation", "Weight", "make"]

# The copies of one weight, all together: each has left the cache when it is used again.
COLD_BYTES = max(256 << 20, 4 * last_level_cache())

# Against the same weight in float32: rounding of 16-bit activations, or of activations to int8.
TOLERANCE, INT8_TOLERANCE = 1e-2, 3e-2
CHECKED_ROWS = (3, 70)  # decoding and prefill may be different code


class Absent(Exception):
    """An implementation cannot run here; the message says why."""


@dataclass(frozen=True)
class Weight:
    """The weight (code - 8) * scale in every form that an implementation may ask for.

    codes: (k, n) int32 in 0..15; scales: (k / group_size, n) bfloat16.
    """

    shape: LinearShape
    group_size: int
    codes: Tensor
    scales: Tensor

    @classmethod
    def random(cls, shape: LinearShape, group_size: int) -> Weight:
        """A weight as other weights are, different at each call."""
        codes = torch.randint(0, 16, (shape.k, shape.n), dtype=torch.int32)
        scales = (0.01 + 0.01 * torch.rand(shape.k // group_size, shape.n)).bfloat16()
        return cls(shape, group_size, codes, scales)

    def dense(self) -> Tensor:
        """(n, k) bfloat16."""
        scales = self.scales.float().repeat_interleave(self.group_size, dim=0)  # (k, n)
        return ((self.codes - 8) * scales).T.bfloat16().contiguous()

    @cached_property
    def checks(self) -> list[tuple[Tensor, Tensor]]:
        """Activations (m, k) bfloat16 and their product in float32, for few and for many rows."""
        dense = self.dense().float()
        rows = [torch.randn(m, self.shape.k).bfloat16() for m in CHECKED_ROWS]
        return [(a, a.float() @ dense.T) for a in rows]

    def plain(self) -> Tensor:
        """The codes in the plain layout of docs/architecture.md: (k / 8, n) int32."""
        eighths = self.codes.reshape(-1, 8, self.shape.n).long()
        shifts = torch.arange(0, 32, 4).reshape(1, 8, 1)
        return (eighths << shifts).sum(dim=1).to(torch.int32)  # wraps around, as it should


@dataclass(frozen=True)
class Implementation:
    """One way to multiply, with as many copies of the same weight as leave the cache.

    prepare: turns activations (m, k) bfloat16 into a case of `timing.interleave`, which multiplies
        them by the copy of its index and returns what `to_tensor` makes (m, n) of.
    """

    measured: Measured
    prepare: Callable[[Tensor], Callable[[int], Any]]
    tolerance: float = TOLERANCE
    to_tensor: Callable[[Any], Tensor] = torch.as_tensor

    def result(self, a: Tensor) -> Tensor:
        """a (m, k) bfloat16 by the first copy: (m, n)."""
        return self.to_tensor(self.prepare(a)(0))


def number_of_copies(size: int) -> int:
    """How many weights of `size` bytes leave the cache between two uses; two at least."""
    return max(2, -(-COLD_BYTES // size))


def _ours(
    name: str,
    weight: Weight,
    *,
    dtype: torch.dtype,
    dot_kind: str,
    tolerance: float = TOLERANCE,
    **options: str,
) -> Implementation:
    """options: of `ops.gemm`, which may not know them yet."""
    gemm: Callable[..., Tensor] = ops.gemm
    k, n = weight.shape.k, weight.shape.n
    plain = weight.plain()
    size = k * n // 2 + weight.scales.nbytes
    # Each copy comes from `repack`, which asks the system for huge pages; a clone would not.
    copies = [
        (ops.repack(plain, n, k), ops.pack_groups(weight.scales.to(dtype), n))
        for _ in range(number_of_copies(size))
    ]

    def prepare(a: Tensor) -> Callable[[int], Tensor]:
        rows = a.to(dtype)

        def call(index: int) -> Tensor:
            packed, scales = copies[index % len(copies)]
            return gemm(rows, packed, scales, None, None, n, k, weight.group_size, **options)

        return call

    return Implementation(Measured(name, size, dot_kind, is_ours=True), prepare, tolerance)


def _marlin(weight: Weight) -> Implementation:
    # Kernels without bfloat16 dot products multiply 16-bit integers.
    dot_kind = "bfloat16" if "bf16" in ops.kernel_info().kernel else "int16"
    return _ours("marlin", weight, dtype=torch.bfloat16, dot_kind=dot_kind)


def _marlin_fp16(weight: Weight) -> Implementation:
    return _ours("marlin-fp16", weight, dtype=torch.float16, dot_kind="int16")


def _marlin_int16(weight: Weight) -> Implementation:
    return _ours("marlin-int16", weight, dtype=torch.bfloat16, dot_kind="int16", activation="int16")


def _marlin_int8(weight: Weight) -> Implementation:
    return _ours(
        "marlin-int8",
        weight,
        dtype=torch.bfloat16,
        dot_kind="int8",
        tolerance=INT8_TOLERANCE,
        activation="int8",
    )


def _torch_bf16(weight: Weight) -> Implementation:
    dense = weight.dense()
    copies = [dense.clone() for _ in range(number_of_copies(dense.nbytes))]

    def prepare(a: Tensor) -> Callable[[int], Tensor]:
        return lambda index: torch.nn.functional.linear(a, copies[index % len(copies)])

    return Implementation(Measured("torch-bf16", dense.nbytes, "bfloat16", is_ours=False), prepare)


def _torch_int4(weight: Weight) -> Implementation:
    convert = torch.ops.aten._convert_weight_to_int4pack_for_cpu
    multiply = torch.ops.aten._weight_int4pack_mm_for_cpu
    packed = convert(weight.codes.T.contiguous(), 2)
    # The operator's zero is the value of code 8.
    scales = torch.stack((weight.scales, torch.zeros_like(weight.scales)), dim=-1)  # (groups, n, 2)
    size = packed.nbytes + scales.nbytes
    copies = [(packed.clone(), scales.clone()) for _ in range(number_of_copies(size))]

    def prepare(a: Tensor) -> Callable[[int], Tensor]:
        def call(index: int) -> Tensor:
            held, scale_and_zero = copies[index % len(copies)]
            result: Tensor = multiply(a, held, weight.group_size, scale_and_zero)
            return result

        return call

    return Implementation(Measured("torch-int4", size, "float32", is_ours=False), prepare)


def _ort_int8(weight: Weight) -> Implementation:
    from bench import peer_ort

    return peer_ort.make(weight)


_MAKERS = {
    "marlin": _marlin,
    "marlin-fp16": _marlin_fp16,
    "marlin-int16": _marlin_int16,
    "marlin-int8": _marlin_int8,
    "torch-bf16": _torch_bf16,
    "torch-int4": _torch_int4,
    "ort-int8": _ort_int8,
}
NAMES = tuple(_MAKERS)
DEFAULT_NAMES = tuple(name for name in NAMES if name != "marlin-int16")


def make(name: str, weight: Weight) -> Implementation:
    """The implementation of one of NAMES, checked against the weight in float32.

    Raises Absent where it cannot run, SystemExit where its result is wrong.
    """
    try:
        made = _MAKERS[name](weight)
        for a, expected in weight.checks:
            _check(made, weight, a, expected)
    # TypeError: an option of a newer `gemm`; RuntimeError: torch and ORT on another CPU.
    except (ImportError, RuntimeError, TypeError, MarlinError) as error:
        raise Absent(str(error).splitlines()[0]) from error
    return made


def _check(made: Implementation, weight: Weight, a: Tensor, expected: Tensor) -> None:
    error = ((made.result(a).float() - expected).norm() / expected.norm()).item()
    if not error < made.tolerance:
        raise SystemExit(
            f"{made.measured.name} is wrong by {error:.1e} for {weight.shape}, "
            f"group {weight.group_size}, m {a.shape[0]}"
        )
