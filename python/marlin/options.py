"""Checks of the options that generation and perplexity take. Knows no model."""

from __future__ import annotations

import math
from collections.abc import Callable

from marlin.errors import InvalidArgumentError

__all__ = ["check_number", "check_positive", "shown"]

_SHOWN_CHARACTERS = 60


def check_positive(name: str, value: object) -> None:
    """Refuses everything but integers from 1 up."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidArgumentError(
            f"`{name}` must be an integer of at least 1, got {shown(value)}."
        )


def check_number(name: str, value: object, expected: str, fits: Callable[[float], bool]) -> None:
    """Refuses everything but finite numbers that `fits`, which `expected` says in words."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgumentError(f"`{name}` must be a number {expected}, got {shown(value)}.")
    if not math.isfinite(value) or not fits(value):
        raise InvalidArgumentError(f"`{name}` must be a finite number {expected}, got {value}.")


def shown(value: object) -> str:
    """`value` for a message, cut to a line."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."
