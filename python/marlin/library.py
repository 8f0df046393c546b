"""The native libraries, loaded when this module is imported.

One that is absent or does not load is no error then, but raises one at the first use.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch

from marlin.errors import ExtensionMissingError, MarlinError, UnsupportedError

__all__ = [
    "CPU_LIBRARY",
    "CUDA_LIBRARY",
    "is_loaded",
    "no_kernels",
    "require_cuda_library",
    "require_library",
]

_MINIMUM_TORCH = (2, 10)
_BUILD = "build it with `{0}npm run build:ext` or `{0}python setup.py build_ext --inplace`"
_HOW_TO_BUILD = _BUILD.format("")
_HOW_TO_BUILD_CUDA = _BUILD.format("MARLIN_CUDA=1 ")

_FOLDER = Path(__file__).resolve().parent
CPU_LIBRARY = _FOLDER / "_C.abi3.so"
CUDA_LIBRARY = _FOLDER / "_C_cuda.abi3.so"


def is_loaded() -> bool:
    """Whether the operators exist."""
    return _load_error is None


def require_library() -> None:
    """Raises ExtensionMissingError, with the way to build it, unless the CPU library is loaded."""
    if _load_error is not None:
        raise _load_error


def require_cuda_library() -> None:
    """Raises unless the CUDA kernels can be called; does not look for a GPU.

    Raises:
        UnsupportedError: torch is built without CUDA.
        ExtensionMissingError: the library is not built or does not load.
    """
    require_library()
    if _cuda_error is not None:
        raise _cuda_error


def no_kernels(kind: str) -> MarlinError:
    """The error for tensors on a kind of device without kernels."""
    if kind == "cuda" and _cuda_error is not None:
        return _cuda_error
    return UnsupportedError(f"expected tensors on the CPU or a CUDA GPU, got {kind}")


def _load() -> None:
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < _MINIMUM_TORCH:
        raise ExtensionMissingError(f"expected torch >= 2.10, got {torch.__version__}")
    if not CPU_LIBRARY.is_file():
        raise ExtensionMissingError(f"{CPU_LIBRARY} does not exist: {_HOW_TO_BUILD}")
    _load_library(CPU_LIBRARY, _HOW_TO_BUILD)


def _load_cuda() -> None:
    if torch.version.cuda is None:
        raise UnsupportedError(
            f"expected a torch built for CUDA, got torch {torch.__version__}: "
            "install one from https://pytorch.org"
        )
    if not CUDA_LIBRARY.is_file():
        raise ExtensionMissingError(f"{CUDA_LIBRARY} does not exist: {_HOW_TO_BUILD_CUDA}")
    _load_library(CUDA_LIBRARY, _HOW_TO_BUILD_CUDA)


def _load_library(library: Path, how_to_build: str) -> None:
    try:
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise ExtensionMissingError(
            f"{library} does not load in torch {torch.__version__} ({error}): {how_to_build}"
        ) from error


def _failure(load: Callable[[], None]) -> MarlinError | None:
    try:
        load()
    except MarlinError as error:
        return error
    return None


_load_error = _failure(_load)
# The CPU serves without it. Its schemas are in the other library.
_cuda_error = _load_error or _failure(_load_cuda)
