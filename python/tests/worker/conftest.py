"""Shared workers: starting one imports torch, so tests that need no fresh one share it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from marlin.worker.arena import Arena
from tests.worker.wire_client import WireClient, WorkerProcess


@pytest.fixture(scope="session")
def worker() -> Iterator[WorkerProcess]:
    """A worker without shared memory, for any number of clients. It must outlive every test."""
    with WorkerProcess(arena_bytes=0) as process:
        yield process
        assert process.process.poll() is None, "a test has ended the shared worker"


@pytest.fixture
def client(worker: WorkerProcess) -> Iterator[WireClient]:
    """A new client of the shared worker."""
    with WireClient(worker.endpoint) as new:
        yield new
        new.send({"type": "bye"})


@pytest.fixture(scope="session")
def make_arena() -> Callable[[int, int], Arena]:
    """Makes an arena of this process: `(bytes, client_bytes)`."""

    def make(nbytes: int, client_bytes: int) -> Arena:
        fd = os.memfd_create("test")
        os.ftruncate(fd, nbytes)
        return Arena(fd, nbytes, client_bytes, lambda: None)

    return make
