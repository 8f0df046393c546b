"""Parts of csrc/cuda that need no GPU, compiled for this process."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

from buildtools.compiler import find_cxx, warning_flags
from buildtools.native import Library, Source, build_library
from ptxsim.build import BUILT, ROOT

__all__ = ["load"]


def load(
    name: str, files: Sequence[str], flags: Sequence[str] = (), link: Sequence[str] = ()
) -> ctypes.CDLL:
    """A library of some files of the repository, compiled anew with `flags` beside the usual ones,
    and linked with `link`."""
    cxx = find_cxx(os.environ)
    command = (*cxx, "-std=c++20", "-fPIC", "-O1", *warning_flags(), *flags)
    sources = tuple(Source(ROOT / file, command) for file in files)
    output = BUILT / f"lib{name}-{os.getpid()}.so"
    library = Library(name, sources, (*cxx, "-shared", *link), ())
    build_library(library, output, output.with_suffix(".o"), 1, _say_nothing)
    loaded = ctypes.CDLL(os.fspath(output))
    output.unlink()
    return loaded


def _say_nothing(line: str) -> None:
    """Of what is compiled."""
