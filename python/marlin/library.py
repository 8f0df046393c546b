"""The native libraries, loaded when this module is imported.

One that is absent or does not load is no error then, but an ExtensionMissingError at the first use.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from marlin.errors import ExtensionMissingError, UnsupportedError

__all__ = ["CPU_LIBRARY", "is_loaded", "require_library", "unsupported_device"]

_MINIMUM_TORCH = (2, 10)
_HOW_TO_BUILD = "build it with `npm run build:ext` or `python setup.py build_ext --inplace`"

_FOLDER = Path(__file__).resolve().parent
CPU_LIBRARY = _FOLDER / "_C.abi3.so"
_CUDA_LIBRARY = _FOLDER / "_C_cuda.abi3.so"


def is_loaded() -> bool:
    """Whether the operators exist."""
    return _load_error is None


def require_library() -> None:
    """Raises ExtensionMissingError, with the way to build it, unless the CPU library is loaded."""
    if _load_error is not None:
        raise _load_error


def unsupported_device(kind: str) -> UnsupportedError:
    """The error for a kind of device without kernels."""
    reason = f"; {_cuda_load_error}" if kind == "cuda" and _cuda_load_error is not None else ""
    return UnsupportedError(f"expected tensors on the CPU, which has kernels, got {kind}{reason}")


def _load() -> None:
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < _MINIMUM_TORCH:
        raise ExtensionMissingError(f"expected torch >= 2.10, got {torch.__version__}")
    if not CPU_LIBRARY.is_file():
        raise ExtensionMissingError(f"{CPU_LIBRARY} does not exist: {_HOW_TO_BUILD}")
    failure = _load_library(CPU_LIBRARY)
    if failure is not None:
        raise ExtensionMissingError(failure)


def _load_library(library: Path) -> str | None:
    """Loads one library; returns a sentence when that fails."""
    try:
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except OSError as error:
        return f"{library} does not load in torch {torch.__version__} ({error}): {_HOW_TO_BUILD}"
    return None


_load_error: ExtensionMissingError | None = None
_cuda_load_error: str | None = None  # the CPU serves without it
try:
    _load()
    if torch.version.cuda is not None and _CUDA_LIBRARY.is_file():
        _cuda_load_error = _load_library(_CUDA_LIBRARY)
except ExtensionMissingError as _error:
    _load_error = _error
