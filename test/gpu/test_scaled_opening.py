"""Scales that meet weights in float16, as they are opened: of any size, each column by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from plan import IS_MAGIC
from products import Bits, Floats, Product, make_product, to_bits, to_floats
from simulated import Simulated

K = 640
GROUP = 128
ROWS = (33, 67)  # tiles of 64 and of 128


def product_of(m: int, scales: Floats, *, zeros: bool = False) -> Product:
    """With these scales: (groups, n)."""
    product = make_product(m, scales.shape[1], K, K // len(scales), has_zeros=zeros)
    return with_scales(product, to_bits(scales, "float16"))


def with_scales(product: Product, scales: Bits) -> Product:
    changed = replace(product, scales=scales)
    return replace(changed, exact=to_floats(product.a, "float16") @ weights_of(changed))


def weights_of(product: Product) -> Floats:
    rows = product.group_size
    zeros = 8.0 if product.zeros is None else np.repeat(product.zeros.astype(float), rows, axis=0)
    return (product.codes - zeros) * np.repeat(to_floats(product.scales, "float16"), rows, axis=0)


def result_of(product: Product, multiprocessors: int = 2) -> Floats:
    run = Simulated(product, multiprocessors=multiprocessors).launch()
    run.report.raise_if_found()
    assert run.plan.scales_weights
    return to_floats(run.result, "float16")


def bound_of(product: Product) -> Floats:
    """What the header of the opening says: a weight's own rounding, or 2^-15 of the largest."""
    weights = np.abs(weights_of(product))
    a = np.abs(to_floats(product.a, "float16"))
    own = a @ weights * 2.0**-11
    shared = a.sum(axis=1, keepdims=True) * weights.max(axis=0) * 2.0**-15
    result = np.abs(product.exact) * 2.0**-10 + 2.0**-24
    return own + shared + result


def check(product: Product, multiprocessors: int = 2) -> Floats:
    """The result, which is within the bound."""
    result = result_of(product, multiprocessors)
    assert (np.abs(result - product.exact) <= bound_of(product)).all()
    return result


@pytest.mark.parametrize("m", ROWS)
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("step", [-4, -2, -1, 1, 2, 4])
def test_scales_may_grow_and_shrink(m: int, step: int, zeros: bool) -> None:
    exponents = step * np.arange(K // GROUP)[:, None] - 6 - 2 * abs(step)
    check(product_of(m, np.exp2(exponents + np.zeros((1, 264))), zeros=zeros))


@pytest.mark.parametrize("m", ROWS)
@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("seed", range(3))
def test_every_column_has_scales_of_its_own_size(m: int, group: int, seed: int) -> None:
    check(make_product(m, 264, K, group, scale_range=16, seed=seed))


@pytest.mark.parametrize("m", ROWS)
@pytest.mark.parametrize("scale", [2.0**-24, 3 * 2.0**-24, 2.0**-14, 2.0**-12, 1.0, 100.0, -0.02])
def test_one_scale_of_any_size(m: int, scale: float) -> None:
    product = product_of(m, np.full((K // GROUP, 72), scale))
    product = replace(product, a=to_bits(to_floats(product.a, "float16") / 16, "float16"))
    check(with_scales(product, product.scales))


@pytest.mark.parametrize("m", ROWS)
def test_a_scale_of_zero_makes_zeros(m: int) -> None:
    scales = np.full((K // GROUP, 72), 0.01)
    scales[1:3, ::2] = 0
    scales[:, 5] = 0
    assert not check(product_of(m, scales))[:, 5].any()


@pytest.mark.parametrize("m", ROWS)
@pytest.mark.parametrize("scale", [np.inf, -np.inf, np.nan])
def test_a_scale_that_is_no_number_spoils_its_own_column_alone(m: int, scale: float) -> None:
    scales = np.full((K // GROUP, 72), 0.01)
    healthy = result_of(product_of(m, scales))
    scales[3, 17] = scale
    with np.errstate(invalid="ignore"):
        result = result_of(product_of(m, scales))
    assert not np.isfinite(result[:, 17]).any()
    others = np.arange(72) != 17
    assert np.array_equal(result[:, others], healthy[:, others])


@pytest.mark.parametrize("m", ROWS)
@pytest.mark.skipif(IS_MAGIC, reason="these have no sums to lower")
def test_the_largest_scale_may_come_in_any_part_of_a_stripe(m: int) -> None:
    """Blocks that share columns have norms of their own."""
    for position in range(K // GROUP):
        scales = np.full((K // GROUP, 264), 2.0**-9)
        scales[position] = 2.0**-2
        product = product_of(m, scales)
        for multiprocessors in (1, 2, 5):
            check(product, multiprocessors)
