"""The simulator's package on the path, the check of what was covered, and the table at the end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]


def pytest_configure(config: pytest.Config) -> None:
    from ptxsim.pytest_tally import register

    register(config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the test that asks what the others have run after them."""
    items.sort(key=lambda item: item.path.name == "test_opcodes_covered.py")
