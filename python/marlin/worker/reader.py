"""Decodes what one client sends: tensors become views, handles the objects themselves.

Knows no socket. A message that is refused gives back the blocks that it mentions.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec
import torch

from marlin.errors import MarlinError, ProtocolError
from marlin.worker import protocol
from marlin.worker.arena import Arena
from marlin.worker.handles import HandleTable
from marlin.worker.limits import check_control
from marlin.worker.protocol import ClientMessage, Limits
from marlin.worker.tensors import DTYPES, MAX_DIMENSIONS, byte_length

__all__ = ["UNREADABLE", "MessageReader"]

# What msgspec raises for bytes that are no message, and for map keys that Python cannot hash.
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, TypeError, ValueError)

_tensor_decoder: Final = msgspec.msgpack.Decoder(tuple[str, list[int], list[int | str]])
_handle_decoder: Final = msgspec.msgpack.Decoder(tuple[protocol.UInt])


class MessageReader:
    """Belongs to one client, as its handles and its shared memory do."""

    def __init__(self, limits: Limits, handles: HandleTable, arena: Arena | None) -> None:
        self._limits = limits
        self._handles = handles
        self._arena = arena
        self._decoder = protocol.client_decoder(self._extension)
        self._frames: Sequence[memoryview] = ()
        self._taken: list[tuple[int, int]] = []

    def read(self, control: bytes, frames: Sequence[memoryview] = ()) -> ClientMessage:
        """The message; raises ProtocolError and its kin. A refused one gives its blocks back."""
        check_control(control, self._limits)
        self._frames = frames
        self._taken.clear()
        try:
            return self._decoder.decode(control)
        except MarlinError:
            self._give_back(control)
            raise
        except UNREADABLE as error:
            self._give_back(control)
            raise ProtocolError(f"The message is malformed: {error}.") from error
        finally:
            self._frames = ()

    def _extension(self, code: int, payload: memoryview) -> object:
        if code == protocol.HANDLE_CODE:
            return self._handles.get(_handle_decoder.decode(payload)[0])
        if code == protocol.TENSOR_CODE:
            return self._tensor(*_tensor_decoder.decode(payload))
        raise ProtocolError(f"The message uses extension {code}; only 1 and 2 are known.")

    def _tensor(self, name: str, shape: list[int], storage: list[int | str]) -> torch.Tensor:
        dtype = DTYPES.get(name)
        if dtype is None:
            raise ProtocolError(f"A tensor's dtype must be one of {', '.join(DTYPES)}, got {name}.")
        if len(shape) > MAX_DIMENSIONS or any(size < 0 for size in shape):
            raise ProtocolError(
                f"A tensor's shape must be at most {MAX_DIMENSIONS} non-negative integers, "
                f"got {shape}."
            )
        nbytes = byte_length(dtype, shape)
        if nbytes is None:
            raise ProtocolError(f"A tensor's bytes must fit in 63 bits, got shape {shape}.")
        memory = self._storage(storage, nbytes)
        if nbytes == 0:
            return torch.empty(shape, dtype=dtype)
        tensor = torch.frombuffer(memory, dtype=dtype).view(shape)
        # ZeroMQ places a short frame anywhere; kernels want their element size.
        return tensor.clone() if tensor.data_ptr() % dtype.itemsize else tensor

    def _storage(self, storage: list[int | str], nbytes: int) -> memoryview | bytearray:
        match storage:
            case ["frame", int(index)]:
                if not 1 <= index <= len(self._frames):
                    raise ProtocolError(
                        f"A tensor names frame {index}, but the message has {len(self._frames)}."
                    )
                memory = self._frames[index - 1]
                size = len(memory)
            case ["block", str(owner), int(block), int(generation), int(offset), int(size)]:
                if min(block, generation, offset, size) < 0:
                    raise ProtocolError(f"A tensor's storage has a negative number: {storage}.")
            case _:
                raise ProtocolError(
                    "A tensor's storage must be [frame, index] or "
                    f"[block, owner, block, generation, offset, bytes], got {storage}."
                )
        if size != nbytes:
            raise ProtocolError(
                f"A tensor's shape needs {nbytes} bytes, but its storage has {size}."
            )
        if storage[0] == "frame":
            return memory
        if self._arena is None:
            raise ProtocolError("A tensor names the shared memory, but this client has none.")
        if offset % 8:
            raise ProtocolError(f"A tensor's offset must be a multiple of 8, got {offset}.")
        if owner == "worker":
            return self._arena.open_worker(block, generation, offset, size)
        if owner != "client":
            raise ProtocolError(f"A block's owner must be client or worker, got {owner}.")
        memory = self._arena.open_client(block, generation, offset, size)
        self._taken.append((block, generation))
        return memory

    def _give_back(self, control: bytes) -> None:
        """Gives back the client's blocks that a refused message mentions.

        Those of which a view was made go back when the view dies, the others here.
        """
        if self._arena is None:
            return
        mentioned: Counter[tuple[int, int]] = Counter()

        def note(code: int, payload: memoryview) -> None:
            if code != protocol.TENSOR_CODE:
                return
            match _tensor_decoder.decode(payload)[2]:
                case ["block", "client", int(block), int(generation), *_]:
                    mentioned[block, generation] += 1

        # Where it becomes unreadable, what came before is in `mentioned`.
        with contextlib.suppress(*UNREADABLE):
            msgspec.msgpack.Decoder(ext_hook=note).decode(control)
        mentioned.subtract(self._taken)
        for (block, generation), count in mentioned.items():
            for _ in range(count):
                self._arena.give_back(block, generation)
