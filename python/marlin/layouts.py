"""Conversions between layouts of quantised weights: padding, and the one published with Marlin.

Knows the plain layout of primitives.py and no compiled operator; the packed layouts of the devices
belong to the operators (`ops.repack`).

The Marlin layout, for K % 16 == 0 and N % 64 == 0: the codes (K, N) are cut into blocks of 16 rows
and 64 columns; a block is 128 words, in row-major order of blocks: `B` int32 (K / 16, 2 * N).
In a block, word 4t + j belongs to thread t of a warp and to tile j, which is columns 16j..16j+15.
Its nibbles 0..7 are the codes that the thread feeds to one tensor-core instruction: with
c = 16j + t // 4 and r = 2 * (t % 4), those of
    (r, c) (r+8, c) (r, c+8) (r+8, c+8) (r+1, c) (r+9, c) (r+1, c+8) (r+9, c+8).
Zero points are always 8. Scales `s` (G, N) are permuted along N: with several groups, each run of
64 columns is an 8 x 8 matrix, transposed; with one, each run of 32 is
columns 2i + (0, 1, 8, 9, 16, 17, 24, 25) for i = 0..3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from marlin.errors import InvalidArgumentError
from marlin.primitives import (
    EMPTY_SCALE,
    codes_per_word,
    dtype_name,
    pack_known_codes,
    padded_in_features,
    padded_out_features,
    symmetric_zero,
    unpack_codes,
    unpack_zeros,
)

__all__ = [
    "marlin_scales_to_plain",
    "marlin_to_plain",
    "pad_plain",
    "plain_scales_to_marlin",
    "plain_to_marlin",
]

TILE = 16
BLOCK_COLUMNS = 64
WARP_THREADS = 32

CODES_PER_WORD = codes_per_word(4)  # of the published layout


def pad_plain(
    qweight: Tensor, scales: Tensor, qzeros: Tensor | None, group_size: int, bits: int = 4
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Plain tensors grown to the sizes that the kernels take: added weights are zero.

    A last group with fewer than `group_size` rows is filled up. Tensors that need no padding, or
    whose shapes do not belong together, come back as they are.
    """
    if qweight.ndim != 2 or scales.ndim != 2 or qweight.dtype != torch.int32:
        return qweight, scales, qzeros
    size_k, size_n = qweight.shape[0] * codes_per_word(bits), qweight.shape[1]
    rows = padded_in_features(size_k, group_size) - size_k
    columns = padded_out_features(size_n) - size_n
    if not rows and not columns:
        return qweight, scales, qzeros
    codes = unpack_codes(qweight, bits)
    zero = symmetric_zero(bits)
    if qzeros is None:
        codes = functional.pad(codes, (0, columns, 0, rows), value=zero)
    else:
        zeros = unpack_zeros(qzeros)[:, :size_n]
        filler = zeros[-1:].expand(rows, size_n)
        codes = torch.cat([codes, filler])  # (k, size_n)
        codes = functional.pad(codes, (0, columns), value=zero)
        zeros = functional.pad(zeros, (0, columns), value=zero)
        qzeros = pack_known_codes(zeros.t()).t().contiguous()
    scales = functional.pad(scales, (0, columns), value=EMPTY_SCALE)
    return pack_known_codes(codes, bits), scales, qzeros


def plain_to_marlin(qweight: Tensor) -> Tensor:
    """Plain qweight int32 (K / 8, N), symmetric -> `B` int32 (K / 16, 2 * N)."""
    _check_matrix("qweight", qweight, CODES_PER_WORD)
    codes = unpack_codes(qweight)
    size_k, size_n = codes.shape
    order = _block_order(qweight.device)
    blocks = codes.view(size_k // TILE, TILE, size_n // BLOCK_COLUMNS, BLOCK_COLUMNS)
    flat = blocks.transpose(1, 2).reshape(size_k // TILE, -1, TILE * BLOCK_COLUMNS)
    words = flat[..., order].reshape(-1, CODES_PER_WORD)  # one word a row, nibble 0 first
    return pack_known_codes(words.t()).view(size_k // TILE, 2 * size_n)


def marlin_to_plain(packed: Tensor) -> Tensor:
    """`B` int32 (K / 16, 2 * N) -> plain qweight int32 (K / 8, N); inverse of plain_to_marlin."""
    _check_matrix("B", packed, TILE)
    size_k, size_n = packed.shape[0] * TILE, packed.shape[1] // 2
    order = _block_order(packed.device)
    nibbles = unpack_codes(packed.reshape(1, -1)).t()  # (words, 8)
    flat = nibbles.reshape(size_k // TILE, -1, TILE * BLOCK_COLUMNS)
    blocks = flat[..., order.argsort()].view(size_k // TILE, -1, TILE, BLOCK_COLUMNS)
    return pack_known_codes(blocks.transpose(1, 2).reshape(size_k, size_n))


def plain_scales_to_marlin(scales: Tensor) -> Tensor:
    """Scales (G, N) -> `s` (G, N), permuted along N."""
    order = _scale_order(scales)
    return scales.reshape(-1, len(order))[:, order].reshape(scales.shape).contiguous()


def marlin_scales_to_plain(scales: Tensor) -> Tensor:
    """`s` (G, N) -> scales (G, N); inverse of plain_scales_to_marlin."""
    order = _scale_order(scales).argsort()
    return scales.reshape(-1, len(order))[:, order].reshape(scales.shape).contiguous()


def _block_order(device: torch.device) -> Tensor:
    """Where each of the 1024 nibbles of a block lies in the block of codes, int64 (1024,)."""
    thread = torch.arange(WARP_THREADS, device=device).view(-1, 1, 1)
    tile = torch.arange(BLOCK_COLUMNS // TILE, device=device).view(1, -1, 1)
    nibble = torch.arange(CODES_PER_WORD, device=device).view(1, 1, -1)
    row = 2 * (thread % 4) + 8 * (nibble % 2) + nibble // 4
    column = TILE * tile + thread // 4 + 8 * (nibble // 2 % 2)
    return (row * BLOCK_COLUMNS + column).flatten()


def _scale_order(scales: Tensor) -> Tensor:
    if scales.ndim != 2 or scales.shape[0] == 0 or scales.shape[1] % BLOCK_COLUMNS:
        raise InvalidArgumentError(
            "`scales` must be a matrix (groups, N) with N a multiple of 64, "
            f"got shape {list(scales.shape)}."
        )
    if scales.shape[0] > 1:
        return torch.arange(BLOCK_COLUMNS, device=scales.device).view(8, 8).t().flatten()
    pair = torch.arange(8, device=scales.device)
    start = 8 * (pair // 2) + pair % 2  # 0, 1, 8, 9, 16, 17, 24, 25
    return (2 * torch.arange(4, device=scales.device).view(-1, 1) + start).flatten()


def _check_matrix(name: str, words: Tensor, rows_per_word: int) -> None:
    columns = BLOCK_COLUMNS * rows_per_word // CODES_PER_WORD
    rows = TILE // rows_per_word
    good = words.ndim == 2 and words.dtype == torch.int32 and words.numel() > 0
    if not good or words.shape[0] % rows or words.shape[1] % columns:
        raise InvalidArgumentError(
            f"`{name}` must be an int32 matrix with rows in multiples of {rows} and columns in "
            f"multiples of {columns}, got {dtype_name(words.dtype)} of shape {list(words.shape)}."
        )
