"""The packed layout of a GPU, defined once more in numpy: what csrc/cuda/layout.h says.

Codes are uint8 (K, N), 0..15, K a multiple of 16; packed words are uint32 (ceil(N / 64), K / 16,
128), word 4l + j of a step being word j of lane l. Columns beyond N hold code 8.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["COLUMNS", "PADDING_CODE", "STEP_ROWS", "STEP_WORDS", "pack", "unpack"]

COLUMNS = 64  # of a block
STEP_ROWS = 16
STEP_WORDS = 128
PADDING_CODE = 8  # a weight of zero where there are no zero points

# The row 8a + 2t + e of a step and the column 16p + 8b + q of a block, as axes of an array.
_ROW = (2, 4, 2)  # a, t, e
_COLUMN = (4, 2, 8)  # p, b, q

# Axes (block, step, a, t, e, p, b, q) in the order of memory: lane 4q + t, word b + 2a, and the
# nibble p + 4e.
_ORDER = (0, 1, 7, 3, 2, 6, 4, 5)


def pack(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Codes (K, N) as packed words."""
    size_k, size_n = codes.shape
    blocks, steps = -(-size_n // COLUMNS), size_k // STEP_ROWS
    padded = np.full((size_k, blocks * COLUMNS), PADDING_CODE, np.uint8)
    padded[:, :size_n] = codes
    tiles = padded.reshape(steps, STEP_ROWS, blocks, COLUMNS).transpose(2, 0, 1, 3)
    stored = _complement(tiles.reshape(blocks, steps, *_ROW, *_COLUMN))
    nibbles = np.ascontiguousarray(stored.transpose(_ORDER)).reshape(blocks, steps, STEP_WORDS, 8)
    pairs = nibbles[..., 0::2] | nibbles[..., 1::2] << 4  # bytes of a word, the lowest first
    return np.ascontiguousarray(pairs).view("<u4")[..., 0]


def unpack(packed: npt.NDArray[np.uint32], size_n: int) -> npt.NDArray[np.uint8]:
    """The codes (K, N) in packed words: the inverse of `pack`."""
    blocks, steps, _ = packed.shape
    pairs = np.ascontiguousarray(packed, "<u4")[..., None].view(np.uint8)
    nibbles = np.stack([pairs & 15, pairs >> 4], axis=-1)  # (blocks, steps, words, 4, 2)
    shape = (*_ROW, *_COLUMN)
    ordered = nibbles.reshape(blocks, steps, *(shape[axis - 2] for axis in _ORDER[2:]))
    codes = _complement(ordered.transpose(np.argsort(_ORDER)))
    tiles = codes.reshape(blocks, steps, STEP_ROWS, COLUMNS).transpose(1, 2, 0, 3)
    return tiles.reshape(steps * STEP_ROWS, -1)[:, :size_n].copy()


def _complement(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A copy with one row of each pair as 15 - code: the odd one where the step's number has an
    even number of ones, else the even one."""
    parities = [int(step).bit_count() % 2 for step in range(codes.shape[1])]
    odd_ones = np.asarray(parities) == 0
    complemented = odd_ones[:, None] == np.array([False, True])  # (steps, e)
    return (
        codes ^ np.where(complemented, 15, 0).astype(np.uint8)[:, None, None, :, None, None, None]
    )
