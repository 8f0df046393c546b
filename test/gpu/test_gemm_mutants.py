"""Errors that are put into the GPU kernel of gemm are noticed, all of them.

What nobody notices must do the same as the healthy kernel (twins.py): a mask that clears bits which
are zero anyway, a row of a lop3 table that no operands reach, a bound that is never met.
"""

from __future__ import annotations

import re

import pytest
from gemm_trials import Kernel, trials
from ptxsim.mutants import KINDS, SYNCHRONISATION, Mutant, mutants
from ptxsim.survey import Survey, survey

OTHERS = KINDS - SYNCHRONISATION

# By rows of a tile.
KERNELS = {
    8: Kernel((5, (6,), 8), 64, has_zeros=True),
    16: Kernel((11, (12,), 16), 32, "bfloat16", bits=8),
    32: Kernel((21, (20, 28), 32), -1, has_zeros=True),
    64: Kernel((41, (34, 44, 52, 60), 130), 128),
    128: Kernel((85, (66, 76, 84, 92, 98, 108, 116, 124), 200), -1, has_zeros=True),
}

# Every so many of the mutants in the long survey: more rows take longer, and do the same again.
STRIDES = {8: 1, 16: 1, 32: 4, 64: 12, 128: 24}


# How often a block asks for the others that need not wait for them (kPolls of gemm_reduction.cuh):
# whoever adds up what they share, the result is the same.
POLLS = re.compile(r", 61;$")


def survivors(result: Survey) -> list[Mutant]:
    return [one for one in result.survivors() if not POLLS.search(one.before)]


def survey_of(kernel: Kernel, kinds: frozenset[str], stride: int = 1) -> Survey:
    """Every so many of the mutants of these kinds."""
    healthy, launches = trials(kernel)
    made = list(mutants(healthy.text, healthy.entry, kinds=kinds))[::stride]
    result = survey(healthy.text, made, launches, family="gemm", finds_equivalents=True)
    print("\n" + result.table())
    return result


@pytest.mark.parametrize("rows", KERNELS)
def test_every_step_of_synchronisation_is_needed(rows: int) -> None:
    result = survey_of(KERNELS[rows], SYNCHRONISATION)
    assert {outcome.verdict for outcome in result.outcomes} == {"caught"}


@pytest.mark.parametrize("rows", [8, 16])
def test_some_other_errors_are_noticed(rows: int) -> None:
    assert survivors(survey_of(KERNELS[rows], OTHERS, stride=97)) == []


@pytest.mark.slow
@pytest.mark.parametrize("rows", KERNELS)
def test_every_other_error_is_noticed(rows: int) -> None:
    result = survey_of(KERNELS[rows], OTHERS, STRIDES[rows])
    for outcome in result.outcomes:
        if outcome.verdict != "caught":
            print(f"  {outcome.verdict}: {outcome.mutant}")
    assert survivors(result) == []
    assert not [one for one in result.outcomes if one.verdict == "not executed"]
