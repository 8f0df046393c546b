"""Turns any exception into the error map of the wire. The one place where they meet."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Final

import msgspec
import torch

from marlin.errors import MarlinError
from marlin.worker.handles import qualified_type
from marlin.worker.protocol import ErrorMap

__all__ = ["describe_failure"]

_INT64_MIN: Final = -(2**63)
_UINT64_MAX: Final = 2**64 - 1
_MAX_TRACEBACK_BYTES: Final = 16 << 10
_MAX_MESSAGE_BYTES: Final = 8 << 10
_MAX_DETAILS_BYTES: Final = 16 << 10
_OWN_PACKAGE: Final = "marlin.worker"
# torch raises a plain RuntimeError when the CPU allocator fails.
_CPU_ALLOCATOR_FAILED: Final = "DefaultCPUAllocator"


def describe_failure(error: BaseException) -> ErrorMap:
    """Code, message, qualified type and traceback of `error`; never raises, always fits a frame."""
    try:
        described = _describe(error)
        # A name with lone surrogates, or a code that is no string, shows only here.
        msgspec.msgpack.encode(described)
    except BaseException:
        # Foreign classes answer for their names, and for what they are instances of.
        return ErrorMap("python_error", "An exception was raised that cannot be described.")
    return described


def _describe(error: BaseException) -> ErrorMap:
    text = _text_of(error)
    if isinstance(error, MarlinError):
        return ErrorMap(
            error.code,
            text,
            qualified_type(error),
            _traceback_of(error),
            _plain_details(error.details),
        )
    out_of_memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and _CPU_ALLOCATOR_FAILED in text
    )
    code = "out_of_memory" if out_of_memory else "python_error"
    return ErrorMap(code, text, qualified_type(error), _traceback_of(error))


def _text_of(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException as second:
        text = f"its message could not be made: {qualified_type(second)}"
    return _first_bytes(text or type(error).__qualname__, _MAX_MESSAGE_BYTES)


def _traceback_of(error: BaseException) -> str:
    foreign = _without_own_frames(error.__traceback__)
    if foreign is None and isinstance(error, MarlinError):
        # Raised by the worker itself: the message says all.
        return ""
    try:
        text = "".join(traceback.format_exception(type(error), error, foreign))
    except BaseException as second:
        text = f"The traceback could not be formatted: {qualified_type(second)}\n"
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= _MAX_TRACEBACK_BYTES:
        return encoded.decode()
    # The end names the error and where it was raised; the beginning only how we came there.
    mark = "[...]\n"
    return mark + encoded[len(mark) - _MAX_TRACEBACK_BYTES :].decode("utf-8", "ignore")


def _without_own_frames(tb: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is not the worker's own; None if there is none."""
    first = tb
    while first is not None and first.tb_frame.f_globals.get("__name__", "").startswith(
        _OWN_PACKAGE
    ):
        first = first.tb_next
    return first


def _plain_details(details: dict[str, object]) -> dict[str, object]:
    plain: dict[str, object] = {}
    for key, value in details.items():
        fits = isinstance(value, (bool, float, str, type(None))) or (
            isinstance(value, int) and _INT64_MIN <= value <= _UINT64_MAX
        )
        plain[key] = value if fits else repr(value)
    if len(msgspec.msgpack.encode(plain)) > _MAX_DETAILS_BYTES:
        return {}
    return plain


def _first_bytes(text: str, limit: int) -> str:
    encoded = text.encode("utf-8", "replace")
    return encoded[:limit].decode("utf-8", "ignore")
