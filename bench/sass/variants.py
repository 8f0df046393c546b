"""The kernels of gemm.cu by their mangled names, and what csrc/cuda/gemm_plan.h gives them."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / folder) for folder in ("test/gpu", "test/ptx", "csrc")]

from plan import TileShape, tile_shape  # noqa: E402

__all__ = ["Variant"]

TILE_DEPTH = 128  # kTileDepth of layout.h
BLOCK_COLUMNS = 64  # kBlockColumns
STEPS = 8  # kTileSteps
CHUNK_BYTES = 16  # of one asynchronous copy of a lane; zero points are copied in words
WORD_BYTES = 4
WARP = 32

_NAME = re.compile(
    r"gemmI\w*?ShapeI(?P<scalar>6__half|13__nv_bfloat16)"
    r"Li(?P<bits>\d)ELi(?P<rows>\d+)ELi(?P<group>\d+)ELb(?P<zeros>[01])E"
)


@dataclass(frozen=True, order=True)
class Variant:
    """One instantiation of the kernel; group_rows 0 is one scale for each column."""

    scalar: str
    bits: int
    rows: int
    group_rows: int
    has_zeros: bool

    @classmethod
    def of_name(cls, name: str) -> Variant | None:
        """None for a kernel that is no gemm."""
        match = _NAME.search(name)
        if match is None:
            return None
        scalar = "half" if match["scalar"] == "6__half" else "bfloat16"
        bits, rows, group = (int(match[part]) for part in ("bits", "rows", "group"))
        return cls(scalar, bits, rows, group, match["zeros"] == "1")

    @cached_property
    def shape(self) -> TileShape:
        return tile_shape(
            *(self.bits, self.rows, self.group_rows),
            has_zeros=self.has_zeros,
            is_bfloat16=self.scalar == "bfloat16",
        )

    @property
    def threads(self) -> int:
        return WARP * self.shape.warps

    @property
    def tile_words(self) -> int:
        """Words that a lane opens in a tile, or half of each."""
        columns = max(self.shape.warp_columns, BLOCK_COLUMNS)
        return TILE_DEPTH * columns * self.bits // 32 // WARP

    @property
    def word_warps(self) -> int:
        """Warps that open the same words: each for rows of its own, or half of each word."""
        return self.shape.row_warps * max(1, BLOCK_COLUMNS // self.shape.warp_columns)

    @property
    def streamed_bytes(self) -> int:
        """What comes from memory for a stage; the activations are in the second-level cache."""
        zeros = self.shape.scale_bytes // 4 if self.has_zeros else 0
        return self.shape.weight_bytes + self.shape.scale_bytes + zeros

    @property
    def copies(self) -> int:
        """Asynchronous copies of a warp for a tile: of those warps that take part in all."""
        weights = self.shape.slices * self.shape.weight_bytes
        activations = self.rows * TILE_DEPTH * 2
        shared_out = (weights + activations) // self.threads
        return shared_out // CHUNK_BYTES + self._scale_copies * (2 if self.has_zeros else 1)

    @property
    def _scale_copies(self) -> int:
        """With each slice in which groups begin, so many lanes copy those of a warp's blocks."""
        if not self.group_rows:
            return 0
        groups = max(1, TILE_DEPTH // self.shape.slices // self.group_rows)
        lanes = groups * max(self.shape.warp_columns, BLOCK_COLUMNS) // 8
        return TILE_DEPTH // (groups * self.group_rows) * -(-lanes // WARP)

    @property
    def products(self) -> int:
        """HMMA of a warp for a tile, where each does its share of those with constants."""
        row_tiles = max(1, self.rows // self.shape.row_warps // 16)
        columns = self.shape.warp_columns // (16 if self.rows == 8 else 8)
        # Needed only once, at the end, they are shared out over the warps.
        constant_tiles = row_tiles if self.group_rows else 1
        constants = STEPS * constant_tiles * (2 if self.has_zeros else 1)
        if self.shape.scales_weights:
            constants = 0
        return STEPS * row_tiles * columns + constants
