"""Compiles csrc/cuda/gemm.cu for an architecture and takes it apart again.

Needs nvcc and cuobjdump, no GPU. What was compiled is kept in build/sass, by a hash of the sources,
the flags and the compiler.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from buildtools.cuda import find_any_cuda
from buildtools.errors import BuildError

__all__ = ["Compiled", "ToolError", "compile_gemm", "nvcc_version"]

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "csrc/cuda/gemm.cu"
FOLDER = ROOT / "build/sass"
# As csrc/buildtools/libraries.py compiles it, but for what concerns the host.
FLAGS = ("-std=c++20", "-O3", "-Xptxas", "-v")

_USAGE = re.compile(
    r"Compiling entry function '(?P<name>\S+)'.*?"
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


class ToolError(Exception):
    """A tool of the CUDA toolkit is not there, or failed."""


@dataclass(frozen=True)
class Usage:
    """What ptxas says of a kernel."""

    registers: int
    spilled_bytes: int


@dataclass(frozen=True)
class Compiled:
    """A listing of the machine code, and the registers of each kernel by its mangled name."""

    listing: str
    usage: dict[str, Usage]


def compile_gemm(architecture: int) -> Compiled:
    """Compiles, or takes what an earlier call compiled."""
    flags = (*FLAGS, f"-arch=sm_{architecture}")
    key = hashlib.sha256("\0".join((nvcc_version(), *flags)).encode())
    for file in sorted(SOURCE.parent.iterdir()):
        if file.suffix in (".cu", ".cuh", ".h"):
            key.update(file.read_bytes())
    stem = FOLDER / f"gemm-sm_{architecture}-{key.hexdigest()[:16]}"
    cubin, report = stem.with_suffix(".cubin"), stem.with_suffix(".txt")
    if not (cubin.exists() and report.exists()):
        FOLDER.mkdir(parents=True, exist_ok=True)
        for old in FOLDER.glob(f"gemm-sm_{architecture}-*"):
            old.unlink()
        command = [str(_nvcc()), *flags, "-cubin", "-o", str(cubin), str(SOURCE)]
        report.write_text(_output(command, "stderr"))
    listing = _output([str(_cuobjdump()), "-sass", str(cubin)], "stdout")
    return Compiled(listing, dict(_usage(report.read_text())))


def nvcc_version() -> str:
    """As `13.0.88`."""
    match = re.search(r"V(\d+\.\d+\.\d+)", _output([str(_nvcc()), "--version"], "stdout"))
    if match is None:
        raise ToolError(f"{_nvcc()} tells no version")
    return match[1]


def _usage(report: str) -> Iterator[tuple[str, Usage]]:
    for match in _USAGE.finditer(report):
        spilled = int(match["stores"]) + int(match["loads"])
        yield match["name"], Usage(int(match["registers"]), spilled)


@cache
def _nvcc() -> Path:
    try:
        return find_any_cuda(os.environ).nvcc
    except BuildError as error:
        raise ToolError(str(error)) from None


def _cuobjdump() -> Path:
    """Beside nvcc, on PATH, or what the package of triton brings."""
    beside = _nvcc().with_name("cuobjdump")
    if beside.is_file():
        return beside
    if found := shutil.which("cuobjdump"):
        return Path(found)
    spec = importlib.util.find_spec("triton")
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        if (tool := Path(place, "backends/nvidia/bin/cuobjdump")).is_file():
            return tool
    raise ToolError("no cuobjdump: it comes with CUDA, and with the triton package")


def _output(command: list[str], stream: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    return done.stderr if stream == "stderr" else done.stdout
