"""The life of the worker process: how it starts, refuses to, ends, and what it leaves behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from marlin.worker import protocol
from marlin.worker.__main__ import main
from tests.worker.wire_client import WireClient, WorkerProcess, ref

_SOURCE = Path(__file__).parents[2]
_SAMPLE = "tests.worker.sample_module"
_PATIENCE = 60


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "marlin.worker", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        env={**os.environ, "PYTHONPATH": str(_SOURCE)},
        check=False,
    )


def test_bye_of_the_spawner_ends_the_worker() -> None:
    with WorkerProcess() as worker:
        with WireClient(worker.endpoint) as guest, WireClient(worker.endpoint, arena=True) as owner:
            guest.send({"type": "bye"})
            guest.expect(protocol.Bye)
            # What is in flight keeps nobody.
            owner.start("python.iterate", "itertools", ["count"], [])
            owner.send({"type": "bye"})
            owner.expect(protocol.Bye)
        assert worker.process.wait(_PATIENCE) == 0
        assert not worker.directory.exists()


def test_the_end_of_stdin_ends_the_worker_and_tells_its_clients() -> None:
    with WorkerProcess() as worker, WireClient(worker.endpoint) as client:
        stream = client.start("python.iterate", "itertools", ["count"], [])
        client.ping()
        code, out, _ = worker.stop()
        assert (code, out) == (0, "")
        assert client.expect_error(stream).code == "connection_closed"
        client.expect(protocol.Bye)
        assert not worker.directory.exists()


def test_sigterm_ends_the_worker_even_while_python_is_stuck(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with WorkerProcess() as worker, WireClient(worker.endpoint) as client:
        call = client.start("python.call", _SAMPLE, ["wait_on"], [str(tmp_path / "fifo")], {})
        with (tmp_path / "fifo").open("w"):
            worker.process.send_signal(signal.SIGTERM)
            assert client.expect_error(call).code == "connection_closed"
            assert worker.process.wait(_PATIENCE) == 0
        assert not worker.directory.exists()


def test_a_spawned_worker_ignores_the_interrupt_of_the_terminal() -> None:
    with WorkerProcess() as worker, WireClient(worker.endpoint) as client:
        worker.process.send_signal(signal.SIGINT)
        assert client.python("operator", "add", 2, 3) == 5


def test_stdout_belongs_to_user_code_and_stdin_is_empty() -> None:
    with WorkerProcess() as worker:
        with WireClient(worker.endpoint) as client:
            client.python(_SAMPLE, "print_to_stdout", '{"type":"bye"}\x00\xff')
            stdin = ref(client.call("python.get", "sys", ["stdin"]))
            assert client.python(stdin, "read") == ""
        code, out, err = worker.stop()
        assert (code, out) == (0, '{"type":"bye"}\x00\xff\n')
        assert f"Listening on {worker.endpoint}" in err


def test_a_crash_leaves_a_python_traceback_on_stderr() -> None:
    with WorkerProcess() as worker, WireClient(worker.endpoint) as client:
        client.start("python.call", "os", ["abort"], [], {})
        assert worker.process.wait(_PATIENCE) == -signal.SIGABRT
        _, _, err = worker.stop()
        assert "Fatal Python error: Aborted" in err


_PARENT = """
import sys
from tests.worker.wire_client import WireClient, WorkerProcess
worker = WorkerProcess()
client = WireClient(worker.endpoint, arena=True)
if sys.argv[1] == "busy":
    client.start("python.call", "tests.worker.sample_module", ["wait_on"], [sys.argv[2]], {})
    open(sys.argv[2], "w")
print(worker.process.pid, worker.directory, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_the_worker_dies_with_a_killed_parent(tmp_path: Path, state: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, state, str(tmp_path / "fifo")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(_SOURCE)},
    )
    assert parent.stdout is not None
    pid, directory = parent.stdout.readline().decode().split()
    worker = os.pidfd_open(int(pid))
    shared = set(Path("/dev/shm").iterdir())
    parent.kill()
    parent.communicate()
    ended, _, _ = select.select([worker], [], [], _PATIENCE)
    os.close(worker)
    assert ended, "the worker has outlived its parent"
    assert set(Path("/dev/shm").iterdir()) <= shared
    # The kernel does not let a killed worker tidy up; a client removes the socket once connected.
    for path in (Path(directory) / "s", Path(directory)):
        if path.exists():
            path.unlink() if path.is_socket() else path.rmdir()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--endpoint", "ipc:///x/s", "--arena-fd", "3"],
        ["--endpoint", "ipc:///x/s", "--threads", "0"],
    ],
)
def test_refuses_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_refuses_to_listen_beyond_this_machine() -> None:
    ended = _run("--endpoint", "tcp://0.0.0.0:7777")
    assert ended.returncode == 3
    assert "there is no authentication" in ended.stderr
    assert ended.stdout == ""


def test_refuses_a_descriptor_that_is_no_memory(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    arena = ["--arena-fd", "2", "--arena-bytes", "64", "--arena-client-bytes", "0"]
    ended = _run("--endpoint", f"ipc://{tmp_path}/s", *arena)
    assert ended.returncode == 4
    assert "`--arena-bytes` must be the size" in ended.stderr
