"""protocol.py: the exact bytes of every message, and what a decoder refuses."""

from __future__ import annotations

import msgspec
import pytest

from marlin.worker import protocol
from marlin.worker.protocol import ClientMessage, WorkerMessage


def _keep(code: int, payload: memoryview) -> object:
    return msgspec.msgpack.Ext(code, bytes(payload))


_LIMITS = (
    b"\x86\xb1max_control_bytes\xce\x00\x10\x00\x00\xa9max_depth\x20\xacmax_elements\xce\x00\x01"
    b"\x00\x00\xaamax_frames\x40\xafmax_frame_bytes\xce\x10\x00\x00\x00\xa9max_calls\xcd\x04\x00"
)

_WORKER_MESSAGES: list[tuple[WorkerMessage, bytes]] = [
    (
        protocol.Welcome(
            (1, 0),
            "ab",
            protocol.WorkerInfo(1, "3.10", "2.10", "0.1", "linux-x86_64"),
            protocol.DEFAULT_LIMITS,
            None,
        ),
        b"\x86\xa4type\xa7welcome\xa8protocol\x92\x01\x00\xabincarnation\xa2ab\xa6worker\x85"
        b"\xa3pid\x01\xa6python\xa43.10\xa5torch\xa42.10\xa6marlin\xa30.1"
        b"\xa8platform\xaclinux-x86_64\xa6limits" + _LIMITS + b"\xa5arena\xc0",
    ),
    (protocol.Result(1), b"\x82\xa4type\xa6result\xa2id\x01"),
    (protocol.Result(300, -1), b"\x83\xa4type\xa6result\xa2id\xcd\x01\x2c\xa5value\xff"),
    (
        protocol.Result(1, None, [(4, 0, 2)]),
        b"\x83\xa4type\xa6result\xa2id\x01\xa6blocks\x91\x93\x04\x00\x02",
    ),
    (protocol.Item(1, 0, None), b"\x84\xa4type\xa4item\xa2id\x01\xa3seq\x00\xa5value\xc0"),
    (
        protocol.ErrorReply(None, protocol.ErrorMap("internal", "m")),
        b"\x83\xa4type\xa5error\xa2id\xc0\xa5error\x85\xa4code\xa8internal\xa7message\xa1m"
        b"\xa4type\xa0\xa9traceback\xa0\xa7details\x80",
    ),
    (
        protocol.Progress(2, protocol.ProgressData("load", 1, 2)),
        b"\x83\xa4type\xa8progress\xa2id\x02\xa4data\x83\xa5phase\xa4load\xa4done\x01\xa5total\x02",
    ),
    (protocol.Pong(3, None, 0), b"\x84\xa4type\xa4pong\xa2id\x03\xa4busy\xc0\xa6queued\x00"),
    (
        protocol.Release(blocks=[(1, 2, 3)]),
        b"\x82\xa4type\xa7release\xa6blocks\x91\x93\x01\x02\x03",
    ),
    (protocol.Release(), b"\x81\xa4type\xa7release"),
    (protocol.Bye(), b"\x81\xa4type\xa3bye"),
]

_CLIENT_MESSAGES: list[tuple[ClientMessage, bytes]] = [
    (
        protocol.Hello((1, 0), "c", True),
        b"\x84\xa4type\xa5hello\xa8protocol\x92\x01\x00\xa6client\xa1c\xa5arena\xc3",
    ),
    (protocol.Call(1, "m"), b"\x83\xa4type\xa4call\xa2id\x01\xa6method\xa1m"),
    (
        protocol.Call(2**63, "m", [None, 1.5], {"k": b"\x00"}, 70_000, True),
        b"\x87\xa4type\xa4call\xa2id\xcf\x80\x00\x00\x00\x00\x00\x00\x00\xa6method\xa1m"
        b"\xa4args\x92\xc0\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00\xa6kwargs\x81\xa1k\xc4\x01\x00"
        b"\xa6credit\xce\x00\x01\x11\x70\xa8progress\xc3",
    ),
    (protocol.Credit(1, 2), b"\x83\xa4type\xa6credit\xa2id\x01\xa5items\x02"),
    (protocol.Cancel(1), b"\x82\xa4type\xa6cancel\xa2id\x01"),
    (protocol.Release([1, 2]), b"\x82\xa4type\xa7release\xa7handles\x92\x01\x02"),
    (protocol.Ping(1), b"\x82\xa4type\xa4ping\xa2id\x01"),
    (protocol.Bye(), b"\x81\xa4type\xa3bye"),
]


@pytest.mark.parametrize(("message", "data"), _WORKER_MESSAGES)
def test_the_bytes_of_what_workers_send(message: WorkerMessage, data: bytes) -> None:
    assert protocol.encode(message) == data
    assert protocol.worker_decoder(_keep).decode(data) == message


@pytest.mark.parametrize(("message", "data"), _CLIENT_MESSAGES)
def test_the_bytes_of_what_clients_send(message: ClientMessage, data: bytes) -> None:
    assert protocol.encode(message) == data
    assert protocol.client_decoder(_keep).decode(data) == message


def test_fields_come_in_any_order_and_unknown_ones_are_ignored() -> None:
    data = msgspec.msgpack.encode({"new": [1], "id": 4, "type": "ping"})
    assert protocol.client_decoder(_keep).decode(data) == protocol.Ping(4)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"type": "pings", "id": 1},
        {"type": "ping"},
        {"type": "ping", "id": -1},
        {"type": "ping", "id": "1"},
        {"type": "ping", "id": True},
        {"type": "call", "id": 1, "method": "m", "args": {}},
        {"type": "call", "id": 1, "method": "m", "kwargs": {"a": 1, 2: 3}},
        {"type": "release", "blocks": [[1, 2]]},
        {"type": "hello", "protocol": [1], "client": "c", "arena": True},
    ],
)
def test_refuses_wrong_fields(fields: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        protocol.client_decoder(_keep).decode(msgspec.msgpack.encode(fields))
