"""The shared memory end to end: the test is the client that owns the other half."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from marlin.worker import protocol
from tests.worker.wire_client import CallError, WireClient, WorkerProcess, block, ref

_BYTES = 1 << 20
_CLIENT_BYTES = 1 << 19
_SAMPLE = "tests.worker.sample_module"


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[WorkerProcess, WireClient]]:
    with (
        WorkerProcess(_BYTES, _CLIENT_BYTES) as worker,
        WireClient(worker.endpoint, arena=True) as client,
    ):
        yield worker, client
        assert client.stats() == {"handles": 0, "blocks": 0, "views": 0, "queued": 0, "streams": 0}
        client.send({"type": "bye"})
        client.expect(protocol.Bye)
        assert worker.process.wait(60) == 0


@pytest.fixture
def sharer(shared: tuple[WorkerProcess, WireClient]) -> WireClient:
    """A test gives back what it holds; in the end `shared` checks that nothing is left."""
    client = shared[1]
    client.released.clear()
    return client


@pytest.fixture
def memory(shared: tuple[WorkerProcess, WireClient]) -> memoryview:
    assert shared[0].memory is not None
    return memoryview(shared[0].memory)


def _free(client: WireClient, *handles: object) -> None:
    client.send({"type": "release", "handles": [getattr(handle, "id", 0) for handle in handles]})


def test_welcome_tells_the_partitions(sharer: WireClient) -> None:
    assert sharer.welcome is not None
    assert sharer.welcome.arena == protocol.ArenaInfo(_BYTES, _CLIENT_BYTES)


def test_only_one_client_has_the_memory(shared: tuple[WorkerProcess, WireClient]) -> None:
    with WireClient(shared[0].endpoint, arena=True) as other:
        assert other.welcome is not None
        assert other.welcome.arena is None
        call = other.start("python.get", block("uint8", [1], "client", 0, 0, 0, 1), [])
        assert other.expect_error(call).code == "protocol_violation"


def test_python_writes_into_memory_of_the_client(sharer: WireClient, memory: memoryview) -> None:
    memory[64:80] = struct.pack("<4f", 1, 2, 3, 4)
    tensor = block("float32", [4], "client", 0, 0, 64, 16)
    result = sharer.python("torch", "neg", tensor, out=tensor)
    assert memory[64:80] == struct.pack("<4f", -1, -2, -3, -4)
    # The handle is on the very tensor that was passed, so one of the two references stays.
    sharer.ping()
    assert sharer.released == [(0, 0, 1)]
    _free(sharer, result)
    # The handle dies in the executor, so a call later; the release leaves before a pong.
    sharer.python("operator", "add", 1, 1)
    sharer.ping()
    assert sharer.released == [(0, 0, 1), (0, 0, 1)]


def test_a_reply_gives_the_references_of_its_call_back(sharer: WireClient) -> None:
    tensor = block("uint8", [64], "client", 9, 4, 0, 64)
    control = {"type": "call", "method": "python.call"}
    sharer.send({**control, "id": 10**6, "args": ["torch", ["numel"], [tensor], {}]})
    assert sharer.expect(protocol.Result).blocks == [(9, 4, 1)]
    sharer.send({**control, "id": 10**6 + 1, "args": ["torch", ["no_such"], [tensor, tensor], {}]})
    assert sharer.expect(protocol.ErrorReply).blocks == [(9, 4, 2)]
    # Kept by the result, so that it stays.
    sharer.send({**control, "id": 10**6 + 2, "args": ["builtins", ["list"], [[tensor]], {}]})
    result = sharer.expect(protocol.Result)
    assert result.blocks == []
    _free(sharer, result.value)
    assert sharer.stats()["views"] == 0


def test_a_refused_call_gives_its_references_back(sharer: WireClient) -> None:
    tensor = block("uint8", [64], "client", 9, 4, 0, 64)
    call = sharer.start("python.call", ref(10**9), [], [tensor, [tensor]], {})
    assert sharer.expect_error(call).code == "unknown_handle"
    sharer.ping()
    assert sharer.released == [(9, 4, 2)]


def test_a_failed_and_a_cancelled_call_give_their_references_back(sharer: WireClient) -> None:
    tensor = block("uint8", [64], "client", 9, 4, 0, 64)
    with pytest.raises(CallError):
        sharer.python("torch", "no_such", tensor)
    stream = sharer.start("python.iterate", "itertools", ["repeat"], [tensor])
    sharer.send({"type": "cancel", "id": stream})
    assert sharer.expect_error(stream).code == "cancelled"
    assert sharer.stats()["views"] == 0
    sharer.ping()
    assert sum(count for _, _, count in sharer.released) == 2


def test_a_result_in_memory_of_the_worker(sharer: WireClient, memory: memoryview) -> None:
    handle = sharer.call("tensor.empty", "int32", [4, 256])
    assert handle.meta == {"dtype": "int32", "shape": [4, 256], "device": "cpu"}
    sharer.send({"type": "release", "handles": [sharer.python(ref(handle), "fill_", 7).id]})
    value = sharer.call("python.value", ref(handle), [])
    kind, owner, name, generation, offset, nbytes = value.storage
    assert (kind, owner, nbytes) == ("block", "worker", 4096)
    assert offset >= _CLIENT_BYTES
    assert offset % 64 == 0
    assert memory[offset : offset + nbytes] == struct.pack("<i", 7) * 1024
    # The client may write there, and name the block in its turn.
    memory[offset : offset + 4] = struct.pack("<i", 100)
    _free(sharer, handle)
    same = block("int32", [1024], "worker", name, generation, offset, nbytes)
    total = sharer.python("torch", "sum", same)
    assert sharer.python(ref(total), "item") == 7 * 1023 + 100
    _free(sharer, total)
    assert sharer.stats()["blocks"] == 1
    sharer.send({"type": "release", "blocks": [[name, generation, 1]]})
    assert sharer.stats()["blocks"] == 0
    for stale in (same, block("int32", [1024], "worker", name, generation + 1, offset, nbytes)):
        call = sharer.start("python.get", stale, [])
        assert sharer.expect_error(call).code == "stale_tensor"
    sharer.send({"type": "release", "blocks": [[name, generation, 1]]})
    assert sharer.expect_error().code == "stale_tensor"


def test_a_large_result_is_copied_there_once(sharer: WireClient, memory: memoryview) -> None:
    ones = sharer.python("torch", "ones", 2048)
    value = sharer.call("python.value", ref(ones), [])
    _, owner, name, generation, offset, nbytes = value.storage
    assert owner == "worker"
    assert memory[offset : offset + nbytes] == struct.pack("<f", 1) * 2048
    sharer.send({"type": "release", "handles": [ones.id], "blocks": [[name, generation, 1]]})
    assert sharer.stats()["blocks"] == 0


def test_a_full_partition_is_an_error_with_sizes(sharer: WireClient) -> None:
    half = (_BYTES - _CLIENT_BYTES) // 2
    first = sharer.call("tensor.empty", "uint8", [half])
    second = sharer.call("tensor.empty", "uint8", [half - 64])
    with pytest.raises(CallError) as caught:
        sharer.call("tensor.empty", "uint8", [65])
    assert caught.value.code == "arena_full"
    assert caught.value.error.details == {
        "requested": 65,
        "largest_free": 64,
        "partition": "worker",
    }
    ones = sharer.python("torch", "ones", 2048)
    with pytest.raises(CallError) as caught:
        sharer.call("python.value", ref(ones), [])
    assert caught.value.code == "arena_full"
    _free(sharer, first, second, ones)
    third = sharer.call("tensor.empty", "uint8", [2 * half])
    _free(sharer, third)
    assert sharer.stats()["blocks"] == 0
