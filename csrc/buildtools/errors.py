"""The one error of the build: a sentence that says what to install or set."""

from __future__ import annotations

__all__ = ["BuildError"]


class BuildError(Exception):
    """The build cannot go on; the message says what the person building can do."""
