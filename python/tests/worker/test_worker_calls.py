"""Calls against a real worker: values, handles, Python errors, order, cancel, isolation."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from marlin.worker import protocol
from tests.worker.wire_client import CallError, Ref, WireClient, WorkerProcess, frame, ref

_SAMPLE = "tests.worker.sample_module"
_NOTHING = {"handles": 0, "blocks": 0, "views": 0, "queued": 0, "streams": 0}


def _error(client: WireClient, target: object, path: str, *args: object) -> protocol.ErrorMap:
    with pytest.raises(CallError) as caught:
        client.python(target, path, *args)
    return caught.value.error


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    """A pipe on which foreign code waits: opening it to write waits until that code has begun."""
    os.mkfifo(tmp_path / "fifo")
    return str(tmp_path / "fifo")


def test_scalars_come_by_value_and_the_rest_by_handle(client: WireClient) -> None:
    assert client.python("builtins", "int", "12") == 12
    assert client.python("builtins", "bytes", 3) == b"\0\0\0"
    assert client.call("python.get", "math", ["pi"]) == pytest.approx(3.14159265)
    assert client.python("builtins", "print", "to stdout") is None
    for path, kind, type_name in (
        ("dict", "object", "builtins.dict"),
        ("iter", "iterator", "builtins.list_iterator"),
        ("object", "object", "builtins.object"),
    ):
        got = client.python("builtins", path, *([[1]] if path == "iter" else []))
        assert (got.kind, got.type, got.meta) == (kind, type_name, {})
    assert client.python("builtins", "pow", 2, 64).type == "builtins.int"
    assert client.python("builtins", "bytes", 65537).type == "builtins.bytes"
    assert client.call("python.get", "torch", ["nn"]).kind == "module"
    assert client.call("python.get", "torch", ["nn", "Linear"]).kind == "callable"
    half = ref(client.call("python.get", "torch", ["half"]))
    tensor = client.python("torch", "zeros", 2, 3, dtype=half)
    assert tensor.kind == "tensor"
    assert tensor.meta == {"dtype": "float16", "shape": [2, 3], "device": "cpu"}


def test_handles_are_targets_and_arguments(client: WireClient) -> None:
    numbers = client.python("builtins", "list", [3, 1, 2])
    assert client.python(ref(numbers), "sort") is None
    assert client.call("python.value", ref(numbers), []) == [1, 2, 3]
    assert client.python("builtins", "sum", ref(numbers)) == 6
    assert (
        client.call("python.call", ref(client.call("python.get", "math", ["sqrt"])), [], [4.0], {})
        == 2
    )


def test_tensors_arrive_and_leave(client: WireClient) -> None:
    data = struct.pack("<4f", 1, 2, 3, 4)
    total = client.python("torch", "sum", frame("float32", [2, 2]), frames=(data,))
    assert client.python(ref(total), "item") == 10
    value = client.call("python.value", ref(total), [])
    assert (value.dtype, value.shape, value.bytes) == ("float32", [], struct.pack("<f", 10))


def test_large_tensors_travel_in_several_frames(client: WireClient) -> None:
    first, second = bytes(range(256)) * 4096, bytes(2**20)
    pair = [frame("uint8", [2**20], 1), frame("float32", [2**18], 2)]
    kept = ref(client.python("builtins", "list", pair, frames=(first, second)))
    value = client.call("python.value", kept, [])
    assert [tensor.bytes for tensor in value] == [first, second]
    assert [tensor.dtype for tensor in value] == ["uint8", "float32"]
    # Frames are memory of their own: torch may write to them.
    client.python(ref(client.python("operator", "getitem", kept, 0)), "zero_")
    assert client.call("python.value", kept, [])[0].bytes == second


def test_python_errors_keep_type_and_traceback(client: WireClient) -> None:
    error = _error(client, "json", "loads", "{")
    assert (error.code, error.type) == ("python_error", "json.decoder.JSONDecodeError")
    assert "Expecting property name" in error.message
    assert error.traceback.startswith("Traceback (most recent call last):")
    assert "json/decoder.py" in error.traceback
    # The frames of the worker itself tell a user nothing.
    assert "executor.py" not in error.traceback


@pytest.mark.parametrize(
    ("function", "code", "type_name"),
    [
        ("exit_now", "python_error", "builtins.SystemExit"),
        ("interrupt", "python_error", "builtins.KeyboardInterrupt"),
        ("run_out_of_memory", "out_of_memory", "builtins.MemoryError"),
        ("allocate_too_much", "out_of_memory", "builtins.RuntimeError"),
        ("raise_silent", "python_error", "tests.worker.sample_module.SilentError"),
        ("import_missing", "python_error", "builtins.ModuleNotFoundError"),
    ],
)
def test_no_exception_ends_the_worker(
    client: WireClient, function: str, code: str, type_name: str
) -> None:
    error = _error(client, _SAMPLE, function)
    assert (error.code, error.type) == (code, type_name)
    assert error.message
    assert client.python("operator", "add", 2, 3) == 5


def test_errors_have_a_bounded_size(client: WireClient) -> None:
    error = _error(client, _SAMPLE, "raise_long", 100_000)
    assert len(error.message) <= 8192
    assert len(error.traceback.encode()) <= 16384
    assert error.traceback.rstrip().endswith("x")
    assert _error(client, _SAMPLE, "recurse", 0).type == "builtins.RecursionError"


@pytest.mark.parametrize(
    ("method", "args", "code", "sentence"),
    [
        ("python.get", ["no_such_module", ["x"]], "module_not_found", "`no_such_module`"),
        ("python.get", ["torch.no_such", []], "module_not_found", "`torch.no_such`"),
        ("python.get", ["math", ["no_such"]], "python_error", "no attribute 'no_such'"),
        ("python.get", ["math", [""]], "invalid_argument", "`path` must hold names"),
        ("python.get", ["math", ["a.b"]], "invalid_argument", "`path` must hold names"),
        ("python.get", ["", []], "invalid_argument", "`target` must hold names"),
        ("python.get", ["..os", []], "invalid_argument", "`target` must hold names"),
        ("python.get", ["math", ["__loader__"]], "invalid_argument", "two underscores"),
        ("python.get", ["__main__", []], "invalid_argument", "two underscores"),
        ("python.get", ["math"], "invalid_argument", "`python.get` is missing"),
        ("python.get", ["math", [], 1], "invalid_argument", "`python.get` takes|too many"),
        ("python.get", ["math", "pi"], "invalid_argument", "`path` of `python.get` must be list"),
        ("python.get", ["math", [1]], "invalid_argument", "`path` of `python.get` must be list"),
        ("python.value", ["math", ["sin"]], "not_serializable", "builtin_function_or_method"),
        ("tensor.empty", ["float8", [1]], "invalid_argument", "`dtype` must be one of"),
        ("tensor.empty", ["float32", [-1]], "invalid_argument", "`shape` must be at most 8"),
        ("tensor.empty", ["float32", [1] * 9], "invalid_argument", "`shape` must be at most 8"),
        ("tensor.empty", ["float32", [2**62]], "invalid_argument", "63 bits"),
        ("tensor.empty", ["float32", [0, 2**63]], "invalid_argument", "63 bits"),
        ("tensor.empty", ["float32", 4], "invalid_argument", "`shape` of `tensor.empty`"),
    ],
)
def test_wrong_arguments_are_named(
    client: WireClient, method: str, args: list[object], code: str, sentence: str
) -> None:
    with pytest.raises(CallError, match=sentence) as caught:
        client.call(method, *args)
    assert caught.value.code == code


def test_unknown_keywords_are_named(client: WireClient) -> None:
    with pytest.raises(CallError, match="unexpected keyword argument 'nmae'") as caught:
        client.call("python.get", "math", ["pi"], nmae=1)
    assert caught.value.code == "invalid_argument"


def test_calls_run_in_order_of_arrival(client: WireClient) -> None:
    log = ref(client.python("builtins", "list"))
    calls = [client.start("python.call", log, ["append"], [n], {}) for n in range(50)]
    for call in calls:
        client.finish(call)
    assert client.call("python.value", log, []) == list(range(50))


def test_a_forked_copy_of_the_worker_ends_with_its_call(client: WireClient) -> None:
    child = client.python("os", "fork")
    # Returns when the child is gone; a copy that served on would never be.
    waited = ref(client.python("os", "waitpid", child, 0))
    assert client.call("python.value", waited, []) == [child, 0]
    assert client.python("operator", "add", 2, 3) == 5


def test_ping_is_answered_while_python_runs(client: WireClient, fifo: str) -> None:
    running = client.start("python.call", _SAMPLE, ["wait_on"], [fifo], {})
    queued = client.start("worker.stats")
    with Path(fifo).open("w") as pipe:
        pong = client.ping()
        assert (pong.busy, pong.queued) == (running, 1)
        pipe.write("done")
    assert client.finish(running) == "done"
    assert client.finish(queued)["queued"] == 0
    assert client.ping().busy is None


def test_a_queued_call_is_cancelled_at_once_and_never_runs(client: WireClient, fifo: str) -> None:
    log = ref(client.python("builtins", "list"))
    running = client.start("python.call", _SAMPLE, ["wait_on"], [fifo], {})
    queued = client.start("python.call", log, ["append"], [1], {})
    with Path(fifo).open("w") as pipe:
        client.send({"type": "cancel", "id": queued})
        assert client.expect_error(queued).code == "cancelled"
        client.send({"type": "cancel", "id": queued})
        pipe.write("done")
    assert client.finish(running) == "done"
    assert client.call("python.value", log, []) == []


def test_a_running_call_ends_as_cancelled_and_its_value_is_dropped(
    client: WireClient, fifo: str
) -> None:
    before = client.stats()
    running = client.start("python.call", _SAMPLE, ["wait_on"], [fifo], {})
    with Path(fifo).open("w"):
        client.send({"type": "cancel", "id": running})
        client.ping()
    assert client.expect_error(running).code == "cancelled"
    client.send({"type": "cancel", "id": running})
    client.send({"type": "credit", "id": running, "items": 1})
    assert client.stats() == before


def test_released_handles_die_in_the_thread_of_torch(client: WireClient) -> None:
    died_in = ref(client.call("python.get", _SAMPLE, ["died_in"]))
    client.python(died_in, "clear")
    mortal = client.python(_SAMPLE, "Mortal")
    again = client.call("python.get", ref(mortal), [])
    client.send({"type": "release", "handles": [mortal.id]})
    assert client.call("python.value", died_in, []) == []
    client.send({"type": "release", "handles": [again.id]})
    assert client.call("python.value", died_in, []) == ["MainThread"]
    with pytest.raises(CallError) as caught:
        client.call("python.get", ref(mortal), [])
    assert caught.value.code == "unknown_handle"


def test_stats_return_to_zero(client: WireClient) -> None:
    handles = [client.python("builtins", "object") for _ in range(5)]
    assert client.stats() == {**_NOTHING, "handles": 5}
    client.send({"type": "release", "handles": [handle.id for handle in handles]})
    assert client.stats() == _NOTHING


def test_clients_share_nothing(worker: WorkerProcess, client: WireClient) -> None:
    with WireClient(worker.endpoint) as other:
        mine = client.python("builtins", "list")
        for target in (ref(mine), ref(Ref(mine.id + 1, "", "", {}))):
            with pytest.raises(CallError) as caught:
                other.call("python.value", target, [])
            assert caught.value.code == "unknown_handle"
        other.send({"type": "release", "handles": [mine.id]})
        assert other.expect_error().code == "protocol_violation"
        stream = client.start("python.iterate", "itertools", ["count"], [])
        other.send({"type": "cancel", "id": stream})
        other.send({"type": "bye"})
        other.expect(protocol.Bye)
        assert client.ping().queued == 1
        client.send({"type": "cancel", "id": stream})
        assert client.expect_error(stream).code == "cancelled"
        assert client.call("python.value", ref(mine), []) == []


def test_bye_frees_handles_and_cancels_calls(worker: WorkerProcess, client: WireClient) -> None:
    died_in = ref(client.call("python.get", _SAMPLE, ["died_in"]))
    client.python(died_in, "clear")
    with WireClient(worker.endpoint) as leaver:
        leaver.python(_SAMPLE, "Mortal")
        leaver.start("python.iterate", _SAMPLE, ["count"], [9])
        leaver.send({"type": "bye"})
        leaver.expect(protocol.Bye)
        assert client.call("python.value", died_in, []) == ["MainThread"]
        leaver.send({"type": "ping", "id": 1})
        assert leaver.expect_error().code == "protocol_violation"


def test_what_a_vanished_client_held_is_freed(worker: WorkerProcess, client: WireClient) -> None:
    died_in = ref(client.call("python.get", _SAMPLE, ["died_in"]))
    client.python(died_in, "clear")
    leaver = WireClient(worker.endpoint)
    leaver.python(_SAMPLE, "Mortal")
    leaver.close()
    # The worker notices within its probes; each call here is a look.
    for _ in range(10_000):
        if client.call("python.value", died_in, []):
            break
    assert client.call("python.value", died_in, []) == ["MainThread"]


def test_info_tells_versions_kernel_and_limits(client: WireClient) -> None:
    info = client.call("worker.info")
    assert info["protocol"] == [1, 0]
    assert info["limits"]["max_calls"] == 1024
    assert info["threads"] == 1
    assert "kernel" in info["kernel"] or "code" in info["kernel"]
    assert client.call("worker.stats")["rss_bytes"] > 2**20
