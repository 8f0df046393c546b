"""The one table of shapes: Linear layers of Llama-3, as in_features x out_features."""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "GPU_ROWS",
    "GPU_SETS",
    "GROUP_SIZES",
    "ROWS",
    "SETS",
    "LinearShape",
]


class LinearShape(NamedTuple):
    """One Linear: K = in_features, N = out_features."""

    layer: str
    k: int
    n: int

    def __str__(self) -> str:
        return f"{self.k}x{self.n}"


SQUARE = LinearShape("q_proj, o_proj", 4096, 4096)
SMALL = LinearShape("k_proj, v_proj", 4096, 1024)
WIDE = LinearShape("gate_proj, up_proj", 4096, 14336)
TALL = LinearShape("down_proj", 14336, 4096)

# `--shapes`: "goals" are those that goals.py speaks of, "llama" all Linears of a layer.
SETS = {"goals": (SQUARE, WIDE, TALL), "llama": (SQUARE, SMALL, WIDE, TALL), "quick": (SQUARE,)}

ROWS = (1, 4, 16, 64, 128, 512)  # m: decode of a few sequences up to prefill of a prompt

GROUP_SIZES = (32, 64, 128)

# On a GPU, as it serves them: q, k and v in one product, gate and up in one.
GPU_8B = (
    LinearShape("8B qkv", 4096, 6144),
    LinearShape("8B o", 4096, 4096),
    LinearShape("8B gate_up", 4096, 28672),
    LinearShape("8B down", 14336, 4096),
)
GPU_70B = (
    LinearShape("70B qkv", 8192, 10240),
    LinearShape("70B o", 8192, 8192),
    LinearShape("70B gate_up", 8192, 57344),
    LinearShape("70B down", 28672, 8192),
)
# "sizes": from what a GPU reads in a few microseconds to a hundred times of that.
GPU_SETS = {
    "8b": GPU_8B,
    "70b": GPU_70B,
    "llama": (*GPU_8B, *GPU_70B),
    "quick": (GPU_8B[1], GPU_8B[2], GPU_70B[1]),
    "sizes": (
        LinearShape("2K square", 2048, 2048),
        LinearShape("2K x 4K", 2048, 4096),
        *GPU_8B,
        *GPU_70B,
        LinearShape("16K square", 16384, 16384),
    ),
}

GPU_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
