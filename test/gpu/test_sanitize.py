"""What sanitize.py reads out of the tools' output, and what it runs under them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import sanitize

MEMCHECK = """\
========= COMPUTE-SANITIZER
========= Invalid __global__ write of size 16 bytes
=========     at void marlin::cuda::gemm<__half, 8>(marlin::cuda::GemmArguments)+0x1230
=========     by thread (3,0,0) in block (1,0,0)
=========     Address 0x7f5e0a000210 is out of bounds
=========     Saved host backtrace up to driver entry point at kernel launch time
=========         Host Frame: launch_gemm [0x1c0] in _C_cuda.abi3.so
=========
========= Invalid __global__ write of size 16 bytes
=========     at void marlin::cuda::gemm<__half, 8>(marlin::cuda::GemmArguments)+0x1460
=========     by thread (4,0,0) in block (1,0,0)
=========
144 products, 0 wrong
========= ERROR SUMMARY: 2 errors
"""

RACECHECK = """\
========= COMPUTE-SANITIZER
========= Error: Race reported between Write access at gemm(int *)+0x60 in gemm.cu:72
=========     and Read access at gemm(int *)+0x90 in gemm.cu:80 [16 hazards]
=========
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""

CLEAN = """\
========= COMPUTE-SANITIZER
144 products, 0 wrong
========= ERROR SUMMARY: 0 errors
"""


def test_findings_of_one_kind_in_one_kernel_are_counted() -> None:
    outcome = sanitize.outcome_of("memcheck", 0, MEMCHECK, 1.0)
    kernel = "void marlin::cuda::gemm<__half, 8>(marlin::cuda::GemmArguments)"
    assert outcome.findings == {f"Invalid __global__ write of size 16 bytes at {kernel}": 2}
    assert (outcome.errors, outcome.is_clean, outcome.verdict) == (2, False, "2 found")


def test_a_race_names_its_kernel_at_once() -> None:
    outcome = sanitize.outcome_of("racecheck", 0, RACECHECK, 1.0)
    text = "Error: Race reported between Write access at gemm(int *)"
    assert outcome.findings == {text: 1}
    assert not outcome.is_clean


def test_clean_is_only_a_summary_without_errors_of_a_program_that_was_right() -> None:
    assert sanitize.outcome_of("memcheck", 0, CLEAN, 1.0).is_clean
    race = "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n"
    assert sanitize.outcome_of("racecheck", 0, race, 1.0).is_clean
    assert not sanitize.outcome_of("memcheck", 1, CLEAN, 1.0).is_clean
    assert not sanitize.outcome_of("memcheck", None, CLEAN, 1.0).is_clean
    broken = sanitize.outcome_of("memcheck", 0, "========= Error: no device\n", 1.0)
    assert (broken.errors, broken.is_clean) == (None, False)


def test_the_table_has_a_line_for_each_tool_and_finding() -> None:
    lines = sanitize.render(
        [
            sanitize.outcome_of("memcheck", 0, MEMCHECK, 61.4),
            sanitize.outcome_of("synccheck", 0, CLEAN, 9.0),
        ]
    )
    assert lines[1].split() == ["memcheck", "61", "2", "found"]
    assert lines[2].startswith("    2 x Invalid")
    assert lines[3].split() == ["synccheck", "9", "clean"]


def test_the_tool_is_taken_from_the_toolkit_and_then_from_path(tmp_path: Path) -> None:
    tool = tmp_path / "bin/compute-sanitizer"
    tool.parent.mkdir()
    tool.touch(mode=0o755)
    assert sanitize.find_sanitizer({"PATH": str(tool.parent)}) == tool
    assert sanitize.find_sanitizer({"PATH": ""}) in (None, *_beside_nvcc())


def _beside_nvcc() -> list[Path]:
    """Where a machine's own toolkit has the tool."""
    found = sanitize.find_sanitizer({**os.environ, "PATH": ""})
    return [] if found is None else [found]


def test_without_the_tool_a_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitize, "find_sanitizer", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["sanitize.py"])
    assert sanitize.main() == 2


def test_a_tool_that_only_runs_the_program_is_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The products are right, on the CPU, with the arguments and the environment of a real run."""
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(
        '#!/bin/sh\nset -e\nshift 4\n"$@"\necho "========= ERROR SUMMARY: 0 errors"\n', "utf-8"
    )
    tool.chmod(0o755)
    monkeypatch.setattr(sanitize, "LOGS", tmp_path / "logs")
    monkeypatch.setenv("MARLIN_GPU_TESTS_ON", "cpu")
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    outcome = sanitize.run(tool, "racecheck")
    log = (tmp_path / "logs/racecheck.log").read_text("utf-8")
    assert outcome.is_clean, log
    assert "144 products, 0 wrong" in log
