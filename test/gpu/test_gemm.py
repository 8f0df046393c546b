"""The GPU kernel of gemm, run from its own PTX: right, complete, without a finding."""

from __future__ import annotations

import numpy as np
import pytest
from plan import tolerance
from products import Product, make_product, mean_error
from ptxsim import Options
from simulated import Run, Simulated

# Rows that float16 and weights of 4 bits take in tiles of 128.
TALL = (67, 128, 199)


def check(product: Product, run: Run) -> None:
    run.report.raise_if_found()
    error = mean_error(run.result, product)
    assert error <= tolerance(run.plan), f"mean error {error:.2e}"


def written(simulated: Simulated) -> None:
    assert simulated.buffers["out"].written().all()
    assert not simulated.buffers["counters"].read(np.int32).any()


@pytest.mark.parametrize(
    ("m", "group_size"),
    [
        *((m, 128) for m in (*range(1, 18), 31, 33, 64, 65, 130)),
        *((m, group_size) for m in TALL for group_size in (128, -1)),
    ],
)
def test_every_row_count(m: int, group_size: int) -> None:
    product = make_product(m, 264, 256, group_size)
    simulated = Simulated(product)
    check(product, simulated.launch())
    written(simulated)


@pytest.mark.parametrize("group_size", [-1, 32, 64, 96, 128, 256])
@pytest.mark.parametrize("scalar", ["float16", "bfloat16"])
@pytest.mark.parametrize(("bits", "has_zeros"), [(4, False), (4, True), (8, False)])
@pytest.mark.parametrize("m", [5, 16, 20, 40, 100])
def test_every_type_and_group(
    m: int, bits: int, has_zeros: bool, scalar: str, group_size: int
) -> None:
    k = 768 if group_size in (96, 256) else 384
    product = make_product(
        *(m, 72, k, group_size),
        bits=bits,
        scalar=scalar,
        has_zeros=has_zeros,
        has_bias=m == 16,
    )
    simulated = Simulated(product)
    check(product, simulated.launch())
    written(simulated)


@pytest.mark.parametrize("n", [8, 56, 64, 248, 256, 264, 520])
@pytest.mark.parametrize(("m", "group_size"), [(3, 32), (TALL[0], -1)])
def test_every_column_tail(m: int, group_size: int, n: int) -> None:
    product = make_product(m, n, 128, group_size, has_bias=True)
    simulated = Simulated(product)
    check(product, simulated.launch())
    written(simulated)


@pytest.mark.parametrize("k", [32, 64, 96, 160, 352, 1056])
@pytest.mark.parametrize(("m", "group_size"), [(9, 32), (9, -1), (TALL[0], 32), (TALL[0], -1)])
def test_every_tail_of_k(m: int, group_size: int, k: int) -> None:
    product = make_product(m, 64, k, group_size)
    check(product, Simulated(product).launch())


@pytest.mark.parametrize("multiprocessors", [1, 2, 5, 7, 16, 100])
@pytest.mark.parametrize(("m", "group_size"), [(4, 128), (TALL[0], 128), (TALL[0], -1)])
def test_every_stripe(m: int, group_size: int, multiprocessors: int) -> None:
    """Columns shared by no, two and many blocks; and blocks that work on several columns."""
    product = make_product(m, 520, 896, group_size)
    simulated = Simulated(product, multiprocessors=multiprocessors)
    check(product, simulated.launch())
    written(simulated)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("m", "group_size"), [(17, 128), (TALL[0], 128), (TALL[0], -1)])
def test_every_schedule_gives_the_same_bits(m: int, group_size: int, seed: int) -> None:
    """Warps in another order, copies that arrive late and at once: nothing may depend on it."""
    product = make_product(m, 264, 640, group_size, has_zeros=True)
    first = Simulated(product, multiprocessors=4).launch()
    options = Options(seed=seed, copies_late=seed % 2 == 0, max_quantum=1 + 40 * (seed % 3))
    other = Simulated(product, multiprocessors=4).launch(options)
    check(product, other)
    assert np.array_equal(first.result, other.result)


def test_a_workspace_is_used_again_and_its_content_means_nothing() -> None:
    product = make_product(6, 264, 640, 64)
    simulated = Simulated(product, multiprocessors=5, poisons=True)
    first = simulated.launch(Options(seed=1))
    for seed in range(2, 6):
        again = simulated.launch(Options(seed=seed))
        check(product, again)
        assert np.array_equal(first.result, again.result)


@pytest.mark.parametrize("activations", ["gaussian", "positive", "alternating", "outliers"])
@pytest.mark.parametrize("generation", ["ampere", "hopper"])
@pytest.mark.parametrize(
    ("m", "bits", "group_size"),
    [(8, 4, 128), (8, 4, -1), (8, 8, 128), (8, 8, -1), (TALL[0], 4, -1), (TALL[0], 4, 128)],
)
def test_no_pattern_of_activations_makes_sums_drift(
    m: int, bits: int, group_size: int, generation: str, activations: str
) -> None:
    product = make_product(m, 64, 4096, group_size, bits=bits, activations=activations)
    check(product, Simulated(product).launch(Options(generation=generation)))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [86, 89, 90])
@pytest.mark.parametrize(
    ("m", "group_size"), [*((m, 64) for m in (3, 16, 30, 64, TALL[0])), (TALL[0], -1)]
)
def test_every_architecture(m: int, group_size: int, architecture: int) -> None:
    """nvcc may write other PTX for each."""
    product = make_product(m, 264, 640, group_size, has_zeros=True, has_bias=True)
    generation = "hopper" if architecture == 90 else "ampere"
    simulated = Simulated(product, architecture=architecture)
    check(product, simulated.launch(Options(generation=generation)))
    written(simulated)


def test_a_wrong_layout_is_noticed() -> None:
    """Weights that are packed otherwise don't happen to give the result."""
    product = make_product(8, 64, 128, 128)
    swapped = make_product(8, 64, 128, 128, seed=1)
    simulated = Simulated(product)
    assert mean_error(simulated.launch().result, swapped) > 0.5
