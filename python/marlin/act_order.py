"""Activation order: rows that are quantised in another order than the one they are stored in.

A GPTQ checkpoint with `desc_act` stores the rows of `qweight` as the model has them, and in `g_idx`
int32 (K,) the group of each. Kernels want the rows of a group side by side, and in `perm` int32
(K,) the column of the activations that each row meets:

    perm = stable argsort of g_idx        qweight of the kernel, row i = plain row perm[i]

Knows the plain layout of primitives.py.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from marlin.errors import InvalidArgumentError
from marlin.primitives import dtype_name, pack_known_codes, unpack_codes

__all__ = ["check_g_idx", "group_order", "has_order", "pad_g_idx", "sort_rows", "unsort_rows"]


def check_g_idx(g_idx: Tensor, size_k: int, num_groups: int, *, owner: str = "") -> None:
    """Raises InvalidArgumentError unless `g_idx` puts K / G rows in each group.

    owner: goes before the name in a message, for instance "model.layers.0.".
    """
    name = f"{owner}g_idx"
    if g_idx.dtype != torch.int32 or g_idx.shape != (size_k,):
        raise InvalidArgumentError(
            f"`{name}` must be int32 of shape [{size_k}], "
            f"got {dtype_name(g_idx.dtype)} of shape {list(g_idx.shape)}."
        )
    if g_idx.is_meta:
        return
    outside = (g_idx < 0) | (g_idx >= num_groups)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise InvalidArgumentError(
            f"`{name}` must hold groups in 0..{num_groups - 1}, got {int(g_idx[row])} at row {row}."
        )
    counts = torch.bincount(g_idx, minlength=num_groups)
    uneven = counts != size_k // num_groups
    if bool(uneven.any()):
        group = int(uneven.nonzero()[0])
        raise InvalidArgumentError(
            f"`{name}` must put {size_k // num_groups} rows in each group, "
            f"got {int(counts[group])} in group {group}."
        )


def has_order(g_idx: Tensor) -> bool:
    """False where the rows of every group are neighbours already, in the order of the groups."""
    return bool((g_idx[1:] < g_idx[:-1]).any())


def group_order(g_idx: Tensor) -> Tensor:
    """`perm` int32 (K,): where the rows of the first group are, then those of the next."""
    return g_idx.argsort(stable=True).to(torch.int32)


def pad_g_idx(g_idx: Tensor, size_k: int, num_groups: int) -> Tensor:
    """`g_idx` with the rows that padding adds, which fill up the last group."""
    return functional.pad(g_idx, (0, max(0, size_k - g_idx.shape[0])), value=num_groups - 1)


def sort_rows(qweight: Tensor, perm: Tensor, bits: int) -> Tensor:
    """Plain words (K * bits / 32, N) with the rows of each group side by side."""
    return pack_known_codes(unpack_codes(qweight, bits)[perm.long()], bits)


def unsort_rows(qweight: Tensor, perm: Tensor, bits: int) -> Tensor:
    """The inverse of `sort_rows`."""
    return pack_known_codes(unpack_codes(qweight, bits)[perm.argsort()], bits)
