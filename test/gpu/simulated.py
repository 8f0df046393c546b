"""Runs the PTX of gemm.cu by its plan, on the simulator of test/ptx."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from buildtools.cuda import opening_defines
from kernels import CUDA, compile_ptx
from packed_layout import pack
from plan import Plan, plan_gemm
from products import Bits, Product
from ptxsim import Options, Report, Simulator, counted_as

__all__ = ["Run", "Simulated"]

# GemmArguments in csrc/cuda/gemm.h.
_ARGUMENTS = struct.Struct("<8Qq4iI5i")
_TYPES = {"float16": "6__half", "bfloat16": "13__nv_bfloat16"}
_POISON = 0xFF  # makes NaN of every format


@dataclass(frozen=True)
class Run:
    """What one launch gave."""

    result: Bits
    report: Report
    plan: Plan


class Simulated:
    """A product on the simulator, which can be launched again and again on one workspace.

    Args:
        product: Operands and exact result.
        multiprocessors: Of the GPU that is played.
        architecture: Of the PTX, and of its tensor cores: 80, 86, 89 or 90.
        poisons: Result and partial sums begin as NaN that count as written; else as bytes that
            nobody has written, so that reading them is a finding.
        text: In the place of the module with the kernel: one that was changed.
    """

    def __init__(
        self,
        product: Product,
        *,
        multiprocessors: int = 3,
        architecture: int = 80,
        poisons: bool = False,
        text: str | None = None,
    ) -> None:
        m, n, k = product.shape
        self.product = product
        self.architecture = architecture
        self.plan = plan_gemm(
            *(m, n, k, product.group_size),
            bits=product.bits,
            has_zeros=product.zeros is not None,
            is_bfloat16=product.scalar == "bfloat16",
            architecture=architecture,
            multiprocessors=multiprocessors,
        )
        self.entry, self.text = _module(
            f"sm_{architecture}",
            f"{_TYPES[product.scalar]}Li{product.bits}ELi{self.plan.rows}"
            f"ELi{self.plan.group_rows}ELb{int(product.zeros is not None)}E",
        )
        self.simulator = Simulator(text or self.text)
        self._make_buffers(poisons)

    def _make_buffers(self, poisons: bool) -> None:
        make, product, plan = self.simulator.buffer, self.product, self.plan
        m, n, k = product.shape

        def workspace(name: str, size: int) -> int:
            values = np.full(size, _POISON, np.uint8)
            self.buffers[name] = make(name, values) if poisons else make(name, size=size)
            return self.buffers[name].address

        def operand(name: str, values: npt.NDArray[np.generic] | None) -> int:
            return 0 if values is None else make(name, values, read_only=True).address

        self.buffers = {"counters": make("counters", np.zeros(plan.counter_count, np.int32))}
        pointers = (
            operand("a", product.a),
            operand("weights", pack(product.codes, product.bits)),
            operand("scales", product.scales),
            operand("zeros", None if product.zeros is None else _pack_zeros(product.zeros)),
            operand("bias", product.bias),
            workspace("out", 2 * m * n),
            workspace("partial", plan.partial_bytes),
            self.buffers["counters"].address,
        )
        tiles = plan.tiles_k * plan.tiles_n * plan.tiles_m
        self._arguments = _ARGUMENTS.pack(
            *pointers,
            *(k, m, n, k, k // product.group_size, -(-(1 << 32) // (product.group_size // 16))),
            *(plan.tiles_k, plan.tiles_m, tiles, plan.tiles_of_block),
            (plan.blocks - 1) * plan.tiles_of_block,
        )

    def launch(self, options: Options | None = None) -> Run:
        """Runs the kernel once, on the workspace as the last run has left it."""
        with counted_as("gemm"):
            report = self.simulator.launch(
                self.entry,
                self.plan.blocks,
                self.plan.threads,
                [self._arguments],
                shared_bytes=self.plan.shared_bytes,
                options=options,
            )
        m, n, _ = self.product.shape
        return Run(self.buffers["out"].read(np.uint16, (m, n)), report, self.plan)


@cache
def _module(architecture: str, part: str) -> tuple[str, str]:
    """The kernel whose name holds `part`, and a module with it alone: the whole takes a while."""
    text = _text(architecture)
    end = text.index(".visible .entry")
    head = text[:end]
    for kernel in text[end:].split(".visible .entry ")[1:]:
        name = kernel[: kernel.index("(")]
        if part in name:
            return name, f"{head}.visible .entry {kernel}"
    raise AssertionError(f"gemm.cu has no kernel with {part} in its name.")


@cache
def _text(architecture: str) -> str:
    return compile_ptx(CUDA / "gemm.cu", architecture, opening_defines(os.environ))


def _pack_zeros(zeros: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    words = np.zeros((zeros.shape[0], zeros.shape[1] // 8), np.uint32)
    for i in range(8):
        words |= zeros[:, i::8].astype(np.uint32) << np.uint32(4 * i)
    return words
