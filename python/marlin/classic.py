"""The original Marlin interface, name for name: `mul`, `Layer`, `Layer.pack`, `replace_linear`.

Weights come in the published layout (layouts.py), fp16 and symmetric, and run through the same
operators as `Int4Linear`. They are converted to the device's packed layout once, and again after an
in-place change. Knows no model format.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from marlin import ops
from marlin.errors import InvalidArgumentError, UnsupportedError
from marlin.layouts import (
    marlin_scales_to_plain,
    marlin_to_plain,
    plain_scales_to_marlin,
    plain_to_marlin,
)
from marlin.primitives import (
    EMPTY_SCALE,
    check_scales,
    dtype_name,
    group_rows,
    max_code,
    pack_codes,
    symmetric_zero,
    zero_word,
)

__all__ = ["Layer", "mul", "replace_linear"]

BITS = 4
IN_FEATURES_MULTIPLE = 128
OUT_FEATURES_MULTIPLE = 256
GROUP_ROWS = 128
GROUP_SIZES = (-1, GROUP_ROWS)
TILE = 16
# The two shapes (k, n) of a thread block that the original kernel had, and its choice by itself.
THREAD_SHAPES = ((128, 128), (64, 256))
ANY_THREAD_SHAPE = (-1, -1)
WORKSPACE_COLUMNS = 128  # a lock per 128 columns and parallel problem
DEFAULT_MAX_PAR = 16


@dataclass(frozen=True)
class _Converted:
    """A weight in the packed layout of its device, and what it was made of."""

    stamps: tuple[tuple[int, int, torch.Size], ...]
    qweight: Tensor
    scales: Tensor


# By the id of `B`; an entry dies with its tensor.
_converted: dict[int, _Converted] = {}


def mul(
    A: Tensor,
    B: Tensor,
    C: Tensor,
    s: Tensor,
    workspace: Tensor,
    thread_k: int = -1,
    thread_n: int = -1,
    sms: int = -1,
    max_par: int = DEFAULT_MAX_PAR,
) -> None:
    """Multiplies fp16 activations by a 4-bit weight in the published layout, into `C`.

    With k a multiple of 128 and n of 128, or of 64 and 256, and G groups of 128 rows, or 1, on one
    device:

    A: fp16 (m, k).
    B: int32 (k / 16, 2 * n), codes of zero point 8.
    C: fp16 (m, n), written.
    s: fp16 (G, n), permuted.
    workspace: at least n / 128 * max_par zeros of any dtype; checked, and not needed here.
    thread_k, thread_n: -1 and -1, 128 and 128, or 64 and 256, of which k and n are multiples; sms,
        max_par: all of these tuned the original kernel. They are checked, and the operator makes
        its own choice.

    The conversion of `B` and `s` is kept as long as `B` lives and neither is changed in place;
    changes through `.data` or NumPy go unseen.
    """
    _check_device(A, B=B, C=C, s=s, workspace=workspace)
    size_n, size_k, group_size = _check_mul(A, B, C, s, (thread_k, thread_n))
    _check_workspace(workspace, size_n, max_par)
    weight = _packed(B, s, size_n, size_k)
    a = A.detach()
    C.copy_(ops.gemm(a, weight.qweight, weight.scales, None, None, size_n, size_k, group_size))


class Layer(nn.Module):
    """A 4-bit Linear without bias in the published layout; fp16.

    | buffer      | dtype | shape              |                                              |
    |-------------|-------|--------------------|----------------------------------------------|
    | `B`         | int32 | (k / 16, 2 * n)    | codes                                        |
    | `s`         | fp16  | (G, n)             | permuted scales                              |
    | `workspace` | int32 | (n / 128 * 16,)    | zeros; not in the state dict                 |

    infeatures: k, a multiple of 128.
    outfeatures: n, a multiple of 256.
    groupsize: 128, or -1 for one scale for each column.
    """

    B: Tensor
    s: Tensor
    workspace: Tensor

    def __init__(self, infeatures: int, outfeatures: int, groupsize: int = -1) -> None:
        super().__init__()
        if groupsize not in GROUP_SIZES:
            raise InvalidArgumentError(f"`groupsize` must be -1 or 128, got {groupsize!r}.")
        if infeatures <= 0 or infeatures % IN_FEATURES_MULTIPLE:
            raise InvalidArgumentError(
                f"`infeatures` must be a multiple of {IN_FEATURES_MULTIPLE}, got {infeatures}."
            )
        if outfeatures <= 0 or outfeatures % OUT_FEATURES_MULTIPLE:
            raise InvalidArgumentError(
                f"`outfeatures` must be a multiple of {OUT_FEATURES_MULTIPLE}, got {outfeatures}."
            )
        self.k = infeatures
        self.n = outfeatures
        self.groupsize = group_rows(infeatures, groupsize)
        groups = infeatures // self.groupsize
        # A layer that was not packed yet has a weight of zeros.
        shape = (infeatures // TILE, 2 * outfeatures)
        words = torch.full(shape, zero_word(BITS), dtype=torch.int32)
        locks = torch.zeros(outfeatures // WORKSPACE_COLUMNS * DEFAULT_MAX_PAR, dtype=torch.int32)
        self.register_buffer("B", words)
        self.register_buffer(
            "s", torch.full((groups, outfeatures), EMPTY_SCALE, dtype=torch.float16)
        )
        self.register_buffer("workspace", locks, persistent=False)

    def forward(self, A: Tensor) -> Tensor:
        """A: fp16 (..., k); returns fp16 (..., n)."""
        C = torch.empty((*A.shape[:-1], self.n), dtype=A.dtype, device=A.device)
        mul(A.reshape(-1, A.shape[-1]), self.B, C.view(-1, self.n), self.s, self.workspace)
        return C

    def pack(self, linear: nn.Linear, scales: Tensor) -> None:
        """Takes over the weight of `linear`, rounded with the given scales.

        linear: fp16, k -> n; a bias is left out, with a warning.
        scales: (n, G) in plain order, positive or negative, finite and not zero.
        """
        if linear.weight.dtype != torch.float16:
            raise InvalidArgumentError(
                f"`linear` must have a float16 weight, got {dtype_name(linear.weight.dtype)}."
            )
        if linear.weight.shape != (self.n, self.k):
            raise InvalidArgumentError(
                f"`linear` must have a weight of shape {[self.n, self.k]}, "
                f"got {list(linear.weight.shape)}."
            )
        if linear.bias is not None:
            warnings.warn("`linear` has a bias, which a Layer does not add.", stacklevel=2)
        groups = self.k // self.groupsize
        if scales.shape != (self.n, groups):
            raise InvalidArgumentError(
                f"`scales` must have shape {[self.n, groups]}, one column per group, "
                f"got {list(scales.shape)}."
            )
        scales = scales.detach().to(linear.weight.device, torch.float16)
        check_scales(scales.t())
        if bool((scales == 0).any()):
            raise InvalidArgumentError("`scales` must not be zero in float16, got one that is.")
        grouped = linear.weight.detach().float().view(self.n, groups, self.groupsize)
        if not bool(torch.isfinite(grouped).all()):
            raise InvalidArgumentError("`linear` must have a finite weight, got NaN or infinity.")
        steps = (grouped / scales.float().unsqueeze(-1)).round()
        codes = (steps + symmetric_zero(BITS)).clamp(0, max_code(BITS)).to(torch.uint8)
        self.B.copy_(plain_to_marlin(pack_codes(codes.view(self.n, self.k).t())))
        self.s.copy_(plain_scales_to_marlin(scales.t()))

    def extra_repr(self) -> str:
        return f"infeatures={self.k}, outfeatures={self.n}, groupsize={self.groupsize}"


def replace_linear(
    module: nn.Module,
    name_filter: Callable[[str], bool] = lambda n: True,
    groupsize: int = -1,
    name: str = "",
) -> None:
    """Replaces the Linears below `module` by empty `Layer`s, to be filled from a checkpoint.

    name_filter: gets the dotted name of each Linear; False leaves it.
    name: a prefix for the names.

    Nothing is replaced when a chosen Linear does not fit: it has a bias, or sizes that the layout
    cannot hold.
    """
    planned: list[tuple[nn.Module, str, Layer]] = []
    layers: dict[nn.Linear, Layer] = {}
    for path, parent in module.named_modules():
        for attribute, child in parent.named_children():
            full = ".".join(part for part in (name, path, attribute) if part)
            if not isinstance(child, nn.Linear) or not name_filter(full):
                continue
            if child.bias is not None:
                raise InvalidArgumentError(
                    f"`name_filter` must leave out Linears with a bias, which a Layer does not "
                    f"add, got `{full}`."
                )
            if child not in layers:
                try:
                    layers[child] = Layer(child.in_features, child.out_features, groupsize)
                except InvalidArgumentError as err:
                    raise InvalidArgumentError(f"Linear `{full}`: {err}") from err
            planned.append((parent, attribute, layers[child]))
    for parent, attribute, layer in planned:
        setattr(parent, attribute, layer)


def _check_device(A: Tensor, **others: Tensor) -> None:
    for name, tensor in others.items():
        if tensor.device != A.device:
            raise InvalidArgumentError(
                f"`{name}` must be on the device of `A`, {A.device}, got {tensor.device}."
            )


def _check_mul(
    A: Tensor, B: Tensor, C: Tensor, s: Tensor, thread_shape: tuple[int, int]
) -> tuple[int, int, int]:
    """(n, k, group size) of a product whose operands fit each other and the thread block."""
    for name, tensor in (("A", A), ("C", C), ("s", s)):
        if tensor.dtype != torch.float16 or tensor.ndim != 2:
            raise InvalidArgumentError(
                f"`{name}` must be a float16 matrix, "
                f"got {dtype_name(tensor.dtype)} of shape {list(tensor.shape)}."
            )
    (size_m, size_k), (rows, size_n) = A.shape, C.shape
    if rows != size_m:
        raise InvalidArgumentError(f"`C` must have {size_m} rows, got {rows}.")
    _check_thread_shape(thread_shape, size_k, size_n)
    if B.dtype != torch.int32 or B.shape != (size_k // TILE, 2 * size_n):
        raise InvalidArgumentError(
            f"`B` must be int32 of shape {[size_k // TILE, 2 * size_n]}, "
            f"got {dtype_name(B.dtype)} of shape {list(B.shape)}."
        )
    groups = size_k / GROUP_ROWS
    if s.shape[1] != size_n or s.shape[0] not in (1, groups):
        many = f", or {groups:.0f} for groups of {GROUP_ROWS}" if groups.is_integer() else ""
        raise InvalidArgumentError(
            f"`s` must have {size_n} columns and 1 row{many}, got shape {list(s.shape)}."
        )
    return size_n, size_k, -1 if s.shape[0] == 1 else GROUP_ROWS


def _check_thread_shape(asked: tuple[int, int], size_k: int, size_n: int) -> None:
    shapes = THREAD_SHAPES if asked == ANY_THREAD_SHAPE else (asked,)
    if not set(shapes) <= set(THREAD_SHAPES):
        raise UnsupportedError(
            "`thread_k` and `thread_n` must be -1 and -1, 128 and 128, or 64 and 256, "
            f"got {asked[0]} and {asked[1]}."
        )
    if not any(size_k % k == 0 and size_n % n == 0 for k, n in shapes) or not size_k * size_n:
        multiples = ", or of ".join(f"{k} and {n}" for k, n in shapes)
        raise InvalidArgumentError(
            f"`A` and `C` must have columns in multiples of {multiples}, got {size_k} and {size_n}."
        )


def _check_workspace(workspace: Tensor, size_n: int, max_par: int) -> None:
    if max_par < 1:
        raise InvalidArgumentError(f"`max_par` must be at least 1, got {max_par}.")
    needed = size_n // WORKSPACE_COLUMNS * max_par
    if workspace.numel() < needed:
        raise InvalidArgumentError(
            f"`workspace` must have at least {needed} items, got {workspace.numel()}."
        )


def _packed(B: Tensor, s: Tensor, size_n: int, size_k: int) -> _Converted:
    # Inference tensors count no versions, so that a change could not be seen.
    keep = not (B.is_inference() or s.is_inference())
    if keep:
        stamps = (_stamp(B), _stamp(s))
        known = _converted.get(id(B))
        if known is not None and known.stamps == stamps:
            return known
    plain_scales = marlin_scales_to_plain(s)
    check_scales(plain_scales)
    scales = ops.groups_of_device(plain_scales, size_n)
    qweight = ops.repack(marlin_to_plain(B), size_n, size_k)
    if not keep:
        return _Converted((), qweight, scales)
    if id(B) not in _converted:
        weakref.finalize(B, _converted.pop, id(B), None)
    converted = _converted[id(B)] = _Converted(stamps, qweight, scales)
    return converted


def _stamp(tensor: Tensor) -> tuple[int, int, torch.Size]:
    """Changes when the tensor is written to, or gets other memory."""
    return tensor._version, tensor.data_ptr(), tensor.shape
