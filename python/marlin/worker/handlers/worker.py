"""`worker.*`: what this worker is, and what one client holds in it."""

from __future__ import annotations

import os
import platform
import resource
import sys
from dataclasses import asdict
from pathlib import Path

import msgspec
import torch

import marlin
from marlin.errors import MarlinError
from marlin.worker.handlers import CallContext, handler
from marlin.worker.protocol import PROTOCOL_VERSION

__all__ = ["info", "stats"]


@handler("worker.info")
def info(context: CallContext) -> dict[str, object]:
    """Versions, kernel, threads and limits.

    `kernel` is what `marlin.kernel_info()` returns, or `{code, message}` where it has none to tell.
    """
    return {
        "pid": os.getpid(),
        "protocol": list(PROTOCOL_VERSION),
        "marlin": marlin.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{sys.platform}-{platform.machine()}",
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "kernel": _kernel(),
        "limits": msgspec.structs.asdict(context.client.limits),
    }


@handler("worker.stats")
def stats(context: CallContext) -> dict[str, int]:
    """`{handles, blocks, views, queued, streams, rss_bytes}`, all but the last of this client."""
    return {**context.client.stats(), "rss_bytes": _rss_bytes()}


def _kernel() -> dict[str, object]:
    try:
        info = asdict(marlin.kernel_info())
    except MarlinError as error:
        return {"code": error.code, "message": str(error)}
    return {**info, "library": str(info["library"])}


def _rss_bytes() -> int:
    """Resident bytes of this process; where the system does not tell, the most there have been."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    # macOS counts bytes, the others KiB.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
