"""Finds the C++ compiler and composes its command lines."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from .errors import BuildError
from .torch_install import TorchInstall

__all__ = ["compile_flags", "find_cxx", "link_flags", "mode_flags", "warning_flags"]


def find_cxx(environ: Mapping[str, str]) -> list[str]:
    """The command of a C++20 compiler: CXX if set, else the first of c++, g++, clang++ on PATH."""
    if environ.get("CXX", "").strip():
        try:
            command = shlex.split(environ["CXX"])
        except ValueError as err:
            raise BuildError(f"`CXX` is no command line, got {environ['CXX']}: {err}.") from err
        if shutil.which(command[0], path=environ.get("PATH")) is None:
            raise BuildError(
                f"`CXX` names {command[0]}, which is not on PATH: correct or unset it."
            )
    else:
        found = [shutil.which(name, path=environ.get("PATH")) for name in ("c++", "g++", "clang++")]
        command = [path for path in found if path is not None][:1]
        if not command:
            raise BuildError(
                "no C++ compiler on PATH: install g++ >= 11 or clang++ >= 14 "
                "(Debian and Ubuntu: `apt install g++`; Fedora: `dnf install gcc-c++`; "
                "macOS: `xcode-select --install`)."
            )
    _require_cxx20(command)
    return command


def _require_cxx20(command: list[str]) -> None:
    probe = subprocess.run(
        [*command, "-std=c++20", "-x", "c++", "-fsyntax-only", "-"],
        input="#include <bit>\nstatic_assert(std::bit_cast<int>(1.0f) != 0);\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode != 0:
        raise BuildError(
            f"{shlex.join(command)} does not compile C++20: install g++ >= 11 or clang++ >= 14, "
            f"or name one in `CXX`. It said: {probe.stderr.strip()[:500]}"
        )


def mode_flags(environ: Mapping[str, str]) -> list[str]:
    """Optimisation and sanitizers, as MARLIN_DEBUG and MARLIN_SANITIZE say."""
    is_sanitized = environ.get("MARLIN_SANITIZE") == "1"
    if environ.get("MARLIN_DEBUG") == "1":
        flags = ["-O0", "-g"]
    elif is_sanitized:
        flags = ["-O1", "-g1"]  # -O3 and -g find no more, and take a minute to compile
    else:
        flags = ["-O3"]
    if is_sanitized:
        flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    return flags


def warning_flags() -> list[str]:
    """Every warning of our own sources is an error."""
    return ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]


def compile_flags(environ: Mapping[str, str], torch: TorchInstall) -> list[str]:
    """Flags of every source; torch's headers are system headers, their warnings are not ours."""
    return [
        "-std=c++20",
        "-fPIC",
        "-fvisibility=hidden",
        *mode_flags(environ),
        *warning_flags(),
        *("-isystem", os.fspath(torch.include)),
        f'-DMARLIN_TORCH_VERSION="{torch.version}"',  # another torch: everything is compiled again
        "-DTORCH_TARGET_VERSION=0x020a000000000000",  # torch 2.10: major << 56 | minor << 48
        *shlex.split(environ.get("CXXFLAGS", "")),
    ]


def link_flags(environ: Mapping[str, str], torch_lib: Path) -> list[str]:
    """Flags of every library. No rpath: the process has already loaded its own torch."""
    return ["-shared", *mode_flags(environ), f"-L{torch_lib}"]
