"""Values that stay in the worker, and the ids under which one client knows them.

Knows no message: writer.py gives a `Handle` its id here, reader.py looks it up.
"""

from __future__ import annotations

import itertools
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch

from marlin.errors import ProtocolError, UnknownHandleError

__all__ = ["Handle", "HandleTable", "Kind", "describe_dtype", "export", "qualified_type"]

Kind: TypeAlias = Literal["module", "callable", "tensor", "iterator", "model", "object"]

# One counter for all tables: an id is never used again while the worker lives.
_next_id = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Handle:
    """Return this from a handler to keep `value` here and give the client a reference to it."""

    value: object
    kind: Kind
    type: str
    meta: Mapping[str, object] = field(default_factory=dict)


def export(
    value: object,
    kind: Kind | None = None,
    type_name: str | None = None,
    meta: Mapping[str, object] | None = None,
) -> Handle:
    """A handle on `value`; kind, type and meta are derived from it unless given."""
    if meta is None:
        meta = {}
        if isinstance(value, torch.Tensor):
            meta = {
                "dtype": describe_dtype(value.dtype),
                "shape": list(value.shape),
                "device": str(value.device),
            }
    return Handle(value, kind or _kind(value), type_name or qualified_type(value), meta)


def qualified_type(value: object) -> str:
    """`torch.Tensor`, `builtins.list`; for a class, the name of its own type."""
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def describe_dtype(dtype: torch.dtype) -> str:
    """`float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")


def _kind(value: object) -> Kind:
    if isinstance(value, torch.Tensor):
        return "tensor"
    if isinstance(value, types.ModuleType):
        return "module"
    if hasattr(type(value), "__next__"):
        return "iterator"
    return "callable" if callable(value) else "object"


class HandleTable:
    """The handles of one client. Every mention is a new id, which the client releases once.

    Used by two threads without a lock: each operation is one step on a dict.
    """

    def __init__(self) -> None:
        self._values: dict[int, object] = {}

    def __len__(self) -> int:
        return len(self._values)

    def add(self, value: object) -> int:
        """A new id for `value`."""
        handle_id = next(_next_id)
        self._values[handle_id] = value
        return handle_id

    def get(self, handle_id: int) -> object:
        """The value; raises UnknownHandleError."""
        try:
            return self._values[handle_id]
        except KeyError:
            raise UnknownHandleError(
                f"The worker does not know handle {handle_id}: it was released, or is of another "
                "worker or client."
            ) from None

    def release(self, handle_id: int) -> object:
        """Forgets the id and returns the value; raises ProtocolError for an unknown id."""
        try:
            return self._values.pop(handle_id)
        except KeyError:
            raise ProtocolError(
                f"`release` names handle {handle_id}, which this client does not hold."
            ) from None

    def clear(self) -> list[object]:
        """Forgets all ids and returns their values."""
        values = list(self._values.values())
        self._values.clear()
        return values
