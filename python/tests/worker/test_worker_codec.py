"""reader.py and writer.py: a value arrives as it was, or is refused by a sentence about it."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marlin.errors import (
    ArenaFullError,
    MarlinError,
    MessageTooLargeError,
    NotSerializableError,
    ProtocolError,
    StaleTensorError,
    UnknownHandleError,
)
from marlin.worker import protocol
from marlin.worker.arena import MAX_RELEASES, Arena
from marlin.worker.handles import Handle, HandleTable, export
from marlin.worker.limits import check_control
from marlin.worker.protocol import DEFAULT_LIMITS, Limits
from marlin.worker.reader import MessageReader
from marlin.worker.tensors import DTYPES, allocate_tensor
from marlin.worker.writer import MessageWriter
from tests.worker.wire_client import Ref, TensorRef, block, frame, ref

MakeArena = Callable[[int, int], Arena]
Value: TypeAlias = Any


class Pair(NamedTuple):
    left: int
    right: str


def _writer(
    arena: Arena | None = None, limits: Limits = DEFAULT_LIMITS
) -> tuple[MessageWriter, HandleTable]:
    handles = HandleTable()
    return MessageWriter(limits, handles, arena), handles


def _decode(frames: list[bytes]) -> Value:
    """The value of a `result`, as a client without the arena sees it."""

    def extension(code: int, payload: memoryview) -> object:
        fields = msgspec.msgpack.decode(payload)
        if code == protocol.HANDLE_CODE:
            return Ref(*fields)
        dtype, shape, storage = fields
        return TensorRef(
            dtype, shape, storage, frames[storage[1]] if storage[0] == "frame" else b""
        )

    message = protocol.worker_decoder(extension).decode(frames[0])
    assert isinstance(message, protocol.Result)
    return message.value


def _sent(value: object, arena: Arena | None = None) -> Value:
    writer, _ = _writer(arena)
    return _decode(writer.result(1, value).frames)


def _received(
    value: object,
    *frames: bytes,
    arena: Arena | None = None,
    handles: HandleTable | None = None,
) -> Value:
    """What a handler gets for an argument."""
    reader = MessageReader(DEFAULT_LIMITS, handles or HandleTable(), arena)
    control = msgspec.msgpack.encode({"type": "call", "id": 1, "method": "m", "args": [value]})
    message = reader.read(control, [memoryview(bytearray(data)) for data in frames])
    assert isinstance(message, protocol.Call)
    return message.args[0]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary()
        | st.floats(allow_nan=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)  # fmt: skip
def test_plain_values_arrive_as_they_are_in_both_directions(value: Value) -> None:
    assert _sent(value) == value
    assert _received(value) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, 2), [1, 2]),
        (Pair(1, "x"), [1, "x"]),
        (torch.Size([2, 3]), [2, 3]),
        (OrderedDict(a=1), {"a": 1}),
        (np.float32(0.5), 0.5),
        (np.int64(-3), -3),
        (np.bool_(True), True),
        (np.str_("s"), "s"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (torch.__version__, str(torch.__version__)),
        (float("inf"), float("inf")),
    ],
)
def test_relatives_of_plain_values_become_plain(value: object, expected: object) -> None:
    result = _sent(value)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [[], [0], [5], [2, 0, 3], [2, 3, 4], [1] * 8])
def test_tensors_of_every_dtype_travel_in_frames(name: str, shape: list[int]) -> None:
    tensor = torch.arange(torch.Size(shape).numel()).reshape(shape).to(DTYPES[name])
    sent = _sent(tensor)
    assert (sent.dtype, sent.shape, sent.storage[0]) == (name, shape, "frame")
    assert sent.bytes == tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    received = _received(frame(name, shape), sent.bytes)
    assert received.dtype == DTYPES[name]
    assert torch.equal(received, tensor)


def test_tensors_in_the_arena_travel_without_a_copy(make_arena: MakeArena) -> None:
    arena = make_arena(1 << 16, 1 << 15)
    tensor = allocate_tensor(arena, torch.float32, [4, 16]).fill_(2)
    writer, _ = _writer(arena)
    encoded = writer.result(1, {"whole": tensor, "row": tensor[1], "cut": tensor[:, 1]})
    value = _decode(encoded.frames)
    kind, owner, name, generation, offset, nbytes = value["whole"].storage
    assert (kind, owner, nbytes) == ("block", "worker", 256)
    assert value["row"].storage == ["block", "worker", name, generation, offset + 64, 64]
    # Not contiguous, so it had to be copied.
    assert value["cut"].storage == ["frame", 1]
    back = _received(block("float32", [64], *value["whole"].storage[1:]), arena=arena)
    assert back.data_ptr() == tensor.data_ptr()


def test_large_results_are_copied_into_the_arena_and_live_until_sent(
    make_arena: MakeArena,
) -> None:
    arena = make_arena(1 << 16, 1 << 15)
    writer, _ = _writer(arena)
    encoded = writer.result(1, torch.full((2048,), 3.0))
    storage = _decode(encoded.frames).storage
    assert storage[:2] == ["block", "worker"]
    assert arena.stats()["blocks"] == 1
    back = _received(block("float32", [2048], *storage[1:]), arena=arena)
    assert back.eq(3).all()
    arena.release(storage[2], storage[3], 1)
    encoded.keep.clear()
    assert arena.stats()["blocks"] == 1
    del back
    assert arena.stats()["blocks"] == 0


def test_a_client_tensor_comes_back_as_what_it_is(make_arena: MakeArena) -> None:
    arena = make_arena(1 << 16, 1 << 15)
    argument = _received(block("uint8", [100], "client", 3, 1, 64, 100), arena=arena)
    writer, _ = _writer(arena)
    encoded = writer.result(1, argument)
    assert _decode(encoded.frames).storage == ["block", "client", 3, 1, 64, 100]
    del argument
    # The client may not free it before it has seen the reply.
    assert not arena.has_client_releases
    encoded.keep.clear()
    assert arena.take_client_releases() == [(3, 1, 1)]


def test_other_tensors_are_made_contiguous() -> None:
    base = torch.arange(12, dtype=torch.int32).reshape(3, 4)
    assert _sent(base.T).bytes == base.T.contiguous().numpy().tobytes()
    assert _sent(base.expand(2, 3, 4)[:, 0]).shape == [2, 4]
    parameter = torch.nn.Parameter(torch.ones(2))
    assert _sent(parameter).bytes == torch.ones(2).numpy().tobytes()
    assert _sent(torch.ones(2).neg_().requires_grad_()).dtype == "float32"


def test_numpy_arrays_travel_as_tensors() -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    for value in (array, array[::-1], array.T, np.broadcast_to(array, (4, 2, 3))):
        sent = _sent(value)
        assert (sent.dtype, sent.shape) == ("int16", list(value.shape))
        assert sent.bytes == np.ascontiguousarray(value).tobytes()
    frozen = np.ones(3)
    frozen.setflags(write=False)
    assert _sent(frozen).bytes == frozen.tobytes()


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"a": [0, object()]}, r"a builtins.object \(at \['a'\]\[1\] in it\)"),
        ({1: 2}, "a map with a key of type builtins.int"),
        ({1, 2}, "a builtins.set"),
        (1 + 2j, "a builtins.complex"),
        ([2**64], r"an integer beyond 64 bits \(at \[0\]"),
        (-(2**63) - 1, "an integer beyond 64 bits"),
        ("\ud800", "lone surrogates"),
        (torch.zeros(2, dtype=torch.complex64), "a tensor of dtype complex64"),
        (torch.zeros(2, 2).to_sparse(), "a tensor of layout torch.sparse_coo"),
        (torch.empty(2, device="meta"), "a tensor on the meta device"),
        (torch.zeros([1] * 9), "a tensor of 9 dimensions"),
        (np.array(["a"]), "a numpy array of dtype <U1"),
        (np.zeros(2, dtype=">f4"), "a numpy array of dtype >f4"),
        (torch.float32, "a torch.dtype"),
        (len, "a builtins.builtin_function_or_method"),
    ],
)
def test_names_what_cannot_travel_and_where(value: object, sentence: str) -> None:
    with pytest.raises(NotSerializableError, match=sentence):
        _sent(value)


def test_a_value_that_contains_itself_is_refused() -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises(NotSerializableError, match="more than 32 levels of nesting"):
        _sent(cycle)


def test_nesting_is_allowed_to_the_last_level() -> None:
    value: object = torch.ones(1)
    for _ in range(28):  # and the message, the extension, its array, the shape
        value = [value]
    writer, _ = _writer()
    encoded = writer.result(1, value)
    check_control(encoded.frames[0], DEFAULT_LIMITS)
    with pytest.raises(NotSerializableError, match="levels of nesting"):
        writer.result(1, [value])


def test_too_much_for_one_message_is_refused() -> None:
    writer, _ = _writer()
    with pytest.raises(MessageTooLargeError, match="return a tensor"):
        writer.result(1, list(range(70_000)))
    with pytest.raises(MessageTooLargeError, match="return a tensor"):
        writer.result(1, "x" * 2_000_000)
    with pytest.raises(MessageTooLargeError, match="at most 64 tensors"):
        writer.result(1, [torch.ones(1)] * 65)
    small, _ = _writer(limits=Limits(max_frame_bytes=100))
    with pytest.raises(MessageTooLargeError, match="at most 100 bytes, got 104"):
        small.result(1, torch.zeros(26))
    assert _sent(list(range(60_000))) == list(range(60_000))


@pytest.mark.parametrize(
    "make", [lambda size: [0] * size, lambda size: "x" * size], ids=["values", "bytes"]
)
def test_whether_a_value_fits_does_not_depend_on_what_the_reply_gives_back(
    make: Callable[[int], Value],
) -> None:
    blocks = [(2**63, 2**63, 2**63)] * MAX_RELEASES
    writer, _ = _writer()

    def fits(size: int, given_back: list[tuple[int, int, int]]) -> bool:
        try:
            encoded = writer.result(2**63, make(size), given_back)
        except MessageTooLargeError:
            return False
        check_control(encoded.frames[0], DEFAULT_LIMITS)
        return True

    limit = bisect_left(range(2**21), True, key=lambda size: not fits(size, []))
    assert 60_000 < limit < 2**20
    assert fits(limit - 1, blocks)
    assert not fits(limit, blocks)


def test_many_small_tensors_turn_to_blocks(make_arena: MakeArena) -> None:
    kinds = [
        tensor.storage[0] for tensor in _sent([torch.ones(1)] * 70, make_arena(1 << 16, 1 << 15))
    ]
    assert kinds == ["frame"] * 64 + ["block"] * 6


def test_a_refused_result_leaves_nothing_behind(make_arena: MakeArena) -> None:
    arena = make_arena(1 << 16, 1 << 15)
    writer, handles = _writer(arena)
    with pytest.raises(NotSerializableError):
        writer.result(1, [export(object()), torch.ones(2048), object()])
    with pytest.raises(ArenaFullError) as caught:
        writer.result(1, [export(object()), torch.ones(2048), torch.ones(1 << 14)])
    assert caught.value.details["partition"] == "worker"
    del caught
    assert len(handles) == 0
    assert arena.stats()["blocks"] == 0


def test_every_mention_of_a_handle_is_a_new_id() -> None:
    writer, handles = _writer()
    value = object()
    handle = Handle(value, "object", "x.Y", {"n": 1})
    first, second = _decode(writer.result(1, [handle, handle]).frames)
    assert first.id != second.id
    assert (first.kind, first.type, first.meta) == ("object", "x.Y", {"n": 1})
    assert _received(ref(first), handles=handles) is value
    assert handles.release(first.id) is value
    with pytest.raises(UnknownHandleError, match=f"handle {first.id}"):
        _received(ref(first), handles=handles)
    with pytest.raises(ProtocolError, match="does not hold"):
        handles.release(first.id)
    assert _received(ref(second), handles=handles) is value


@pytest.mark.parametrize(
    ("value", "error", "sentence"),
    [
        (frame("float8", [1]), ProtocolError, "dtype must be one of"),
        (frame("float32", [2]), ProtocolError, "needs 8 bytes, but its storage has 4"),
        (frame("float32", [-1, -1]), ProtocolError, "non-negative"),
        (frame("uint8", [1] * 9), ProtocolError, "at most 8"),
        (frame("float32", [2**32, 2**32]), ProtocolError, "63 bits"),
        (frame("float32", [2**62, 2]), ProtocolError, "63 bits"),
        (frame("float32", [0, 2**63]), ProtocolError, "63 bits"),
        (frame("float32", [1], 0), ProtocolError, "frame 0, but the message has 1"),
        (frame("float32", [1], 2), ProtocolError, "frame 2, but the message has 1"),
        (block("uint8", [64], "nobody", 0, 0, 0, 64), ProtocolError, "owner must be"),
        (block("uint8", [64], "client", 0, 0, 4, 64), ProtocolError, "multiple of 8"),
        (block("uint8", [64], "client", 0, 0, -64, 64), ProtocolError, "negative"),
        (block("uint8", [64], "client", 0, 0, 1 << 15, 64), ProtocolError, "must end within"),
        (block("uint8", [64], "client", 0, 0, 0), ProtocolError, "storage must be"),
        (block("uint8", [64], "worker", 0, 0, 1 << 15, 64), StaleTensorError, "was freed"),
        (msgspec.msgpack.Ext(3, b"\xc0"), ProtocolError, "extension 3"),
        (msgspec.msgpack.Ext(-1, bytes(4)), ProtocolError, "other than 1 and 2"),
        (msgspec.msgpack.Ext(-1, bytes(8)), ProtocolError, "other than 1 and 2"),
        (msgspec.msgpack.Ext(-1, bytes(12)), ProtocolError, "other than 1 and 2"),
        (msgspec.msgpack.Ext(1, b"\x91\xa1x"), ProtocolError, "malformed"),
        (msgspec.msgpack.Ext(2, b"\x90"), ProtocolError, "malformed"),
        (msgspec.msgpack.Ext(2, b""), ProtocolError, "malformed"),
        (ref(99), UnknownHandleError, "handle 99"),
    ],
)
def test_refuses_arguments(
    make_arena: MakeArena, value: object, error: type[MarlinError], sentence: str
) -> None:
    arena = make_arena(1 << 16, 1 << 15)
    with pytest.raises(error, match=sentence):
        _received(value, b"abcd", arena=arena)
    assert arena.stats()["views"] == 0


def test_refuses_blocks_of_a_client_without_arena() -> None:
    with pytest.raises(ProtocolError, match="has none"):
        _received(block("uint8", [64], "client", 0, 0, 0, 64))


def test_a_refused_message_gives_its_blocks_back(make_arena: MakeArena) -> None:
    arena = make_arena(1 << 16, 1 << 15)
    good = block("uint8", [64], "client", 1, 0, 0, 64)
    wrong = block("uint8", [65], "client", 2, 5, 64, 64)
    for value in ([good, ref(99), good, wrong], {"a": wrong, "b": good, "c": good}):
        with pytest.raises(MarlinError):
            _received(value, arena=arena)
        assert sorted(arena.take_client_releases()) == [(1, 0, 2), (2, 5, 1)]
    # The same when it is the message around them that is wrong.
    reader = MessageReader(DEFAULT_LIMITS, HandleTable(), arena)
    with pytest.raises(ProtocolError):
        reader.read(msgspec.msgpack.encode({"type": "call", "id": -1, "args": [good]}))
    assert arena.take_client_releases() == [(1, 0, 1)]


def test_empty_tensors_need_no_memory_but_their_block_goes_back(make_arena: MakeArena) -> None:
    arena = make_arena(1 << 16, 1 << 15)
    received = _received(block("float32", [0, 4], "client", 1, 0, 64, 0), arena=arena)
    assert received.shape == (0, 4)
    assert arena.take_client_releases() == [(1, 0, 1)]
    assert _sent(torch.empty(0, 4), arena).storage == ["frame", 1]


def test_a_misaligned_frame_is_copied_to_an_aligned_place() -> None:
    buffer = bytearray(17)
    offset = 1 + (torch.frombuffer(buffer, dtype=torch.uint8).data_ptr() % 2)
    reader = MessageReader(DEFAULT_LIMITS, HandleTable(), None)
    control = {"type": "call", "id": 1, "method": "m", "args": [frame("float64", [1])]}
    message = reader.read(
        msgspec.msgpack.encode(control), [memoryview(buffer)[offset : offset + 8]]
    )
    assert isinstance(message, protocol.Call)
    assert message.args[0].data_ptr() % 8 == 0
    assert message.args[0].item() == 0
