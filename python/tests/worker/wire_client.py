"""A small client in plain ZeroMQ and msgpack, and a worker process to point it at.

Written from docs/protocol.md; shares with the worker only the structs of the messages, so that a
fault of the codec shows.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import msgspec
import zmq

from marlin.worker import protocol
from marlin.worker.protocol import ErrorMap, WorkerMessage

__all__ = ["CallError", "Ref", "TensorRef", "WireClient", "WorkerProcess", "block", "frame", "ref"]

M = TypeVar("M")
# Whatever a call returns; the tests say what they expect.
Value: TypeAlias = Any

# Generous: a loaded machine imports torch slowly. A test that waits this long has failed.
_PATIENCE_MS = 60_000
_SOURCE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ref:
    """A handle as the wire shows it."""

    id: int
    kind: str
    type: str
    meta: dict[str, Any]


@dataclass(frozen=True)
class TensorRef:
    """A tensor as the wire shows it; `bytes` for one that came in a frame."""

    dtype: str
    shape: list[int]
    storage: list[Any]
    bytes: bytes = b""


class CallError(Exception):
    """The worker answered a call with `error`."""

    def __init__(self, error: ErrorMap) -> None:
        super().__init__(f"{error.code}: {error.message}")
        self.error = error
        self.code = error.code


def ref(handle: Ref | int) -> msgspec.msgpack.Ext:
    """A handle as an argument."""
    handle_id = handle.id if isinstance(handle, Ref) else handle
    return msgspec.msgpack.Ext(1, msgspec.msgpack.encode([handle_id]))


def frame(dtype: str, shape: list[int], index: int = 1) -> msgspec.msgpack.Ext:
    """A tensor in a frame as an argument."""
    return msgspec.msgpack.Ext(2, msgspec.msgpack.encode([dtype, shape, ["frame", index]]))


def block(dtype: str, shape: list[int], *storage: object) -> msgspec.msgpack.Ext:
    """A tensor in the arena: owner, block, generation, offset, bytes."""
    return msgspec.msgpack.Ext(2, msgspec.msgpack.encode([dtype, shape, ["block", *storage]]))


class WorkerProcess:
    """A spawned worker, as a client would: a private directory, stdin kept open, an arena."""

    def __init__(
        self,
        arena_bytes: int = 1 << 20,
        client_bytes: int = 1 << 19,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="mw-"))
        self.endpoint = f"ipc://{self.directory}/s"
        self.memory: mmap.mmap | None = None
        command = [sys.executable, "-m", "marlin.worker", "--endpoint", self.endpoint]
        descriptors: tuple[int, ...] = ()
        if arena_bytes:
            fd = os.memfd_create("test")
            os.ftruncate(fd, arena_bytes)
            self.memory = mmap.mmap(fd, arena_bytes)
            descriptors = (fd,)
            command += ["--arena-fd", str(fd), "--arena-bytes", str(arena_bytes)]
            command += ["--arena-client-bytes", str(client_bytes)]
        self.process = subprocess.Popen(
            [*command, "--threads", "1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
            env={**os.environ, "PYTHONPATH": str(_SOURCE), **(environment or {})},
        )
        for descriptor in descriptors:
            os.close(descriptor)

    def stop(self) -> tuple[int, str, str]:
        """Ends the worker by closing its stdin; returns exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=_PATIENCE_MS / 1000)
        return self.process.returncode, out.decode(), err.decode()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        with contextlib.suppress(FileNotFoundError):
            (self.directory / "s").unlink(missing_ok=True)
            self.directory.rmdir()


