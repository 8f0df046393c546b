from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from marlin.errors import CheckpointNotFoundError, InvalidArgumentError
from marlin.model_source import find_folder
from tests.local_hub import LocalHub
from tests.tiny_model import write_tiny_model

# The hub's client reads its settings when it is imported, so it runs in a process of its own.
PROGRAM = """
import json, sys
from marlin.errors import CancelledError, MarlinError
from marlin.models import load_model

seen = []
loaded = load_model("me/tiny", progress=lambda *step: seen.append(step))
again = load_model("me/tiny", local_files_only=True)
found = {"info": loaded.info(), "again": again.info(), "phases": [step[0] for step in seen]}
found["last"] = {step[0]: step[1] == step[2] for step in seen}
for name in ("me/nothing", "not a name"):
    try:
        load_model(name)
    except MarlinError as error:
        found[name] = error.code

def cancel(*step):
    raise CancelledError("The call was cancelled.")

try:
    load_model("me/tiny", revision="other", progress=cancel)
except MarlinError as error:
    found["cancel"] = error.code
json.dump(found, sys.stdout)
"""


def _find(path: str | Path) -> Path:
    return find_folder(
        path, revision=None, local_files_only=True, progress=lambda *step: pytest.fail(str(step))
    )


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert _find(tmp_path) == tmp_path
    assert _find(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("path", ["./a", "/nowhere/at/all", "a/b/c", "~/nowhere-at-all", "a\\b"])
def test_what_reads_as_a_path_is_never_asked_of_a_hub(path: str) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"There is no folder `[^`]*`\.$"):
        _find(path)


@pytest.mark.parametrize("path", ["", 7, None])
def test_what_is_no_path_is_refused(path: object) -> None:
    with pytest.raises(InvalidArgumentError, match="`path`"):
        _find(path)  # type: ignore[arg-type]


def test_a_hub_id_is_fetched_once_with_progress_and_without_pickles_or_code(
    tmp_path: Path,
) -> None:
    folder = write_tiny_model(tmp_path / "tiny")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling_tiny.py").write_text("raise SystemExit")
    with LocalHub("me/tiny", folder) as hub:
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
        )
    assert result.returncode == 0, result.stderr
    assert "%|" not in result.stderr
    found = json.loads(result.stdout)
    assert found["info"]["parameters"] == 328_448
    assert found["again"] == found["info"]
    assert {"files", "load"} <= set(found["phases"])
    assert all(found["last"].values())
    assert found["me/nothing"] == "checkpoint_not_found"
    assert found["not a name"] == "checkpoint_not_found"
    assert found["cancel"] == "cancelled"
    unwanted = {"pytorch_model.bin", "modeling_tiny.py"}
    assert hub.fetched == {file.name for file in folder.iterdir()} - unwanted
