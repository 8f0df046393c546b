"""The original Marlin interface, name for name: `mul`, `Layer`, `Layer.pack`, `replace_linear`.

Weights come in the published layout (layouts.py), fp16 and symmetric, and run through the same
operators as `Int4Linear`. They are converted to the device's packed layout once, and again after an
in-place change. Knows no model format.
"""

from __future__ import annotations

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
GROUP_SIZES = (-1, 128)
TILE = 16
# The two shapes of a thread block that the original kernel had, and its choice by itself.
THREAD_SHAPES = ((-1, -1), (128, 128), (64, 256))
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

    With k a multiple of 128, n of 256, and G groups of 128 rows, or 1:

    A: fp16 (m, k).
    B: int32 (k / 16, 2 * n), codes of zero point 8.
    C: fp16 (m, n), written.
    s: fp16 (G, n), permuted.
    workspace: int32, at least n / 128 * max_par zeros; checked, and not needed here.
    thread_k, thread_n: -1 and -1, 128 and 128, or 64 and 256; sms, max_par: all of these tuned the
        original kernel. They are checked, and the operator makes its own choice.

    The conversion of `B` and `s` is kept as long as `B` lives and neither is changed in place;
    changes through `.data` or NumPy go unseen.
    """
    size_n, size_k, group_size = _check_mul(A, B, C, s)
    _check_tuning(workspace, size_n, thread_k, thread_n, max_par)
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

        linear: fp16, k -> n, without bias.
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
            raise InvalidArgumentError("`linear` must have no bias, which a Layer does not add.")
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


def _check_mul(A: Tensor, B: Tensor, C: Tensor, s: Tensor) -> tuple[int, int, int]:
    """(n, k, group size) of a product whose operands fit each other."""
    for name, tensor in (("A", A), ("C", C), ("s", s)):
        if tensor.dtype != torch.float16 or tensor.ndim != 2:
            raise InvalidArgumentError(
                f"`{name}` must be a float16 matrix, "
                f"got {dtype_name(tensor.dtype)} of shape {list(tensor.shape)}."
            )
    size_m, size_k = A.shape
    size_n = C.shape[1]
    if size_k == 0 or size_k % IN_FEATURES_MULTIPLE:
        raise InvalidArgumentError(
            f"`A` must have a multiple of {IN_FEATURES_MULTIPLE} columns, got {size_k}."
        )
    if C.shape[0] != size_m or size_n == 0 or size_n % OUT_FEATURES_MULTIPLE:
        raise InvalidArgumentError(
            f"`C` must have {size_m} rows and a multiple of {OUT_FEATURES_MULTIPLE} columns, "
            f"got shape {list(C.shape)}."
        )
    if B.dtype != torch.int32 or B.shape != (size_k // TILE, 2 * size_n):
        raise InvalidArgumentError(
            f"`B` must be int32 of shape {[size_k // TILE, 2 * size_n]}, "
            f"got {dtype_name(B.dtype)} of shape {list(B.shape)}."
        )
    groups = s.shape[0]
    if s.shape[1] != size_n or groups not in (1, size_k // IN_FEATURES_MULTIPLE):
        raise InvalidArgumentError(
            f"`s` must have {size_n} columns and 1 row, or {size_k // IN_FEATURES_MULTIPLE} for "
            f"groups of {IN_FEATURES_MULTIPLE}, got shape {list(s.shape)}."
        )
    return size_n, size_k, -1 if groups == 1 else size_k // groups


def _check_tuning(
    workspace: Tensor, size_n: int, thread_k: int, thread_n: int, max_par: int
) -> None:
    if (thread_k, thread_n) not in THREAD_SHAPES:
        raise UnsupportedError(
            "`thread_k` and `thread_n` must be -1 and -1, 128 and 128, or 64 and 256, "
            f"got {thread_k} and {thread_n}."
        )
    if max_par < 1:
        raise InvalidArgumentError(f"`max_par` must be at least 1, got {max_par}.")
    needed = size_n // WORKSPACE_COLUMNS * max_par
    if workspace.dtype != torch.int32 or workspace.numel() < needed:
        raise InvalidArgumentError(
            f"`workspace` must be int32 with at least {needed} items, "
            f"got {dtype_name(workspace.dtype)} with {workspace.numel()}."
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
