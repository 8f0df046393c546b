"""Encodes what goes to one client: tensors (in frames or in the shared memory), handles, values.

Knows no socket. A value that is refused leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
import torch

from marlin.errors import MessageTooLargeError, NotSerializableError
from marlin.worker import protocol
from marlin.worker.arena import MAX_RELEASES, Arena, Mention
from marlin.worker.handles import Handle, HandleTable, describe_dtype, qualified_type
from marlin.worker.protocol import Limits, WorkerMessage
from marlin.worker.tensors import DTYPES, MAX_DIMENSIONS, allocate_tensor

__all__ = ["Encoded", "MessageWriter"]

_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}
# Below this a tensor travels in a frame: a block costs two messages (mention, release), and a copy
# of this size costs less than the second one.
_INLINE_BYTES: Final = 4096
# Room that every value leaves for the `blocks` of a reply, so that whether it fits does not depend
# on them: `[block, generation, count]` is four values in at most 28 bytes;
# the last 16 are for the field's name and the array's head.
_RESERVED_ELEMENTS: Final = 4 * MAX_RELEASES
_RESERVED_BYTES: Final = 28 * MAX_RELEASES + 16
_INT64_MIN: Final = -(2**63)
_UINT64_MAX: Final = 2**64 - 1


@dataclass(slots=True)
class Encoded:
    """Frames to send, and the tensors that must live until they are sent."""

    frames: list[bytes]
    keep: list[torch.Tensor] = field(default_factory=list)


_NOTHING: Final = Encoded([])


class _UnserializableError(Exception):
    """A value that cannot travel; `place` grows from the inside out."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.place: list[str] = []


