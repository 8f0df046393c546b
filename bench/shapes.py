"""The one table of shapes: Linear layers of Llama-3-8B, as in_features x out_features."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["LLAMA_3_8B", "ROWS", "LinearShape"]


class LinearShape(NamedTuple):
    """One Linear: K = in_features, N = out_features."""

    layer: str
    k: int
    n: int

    def __str__(self) -> str:
        return f"{self.k}x{self.n}"


LLAMA_3_8B = (
    LinearShape("q_proj, o_proj", 4096, 4096),
    LinearShape("k_proj, v_proj", 4096, 1024),
    LinearShape("gate_proj, up_proj", 4096, 14336),
    LinearShape("down_proj", 14336, 4096),
)

ROWS = (1, 4, 16, 64, 128, 512)  # m: decode of a few sequences up to prefill of a prompt
