"""Ties the worker's life to the process that spawned it, and bounds the time it takes to end."""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable
from typing import Final

__all__ = ["die_with_parent", "end_within", "is_spawned", "watch_stdin"]

_STDIN: Final = 0
_CHUNK: Final = 4096
_PR_SET_PDEATHSIG: Final = 1


def is_spawned() -> bool:
    """Whether a client spawned this process: then stdin is a pipe that the client keeps open."""
    try:
        mode = os.fstat(_STDIN).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def watch_stdin(on_end: Callable[[], None]) -> None:
    """Calls `on_end`, then sends SIGTERM to this process, when stdin ends: the parent is gone.

    Until the worker catches SIGTERM, that ends it at once: `on_end` is all the clean-up there is.

    Foreign code and its children get an empty stdin: on ours they would wait for ever.
    """
    stdin = os.dup(_STDIN)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, _STDIN)
    os.close(empty)

    def watch() -> None:
        try:
            while os.read(stdin, _CHUNK):
                continue
        except OSError:
            # A reset socket is an end as well.
            pass
        on_end()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="stdin", daemon=True).start()


def die_with_parent(parent: int) -> bool:
    """Has the kernel kill this process when `parent` dies (Linux); False if it is dead already.

    The end of stdin does the same in good order, but not while foreign code holds the interpreter
    lock. Call it on a thread that lives as long as the worker: the kernel keeps the setting there.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    return os.getppid() == parent


def end_within(seconds: float, exit_code: int) -> None:
    """Ends the process after `seconds` even if a call still runs; its client has been told."""
    timer = threading.Timer(seconds, os._exit, (exit_code,))
    timer.daemon = True
    timer.start()
