"""Reads single safetensors files, and trusts no byte of them before it is checked.

Knows names, dtypes, shapes and bytes; nothing of models or quantisation. Tensors are read into
fresh memory, never mapped: a file that shrinks while it is read is an error, not a crash.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import torch
from torch import Tensor

from marlin.errors import (
    CheckpointInvalidError,
    CheckpointNotFoundError,
    CheckpointUnsafeError,
)

__all__ = [
    "DTYPE_NAMES",
    "LENGTH_BYTES",
    "PICKLE_SUFFIXES",
    "SafetensorsFile",
    "TensorEntry",
    "open_safetensors",
    "parse_json_object",
    "read_header",
]

# The format allows 100 MB. 16 MiB hold the entries of 100 000 tensors, more than any model's file.
MAX_HEADER_BYTES = 16 << 20
MAX_TENSORS = 100_000
MAX_DIMENSIONS = 8
LENGTH_BYTES = 8  # the header's length, little endian, before the header
PICKLE_SUFFIXES = frozenset({".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth"})
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies in a file: `offset` from the file's first byte."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class SafetensorsFile:
    """An open file whose header was checked: its tensors cover the rest of the file exactly."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self.tensors, self.metadata = _checked_header(path, file)

    def read(self, name: str) -> Tensor:
        """The tensor `name`, on the CPU, in memory of its own."""
        entry = self.tensors[name]
        buffer = torch.empty(entry.nbytes, dtype=torch.uint8)
        self._file.seek(entry.offset)
        rest: Any = memoryview(buffer.numpy())  # type: ignore[arg-type]
        while rest:
            count = self._file.readinto(rest)  # type: ignore[attr-defined]
            if not count:
                _invalid(self.path, f"it ended inside of tensor `{name}`; did it shrink?")
            rest = rest[count:]
        if entry.dtype == torch.bool:  # other bytes than 0 and 1 are not bools
            return (buffer != 0).view(entry.shape)
        return buffer.view(entry.dtype).view(entry.shape)


@contextlib.contextmanager
def open_safetensors(path: Path) -> Iterator[SafetensorsFile]:
    """Opens a file and checks its header before anything else is read.

    Raises CheckpointNotFoundError, CheckpointUnsafeError (a pickle) or CheckpointInvalidError.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as err:
        raise CheckpointNotFoundError(f"`{path}` does not exist.") from err
    except (OSError, ValueError) as err:  # too long, a circle of links, a zero byte
        raise CheckpointNotFoundError(f"`{path}` cannot be looked at: {err}.") from err
    if not stat.S_ISREG(mode):  # a pipe would block
        raise CheckpointInvalidError(f"`{path}` must be a safetensors file, and is no file at all.")
    # Unbuffered: tensors are read into their memory directly.
    with path.open("rb", buffering=0) as file:
        yield SafetensorsFile(path, file)


def read_header(path: Path) -> tuple[Mapping[str, TensorEntry], Mapping[str, str]]:
    """(tensors by name, metadata) of the file at `path`; reads the header only."""
    with open_safetensors(path) as file:
        return file.tensors, file.metadata


def parse_json_object(text: bytes | str, path: Path) -> dict[str, object]:
    """The JSON object in `text`, a part of `path`; names that occur twice are refused."""
    try:
        # Left to itself, json also reads UTF-16 and UTF-32, which no other reader would.
        decoded = text if isinstance(text, str) else text.decode("utf-8")
        value = json.loads(decoded, object_pairs_hook=_unique_pairs, parse_constant=_no_constant)
    except (ValueError, RecursionError) as err:
        raise CheckpointInvalidError(f"`{path}` holds JSON that cannot be read: {err}.") from err
    if not isinstance(value, dict):
        _invalid(path, f"its JSON must be an object, got {type(value).__name__}")
    return value


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {twice!r} occurs twice")
    return result


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _invalid(path: Path, problem: str) -> NoReturn:
    raise CheckpointInvalidError(f"`{path}` is not a sound safetensors file: {problem}.")


def _checked_header(path: Path, file: BinaryIO) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    size = os.fstat(file.fileno()).st_size
    start = file.read(LENGTH_BYTES)
    if len(start) < LENGTH_BYTES:
        _invalid(path, f"it has {size} bytes, and the length of the header alone takes 8")
    length = int.from_bytes(start, "little")
    if length > MAX_HEADER_BYTES and start.startswith(PICKLE_STARTS):
        raise CheckpointUnsafeError(
            f"`{path}` is a pickle, which can run any code when it is loaded: convert it to "
            "safetensors on a machine you trust."
        )
    if length > size - LENGTH_BYTES:
        _invalid(path, f"its header claims {length} bytes, and {size - LENGTH_BYTES} follow")
    if length > MAX_HEADER_BYTES:
        _invalid(path, f"its header claims {length} bytes, and at most {MAX_HEADER_BYTES} are read")
    text = file.read(length)
    if len(text) < length:
        _invalid(path, "it ended inside of the header; did it shrink?")
    header = parse_json_object(text, path)
    metadata = _checked_metadata(path, header.pop("__metadata__", {}))
    if len(header) > MAX_TENSORS:
        _invalid(path, f"it has {len(header)} tensors, and at most {MAX_TENSORS} are read")
    first = LENGTH_BYTES + length
    tensors = {name: _checked_entry(path, name, entry, first) for name, entry in header.items()}
    _check_coverage(path, tensors, first, size)
    return tensors, metadata


def _checked_metadata(path: Path, metadata: object) -> dict[str, str]:
    if not isinstance(metadata, dict):
        _invalid(path, "`__metadata__` must be an object of strings")
    for value in metadata.values():
        if not isinstance(value, str):
            _invalid(path, f"`__metadata__` must hold strings, got {type(value).__name__}")
    return metadata


def _checked_entry(path: Path, name: str, entry: object, first: int) -> TensorEntry:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        _invalid(path, f"tensor `{name}` must have exactly dtype, shape and data_offsets")
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        _invalid(path, f"tensor `{name}` has dtype {entry['dtype']!r}, which is not known")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        _invalid(path, f"the shape of tensor `{name}` must be at most {MAX_DIMENSIONS} sizes")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        _invalid(path, f"data_offsets of tensor `{name}` must be [begin, end]")
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes != offsets[1] - offsets[0]:
        _invalid(
            path,
            f"tensor `{name}` of shape {shape} takes {nbytes} bytes, and its data_offsets "
            f"hold {offsets[1] - offsets[0]}",
        )
    return TensorEntry(name, dtype, tuple(shape), first + offsets[0], nbytes)


def _are_sizes(values: object) -> bool:
    """Whether `values` is a list of integers that a file's size can have."""
    return isinstance(values, list) and all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 1 << 63 for v in values
    )


def _check_coverage(path: Path, tensors: Mapping[str, TensorEntry], first: int, size: int) -> None:
    """Refuses overlaps, holes and bytes behind the last tensor: nothing may hide in a file."""
    position = first
    for entry in sorted(tensors.values(), key=lambda entry: (entry.offset, entry.nbytes)):
        if entry.offset != position:
            relation = "overlaps" if entry.offset < position else "leaves a hole after"
            _invalid(path, f"tensor `{entry.name}` {relation} the one before it")
        position += entry.nbytes
    if position != size:
        _invalid(path, f"its tensors end at byte {position}, and the file has {size} bytes")
