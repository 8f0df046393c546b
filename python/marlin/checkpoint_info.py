"""What the headers of a checkpoint say, as plain values and as a summary. Reads no tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from marlin.checkpoint_files import CheckpointFiles
from marlin.primitives import CODE_BITS, codes_per_word, dtype_name

__all__ = ["CheckpointInfo", "TensorInfo", "describe"]

# What belongs to a packed weight and counts no parameters of its own.
PACKED_SUFFIX = ".qweight"
DEFAULT_BITS = 4  # where the description says nothing, or nonsense
COMPANION_SUFFIXES = (".scales", ".qzeros", ".g_idx")


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a checkpoint; `file` is relative to the folder."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    file: str


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint holds; `print` shows a summary.

    bytes: of all tensors, without headers.
    parameters: values as the float model has them, buffers included: each packed weight is one;
        padding, scales and zero points are none.
    quantization: the `quantization_config`, whatever wrote it; None for a float checkpoint.
    """

    path: str
    files: tuple[str, ...]
    bytes: int
    parameters: int
    quantization: dict[str, Any] | None
    metadata: Mapping[str, str]
    tensors: tuple[TensorInfo, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        return {
            "path": self.path,
            "files": list(self.files),
            "bytes": self.bytes,
            "parameters": self.parameters,
            "quantization": self.quantization,
            "metadata": dict(self.metadata),
            "tensors": [{**asdict(tensor), "shape": list(tensor.shape)} for tensor in self.tensors],
        }

    def __str__(self) -> str:
        by_dtype: dict[str, tuple[int, int]] = {}
        for tensor in self.tensors:
            count, total = by_dtype.get(tensor.dtype, (0, 0))
            by_dtype[tensor.dtype] = (count + 1, total + tensor.bytes)
        config = self.quantization
        lines = [
            self.path,
            f"  {self.parameters} parameters, {len(self.tensors)} tensors, "
            f"{self.bytes / 1e6:.3f} MB in {len(self.files)} file(s)",
            "  quantization: none"
            if config is None
            else f"  quantization: {config.get('quant_method')}, {config.get('bits')} bits, "
            f"group size {config.get('group_size')}",
        ]
        lines += [
            f"  {dtype:<14} {count:>6} tensors {total / 1e6:>12.3f} MB"
            for dtype, (count, total) in sorted(by_dtype.items())
        ]
        return "\n".join(lines)


def describe(files: CheckpointFiles) -> CheckpointInfo:
    """Sums up the headers of `files`."""
    folder = files.path if files.path.is_dir() else files.path.parent
    tensors = []
    for name in files.names:
        entry = files.entry(name)
        tensors.append(
            TensorInfo(
                name=name,
                dtype=dtype_name(entry.dtype),
                shape=entry.shape,
                bytes=entry.nbytes,
                file=str(files.file_of(name).relative_to(folder)),
            )
        )
    return CheckpointInfo(
        path=str(files.path),
        files=tuple(sorted({tensor.file for tensor in tensors})),
        bytes=sum(tensor.bytes for tensor in tensors),
        parameters=_count_parameters(files),
        quantization=files.quantization,
        metadata=files.metadata,
        tensors=tuple(tensors),
    )


def _count_parameters(files: CheckpointFiles) -> int:
    config = files.quantization or {}
    bits = config.get("bits")
    per_word = codes_per_word(bits if type(bits) is int and bits in CODE_BITS else DEFAULT_BITS)
    modules = config.get("modules")
    modules = modules if isinstance(modules, Mapping) else {}
    total = 0
    for name in files.names:
        entry = files.entry(name)
        layer, _, kind = name.rpartition(".")
        packed = f"{layer}{PACKED_SUFFIX}" if layer else kind
        if f".{kind}" == PACKED_SUFFIX and entry.dtype == torch.int32:
            sizes = modules.get(layer)
            features = [
                sizes.get(key) if isinstance(sizes, Mapping) else None
                for key in ("in_features", "out_features")
            ]
            if all(isinstance(size, int) for size in features):
                total += math.prod(features)  # type: ignore[arg-type]
            else:
                total += math.prod(entry.shape) * per_word
        elif f".{kind}" not in COMPANION_SUFFIXES or packed not in files:
            total += math.prod(entry.shape)
    return total
