"""A checkpoint on disk: one safetensors file, or a folder with one, or with shards and their index.

Finds the files and opens them. Knows no module; of quantisation only where
its description lies: the metadata of the file, or the `config.json` beside it.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor
from typing_extensions import Self

from marlin.errors import (
    CheckpointInvalidError,
    CheckpointNotFoundError,
    CheckpointUnsafeError,
)
from marlin.safetensors_reader import (
    PICKLE_SUFFIXES,
    SafetensorsFile,
    TensorEntry,
    open_safetensors,
    parse_json_object,
)

__all__ = ["WEIGHTS_NAME", "CheckpointFiles"]

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
CONFIG_NAME = "config.json"
MAX_JSON_BYTES = 16 << 20  # an index of 100 000 tensors takes 10 MB
MAX_SHARDS = 1000  # each is an open file


class CheckpointFiles:
    """The open files of a checkpoint, with every header checked; a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = ExitStack()
        self._owner: dict[str, SafetensorsFile] = {}
        self.metadata: dict[str, str] = {}
        try:
            self._open()
            self.quantization = self._read_quantization()
            self.tied = self._read_tied()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._owner)

    def __contains__(self, name: str) -> bool:
        return name in self._owner

    def entry(self, name: str) -> TensorEntry:
        return self._owner[name].tensors[name]

    def file_of(self, name: str) -> Path:
        return self._owner[name].path

    def read(self, name: str) -> Tensor:
        """The tensor `name`, on the CPU, in memory of its own."""
        return self._owner[name].read(name)

    def _open(self) -> None:
        try:
            is_there = self.path.exists()
        except OSError as err:
            raise CheckpointNotFoundError(f"`path` cannot be looked at: {err}.") from err
        if not is_there:
            raise CheckpointNotFoundError(
                f"`path` must be a checkpoint, and {self.path} is not there."
            )
        if not self.path.is_dir():
            _refuse_pickle(self.path)
            self._add(self.path, None)
        elif (self.path / WEIGHTS_NAME).exists():
            self._add(self.path / WEIGHTS_NAME, None)
        elif (self.path / INDEX_NAME).exists():
            for file, names in _read_index(self.path / INDEX_NAME).items():
                self._add(self.path / file, names)
        else:
            self._add(_only_file(self.path), None)

    def _add(self, path: Path, names: set[str] | None) -> None:
        """Takes `names`, or all tensors, of the file at `path`."""
        file = self._stack.enter_context(open_safetensors(path))
        for name in file.tensors if names is None else sorted(names):
            if name not in file.tensors:
                raise CheckpointInvalidError(
                    f"`{path}` must hold tensor `{name}` as the index says, and does not."
                )
            self._owner[name] = file
        self.metadata = {**file.metadata, **self.metadata}

    def _read_quantization(self) -> dict[str, Any] | None:
        text = self.metadata.get("quantization_config")
        if text is not None:
            return parse_json_object(text, self.path)
        config = self.path / CONFIG_NAME
        if not self.path.is_dir() or not config.exists():
            return None
        value = _read_json(config).get("quantization_config")
        if value is not None and not isinstance(value, dict):
            raise CheckpointInvalidError(f"`quantization_config` in `{config}` must be an object.")
        return value

    def _read_tied(self) -> dict[str, str]:
        """Other name -> name in the file."""
        text = self.metadata.get("tied")
        tied: dict[str, str] = {}
        if text is None:
            return tied
        for name, target in parse_json_object(text, self.path).items():
            if not isinstance(target, str) or target not in self or name in self:
                raise CheckpointInvalidError(
                    f"`{self.path}` ties `{name}` to {target!r}, which must be a tensor of it, and "
                    "the other must not."
                )
            tied[name] = target
        return tied


def _refuse_pickle(path: Path) -> None:
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise CheckpointUnsafeError(
            f"`path` must be safetensors, and {path} is a pickle, which can run any code when it "
            "is loaded: convert it on a machine you trust."
        )


def _only_file(folder: Path) -> Path:
    """The one safetensors file of a folder that has none under the usual names."""
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found[0]
    if found:
        raise CheckpointInvalidError(
            f"`{folder}` must have {INDEX_NAME} for its {len(found)} safetensors files, and has "
            "not; pass one of the files."
        )
    for file in sorted(folder.iterdir()):
        _refuse_pickle(file)
    raise CheckpointNotFoundError(f"`{folder}` has no safetensors file.")


def _read_index(path: Path) -> dict[str, set[str]]:
    """File name -> names of its tensors, of an index of shards."""
    weight_map = _read_json(path).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointInvalidError(f"`weight_map` in `{path}` must be an object.")
    shards: dict[str, set[str]] = {}
    for name, file in weight_map.items():
        # A path in the index could lead anywhere on this machine.
        if (
            not isinstance(file, str)
            or Path(file).name != file
            or not file.endswith(".safetensors")
        ):
            raise CheckpointInvalidError(
                f"`{path}` puts tensor `{name}` into {file!r}, which must be the name of a "
                "safetensors file beside it."
            )
        shards.setdefault(file, set()).add(name)
    if len(shards) > MAX_SHARDS:
        raise CheckpointInvalidError(f"`{path}` names {len(shards)} files, more than {MAX_SHARDS}.")
    return shards


def _read_json(path: Path) -> dict[str, object]:
    if not path.is_file():
        raise CheckpointInvalidError(f"`{path}` must be a file.")
    with path.open("rb") as file:
        text = file.read(MAX_JSON_BYTES + 1)
    if len(text) > MAX_JSON_BYTES:
        raise CheckpointInvalidError(f"`{path}` is larger than {MAX_JSON_BYTES} bytes.")
    return parse_json_object(text, path)
