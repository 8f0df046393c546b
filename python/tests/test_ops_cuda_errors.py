"""What the CUDA operators refuse, and how they say it. Needs their library, and no GPU."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from marlin import ops
from marlin.errors import InternalError, InvalidArgumentError, MarlinError, UnsupportedError
from marlin.library import require_cuda_library
from tests.on_cuda import on_cuda

try:
    require_cuda_library()
except MarlinError as error:
    pytest.skip(str(error), allow_module_level=True)

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def words(*shape: int) -> torch.Tensor:
    return on_cuda(*shape, dtype=torch.int32)


def halves(*shape: int) -> torch.Tensor:
    return on_cuda(*shape, dtype=torch.float16)


def arguments(**changed: Any) -> dict[str, Any]:  # noqa: ANN401  # also of the wrong type
    """Correct arguments of gemm for N = 72, K = 64, group 32, but for those that are changed."""
    correct: dict[str, Any] = {
        "a": halves(3, 64),
        "qweight": words(2, 8, 128),
        "scales": halves(2, 72),
        "qzeros": words(2, 9),
        "bias": halves(72),
        "perm": words(64),
        "size_n": 72,
        "size_k": 64,
        "group_size": 32,
    }
    return correct | changed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"a": halves(3, 65)}, r"`a`: expected at most `size_k` = 64 columns, got shape \(3, 65\)"),
        ({"a": halves()}, "`a`: expected at least one dimension"),
        ({"a": on_cuda(3, 64, dtype=torch.float64)}, "`a`: expected dtype float16, bfloat16 or"),
        ({"qweight": words(2, 8, 64)}, r"`qweight`: expected shape \(2, 8, 128\), got \(2, 8, 64"),
        ({"scales": halves(2, 2, 64)}, r"`scales`: expected shape \(2, 72\), got \(2, 2, 64\)"),
        ({"qzeros": words(2, 72)}, r"`qzeros`: expected shape \(2, 9\)"),
        ({"bias": halves(71)}, r"`bias`: expected shape \(72,\), got \(71,\)"),
        ({"bias": words(72)}, "`bias`: expected dtype float16, bfloat16 or float32"),
        ({"perm": words(63)}, r"`perm`: expected shape \(64,\)"),
        ({"perm": halves(64)}, "`perm`: expected dtype int32"),
        ({"group_size": 48}, "`group_size`: expected"),
        ({"size_n": 70}, "`size_n`: expected a positive multiple of 8"),
        ({"bits": 3}, "`bits`: expected 4 or 8"),
        ({"epilogue": "relu"}, "`epilogue`: expected `none` or `silu_mul`, got `relu`"),
        ({"epilogue": "silu_mul"}, "`size_n`: expected a multiple of 128 with the epilogue"),
        ({"a": torch.zeros(3, 64)}, "`a`: expected a tensor on a CUDA device, got one elsewhere"),
        ({"scales": torch.ones(2, 72)}, "`scales`: expected a tensor on a CUDA device"),
        ({"bias": torch.ones(72)}, "`bias`: expected a tensor on a CUDA device"),
    ],
)
def test_a_wrong_argument_is_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        ops.gemm(**arguments(**changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bits": 8, "qweight": words(2, 8, 256)}, "`qzeros`: expected none with 8 bits"),
        ({"activation": "int8"}, "`activation`: expected `auto` or `bfloat16` on CUDA, got `int8`"),
    ],
)
def test_what_cuda_does_not_have_is_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        ops.gemm(**arguments(**changed))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU would look for the memory")
@pytest.mark.parametrize("activation", ["auto", "bfloat16"])
@pytest.mark.parametrize(
    ("dtype", "scales", "bias"), list(itertools.product(DTYPES, DTYPES, (*DTYPES, None)))
)
def test_every_mix_of_dtypes_passes_the_checks(
    dtype: torch.dtype, scales: torch.dtype, bias: torch.dtype | None, activation: str
) -> None:
    given = arguments(
        a=on_cuda(3, 64, dtype=dtype),
        scales=on_cuda(2, 72, dtype=scales),
        bias=None if bias is None else on_cuda(72, dtype=bias),
        activation=activation,
    )
    with pytest.raises(InternalError, match="cuda:0 doesn't tell what it is"):
        ops.gemm(**given)
