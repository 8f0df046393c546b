"""Writes a model's folder, float or 4-bit, that transformers and Marlin load again.

The folder appears whole or not at all. Knows one model; nothing of handles or the wire.
"""

from __future__ import annotations

import copy
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from marlin.checkpoint import save_checkpoint
from marlin.errors import InvalidArgumentError
from marlin.quantization_config import quantization_config

__all__ = ["write_folder"]

_CONFIG = "config.json"


def write_folder(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: Path,
    *,
    overwrite: bool,
    progress: Callable[[str, int, int, str], None],
) -> int:
    """Writes weights, configuration and tokenizer to the folder `path`; returns its bytes.

    overwrite: replaces a folder that is there, if it is a model's or empty.
    progress: called with ("save", done, total, text) in bytes; what it raises leaves no trace.

    Raises InvalidArgumentError when `path` is there and may not be replaced.
    """
    path = path.expanduser().absolute()
    _check_target(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    fresh.mkdir()
    try:
        _write(model, fresh, progress)
        tokenizer.save_pretrained(fresh)
        size = sum(file.stat().st_size for file in fresh.iterdir())
        progress("save", size, size, "")
        _put_in_place(fresh, path)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return size


def _write(
    model: PreTrainedModel, folder: Path, progress: Callable[[str, int, int, str], None]
) -> None:
    described = quantization_config(model)
    if described is None:
        progress("save", 0, sum(p.nbytes for p in model.parameters()), "")
        # transformers undoes here what it renamed or fused when it read the weights.
        model.save_pretrained(folder)
        # Weights come out readable by their owner only; the configuration has the umask's mode.
        for file in folder.glob("*.safetensors"):
            file.chmod((folder / _CONFIG).stat().st_mode)
        return
    save_checkpoint(
        model, folder, progress=lambda done, total, text: progress("save", done, total, text)
    )
    config = copy.deepcopy(model.config)
    config.quantization_config = described
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)


def _check_target(path: Path, overwrite: bool) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise InvalidArgumentError(f"`path` must be a folder, got the file `{path}`.")
    names = {entry.name for entry in path.iterdir()}
    if not names:
        return
    if not overwrite:
        raise InvalidArgumentError(
            f"`path` is the folder `{path}`, which is not empty: `overwrite` must be true."
        )
    if _CONFIG not in names:
        raise InvalidArgumentError(
            f"`path` is the folder `{path}`, which holds no model and is not overwritten."
        )


def _put_in_place(fresh: Path, path: Path) -> None:
    old = path.with_name(f".{path.name}.{secrets.token_hex(8)}.old")
    if path.exists():
        path.rename(old)
    try:
        fresh.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
