"""Errors that are put into the GPU kernel of gemm are noticed: every step of its synchronisation,
and most of everything else."""

from __future__ import annotations

import numpy as np
import pytest
from products import Product, make_product, mean_error
from ptxsim import Options, Report
from ptxsim.mutants import SYNCHRONISATION, Mutant, mutants
from ptxsim.survey import Survey, survey
from simulated import Simulated

TOLERANCE = 1e-4
OPTIONS = (Options(), Options(seed=2, copies_late=False))

# Every so many of the mutants that aren't about synchronisation, and how many of them are noticed.
# Those that aren't are mostly no errors: a step beyond the last row of K that is copied otherwise,
# where activations are zero; a bound that this shape doesn't meet; a shortcut not taken.
OTHERS = {5: (11, 0.78), 20: (31, 0.7)}


def survey_of(product: Product, kinds: frozenset[str] | None, stride: int = 1) -> Survey:
    """Columns that several blocks share, and blocks that work on several columns."""
    multiprocessors = 2
    healthy = Simulated(product, multiprocessors=multiprocessors)

    def simulate(text: str, options: Options) -> tuple[Report, list[str]]:
        run = Simulated(product, multiprocessors=multiprocessors, text=text)
        done = run.launch(options)
        failures = []
        if not run.buffers["out"].written().all():
            failures.append("a part of the result is missing")
        error = mean_error(done.result, product)
        if not error <= TOLERANCE:
            failures.append(f"mean error {error:.2e}")
        if run.buffers["locks"].read(np.int32).any():
            failures.append("a lock is not free again")
        return done.report, failures

    chosen = mutants(healthy.text, healthy.entry, seed=1)
    if kinds is None:
        picked = [one for one in chosen if one.kind not in SYNCHRONISATION][::stride]
    else:
        picked = [one for one in chosen if one.kind in kinds]
    return survey(simulate, healthy.text, picked, OPTIONS)


def small(m: int) -> Product:
    return make_product(m, 264, 576, 64, has_zeros=True, has_bias=True)


@pytest.mark.parametrize("m", [5, 20, 40])
def test_every_step_of_synchronisation_is_needed(m: int) -> None:
    result = survey_of(small(m), SYNCHRONISATION)
    print("\n" + result.table())
    survivors: list[Mutant] = result.survivors()
    assert survivors == []


@pytest.mark.parametrize("m", [5, 20])
def test_most_other_errors_are_noticed(m: int) -> None:
    stride, share = OTHERS[m]
    result = survey_of(small(m), None, stride)
    print("\n" + result.table())
    for mutant in result.survivors():
        print(f"  survived: {mutant}")
    assert result.share_caught() >= share
