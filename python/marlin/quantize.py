"""`quantize_`: swaps the Linears of a model for quantised ones, in place, and reports what it did.

Knows which layers can be swapped and how the float weights are let go one by one. How a weight is
rounded is the business of a method: "rtn" here, others through `register_method`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from marlin.activations import check_activation
from marlin.errors import InvalidArgumentError
from marlin.linear import linear_class
from marlin.primitives import check_bits, check_group_size, check_symmetric
from marlin.quantized_linear import QuantizedLinear
from marlin.report import LayerReport, QuantizeReport
from marlin.selection import find_places, select_layers

__all__ = ["Method", "MethodSettings", "quantize_", "register_method"]

# Elements of a weight that the error is measured on at a time: a copy of a whole large layer is
# what the caller may have no memory for.
ERROR_ELEMENTS = 1 << 18

# The output layer costs the most accuracy and is read once per token.
DEFAULT_EXCLUDE = ("lm_head",)


@dataclass(frozen=True)
class MethodSettings:
    """What the caller asked of a method."""

    group_size: int
    symmetric: bool
    calibration: object | None
    bits: int = 4


class Method(Protocol):
    """A way to choose the quantised weights of a model.

    Called with the model and the dotted names of the `nn.Linear`s to replace. Yields the
    replacement of each once, in any order. It is in its place in the model before the next one is
    asked for, so that a method can run the model as it has become. A method holds no reference to
    a Linear it is done with: its memory must be free by then.
    """

    def __call__(
        self, model: nn.Module, names: Sequence[str], settings: MethodSettings
    ) -> Iterator[tuple[str, QuantizedLinear]]: ...


def _round_to_nearest(
    model: nn.Module, names: Sequence[str], settings: MethodSettings
) -> Iterator[tuple[str, QuantizedLinear]]:
    if settings.calibration is not None:
        raise InvalidArgumentError(
            '`calibration` must be None for method "rtn", which looks at the weights alone.'
        )
    for name in names:
        yield name, _rounded(model, name, settings)


def _rounded(model: nn.Module, name: str, settings: MethodSettings) -> QuantizedLinear:
    linear = model.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    try:
        kind = linear_class(settings.bits)
        return kind.from_linear(linear, settings.group_size, settings.symmetric)
    except InvalidArgumentError as err:
        raise InvalidArgumentError(f"Layer `{name}`: {err}", layer=name, **err.details) from err


_METHODS: dict[str, Method] = {"rtn": _round_to_nearest}


def register_method(name: str, method: Method) -> None:
    """Makes `method` available to `quantize_` as `name`; a name is given once."""
    if name in _METHODS:
        raise InvalidArgumentError(f"`name` must be a new method's, and {name!r} is registered.")
    _METHODS[name] = method


def quantize_(
    model: nn.Module,
    method: str = "rtn",
    bits: int = 4,
    group_size: int = 128,
    symmetric: bool = True,
    *,
    activation: str = "auto",
    include: Sequence[str] | str | None = None,
    exclude: Sequence[str] | str = DEFAULT_EXCLUDE,
    filter: Callable[[str, nn.Linear], bool] | None = None,
    calibration: object | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> QuantizeReport:
    """Replaces the `nn.Linear`s of `model` by quantised ones, in place, one after the other.

    The float weight of a layer is let go before the next layer is rounded, so memory never holds
    the model twice. A Linear that several names share stays shared. What cannot be replaced is left
    as it is, with the reason in the report.

    bits: 4 makes `Int4Linear`s, 8 `Int8Linear`s, which are symmetric.
    activation: the number format that the layers multiply their inputs in, see `ops.gemm`.
    include, exclude: glob patterns of names. A pattern matches a layer when it matches one or more
        neighbouring components of its dotted name: "lm_head", "layers.0", "*_proj", "vision.*".
        include None takes every Linear; exclude wins.
    filter: called with the name and the module of each Linear that is left; False leaves it out.
    calibration: whatever the method needs to see: None for "rtn".
    progress: called with (done, total, name) when a layer is in its place. An exception from it
        ends the work and comes out; the model then runs with the layers that were done.

    Raises UnsupportedError for a format without kernels; InvalidArgumentError for unknown settings,
    for an `include` pattern that matches no Linear, and for a weight that is NaN or infinite
    (layers before it are done).
    """
    check_bits(bits)
    check_symmetric(symmetric, bits)
    check_activation(activation, bits)
    check_group_size(group_size)
    if method not in _METHODS:
        raise InvalidArgumentError(
            f"`method` must be one of {', '.join(sorted(_METHODS))}, got {method!r}."
        )
    if isinstance(model, nn.Linear):
        raise InvalidArgumentError(
            "`model` must contain the Linears to replace, got a Linear: "
            f"use `{linear_class(bits).__name__}.from_linear`."
        )
    settings = MethodSettings(group_size, symmetric, calibration, bits)
    places = find_places(model)
    chosen, skipped = select_layers(
        model, places, bits, group_size, symmetric, include=include, exclude=exclude, filter=filter
    )
    layers: list[LayerReport] = []
    for name, replacement in _METHODS[method](model, chosen, settings):
        replacement.activation = activation
        layers.append(_swap(model, places[name], replacement))
        if progress is not None:
            progress(len(layers), len(chosen), name)
    return QuantizeReport(
        method=method,
        bits=bits,
        group_size=group_size,
        symmetric=symmetric,
        layers=tuple(layers),
        skipped=tuple(skipped),
    )


def _swap(model: nn.Module, names: list[str], replacement: QuantizedLinear) -> LayerReport:
    linear = model.get_submodule(names[0])
    assert isinstance(linear, nn.Linear)
    report = LayerReport(
        name=names[0],
        shape=(linear.out_features, linear.in_features),
        bytes_before=linear.weight.nbytes,
        bytes_after=replacement.weight_bytes,
        relative_error=_relative_error(linear.weight.detach(), replacement),
    )
    for name in names:
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, replacement)
    return report


def _relative_error(weight: Tensor, replacement: QuantizedLinear) -> float:
    """|W - W'| / |W| in the Frobenius norm; 0 for a weight of zeros."""
    rounded = replacement.dequantize()
    difference = size = torch.zeros((), dtype=torch.float64, device=weight.device)
    rows = max(1, ERROR_ELEMENTS // weight.shape[1])
    for expected, got in zip(torch.split(weight, rows), torch.split(rounded, rows), strict=True):
        difference = difference + (got.double() - expected.double()).square().sum()
        size = size + expected.double().square().sum()
    return float((difference / size).sqrt()) if float(size) else 0.0
