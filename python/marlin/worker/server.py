"""The I/O thread: reads messages, routes them, and has sent what comes back.

Runs no user code and no torch operator: calls go to the executor. It never ends because of a
message; a bad one is answered with a typed error to the client that sent it.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from typing import Final

import msgspec

from marlin.errors import (
    InternalError,
    MarlinError,
    MessageTooLargeError,
    ProtocolError,
    TooManyCallsError,
    VersionMismatchError,
)
from marlin.worker import protocol
from marlin.worker.arena import Arena
from marlin.worker.context import CallContext, ProgressSink
from marlin.worker.executor import Executor
from marlin.worker.failures import describe_failure
from marlin.worker.handlers import find_handler
from marlin.worker.handles import HandleTable
from marlin.worker.limits import check_control
from marlin.worker.protocol import ErrorMap, Limits, ProgressData, WorkerInfo
from marlin.worker.reader import UNREADABLE, MessageReader
from marlin.worker.router import Incoming, Router
from marlin.worker.sender import Sender
from marlin.worker.session import Outgoing, RunningCall, Session
from marlin.worker.waker import Waker

__all__ = ["Server"]

_log = logging.getLogger(__name__)

_RETRY_MS: Final = 10
# The end of a peer's connection and of its routing id come from two threads of ZeroMQ, so that one
# look is not enough.
_PROBES: Final = 4
_PROBE_SECONDS: Final = 0.05
# What was sent last (a `bye`, errors of calls that end with us) has this long to leave.
_LINGER_MS: Final = 500
# Progress is dropped while more than this waits to be sent.
_MAX_OUTBOX_FOR_PROGRESS: Final = 64


class Server:
    """Routes between clients and the executor. Everything but `stop` is its thread's."""

    def __init__(
        self,
        router: Router,
        waker: Waker,
        arena: Arena | None,
        limits: Limits,
        info: WorkerInfo,
        on_first_client: Callable[[], None],
    ) -> None:
        """`on_first_client` is called, in the I/O thread, before the first `welcome`."""
        self._router = router
        self._waker = waker
        self._arena = arena
        self._limits = limits
        self._info = info
        self._on_first_client = on_first_client
        self._has_greeted = False
        self._incarnation = secrets.token_hex(16)
        self._sessions: dict[bytes, Session] = {}
        self._arena_session: Session | None = None
        self._arena_is_taken = arena is None
        self._stranger = MessageReader(limits, HandleTable(), None)
        self._sender = Sender(router, self._close, self._resume_streams)
        self._probes = 0
        self._next_probe = 0.0
        self._stopping = False
        self.executor = Executor(self._sender.outbox, waker.wake)

    def stop(self) -> None:
        """Ends `run` soon."""
        self._stopping = True
        self._waker.wake()

    # The loop

    def run(self) -> None:
        """Serves until `stop`, a signal, or the `bye` of the client that shares our memory."""
        try:
            while not self._stopping:
                self._flush()
                self._waker.prepare_sleep()
                message, woken, left = self._router.wait(self._timeout_ms())
                self._waker.awake()
                if woken and self._waker.drain():
                    self._stopping = True
                if left:
                    self._probes = _PROBES
                if message:
                    self._receive()
                self._probe()
        finally:
            self._shut_down()

    def _timeout_ms(self) -> int:
        """Looked at after `prepare_sleep`: whoever adds work from now on rings."""
        if self._stopping or self._sender.outbox or self._has_releases():
            return 0
        slow = [
            session for session in self._sessions.values() if session.backlog or session.is_slow
        ]
        if slow:
            return _RETRY_MS if all(session.backlog for session in slow) else 0
        return round(_PROBE_SECONDS * 1000) if self._probes else -1

    def _flush(self) -> None:
        self._sender.flush(list(self._sessions.values()))
        # After the replies: a reply may mention a block of which a reference goes back here.
        if self._has_releases() and self._arena is not None and self._arena_session is not None:
            blocks = self._arena.take_client_releases()
            self._sender.say(self._arena_session, protocol.Release(blocks=blocks))

    def _has_releases(self) -> bool:
        session = self._arena_session
        return (
            session is not None
            and not session.backlog
            and self._arena is not None
            and self._arena.has_client_releases
        )

    def _probe(self) -> None:
        """Finds out which clients have left, with an empty `release` that any client accepts."""
        if self._probes and time.monotonic() >= self._next_probe:
            self._probes -= 1
            self._next_probe = time.monotonic() + _PROBE_SECONDS
            for session in list(self._sessions.values()):
                # One with a backlog is tried again anyway.
                if not session.backlog:
                    self._sender.say(session, protocol.Release())

    # Messages

    def _receive(self) -> None:
        incoming = self._router.receive()
        session = self._sessions.get(incoming.identity)
        try:
            if incoming.excess:
                raise MessageTooLargeError(
                    f"A message must have at most {self._limits.max_frames} frames after the "
                    f"first, got {len(incoming.frames) + incoming.excess}."
                )
            if session is None:
                self._greet(incoming)
            else:
                self._dispatch(session, session.reader.read(incoming.control, incoming.frames))
        except MarlinError as error:
            self._refuse(incoming, session, error)
        except Exception:
            _log.exception("A message could not be handled")
            self._refuse(incoming, session, InternalError("The worker failed to handle a message."))

    def _refuse(self, incoming: Incoming, session: Session | None, error: MarlinError) -> None:
        call_id = self._call_id(incoming.control)
        if session is None:
            self._router.send(incoming.identity, _error_frames(None, error))
        elif call_id in session.calls:
            # The id of a call that still runs: an error under it would end that one.
            self._sender.send(Outgoing(session, _error_frames(None, error)))
        else:
            self._sender.send(Outgoing(session, _error_frames(call_id, error)))

    def _call_id(self, control: bytes) -> int | None:
        """The id of a refused call, if that much of the message can be read."""
        try:
            check_control(control, self._limits)
            message = msgspec.msgpack.decode(control, ext_hook=lambda code, payload: None)
        except (MarlinError, *UNREADABLE):
            return None
        match message:
            case {"type": "call", "id": int(call_id)} if call_id >= 0 and call_id is not True:
                return call_id
        return None

    def _greet(self, incoming: Incoming) -> None:
        hello = self._stranger.read(incoming.control, incoming.frames)
        if not isinstance(hello, protocol.Hello):
            raise ProtocolError("The first message of a client must be `hello`.")
        major, minor = hello.protocol
        own_major, own_minor = protocol.PROTOCOL_VERSION
        if major != own_major:
            raise VersionMismatchError(
                f"The worker speaks protocol {own_major}.{own_minor}, the client "
                f"{major}.{minor}; the major versions must be equal.",
                worker=f"{own_major}.{own_minor}",
                client=f"{major}.{minor}",
            )
        # One process inherited the memory, so one session has it.
        has_arena = hello.arena and not self._arena_is_taken
        session = Session(incoming.identity, self._limits, self._arena if has_arena else None)
        info: protocol.ArenaInfo | None = None
        if session.arena is not None:
            self._arena_is_taken = True
            self._arena_session = session
            info = protocol.ArenaInfo(session.arena.bytes, session.arena.client_bytes)
        self._sessions[incoming.identity] = session
        if not self._has_greeted:
            self._has_greeted = True
            self._on_first_client()
        self._sender.say(
            session,
            protocol.Welcome(
                (own_major, min(own_minor, minor)),
                self._incarnation,
                self._info,
                self._limits,
                info,
            ),
        )

    def _dispatch(self, session: Session, message: protocol.ClientMessage) -> None:
        match message:
            case protocol.Call():
                self._call(session, message)
            case protocol.Credit():
                if (call := session.calls.get(message.id)) is not None:
                    self.executor.add_credit(call, message.items)
            case protocol.Release():
                self._release(session, message)
            case protocol.Cancel():
                # May cross the reply, and may come twice.
                call = session.calls.get(message.id)
                if call is not None and self.executor.cancel(call):
                    self._end_call(call, "cancelled", "The call was cancelled before it began.")
            case protocol.Ping():
                if not session.backlog:
                    running = self.executor.running
                    busy = running.id if running and running.session is session else None
                    self._sender.say(session, protocol.Pong(message.id, busy, session.queued()))
            case protocol.Bye():
                self._sender.say(session, protocol.Bye())
                if session is self._arena_session:
                    self._stopping = True
                self._close(session)
            case protocol.Hello():
                raise ProtocolError("`hello` must come once, got a second one.")

    def _call(self, session: Session, message: protocol.Call) -> None:
        if message.id in session.calls:
            raise ProtocolError(f"`id` of a call must be new, got {message.id}, which still runs.")
        if len(session.calls) >= self._limits.max_calls:
            raise TooManyCallsError(
                f"A client must have at most {self._limits.max_calls} calls in flight, "
                "got one more."
            )
        call = RunningCall(
            session,
            message.id,
            find_handler(message.method),
            CallContext(session, self._progress_sink(session, message)),
            message.args,
            message.kwargs,
            message.credit,
        )
        session.calls[message.id] = call
        self.executor.submit(call)

    def _progress_sink(self, session: Session, message: protocol.Call) -> ProgressSink | None:
        if not message.progress:
            return None

        def send(data: ProgressData) -> None:
            if len(self._sender.outbox) < _MAX_OUTBOX_FOR_PROGRESS and not session.backlog:
                frames = [protocol.encode(protocol.Progress(message.id, data))]
                self._sender.outbox.append(Outgoing(session, frames))
                self._waker.wake()

        return send

    def _release(self, session: Session, message: protocol.Release) -> None:
        if message.blocks:
            if session.arena is None:
                raise ProtocolError("`release` names blocks, but this client has no shared memory.")
            for block, generation, count in message.blocks:
                session.arena.release(block, generation, count)
        values: list[object] = []
        try:
            for handle in message.handles:
                values.append(session.handles.release(handle))
        finally:
            # Those before an unknown one are released; none may die in this thread.
            self.executor.discard(values)

    def _end_call(self, call: RunningCall, code: str, text: str) -> None:
        frames = [protocol.encode(protocol.ErrorReply(call.id, ErrorMap(code, text)))]
        self._sender.send(Outgoing(call.session, frames, call.id))

    def _resume_streams(self, session: Session) -> None:
        for call in session.calls.values():
            self.executor.resume(call)

    # The end

    def _close(self, session: Session) -> None:
        """Forgets a client: its calls are cancelled, its handles and references freed."""
        session.is_closed = True
        self._sessions.pop(session.identity, None)
        for call in session.calls.values():
            self.executor.cancel(call)
        session.calls.clear()
        session.backlog.clear()
        self.executor.discard(session.handles.clear())
        if session.arena is not None:
            self._arena_session = None
            session.arena.forget_client()

    def _shut_down(self) -> None:
        self._flush()
        for session in list(self._sessions.values()):
            for call in list(session.calls.values()):
                self._end_call(call, "connection_closed", "The worker was stopped.")
            self._sender.say(session, protocol.Bye())
            self._close(session)
        self._router.close(_LINGER_MS)
        self.executor.stop()


def _error_frames(call_id: int | None, error: MarlinError) -> list[bytes]:
    """Frames of an `error` message."""
    return [protocol.encode(protocol.ErrorReply(call_id, describe_failure(error)))]
