"""Puts what the tests share on the path, prints what they simulate, and watches those on a GPU."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(p) for p in (HERE, ROOT / "test/ptx", ROOT / "test/ptx/tests", ROOT / "csrc")]

# A kernel that waits for ever cannot be ended but with its process.
HANG_SECONDS = 240
_ERRORS = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    from ptxsim.pytest_tally import register

    register(config)
    # Not yet captured, and written to when nothing of Python runs any more.
    config.stash[_ERRORS] = os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2)


@pytest.fixture(autouse=True)
def watched(request: pytest.FixtureRequest) -> Iterator[None]:
    """Ends the process if a test of the GPU hangs, and the run if one has broken the device.

    Without the second, every test after it would fail, and the first not be told from the others.
    """
    if request.node.get_closest_marker("cuda") is None:
        yield
        return
    import torch
    from operands import IS_CUDA

    errors = request.config.stash[_ERRORS]
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True, file=errors)
    yield
    try:
        if IS_CUDA:
            torch.cuda.synchronize()
    except RuntimeError as error:
        pytest.exit(f"{request.node.nodeid} has broken the CUDA context: {error}", returncode=3)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The largest errors of all products on a device, for the documents."""
    operands = sys.modules.get("operands")
    if operands is None or terminalreporter.config.option.markexpr != "cuda":
        return
    terminalreporter.section(f"largest mean errors on {operands.DEVICE}")
    for name, error in sorted(operands.worst_errors.items()):
        terminalreporter.line(f"{name}: {error:.2e}")
