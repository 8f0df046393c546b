"""Puts what the tests share on the path, and prints what they simulated."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(p) for p in (HERE, ROOT / "test/ptx", ROOT / "test/ptx/tests", ROOT / "csrc")]


def pytest_configure(config: pytest.Config) -> None:
    from ptxsim.pytest_tally import register

    register(config)
