"""Writes single safetensors files, which appear complete or not at all.

Knows names, dtypes, shapes and bytes; nothing of models or quantisation.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from marlin.errors import InvalidArgumentError, UnsupportedError
from marlin.safetensors_reader import DTYPE_NAMES, LENGTH_BYTES

__all__ = ["PendingTensor", "write_safetensors"]


@dataclass(frozen=True)
class PendingTensor:
    """A tensor to be written; `produce` is called when its turn comes, and its result let go."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    produce: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_safetensors(
    path: Path,
    tensors: Sequence[PendingTensor],
    metadata: Mapping[str, str],
    *,
    overwrite: bool = False,
    on_written: Callable[[PendingTensor], None] | None = None,
) -> None:
    """Writes a file that appears under its name complete, or not at all.

    It is written beside `path`, one tensor in memory at a time, and renamed when it is on the disk.
    Raises OSError when the disk is full, InvalidArgumentError when `path` exists.
    """
    if path.is_dir():
        raise InvalidArgumentError(f"`path` must name a file, got the folder `{path}`.")
    if path.exists() and not overwrite:
        raise InvalidArgumentError(f"`path` exists, `{path}`: pass `overwrite=True` to replace it.")
    # Largest items first, as the format asks: every tensor is aligned to its item size.
    ordered = sorted(tensors, key=lambda tensor: -tensor.dtype.itemsize)
    header = _header_bytes(ordered, metadata)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            _write_all(file, memoryview(header))
            for pending in ordered:
                _write_all(file, _bytes_of(pending))
                if on_written is not None:
                    on_written(pending)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _header_bytes(tensors: Sequence[PendingTensor], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for tensor in tensors:
        if tensor.name == "__metadata__":
            raise UnsupportedError("A tensor cannot be named `__metadata__` in safetensors.")
        if tensor.dtype not in DTYPE_NAMES:
            raise UnsupportedError(
                f"Tensor `{tensor.name}` has dtype {tensor.dtype}, which safetensors cannot hold."
            )
        header[tensor.name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, position + tensor.nbytes],
        }
        position += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _bytes_of(pending: PendingTensor) -> memoryview:
    tensor = pending.produce()
    assert tensor.dtype == pending.dtype, pending.name
    assert tuple(tensor.shape) == pending.shape, pending.name
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]


def _write_all(file: BinaryIO, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` last through a power cut, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # network file systems refuse it; the data is written
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
