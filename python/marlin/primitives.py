"""The numeric definition of 4-bit weights, in plain PyTorch: the oracle of every kernel and format.

Everything here is readable before it is fast, and knows no compiled operator, module or file.
K is `in_features` padded by `padded_in_features`, N is `out_features` padded to a multiple of 8. A
group is `group_size` consecutive rows of a column (-1: all K rows); there are G = K / group_size.

| tensor  | dtype              | shape      | meaning                                              |
|---------|--------------------|------------|------------------------------------------------------|
| codes   | uint8              | (K, N)     | q, 0..15                                             |
| zeros   | uint8              | (G, N)     | z, 0..15; absent when symmetric, where z = 8         |
| qweight | int32              | (K / 8, N) | bits 4i..4i+3 of word [r, n]: code of row 8r + i     |
| qzeros  | int32              | (G, N / 8) | bits 4i..4i+3 of word [g, c]: zero of column 8c + i  |
| scales  | fp16, bf16 or fp32 | (G, N)     | s, finite; a negative scale mirrors the range        |

    w[n, k] = (q[k, n] - z[k // group_size, n]) * s[k // group_size, n]
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from marlin.errors import InvalidArgumentError

__all__ = [
    "BITS",
    "CODES_PER_WORD",
    "EMPTY_SCALE",
    "FLOAT_DTYPES",
    "GROUP_SIZES",
    "MAX_CODE",
    "SYMMETRIC_ZERO",
    "ZERO_WORD",
    "QuantizedWeight",
    "check_group_size",
    "check_layout",
    "check_scales",
    "dequantize",
    "dequantize_codes",
    "dtype_name",
    "group_rows",
    "linear",
    "pack_codes",
    "pack_zeros",
    "padded_in_features",
    "padded_out_features",
    "unpack_codes",
    "unpack_zeros",
]

GROUP_SIZES = (32, 64, 128, -1)
FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
BITS = 4
CODES_PER_WORD = 8
MAX_CODE = 15
SYMMETRIC_ZERO = 8
ROW_MULTIPLE = 32  # the step in which every kernel walks K
COLUMN_MULTIPLE = 8  # the columns in a word of qzeros

# Eight codes (or zero points) of 8 in one int32: a word of weights that are zero.
ZERO_WORD = 0x88888888 - (1 << 32)

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


def pack_codes(codes: Tensor) -> Tensor:
    """Codes 0..15, any integer dtype (K, N) -> qweight int32 (K / 8, N)."""
    _check_codes("codes", codes)
    if codes.shape[0] % CODES_PER_WORD:
        raise InvalidArgumentError(
            f"`codes` must have a multiple of 8 rows, got shape {list(codes.shape)}."
        )
    words = codes[::CODES_PER_WORD].to(torch.int32, copy=True)  # (k // 8, n)
    for i in range(1, CODES_PER_WORD):
        words |= codes[i::CODES_PER_WORD].to(torch.int32) << (BITS * i)
    return words


def unpack_codes(qweight: Tensor) -> Tensor:
    """qweight int32 (K / 8, N) -> codes uint8 (K, N)."""
    _check_words("qweight", qweight)
    nibbles = [((qweight >> (BITS * i)) & MAX_CODE).to(torch.uint8) for i in range(CODES_PER_WORD)]
    return torch.stack(nibbles, dim=1).reshape(-1, qweight.shape[1])  # (k, n)


def pack_zeros(zeros: Tensor) -> Tensor:
    """Zero points 0..15, any integer dtype (G, N) -> qzeros int32 (G, N / 8)."""
    _check_codes("zeros", zeros)
    if zeros.shape[1] % CODES_PER_WORD:
        raise InvalidArgumentError(
            f"`zeros` must have a multiple of 8 columns, got shape {list(zeros.shape)}."
        )
    return pack_codes(zeros.t()).t().contiguous()  # (groups, n // 8)


def unpack_zeros(qzeros: Tensor) -> Tensor:
    """qzeros int32 (G, N / 8) -> zero points uint8 (G, N)."""
    _check_words("qzeros", qzeros)
    return unpack_codes(qzeros.t()).t().contiguous()  # (groups, n)


def dequantize(qweight: Tensor, scales: Tensor, qzeros: Tensor | None, group_size: int) -> Tensor:
    """The weight (N, K) that plain tensors stand for, in the dtype of `scales`, rounded once."""
    check_layout(qweight, scales, qzeros, group_size)
    zeros = None if qzeros is None else unpack_zeros(qzeros)
    return dequantize_codes(QuantizedWeight(unpack_codes(qweight), scales, zeros))


def dequantize_codes(weight: QuantizedWeight) -> Tensor:
    """The weight (N, K) of codes, scales and zeros, in the dtype of the scales, rounded once."""
    codes, scales, zeros = weight
    size_k, size_n = codes.shape
    grouped = codes.view(scales.shape[0], -1, size_n).float()  # (groups, rows, n)
    zero = SYMMETRIC_ZERO if zeros is None else zeros.unsqueeze(1)
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
) -> Tensor:
    """`a` (..., k <= K) times the quantised weight, plus `bias` (N,): (..., N) in `a`'s dtype.

    Weights are not rounded to the dtype of the scales, sums are fp32, the result is rounded once.
    Columns that `a` lacks count as zero.
    """
    weight = dequantize(qweight, scales.float(), qzeros, group_size)  # (n, k)
    if a.dtype not in FLOAT_DTYPES:
        raise InvalidArgumentError(
            f"`a` must be float16, bfloat16 or float32, got {dtype_name(a.dtype)}."
        )
    if a.ndim == 0 or a.shape[-1] > weight.shape[1]:
        raise InvalidArgumentError(
            f"`a` must have at most {weight.shape[1]} columns, got shape {list(a.shape)}."
        )
    bias = None if bias is None else bias.float()
    return functional.linear(a.float(), weight[:, : a.shape[-1]], bias).to(a.dtype)


def check_group_size(group_size: int) -> None:
    """Raises InvalidArgumentError unless `group_size` is one of GROUP_SIZES."""
    if isinstance(group_size, bool) or group_size not in GROUP_SIZES:
        raise InvalidArgumentError(
            "`group_size` must be 32, 64, 128 or -1 (one group for a whole column), "
            f"got {group_size!r}."
        )


def check_layout(
    qweight: Tensor, scales: Tensor, qzeros: Tensor | None, group_size: int, *, owner: str = ""
) -> tuple[int, int]:
    """(N, K) of tensors in the plain layout; raises InvalidArgumentError where they do not fit.

    owner: goes before the tensors' names in a message, for instance "model.layers.0.".
    """
    check_group_size(group_size)
    _check_words(f"{owner}qweight", qweight)
    size_k, size_n = qweight.shape[0] * CODES_PER_WORD, qweight.shape[1]
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
    zeros_shape = (groups, size_n // CODES_PER_WORD)
    if qzeros is not None and (qzeros.dtype != torch.int32 or qzeros.shape != zeros_shape):
        raise InvalidArgumentError(
            f"`{owner}qzeros` must be int32 of shape {list(zeros_shape)}, "
            f"got {dtype_name(qzeros.dtype)} of shape {list(qzeros.shape)}."
        )
    return size_n, size_k


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


def dtype_name(dtype: torch.dtype) -> str:
    """The dtype as messages and files spell it: "float16", not "torch.float16"."""
    return str(dtype).removeprefix("torch.")


def _check_codes(name: str, codes: Tensor) -> None:
    if codes.ndim != 2 or codes.is_floating_point() or codes.dtype == torch.bool:
        raise InvalidArgumentError(
            f"`{name}` must be a matrix of integers, "
            f"got {dtype_name(codes.dtype)} of shape {list(codes.shape)}."
        )
    if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) > MAX_CODE):
        raise InvalidArgumentError(
            f"`{name}` must lie in 0..15, got values in {int(codes.min())}..{int(codes.max())}."
        )


def _check_words(name: str, words: Tensor) -> None:
    if words.ndim != 2 or words.dtype != torch.int32:
        raise InvalidArgumentError(
            f"`{name}` must be an int32 matrix, "
            f"got {dtype_name(words.dtype)} of shape {list(words.shape)}."
        )
