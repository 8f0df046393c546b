"""What the worker keeps for one client, from its `hello` to its `bye`: handles, calls, what waits.

State only: the executor moves calls along, the server moves messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import torch

from marlin.worker.arena import Arena
from marlin.worker.context import CallContext
from marlin.worker.handlers import Handler
from marlin.worker.handles import HandleTable
from marlin.worker.protocol import Limits
from marlin.worker.reader import MessageReader
from marlin.worker.writer import MessageWriter

__all__ = ["SLOW_BACKLOG", "Outgoing", "RunningCall", "Session"]

State: TypeAlias = Literal["waiting", "parked", "running", "done"]

# From here on a client's streams wait: credit is for what it can take, not for our memory.
SLOW_BACKLOG: Final = 256


class Session:
    """One client. Another client cannot name its handles, calls or memory."""

    def __init__(self, identity: bytes, limits: Limits, arena: Arena | None) -> None:
        self.identity = identity
        self.limits = limits
        self.arena = arena
        self.handles = HandleTable()
        self.reader = MessageReader(limits, self.handles, arena)
        self.writer = MessageWriter(limits, self.handles, arena)
        # Calls without a reply yet; only the I/O thread changes it.
        self.calls: dict[int, RunningCall] = {}
        # What the socket did not take, because the client does not read.
        self.backlog: deque[Outgoing] = deque()
        # Set while more than `SLOW_BACKLOG` messages wait, in the backlog or still in the outbox:
        # streams wait then, whatever credit they have. The I/O thread clears it.
        self.is_slow = False
        self.is_closed = False

    def stats(self) -> dict[str, int]:
        """`{handles, blocks, views, queued, streams}`.

        `blocks` are live blocks of the worker's partition, `views` those on the client's memory.
        """
        calls = list(self.calls.values())
        arena = {"blocks": 0, "views": 0} if self.arena is None else self.arena.stats()
        return {
            "handles": len(self.handles),
            "blocks": arena["blocks"],
            "views": arena["views"],
            "queued": sum(not call.has_begun for call in calls),
            "streams": sum(call.has_begun and call.handler.is_stream for call in calls),
        }

    def queued(self) -> int:
        """Calls that have not begun."""
        return sum(not call.has_begun for call in self.calls.values())


@dataclass(slots=True, eq=False)
class RunningCall:
    """One call, from its arrival to its reply."""

    session: Session
    id: int
    handler: Handler
    context: CallContext
    args: list[Any]
    kwargs: dict[str, Any]
    credit: int  # items that a stream may still send
    # `waiting` for its turn, or `parked` without credit; guarded by the executor's lock.
    state: State = "waiting"
    has_begun: bool = False
    seq: int = 0
    generator: Generator[Any, None, Any] | None = None


@dataclass(slots=True)
class Outgoing:
    """Frames for one client; `ends` is the call to which this is the reply."""

    session: Session
    frames: list[bytes]
    ends: int | None = None
    # Their memory is named in the message, so they live until it is sent.
    keep: list[torch.Tensor] = field(default_factory=list)
