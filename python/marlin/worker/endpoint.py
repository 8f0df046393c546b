"""Where a worker may listen: this machine only, and as nobody else's replacement."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path
from typing import Final

from marlin.errors import BindRefusedError

__all__ = ["check_endpoint", "remove_directory", "remove_socket", "socket_path"]

_LOOPBACK: Final = re.compile(r"tcp://(127\.0\.0\.1|\[::1\]):([0-9]{1,5})")
_IPC: Final = "ipc://"
# sockaddr_un holds 108 bytes with the final zero.
_MAX_SOCKET_PATH: Final = 107
_MAX_PORT: Final = 65535


def check_endpoint(endpoint: str) -> None:
    """Raises BindRefusedError unless only processes of this user on this machine can connect.

    `ipc://` needs an absolute path in a directory of ours that nobody else may enter; `tcp://` a
    loopback address with a port. Anything wider needs authentication, which this version lacks.
    """
    path = socket_path(endpoint)
    if path is None:
        match = _LOOPBACK.fullmatch(endpoint)
        if match is None or not 1 <= int(match[2]) <= _MAX_PORT:
            raise BindRefusedError(
                "`--endpoint` must be ipc:///absolute/path, tcp://127.0.0.1:PORT or "
                f"tcp://[::1]:PORT, because there is no authentication, got {endpoint}."
            )
        return
    if not path.is_absolute() or len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise BindRefusedError(
            f"`--endpoint` must be an absolute path of at most {_MAX_SOCKET_PATH} bytes, "
            f"got {path}."
        )
    try:
        status = path.parent.stat()
    except OSError as error:
        raise BindRefusedError(
            f"`--endpoint` must lie in an existing directory, got {path.parent}: {error.strerror}."
        ) from error
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise BindRefusedError(
            "`--endpoint` must lie in a directory of this user with mode 0700, got "
            f"{path.parent} of user {status.st_uid} with mode {stat.S_IMODE(status.st_mode):04o}."
        )
    # A second bind would silently take the path from the worker that listens there.
    if path.exists() or path.is_symlink():
        raise BindRefusedError(f"`--endpoint` must not exist yet, got {path}.")


def socket_path(endpoint: str) -> Path | None:
    """The file of an `ipc://` endpoint, or None for another transport."""
    return Path(endpoint.removeprefix(_IPC)) if endpoint.startswith(_IPC) else None


def remove_socket(endpoint: str) -> None:
    """Removes the socket's file, and its directory if nothing else is in it."""
    path = socket_path(endpoint)
    if path is not None:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        remove_directory(endpoint)


def remove_directory(endpoint: str) -> None:
    """Removes the directory of the socket's file, if nothing is in it."""
    path = socket_path(endpoint)
    if path is not None:
        # The client may have removed it, or keeps something else in it.
        with contextlib.suppress(OSError):
            path.parent.rmdir()
