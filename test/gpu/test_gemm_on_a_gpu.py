"""Products on a real GPU, through the operators: right for every size, type and content of memory.

`npm run test:gpu`, or `python test/gpu/run.py` without Node.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from operands import (
    IS_CUDA,
    LAYER_TOLERANCE,
    on_a_gpu,
    operands_of,
    poison,
    random_operands,
)
from products import make_product

pytestmark = on_a_gpu

# k, n, group size: as they are served, q, k and v in one product, gate and up in one.
LLAMA_2_7B = [(4096, 12288, 128), (4096, 22016, 128), (11008, 4096, 128)]
LLAMA_2_13B = [(5120, 15360, 128), (5120, 27648, 128), (13824, 5120, 128)]
LLAMA_3_8B = [(4096, 6144, 128), (4096, 4096, 128), (4096, 28672, 128), (14336, 4096, 128)]
LLAMA_3_70B = [(8192, 10240, 128), (8192, 8192, 128), (8192, 57344, 128), (28672, 8192, 128)]
FALCON_7B = [(4544, 4672, 64), (4544, 18176, 64), (18176, 4544, 128)]  # 4544 = 35.5 * 128
FALCON_180B = [(14848, 15872, 128), (14848, 59392, 128), (59392, 14848, 128)]
LAYERS = [*LLAMA_2_7B, *LLAMA_2_13B, *LLAMA_3_8B, *LLAMA_3_70B, *FALCON_7B, *FALCON_180B]
CPU_LAYERS = [(4096, 4096, 128), (4544, 4672, 64)]

TYPES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize(
    "m", [*range(1, 18), 24, 31, 32, 33, 48, 63, 64, 65, 100, 127, 128, 129, 199]
)
@pytest.mark.parametrize("group_size", [128, -1])
@pytest.mark.parametrize("scalar", ["float16", "bfloat16"])
def test_every_row_count(scalar: str, group_size: int, m: int) -> None:
    operands_of(make_product(m, 264, 256, group_size, scalar=scalar, has_bias=True)).check()


@pytest.mark.parametrize("group_size", [-1, 32, 64, 96, 128, 256])
@pytest.mark.parametrize("scalar", ["float16", "bfloat16"])
@pytest.mark.parametrize(("bits", "has_zeros"), [(4, False), (4, True), (8, False)])
@pytest.mark.parametrize("m", [5, 16, 20, 40, 100, 130])
def test_every_type_and_group(
    m: int, bits: int, has_zeros: bool, scalar: str, group_size: int
) -> None:
    product = make_product(
        *(m, 72, 768, group_size),
        bits=bits,
        scalar=scalar,
        has_zeros=has_zeros,
        has_bias=m == 16,
    )
    operands_of(product).check()


@pytest.mark.parametrize("n", [8, 16, 56, 64, 72, 248, 256, 264, 520, 1032])
@pytest.mark.parametrize(("m", "group_size"), [(3, 32), (40, 32), (100, -1)])
def test_every_column_tail(m: int, group_size: int, n: int) -> None:
    product = make_product(m, n, 128, group_size, has_zeros=n % 16 == 8, has_bias=True)
    operands_of(product).check()


@pytest.mark.parametrize("k", [32, 64, 96, 160, 352, 1056, 4128])
@pytest.mark.parametrize("group_size", [32, -1])
@pytest.mark.parametrize("m", [1, 9, 70])
def test_every_tail_of_k(m: int, group_size: int, k: int) -> None:
    operands_of(make_product(m, 72, k, group_size)).check()


@pytest.mark.parametrize("activations", ["gaussian", "positive", "alternating", "outliers"])
@pytest.mark.parametrize("group_size", [128, -1])
@pytest.mark.parametrize("m", [8, 64, 128])
def test_no_pattern_of_activations_makes_sums_drift(
    m: int, group_size: int, activations: str
) -> None:
    product = make_product(m, 256, 4096, group_size, activations=activations)
    operands_of(product).check()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("k", "n", "group_size"), LAYERS if IS_CUDA else CPU_LAYERS)
def test_layers_of_models(k: int, n: int, group_size: int, dtype: torch.dtype) -> None:
    """All rows at once, and some at a time: other tiles, other stripes."""
    layer = random_operands(130, n, k, group_size, dtype)
    for m in (1, 8, 16, 32, 64, 128, 130):
        layer.rows(0, m).check(tolerance=LAYER_TOLERANCE)


@pytest.mark.parametrize("group_size", [-1, 32, 64])
@pytest.mark.parametrize("has_zeros", [False, True])
def test_a_layer_with_every_group_size(has_zeros: bool, group_size: int) -> None:
    layer = random_operands(128, 4096, 4096, group_size, has_zeros=has_zeros)
    for m in (1, 16, 64, 128):
        layer.rows(0, m).check(tolerance=LAYER_TOLERANCE)


@pytest.mark.parametrize("dtype", TYPES)
def test_sixty_five_thousand_rows(dtype: torch.dtype) -> None:
    random_operands(65537, 264, 256, 128, dtype).check()


@pytest.mark.parametrize(("m", "n", "k"), [(1, 4096, 4096), (17, 264, 4096), (130, 1032, 2048)])
@pytest.mark.parametrize("dtype", TYPES)
def test_nothing_that_memory_held_reaches_the_result(
    dtype: torch.dtype, m: int, n: int, k: int
) -> None:
    case = random_operands(m, n, k, 128, dtype)
    wanted = case.gemm()
    for _ in range(3):
        poison()
        result = case.gemm()
        assert torch.equal(result, wanted)
    case.check(result)


def test_nan_and_infinity_stay_in_their_row() -> None:
    case = random_operands(20, 264, 512, 128)
    a = case.a.clone()
    a[3, 17], a[11, 400] = float("nan"), float("inf")
    result = replace(case, a=a).gemm()
    others = [row for row in range(20) if row not in (3, 11)]
    assert torch.equal(result[others], case.gemm()[others])
    assert not result[[3, 11]].isfinite().any()


def test_fifty_calls_give_the_same_bits() -> None:
    for m in (1, 16, 33, 100):
        case = random_operands(m, 4096, 4096, 128)
        first = case.gemm()
        for _ in range(50):
            assert torch.equal(case.gemm(), first)


def test_a_weight_in_another_layout_is_noticed() -> None:
    """Packed words that stand elsewhere don't happen to give the result."""
    case = random_operands(8, 256, 512, 128)
    swapped = replace(case, qweight=case.qweight.flip(0))
    assert swapped.error(swapped.gemm()) > 0.5
    shifted = replace(case, qweight=case.qweight.roll(1, dims=-1))
    assert shifted.error(shifted.gemm()) > 0.5
