"""The messages of the wire as frozen structs, and the limits that are checked before decoding.

Mirrors docs/protocol.md and src/protocol.ts. Knows no socket, no tensor and no handle: extension
payloads are handed to a hook of the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, TypeAlias

import msgspec

__all__ = [
    "DEFAULT_LIMITS",
    "HANDLE_CODE",
    "PROTOCOL_VERSION",
    "TENSOR_CODE",
    "ArenaInfo",
    "BlockRelease",
    "Bye",
    "Call",
    "Cancel",
    "ClientMessage",
    "Credit",
    "ErrorMap",
    "ErrorReply",
    "Hello",
    "Item",
    "Limits",
    "Ping",
    "Pong",
    "Progress",
    "ProgressData",
    "Release",
    "Result",
    "Welcome",
    "WorkerInfo",
    "WorkerMessage",
    "client_decoder",
    "encode",
    "worker_decoder",
]

PROTOCOL_VERSION: Final = (1, 0)
HANDLE_CODE: Final = 1
TENSOR_CODE: Final = 2

ExtensionHook: TypeAlias = Callable[[int, memoryview], object]
UInt = Annotated[int, msgspec.Meta(ge=0)]
# `(block, generation, count)`: references to a block of the receiver that are given back.
BlockRelease: TypeAlias = tuple[UInt, UInt, UInt]


class Limits(msgspec.Struct, frozen=True):
    """What one message and one client may ask for; the defaults hold before a `welcome`."""

    max_control_bytes: UInt = 1 << 20
    max_depth: UInt = 32
    max_elements: UInt = 65536
    max_frames: UInt = 64
    max_frame_bytes: UInt = 256 << 20
    max_calls: UInt = 1024


DEFAULT_LIMITS: Final = Limits()


class _Message(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type"):
    """Fields stand in the order of docs/protocol.md; those equal to their default are left out."""


class Hello(_Message, frozen=True, tag="hello"):
    protocol: tuple[UInt, UInt]
    client: str
    arena: bool


class WorkerInfo(msgspec.Struct, frozen=True):
    pid: UInt
    python: str
    torch: str
    marlin: str
    platform: str


class ArenaInfo(msgspec.Struct, frozen=True):
    bytes: UInt
    client_bytes: UInt


class Welcome(_Message, frozen=True, tag="welcome"):
    protocol: tuple[UInt, UInt]
    incarnation: str
    worker: WorkerInfo
    limits: Limits
    arena: ArenaInfo | None


class Call(_Message, frozen=True, tag="call"):
    id: UInt
    method: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    credit: UInt = 0
    progress: bool = False


class Result(_Message, frozen=True, tag="result"):
    id: UInt
    value: Any = None
    blocks: list[BlockRelease] = []


class ErrorMap(msgspec.Struct, frozen=True):
    """`code` is one of docs/errors.md, `type` the qualified Python type or ""."""

    code: str
    message: str
    type: str = ""
    traceback: str = ""
    details: dict[str, Any] = {}


class ErrorReply(_Message, frozen=True, tag="error"):
    id: UInt | None
    error: ErrorMap
    blocks: list[BlockRelease] = []


class Item(_Message, frozen=True, tag="item"):
    id: UInt
    seq: UInt
    value: Any


class ProgressData(msgspec.Struct, frozen=True, omit_defaults=True):
    phase: str
    done: int | float
    total: int | float
    text: str = ""


class Progress(_Message, frozen=True, tag="progress"):
    id: UInt
    data: ProgressData


class Credit(_Message, frozen=True, tag="credit"):
    id: UInt
    items: UInt


class Cancel(_Message, frozen=True, tag="cancel"):
    id: UInt


class Release(_Message, frozen=True, tag="release"):
    handles: list[UInt] = []
    blocks: list[BlockRelease] = []


class Ping(_Message, frozen=True, tag="ping"):
    id: UInt


class Pong(_Message, frozen=True, tag="pong"):
    id: UInt
    busy: UInt | None
    queued: UInt


class Bye(_Message, frozen=True, tag="bye"):
    pass


ClientMessage: TypeAlias = Hello | Call | Credit | Cancel | Release | Ping | Bye
WorkerMessage: TypeAlias = Welcome | Result | ErrorReply | Item | Progress | Release | Pong | Bye

_encoder: Final = msgspec.msgpack.Encoder()


def encode(message: ClientMessage | WorkerMessage) -> bytes:
    """Bytes of the control frame. Values inside must already be wire values (writer.py)."""
    return _encoder.encode(message)


def client_decoder(hook: ExtensionHook) -> msgspec.msgpack.Decoder[ClientMessage]:
    """Decoder of what clients send; `hook(code, payload)` turns extensions into values."""
    return msgspec.msgpack.Decoder(ClientMessage, ext_hook=hook)


def worker_decoder(hook: ExtensionHook) -> msgspec.msgpack.Decoder[WorkerMessage]:
    """Decoder of what workers send, for clients in Python (the tests are one)."""
    return msgspec.msgpack.Decoder(WorkerMessage, ext_hook=hook)
