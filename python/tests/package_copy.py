"""Programs against a copy of the package with other native libraries, each in its own process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import marlin

PACKAGE = Path(marlin.__file__).parent


def run_in_copy(folder: Path, program: str, libraries: Mapping[str, bytes]) -> list[str]:
    """The lines that `program` prints; `libraries` by name, `_C` or `_C_cuda`, are all it has."""
    copy = folder / "marlin"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("*.so", "*.pyc"))
    for name, library in libraries.items():
        (copy / f"{name}.abi3.so").write_bytes(library)
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.fspath(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()
