"""Streams against a real worker: credit, turns, cancel, and errors of generators."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from marlin.worker import protocol
from tests.worker.wire_client import WireClient, ref

_SAMPLE = "tests.worker.sample_module"


def _start(client: WireClient, function: str, *args: object, credit: int = 0) -> int:
    return client.start("python.iterate", _SAMPLE, [function], list(args), credit=credit)


def _next(client: WireClient, stream: int) -> object:
    item = client.expect(protocol.Item)
    assert item.id == stream
    return item.value


def test_items_come_in_order_and_then_the_result(client: WireClient) -> None:
    assert list(client.items(_start(client, "count", 100, credit=200))) == list(range(100))
    stream = client.start("python.iterate", "builtins", ["range"], [3], credit=4)
    assert list(client.items(stream)) == [0, 1, 2]


def test_never_more_items_than_credit(client: WireClient) -> None:
    stream = _start(client, "count", 5)
    assert client.ping().queued == 1
    for expected in range(5):
        client.send({"type": "credit", "id": stream, "items": 1})
        assert _next(client, stream) == expected
        # Nothing more comes: the answer to another call is the next message.
        assert client.stats()["streams"] == 1
    # The end is found by asking for one more.
    client.send({"type": "credit", "id": stream, "items": 1})
    assert client.expect(protocol.Result).id == stream
    assert client.stats()["streams"] == 0


def test_calls_and_streams_take_turns(client: WireClient, tmp_path: Path) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    blocker = client.start("python.call", _SAMPLE, ["wait_on"], [fifo], {})
    with Path(fifo).open("w"):
        first = _start(client, "count", 3, credit=9)
        call = client.start("worker.stats")
        second = _start(client, "count", 3, credit=9)
        client.ping()
    ids = [blocker]
    client.finish(blocker)
    while len(ids) < 10:
        message = client.receive()
        assert isinstance(message, protocol.Item | protocol.Result)
        ids.append(message.id)
    turns = [blocker, first, call, second, first, second, first, second, first, second]
    assert ids == turns


def test_cancel_closes_the_generator(client: WireClient) -> None:
    closed = ref(client.call("python.get", _SAMPLE, ["closed"]))
    client.python(closed, "clear")
    stream = _start(client, "count", 10**9, credit=3)
    assert [_next(client, stream) for _ in range(3)] == [0, 1, 2]
    client.send({"type": "cancel", "id": stream})
    assert client.expect_error(stream).code == "cancelled"
    assert client.call("python.value", closed, []) == ["count"]


def test_cancel_ends_a_stream_that_has_credit(client: WireClient) -> None:
    stream = _start(client, "count", 10**9, credit=10**9)
    assert _next(client, stream) == 0
    client.send({"type": "cancel", "id": stream})
    while isinstance(message := client.receive(), protocol.Item):
        assert message.id == stream
    assert isinstance(message, protocol.ErrorReply)
    assert (message.id, message.error.code) == (stream, "cancelled")
    assert client.stats()["streams"] == 0


def test_an_error_of_the_generator_reaches_the_client(client: WireClient) -> None:
    stream = _start(client, "fail_after", 2, credit=9)
    assert [_next(client, stream) for _ in range(2)] == [0, 1]
    error = client.expect_error(stream)
    assert (error.code, error.type) == ("python_error", "builtins.ValueError")
    assert error.message == "the generator broke"
    assert "fail_after" in error.traceback


def test_a_generator_that_will_not_close_cannot_hold_its_stream(client: WireClient) -> None:
    stream = _start(client, "refuse_to_close", credit=1)
    assert _next(client, stream) == 1
    client.send({"type": "cancel", "id": stream})
    assert client.expect_error(stream).code == "cancelled"
    assert client.python("operator", "add", 2, 3) == 5


def test_items_and_the_result_come_by_value_or_by_handle(client: WireClient) -> None:
    stream = _start(client, "yield_object", credit=9)
    item = client.expect(protocol.Item)
    assert item.value.type == "builtins.object"
    assert client.finish(stream) == "summary"
    client.send({"type": "release", "handles": [item.value.id]})


def test_an_iterator_of_the_client_goes_on_where_it_was(client: WireClient) -> None:
    iterator = ref(client.python("itertools", "count"))
    for expected in ([0, 1], [2, 3]):
        stream = client.start("python.iterate", iterator, [], credit=2)
        assert [_next(client, stream) for _ in range(2)] == expected
        client.send({"type": "cancel", "id": stream})
        assert client.expect_error(stream).code == "cancelled"


@pytest.mark.parametrize(
    ("target", "path", "code"),
    [("math", ["pi"], "python_error"), ("no_such_module", [], "module_not_found")],
)
def test_what_cannot_be_iterated_is_an_error(
    client: WireClient, target: str, path: list[str], code: str
) -> None:
    stream = client.start("python.iterate", target, path, credit=1)
    assert client.expect_error(stream).code == code
