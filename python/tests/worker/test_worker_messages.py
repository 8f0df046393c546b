"""Handshake and malformed messages, against a real worker: typed errors, and it goes on."""

from __future__ import annotations

import pytest

from marlin.worker import protocol
from tests.worker.wire_client import WireClient, WorkerProcess, block, frame, ref

_HELLO = {"type": "hello", "protocol": [1, 0], "client": "test/1", "arena": False}


def test_welcomes_with_versions_and_limits(client: WireClient) -> None:
    welcome = client.welcome
    assert welcome is not None
    assert welcome.protocol == protocol.PROTOCOL_VERSION
    assert welcome.limits == protocol.DEFAULT_LIMITS
    assert welcome.arena is None
    assert len(bytes.fromhex(welcome.incarnation)) == 16
    assert welcome.worker.torch.split(".")[0].isdigit()


def test_a_newer_minor_version_is_answered_with_the_smaller(worker: WorkerProcess) -> None:
    with WireClient(worker.endpoint, hello=False) as client:
        client.send({**_HELLO, "protocol": [1, 7]})
        assert client.expect(protocol.Welcome).protocol == (1, 0)


def test_another_major_version_is_refused_with_both_named(worker: WorkerProcess) -> None:
    with WireClient(worker.endpoint, hello=False) as client:
        client.send({**_HELLO, "protocol": [2, 3]})
        error = client.expect_error()
        assert error.code == "version_mismatch"
        assert "1.0" in error.message
        assert "2.3" in error.message
        client.send(_HELLO)
        client.expect(protocol.Welcome)


@pytest.mark.parametrize(
    "message", [{"type": "call", "id": 1, "method": "worker.info"}, {"type": "bye"}, b"", b"\xc1"]
)
def test_nothing_is_served_before_hello(worker: WorkerProcess, message: object) -> None:
    with WireClient(worker.endpoint, hello=False) as client:
        client.send(message)
        assert client.expect_error().code == "protocol_violation"


def test_a_second_hello_is_refused(client: WireClient) -> None:
    client.send(_HELLO)
    assert client.expect_error().code == "protocol_violation"
    assert client.ping().queued == 0


def test_a_client_that_claims_memory_it_did_not_inherit_gets_none(worker: WorkerProcess) -> None:
    with WireClient(worker.endpoint, arena=True) as client:
        assert client.welcome is not None
        assert client.welcome.arena is None


@pytest.mark.parametrize(
    ("message", "code"),
    [
        pytest.param(b"", "protocol_violation", id="empty"),
        pytest.param(b"\xc1", "protocol_violation", id="reserved byte"),
        pytest.param(b"\x00", "protocol_violation", id="an integer"),
        pytest.param(b"\x81\xa4type", "protocol_violation", id="cut"),
        pytest.param(b"\x80", "protocol_violation", id="no type"),
        pytest.param({"type": "shutdown"}, "protocol_violation", id="unknown type"),
        pytest.param({"type": 1}, "protocol_violation", id="type is a number"),
        pytest.param({"type": "welcome"}, "protocol_violation", id="a message of workers"),
        pytest.param({"type": "cancel"}, "protocol_violation", id="missing field"),
        pytest.param({"type": "ping", "id": -1}, "protocol_violation", id="negative id"),
        pytest.param({"type": "ping", "id": True}, "protocol_violation", id="bool id"),
        pytest.param({"type": "ping", "id": 1.5}, "protocol_violation", id="float id"),
        pytest.param({"type": "ping", "id": 1, 2: 3}, "protocol_violation", id="integer key"),
        pytest.param({"type": "release", "handles": [1]}, "protocol_violation", id="handle"),
        pytest.param({"type": "release", "blocks": [[0, 0, 1]]}, "protocol_violation", id="block"),
        pytest.param({"type": "ping", "id": 1, "x": bytes(2**20)}, "message_too_large", id="1 MiB"),
        pytest.param(b"\x91" * 100_000, "message_too_large", id="deep"),
        pytest.param(b"\xdd\xff\xff\xff\xff" + bytes(70_000), "message_too_large", id="array"),
        pytest.param({"type": "ping", "id": 1, "x": [0] * 70_000}, "message_too_large", id="many"),
    ],
)
def test_a_malformed_message_gets_a_typed_error(
    client: WireClient, message: object, code: str
) -> None:
    client.send(message)
    assert client.expect_error().code == code
    assert client.python("operator", "add", 2, 3) == 5


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"args": 5}, "protocol_violation"),
        ({"kwargs": []}, "protocol_violation"),
        ({"kwargs": {1: 2}}, "protocol_violation"),
        ({"method": None}, "protocol_violation"),
        ({"credit": -1}, "protocol_violation"),
        ({"progress": 1}, "protocol_violation"),
        ({"args": [ref(10**6)]}, "unknown_handle"),
        ({"args": [frame("float32", [1])]}, "protocol_violation"),
        ({"args": [block("uint8", [1], "client", 0, 0, 0, 1)]}, "protocol_violation"),
        ({"method": "no.such"}, "unknown_method"),
    ],
)
def test_a_refused_call_is_answered_under_its_id(
    client: WireClient, fields: dict[str, object], code: str
) -> None:
    client.send({"type": "call", "id": 77, "method": "worker.info", **fields})
    assert client.expect_error(77).code == code
    assert client.ping().queued == 0


def test_too_many_frames_are_refused(client: WireClient) -> None:
    client.send({"type": "call", "id": 500, "method": "worker.stats"}, *[b"x"] * 65)
    assert client.expect_error(500).code == "message_too_large"
    client.send({"type": "call", "id": 501, "method": "worker.stats"}, *[b"x"] * 64)
    client.expect(protocol.Result)


def test_extra_fields_are_ignored(client: WireClient) -> None:
    client.send({"type": "ping", "id": 3, "sent_by": ["a newer minor version"]})
    assert client.expect(protocol.Pong).id == 3


def test_the_id_of_a_running_call_cannot_be_used_again(client: WireClient) -> None:
    running = client.start("python.iterate", "itertools", ["count"], [])
    client.send({"type": "call", "id": running, "method": "worker.stats"})
    assert client.expect_error().code == "protocol_violation"
    client.send({"type": "cancel", "id": running})
    assert client.expect_error(running).code == "cancelled"


def test_a_client_has_a_limit_of_calls(worker: WorkerProcess, client: WireClient) -> None:
    limit = protocol.DEFAULT_LIMITS.max_calls
    calls = [client.start("python.iterate", "itertools", ["count"], []) for _ in range(limit)]
    one_more = client.start("worker.stats")
    assert client.expect_error(one_more).code == "too_many_calls"
    with WireClient(worker.endpoint) as other:
        assert other.stats()["queued"] == 0
    assert client.ping().queued == limit
    for call in calls:
        client.send({"type": "cancel", "id": call})
        assert client.expect_error(call).code == "cancelled"
    assert client.stats()["queued"] == 0