class MessageWriter:
    """Encodes what goes to one client. Used by one thread at a time.

    A message that is refused leaves nothing behind: its handles and references are taken back.
    """

    def __init__(self, limits: Limits, handles: HandleTable, arena: Arena | None) -> None:
        self._limits = limits
        self._handles = handles
        self._arena = arena
        self._encoded = _NOTHING
        self._elements = 0
        self._undo_handles: list[int] = []
        self._undo_blocks: list[tuple[int, int]] = []

    def result(
        self, call_id: int, value: object, blocks: Sequence[protocol.BlockRelease] = ()
    ) -> Encoded:
        """A `result`; raises NotSerializableError, ArenaFullError or MessageTooLargeError."""
        given_back = list(blocks)
        if value is None:
            return Encoded([protocol.encode(protocol.Result(call_id, None, given_back))])
        block_bytes = len(msgspec.msgpack.encode({"blocks": given_back})) - 1 if given_back else 0
        return self._write(
            lambda wire: protocol.Result(call_id, wire, given_back), value, block_bytes
        )

    def item(self, call_id: int, seq: int, value: object) -> Encoded:
        """An `item`; raises as `result` does."""
        return self._write(lambda wire: protocol.Item(call_id, seq, wire), value)

    def _write(
        self, make: Callable[[object], WorkerMessage], value: object, block_bytes: int = 0
    ) -> Encoded:
        self._encoded = encoded = Encoded([b""])
        self._elements = 8  # the message's own map
        self._undo_handles.clear()
        self._undo_blocks.clear()
        try:
            # The message's map is level 1, so a container in its place is level 2.
            control = protocol.encode(make(self._convert(value, 2)))
            self._check(len(control) - block_bytes)
        except BaseException as error:
            self._undo()
            if isinstance(error, _UnserializableError):
                place = "".join(error.place[::-1]) or "itself"
                raise NotSerializableError(
                    f"The value cannot travel: {error} (at {place} in it). "
                    "Keep it as a handle, or convert it first."
                ) from None
            if isinstance(error, UnicodeEncodeError):
                raise NotSerializableError(
                    "The value cannot travel: a string in it has lone surrogates."
                ) from error
            raise
        finally:
            # What is kept for this message must not live until the next.
            self._encoded = _NOTHING
        encoded.frames[0] = control
        return encoded

    def _check(self, nbytes: int) -> None:
        max_bytes = self._limits.max_control_bytes - _RESERVED_BYTES
        max_elements = self._limits.max_elements - _RESERVED_ELEMENTS
        if nbytes > max_bytes or self._elements > max_elements:
            raise MessageTooLargeError(
                f"The value needs {nbytes} bytes and {self._elements} entries in the control "
                f"frame, which holds {max_bytes} and {max_elements}; "
                "return a tensor, or several values."
            )

    def _undo(self) -> None:
        for handle_id in self._undo_handles:
            self._handles.release(handle_id)
        if self._arena is not None:
            for block, generation in self._undo_blocks:
                self._arena.release(block, generation, 1)

    def _convert(self, value: object, depth: int) -> object:
        kind = type(value)
        self._elements += 1
        if value is None or kind is bool or kind is float or kind is str or kind is bytes:
            return value
        if kind is int or (isinstance(value, int) and kind is not bool):
            if not _INT64_MIN <= value <= _UINT64_MAX:  # type: ignore[operator]
                raise _UnserializableError("an integer beyond 64 bits")
            return int(value)  # type: ignore[call-overload]
        if isinstance(value, Handle):
            return self._handle(value, depth)
        if isinstance(value, torch.Tensor):
            return self._tensor(value, depth)
        if isinstance(value, dict):
            return self._map(value, depth)
        if isinstance(value, (list, tuple)):
            return self._array(value, depth)
        if isinstance(value, np.ndarray):
            return self._tensor(_from_numpy(value), depth)
        if isinstance(value, np.generic):
            return self._convert(value.item(), depth)
        if isinstance(value, (bytearray, memoryview)):
            return bytes(value)
        if isinstance(value, float):
            return float(value)
        if isinstance(value, str):
            return str.__str__(value)
        raise _UnserializableError(f"a {qualified_type(value)}")

    def _array(self, value: Sequence[object], depth: int) -> list[object]:
        self._check_depth(depth)
        wire: list[object] = []
        for index, entry in enumerate(value):
            try:
                wire.append(self._convert(entry, depth + 1))
            except _UnserializableError as error:
                error.place.append(f"[{index}]")
                raise
        return wire

    def _map(self, value: dict[object, object], depth: int) -> dict[str, object]:
        self._check_depth(depth)
        wire: dict[str, object] = {}
        for key, entry in value.items():
            if not isinstance(key, str):
                raise _UnserializableError(f"a map with a key of type {qualified_type(key)}")
            self._elements += 1
            try:
                wire[str.__str__(key)] = self._convert(entry, depth + 1)
            except _UnserializableError as error:
                error.place.append(f"[{key!r}]")
                raise
        return wire

    def _check_depth(self, depth: int) -> None:
        if depth > self._limits.max_depth:
            raise _UnserializableError(f"more than {self._limits.max_depth} levels of nesting")

    def _handle(self, handle: Handle, depth: int) -> msgspec.msgpack.Ext:
        self._check_depth(depth + 1)
        # The extension is a level, and so is the array in it.
        meta = self._convert(dict(handle.meta), depth + 2)
        handle_id = self._handles.add(handle.value)
        self._undo_handles.append(handle_id)
        self._elements += 4
        payload = [handle_id, handle.kind, handle.type, meta]
        return msgspec.msgpack.Ext(protocol.HANDLE_CODE, msgspec.msgpack.encode(payload))

    def _tensor(self, tensor: torch.Tensor, depth: int) -> msgspec.msgpack.Ext:
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise _UnserializableError(f"a tensor of layout {tensor.layout}")
        if tensor.device.type == "meta":
            raise _UnserializableError("a tensor on the meta device, which has no data")
        name = _NAMES.get(tensor.dtype)
        if name is None:
            raise _UnserializableError(f"a tensor of dtype {describe_dtype(tensor.dtype)}")
        if tensor.dim() > MAX_DIMENSIONS:
            raise _UnserializableError(f"a tensor of {tensor.dim()} dimensions")
        # The extension, the array in it, and the shape in that.
        self._check_depth(depth + 2)
        self._elements += 12 + tensor.dim()
        payload = [name, list(tensor.shape), self._store(tensor.detach())]
        return msgspec.msgpack.Ext(protocol.TENSOR_CODE, msgspec.msgpack.encode(payload))

    def _store(self, tensor: torch.Tensor) -> list[object]:
        nbytes = tensor.numel() * tensor.element_size()
        on_cpu = tensor.device.type == "cpu" and tensor.is_contiguous() and not tensor.is_neg()
        arena = self._arena
        if arena is not None and nbytes and on_cpu:
            place = arena.mention(tensor.data_ptr(), nbytes)
            if place is not None:
                return self._mentioned(tensor, place)
        frames = self._encoded.frames
        # Frames run out before blocks do, so a long list of small tensors turns to blocks.
        if arena is None or (nbytes < _INLINE_BYTES and len(frames) <= self._limits.max_frames):
            if len(frames) > self._limits.max_frames:
                raise MessageTooLargeError(
                    f"The value must have at most {self._limits.max_frames} tensors, got more."
                )
            if nbytes > self._limits.max_frame_bytes:
                raise MessageTooLargeError(
                    f"A tensor outside the shared memory must have at most "
                    f"{self._limits.max_frame_bytes} bytes, got {nbytes}."
                )
            # A snapshot: the tensor may be written to before the frame has left.
            flat = tensor.resolve_neg().cpu().contiguous().view(-1)
            frames.append(flat.view(torch.uint8).numpy().tobytes() if nbytes else b"")
            return ["frame", len(frames) - 1]
        copy = allocate_tensor(arena, tensor.dtype, tensor.shape)
        copy.copy_(tensor)
        place = arena.mention(copy.data_ptr(), nbytes)
        assert place is not None, "a tensor just allocated in the arena can be named"
        return self._mentioned(copy, place)

    def _mentioned(self, tensor: torch.Tensor, place: Mention) -> list[object]:
        if place.owner == "worker":
            self._undo_blocks.append((place.block, place.generation))
        self._encoded.keep.append(tensor)
        return ["block", place.owner, place.block, place.generation, place.offset, place.bytes]


def _from_numpy(array: np.ndarray[Any, np.dtype[Any]]) -> torch.Tensor:
    if array.dtype.name not in DTYPES or not array.dtype.isnative:
        raise _UnserializableError(f"a numpy array of dtype {array.dtype}")
    # torch warns about memory that it may not write, and cannot take negative strides.
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))
