"""The Python examples run, on their own, and print what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MAX_LINES = 60
PROMISES = {
    "04-int4-linear": "by the ",
    "05-quantize-model": "compiled equals eager: True",
    "06-checkpoint": "the same bits out: True",
}


def test_every_example_is_promised() -> None:
    assert {path.stem for path in EXAMPLES} == set(PROMISES)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_runs_and_stays_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES
    result = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert PROMISES[path.stem] in result.stdout
