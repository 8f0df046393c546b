"""The one table of shapes: Linear layers of Llama-3-8B, as in_features x out_features."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["GROUP_SIZES", "ROWS", "SETS", "LinearShape"]


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
