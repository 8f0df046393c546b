"""`python -m marlin.worker`: arguments, signals and exit codes of the worker process.

Exit codes: 0 ended in order (`bye`, SIGTERM, end of stdin), 1 a failure of the worker itself,
2 wrong arguments, 3 the endpoint was refused, 4 the shared memory could not be attached.

stdout and stderr carry log text and nothing else; the worker itself writes only to stderr.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import logging
import os
import platform
import signal
import sys
import threading
from typing import Final

import marlin
from marlin.errors import BindRefusedError, InvalidArgumentError
from marlin.worker.endpoint import remove_directory
from marlin.worker.lifetime import die_with_parent, end_within, is_spawned, watch_stdin
from marlin.worker.protocol import WorkerInfo
from marlin.worker.waker import Waker

_FAILED: Final = 1
_BIND_REFUSED: Final = 3
_ARENA_REFUSED: Final = 4
# A running call gets this long to notice that the worker ends.
_GRACE_SECONDS: Final = 1.0

_log = logging.getLogger("marlin.worker")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m marlin.worker", description=__doc__)
    parser.add_argument("--endpoint", required=True, help="ipc:///path or tcp://127.0.0.1:PORT")
    parser.add_argument("--arena-fd", type=int, help="inherited descriptor of the shared memory")
    parser.add_argument("--arena-bytes", type=int, help="its size")
    parser.add_argument("--arena-client-bytes", type=int, help="size of the client's partition")
    parser.add_argument("--threads", type=int, help="threads of torch's operators")
    options = parser.parse_args(arguments)
    arena = (options.arena_fd, options.arena_bytes, options.arena_client_bytes)
    if any(part is None for part in arena) and arena != (None, None, None):
        parser.error("--arena-fd, --arena-bytes and --arena-client-bytes must come together")
    if options.threads is not None and options.threads < 1:
        parser.error(f"--threads must be at least 1, got {options.threads}")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Runs a worker until it is told to end; returns the exit code."""
    parent = os.getppid()
    options = _parse(arguments)
    faulthandler.enable()
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s"
    )
    spawned = is_spawned()
    if spawned:
        # First of all: a parent that dies while torch is imported must not leave us behind, nor the
        # directory that it made for our socket.
        watch_stdin(lambda: remove_directory(options.endpoint))
    return _serve(options, parent if spawned else None)


def _serve(options: argparse.Namespace, parent: int | None) -> int:
    # These import torch, which takes seconds.
    import torch

    from marlin.worker.arena import Arena
    from marlin.worker.handlers import load_handlers
    from marlin.worker.protocol import DEFAULT_LIMITS
    from marlin.worker.router import Router
    from marlin.worker.server import Server

    load_handlers()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    waker = Waker()
    _catch_signals(waker, spawned=parent is not None)
    try:
        arena = None
        if options.arena_fd is not None:
            arena = Arena(
                options.arena_fd, options.arena_bytes, options.arena_client_bytes, waker.wake
            )
    except InvalidArgumentError as error:
        _log.error("%s", error)
        return _ARENA_REFUSED
    try:
        router = Router(options.endpoint, DEFAULT_LIMITS, waker)
    except BindRefusedError as error:
        _log.error("%s", error)
        return _BIND_REFUSED

    def on_first_client() -> None:
        # Not before: until then no foreign code runs, and who is killed cannot remove its socket.
        if parent is not None and not die_with_parent(parent):
            server.stop()

    info = _describe_worker(str(torch.__version__))
    server = Server(router, waker, arena, DEFAULT_LIMITS, info, on_first_client)
    # What is alive now lives for ever; the collector need not look at it again.
    gc.collect()
    gc.freeze()
    failed = threading.Event()

    def serve() -> None:
        try:
            server.run()
        except BaseException:
            failed.set()
            _log.exception("The I/O thread failed; the worker ends")
        finally:
            end_within(_GRACE_SECONDS, _FAILED if failed.is_set() else 0)
            server.executor.stop()

    thread = threading.Thread(target=serve, name="io", daemon=True)
    thread.start()
    _log.info("Listening on %s", options.endpoint)
    server.executor.run()
    thread.join()
    return _FAILED if failed.is_set() else 0


def _describe_worker(torch_version: str) -> WorkerInfo:
    return WorkerInfo(
        os.getpid(),
        platform.python_version(),
        torch_version,
        marlin.__version__,
        f"{sys.platform}-{platform.machine()}",
    )


def _catch_signals(waker: Waker, spawned: bool) -> None:
    """SIGTERM ends the worker in order. So does SIGINT, unless a client decides over us."""
    signal.set_wakeup_fd(waker.signal_fd, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    # A terminal sends Ctrl-C to the client as well, which then ends us as it sees fit.
    signal.signal(signal.SIGINT, signal.SIG_IGN if spawned else lambda *_: None)


if __name__ == "__main__":
    sys.exit(main())
