"""Prints at the end of a run of pytest what its tests have simulated."""

from __future__ import annotations

import pytest

from . import report, survey
from .tally import Tally

__all__ = ["register"]

_NAME = "ptxsim tally"


def register(config: pytest.Config) -> None:
    """To be called by the `pytest_configure` of every conftest.py; the first call counts."""
    if not config.pluginmanager.has_plugin(_NAME):
        config.pluginmanager.register(_Plugin(), _NAME)


class _Plugin:
    def __init__(self) -> None:
        self._tally = Tally()
        report.OBSERVERS.append(self._tally.add_launch)
        survey.OBSERVERS.append(self._tally.add_survey)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        lines = self._tally.lines()
        if lines:
            terminalreporter.section("simulated")
        for line in lines:
            terminalreporter.line(line)
