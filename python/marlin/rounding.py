"""Rounds float weights to codes: the range of each group, and a search for a better scale.

Knows the numeric definition of primitives.py; no layer, model or calibration data.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from marlin.errors import InvalidArgumentError
from marlin.primitives import (
    EMPTY_SCALE,
    FLOAT_DTYPES,
    QuantizedWeight,
    check_bits,
    check_group_size,
    check_symmetric,
    dtype_name,
    group_rows,
    max_code,
    padded_in_features,
    padded_out_features,
    symmetric_zero,
)

__all__ = ["quantize"]

# The search tries SEARCH_STEPS scales, from the one that clips (almost) nothing down to
# SEARCH_FLOOR of it. On Gaussian weights in 4 bits the best lies near 0.85 for groups of 128 and
# near 0.7 for a row of 4096; heavy tails in long rows want less than 0.4. Twice as many steps
# changed the error by under 0.4 %. In 8 bits clipping hardly ever pays: a floor of 0.9 buys 1.2 to
# 1.6 %, where the steps of 0.25 are too far apart to buy any in groups.
SEARCH_STEPS = 20
SEARCH_FLOOR = {4: 0.25, 8: 0.9}

# Elements rounded at a time: 4 MiB of fp32 bounds the temporaries, and is enough for each operator
# to be worth its start on all cores.
CHUNK_ELEMENTS = 1 << 20

# The smallest magnitude of a scale. fp16 uses its subnormals, which convert exactly everywhere; the
# others stop at the smallest normal, so that flushed subnormals never divide by zero.
SMALLEST_SCALE = {
    torch.float16: 2.0**-24,
    torch.bfloat16: 2.0**-126,
    torch.float32: 2.0**-126,
}


def quantize(
    weight: Tensor,
    group_size: int = 128,
    *,
    symmetric: bool = True,
    search: bool = True,
    importance: Tensor | None = None,
    scale_dtype: torch.dtype | None = None,
    bits: int = 4,
) -> QuantizedWeight:
    """Rounds a weight to 4 or 8 bits, group by group, padded with zeros to (N, K).

    weight: (out_features, in_features) fp16, bf16 or fp32, as `nn.Linear` keeps it.
    symmetric: z = 8 and s = -(the group's weight of largest magnitude) / 8, so that this weight
        gets code 0, the longer end of the range -8..7. Otherwise s and z span the group's smallest
        weight, its largest, and 0. With 8 bits z = 128, and the range is always symmetric.
    search: shrinks each scale to where the squared error of its group is smallest.
    importance: (in_features,) non-negative weights of the squared error, for instance the mean
        square of each input channel; only the search uses it.
    scale_dtype: dtype of the scales, by default that of `weight`. Codes are chosen for the scale as
        it is after rounding to this dtype.

    A zero is always represented exactly. Raises InvalidArgumentError where a weight is NaN or
    infinite, and where a scale is too large for `scale_dtype`.
    """
    check_bits(bits)
    check_symmetric(symmetric, bits)
    check_group_size(group_size)
    scale_dtype = weight.dtype if scale_dtype is None else scale_dtype
    _check_weight(weight, scale_dtype)
    out_features, in_features = weight.shape
    size_k = padded_in_features(in_features, group_size)
    size_n = padded_out_features(out_features)
    rows = group_rows(size_k, group_size)
    groups = size_k // rows
    if importance is not None:
        importance = _checked_importance(importance, weight)
        importance = functional.pad(importance, (0, size_k - in_features)).view(groups, rows)

    device = weight.device
    filler = symmetric_zero(bits)
    codes = torch.full((size_n, size_k), filler, dtype=torch.uint8, device=device)
    scales = torch.full((size_n, groups), EMPTY_SCALE, dtype=scale_dtype, device=device)
    zeros = torch.full((size_n, groups), filler, dtype=torch.uint8, device=device)
    step = max(1, CHUNK_ELEMENTS // size_k)
    for start in range(0, out_features, step):
        chunk = weight.detach()[start : start + step].float()
        stop = start + len(chunk)
        _refuse_not_finite(chunk, start)
        chunk = functional.pad(chunk, (0, size_k - in_features)).view(-1, groups, rows)
        scale, zero = _range_of(chunk, symmetric, bits)
        scale = _round_scale(scale, scale_dtype)
        if search:
            scale = _search_scale(chunk, scale, zero, importance, scale_dtype, bits)
        codes[start:stop] = _encode(chunk, scale, zero, bits).view(-1, size_k)
        scales[start:stop] = scale.squeeze(-1)
        zeros[start:stop] = zero.squeeze(-1)
    return QuantizedWeight(
        codes.t().contiguous(),  # (k, n)
        scales.t().contiguous(),  # (groups, n)
        None if symmetric else zeros.t().contiguous(),  # (groups, n)
    )


def _check_weight(weight: Tensor, scale_dtype: torch.dtype) -> None:
    if weight.ndim != 2 or weight.numel() == 0:
        raise InvalidArgumentError(
            "`weight` must be a non-empty matrix (out_features, in_features), "
            f"got shape {list(weight.shape)}."
        )
    for name, dtype in (("weight", weight.dtype), ("scale_dtype", scale_dtype)):
        if dtype not in FLOAT_DTYPES:
            raise InvalidArgumentError(
                f"`{name}` must be float16, bfloat16 or float32, got {dtype_name(dtype)}."
            )


def _checked_importance(importance: Tensor, weight: Tensor) -> Tensor:
    if importance.shape != (weight.shape[1],):
        raise InvalidArgumentError(
            f"`importance` must have one value per input channel, shape [{weight.shape[1]}], "
            f"got {list(importance.shape)}."
        )
    importance = importance.to(weight.device, torch.float32)
    good = torch.isfinite(importance) & (importance >= 0)
    if not bool(good.all()):
        channel = int((~good).nonzero()[0])
        raise InvalidArgumentError(
            "`importance` must be finite and not negative, "
            f"got {float(importance[channel])} for channel {channel}."
        )
    return importance


def _refuse_not_finite(chunk: Tensor, first_row: int) -> None:
    finite = torch.isfinite(chunk)
    if bool(finite.all()):
        return
    row, column = (int(i) for i in (~finite).nonzero()[0])
    raise InvalidArgumentError(
        f"`weight` must be finite, got {float(chunk[row, column])} "
        f"at row {first_row + row}, column {column}.",
        row=first_row + row,
        column=column,
    )


def _range_of(groups: Tensor, symmetric: bool, bits: int) -> tuple[Tensor, Tensor]:
    """Scale and zero, fp32 (n, groups, 1), that clip (almost) nothing of (n, groups, rows)."""
    middle, largest = symmetric_zero(bits), max_code(bits)
    if symmetric:
        extreme = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
        scale = -extreme / middle
        zero = torch.full_like(scale, middle)
    else:
        low = groups.amin(-1, keepdim=True).clamp(max=0)
        high = groups.amax(-1, keepdim=True).clamp(min=0)
        # Divided before the subtraction: the span of two huge fp32 weights would be infinite.
        scale = high / largest - low / largest
        zero = torch.where(scale == 0, middle, (-low / scale).round()).clamp(0, largest)
    return torch.where(scale == 0, EMPTY_SCALE, scale), zero


def _round_scale(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """`scale` rounded to `dtype`, as fp32, and kept away from zero."""
    largest = torch.finfo(dtype).max
    if bool((scale.abs() > largest).any()):
        raise InvalidArgumentError(
            f"`weight` needs a scale of {float(scale.abs().max()):.4g}, and "
            f"{dtype_name(dtype)} holds at most {largest:.4g}: pass `scale_dtype=torch.float32`."
        )
    smallest = torch.tensor(SMALLEST_SCALE[dtype], device=scale.device)
    rounded = scale.to(dtype).float()
    return torch.where(scale.abs() < smallest, torch.copysign(smallest, scale), rounded)


def _encode(groups: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """Codes, as fp32, of `groups` (n, groups, rows)."""
    return (groups / scale).round_().add_(zero).clamp_(0, max_code(bits))


def _search_scale(
    groups: Tensor,
    scale: Tensor,
    zero: Tensor,
    importance: Tensor | None,
    dtype: torch.dtype,
    bits: int,
) -> Tensor:
    """The scale (n, groups, 1) of the grid with the smallest weighted squared error."""
    # In units of the first scale: the squares of huge or tiny fp32 weights leave its range. Few
    # operators matter more than clarity of each: a model takes most of its time here.
    weights = groups / scale  # (n, groups, rows)
    low, high = -zero, max_code(bits) - zero
    significance = None if importance is None else importance.sqrt()
    best_scale = scale
    best_error = torch.full_like(scale, torch.inf)
    for step in range(SEARCH_STEPS):
        shrink = 1 - (1 - SEARCH_FLOOR[bits]) * step / SEARCH_STEPS
        candidate = _round_scale(scale * shrink, dtype)
        unit = candidate / scale
        difference = (weights / unit).round_().clamp_(low, high).mul_(unit).sub_(weights)
        if significance is not None:
            difference.mul_(significance)
        error = torch.linalg.vector_norm(difference, dim=-1, keepdim=True)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_scale = torch.where(better, candidate, best_scale)
    return best_scale
