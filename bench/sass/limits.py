"""What the parts of a GPU can keep up with, from data sheets: nothing here is measured.

Three of them take their time for each KiB of weights of a warp, in cycles of its scheduler: issue
(a slot is a cycle), the ALU pipe, the tensor cores. A scheduler has as many cycles for a KiB as
memory needs to bring KiBs to all four, and the share of the bandwidth is the one over the other.
Latency allows, by Little's law, the bytes in flight over the time that they are under way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["BLOCKS_LAUNCHED", "GPUS", "Gpu", "Multiprocessor", "Needs", "Shares"]

KIB = 1024
SCHEDULERS = 4  # of a multiprocessor, compute capability 8.0 to 9.0
ALU_CYCLES = (
    2  # 16 lanes of a scheduler: 64 results a cycle and multiprocessor in the guide's table
)
PRODUCT_TERMS = 16 * 8 * 16  # multiply-adds of mma.m16n8k16
# Under load. Idle loads take 0.3 to 0.5 us; 0.7 to 1 us is what is seen near the full bandwidth.
LATENCY_NS = 1000
# gemm_plan.cpp starts at most so many blocks for each multiprocessor.
BLOCKS_LAUNCHED = 2


@dataclass(frozen=True)
class Multiprocessor:
    """Limits of an architecture: CUDA C++ Programming Guide, technical specifications.

    shared_kib: for all blocks together; each takes 1 KiB more than it asks for.
    """

    threads: int
    blocks: int
    shared_kib: int
    registers: int = 65536

    def resident_blocks(self, threads: int, registers: int, shared_bytes: int) -> int:
        """How many blocks fit, by threads, blocks, registers and shared memory."""
        of_warp = math.ceil(registers * 32 / 256) * 256
        return min(
            self.blocks,
            self.threads // threads,
            self.registers // (of_warp * (threads // 32)),
            self.shared_kib * KIB // (shared_bytes + KIB),
        )


@dataclass(frozen=True)
class Needs:
    """What a warp needs for a KiB of weights, and a multiprocessor has in flight."""

    slots: float
    alu: float
    products: float
    bytes_in_flight: int


@dataclass(frozen=True)
class Shares:
    """Of the memory bandwidth, each at most 1."""

    issue: float
    alu: float
    tensor: float
    latency: float

    @property
    def lowest(self) -> float:
        return min(self.issue, self.alu, self.tensor, self.latency)


@dataclass(frozen=True)
class Gpu:
    """A product, by its data sheet.

    clock_ghz: boost; gb_per_s: nominal bandwidth; fma: multiply-adds of float16 with float32 sums
    in a cycle of a multiprocessor, dense.
    """

    name: str
    architecture: int
    multiprocessor: Multiprocessor
    multiprocessors: int
    clock_ghz: float
    gb_per_s: float
    fma: int

    @property
    def cycles_of_kib(self) -> float:
        """That a scheduler has for each KiB, when memory delivers all it can."""
        bytes_per_cycle = self.gb_per_s / self.clock_ghz / self.multiprocessors
        return SCHEDULERS * KIB / bytes_per_cycle

    @property
    def product_cycles(self) -> float:
        return PRODUCT_TERMS / (self.fma / SCHEDULERS)

    def shares(self, needs: Needs) -> Shares:
        """Of the bandwidth, by each limit alone."""
        cycles = self.cycles_of_kib
        needed_in_flight = self.gb_per_s * LATENCY_NS / self.multiprocessors
        return Shares(
            issue=min(1.0, cycles / needs.slots),
            alu=min(1.0, cycles / (ALU_CYCLES * needs.alu)),
            tensor=min(1.0, cycles / (self.product_cycles * needs.products)),
            latency=min(1.0, needs.bytes_in_flight / needed_in_flight),
        )


GPUS = (
    # A100 80 GB SXM data sheet; A100 white paper, table 1 (312 TFLOP/s at 1.41 GHz).
    Gpu("A100", 80, Multiprocessor(2048, 32, 164), 108, 1.410, 2039, 1024),
    # A10 data sheet (125 TFLOP/s, 600 GB/s); 9216 cores at 1.695 GHz.
    Gpu("A10", 86, Multiprocessor(1536, 16, 100), 72, 1.695, 600, 512),
    # L40S data sheet (362 TFLOP/s dense, 864 GB/s); 18176 cores at 2.52 GHz.
    Gpu("L40S", 89, Multiprocessor(1536, 24, 100), 142, 2.520, 864, 512),
    # H100 SXM data sheet (989 TFLOP/s dense, 3.35 TB/s); the clock is what it holds under load.
    # The rate is wgmma's; mma.sync reaches a part of it.
    Gpu("H100", 90, Multiprocessor(2048, 32, 228), 132, 1.755, 3350, 2048),
)
