"""The golden frames that both languages read: test/fixtures/wire, notation in notation.ts there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest

from marlin.worker import protocol
from marlin.worker.limits import check_control
from marlin.worker.protocol import DEFAULT_LIMITS

Json: TypeAlias = Any

_FILE = Path(__file__).parents[3] / "test" / "fixtures" / "wire" / "messages.json"
_GOLDENS: list[Json] = json.loads(_FILE.read_text())
_NAMES = [golden["name"] for golden in _GOLDENS]


def _value(note: Json) -> Json:
    """What `note` stands for; an extension stays a pair of its code and its fields."""
    if isinstance(note, list):
        return [_value(entry) for entry in note]
    if not isinstance(note, dict):
        return note
    match note:
        case {"$int": text}:
            return int(text)
        case {"$bin": text}:
            return bytes.fromhex(text)
        case {"$float": text}:
            return float(text)
        case {"$handle": fields}:
            return protocol.HANDLE_CODE, _value(fields)
        case {"$tensor": fields}:
            return protocol.TENSOR_CODE, _value(fields)
    return {key: _value(entry) for key, entry in note.items()}


def _same(left: Json, right: Json) -> bool:
    """Equality that tells 1 from 1.0 and from True, and 0.0 from -0.0, and finds nan equal."""
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(map(_same, left.values(), right.values()))
    if isinstance(left, float):
        same_sign = math.copysign(1, left) == math.copysign(1, right)
        return (math.isnan(left) and math.isnan(right)) or (left == right and same_sign)
    return bool(left == right)


def _fields(code: int, payload: memoryview) -> object:
    return code, msgspec.msgpack.decode(payload, ext_hook=_fields)


def _keep(code: int, payload: memoryview) -> object:
    return msgspec.msgpack.Ext(code, bytes(payload))


@pytest.mark.parametrize("golden", _GOLDENS, ids=_NAMES)
def test_decodes_to_what_is_noted(golden: Json) -> None:
    control = bytes.fromhex(golden["frames"][0])
    check_control(control, DEFAULT_LIMITS)
    decoded = msgspec.msgpack.decode(control, ext_hook=_fields)
    assert _same(decoded, _value(golden["message"])), decoded


@pytest.mark.parametrize("golden", _GOLDENS, ids=_NAMES)
def test_encodes_to_the_same_bytes(golden: Json) -> None:
    control = bytes.fromhex(golden["frames"][0])
    message: protocol.ClientMessage | protocol.WorkerMessage
    if golden["from"] == "client":
        message = protocol.client_decoder(_keep).decode(control)
    else:
        message = protocol.worker_decoder(_keep).decode(control)
    assert protocol.encode(message).hex() == control.hex()


def test_there_is_a_golden_of_every_message() -> None:
    found = {(golden["from"], golden["message"]["type"]) for golden in _GOLDENS}
    by_client = {"hello", "call", "credit", "cancel", "release", "ping", "bye"}
    # A worker's `bye` has the bytes of a client's.
    by_worker = {"welcome", "result", "error", "item", "progress", "release", "pong"}
    assert {("client", t) for t in by_client} | {("worker", t) for t in by_worker} <= found
