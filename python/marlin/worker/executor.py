"""Runs calls one after another on the thread of torch, and streams item by item between them.

Knows no socket: what goes to a client is put into the outbox. Every exception of a call, whatever
it is, ends that call and nothing else.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

from marlin.errors import CancelledError
from marlin.worker import protocol
from marlin.worker.failures import describe_failure
from marlin.worker.protocol import BlockRelease, ErrorMap
from marlin.worker.session import SLOW_BACKLOG, Outgoing, RunningCall
from marlin.worker.writer import Encoded

__all__ = ["Executor"]

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)


class Executor:
    """`run` is the thread of torch; the other methods are for the I/O thread."""

    def __init__(self, outbox: deque[Outgoing], ring: Callable[[], None]) -> None:
        """`ring` tells the I/O thread that there is something in `outbox`."""
        self._outbox = outbox
        self._ring = ring
        self._lock = threading.Lock()
        self._pid = os.getpid()
        # Calls whose turn has come, garbage to drop in our thread, and None to end.
        self._queue: SimpleQueue[RunningCall | list[object] | None] = SimpleQueue()
        self.running: RunningCall | None = None

    def run(self) -> None:
        """Serves until `stop`."""
        while (task := self._queue.get()) is not None:
            if isinstance(task, RunningCall):
                self._turn(task)
            else:
                task.clear()
            # A name that outlives its turn would keep tensors alive while we wait.
            del task

    def stop(self) -> None:
        """Ends `run` after what is queued by now."""
        self._queue.put(None)

    def submit(self, call: RunningCall) -> None:
        """Queues a call. A stream without credit waits for some first."""
        if call.handler.is_stream and call.credit == 0:
            call.state = "parked"
        else:
            self._queue.put(call)

    def add_credit(self, call: RunningCall, items: int) -> None:
        """Lets a stream send `items` more."""
        with self._lock:
            call.credit += items
            if call.state == "parked" and call.credit > 0:
                call.state = "waiting"
                self._queue.put(call)

    def resume(self, call: RunningCall) -> None:
        """Lets a stream go on that waited for a slow client."""
        self.add_credit(call, 0)

    def cancel(self, call: RunningCall) -> bool:
        """Cancels; True when the call had not begun and so has ended here, without a reply."""
        call.context.cancel()
        with self._lock:
            if call.state in ("running", "done"):
                return False
            if not call.has_begun:
                call.state = "done"
                # Its arguments are dropped where torch objects may die.
                self.discard([call.args, call.kwargs])
                call.args, call.kwargs = [], {}
                return True
            if call.state == "parked":
                call.state = "waiting"
                self._queue.put(call)
            return False

    def discard(self, objects: list[object]) -> None:
        """Drops objects in the executor's thread, where their destructors may run."""
        if objects:
            self._queue.put(objects)

    def _turn(self, call: RunningCall) -> None:
        with self._lock:
            if call.state != "waiting":
                return
            call.state = "running"
            call.has_begun = True
        self.running = call
        try:
            ended = self._advance(call) if call.handler.is_stream else self._complete(call)
        finally:
            self.running = None
        if ended:
            call.state = "done"
            return
        with self._lock:
            may_go_on = call.credit > 0 and not call.session.is_slow
            if may_go_on or call.context.cancelled:
                call.state = "waiting"
                self._queue.put(call)
            else:
                call.state = "parked"

    def _complete(self, call: RunningCall) -> bool:
        value: object = None
        failure: ErrorMap | None = None
        try:
            value = self._foreign(call.handler.invoke, call.context, call.args, call.kwargs)
            call.context.check()
        except BaseException as error:
            failure = describe_failure(error)
        reply = _reply(call, value, failure)
        value = None
        self._end(call, reply)
        return True

    def _advance(self, call: RunningCall) -> bool:
        """One step of a stream; True when it has ended."""
        value: object = None
        failure: ErrorMap | None = None
        item: Encoded | None = None
        try:
            call.context.check()
            if call.generator is None:
                call.generator = self._foreign(
                    call.handler.invoke, call.context, call.args, call.kwargs
                )
            try:
                value = self._foreign(next, call.generator)
            except StopIteration as stop:
                value = stop.value
                call.context.check()
            else:
                call.context.check()
                item = call.session.writer.item(call.id, call.seq, value)
        except BaseException as error:
            failure = describe_failure(error)
        if item is None:
            _close(call)
            reply = _reply(call, value, failure)
            value = None
            self._end(call, reply)
            return True
        call.seq += 1
        with self._lock:
            call.credit -= 1
        self._outbox.append(Outgoing(call.session, item.frames, keep=item.keep))
        if len(self._outbox) > SLOW_BACKLOG:
            # The I/O thread gets no turn to find out whether the client reads.
            call.session.is_slow = True
        self._ring()
        return False

    def _foreign(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs what may be anybody's code. A copy of this process that it forked ends here.

        The clients and the I/O thread are the parent's, the shared memory is only the parent's to
        allocate, and nobody would ever end the copy.
        """
        try:
            return function(*args, **kwargs)
        finally:
            if os.getpid() != self._pid:
                os._exit(0)

    def _end(self, call: RunningCall, reply: Encoded) -> None:
        # Who has the reply must not be told that the call still runs.
        self.running = None
        self._outbox.append(Outgoing(call.session, reply.frames, call.id, reply.keep))
        if call.session.arena is not None:
            call.session.arena.hold_releases = False
        self._ring()


def _reply(call: RunningCall, value: object, failure: ErrorMap | None) -> Encoded:
    """The reply to a call, which gives back the memory of its arguments.

    Until the reply is in the outbox, releases are held: one ring sends all.
    """
    blocks: list[BlockRelease] = []
    arena = call.session.arena
    if arena is not None:
        arena.hold_releases = True
    call.args, call.kwargs = [], {}
    if arena is not None:
        blocks = arena.take_client_releases()
    if failure is None:
        try:
            return call.session.writer.result(call.id, value, blocks)
        except BaseException as error:
            failure = describe_failure(error)
    return Encoded([protocol.encode(protocol.ErrorReply(call.id, failure, blocks))])


def _close(call: RunningCall) -> None:
    generator, call.generator = call.generator, None
    if generator is None:
        return
    try:
        generator.close()
    except CancelledError:
        pass
    except BaseException as error:
        text = describe_failure(error).message
        _log.warning("`%s` raised while its stream was closed: %s", call.handler.method, text)
