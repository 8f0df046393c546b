"""The kernels of gemm.cu by their mangled names, and what csrc/cuda/gemm_plan.cpp gives them."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["STEP_WORDS", "Variant"]

TILE_DEPTH = 128  # kTileDepth of gemm_plan.h
WARPS = 4  # kWarps of gemm_plan.h
WARP_COLUMNS = 64  # kWarpColumns of layout.h
CHUNK_BYTES = 16  # of one asynchronous copy of a lane; zero points are copied in words
WORD_BYTES = 4

# Words that a lane opens in a tile.
STEP_WORDS = TILE_DEPTH * WARP_COLUMNS // 8 // 32

_NAME = re.compile(
    r"gemmI\w*?ShapeI(?P<scalar>6__half|13__nv_bfloat16)"
    r"Li(?P<rows>\d+)ELi(?P<group>\d+)ELb(?P<zeros>[01])E"
)


@dataclass(frozen=True, order=True)
class Variant:
    """One instantiation of the kernel; group_rows 0 is one scale for each column."""

    scalar: str
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
        return cls(scalar, int(match["rows"]), int(match["group"]), match["zeros"] == "1")

    @property
    def stages(self) -> int:
        """stages_of of gemm_plan.h."""
        has_many_scales = self.group_rows in (32, 64)
        if self.rows == 64:
            return 2 if has_many_scales else 3
        return 3 if self.rows == 32 and has_many_scales else 4

    @property
    def threads(self) -> int:
        return WARPS * 32 * self.warps_of_columns

    @property
    def warps_of_columns(self) -> int:
        """Warps that all open the same weights: row_warps_of of gemm_plan.h."""
        return 2 if self.rows == 64 else 1

    @property
    def weight_bytes(self) -> int:
        """Of a stage, as all below."""
        return TILE_DEPTH * WARPS * WARP_COLUMNS // 2

    @property
    def activation_bytes(self) -> int:
        return self.rows * TILE_DEPTH * 2

    @property
    def scale_bytes(self) -> int:
        return self._groups * WARPS * WARP_COLUMNS * 2

    @property
    def zero_bytes(self) -> int:
        return self._groups * WARPS * WARP_COLUMNS // 2 if self.has_zeros else 0

    @property
    def streamed_bytes(self) -> int:
        """What comes from memory; the activations are in the second-level cache."""
        return self.weight_bytes + self.scale_bytes + self.zero_bytes

    @property
    def shared_bytes(self) -> int:
        """Of a block, all stages."""
        return self.stages * (self.streamed_bytes + self.activation_bytes)

    @property
    def copies(self) -> int:
        """Asynchronous copies of a warp for a tile: of those warps that take part in all."""
        parts = (
            (self.weight_bytes, CHUNK_BYTES),
            (self.activation_bytes, CHUNK_BYTES),
            (self.scale_bytes, CHUNK_BYTES),
            (self.zero_bytes, WORD_BYTES),
        )
        return sum(-(-total // (each * self.threads)) for total, each in parts)

    @property
    def _groups(self) -> int:
        return TILE_DEPTH // self.group_rows if self.group_rows else 0
