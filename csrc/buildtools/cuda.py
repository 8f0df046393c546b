"""Decides whether the CUDA library is built, and finds nvcc. Imports no torch."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import BuildError
from .torch_install import TorchInstall

__all__ = ["CudaToolkit", "find_any_cuda", "find_cuda", "gpu_is_present", "wants_cuda"]

# Of CUDA: what the sources compile with, the best first.
_MAJORS = ("13", "12")

# Ampere and Hopper as machine code; PTX of Ampere for everything newer.
_ARCHITECTURES = (
    "-gencode=arch=compute_80,code=sm_80",
    "-gencode=arch=compute_80,code=compute_80",
    "-gencode=arch=compute_90a,code=sm_90a",
)


@dataclass(frozen=True)
class CudaToolkit:
    """A CUDA compiler with its headers and run-time library."""

    nvcc: Path
    include: Path
    lib: Path
    runtime: str  # file name of the run-time library

    @property
    def architectures(self) -> tuple[str, ...]:
        return _ARCHITECTURES


def gpu_is_present() -> bool:
    """True when the NVIDIA driver shows a device."""
    return Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists()


def wants_cuda(environ: Mapping[str, str], torch: TorchInstall, gpu_present: bool) -> bool:
    """MARLIN_CUDA decides; unset, the library is wanted where a GPU and a CUDA torch are."""
    choice = environ.get("MARLIN_CUDA", "")
    if choice not in ("", "0", "1"):
        raise BuildError(f"`MARLIN_CUDA`: expected 0 or 1, got {choice!r}.")
    if choice == "1" and torch.cuda is None:
        raise BuildError(
            f"MARLIN_CUDA=1 needs a torch built for CUDA, got torch {torch.version}: "
            "install one from https://pytorch.org, or unset MARLIN_CUDA."
        )
    return choice == "1" or (choice == "" and gpu_present and torch.cuda is not None)


def opening_defines(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What MARLIN_OPENING chooses, as options of a compiler: csrc/cuda/gemm_opening.cuh."""
    choice = environ.get("MARLIN_OPENING", "") or "subnormal"
    if choice not in ("subnormal", "magic"):
        raise BuildError(f"`MARLIN_OPENING`: expected `subnormal` or `magic`, got {choice!r}.")
    return ("-DMARLIN_MAGIC_OPENING",) if choice == "magic" else ()


def find_cuda(environ: Mapping[str, str], torch: TorchInstall) -> CudaToolkit:
    """The toolkit of torch's CUDA major version: CUDA_HOME, then PATH, then the PyPI packages."""
    if torch.cuda is None:
        raise BuildError(f"torch {torch.version} is built without CUDA.")
    major = torch.cuda.split(".")[0]
    rejected = []
    for home in _candidate_homes(environ, major):
        nvcc = home / "bin/nvcc"
        if not nvcc.is_file():
            continue
        found = _nvcc_version(nvcc)
        if found.split(".")[0] == major:
            return _toolkit(home, nvcc, major)
        rejected.append(f"{nvcc} is of CUDA {found}")
    seen = f" ({'; '.join(rejected)})" if rejected else ""
    raise BuildError(
        f"no nvcc of CUDA {major}, which torch {torch.version} uses{seen}: "
        f"`pip install 'marlin-torch[cuda{major}]'`, or set CUDA_HOME to a toolkit of CUDA {major}."
    )


def find_any_cuda(environ: Mapping[str, str]) -> CudaToolkit:
    """The toolkit for what links to no torch, as PTX or a listing: of CUDA 13, else of CUDA 12."""
    for major in _MAJORS:
        try:
            return find_cuda(environ, TorchInstall(Path(), "", f"{major}.0"))
        except BuildError:
            continue
    raise BuildError(
        f"no nvcc of CUDA {' or '.join(_MAJORS)}: "
        f"set CUDA_HOME, or `pip install 'marlin-torch[cuda{_MAJORS[0]}]'`"
    )


def _candidate_homes(environ: Mapping[str, str], major: str) -> list[Path]:
    homes = []
    if environ.get("CUDA_HOME"):
        homes.append(Path(environ["CUDA_HOME"]))
    on_path = shutil.which("nvcc", path=environ.get("PATH"))
    if on_path is not None:
        homes.append(Path(on_path).resolve().parent.parent)
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        homes.append(Path(folder) / f"cu{major}")
    return homes


def _nvcc_version(nvcc: Path) -> str:
    output = subprocess.run(
        [os.fspath(nvcc), "--version"], capture_output=True, text=True, check=False
    ).stdout
    match = re.search(r"release (\d+\.\d+)", output)
    return match.group(1) if match else "unknown"


def _toolkit(home: Path, nvcc: Path, major: str) -> CudaToolkit:
    runtime = f"libcudart.so.{major}"
    for lib in (home / "lib64", home / "lib"):
        if (lib / runtime).exists():
            return CudaToolkit(nvcc, home / "include", lib, runtime)
    raise BuildError(f"{home} has nvcc but no {runtime}: install the CUDA run-time beside it.")
