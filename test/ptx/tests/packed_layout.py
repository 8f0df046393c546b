"""The packed layout of a GPU, defined once more in numpy: what csrc/cuda/layout.h says.

Codes are uint8 (K, N) of 4 or 8 bits, K a multiple of 16; packed words are uint32
(ceil(N / 64), ceil(K / 128) * 8, 32 * bits), in a step first the four words of each lane that lie
together, then, with 8 bits, four more. Rows beyond K and columns beyond N hold the code of zero.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["COLUMNS", "STEPS", "STEP_ROWS", "pack", "packed_shape", "padding_code", "unpack"]

COLUMNS = 64  # of a block
STEP_ROWS = 16
STEPS = 8  # of a tile
LANES = 32

# The row 8a + 2t + e of a step and the column 8q + 2p + b of a block, as axes of an array.
_ROW = (2, 4, 2)  # a, t, e
_COLUMN = (8, 4, 2)  # q, p, b

Codes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]


def padding_code(bits: int) -> int:
    """A weight of zero where there are no zero points."""
    return 1 << (bits - 1)


def packed_shape(size_k: int, size_n: int, bits: int = 4) -> tuple[int, int, int]:
    """Blocks of columns, steps, words of a step."""
    steps = -(-size_k // (STEP_ROWS * STEPS)) * STEPS
    return -(-size_n // COLUMNS), steps, LANES * bits


def pack(codes: Codes, bits: int = 4) -> Words:
    """Codes (K, N) as packed words."""
    size_k, size_n = codes.shape
    blocks, steps, words = packed_shape(size_k, size_n, bits)
    padded = np.full((steps * STEP_ROWS, blocks * COLUMNS), padding_code(bits), np.uint8)
    padded[:size_k, :size_n] = codes
    tiles = padded.reshape(steps, STEP_ROWS, blocks, COLUMNS).transpose(2, 0, 1, 3)
    stored = _complement(tiles.reshape(blocks, steps, *_ROW, *_COLUMN), bits)
    # Memory has parts c of p, lanes 4q + t, words b + 2a, then e and the rest of p from the lowest
    # bits on: axes (block, step, a, t, e, q, p / kinds, p % kinds, b).
    kinds = 16 // bits
    split = stored.reshape(blocks, steps, *_ROW, 8, 4 // kinds, kinds, 2)
    ordered = split.transpose(0, 1, 6, 5, 3, 2, 8, 4, 7).reshape(blocks, steps, words, 32 // bits)
    packed = np.zeros((blocks, steps, words), np.uint32)
    for i in range(32 // bits):
        packed |= ordered[..., i].astype(np.uint32) << np.uint32(bits * i)
    return packed


def unpack(packed: Words, size_k: int, size_n: int, bits: int = 4) -> Codes:
    """The codes (K, N) in packed words: the inverse of `pack`."""
    blocks, steps, _ = packed.shape
    kinds = 16 // bits
    shifts = np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits)
    codes = (packed[..., None] >> shifts & np.uint32(2**bits - 1)).astype(np.uint8)
    ordered = codes.reshape(blocks, steps, 4 // kinds, 8, 4, 2, 2, 2, kinds)
    split = ordered.transpose(np.argsort((0, 1, 6, 5, 3, 2, 8, 4, 7)))
    tiles = _complement(split.reshape(blocks, steps, *_ROW, *_COLUMN), bits)
    rows = tiles.reshape(blocks, steps, STEP_ROWS, COLUMNS).transpose(1, 2, 0, 3)
    return rows.reshape(steps * STEP_ROWS, -1)[:size_k, :size_n].copy()


def _complement(codes: Codes, bits: int) -> Codes:
    """A copy with one row of each pair as its complement: the odd one where the step's number in
    its tile has an even number of ones, else the even one."""
    parities = [(step % STEPS).bit_count() % 2 for step in range(codes.shape[1])]
    odd_ones = np.asarray(parities) == 0
    complemented = odd_ones[:, None] == np.array([False, True])  # (steps, e)
    masks = np.where(complemented, 2**bits - 1, 0).astype(np.uint8)
    return codes ^ masks[:, None, None, :, None, None, None]
