"""Which Linears of a model can be quantised, and why the others cannot.

Knows names, ties and hooks of modules; nothing of rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

from marlin import ops
from marlin.errors import InvalidArgumentError
from marlin.linear import linear_class
from marlin.primitives import FLOAT_DTYPES, dtype_name
from marlin.quantized_linear import QuantizedLinear
from marlin.report import SkippedLayer

__all__ = ["Patterns", "find_places", "select_layers"]

Patterns = Sequence[str] | str


def find_places(model: nn.Module) -> dict[str, list[str]]:
    """Each Linear's first name in `model` -> all of its names; quantised ones are Linears, too."""
    names_of: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Linear | QuantizedLinear):
            names_of.setdefault(id(module), []).append(name)
    return {names[0]: names for names in names_of.values()}


def select_layers(
    model: nn.Module,
    places: Mapping[str, list[str]],
    bits: int,
    group_size: int,
    symmetric: bool,
    *,
    include: Patterns | None,
    exclude: Patterns | None,
    filter: Callable[[str, nn.Linear], bool] | None,
) -> tuple[list[str], list[SkippedLayer]]:
    """The first names of the Linears to replace, and the others with their reasons.

    places: from `find_places`. include, exclude, filter: see `quantize_`.
    """
    included = None if include is None else _checked("include", include)
    excluded = _checked("exclude", exclude or ())
    _refuse_unmatched(included or (), places)
    owners = _owners(model)
    chosen: list[str] = []
    skipped: list[SkippedLayer] = []
    for name, names in places.items():
        module = model.get_submodule(name)
        reason: str | None
        if included is not None and not _any_matches(names, included):
            reason = "not matched by `include`"
        elif _any_matches(names, excluded):
            reason = "matched by `exclude`"
        else:
            reason = (
                _why_not_plain(module)
                or _why_not_alone(model, module, names, owners)
                or _why_not_smaller(module, bits, group_size, symmetric)
            )
        if reason is None and filter is not None and isinstance(module, nn.Linear):
            reason = None if filter(name, module) else "left out by `filter`"
        if reason is None:
            chosen.append(name)
        else:
            skipped.append(SkippedLayer(name, reason))
    return chosen, skipped


def _checked(argument: str, patterns: Patterns) -> tuple[str, ...]:
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern:
            raise InvalidArgumentError(
                f"`{argument}` must be non-empty patterns of names, got {pattern!r}."
            )
    return patterns


def _refuse_unmatched(include: tuple[str, ...], places: Mapping[str, list[str]]) -> None:
    for pattern in include:
        if not any(_any_matches(names, (pattern,)) for names in places.values()):
            first = ", ".join(list(places)[:4]) or "none"
            raise InvalidArgumentError(
                f"`include` must match Linears, and {pattern!r} matches none of the "
                f"{len(places)} there are, the first of which are: {first}."
            )


def _any_matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(_matches(name, pattern) for name in names for pattern in patterns)


def _matches(name: str, pattern: str) -> bool:
    """Whether the glob matches one or more neighbouring components of a dotted name."""
    parts = name.split(".")
    return any(
        fnmatchcase(".".join(parts[start:stop]), pattern)
        for start in range(len(parts))
        for stop in range(start + 1, len(parts) + 1)
    )


def _owners(model: nn.Module) -> dict[int, list[tuple[int, str]]]:
    """id of a Parameter -> (id of the module, dotted name) of every place that holds it."""
    owners: dict[int, list[tuple[int, str]]] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            full = f"{prefix}.{name}" if prefix else name
            owners.setdefault(id(parameter), []).append((id(module), full))
    return owners


def _why_not_plain(module: nn.Module) -> str | None:
    """The obstacle in the layer itself."""
    if isinstance(module, QuantizedLinear):
        return f"already in {module.bits} bits"
    if type(module) is not nn.Linear:
        return f"a subclass of nn.Linear, {type(module).__name__}, which may compute otherwise"
    weight = module._parameters.get("weight")
    if weight is None:
        return "its weight is computed by a hook (weight_norm, pruning), not a parameter"
    if weight.is_meta:
        return "its weight is on the meta device and has no values"
    if type(weight.data) is not Tensor:
        return f"its weight is a tensor subclass, {type(weight.data).__name__}"
    if weight.dtype not in FLOAT_DTYPES:
        return f"its weight is {dtype_name(weight.dtype)}, not float16, bfloat16 or float32"
    if weight.numel() == 0:
        return "its weight is empty"
    return None


def _why_not_alone(
    model: nn.Module,
    module: nn.Module,
    names: Sequence[str],
    owners: Mapping[int, list[tuple[int, str]]],
) -> str | None:
    """The obstacle in what else holds on to the layer."""
    others = [full for owner, full in owners[id(module.weight)] if owner != id(module)]
    if others:
        return f"its weight is tied to `{others[0]}`, which stays as it is"
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    if any(hooks) or "forward" in module.__dict__:
        return "it has hooks or a forward of its own, which a replacement would lose"
    for name in names:
        parent = model.get_submodule(name.rpartition(".")[0])
        if isinstance(parent, nn.TransformerEncoderLayer):
            return "nn.TransformerEncoderLayer reads its float weight on its fast path"
    return None


def _why_not_smaller(module: nn.Module, bits: int, group_size: int, symmetric: bool) -> str | None:
    assert isinstance(module, nn.Linear)
    planned = linear_class(bits)(
        module.in_features,
        module.out_features,
        bias=False,
        group_size=group_size,
        symmetric=symmetric,
        device="meta",
        dtype=module.weight.dtype,
    )
    # The packed layout pads more than the plain one that a layer has on the meta device.
    packed = ops.repack(planned.qweight, planned.size_n, planned.size_k, bits)
    size = planned.weight_bytes - planned.qweight.nbytes + packed.nbytes
    if size < module.weight.nbytes:
        return None
    return f"{bits} bits with padding would take {size} bytes, and it takes {module.weight.nbytes}"
