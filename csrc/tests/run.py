"""Builds the C++ checks, which know no torch, and runs them: plain, then with ASan and UBSan."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, os.fspath(ROOT / "csrc"))

from buildtools.compiler import find_cxx, mode_flags, warning_flags  # noqa: E402
from buildtools.errors import BuildError  # noqa: E402
from buildtools.libraries import TORCH_FREE_SOURCES, jobs, kernel_flags  # noqa: E402
from buildtools.native import Library, Source, build_library  # noqa: E402

TESTS = (
    "main.cpp",
    "test_float_bits.cpp",
    "test_plan.cpp",
    "test_dispatch.cpp",
    "test_prepack.cpp",
    "test_microkernels.cpp",
    "test_gemm.cpp",
)


def build(name: str, mode: list[str]) -> Path:
    """Builds the checks with the flags `mode`; returns the program."""
    cxx = find_cxx(os.environ)
    flags = ["-std=c++20", *mode, *warning_flags()]
    per_file = dict.fromkeys(TORCH_FREE_SOURCES, ()) | kernel_flags()
    sources = [Source(ROOT / "csrc" / file, (*cxx, *flags, *per_file[file])) for file in per_file]
    sources += [Source(ROOT / "csrc/tests" / file, (*cxx, *flags)) for file in TESTS]
    program = ROOT / "build/csrc-tests" / name
    checks = Library(f"csrc checks, {name}", tuple(sources), (*cxx, *mode), ("-pthread",))
    build_library(checks, program, program.with_suffix(".objects"), jobs(), print)
    return program


def main() -> int:
    """Runs both builds; 1 when any case failed."""
    modes = {"plain": mode_flags({}), "sanitized": mode_flags({"MARLIN_SANITIZE": "1"})}
    failed = False
    for name, mode in modes.items():
        try:
            program = build(name, mode)
        except BuildError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(f"csrc checks, {name}:", flush=True)
        failed |= subprocess.run([program], check=False).returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
