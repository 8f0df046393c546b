"""Wakes the I/O thread out of its poll, from any thread and from signals.

One pipe serves both: Python's signal machinery writes the signal's number into it, without the
interpreter lock, and the other threads write a zero.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

__all__ = ["Waker"]

_WAKE: Final = b"\0"
_PIPE_BYTES: Final = 4096


class Waker:
    """`fd` is readable after `wake`; `drain` empties it."""

    def __init__(self) -> None:
        self.fd, self.signal_fd = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self.signal_fd, False)
        self._sleeping = False

    def wake(self) -> None:
        """Cheap when the I/O thread is awake: it looks at its queues before it sleeps."""
        if self._sleeping:
            self._sleeping = False
            # A full pipe is readable, which is all that is asked for.
            with contextlib.suppress(BlockingIOError):
                os.write(self.signal_fd, _WAKE)

    def prepare_sleep(self) -> None:
        """From now on `wake` writes. Look at every queue after this, and only then poll."""
        self._sleeping = True

    def awake(self) -> None:
        """The I/O thread is up again."""
        self._sleeping = False

    def drain(self) -> frozenset[int]:
        """Empties the pipe; returns the numbers of the signals that arrived."""
        try:
            data = os.read(self.fd, _PIPE_BYTES)
        except BlockingIOError:
            return frozenset()
        return frozenset(data) - {0}
