"""Launches of gemm that between them meet every bound of a kernel, and what must come of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
from plan import plan_gemm
from products import Bits, Product, Scalar, make_product
from ptxsim import Options, Report
from ptxsim.survey import Trial
from simulated import Run, Simulated

__all__ = ["Kernel", "trials"]

ARCHITECTURE = 80
STEP = 32  # k is a multiple of it
TILE = 128  # rows of the weights that a block takes at a time, at most

# Lanes that ran an instruction, by its line.
Work = dict[int, int]

# Seeds that tell which instructions run more or less often by the schedule.
SEEDS = range(101, 107)


@dataclass(frozen=True)
class Kernel:
    """One of gemm.cu: what it is for.

    Args:
        rows: Numbers of rows for which the plan takes it: an odd one, one that ends in each 8 rows
            of a tile between two that a lane stores, and the largest.
        group_size: -1 is one group.
    """

    rows: tuple[int, tuple[int, ...], int]
    group_size: int
    scalar: Scalar = "float16"
    bits: int = 4
    has_zeros: bool = False

    def launches(self) -> Iterator[_Launch]:
        """The first show most of what can be wrong; each of the others is for one kind of bound."""
        odd, evens, most = self.rows
        even = evens[0]
        # Columns that several blocks share, and blocks that work on several columns.
        yield self._launch(odd, 264, 576, 4, has_bias=True)
        yield self._launch(odd, 264, 576, 4, Options(seed=2, copies_late=False), has_bias=True)
        # New columns in every stage; in every second and third one; blocks that end anywhere.
        yield self._launch(even, 2056, 128, 2)
        yield self._launch(even, 1032, 256, 2, has_bias=True)
        yield self._launch(odd, 520, 384, 7, has_bias=True)
        yield self._launch(most, 256, 960, 3, has_bias=True)
        yield self._launch(most, 1032, 384, 2)
        # Columns that many blocks share, and add up together.
        yield self._launch(most, 264, 1152, 12)
        if self.group_size != -1:  # sums that follow the scales of their columns
            yield self._launch(even, 264, 640, 4, scale_range=12)
        yield self._launch(most + 1, 264, 256, 2)
        for columns in range(8, 65, 8):
            even = evens[columns // 8 % len(evens)]
            yield self._launch(even, columns, 128, 1 + columns % 3, has_bias=columns % 16 == 0)
        for k in sorted({self._whole_groups(k) for k in range(STEP, 2 * TILE + 1, STEP)}):
            yield self._launch(odd, 328, k, 1)

    def _whole_groups(self, k: int) -> int:
        """At least k. With one group alone the plan takes the kernel for channels."""
        if self.group_size == -1:
            return k
        return self.group_size * max(-(-k // self.group_size), 2)

    def _launch(
        self,
        m: int,
        n: int,
        k: int,
        blocks: int,
        options: Options | None = None,
        *,
        has_bias: bool = False,
        scale_range: int = 0,
    ) -> _Launch:
        product = make_product(
            *(m, n, self._whole_groups(k), self.group_size),
            bits=self.bits,
            scalar=self.scalar,
            has_zeros=self.has_zeros,
            has_bias=has_bias,
            scale_range=scale_range,
        )
        return _Launch(product, blocks, options or Options(seed=m + n + k))


@cache
def trials(kernel: Kernel) -> tuple[Simulated, list[Trial]]:
    """The kernel's healthy module, and all launches for which the plan takes this kernel."""
    launches = list(kernel.launches())
    first = launches[0].healthy
    same = [one for one in launches if one.healthy.entry == first.entry]
    waiting = frozenset[int]().union(*(one.waiting_lines() for one in same[:2]))
    informed = [replace(one, waiting=waiting) for one in same]
    return first, [Trial(one.simulate, one.options) for one in informed]


@dataclass(frozen=True)
class _Outcome:
    """What a launch did that no schedule may change."""

    result: Bits
    partial: bytes  # sums that blocks hand over: float32, where errors show that rounding hides
    traffic: dict[str, tuple[int, int, int, int]]
    conflicts: int
    work: Work


@dataclass(frozen=True)
class _Launch:
    """A product on as many multiprocessors as hold so many blocks.

    `waiting` are the lines whose counts nobody compares.
    """

    product: Product
    blocks: int
    options: Options
    waiting: frozenset[int] = frozenset()

    @cached_property
    def healthy(self) -> Simulated:
        return self._simulated(None)

    @cached_property
    def wanted(self) -> _Outcome:
        """Of the healthy kernel, whose results test_gemm.py compares with the exact ones."""
        return self._outcome(self.options)

    def waiting_lines(self) -> set[int]:
        """Lines that lanes run more or less often by the schedule: blocks wait for each other."""
        lines: set[int] = set()
        for seed in SEEDS:
            other = self._outcome(replace(self.options, seed=seed)).work
            lines |= {line for line, _ in other.items() ^ self.wanted.work.items()}
        return lines

    def simulate(self, text: str, options: Options) -> tuple[Report, list[str]]:
        """The report of another text, and what is wrong: the kernel is deterministic."""
        run = self._simulated(text)
        done = run.launch(options)
        failures = []
        if not run.buffers["out"].written().all():
            failures.append("a part of the result is missing")
        if run.buffers["counters"].read(np.int32).any():
            failures.append("a counter is not zero again")
        got = _outcome(run, done)
        if not np.array_equal(got.result, self.wanted.result):
            failures.append("other bits of the result")
        if got.partial != self.wanted.partial:
            failures.append("other bits of the sums that blocks share")
        if got.traffic != self.wanted.traffic:
            failures.append("other bytes of memory are asked for")
        if got.conflicts != self.wanted.conflicts:
            failures.append("other bank conflicts")
        ignored = self.waiting | _lines_that_differ(text, self.healthy.text)
        if _without(got.work, ignored) != _without(self.wanted.work, ignored):
            failures.append("other instructions are run")
        return done.report, failures

    def _simulated(self, text: str | None) -> Simulated:
        return Simulated(
            self.product,
            multiprocessors=self._multiprocessors,
            architecture=ARCHITECTURE,
            text=text,
        )

    @cached_property
    def _multiprocessors(self) -> int:
        one = plan_gemm(
            *(*self.product.shape, self.product.group_size),
            bits=self.product.bits,
            has_zeros=self.product.zeros is not None,
            is_bfloat16=self.product.scalar == "bfloat16",
            architecture=ARCHITECTURE,
            multiprocessors=1,
        )
        return -(-self.blocks // one.blocks)

    def _outcome(self, options: Options) -> _Outcome:
        done = self.healthy.launch(options)
        done.report.raise_if_found()
        return _outcome(self.healthy, done)


def _lines_that_differ(text: str, other: str) -> set[int]:
    pairs = zip(text.split("\n"), other.split("\n"), strict=True)
    return {number for number, (a, b) in enumerate(pairs, 1) if a != b}


def _without(work: Work, lines: Set[int]) -> Work:
    return {line: count for line, count in work.items() if line not in lines}


def _outcome(simulated: Simulated, run: Run) -> _Outcome:
    partial = simulated.buffers["partial"]
    instructions = run.report.instructions
    work: Counter[int] = Counter()
    for one in instructions:
        work[one.line] += one.lanes
    return _Outcome(
        run.result,
        partial.read(np.uint8)[partial.written()].tobytes(),
        {
            name: (one.read_bytes, one.written_bytes, one.read_sectors, one.written_sectors)
            for name, one in run.report.traffic.items()
            if name != "counters"
        },
        sum(one.wavefronts - one.ideal_wavefronts for one in instructions),
        work,
    )
