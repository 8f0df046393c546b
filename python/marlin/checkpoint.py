"""Saves and loads models with quantised layers as safetensors, one tensor in memory at a time.

Works on any `nn.Module`: its parameters and persistent buffers are what a checkpoint holds, under
their dotted names. Knows modules and files; the format's bytes are the business of
safetensors_reader.py and safetensors_writer.py, folders and shards that of checkpoint_files.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from itertools import chain, groupby
from pathlib import Path

import torch
from torch import Tensor, nn

from marlin.checkpoint_files import WEIGHTS_NAME, CheckpointFiles
from marlin.checkpoint_info import CheckpointInfo, describe
from marlin.errors import CheckpointInvalidError, InvalidArgumentError, UnsupportedError
from marlin.model_state import Slot, assign_slots, refuse_meta_buffers, slots_of
from marlin.primitives import dtype_name
from marlin.quantization_config import (
    planned_replacements,
    quantization_config,
    swap_for_config,
    swap_in,
)
from marlin.safetensors_writer import PendingTensor, write_safetensors

__all__ = [
    "CheckpointInfo",
    "inspect_checkpoint",
    "load_checkpoint",
    "quantization_config",
    "save_checkpoint",
    "swap_for_config",
]

Progress = Callable[[int, int, str], None]


def inspect_checkpoint(path: str | os.PathLike[str]) -> CheckpointInfo:
    """What a checkpoint, a file or a folder, holds; reads the headers only."""
    with CheckpointFiles(Path(path)) as files:
        return describe(files)


def save_checkpoint(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> CheckpointInfo:
    """Writes the parameters and buffers of `model`: the whole file appears, or none of it.

    path: a file when it ends in ".safetensors", otherwise a folder that gets a `model.safetensors`.
    overwrite: replaces a checkpoint that is there; without it that is an InvalidArgumentError.
    progress: called with (bytes done, bytes in total, name) after each tensor.

    Quantised weights are written in the plain layout, and described in the file's metadata
    (`quantization_config`). Tensors that are one in memory are written once, with their other
    names in the metadata (`tied`). Raises OSError when the disk is full or not writable.
    """
    target = Path(path)
    if target.suffix != ".safetensors":
        target.mkdir(parents=True, exist_ok=True)
        target = target / WEIGHTS_NAME
    tensors, tied = _pending_tensors(model)
    metadata = {"format": "pt"}
    config = quantization_config(model)
    if config is not None:
        metadata["quantization_config"] = json.dumps(config)
    if tied:
        metadata["tied"] = json.dumps(tied)
    total = sum(tensor.nbytes for tensor in tensors)
    done = 0

    def on_written(tensor: PendingTensor) -> None:
        nonlocal done
        done += tensor.nbytes
        if progress is not None:
            progress(done, total, tensor.name)

    write_safetensors(target, tensors, metadata, overwrite=overwrite, on_written=on_written)
    return inspect_checkpoint(target)


def load_checkpoint(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Fills `model` from a checkpoint, in place, and returns it.

    model: the architecture, best built on the meta device (`with torch.device("meta"): Net()`) so
        that the float weights of the quantised layers never exist. Its Linears become the
        quantised ones that the checkpoint describes; its tensors are replaced, not copied into.
        Non-persistent buffers are not in a checkpoint and must be real.
    device: where the tensors go; that of the model's first real tensor by default, else the CPU.
    dtype: of the floating point tensors; that of the checkpoint by default.
    progress: called with (bytes done, bytes in total, name) after each tensor.

    Names, shapes and dtypes are all checked before the model is touched. Raises
    CheckpointNotFoundError, CheckpointUnsafeError or CheckpointInvalidError; the latter also for
    scales that are NaN or infinite, which are only seen as they are read.
    """
    with CheckpointFiles(Path(path)) as files:
        config = files.quantization
        replacements = {} if config is None else planned_replacements(model, config)
        slots = slots_of(model, replacements)
        sources = [_source_of(slot, files) for slot in slots]
        _refuse_unexpected(slots, files)
        refuse_meta_buffers(model)
        target = _device_of(model) if device is None else torch.device(device)
        swap_in(model, replacements)
        total = sum(files.entry(source).nbytes for source in sources)
        done = 0
        for group in _by_module(slots, sources):
            tensors: dict[str, Tensor] = {}
            for slot, source in group:
                tensor = files.read(source)
                done += tensor.nbytes
                cast = dtype if tensor.is_floating_point() else None
                tensors[slot.name] = tensor.to(device=target, dtype=cast)
                if progress is not None:
                    progress(done, total, slot.name)
            problems = assign_slots([slot for slot, _ in group], tensors)
            if problems:
                raise CheckpointInvalidError(f"`{path}` does not fit: {' '.join(problems)}")
    return model


