"""The numeric definition: packing, dequantisation, the reference product and its checks."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from marlin import primitives
from marlin.activations import round_activations
from marlin.errors import InvalidArgumentError, UnsupportedError
from marlin.rounding import quantize

sizes = st.integers(1, 12)


def random_codes(rows: int, columns: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 16, (rows, columns), generator=generator, dtype=torch.uint8)


@given(words=sizes, columns=sizes, seed=st.integers(0, 1000))
def test_unpacking_is_the_inverse_of_packing_codes(words: int, columns: int, seed: int) -> None:
    codes = random_codes(8 * words, columns, seed)
    packed = primitives.pack_codes(codes)
    assert packed.shape == (words, columns)
    assert packed.dtype == torch.int32
    assert torch.equal(primitives.unpack_codes(packed), codes)


@given(groups=sizes, words=sizes, seed=st.integers(0, 1000))
def test_unpacking_is_the_inverse_of_packing_zeros(groups: int, words: int, seed: int) -> None:
    zeros = random_codes(groups, 8 * words, seed)
    packed = primitives.pack_zeros(zeros)
    assert packed.shape == (groups, words)
    assert torch.equal(primitives.unpack_zeros(packed), zeros)


@given(word=st.integers(-(2**31), 2**31 - 1))
def test_every_word_is_the_packing_of_its_codes(word: int) -> None:
    packed = torch.tensor([[word]], dtype=torch.int32)
    assert torch.equal(primitives.pack_codes(primitives.unpack_codes(packed)), packed)


def test_the_worked_example_of_the_documentation_holds() -> None:
    # docs/quantization.md, "Eight values by hand"
    weight = torch.tensor([[-1.0, -0.51, 0.47, -0.1, 0.03, 0.14, 0.96, 0.0]])
    rounded = quantize(weight, 32, search=False)
    assert rounded.scales[0, 0] == 1 / 8
    assert rounded.codes[:8, 0].tolist() == [0, 4, 12, 7, 8, 9, 15, 8]
    word = primitives.pack_codes(rounded.codes)[0, 0]
    assert int(word) % 2**32 == 0x8F987C40
    decoded = primitives.dequantize_codes(rounded)[0, :8]
    assert decoded.tolist() == [-1.0, -0.5, 0.5, -0.125, 0.0, 0.125, 0.875, 0.0]


def test_dequantize_follows_the_formula_element_by_element() -> None:
    size_k, size_n, group_size = 64, 8, 32
    codes, zeros = random_codes(size_k, size_n, 0), random_codes(2, size_n, 1)
    scales = torch.randn(2, size_n)
    weight = primitives.dequantize(
        primitives.pack_codes(codes), scales, primitives.pack_zeros(zeros), group_size
    )
    for n in range(size_n):
        for k in range(size_k):
            q, z = int(codes[k, n]), int(zeros[k // group_size, n])
            expected = torch.tensor(float(q - z)) * scales[k // group_size, n]
            assert weight[n, k] == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dequantize_rounds_once(dtype: torch.dtype) -> None:
    codes = torch.arange(16, dtype=torch.uint8).repeat(2).view(32, 1).expand(32, 8)
    scales = torch.rand(1, 8).to(dtype)
    weight = primitives.dequantize(primitives.pack_codes(codes), scales, None, -1)
    exact = (codes.double() - 8) * scales.double()
    assert torch.equal(weight, exact.to(dtype).t())


def test_linear_counts_missing_columns_as_zero_and_adds_the_bias() -> None:
    qweight = primitives.pack_codes(random_codes(64, 8, 0))
    scales, bias = torch.randn(2, 8), torch.randn(8)
    a = torch.randn(2, 3, 50)
    padded = torch.nn.functional.pad(a, (0, 14))
    product = primitives.linear(a, qweight, scales, None, 32, bias)
    assert product.shape == (2, 3, 8)
    weight = primitives.dequantize(qweight, scales, None, 32)
    torch.testing.assert_close(product, padded @ weight.t() + bias)


@pytest.mark.parametrize("dtype", primitives.FLOAT_DTYPES)
def test_linear_returns_the_dtype_of_its_input(dtype: torch.dtype) -> None:
    qweight = primitives.pack_codes(random_codes(32, 8, 0))
    product = primitives.linear(torch.ones(1, 32, dtype=dtype), qweight, torch.ones(1, 8), None, -1)
    assert product.dtype == dtype


@pytest.mark.parametrize(
    ("in_features", "group_size", "size_k"),
    [(1, -1, 32), (32, -1, 32), (33, 32, 64), (100, 64, 128), (128, 128, 128), (129, 128, 256)],
)
def test_in_features_are_padded_to_whole_groups(
    in_features: int, group_size: int, size_k: int
) -> None:
    assert primitives.padded_in_features(in_features, group_size) == size_k


WORDS = torch.zeros(8, 16, dtype=torch.int32)  # 64 rows, 16 columns
SCALES = torch.ones(2, 16)
REFUSALS: list[tuple[str, Callable[[], object], str]] = [
    (
        "codes of another range",
        lambda: primitives.pack_codes(torch.full((8, 1), 16)),
        "`codes` must lie in 0..15, got values in 16..16.",
    ),
    (
        "float codes",
        lambda: primitives.pack_codes(torch.zeros(8, 1)),
        "`codes` must be a matrix of integers, got float32 of shape [8, 1].",
    ),
    (
        "rows that fill no word",
        lambda: primitives.pack_codes(torch.zeros(9, 1, dtype=torch.int64)),
        "`codes` must have a multiple of 8 rows, got shape [9, 1].",
    ),
    (
        "zeros that fill no word",
        lambda: primitives.pack_zeros(torch.zeros(1, 9, dtype=torch.int64)),
        "`zeros` must have a multiple of 8 columns, got shape [1, 9].",
    ),
    (
        "words of another dtype",
        lambda: primitives.unpack_codes(torch.zeros(1, 1, dtype=torch.int64)),
        "`qweight` must be an int32 matrix, got int64 of shape [1, 1].",
    ),
    (
        "a group size that is not served",
        lambda: primitives.dequantize(WORDS, SCALES, None, 48),
        "`group_size` must be 32, 64, 128 or -1 (one group for a whole column), got 48.",
    ),
    (
        "a group that does not divide",
        lambda: primitives.dequantize(WORDS, SCALES, None, 128),
        "`qweight` must hold a multiple of 128 rows for group size 128, "
        "got 64 rows in shape [8, 16].",
    ),
    (
        "columns that are not padded",
        lambda: primitives.dequantize(WORDS[:, :9], SCALES, None, 32),
        "`qweight` must have a multiple of 8 columns, got shape [8, 9].",
    ),
    (
        "scales of another shape",
        lambda: primitives.dequantize(WORDS, SCALES, None, 64),
        "`scales` must be float16, bfloat16 or float32 of shape [1, 16], "
        "got float32 of shape [2, 16].",
    ),
    (
        "zeros of another dtype",
        lambda: primitives.dequantize(WORDS, SCALES, torch.zeros(2, 2), 32),
        "`qzeros` must be int32 of shape [2, 2], got float32 of shape [2, 2].",
    ),
    (
        "scales that are NaN",
        lambda: primitives.check_scales(torch.tensor([[1.0, float("nan")]])),
        "`scales` must be finite, got nan at group 0, column 1.",
    ),
    (
        "activations with too many columns",
        lambda: primitives.linear(torch.ones(1, 65), WORDS, SCALES, None, 32),
        "`a` must have at most 64 columns, got shape [1, 65].",
    ),
    (
        "float64 activations",
        lambda: primitives.linear(torch.ones(1, 64).double(), WORDS, SCALES, None, 32),
        "`a` must be float16, bfloat16 or float32, got float64.",
    ),
]


@pytest.mark.parametrize(
    ("call", "message"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS]
)
def test_refuses(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{re.escape(message)}$"):
        call()


BYTES = torch.zeros(16, 16, dtype=torch.int32)  # 64 rows, 16 columns, of 8 bits
PERM = torch.arange(64, dtype=torch.int32)
FORMAT_REFUSALS: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    (
        "a width without kernels",
        lambda: primitives.dequantize(WORDS, SCALES, None, 32, bits=3),
        UnsupportedError,
        "`bits` must be 4 or 8, got 3.",
    ),
    (
        "zero points beside 8 bits",
        lambda: primitives.dequantize(BYTES, SCALES, torch.zeros(2, 2).int(), 32, bits=8),
        UnsupportedError,
        "`qzeros` must be None with codes of 8 bits, which are symmetric.",
    ),
    (
        "rows of another width",
        lambda: primitives.dequantize(BYTES, SCALES, None, 32),
        InvalidArgumentError,
        "`scales` must be float16, bfloat16 or float32 of shape [4, 16], "
        "got float32 of shape [2, 16].",
    ),
    (
        "a perm of another dtype",
        lambda: primitives.dequantize(WORDS, SCALES, None, 32, perm=PERM.long()),
        InvalidArgumentError,
        "`perm` must be int32 of shape [64], got int64 of shape [64].",
    ),
    (
        "a perm of another length",
        lambda: primitives.linear(torch.ones(1, 64), WORDS, SCALES, None, 32, perm=PERM[:63]),
        InvalidArgumentError,
        "`perm` must be int32 of shape [64], got int32 of shape [63].",
    ),
    (
        "a perm that names a row twice",
        lambda: primitives.dequantize(WORDS, SCALES, None, 32, perm=PERM.clamp(min=1)),
        InvalidArgumentError,
        "`perm` must hold each of 0..63 once, got 63 values in 1..63.",
    ),
    (
        "a perm out of range",
        lambda: primitives.linear(torch.ones(1, 64), WORDS, SCALES, None, 32, perm=PERM + 1),
        InvalidArgumentError,
        "`perm` must hold each of 0..63 once, got 64 values in 1..64.",
    ),
    (
        "an activation that only a machine can choose",
        lambda: primitives.linear(torch.ones(1, 64), WORDS, SCALES, None, 32, activation="auto"),
        InvalidArgumentError,
        "`activation` must be int16, bfloat16 or int8, got 'auto'.",
    ),
]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [case[1:] for case in FORMAT_REFUSALS],
    ids=[case[0] for case in FORMAT_REFUSALS],
)
def test_refuses_formats(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def test_8_bits_follow_the_formula() -> None:
    codes = torch.randint(0, 256, (64, 8), dtype=torch.uint8)
    scales = torch.randn(2, 8)
    weight = primitives.dequantize(primitives.pack_codes(codes, 8), scales, None, 32, bits=8)
    expected = (codes.float() - 128) * scales.repeat_interleave(32, 0)
    assert torch.equal(weight, expected.t())


def test_linear_meets_row_i_with_column_perm_i() -> None:
    qweight = primitives.pack_codes(random_codes(64, 8, 0))
    scales, a = torch.randn(2, 8), torch.randn(3, 50)
    perm = torch.randperm(64).int()
    rows = primitives.dequantize(qweight, scales, None, 32)  # (n, rows)
    padded = torch.nn.functional.pad(a, (0, 14))
    product = primitives.linear(a, qweight, scales, None, 32, perm=perm)
    torch.testing.assert_close(product, padded[:, perm.long()] @ rows.t())
    columns = primitives.dequantize(qweight, scales, None, 32, perm=perm)
    torch.testing.assert_close(product, padded @ columns.t())


@pytest.mark.parametrize(
    ("activation", "bound"), [("int16", 2e-4), ("bfloat16", 5e-3), ("int8", 2e-2)]
)
def test_linear_rounds_activations_in_the_order_of_the_rows(activation: str, bound: float) -> None:
    qweight = primitives.pack_codes(random_codes(128, 8, 0))
    scales, a = torch.rand(2, 8), torch.randn(9, 128)
    perm = torch.randperm(128).int()
    exact = primitives.linear(a, qweight, scales, None, 64, perm=perm)
    rounded = primitives.linear(a, qweight, scales, None, 64, perm=perm, activation=activation)
    error = float((rounded - exact).norm() / exact.norm())
    assert bound / 100 < error < bound
    sorted_a = round_activations(a[:, perm.long()], activation)
    weight = primitives.dequantize(qweight, scales, None, 64).double()
    torch.testing.assert_close(rounded, (sorted_a @ weight.t()).float())
