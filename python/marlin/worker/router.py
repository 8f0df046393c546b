"""The ZeroMQ side of the worker: one ROUTER socket and its options.

Knows clients by their routing id, and messages as frames; nothing of what is in them. Another
transport is a file beside this one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import zmq

from marlin.errors import BindRefusedError
from marlin.worker.endpoint import check_endpoint, remove_socket
from marlin.worker.protocol import Limits
from marlin.worker.waker import Waker

__all__ = ["Incoming", "Router", "SendOutcome"]

SendOutcome: TypeAlias = Literal["sent", "full", "gone"]

_LAST: Final = zmq.NOBLOCK
_MORE: Final = zmq.NOBLOCK | zmq.SNDMORE
_HANDSHAKE_MS: Final = 5000
# From this size on a frame is sent from where it lies, which costs a thread switch to free it.
_ZERO_COPY_BYTES: Final = 65536


@dataclass(frozen=True, slots=True)
class Incoming:
    """One message. `excess` counts frames beyond the limit, which were read and dropped."""

    identity: bytes
    control: bytes
    frames: list[memoryview]
    excess: int


class Router:
    """Used by the I/O thread only."""

    def __init__(self, endpoint: str, limits: Limits, waker: Waker) -> None:
        """Binds; raises BindRefusedError for an endpoint that is not safe or not free."""
        check_endpoint(endpoint)
        self._endpoint = endpoint
        self._max_frames = limits.max_frames
        self._context = zmq.Context()
        self._context.set(zmq.BLOCKY, 0)
        self._socket = socket = self._context.socket(zmq.ROUTER)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.ROUTER_HANDOVER, 0)
        socket.set(zmq.MAXMSGSIZE, limits.max_frame_bytes)
        socket.set(zmq.HANDSHAKE_IVL, _HANDSHAKE_MS)
        if endpoint.startswith("ipc://"):
            socket.set(zmq.IPC_FILTER_UID, os.getuid())
        else:
            socket.set(zmq.IPV6, int("[" in endpoint))
        self._monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        mask = os.umask(0o077)
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise BindRefusedError(
                f"`--endpoint` must be free to bind, got {endpoint}: {error}."
            ) from error
        finally:
            os.umask(mask)
        self._poll_items: list[tuple[Any, int]] = [
            (socket, zmq.POLLIN),
            (waker.fd, zmq.POLLIN),
            (self._monitor, zmq.POLLIN),
        ]

    def wait(self, timeout_ms: int) -> tuple[bool, bool, bool]:
        """Blocks (-1: for ever); whether a message is here, the waker rang, a peer went away."""
        message = woken = left = False
        for source, _ in zmq.zmq_poll(self._poll_items, timeout_ms):
            if source is self._socket:
                message = True
            elif source is self._monitor:
                left = True
            else:
                woken = True
        if left:
            self._monitor.recv_multipart()
        return message, woken, left

    def receive(self) -> Incoming:
        """The next message; frames are views of ZeroMQ's memory."""
        socket = self._socket
        identity = socket.recv()
        # Frame.more is ten times cheaper than asking the socket.
        control = frame = socket.recv(copy=False)
        frames: list[memoryview] = []
        excess = 0
        while frame.more:
            frame = socket.recv(copy=False)
            if len(frames) < self._max_frames:
                frames.append(frame.buffer)
            else:
                excess += 1
        return Incoming(identity, control.bytes, frames, excess)

    def send(self, identity: bytes, frames: Sequence[bytes]) -> SendOutcome:
        """Never waits: `full` when the client does not read, `gone` when there is no such peer."""
        socket = self._socket
        try:
            socket.send(identity, _MORE)
        except zmq.Again:
            return "full"
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return "gone"
            raise
        last = len(frames) - 1
        for index, frame in enumerate(frames):
            socket.send(
                frame, _LAST if index == last else _MORE, copy=len(frame) < _ZERO_COPY_BYTES
            )
        return "sent"

    def close(self, linger_ms: int = 0) -> None:
        """Unbinds, gives what was sent `linger_ms` to leave, and removes the socket's file."""
        with contextlib.suppress(zmq.ZMQError):
            self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=linger_ms)
        self._context.term()
        remove_socket(self._endpoint)