def _pending_tensors(model: nn.Module) -> tuple[list[PendingTensor], dict[str, str]]:
    """What to write, and the other names of what is written once."""
    pending: list[PendingTensor] = []
    tied: dict[str, str] = {}
    for slot in slots_of(model):
        tensor = slot.tensor
        if tensor.is_meta:
            raise InvalidArgumentError(
                f"`model` must have values to save, got `{slot.name}` on the meta device."
            )
        if tensor.layout != torch.strided or type(tensor.data) is not Tensor:
            raise UnsupportedError(
                f"`{slot.name}` must be a dense tensor to be saved, got "
                f"{type(tensor.data).__name__} of layout {tensor.layout}."
            )
        pending.append(PendingTensor(slot.name, tensor.dtype, slot.shape, slot.checkpoint_tensor))
        tied.update({place.name: slot.name for place in slot.places[1:]})
    return pending, tied


def _source_of(slot: Slot, files: CheckpointFiles) -> str:
    """The name in the checkpoint of the tensor for `slot`, which must fit."""
    names = [place.name for place in slot.places]
    names += [files.tied[name] for name in names if name in files.tied]
    source = next((name for name in names if name in files), None)
    if source is None:
        raise CheckpointInvalidError(
            f"`{files.path}` must have tensor `{slot.name}` for this model, and has not."
        )
    entry = files.entry(source)
    if entry.shape != slot.shape:
        raise CheckpointInvalidError(
            f"`{source}` must have shape {list(slot.shape)} for this model, and has "
            f"{list(entry.shape)} in `{files.path}`."
        )
    wanted = slot.tensor.dtype
    # Floating point tensors take the dtype of the checkpoint, as on saving; integers mean bits.
    both_float = wanted.is_floating_point and entry.dtype.is_floating_point
    if entry.dtype != wanted and not both_float:
        raise CheckpointInvalidError(
            f"`{source}` must be {dtype_name(wanted)} for this model, and is "
            f"{dtype_name(entry.dtype)} in `{files.path}`."
        )
    return source


def _refuse_unexpected(slots: list[Slot], files: CheckpointFiles) -> None:
    known = {place.name for slot in slots for place in slot.places}
    known |= {files.tied[name] for name in known if name in files.tied}
    unexpected = [name for name in files.names if name not in known]
    if unexpected:
        raise CheckpointInvalidError(
            f"`{files.path}` must have tensors of this model only, and has {len(unexpected)} "
            f"others, the first of which is `{unexpected[0]}`."
        )


def _by_module(slots: list[Slot], sources: list[str]) -> Iterator[list[tuple[Slot, str]]]:
    """Slots and sources in runs that fill one module."""
    pairs = zip(slots, sources, strict=True)
    for _, run in groupby(pairs, key=lambda pair: id(pair[0].places[0].module)):
        yield list(run)


def _device_of(model: nn.Module) -> torch.device:
    """The device of the first tensor with values, else the CPU."""
    for tensor in chain(model.parameters(), model.buffers()):
        if not tensor.is_meta:
            return tensor.device
    return torch.device("cpu")
