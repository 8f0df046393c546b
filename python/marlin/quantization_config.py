"""The description of a quantised model that travels with its tensors, and its way into a model.

    {"quant_method": "marlin", "bits": 4, "group_size": 128, "symmetric": true, "desc_act": false,
     "checkpoint_format": "gptq_v2", "modules": {"layers.0.q_proj": {"in_features": 4096,
     "out_features": 4096}, ...}}

A module's entry repeats those of SETTINGS that differ. `desc_act` is left out where it is false; a
module that has it has a tensor `g_idx`. Knows no file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import nn

from marlin.errors import CheckpointInvalidError, UnsupportedError
from marlin.linear import linear_class
from marlin.primitives import (
    CODE_BITS,
    FLOAT_DTYPES,
    GROUP_SIZES,
    check_symmetric,
    dtype_name,
)
from marlin.quantized_linear import QuantizedLinear

__all__ = ["planned_replacements", "quantization_config", "swap_for_config", "swap_in"]


class _Settings(NamedTuple):
    """What the description says of a layer, beside its sizes."""

    bits: int
    group_size: int
    symmetric: bool
    desc_act: bool


def quantization_config(model: nn.Module) -> dict[str, Any] | None:
    """The description of the quantised layers of `model`, of JSON types; None without any."""
    layers = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, QuantizedLinear)
    }
    if not layers:
        return None
    settings = {name: _settings_of(layer) for name, layer in layers.items()}
    common = Counter(settings.values()).most_common(1)[0][0]
    modules: dict[str, dict[str, Any]] = {}
    for name, layer in layers.items():
        sizes = {"in_features": layer.in_features, "out_features": layer.out_features}
        modules[name] = {**sizes, **_differences(settings[name], common)}
    described = common._asdict()
    if not common.desc_act:
        del described["desc_act"]
    return {
        "quant_method": "marlin",
        **described,
        "checkpoint_format": "gptq_v2",
        "modules": modules,
    }


def _settings_of(layer: QuantizedLinear) -> _Settings:
    return _Settings(layer.bits, layer.group_size, layer.symmetric, layer.g_idx is not None)


def _differences(settings: _Settings, common: _Settings) -> dict[str, object]:
    pairs = zip(settings._asdict().items(), common, strict=True)
    return {name: value for (name, value), usual in pairs if value != usual}


def swap_for_config(model: nn.Module, config: Mapping[str, Any]) -> list[str]:
    """Replaces the Linears that `config` names by empty quantised ones on the meta device.

    Returns their names. Nothing is replaced when the config does not fit the model, which is a
    CheckpointInvalidError; a format that is not read is an UnsupportedError.
    """
    return swap_in(model, planned_replacements(model, config))


def swap_in(model: nn.Module, replacements: Mapping[nn.Module, QuantizedLinear]) -> list[str]:
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
) -> dict[nn.Module, QuantizedLinear]:
    """Linear -> what `swap_for_config` puts in its place; layers that fit already are left out."""
    common = _common_settings(config)
    modules = config.get("modules")
    if not isinstance(modules, Mapping):
        raise CheckpointInvalidError("`quantization_config.modules` must map names to sizes.")
    planned: dict[nn.Module, QuantizedLinear] = {}
    for name, entry in modules.items():
        current = _current_layer(model, name)
        wanted = _empty_layer(name, entry, common, current)
        other = current if isinstance(current, QuantizedLinear) else planned.get(current, wanted)
        if _format_of(other) != _format_of(wanted):
            raise CheckpointInvalidError(
                f"Layer `{name}` must be {_format_of(wanted)} for the checkpoint, "
                f"and is {_format_of(other)} already."
            )
        if isinstance(current, nn.Linear):
            planned[current] = other
    return planned


def _format_of(layer: QuantizedLinear) -> str:
    return f"{linear_class(layer.bits).__name__}({layer.format_repr()})"


def _common_settings(config: Mapping[str, Any]) -> _Settings:
    for key, served in (("quant_method", "marlin"), ("checkpoint_format", "gptq_v2")):
        if config.get(key) != served:
            raise UnsupportedError(
                f"`quantization_config.{key}` must be {served!r} to be read, "
                f"got {config.get(key)!r}."
            )
    return _checked_settings("", {"desc_act": False, **config})


def _checked_settings(layer: str, values: Mapping[str, Any]) -> _Settings:
    """The settings in `values`; `layer` goes into messages, and begins with a dot."""
    bits, group_size = values.get("bits"), values.get("group_size")
    if not _is_one_of(bits, CODE_BITS):
        raise UnsupportedError(
            f"`quantization_config{layer}.bits` must be 4 or 8 to be read, got {bits!r}."
        )
    if not _is_one_of(group_size, GROUP_SIZES):
        raise CheckpointInvalidError(
            f"`quantization_config{layer}.group_size` must be 32, 64, 128 or -1, "
            f"got {group_size!r}."
        )
    for name in ("symmetric", "desc_act"):
        if not isinstance(values.get(name), bool):
            raise CheckpointInvalidError(
                f"`quantization_config{layer}.{name}` must be true or false, "
                f"got {values.get(name)!r}."
            )
    settings = _Settings(bits, group_size, values["symmetric"], values["desc_act"])
    check_symmetric(settings.symmetric, bits, owner=f"quantization_config{layer}.")
    return settings


def _is_one_of(value: object, allowed: tuple[int, ...]) -> TypeGuard[int]:
    """JSON has floats and booleans that equal integers, and are none."""
    return type(value) is int and value in allowed


def _current_layer(model: nn.Module, name: object) -> nn.Linear | QuantizedLinear:
    try:
        module = model.get_submodule(name) if isinstance(name, str) and name else None
    except AttributeError:
        module = None
    if not isinstance(module, nn.Linear | QuantizedLinear):
        got = "no such module" if module is None else type(module).__name__
        raise CheckpointInvalidError(
            f"The checkpoint has a quantized layer `{name}`, and the model has {got} there."
        )
    return module


def _empty_layer(
    name: str, entry: object, common: _Settings, current: nn.Linear | QuantizedLinear
) -> QuantizedLinear:
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
    settings = _checked_settings(f".modules.{name}", {**common._asdict(), **entry})
    layer = linear_class(settings.bits)(
        *sizes,
        current.bias is not None,
        group_size=settings.group_size,
        symmetric=settings.symmetric,
        device="meta",
        dtype=dtype,
    )
    if settings.desc_act:
        layer.g_idx = torch.empty(layer.size_k, dtype=torch.int32, device="meta")
    return layer.train(current.training)