class WireClient:
    """One DEALER. `call` waits for the reply; the other methods are single messages."""

    def __init__(self, endpoint: str, *, hello: bool = True, arena: bool = False) -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.set(zmq.RCVTIMEO, _PATIENCE_MS)
        self.socket.connect(endpoint)
        self._ids = itertools.count(1)
        self._frames: list[bytes] = []
        self._decoder = protocol.worker_decoder(self._extension)
        self.released: list[tuple[int, int, int]] = []
        self.progress: list[protocol.ProgressData] = []
        self.welcome: protocol.Welcome | None = None
        if hello:
            self.send({"type": "hello", "protocol": [1, 0], "client": "test/1", "arena": arena})
            self.welcome = self.expect(protocol.Welcome)

    def close(self) -> None:
        """Leaves without a word, as a killed client would."""
        self.socket.close()
        self._context.term()

    def __enter__(self) -> WireClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, message: object, *frames: bytes) -> None:
        """Any value as a control frame; bytes go as they are."""
        control = message if isinstance(message, bytes) else msgspec.msgpack.encode(message)
        self.socket.send_multipart([control, *frames])

    def receive(self) -> WorkerMessage:
        """The next message but releases and progress, which are collected, as are blocks."""
        while True:
            control, *self._frames = self.socket.recv_multipart()
            message = self._decoder.decode(control)
            if isinstance(message, (protocol.Release, protocol.Result, protocol.ErrorReply)):
                self.released += message.blocks
            if isinstance(message, protocol.Progress):
                self.progress.append(message.data)
            elif not isinstance(message, protocol.Release):
                return message

    def expect(self, kind: type[M]) -> M:
        """The next message, which must be of that kind."""
        message = self.receive()
        assert isinstance(message, kind), message
        return message

    def expect_error(self, call_id: int | None = None) -> ErrorMap:
        """The next message, which must be an error about that call, or about none."""
        message = self.expect(protocol.ErrorReply)
        assert message.id == call_id, message
        return message.error

    def start(
        self,
        method: str,
        *args: object,
        credit: int = 0,
        progress: bool = False,
        frames: tuple[bytes, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> int:
        """Sends a call and returns its id."""
        call_id = next(self._ids)
        message = {"type": "call", "id": call_id, "method": method, "args": args}
        self.send(
            {**message, "kwargs": kwargs or {}, "credit": credit, "progress": progress}, *frames
        )
        return call_id

    def finish(self, call_id: int) -> Value:
        """The value of the next message, which must be the reply to that call."""
        message = self.receive()
        if isinstance(message, protocol.ErrorReply) and message.id == call_id:
            raise CallError(message.error)
        assert isinstance(message, protocol.Result), message
        assert message.id == call_id, message
        return message.value

    def call(
        self, method: str, *args: object, frames: tuple[bytes, ...] = (), **kwargs: object
    ) -> Value:
        """Calls and waits; raises CallError."""
        return self.finish(self.start(method, *args, frames=frames, kwargs=kwargs))

    def python(
        self,
        target: object,
        path: str,
        *args: object,
        frames: tuple[bytes, ...] = (),
        **kwargs: object,
    ) -> Value:
        """`python.call` with a dotted path."""
        return self.call("python.call", target, path.split("."), args, kwargs, frames=frames)

    def items(self, call_id: int) -> Iterator[Any]:
        """The items of a stream until its result."""
        seq = 0
        while isinstance(message := self.receive(), protocol.Item):
            assert (message.id, message.seq) == (call_id, seq)
            seq += 1
            yield message.value
        assert isinstance(message, protocol.Result), message

    def ping(self) -> protocol.Pong:
        """A round trip through the I/O thread: what was sent before it has been handled."""
        self.send({"type": "ping", "id": 7})
        return self.expect(protocol.Pong)

    def stats(self) -> dict[str, int]:
        """`worker.stats` without the memory."""
        stats: dict[str, int] = self.call("worker.stats")
        del stats["rss_bytes"]
        return stats

    def _extension(self, code: int, payload: memoryview) -> object:
        fields = msgspec.msgpack.decode(payload)
        if code == protocol.HANDLE_CODE:
            return Ref(*fields)
        dtype, shape, storage = fields
        data = self._frames[storage[1] - 1] if storage[0] == "frame" else b""
        return TensorRef(dtype, shape, storage, data)
