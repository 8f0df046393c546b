"""The tensors of a model that a checkpoint holds: parameters and persistent buffers, by slot.

A slot is one tensor in memory and all places of the model that hold it: tied weights and modules
with several names have one slot. Knows modules; no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from marlin.errors import InvalidArgumentError, UnsupportedError
from marlin.packed_weight import PackedWeight

__all__ = ["Place", "Slot", "assign_slots", "refuse_meta_buffers", "slots_of"]


@dataclass(frozen=True)
class Place:
    """An attribute that holds a tensor; `prefix` is its module's dotted name and a dot, or ""."""

    prefix: str
    module: nn.Module
    attribute: str

    @property
    def name(self) -> str:
        return self.prefix + self.attribute


@dataclass
class Slot:
    """One tensor of the state; the first place gives it its name."""

    tensor: Tensor
    places: list[Place] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.places[0].name

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape in a checkpoint: that of the plain layout for packed tensors."""
        module = self._packed_by
        return module.plain_shapes[self._attribute] if module else tuple(self.tensor.shape)

    def checkpoint_tensor(self) -> Tensor:
        """The tensor as a checkpoint holds it; packed ones are unpacked into new memory."""
        module = self._packed_by
        return module.plain_tensor(self._attribute) if module else self.tensor

    @property
    def _attribute(self) -> str:
        return self.places[0].attribute

    @property
    def _packed_by(self) -> PackedWeight | None:
        module = self.places[0].module
        if isinstance(module, PackedWeight) and self._attribute in module.plain_shapes:
            return module
        return None


def slots_of(model: nn.Module, replaced: Mapping[nn.Module, nn.Module] | None = None) -> list[Slot]:
    """The state of `model`, in the order of its modules.

    replaced: module -> the one that will be in its place.
    """
    slots: dict[object, Slot] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        module = (replaced or {}).get(module, module)
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise UnsupportedError(
                f"Module `{name}` has extra state that is no tensor ({type(module).__name__})."
            )
        for attribute, tensor in _own_tensors(module).items():
            slot = slots.setdefault(_identity(tensor), Slot(tensor))
            slot.places.append(Place(_prefix(name), module, attribute))
    return list(slots.values())


def refuse_meta_buffers(model: nn.Module) -> None:
    """Raises InvalidArgumentError for a buffer that no checkpoint can fill."""
    for name, module in model.named_modules():
        for attribute in module._non_persistent_buffers_set:
            buffer = module._buffers[attribute]
            if buffer is not None and buffer.is_meta:
                full = Place(_prefix(name), module, attribute).name
                raise InvalidArgumentError(
                    "`model` must hold its non-persistent buffers, which no checkpoint has, got "
                    f"`{full}` on the meta device: give it its value before loading."
                )


def assign_slots(slots: Sequence[Slot], tensors: Mapping[str, Tensor]) -> list[str]:
    """Puts `tensors`, by slot name, into the first places of `slots`, which are one module's.

    The other places get the same objects. Returns what was wrong, as sentences.
    """
    first = slots[0].places[0]
    problems: list[str] = []
    # The protected method that `load_state_dict` calls for each module: with it the messages name
    # tensors in full, and the children of the module are left alone.
    first.module._load_from_state_dict(
        dict(tensors), first.prefix, {"assign_to_params_buffers": True}, False, [], [], problems
    )
    for slot in slots:
        value = getattr(first.module, slot.places[0].attribute)
        for place in slot.places[1:]:
            setattr(place.module, place.attribute, value)
    return problems


def _prefix(name: str) -> str:
    return f"{name}." if name else ""


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers of the module itself."""
    own: dict[str, Tensor] = {k: v for k, v in module._parameters.items() if v is not None}
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers_set:
            own[name] = buffer
    return own


def _identity(tensor: Tensor) -> object:
    """Equal for tensors that are the same memory, seen the same way."""
    if tensor.is_meta or tensor.numel() == 0 or tensor.layout != torch.strided:
        return id(tensor)
    return (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
