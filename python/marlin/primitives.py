"""The numeric definition of quantised weights, in plain PyTorch: the oracle of kernels and formats.

Everything here is readable before it is fast, and knows no compiled operator, module or file.
K is `in_features` padded by `padded_in_features`, N is `out_features` padded to a multiple of 8. A
group is `group_size` consecutive rows of a column (-1: all K rows); there are G = K / group_size.
A code has b bits, 4 or 8, and a word holds w = 32 / b of them.

| tensor  | dtype              | shape      | meaning                                              |
|---------|--------------------|------------|------------------------------------------------------|
| codes   | uint8              | (K, N)     | q, 0..2^b - 1                                        |
| zeros   | uint8              | (G, N)     | z, 0..15; absent when symmetric, where z = 2^(b - 1) |
| qweight | int32              | (K / w, N) | bits bi..bi+b-1 of word [r, n]: code of row wr + i   |
| qzeros  | int32              | (G, N / 8) | bits 4i..4i+3 of word [g, c]: zero of column 8c + i  |
| scales  | fp16, bf16 or fp32 | (G, N)     | s, finite; a negative scale mirrors the range        |
| perm    | int32              | (K,)       | the column of activations of row k; absent: k        |

    w[n, perm[k]] = (q[k, n] - z[k // group_size, n]) * s[k // group_size, n]

Zero points exist for 4 bits only: 8 bits are symmetric.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from marlin.activations import in_weight_order, round_activations
from marlin.codes import (
    CODE_BITS,
    ZERO_POINT_BITS,
    ZEROS_PER_WORD,
    check_bits,
    check_symmetric,
    check_words,
    codes_per_word,
    dtype_name,
    max_code,
    pack_codes,
    pack_known_codes,
    pack_zeros,
    symmetric_zero,
    unpack_codes,
    unpack_zeros,
    zero_word,
)
from marlin.errors import InvalidArgumentError, UnsupportedError

__all__ = [
    "CODE_BITS",
    "EMPTY_SCALE",
    "FLOAT_DTYPES",
    "GROUP_SIZES",
    "ZEROS_PER_WORD",
    "QuantizedWeight",
    "check_bits",
    "check_group_size",
    "check_layout",
    "check_perm",
    "check_scales",
    "check_symmetric",
    "codes_per_word",
    "dequantize",
    "dequantize_codes",
    "dtype_name",
    "group_rows",
    "linear",
    "max_code",
    "pack_codes",
    "pack_known_codes",
    "pack_zeros",
    "padded_in_features",
    "padded_out_features",
    "symmetric_zero",
    "unpack_codes",
    "unpack_zeros",
    "zero_word",
]

GROUP_SIZES = (32, 64, 128, -1)
FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
ROW_MULTIPLE = 32  # the step in which every kernel walks K
COLUMN_MULTIPLE = 8  # the columns in a word of qzeros

# The scale of a group of zeros. Any would do in exact arithmetic; a small one keeps out what a
# kernel loses when it sums the codes first and subtracts the zero point's share of them after.
EMPTY_SCALE = 2.0**-14


class QuantizedWeight(NamedTuple):
    """A weight before packing: codes uint8 (K, N), scales (G, N), zeros uint8 (G, N) or None."""

    codes: Tensor
    scales: Tensor
    zeros: Tensor | None


def padded_in_features(in_features: int, group_size: int) -> int:
    """K: `in_features` rounded up to whole groups and to the 32 rows a kernel takes at once."""
    multiple = max(group_size, ROW_MULTIPLE)
    return -(-in_features // multiple) * multiple


def padded_out_features(out_features: int) -> int:
    """N: `out_features` rounded up to a multiple of 8."""
    return -(-out_features // COLUMN_MULTIPLE) * COLUMN_MULTIPLE


def group_rows(size_k: int, group_size: int) -> int:
    """Rows in a group: `group_size`, or all `size_k` for -1."""
    return size_k if group_size == -1 else group_size


def dequantize(
    qweight: Tensor,
    scales: Tensor,
    qzeros: Tensor | None,
    group_size: int,
    *,
    bits: int = 4,
    perm: Tensor | None = None,
) -> Tensor:
    """The weight (N, K) that plain tensors stand for, in the dtype of `scales`, rounded once.

    With `perm` the columns are those of the activations.
    """
    _, size_k = check_layout(qweight, scales, qzeros, group_size, bits=bits)
    zeros = None if qzeros is None else unpack_zeros(qzeros)
    weight = dequantize_codes(QuantizedWeight(unpack_codes(qweight, bits), scales, zeros), bits)
    if perm is None:
        return weight
    check_perm(perm, size_k)
    return weight[:, perm.argsort()]


def dequantize_codes(weight: QuantizedWeight, bits: int = 4) -> Tensor:
    """The weight (N, K) of codes, scales and zeros, in the dtype of the scales, rounded once."""
    codes, scales, zeros = weight
    size_k, size_n = codes.shape
    grouped = codes.view(scales.shape[0], -1, size_n).float()  # (groups, rows, n)
    zero = symmetric_zero(bits) if zeros is None else zeros.unsqueeze(1)
    # q - z is a small integer: in fp32 its product with an fp16 or bf16 scale is exact, so that the
    # cast is the only rounding.
    weights = (grouped - zero) * scales.unsqueeze(1).float()
    return weights.view(size_k, size_n).to(scales.dtype).t().contiguous()  # (n, k)


def linear(
    a: Tensor,
    qweight: Tensor,
    scales: Tensor,
    qzeros: Tensor | None,
    group_size: int,
    bias: Tensor | None = None,
    *,
    bits: int = 4,
    perm: Tensor | None = None,
    activation: str | None = None,
) -> Tensor:
    """`a` (..., k <= K) times the quantised weight, plus `bias` (N,): (..., N) in `a`'s dtype.

    Weights are not rounded to the dtype of the scales, the result is rounded once. Columns that
    `a` lacks count as zero. activation: "int16", "int8" or "bfloat16" rounds `a` as a kernel does;
    None takes it as it is, with sums in fp32.
    """
    weight = dequantize(qweight, scales.float(), qzeros, group_size, bits=bits)  # (n, k)
    size_k = weight.shape[1]
    if a.dtype not in FLOAT_DTYPES:
        raise InvalidArgumentError(
            f"`a` must be float16, bfloat16 or float32, got {dtype_name(a.dtype)}."
        )
    if a.ndim == 0 or a.shape[-1] > size_k:
        raise InvalidArgumentError(
            f"`a` must have at most {size_k} columns, got shape {list(a.shape)}."
        )
    if perm is not None:
        check_perm(perm, size_k)
    rounded = in_weight_order(a.float(), size_k, perm)
    if activation is not None:
        rounded = round_activations(rounded, activation)
    bias = None if bias is None else bias.to(rounded.dtype)
    return functional.linear(rounded, weight.to(rounded.dtype), bias).to(a.dtype)


def check_group_size(group_size: int) -> None:
    """Raises InvalidArgumentError unless `group_size` is one of GROUP_SIZES."""
    if isinstance(group_size, bool) or group_size not in GROUP_SIZES:
        raise InvalidArgumentError(
            "`group_size` must be 32, 64, 128 or -1 (one group for a whole column), "
            f"got {group_size!r}."
        )


def check_layout(
    qweight: Tensor,
    scales: Tensor,
    qzeros: Tensor | None,
    group_size: int,
    *,
    bits: int = 4,
    owner: str = "",
) -> tuple[int, int]:
    """(N, K) of tensors in the plain layout; raises InvalidArgumentError where they do not fit.

    owner: goes before the tensors' names in a message, for instance "model.layers.0.".
    """
    check_bits(bits)
    check_group_size(group_size)
    check_words(f"{owner}qweight", qweight)
    size_k, size_n = qweight.shape[0] * codes_per_word(bits), qweight.shape[1]
    if size_k == 0 or size_k != padded_in_features(size_k, group_size):
        raise InvalidArgumentError(
            f"`{owner}qweight` must hold a multiple of {max(group_size, ROW_MULTIPLE)} rows for "
            f"group size {group_size}, got {size_k} rows in shape {list(qweight.shape)}."
        )
    if size_n == 0 or size_n % COLUMN_MULTIPLE:
        raise InvalidArgumentError(
            f"`{owner}qweight` must have a multiple of 8 columns, got shape {list(qweight.shape)}."
        )
    groups = size_k // group_rows(size_k, group_size)
    if scales.dtype not in FLOAT_DTYPES or scales.shape != (groups, size_n):
        raise InvalidArgumentError(
            f"`{owner}scales` must be float16, bfloat16 or float32 of shape {[groups, size_n]}, "
            f"got {dtype_name(scales.dtype)} of shape {list(scales.shape)}."
        )
    if qzeros is not None and bits != ZERO_POINT_BITS:
        raise UnsupportedError(
            f"`{owner}qzeros` must be None with codes of {bits} bits, which are symmetric."
        )
    zeros_shape = (groups, size_n // ZEROS_PER_WORD)
    if qzeros is not None and (qzeros.dtype != torch.int32 or qzeros.shape != zeros_shape):
        raise InvalidArgumentError(
            f"`{owner}qzeros` must be int32 of shape {list(zeros_shape)}, "
            f"got {dtype_name(qzeros.dtype)} of shape {list(qzeros.shape)}."
        )
    return size_n, size_k


def check_perm(perm: Tensor, size_k: int) -> None:
    """Raises InvalidArgumentError unless `perm` is int32 and holds each of 0..K - 1 once."""
    if perm.dtype != torch.int32 or perm.shape != (size_k,):
        raise InvalidArgumentError(
            f"`perm` must be int32 of shape [{size_k}], "
            f"got {dtype_name(perm.dtype)} of shape {list(perm.shape)}."
        )
    order = torch.arange(size_k, dtype=torch.int32, device=perm.device)
    if not torch.equal(perm.sort().values, order):
        raise InvalidArgumentError(
            f"`perm` must hold each of 0..{size_k - 1} once, "
            f"got {len(set(perm.tolist()))} values in {int(perm.min())}..{int(perm.max())}."
        )


def check_scales(scales: Tensor, *, owner: str = "") -> None:
    """Raises InvalidArgumentError at the first scale (G, N) that is NaN or infinite."""
    finite = torch.isfinite(scales)
    if bool(finite.all()):
        return
    group, column = (int(i) for i in (~finite).nonzero()[0])
    raise InvalidArgumentError(
        f"`{owner}scales` must be finite, got {float(scales[group, column])} "
        f"at group {group}, column {column}."
    )
