"""Checks the arguments of a call against a handler's signature and annotations.

Built once for each handler; a call costs a few type tests.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, Union

from marlin.errors import InvalidArgumentError
from marlin.worker.handles import qualified_type

__all__ = ["ArgumentChecker"]

Test: TypeAlias = Callable[[object], bool]


class ArgumentChecker:
    """Refuses missing, unknown and wrongly typed arguments, by method and name.

    Checked are the annotations str, int, float, bool, None, bytes, list, dict, classes, and unions,
    `list[...]` and `dict[str, ...]` of them; any other annotation accepts everything. Annotations
    must be importable at run time to be checked. An int passes for a float, a bool not for an int.
    """

    def __init__(self, method: str, function: Callable[..., Any]) -> None:
        self._method = method
        # The first parameter is the context.
        self._signature = _without_first(inspect.signature(function))
        parameters = list(self._signature.parameters.values())
        hints = typing.get_type_hints(function)
        self._required = [p.name for p in parameters if p.default is p.empty]
        self._positional = [
            (p.name, _test_for(hints.get(p.name, Any)), p.annotation)
            for p in parameters
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        self._by_name = {
            p.name: (_test_for(hints.get(p.name, Any)), p.annotation)
            for p in parameters
            if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
        }

    def check(self, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        """Raises InvalidArgumentError naming the method and the argument."""
        if kwargs or len(args) != len(self._required) or len(args) > len(self._positional):
            try:
                self._signature.bind(*args, **kwargs)
            except TypeError as error:
                raise InvalidArgumentError(f"`{self._method}` {_sentence(error)}.") from None
        for value, (name, test, annotation) in zip(args, self._positional, strict=False):
            if test is not None and not test(value):
                self._refuse(name, annotation, value)
        for name, value in kwargs.items():
            # A name that is not here went into the handler's own `**kwargs`.
            test, annotation = self._by_name.get(name, (None, None))
            if test is not None and not test(value):
                self._refuse(name, annotation, value)

    def _refuse(self, name: str, annotation: object, value: object) -> None:
        raise InvalidArgumentError(
            f"`{name}` of `{self._method}` must be {annotation}, got {_describe(value)}."
        )


def _without_first(signature: inspect.Signature) -> inspect.Signature:
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _sentence(error: TypeError) -> str:
    text = str(error)
    return text if text.startswith(("got", "takes")) else f"is {text}"


def _describe(value: object) -> str:
    if isinstance(value, (bool, int, float, str)) or value is None:
        return repr(value)[:80]
    return f"a {qualified_type(value)}"


def _test_for(annotation: object) -> Test | None:
    """A test of a value against `annotation`, or None when everything passes."""
    if annotation is Any or annotation is object:
        return None
    if annotation is None or annotation is type(None):
        return lambda value: value is None
    if annotation is int:
        return lambda value: isinstance(value, int) and not isinstance(value, bool)
    if annotation is float:
        return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return lambda value: isinstance(value, annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        tests = [_test_for(argument) for argument in arguments]
        if None in tests:
            return None
        known = [test for test in tests if test is not None]
        return lambda value: any(test(value) for test in known)
    if origin is list:
        entry = _test_for(arguments[0])
        return lambda value: (
            isinstance(value, list) and (entry is None or all(entry(item) for item in value))
        )
    if origin is dict:
        entry = _test_for(arguments[1])
        return lambda value: (
            isinstance(value, dict)
            and (entry is None or all(entry(item) for item in value.values()))
        )
    return None
