"""Foreign code that the worker imports in the tests: it blocks, streams, fails and dies as told."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import torch

closed: list[str] = []
died_in: list[str] = []
said: list[int] = []


def wait_on(fifo: str) -> str:
    """Blocks until the test has written to the pipe and closed it; returns what it wrote."""
    return Path(fifo).read_text()


def count(upto: int) -> Iterator[int]:
    try:
        yield from range(upto)
    finally:
        closed.append("count")


def count_aloud(upto: int, item_bytes: int) -> Iterator[bytes]:
    """`said` grows with each item, so that another client sees how far this is."""
    for number in range(upto):
        said.append(number)
        yield number.to_bytes(item_bytes, "big")


def fail_after(items: int) -> Iterator[int]:
    yield from range(items)
    raise ValueError("the generator broke")


def refuse_to_close() -> Iterator[int]:
    while True:
        try:
            yield 1
        except GeneratorExit:
            continue


def yield_object() -> Generator[object, None, str]:
    yield object()
    return "summary"


def exit_now() -> None:
    raise SystemExit(3)


def interrupt() -> None:
    raise KeyboardInterrupt


def run_out_of_memory() -> None:
    raise MemoryError("no memory")


def allocate_too_much() -> torch.Tensor:
    return torch.empty(2**60, dtype=torch.uint8)


def raise_long(size: int) -> None:
    raise ValueError("x" * size)


def recurse(depth: int) -> int:
    return recurse(depth + 1) + 1


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text either")


def raise_silent() -> None:
    raise SilentError


def import_missing() -> None:
    import module_that_is_not_there  # type: ignore[import-not-found]  # noqa: F401


class Mortal:
    """Notes the thread in which it dies."""

    def __del__(self) -> None:
        died_in.append(threading.current_thread().name)


def print_to_stdout(text: str) -> None:
    print(text, flush=True)
