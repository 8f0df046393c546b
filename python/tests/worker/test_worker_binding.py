"""binding.py and the registry: wrong arguments are named before a handler runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import pytest
import torch

from marlin.errors import InvalidArgumentError, UnknownMethodError
from marlin.worker.binding import ArgumentChecker
from marlin.worker.context import CallContext
from marlin.worker.handlers import find_handler, handler, load_handlers, stream_handler

Anything: TypeAlias = Any


def _sample(
    context: CallContext,
    tensor: torch.Tensor,
    names: list[str],
    scale: float = 1.0,
    prompt: str | list[str] = "",
    options: dict[str, int] | None = None,
    *,
    steps: int | None = None,
    anything: Anything = None,
) -> None:
    raise AssertionError("only its signature is used")


_CHECKER = ArgumentChecker("sample.method", _sample)
_TENSOR = torch.zeros(1)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ([_TENSOR, []], {}),
        ([_TENSOR, ["a"], 2, ["x", "y"], {"a": 1}], {"steps": 3, "anything": object()}),
        ([_TENSOR], {"names": ["a"], "scale": 0.5, "prompt": "x", "options": None}),
        ([torch.nn.Parameter(_TENSOR), []], {"steps": None}),
    ],
)
def test_accepts_what_the_signature_says(args: list[object], kwargs: dict[str, object]) -> None:
    _CHECKER.check(args, kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs", "sentence"),
    [
        ([_TENSOR], {}, r"`sample.method` is missing a required argument: 'names'"),
        ([], {"names": []}, r"`sample.method` is missing a required argument: 'tensor'"),
        ([_TENSOR, []], {"step": 1}, r"`sample.method` got an unexpected .* 'step'"),
        ([_TENSOR, []], {"names": []}, r"`sample.method` .*multiple values for argument 'names'"),
        ([_TENSOR, [], 1, "", None, 3], {}, r"`sample.method` .*too many positional"),
        ([1, []], {}, r"`tensor` of `sample.method` must be torch.Tensor, got 1\."),
        ([_TENSOR, ["a", 1]], {}, r"`names` of .* must be list\[str\], got a builtins.list\."),
        ([_TENSOR, [], True], {}, r"`scale` of .* must be float, got True\."),
        ([_TENSOR, [], 1, 5], {}, r"`prompt` of .* must be str \| list\[str\], got 5\."),
        ([_TENSOR, [], 1, "", {"a": "b"}], {}, r"`options` of .* got a builtins.dict\."),
        ([_TENSOR, []], {"steps": 1.5}, r"`steps` of .* must be int \| None, got 1.5\."),
        ([_TENSOR, []], {"steps": True}, r"`steps` of .* must be int \| None, got True\."),
        ([_TENSOR, []], {"context": 1}, r"`sample.method` got an unexpected .* 'context'"),
    ],
)
def test_names_the_method_and_the_argument(
    args: list[object], kwargs: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=sentence):
        _CHECKER.check(args, kwargs)


def test_a_method_is_registered_once() -> None:
    load_handlers()
    assert not find_handler("python.get").is_stream
    assert find_handler("python.iterate").is_stream

    def once(context: CallContext) -> None: ...

    def stream(context: CallContext) -> Iterator[int]:
        yield 1

    with pytest.raises(ValueError, match=r"`method` must be new, got python\.get"):
        handler("python.get")(once)
    with pytest.raises(ValueError, match=r"`method` must be new, got python\.get"):
        stream_handler("python.get")(stream)  # type: ignore[arg-type]


def test_an_unknown_method_is_answered_with_those_that_exist() -> None:
    load_handlers()
    with pytest.raises(UnknownMethodError, match=r"no method `nope`; it has .*python\.get"):
        find_handler("nope")
