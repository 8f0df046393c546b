"""Builds the simulator's library, if its sources are newer."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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
    "sanitized": ("-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
}


def library() -> Path:
    """The shared library of api.h."""
    return _build("ptxsim", "plain", SOURCES.glob("*.cpp"), ("-shared",), "libptxsim.so")


def checks(mode: str) -> Path:
    """The program of the C++ checks, in one of MODES."""
    files = [*SOURCES.glob("*.cpp"), *TESTS.glob("*.cpp")]
    return _build(f"ptxsim checks, {mode}", mode, files, MODES[mode], f"checks-{mode}")


def _build(name: str, mode: str, files: Iterable[Path], link: Sequence[str], output: str) -> Path:
    """Objects of a mode are shared by all that is linked from them."""
    cxx = find_cxx(os.environ)
    command = (*cxx, "-std=c++20", "-fPIC", *MODES[mode], *warning_flags())
    sources = tuple(Source(path, command) for path in sorted(files))
    target = BUILT / output
    with _alone():
        build_library(
            Library(name, sources, (*cxx, *link), ()),
            target,
            BUILT / f"{mode}.objects",
            jobs(),
            lambda line: print(line, file=sys.stderr),
        )
    return target


@contextmanager
def _alone() -> Iterator[None]:
    """Keeps processes that start together from building the same files."""
    BUILT.mkdir(parents=True, exist_ok=True)
    with (BUILT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
