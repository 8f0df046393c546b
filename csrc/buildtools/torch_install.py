"""Finds the installed torch, its version, headers and libraries, without importing it (seconds)."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from .errors import BuildError

__all__ = ["MINIMUM_TORCH", "TorchInstall", "find_torch", "read_torch"]

MINIMUM_TORCH = (2, 10)  # the first release with every part of the stable ABI that csrc uses


@dataclass(frozen=True)
class TorchInstall:
    """One installed torch."""

    root: Path
    version: str
    cuda: str | None  # "13.0", or None for a build without CUDA

    @property
    def include(self) -> Path:
        return self.root / "include"

    @property
    def lib(self) -> Path:
        return self.root / "lib"


def find_torch() -> TorchInstall:
    """The torch that this Python would import; BuildError when absent or too old."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise BuildError(
            "torch is not installed in this Python: install torch >= 2.10, then build with "
            "`pip install --no-build-isolation .` or `python setup.py build_ext --inplace`."
        )
    return read_torch(Path(spec.origin).parent)


def read_torch(root: Path) -> TorchInstall:
    """Reads the version of the torch package in `root` from its generated version.py."""
    text = (root / "version.py").read_text(encoding="utf-8")
    version = _assigned(text, "__version__")
    if version is None:
        raise BuildError(f"{root / 'version.py'} names no version: reinstall torch.")
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < MINIMUM_TORCH:
        raise BuildError(f"torch is too old: expected >= 2.10, got {version} in {root}.")
    torch = TorchInstall(root, version, _assigned(text, "cuda"))
    if not (torch.include / "torch/csrc/stable/library.h").is_file():
        raise BuildError(f"torch {version} in {root} has no C++ headers: reinstall torch.")
    return torch


def _assigned(text: str, name: str) -> str | None:
    match = re.search(rf"^{name}\s*(?::[^=\n]+)?=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return match.group(1) if match else None
