"""`python.*`: any module, attribute, call and iterator of this Python, by value or by handle.

A target is an object (the client sent a handle) or a string: the name of a module to import.
"""

from __future__ import annotations

import importlib
import re
import types
from collections.abc import Generator
from typing import Any, Final, TypeAlias

from marlin.errors import InvalidArgumentError, ModuleNotFound
from marlin.worker.handlers import CallContext, handler, stream_handler

__all__ = ["call", "get", "iterate", "value"]

# An object of foreign code: anything may be asked of it.
Foreign: TypeAlias = Any

_NAME: Final = re.compile(r"[^\W\d]\w*")
_INT64_MIN: Final = -(2**63)
_UINT64_MAX: Final = 2**64 - 1
_MAX_BYTES_BY_VALUE: Final = 64 << 10


@handler("python.get")
def get(context: CallContext, target: Foreign, path: list[str]) -> object:
    """The attribute of `target` at `path`: a scalar by value, anything else as a handle."""
    return _by_value_or_handle(context, _resolve(target, path))


@handler("python.call")
def call(
    context: CallContext, target: Foreign, path: list[str], args: list[Any], kwargs: dict[str, Any]
) -> object:
    """Calls the attribute of `target` at `path`: a scalar by value, anything else as a handle."""
    return _by_value_or_handle(context, _resolve(target, path)(*args, **kwargs))


@handler("python.value")
def value(context: CallContext, target: Foreign, path: list[str]) -> object:
    """The attribute of `target` at `path` itself, deep; NotSerializableError if it cannot."""
    return _resolve(target, path)


@stream_handler("python.iterate")
def iterate(
    context: CallContext,
    target: Foreign,
    path: list[str],
    args: list[Any] | None = None,
    kwargs: dict[str, Any] | None = None,
) -> Generator[object, None, object]:
    """Iterates the attribute of `target` at `path`, or with `args` what calling it returns.

    An iterator made here is closed when the stream ends early; one that the client holds a handle
    on goes on where it was.
    """
    found = _resolve(target, path)
    iterable = found if args is None else found(*args, **(kwargs or {}))
    iterator = iter(iterable)
    is_ours = args is not None or iterator is not iterable
    try:
        while True:
            try:
                entry = next(iterator)
            except StopIteration as stop:
                return _by_value_or_handle(context, stop.value)
            yield _by_value_or_handle(context, entry)
    finally:
        if is_ours and isinstance(iterator, types.GeneratorType):
            iterator.close()


def _resolve(target: Foreign, path: list[str]) -> Foreign:
    found = _import(target) if isinstance(target, str) else target
    for name in path:
        _check_name(name, "path")
        found = getattr(found, name)
    return found


def _import(name: str) -> types.ModuleType:
    for part in name.split("."):
        _check_name(part, "target")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only if it is this module that is missing, not one that it wants to import.
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise ModuleNotFound(f"The worker's Python has no module `{error.name}`.") from error
        raise


def _check_name(name: str, argument: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(f"`{argument}` must hold names of Python, got {name[:80]!r}.")
    if name.startswith("__"):
        raise InvalidArgumentError(
            f"`{argument}` must not hold names that begin with two underscores, got {name[:80]}; "
            "use the functions of `operator` and `builtins`."
        )


def _by_value_or_handle(context: CallContext, result: object) -> object:
    kind = type(result)
    if (
        result is None
        or kind is bool
        or kind is float
        or kind is str
        or (kind is int and _INT64_MIN <= result <= _UINT64_MAX)  # type: ignore[operator]
        or (kind is bytes and len(result) <= _MAX_BYTES_BY_VALUE)  # type: ignore[arg-type]
    ):
        return result
    return context.export(result)
