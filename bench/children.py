"""Runs a measurement in a process of its own: torch, OpenMP and peers then find fresh threads."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["cores", "run_child", "today"]

FOLDER = Path(__file__).resolve().parent

# Threads of OpenMP that wait for milliseconds would take the cores from what is timed next.
SPIN_COUNT = "1000"


def run_child(
    script: str, settings: Mapping[str, object], environ: Mapping[str, str]
) -> dict[str, Any]:
    """What `bench/<script>` writes to the file that `settings["out"]` becomes; it prints itself.

    environ: what is set beside the environment of this process. Raises SystemExit if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run.json"
        argument = json.dumps({**settings, "out": str(out)})
        done = subprocess.run(
            [sys.executable, str(FOLDER / script), argument],
            env={"GOMP_SPINCOUNT": SPIN_COUNT, **os.environ, **environ},
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{script} ended with exit code {done.returncode}")
        run: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    del run["settings"]["out"]
    return run


def cores() -> int:
    """The CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def today() -> str:
    """The date, as files in results/ are named."""
    return datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()
