"""The one command that runs the tests of the GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_tests_of_the_gpu_hold_on_the_cpu() -> None:
    """So that a mistake in them is found before a GPU is at hand."""
    command = [sys.executable, "test/gpu/run.py", "--no-build", "--device", "cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
