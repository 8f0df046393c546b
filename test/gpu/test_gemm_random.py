"""Products of random sizes, types, schedules and multiprocessors: what nobody thought of."""

from __future__ import annotations

import numpy as np
import pytest
from plan import tolerance
from products import make_product, mean_error
from ptxsim import Options
from simulated import Simulated


def check(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = int(rng.integers(1, 13))
    group_size = int(rng.choice([-1, 32, 64, 96, 128, 160, 256]))
    k = 32 * parts if group_size == -1 else group_size * int(rng.integers(1, 6))
    bits = int(rng.choice([4, 4, 8]))
    product = make_product(
        int(rng.choice([*range(1, 20), 31, 32, 33, 63, 64, 65, 100, 128, 130, 200])),
        8 * int(rng.integers(1, 70)),
        k,
        group_size,
        bits=bits,
        scalar="float16" if rng.random() < 0.5 else "bfloat16",
        has_zeros=bits == 4 and bool(rng.random() < 0.5),
        has_bias=bool(rng.random() < 0.5),
        activations=rng.choice(["gaussian", "positive", "alternating", "outliers"]),
        seed=seed,
    )
    simulated = Simulated(
        product, multiprocessors=int(rng.integers(1, 12)), poisons=bool(rng.random() < 0.5)
    )
    options = Options(
        seed=seed,
        copies_late=bool(rng.random() < 0.5),
        max_quantum=int(rng.choice([1, 7, 64, 1000])),
        generation=str(rng.choice(["exact", "ampere", "hopper"])),
    )
    for _ in range(2):
        run = simulated.launch(options)
        run.report.raise_if_found()
        assert mean_error(run.result, product) <= tolerance(run.plan)
        assert not simulated.buffers["counters"].read(np.int32).any()


@pytest.mark.parametrize("seed", range(20))
def test_some_random_products(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20, 420))
def test_many_random_products(seed: int) -> None:
    check(seed)
