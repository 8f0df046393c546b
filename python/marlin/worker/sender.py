"""Sends to clients: in order, without ever waiting, and with bounded memory for one that is slow.

Knows sessions and the router, and of messages only that one may be the reply to a call.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection
from typing import Final

from marlin.worker import protocol
from marlin.worker.protocol import WorkerMessage
from marlin.worker.router import Router
from marlin.worker.session import SLOW_BACKLOG, Outgoing, Session

__all__ = ["Sender"]

_log = logging.getLogger(__name__)

# What cannot wait, answers to refused messages above all, must not fill our memory either.
_MAX_BACKLOG: Final = 10_000


class Sender:
    """`outbox` is open to every thread; the rest is the I/O thread's."""

    def __init__(
        self,
        router: Router,
        on_gone: Callable[[Session], None],
        on_caught_up: Callable[[Session], None],
    ) -> None:
        """`on_gone` is called for a client that has left, or that does not read at all.

        `on_caught_up` is called when a client has read what made its session slow.
        """
        self._router = router
        self._on_gone = on_gone
        self._on_caught_up = on_caught_up
        self.outbox: deque[Outgoing] = deque()

    def flush(self, sessions: Collection[Session]) -> None:
        """Sends what waits: of the `sessions` that were slow, and of the outbox."""
        for session in sessions:
            self._send_backlog(session)
        # Only what is here by now: streams may refill it as fast as it empties.
        for _ in range(len(self.outbox)):
            self.send(self.outbox.popleft())
        for session in sessions:
            if session.is_slow and not session.backlog:
                session.is_slow = False
                self._on_caught_up(session)

    def say(self, session: Session, message: WorkerMessage) -> None:
        """Sends a message that answers no call."""
        self.send(Outgoing(session, [protocol.encode(message)]))

    def send(self, outgoing: Outgoing) -> None:
        """Sends now, or as soon as the client has read what came before."""
        session = outgoing.session
        if not session.backlog and self._try_send(outgoing):
            return
        session.backlog.append(outgoing)
        if len(session.backlog) > SLOW_BACKLOG:
            session.is_slow = True
        if len(session.backlog) > _MAX_BACKLOG:
            _log.warning("A client has left %d messages unread; it is dropped", _MAX_BACKLOG)
            self._on_gone(session)

    def _send_backlog(self, session: Session) -> None:
        while session.backlog:
            # Taken out first: a client that turns out to have left loses its whole backlog.
            outgoing = session.backlog.popleft()
            if not self._try_send(outgoing):
                session.backlog.appendleft(outgoing)
                return

    def _try_send(self, outgoing: Outgoing) -> bool:
        """False when the client does not read; a message to a client that left is dropped."""
        session = outgoing.session
        if session.is_closed:
            return True
        outcome = self._router.send(session.identity, outgoing.frames)
        if outcome == "full":
            return False
        if outcome == "gone":
            self._on_gone(session)
        elif outgoing.ends is not None:
            # Only now: a client that does not read cannot have more than its limit of calls.
            session.calls.pop(outgoing.ends, None)
        return True
