"""The simulator notices errors that are put into kernels which are right.

An error in synchronisation that nobody notices is either in an instruction that protects nothing,
and then it is listed here with the reason, or a gap in the simulator's checks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from corpus_cases import Case, family, find_case, simulate
from handovers import HANDOVERS
from ptxsim import Options
from ptxsim.mutants import SYNCHRONISATION, Mutant, mutants
from ptxsim.survey import Survey, Trial, survey

# Races are found whatever the schedule is; wrong results may depend on when copies arrive.
OPTIONS = (Options(), Options(seed=2, copies_late=False))

# Kind, and the number among the mutants of that kind in the order of the text.
_Place = tuple[str, int]

_FIRST_GROUP = "the copies join the second group, and whoever waits for the first waits for it, too"
_PROLOGUE = "stands before copies into buffers that nobody has read yet"
_ADDS_ONLY = (
    "the sums are all that is handed over, and nobody reads them before the end of the grid"
)
_LANES_MEET = (
    "the lanes have only read, and the shuffle or reduction behind it waits for all of them"
)
_OWN_BYTES = "threads read and write bytes that no other thread touches on either side"
_ELSEWHERE = "what is stored behind it lies elsewhere than what was read before it"
_BETWEEN_BARRIERS = "bar.sync orders the accesses already"


@dataclass(frozen=True)
class Target:
    """A kernel, the mutants that may survive, and how many of all of them must not."""

    name: str
    redundant: dict[_Place, str] = field(default_factory=dict)
    share_caught: float = 1.0
    kinds: frozenset[str] | None = None


TARGETS = [
    Target(
        "triton_matmul_f16_4_stages",
        {
            ("commit dropped", 0): _FIRST_GROUP,
            ("barrier dropped", 0): _PROLOGUE,
            ("barrier dropped", 1): _PROLOGUE,
        },
        share_caught=0.85,
    ),
    Target("triton_matmul_s8", share_caught=0.7, kinds=frozenset({"prmt selector"})),
    Target(
        "triton_split_k_matmul",
        {
            ("commit dropped", 0): _FIRST_GROUP,
            ("barrier dropped", 0): _PROLOGUE,
            **{("order weakened", number): _ADDS_ONLY for number in range(4)},
        },
        share_caught=0.84,
    ),
    Target("triton_softmax", share_caught=0.87),
    Target("triton_row_reductions", {("barrier dropped", 12): _ELSEWHERE}, share_caught=0.85),
    Target("triton_locked_sum", share_caught=1.0),
    Target("cub_radix_sort", share_caught=0.95),
    Target(
        "cub_reduce_raking",
        {("warp barrier dropped", 0): _LANES_MEET, ("warp barrier dropped", 1): _LANES_MEET},
        share_caught=0.79,
    ),
    Target(
        "cub_load_and_store",
        {
            ("barrier dropped", 0): _OWN_BYTES,
            ("order weakened", 0): _BETWEEN_BARRIERS,
            ("order weakened", 1): _BETWEEN_BARRIERS,
        },
        share_caught=0.8,
    ),
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_errors_in_a_kernel_are_noticed(target: Target) -> None:
    result = _survey(_sharpened(find_case(target.name)), target.kinds)
    print(f"\n{target.name}\n{result.table()}")
    for mutant in result.survivors():
        print(f"  survived: {mutant}")
    survived = {place: str(mutant) for place, mutant in _survivors(result, SYNCHRONISATION)}
    assert {place: survived[place] for place in survived.keys() - target.redundant.keys()} == {}
    assert target.redundant.keys() - survived.keys() == set(), "no longer redundant"
    assert result.share_caught() >= target.share_caught


@pytest.mark.parametrize("case", HANDOVERS, ids=lambda case: case.name)
def test_every_step_of_a_handover_is_missed(case: Case) -> None:
    report, failures = simulate(case, Options())
    assert (report.findings, failures) == ([], [])
    result = _survey(case, SYNCHRONISATION)
    assert {outcome.verdict for outcome in result.outcomes} == {"caught"}, result.survivors()


def _survey(case: Case, kinds: frozenset[str] | None) -> Survey:
    made = mutants(case.ptx, case.entry, kinds=kinds)
    trials = [Trial(lambda text, how: simulate(case, how, text), options) for options in OPTIONS]
    return survey(case.ptx, made, trials, family=family(case))


def _survivors(result: Survey, kinds: frozenset[str]) -> Iterator[tuple[_Place, Mutant]]:
    numbers: Counter[str] = Counter()
    for outcome in result.outcomes:
        kind = outcome.mutant.kind
        if kind in kinds and outcome.verdict == "survived":
            yield (kind, numbers[kind]), outcome.mutant
        numbers[kind] += 1


def _sharpened(case: Case) -> Case:
    """The case, with data in which more errors of a maximum show."""
    if case.name == "triton_row_reductions":
        rows = 32
        x = np.random.default_rng(6).integers(-1000, 1000, (rows, 200), dtype=np.int32)
        x[16:] = np.minimum(x[16:], 700)  # the largest comes often: the first has to be found
        results = (x.sum(1, dtype=np.int32), x.max(1), x.argmax(1).astype(np.int32))
        arguments = [x, *(np.zeros(rows, np.int32) for _ in results), *case.arguments[4:]]
        expected = dict(enumerate(results, 1))
        return replace(case, grid=(rows // 4, 1, 1), arguments=arguments, expected=expected)
    if case.name == "cub_reduce_raking":
        blocks = 32  # in each, another lane of the raking warp has the largest
        x = np.random.default_rng(6).integers(-(2**20), 2**20, (blocks, 512), dtype=np.int32)
        numbers = np.arange(blocks)
        x[numbers, 16 * numbers + numbers % 16] = 2**21
        totals = np.stack([x.sum(1, dtype=np.int32), x.max(1)], 1)
        arguments = [x, np.zeros_like(totals)]
        return replace(case, grid=(blocks, 1, 1), arguments=arguments, expected={1: totals})
    return case
