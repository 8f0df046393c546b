"""The layers inside the worker: a module imports only those of the rows above it."""

from __future__ import annotations

import pytest

from tests.test_layers import IMPORTS, WORKER, under

_ROWS = [
    {"protocol", "waker", "endpoint", "allocator", "handles", "lifetime"},
    {"limits", "arena", "binding", "failures"},
    {"tensors", "router"},
    {"reader", "writer", "context"},
    {"handlers"},
    {"session"},
    {"executor", "sender"},
    {"server"},
    {"__main__"},
]


def _row(name: str) -> int:
    """The row of `marlin.worker.writer`, or of `marlin.worker.handlers.python`."""
    part = name.removeprefix(f"{WORKER}.").split(".")[0]
    return next(index for index, row in enumerate(_ROWS) if part in row)


def test_every_module_has_its_row() -> None:
    parts = {
        name.removeprefix(f"{WORKER}.").split(".")[0]
        for name in IMPORTS
        if under(name, WORKER) and name != WORKER
    }
    assert parts == set().union(*_ROWS)


@pytest.mark.parametrize("module", sorted(n for n in IMPORTS if under(n, WORKER) and n != WORKER))
def test_the_worker_imports_downwards(module: str) -> None:
    for name in IMPORTS[module]:
        if name in IMPORTS and under(name, WORKER) and name != WORKER:
            within_handlers = under(module, f"{WORKER}.handlers") and under(
                name, f"{WORKER}.handlers"
            )
            assert within_handlers or _row(name) < _row(module), name


def test_only_the_router_knows_zeromq() -> None:
    users = {module for module, names in IMPORTS.items() if any(under(n, "zmq") for n in names)}
    assert users == {f"{WORKER}.router"}
