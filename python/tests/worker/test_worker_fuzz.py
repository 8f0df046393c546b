"""Hostile bytes: every message is served or refused with a typed error, and nothing leaks."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marlin.errors import MarlinError
from marlin.worker import protocol
from marlin.worker.arena import Arena
from marlin.worker.handles import HandleTable
from marlin.worker.protocol import DEFAULT_LIMITS
from marlin.worker.reader import MessageReader
from tests.worker.wire_client import WireClient, WorkerProcess, block, frame, ref

_MESSAGES: list[dict[str, object]] = [
    {"type": "hello", "protocol": [1, 0], "client": "c", "arena": True},
    {"type": "call", "id": 1, "method": "python.call", "args": ["operator", ["add"], [1, 2], {}]},
    {"type": "call", "id": 2, "method": "python.iterate", "args": ["builtins", ["range"], [3]],
     "credit": 5, "progress": True},
    {"type": "call", "id": 3, "method": "python.get", "args": [ref(1), ["shape"]], "kwargs": {}},
    {"type": "call", "id": 4, "method": "python.value", "args": [frame("float32", [2, 2]), []]},
    {"type": "call", "id": 5, "method": "python.value",
     "args": [block("uint8", [64], "client", 1, 0, 128, 64), []]},
    {"type": "call", "id": 6, "method": "tensor.empty", "args": ["int8", [2, 3]]},
    {"type": "call", "id": 7, "method": "worker.stats"},
    {"type": "credit", "id": 2, "items": 3},
    {"type": "cancel", "id": 2},
    {"type": "release", "handles": [1, 2], "blocks": [[0, 0, 1]]},
    {"type": "ping", "id": 9},
]  # fmt: skip
_GOLDEN = [msgspec.msgpack.encode(message) for message in _MESSAGES]
_SEED = 20
_FLOOD = 20_000
# 64 MB of items: no buffers between the two ends hold that, whatever the system's are. Fewer than a
# worker keeps for a client, so that one which does not wait gets to the end.
_ITEMS = 8_000
_ITEM_BYTES = 8 << 10
_SAMPLE = "tests.worker.sample_module"


def _mutate(rng: random.Random, data: bytes) -> bytes:
    mutated = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(mutated) + 1)
        match rng.randrange(5):
            case 0:
                mutated[at:at] = rng.randbytes(rng.randint(1, 4))
            case 1:
                del mutated[at : at + rng.randint(1, 4)]
            case 2:
                mutated[at : at + 1] = bytes([rng.randrange(256)])
            case 3:
                mutated[at : at + 1] = bytes([rng.choice(b"\x80\x90\xc1\xc4\xd9\xdc\xdd\xde\xdf")])
            case _:
                donor = rng.choice(_GOLDEN)
                start = rng.randrange(len(donor))
                mutated[at:at] = donor[start : start + rng.randint(1, 16)]
    return bytes(mutated)


@settings(deadline=None, max_examples=500)
@given(st.integers(0, 2**32), st.sampled_from(_GOLDEN))
def test_a_mutated_frame_is_read_or_refused_and_leaves_nothing(
    make_arena: Callable[[int, int], Arena], seed: int, golden: bytes
) -> None:
    arena = make_arena(1 << 12, 1 << 11)
    reader = MessageReader(DEFAULT_LIMITS, HandleTable(), arena)
    control = _mutate(random.Random(seed), golden)
    with contextlib.suppress(MarlinError):
        reader.read(control, [memoryview(bytearray(16))])
    assert arena.stats()["views"] == 0


@pytest.mark.parametrize("golden", _GOLDEN)
def test_every_cut_of_a_frame_is_refused(golden: bytes) -> None:
    reader = MessageReader(DEFAULT_LIMITS, HandleTable(), None)
    for end in range(len(golden)):
        with pytest.raises(MarlinError):
            reader.read(golden[:end])


def test_a_worker_under_fire_answers_and_serves_the_others(
    worker: WorkerProcess, client: WireClient
) -> None:
    rng = random.Random(_SEED)
    codes: set[str] = set()
    for _ in range(20):
        with WireClient(worker.endpoint) as attacker:
            for _ in range(100):
                kind = rng.randrange(10)
                control = rng.randbytes(rng.randint(0, 60)) if kind == 0 else rng.choice(_GOLDEN)
                frames = [rng.randbytes(rng.randint(0, 20)) for _ in range(rng.randint(0, 2))]
                attacker.send(_mutate(rng, control) if kind else control, *frames)
            # A pong comes after the answers to all before it that were refused at once.
            attacker.send({"type": "ping", "id": 10**9})
            while True:
                message = attacker.receive()
                if isinstance(message, protocol.ErrorReply):
                    codes.add(message.error.code)
                if isinstance(message, protocol.Pong) and message.id == 10**9:
                    break
                if isinstance(message, protocol.Bye):
                    break
        assert client.python("operator", "add", 2, 3) == 5
    assert "protocol_violation" in codes
    assert "internal" not in codes


def _flood_with_items(deaf: WireClient, client: WireClient) -> int:
    """Starts an endless stream that nobody reads, and returns once it waits for its reader."""
    said = ref(client.call("python.get", _SAMPLE, ["said"]))
    client.python(said, "clear")
    arguments = [_ITEMS, _ITEM_BYTES]
    stream = deaf.start("python.iterate", _SAMPLE, ["count_aloud"], arguments, credit=2**60)
    before, now = -1, 0
    # Calls take turns with streams: one that makes no progress between two calls is waiting, for
    # its reader or, on a busy machine, for the thread that sends.
    while before != now or now == 0:
        before, now = now, client.python("builtins", "len", said)
    assert now < _ITEMS
    return stream


def test_a_stream_waits_for_a_client_that_does_not_read_and_loses_nothing(
    worker: WorkerProcess, client: WireClient
) -> None:
    with WireClient(worker.endpoint) as deaf:
        stream = _flood_with_items(deaf, client)
        assert client.python("operator", "add", 2, 3) == 5
        items = [int.from_bytes(item, "big") for item in deaf.items(stream)]
        assert items == list(range(_ITEMS))


def test_a_client_may_vanish_with_messages_unread(
    worker: WorkerProcess, client: WireClient
) -> None:
    died_in = ref(client.call("python.get", _SAMPLE, ["died_in"]))
    client.python(died_in, "clear")
    with WireClient(worker.endpoint) as deaf:
        deaf.python(_SAMPLE, "Mortal")
        _flood_with_items(deaf, client)
    while not client.call("python.value", died_in, []):
        continue


def test_a_client_that_never_reads_is_dropped(worker: WorkerProcess, client: WireClient) -> None:
    died_in = ref(client.call("python.get", _SAMPLE, ["died_in"]))
    client.python(died_in, "clear")
    with WireClient(worker.endpoint) as deaf:
        deaf.python(_SAMPLE, "Mortal")
        # Answers to refused calls can neither wait nor be dropped.
        for _ in range(2 * _FLOOD):
            deaf.start("no.such")
        while not client.call("python.value", died_in, []):
            continue
        # The worker has forgotten its `hello`. It drops what it says to a stranger who does not
        # read, so one ping may remain unanswered; the one before the last message read does not.
        code = "unknown_method"
        while code == "unknown_method":
            deaf.send({"type": "ping", "id": 1})
            message = deaf.expect(protocol.ErrorReply)
            code = message.error.code
        assert (message.id, code) == (None, "protocol_violation")


def test_pongs_are_dropped_for_a_client_that_does_not_read_but_no_reply_is(
    worker: WorkerProcess, client: WireClient
) -> None:
    with WireClient(worker.endpoint) as deaf:
        # More pongs than the buffers between the two hold.
        for number in range(_FLOOD):
            deaf.send({"type": "ping", "id": number})
        call = deaf.start("python.call", "operator", ["add"], [2, 3], {})
        assert client.python("operator", "add", 2, 3) == 5
        pongs = 0
        while isinstance(message := deaf.receive(), protocol.Pong):
            pongs += 1
        assert message == protocol.Result(call, 5)
        assert pongs < _FLOOD
