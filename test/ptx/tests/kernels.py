"""The project's kernels as PTX, compiled by nvcc and kept under build/ptxsim."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1]))
sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[3] / "csrc"))

from buildtools.cuda import find_any_cuda
from buildtools.errors import BuildError
from ptxsim.build import BUILT, ROOT
from ptxsim.simulator import Simulator

__all__ = ["CUDA", "compile_ptx", "entry"]

CUDA = ROOT / "csrc/cuda"


def compile_ptx(source: Path, architecture: str, options: tuple[str, ...] = ()) -> str:
    """The PTX of a .cu file for `sm_80`, `sm_90a` and so on, with more options of nvcc.

    Skips the test where there is no nvcc; fails it with MARLIN_REQUIRE_NVCC=1.
    """
    nvcc, version = _nvcc()
    flags = ("-ptx", "-std=c++20", "-O3", f"-arch={architecture}", f"-I{ROOT / 'csrc'}")
    flags += options
    key = hashlib.sha256(repr((version, flags, os.fspath(source))).encode())
    for path in (source, *_headers(source)):
        key.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    folder = BUILT / "ptx"
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / f"{source.stem}-{architecture}-{key.hexdigest()[:16]}.ptx"
    # Processes that start together wait for the one that compiles.
    with output.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not output.is_file():
            fresh = output.with_suffix(".fresh")
            command = (nvcc, *flags, os.fspath(source), "-o", os.fspath(fresh))
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode != 0:
                raise AssertionError(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
            fresh.replace(output)
    return output.read_text(encoding="utf-8")


def entry(simulator: Simulator, *parts: str) -> str:
    """The one kernel whose mangled name has all of `parts` in it."""
    names = simulator.entries()
    found = [name for name in names if all(part in name for part in parts)]
    if len(found) != 1:
        raise AssertionError(f"Expected one kernel with {parts} in its name, got {found}: {names}")
    return found[0]


@cache
def _nvcc() -> tuple[str, str]:
    """The compiler and what it says of its version."""
    try:
        nvcc = os.fspath(find_any_cuda(os.environ).nvcc)
    except BuildError as error:
        if os.environ.get("MARLIN_REQUIRE_NVCC") == "1":
            pytest.fail(f"MARLIN_REQUIRE_NVCC=1, but {error}")
        pytest.skip(str(error))
    version = subprocess.run((nvcc, "--version"), capture_output=True, text=True, check=True)
    return nvcc, version.stdout


def _headers(source: Path) -> list[Path]:
    """What the source may include: headers beside it and those of csrc."""
    folders = {source.parent, CUDA, ROOT / "csrc/common"}
    return sorted(p for folder in folders for p in folder.iterdir() if p.suffix in (".h", ".cuh"))
