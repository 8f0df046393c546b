"""Codes of 4 or 8 bits in words of int32: the packing along K, and that of zero points along N.

Knows no scale, group or activation; primitives.py says what the codes mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marlin.errors import InvalidArgumentError, UnsupportedError

__all__ = [
    "CODE_BITS",
    "ZEROS_PER_WORD",
    "ZERO_POINT_BITS",
    "check_bits",
    "check_symmetric",
    "check_words",
    "codes_per_word",
    "dtype_name",
    "max_code",
    "pack_codes",
    "pack_known_codes",
    "pack_zeros",
    "symmetric_zero",
    "unpack_codes",
    "unpack_zeros",
    "zero_word",
]

CODE_BITS = (4, 8)
WORD_BITS = 32
ZERO_POINT_BITS = 4
ZEROS_PER_WORD = WORD_BITS // ZERO_POINT_BITS


def codes_per_word(bits: int) -> int:
    """Codes, of neighbouring rows, in a word of qweight."""
    return WORD_BITS // bits


def max_code(bits: int) -> int:
    """The largest code; the smallest is 0."""
    return (1 << bits) - 1


def symmetric_zero(bits: int) -> int:
    """The code of a weight of zero in a symmetric weight."""
    return 1 << (bits - 1)


def zero_word(bits: int) -> int:
    """The int32 of qweight (for 4 bits also of qzeros) whose codes are all `symmetric_zero`."""
    ones = ((1 << WORD_BITS) - 1) // max_code(bits)
    return symmetric_zero(bits) * ones - (1 << WORD_BITS)


def pack_codes(codes: Tensor, bits: int = 4) -> Tensor:
    """Codes of `bits`, any integer dtype (K, N) -> qweight int32 (K * bits / 32, N)."""
    _check_codes("codes", codes, bits)
    return pack_known_codes(codes, bits)


def pack_known_codes(codes: Tensor, bits: int = 4) -> Tensor:
    """`pack_codes` of codes that came out of words: nobody looks at a value, to wait for a GPU."""
    per_word = codes_per_word(bits)
    if codes.shape[0] % per_word:
        raise InvalidArgumentError(
            f"`codes` must have a multiple of {per_word} rows, got shape {list(codes.shape)}."
        )
    words = codes[::per_word].to(torch.int32, copy=True)  # (k // per_word, n)
    for i in range(1, per_word):
        words |= codes[i::per_word].to(torch.int32) << (bits * i)
    return words


def unpack_codes(qweight: Tensor, bits: int = 4) -> Tensor:
    """qweight int32 (K * bits / 32, N) -> codes uint8 (K, N)."""
    check_words("qweight", qweight)
    codes = [
        ((qweight >> (bits * i)) & max_code(bits)).to(torch.uint8)
        for i in range(codes_per_word(bits))
    ]
    return torch.stack(codes, dim=1).reshape(-1, qweight.shape[1])  # (k, n)


def pack_zeros(zeros: Tensor) -> Tensor:
    """Zero points 0..15, any integer dtype (G, N) -> qzeros int32 (G, N / 8)."""
    _check_codes("zeros", zeros, ZERO_POINT_BITS)
    if zeros.shape[1] % ZEROS_PER_WORD:
        raise InvalidArgumentError(
            f"`zeros` must have a multiple of 8 columns, got shape {list(zeros.shape)}."
        )
    return pack_known_codes(zeros.t()).t().contiguous()  # (groups, n // 8)


def unpack_zeros(qzeros: Tensor) -> Tensor:
    """qzeros int32 (G, N / 8) -> zero points uint8 (G, N)."""
    check_words("qzeros", qzeros)
    return unpack_codes(qzeros.t()).t().contiguous()  # (groups, n)


def check_bits(bits: int) -> None:
    """Raises UnsupportedError unless there are kernels for codes of `bits`."""
    if type(bits) is not int or bits not in CODE_BITS:
        raise UnsupportedError(f"`bits` must be 4 or 8, got {bits!r}.")


def check_symmetric(symmetric: bool, bits: int, *, owner: str = "") -> None:
    """Raises UnsupportedError for zero points beside codes that have none.

    owner: goes before the name in a message.
    """
    if not symmetric and bits != ZERO_POINT_BITS:
        raise UnsupportedError(
            f"`{owner}symmetric` must be true with {bits} bits, got {symmetric!r}."
        )


def check_words(name: str, words: Tensor) -> None:
    """Raises InvalidArgumentError unless `words` is a matrix of int32."""
    if words.ndim != 2 or words.dtype != torch.int32:
        raise InvalidArgumentError(
            f"`{name}` must be an int32 matrix, "
            f"got {dtype_name(words.dtype)} of shape {list(words.shape)}."
        )


def dtype_name(dtype: torch.dtype) -> str:
    """The dtype as messages and files spell it: "float16", not "torch.float16"."""
    return str(dtype).removeprefix("torch.")


def _check_codes(name: str, codes: Tensor, bits: int) -> None:
    if codes.ndim != 2 or codes.is_floating_point() or codes.dtype == torch.bool:
        raise InvalidArgumentError(
            f"`{name}` must be a matrix of integers, "
            f"got {dtype_name(codes.dtype)} of shape {list(codes.shape)}."
        )
    if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) > max_code(bits)):
        raise InvalidArgumentError(
            f"`{name}` must lie in 0..{max_code(bits)}, "
            f"got values in {int(codes.min())}..{int(codes.max())}."
        )
