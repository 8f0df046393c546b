"""The description of a 4-bit model that travels with its tensors, and its way back into a model.

    {"quant_method": "marlin", "bits": 4, "group_size": 128, "symmetric": true,
     "checkpoint_format": "gptq_v2", "modules": {"layers.0.q_proj": {"in_features": 4096,
     "out_features": 4096}, ...}}

A module's entry repeats `group_size` and `symmetric` where they differ. Knows no file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import nn

from marlin.errors import CheckpointInvalidError, UnsupportedError
from marlin.linear import Int4Linear
from marlin.primitives import FLOAT_DTYPES, GROUP_SIZES, dtype_name

__all__ = ["planned_replacements", "quantization_config", "swap_for_config", "swap_in"]


def quantization_config(model: nn.Module) -> dict[str, Any] | None:
    """The description of the `Int4Linear`s of `model`, of JSON types; None when it has none."""
    layers = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, Int4Linear)
    }
    if not layers:
        return None
    settings = Counter((layer.group_size, layer.symmetric) for layer in layers.values())
    group_size, symmetric = settings.most_common(1)[0][0]
    modules: dict[str, dict[str, Any]] = {}
    for name, layer in layers.items():
        entry: dict[str, Any] = {
            "in_features": layer.in_features,
            "out_features": layer.out_features,
        }
        if layer.group_size != group_size:
            entry["group_size"] = layer.group_size
        if layer.symmetric != symmetric:
            entry["symmetric"] = layer.symmetric
        modules[name] = entry
    return {
        "quant_method": "marlin",
        "bits": 4,
        "group_size": group_size,
        "symmetric": symmetric,
        "checkpoint_format": "gptq_v2",
        "modules": modules,
    }


def swap_for_config(model: nn.Module, config: Mapping[str, Any]) -> list[str]:
    """Replaces the Linears that `config` names by empty `Int4Linear`s on the meta device.

    Returns their names. Nothing is replaced when the config does not fit the model, which is a
    CheckpointInvalidError; a format that is not read is an UnsupportedError.
    """
    return swap_in(model, planned_replacements(model, config))


def swap_in(model: nn.Module, replacements: Mapping[nn.Module, Int4Linear]) -> list[str]:
    """Puts each replacement in every place of its module; returns the names of the places."""
    swapped: list[str] = []
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in replacements:
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, replacements[module])
            swapped.append(name)
    return swapped


def planned_replacements(
    model: nn.Module, config: Mapping[str, Any]
) -> dict[nn.Module, Int4Linear]:
    """Linear -> what `swap_for_config` puts in its place; layers that fit already are left out."""
    group_size, symmetric = _checked_settings(config)
    modules = config.get("modules")
    if not isinstance(modules, Mapping):
        raise CheckpointInvalidError("`quantization_config.modules` must map names to sizes.")
    planned: dict[nn.Module, Int4Linear] = {}
    for name, entry in modules.items():
        current = _current_layer(model, name)
        wanted = _empty_layer(name, entry, group_size, symmetric, current)
        other = current if isinstance(current, Int4Linear) else planned.get(current, wanted)
        if other.extra_repr() != wanted.extra_repr():
            raise CheckpointInvalidError(
                f"Layer `{name}` must be Int4Linear({wanted.extra_repr()}) for the checkpoint, "
                f"and is Int4Linear({other.extra_repr()}) already."
            )
        if isinstance(current, nn.Linear):
            planned[current] = other
    return planned


def _checked_settings(config: Mapping[str, Any]) -> tuple[int, bool]:
    for key, served in (("quant_method", "marlin"), ("checkpoint_format", "gptq_v2"), ("bits", 4)):
        if config.get(key) != served:
            raise UnsupportedError(
                f"`quantization_config.{key}` must be {served!r} to be read, "
                f"got {config.get(key)!r}."
            )
    return _group_size("", config.get("group_size")), _symmetric("", config.get("symmetric"))


def _group_size(layer: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value not in GROUP_SIZES:
        raise CheckpointInvalidError(
            f"`quantization_config{layer}.group_size` must be 32, 64, 128 or -1, got {value!r}."
        )
    return value


def _symmetric(layer: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise CheckpointInvalidError(
            f"`quantization_config{layer}.symmetric` must be true or false, got {value!r}."
        )
    return value


def _current_layer(model: nn.Module, name: object) -> nn.Linear | Int4Linear:
    try:
        module = model.get_submodule(name) if isinstance(name, str) and name else None
    except AttributeError:
        module = None
    if not isinstance(module, nn.Linear | Int4Linear):
        got = "no such module" if module is None else type(module).__name__
        raise CheckpointInvalidError(
            f"The checkpoint has a 4-bit layer `{name}`, and the model has {got} there."
        )
    return module


def _empty_layer(
    name: str,
    entry: object,
    group_size: int,
    symmetric: bool,
    current: nn.Linear | Int4Linear,
) -> Int4Linear:
    sizes = (current.in_features, current.out_features)
    if not isinstance(entry, Mapping):
        raise CheckpointInvalidError(f"`quantization_config.modules.{name}` must be an object.")
    described = (entry.get("in_features"), entry.get("out_features"))
    if described != sizes:
        raise CheckpointInvalidError(
            f"Layer `{name}` has {sizes[0]} -> {sizes[1]} features in the model, and "
            f"{described[0]!r} -> {described[1]!r} in the checkpoint."
        )
    dtype = current.weight.dtype if isinstance(current, nn.Linear) else current.scales.dtype
    if dtype not in FLOAT_DTYPES:
        raise UnsupportedError(
            f"Layer `{name}` must be float16, bfloat16 or float32, got {dtype_name(dtype)}."
        )
    where = f".modules.{name}"
    return Int4Linear(
        *sizes,
        current.bias is not None,
        group_size=_group_size(where, entry.get("group_size", group_size)),
        symmetric=_symmetric(where, entry.get("symmetric", symmetric)),
        device="meta",
        dtype=dtype,
    ).train(current.training)
