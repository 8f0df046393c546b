"""What the operators refuse, and how they say it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch

from marlin import ops
from marlin.errors import InvalidArgumentError, UnsupportedError
from tests.package_copy import run_in_copy

# Any: the point of half the cases is a value of the wrong type.
Arguments: TypeAlias = dict[str, Any]

PERM = torch.arange(64, dtype=torch.int32)


def arguments(changed: Arguments | None = None) -> Arguments:
    """Correct arguments of gemm for N = 72, K = 64, group 32, but for those that are changed."""
    correct: Arguments = {
        "a": torch.ones(3, 64),
        "qweight": torch.zeros(2, 8, 64, dtype=torch.int32),
        "scales": torch.ones(2, 72),
        "qzeros": torch.zeros(2, 9, dtype=torch.int32),
        "bias": torch.ones(72),
        "size_n": 72,
        "size_k": 64,
        "group_size": 32,
    }
    return correct | (changed or {})


def test_the_correct_arguments_are_correct() -> None:
    assert ops.gemm(**arguments()).shape == (3, 72)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"a": torch.ones(3, 65)}, r"`a`: expected at most `size_k` = 64 columns, got .*\(3, 65\)"),
        ({"a": torch.ones(())}, r"`a`: expected at least one dimension, got a scalar"),
        ({"a": torch.ones(3, 64, dtype=torch.float64)}, r"`a`: expected dtype float16.*got Double"),
        ({"a": torch.ones(3, 64, dtype=torch.int32)}, r"`a`: expected dtype float16.*got Int"),
        ({"a": [1.0]}, r"`a`: expected Tensor, got list"),
        ({"a": None}, r"`a`: expected Tensor, got NoneType"),
        (
            {"qweight": torch.zeros(8, 72, dtype=torch.int32)},
            r"`qweight`: .*\(2, 8, 64\), got .*72",
        ),
        ({"qweight": torch.zeros(2, 8, 64)}, r"`qweight`: expected dtype int32, got Float"),
        ({"scales": torch.ones(1, 72)}, r"`scales`: expected shape \(2, 72\), got \(1, 72\)"),
        ({"scales": torch.ones(72)}, r"`scales`: expected shape \(2, 72\), got \(72,\)"),
        ({"scales": torch.ones(2, 72, dtype=torch.int8)}, r"`scales`: expected dtype.*got Char"),
        ({"qzeros": torch.zeros(2, 72, dtype=torch.int32)}, r"`qzeros`: expected shape \(2, 9\)"),
        ({"qzeros": torch.zeros(2, 9)}, r"`qzeros`: expected dtype int32, got Float"),
        ({"bias": torch.ones(64)}, r"`bias`: expected shape \(72,\), got \(64,\)"),
        ({"bias": torch.ones(72, dtype=torch.float64)}, r"`bias`: expected dtype.*got Double"),
        ({"size_n": 0}, r"`size_n`: expected a positive multiple of 8, got 0"),
        ({"size_n": 70}, r"`size_n`: expected a positive multiple of 8, got 70"),
        ({"size_n": "72"}, r"`size_n`: expected int, got str"),
        ({"size_k": -64}, r"`size_k`: expected a positive multiple of 32, got -64"),
        ({"size_k": 48}, r"`size_k`: expected a positive multiple of 32, got 48"),
        ({"size_k": 96}, r"`group_size`|`qweight`"),
        ({"group_size": 0}, r"`group_size`: expected -1 or a positive multiple of 32, got 0"),
        ({"group_size": 16}, r"`group_size`: expected -1 or a positive multiple of 32, got 16"),
        ({"group_size": 128}, r"`group_size`: expected a divisor of `size_k` = 64, got 128"),
        ({"bits": 3}, r"`bits`: expected 4 or 8, got 3"),
        ({"bits": 8}, r"`qweight`: expected shape \(2, 16, 64\), got \(2, 8, 64\)"),
        ({"bits": "4"}, r"`bits`: expected int, got str"),
        ({"perm": torch.zeros(64)}, r"`perm`: expected dtype int32, got Float"),
        ({"perm": torch.zeros(64).long()}, r"`perm`: expected dtype int32, got Long"),
        ({"perm": torch.zeros(63).int()}, r"`perm`: expected shape \(64,\), got \(63,\)"),
        ({"perm": PERM + 1}, r"`perm`: expected values in 0 .. 63, got 64 at 63"),
        ({"perm": PERM - 1}, r"`perm`: expected values in 0 .. 63, got -1 at 0"),
        ({"perm": [0]}, r"`perm`: expected Optional\[Tensor\], got list"),
        ({"perm": PERM.to("meta")}, r"one device, got .*`perm` on meta"),
        (
            {"activation": "int4"},
            r"`activation`: expected `auto`, `bfloat16`, `int16` or `int8`, got `int4`",
        ),
        ({"activation": 8}, r"`activation`: expected str, got int"),
        ({"activation": None}, r"`activation`: expected str, got NoneType"),
        ({"epilogue": "relu"}, r"`epilogue`: expected `none` or `silu_mul`, got `relu`"),
        ({"epilogue": "silu_mul"}, r"`size_n`: expected a multiple of 128 with .*, got 72"),
        ({"scales": torch.ones(2, 72, device="meta")}, r"one device, got .*`scales` on meta"),
    ],
)
def test_gemm_names_the_wrong_argument(changed: Arguments, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        ops.gemm(**arguments(changed))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda w: ops.repack(w[:7], 72, 64),
            r"`qweight`: expected shape \(8, 72\), got \(7, 72\)",
        ),
        (lambda w: ops.repack(w.long(), 72, 64), r"`qweight`: expected dtype int32, got Long"),
        (lambda w: ops.repack(w, 71, 64), r"`size_n`: expected a positive multiple of 8, got 71"),
        (lambda w: ops.unpack(w, 72, 64), r"`qweight`: expected shape \(2, 8, 64\), got \(8, 72\)"),
        (
            lambda w: ops.dequantize(w, torch.ones(2, 72), None, 72, 64, 32),
            r"`qweight`: expected shape \(2, 8, 64\), got \(8, 72\)",
        ),
    ],
)
def test_the_layout_ops_name_the_wrong_argument(
    call: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        call(torch.zeros(8, 72, dtype=torch.int32))


BYTES: Arguments = {"qweight": torch.zeros(2, 16, 64, dtype=torch.int32), "bits": 8}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (BYTES, "`qzeros`: expected none with 8 bits, got a tensor"),
        (
            {**BYTES, "qzeros": None, "activation": "bfloat16"},
            "`activation`: `bfloat16` (multiplies weights of 4 bits|needs a kernel)",
        ),
    ],
)
def test_formats_without_a_kernel_are_unsupported(changed: Arguments, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        ops.gemm(**arguments(changed))


def test_a_gradient_of_the_scales_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="`scales`: expected no gradient"):
        ops.gemm(**arguments({"scales": torch.ones(2, 72, requires_grad=True)}))


def test_a_refused_call_leaves_the_next_one_correct() -> None:
    before = ops.gemm(**arguments())
    with pytest.raises(InvalidArgumentError):
        ops.gemm(**arguments({"size_k": 48}))
    assert torch.equal(ops.gemm(**arguments()), before)


FIRST_USE = """
import marlin, torch
from marlin import ops
from marlin.errors import ExtensionMissingError
for call in (ops.kernel_info, lambda: ops.repack(torch.zeros(4, 8, dtype=torch.int32), 8, 32)):
    try: call()
    except ExtensionMissingError as error: print(error)
"""


@pytest.mark.parametrize(
    ("library", "message"),
    [(None, "_C.abi3.so does not exist"), (b"not a library", "does not load in torch")],
    ids=["missing", "broken"],
)
def test_a_library_that_cannot_serve_is_told_at_the_first_use(
    tmp_path: Path, library: bytes | None, message: str
) -> None:
    libraries = {} if library is None else {"_C": library}
    lines = run_in_copy(tmp_path, FIRST_USE, libraries)
    assert len(lines) == 2
    for line in lines:
        assert message in line
        assert "npm run build:ext" in line
