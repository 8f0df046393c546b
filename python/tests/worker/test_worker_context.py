"""context.py and failures.py: what a handler asks of its call, and what becomes of its errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from marlin.errors import ArenaFullError, CancelledError, InvalidArgumentError
from marlin.worker import protocol
from marlin.worker.context import CallContext
from marlin.worker.failures import describe_failure
from marlin.worker.protocol import DEFAULT_LIMITS, ProgressData
from marlin.worker.session import Session


def _context(sent: list[ProgressData] | None = None) -> CallContext:
    session = Session(b"x", DEFAULT_LIMITS, None)
    return CallContext(session, None if sent is None else sent.append)


def test_check_raises_once_cancelled() -> None:
    context = _context()
    context.check()
    assert not context.cancelled
    context.cancel()
    assert context.cancelled
    with pytest.raises(CancelledError):
        context.check()


def test_progress_sends_the_first_and_the_last_of_each_phase_and_few_between() -> None:
    sent: list[ProgressData] = []
    context = _context(sent)
    for phase in ("load", "quantize"):
        for done in range(10_001):
            context.progress(phase, done, 10_000)
    steps = [(data.phase, data.done) for data in sent]
    for phase in ("load", "quantize"):
        assert (phase, 0) in steps
        assert (phase, 10_000) in steps
    assert len(steps) < 1000


def test_progress_that_nobody_asked_for_is_dropped() -> None:
    _context().progress("load", 1, 2)


def test_allocates_plain_memory_for_a_client_without_arena() -> None:
    tensor = _context().allocate(torch.float16, [2, 3])
    assert (tensor.dtype, tensor.shape) == (torch.float16, (2, 3))


def test_an_error_of_marlin_keeps_code_and_details() -> None:
    error = describe_failure(ArenaFullError("No room.", requested=5, who=object(), partition="w"))
    assert (error.code, error.message) == ("arena_full", "No room.")
    assert error.type == "marlin.errors.ArenaFullError"
    assert error.details["requested"] == 5
    assert error.details["partition"] == "w"
    assert str(error.details["who"]).startswith("<object")
    assert error.traceback == ""


def test_details_that_are_too_large_are_left_out() -> None:
    assert describe_failure(InvalidArgumentError("x", text="y" * 20_000)).details == {}


def test_torch_out_of_memory_has_its_code() -> None:
    assert describe_failure(torch.OutOfMemoryError("CUDA")).code == "out_of_memory"


def test_an_error_without_text_is_named_by_its_type() -> None:
    assert describe_failure(ValueError()).message == "ValueError"
    assert describe_failure(ValueError("\ud800")).message == "?"


class _NamelessError(Exception):
    __module__ = "\ud800"


class _CodelessError(InvalidArgumentError):
    code = object()  # type: ignore[assignment]


class _ElusiveError(Exception):
    def __getattribute__(self, name: str) -> object:
        raise RuntimeError("not even that")


class _Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "make",
    [
        lambda: _NamelessError("x"),
        lambda: _CodelessError("x"),
        lambda: _ElusiveError("x"),
        lambda: InvalidArgumentError("x", what=_Unprintable()),
        lambda: InvalidArgumentError("x", what="\ud800"),
        lambda: InvalidArgumentError("x", **{"\ud800": 1}),
    ],
    ids=["module", "code", "class", "repr", "text", "key"],
)
def test_an_error_that_cannot_be_described_is_an_error_still(
    make: Callable[[], Exception],
) -> None:
    described = describe_failure(make())
    assert described.code == "python_error"
    assert described.message == "An exception was raised that cannot be described."
    assert protocol.encode(protocol.ErrorReply(1, described))


def test_details_beyond_64_bits_become_text() -> None:
    details = describe_failure(InvalidArgumentError("x", wanted=2**64, got=2**64 - 1)).details
    assert details == {"wanted": str(2**64), "got": 2**64 - 1}
