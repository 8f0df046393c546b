"""What a handler may ask of the call it serves: cancellation, progress, handles, shared memory.

Knows no socket and no message; the executor makes one context for each call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

import torch

from marlin.errors import CancelledError
from marlin.worker.arena import Arena
from marlin.worker.handles import Handle, Kind, export
from marlin.worker.protocol import Limits, ProgressData
from marlin.worker.tensors import allocate_tensor

__all__ = ["CallContext", "ClientView", "ProgressSink"]

ProgressSink: TypeAlias = Callable[[ProgressData], None]

# A person sees no difference above this rate, and a loop over layers costs nothing below it.
_PROGRESS_SECONDS: Final = 0.05


class ClientView(Protocol):
    """What a call may know of the client that made it."""

    limits: Limits
    arena: Arena | None

    def stats(self) -> dict[str, int]:
        """`{handles, blocks, views, queued, streams}`."""


class CallContext:
    """First argument of every handler."""

    __slots__ = ("_cancelled", "_last_phase", "_next_progress", "_sink", "client")

    def __init__(self, client: ClientView, sink: ProgressSink | None) -> None:
        self.client = client
        self._sink = sink
        self._cancelled = False
        self._next_progress = 0.0
        self._last_phase = ""

    @property
    def cancelled(self) -> bool:
        """Whether the client has cancelled the call, or left."""
        return self._cancelled

    def cancel(self) -> None:
        """Sets the flag; called by the I/O thread."""
        self._cancelled = True

    def check(self) -> None:
        """Raises CancelledError once the call is cancelled. Call it between steps."""
        if self._cancelled:
            raise CancelledError("The call was cancelled.")

    def progress(self, phase: str, done: float, total: float, text: str = "") -> None:
        """Tells the client how far the call is: `done` of `total` in `phase`.

        Costs nothing when not asked for. At most 20 a second are sent, besides the first and the
        last of each phase, and any of them may be dropped.
        """
        if self._sink is None:
            return
        now = time.monotonic()
        if now < self._next_progress and phase == self._last_phase and done < total:
            return
        self._next_progress = now + _PROGRESS_SECONDS
        self._last_phase = phase
        self._sink(ProgressData(phase, done, total, text))

    def export(
        self,
        obj: object,
        kind: Kind | None = None,
        type_name: str | None = None,
        meta: Mapping[str, object] | None = None,
    ) -> Handle:
        """A handle to return: `obj` stays in the worker, the client gets a reference to it.

        Kind, type and meta are derived from `obj` unless given.
        """
        return export(obj, kind, type_name, meta)

    def allocate(self, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
        """An uninitialised CPU tensor that can be returned without a copy.

        Lies in the worker's partition of the shared memory (ArenaFullError when that has no room),
        or in plain memory when the client has none.
        """
        return allocate_tensor(self.client.arena, dtype, shape)
