"""What every bridge calls in bench/bridge: the same four functions for ours and for each peer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def noop() -> None:
    """The empty call."""


def size(values: object) -> int:
    """Elements of a tensor, or bytes: proof that the argument arrived, at no cost per byte."""
    return int(values.numel()) if hasattr(values, "numel") else len(values)  # type: ignore[arg-type]


def items(count: int) -> Iterator[int]:
    """A stream of `count` small values."""
    yield from range(count)


def resident() -> list[int]:
    """Anonymous and shared resident bytes of this process: where a copy of a tensor would show."""
    fields: dict[str, int] = {}
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "RssShmem"):
            fields[name] = int(value.split()[0]) * 1024
    return [fields.get("RssAnon", 0), fields.get("RssShmem", 0)]
