"""endpoint.py: what may be bound, and what is left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from marlin.errors import BindRefusedError
from marlin.worker.endpoint import check_endpoint, remove_socket


@pytest.fixture
def private(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://*:7777",
        "tcp://0.0.0.0:7777",
        "tcp://[::]:7777",
        "tcp://192.168.0.1:7777",
        "tcp://localhost:7777",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:*",
        "tcp://127.0.0.1:7777;eth0",
        "tcp://127.0.0.1:7777\n",
        "inproc://x",
        "ipc://*",
        "ipc://@abstract",
        "ipc://relative/s",
        "ipc:///no/such/directory/s",
        "ipc:///tmp/s",
        "",
    ],
)
def test_refuses_what_others_could_reach(endpoint: str) -> None:
    with pytest.raises(BindRefusedError, match="`--endpoint` must"):
        check_endpoint(endpoint)


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:7777", "tcp://[::1]:1"])
def test_accepts_loopback(endpoint: str) -> None:
    check_endpoint(endpoint)


def test_accepts_a_private_directory_only(private: Path) -> None:
    check_endpoint(f"ipc://{private}/s")
    private.chmod(0o750)
    with pytest.raises(BindRefusedError, match=r"mode 0700, got .* mode 0750"):
        check_endpoint(f"ipc://{private}/s")


def test_refuses_to_take_a_path_from_another_worker(private: Path) -> None:
    (private / "s").touch()
    with pytest.raises(BindRefusedError, match="must not exist yet"):
        check_endpoint(f"ipc://{private}/s")
    (private / "link").symlink_to("nowhere")
    with pytest.raises(BindRefusedError, match="must not exist yet"):
        check_endpoint(f"ipc://{private}/link")


def test_counts_the_bytes_of_a_path(private: Path) -> None:
    space = 107 - len(os.fsencode(private)) - 1
    check_endpoint(f"ipc://{private}/{'x' * space}")
    with pytest.raises(BindRefusedError, match="at most 107 bytes"):
        check_endpoint(f"ipc://{private}/{'x' * (space - 1)}é")


def test_removes_the_socket_and_an_empty_directory_only(private: Path) -> None:
    inner = private / "d"
    inner.mkdir(mode=0o700)
    (inner / "s").touch()
    (inner / "other").touch()
    remove_socket(f"ipc://{inner}/s")
    assert [path.name for path in inner.iterdir()] == ["other"]
    (inner / "other").unlink()
    remove_socket(f"ipc://{inner}/s")
    assert not inner.exists()
    remove_socket(f"ipc://{inner}/s")
    remove_socket("tcp://127.0.0.1:7777")
