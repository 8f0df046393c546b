"""The registry of methods. Each module of this package registers its own when it is imported.

A handler is a plain function `(context, *args, **kwargs) -> value`. A stream handler is a generator
function: what it yields become items, what it returns becomes the result. Arguments arrive decoded
(torch tensors, and for handles the objects themselves); a returned `Handle` travels as a handle,
everything else by value.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Generator
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias, TypeVar

from marlin.errors import UnknownMethodError
from marlin.worker.binding import ArgumentChecker
from marlin.worker.context import CallContext

__all__ = ["CallContext", "Handler", "find_handler", "handler", "load_handlers", "stream_handler"]

P = ParamSpec("P")
R = TypeVar("R")
# A value, or the generator of a stream: only the handler knows its type.
Outcome: TypeAlias = Any


class Handler:
    """A registered method."""

    __slots__ = ("_checker", "_function", "is_stream", "method")

    def __init__(self, method: str, function: Callable[..., Any], is_stream: bool) -> None:
        self.method = method
        self.is_stream = is_stream
        self._function = function
        self._checker = ArgumentChecker(method, function)

    def invoke(self, context: CallContext, args: list[Any], kwargs: dict[str, Any]) -> Outcome:
        """Checks the arguments (InvalidArgumentError) and calls; a stream gives its generator."""
        self._checker.check(args, kwargs)
        return self._function(context, *args, **kwargs)


_handlers: Final[dict[str, Handler]] = {}


def handler(
    method: str,
) -> Callable[[Callable[Concatenate[CallContext, P], R]], Callable[Concatenate[CallContext, P], R]]:
    """Registers a function under `method`."""

    def register(
        function: Callable[Concatenate[CallContext, P], R],
    ) -> Callable[Concatenate[CallContext, P], R]:
        _register(Handler(method, function, is_stream=False))
        return function

    return register


def stream_handler(
    method: str,
) -> Callable[
    [Callable[Concatenate[CallContext, P], Generator[Any, None, R]]],
    Callable[Concatenate[CallContext, P], Generator[Any, None, R]],
]:
    """Registers a generator function under `method`; its generator is closed on cancel."""

    def register(
        function: Callable[Concatenate[CallContext, P], Generator[Any, None, R]],
    ) -> Callable[Concatenate[CallContext, P], Generator[Any, None, R]]:
        _register(Handler(method, function, is_stream=True))
        return function

    return register


def _register(entry: Handler) -> None:
    if entry.method in _handlers:
        raise ValueError(f"`method` must be new, got {entry.method} a second time.")
    _handlers[entry.method] = entry


def find_handler(method: str) -> Handler:
    """The handler of `method`; raises UnknownMethodError."""
    try:
        return _handlers[method]
    except KeyError:
        known = ", ".join(sorted(_handlers))
        raise UnknownMethodError(
            f"The worker has no method `{method[:128]}`; it has {known}."
        ) from None


def load_handlers() -> None:
    """Imports every module of this package."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
