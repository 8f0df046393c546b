"""Where a model lies: a local folder, or a hub id that is fetched into the local cache.

Knows no file format.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from marlin.errors import CheckpointNotFoundError, InvalidArgumentError
from marlin.options import shown

__all__ = ["find_folder"]

# What is fetched from a hub: no pickle, no code, nothing in subfolders.
_WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
_UNWANTED = ("*/*",)


def find_folder(
    path: str | Path,
    *,
    revision: str | None,
    local_files_only: bool,
    progress: Callable[[str, int, int, str], None],
) -> Path:
    """The folder that `path`, a folder or a hub id, stands for.

    progress: called with ("download", 0 or 1, 1, id) around a look-up at the hub.

    Raises CheckpointNotFoundError, and InvalidArgumentError for a file.
    """
    if not isinstance(path, str | Path) or not str(path):
        raise InvalidArgumentError(f"`path` must be a folder or a hub id, got {shown(path)}.")
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InvalidArgumentError(f"`path` must be a folder or a hub id, got the file `{path}`.")
    name = str(path)
    if not _may_be_hub_id(name):
        raise CheckpointNotFoundError(f"There is no folder `{path}`.")
    # Imported here: a local folder needs no hub.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    progress("download", 0, 1, name)
    try:
        found = snapshot_download(
            name,
            revision=revision,
            local_files_only=local_files_only,
            allow_patterns=list(_WANTED),
            ignore_patterns=list(_UNWANTED),
        )
    except (OSError, HFValidationError) as err:  # every refusal of the hub is an OSError
        reason = str(err).strip().partition("\n")[0]
        raise CheckpointNotFoundError(
            f"There is no folder `{path}`, and as a hub id it could not be had: {reason}"
        ) from err
    progress("download", 1, 1, name)
    return Path(found)


def _may_be_hub_id(name: str) -> bool:
    """Whether `name` reads as `model` or `owner/model`, and is not meant as a path."""
    return not name.startswith((".", "/", "~")) and name.count("/") <= 1 and "\\" not in name
