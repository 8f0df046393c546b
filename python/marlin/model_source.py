"""Where a model lies: a local folder, or a hub id that is fetched into the local cache.

Knows no file format.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

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

    progress: called with ("download", bytes done, bytes in all, id) and ("files", done, in all, id)
        while a hub is asked, in the threads that download; what it raises ends that.

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

    try:
        found = snapshot_download(
            name,
            revision=revision,
            local_files_only=local_files_only,
            allow_patterns=list(_WANTED),
            ignore_patterns=list(_UNWANTED),
            tqdm_class=_reporting_bar(name, progress),
        )
    except (OSError, HFValidationError) as err:  # every refusal of the hub is an OSError
        reason = str(err).strip().partition("\n")[0]
        raise CheckpointNotFoundError(
            f"There is no folder `{path}`, and as a hub id it could not be had: {reason}"
        ) from err
    return Path(found)


def _reporting_bar(name: str, progress: Callable[[str, int, int, str], None]) -> type[Any]:
    """A class of bars for the hub's client that draw nothing and report what they count."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class ReportingBar(tqdm):  # type: ignore[misc]  # untyped
        def __init__(self, *args: object, **kwargs: Any) -> None:  # noqa: ANN401
            self._phase = "download" if kwargs.get("unit") == "B" else "files"
            kwargs.pop("name", None)  # of the hub's own class of bars
            super().__init__(*args, **{**kwargs, "file": io.StringIO(), "disable": False})

        def display(self, *args: object, **kwargs: object) -> None:
            return

        def update(self, n: float | None = 1) -> bool | None:
            drawn: bool | None = super().update(n)
            progress(self._phase, int(self.n), int(self.total or 0), name)
            return drawn

    return ReportingBar


def _may_be_hub_id(name: str) -> bool:
    """Whether `name` reads as `model` or `owner/model`, and is not meant as a path."""
    return not name.startswith((".", "/", "~")) and name.count("/") <= 1 and "\\" not in name
