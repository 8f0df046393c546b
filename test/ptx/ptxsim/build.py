"""Builds the simulator's library, if its sources are newer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, os.fspath(ROOT / "csrc"))

from buildtools.compiler import find_cxx, warning_flags  # noqa: E402
from buildtools.libraries import jobs  # noqa: E402
from buildtools.native import Library, Source, build_library  # noqa: E402

SOURCES = Path(__file__).resolve().parents[1] / "src"
TESTS = SOURCES.parent / "tests"
BUILT = ROOT / "build/ptxsim"

MODES = {
    "plain": ("-O2",),
    "sanitized": ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
}


def library() -> Path:
    """The shared library of api.h."""
    cxx = find_cxx(os.environ)
    command = (*cxx, "-std=c++20", "-fPIC", *MODES["plain"], *warning_flags())
    sources = tuple(Source(path, command) for path in sorted(SOURCES.glob("*.cpp")))
    output = BUILT / "libptxsim.so"
    build_library(
        Library("ptxsim", sources, (*cxx, "-shared"), ()),
        output,
        output.with_suffix(".objects"),
        jobs(),
        lambda line: print(line, file=sys.stderr),
    )
    return output


def checks(mode: str) -> Path:
    """The program of the C++ checks, in one of MODES."""
    cxx = find_cxx(os.environ)
    command = (*cxx, "-std=c++20", *MODES[mode], *warning_flags())
    files = [*SOURCES.glob("*.cpp"), *TESTS.glob("*.cpp")]
    sources = tuple(Source(path, command) for path in sorted(files))
    output = BUILT / f"checks-{mode}"
    build_library(
        Library(f"ptxsim checks, {mode}", sources, (*cxx, *MODES[mode]), ()),
        output,
        output.with_suffix(".objects"),
        jobs(),
        lambda line: print(line, file=sys.stderr),
    )
    return output
