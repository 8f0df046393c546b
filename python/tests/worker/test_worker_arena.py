"""arena.py: memory lives as long as any view on it, in either process, and no longer."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable

import pytest
import torch

from marlin.errors import ArenaFullError, InvalidArgumentError, ProtocolError, StaleTensorError
from marlin.worker.arena import MAX_RELEASES, Arena

MakeArena = Callable[[int, int], Arena]


def _tensor(memory: memoryview) -> torch.Tensor:
    return torch.frombuffer(memory, dtype=torch.float32)


def test_a_client_block_goes_back_when_the_last_storage_on_it_dies(make_arena: MakeArena) -> None:
    arena = make_arena(8192, 4096)
    tensor = _tensor(arena.open_client(7, 3, 64, 256))
    part, array = tensor[3:9], tensor.numpy()
    del tensor
    assert arena.take_client_releases() == []
    del part
    assert not arena.has_client_releases
    del array
    assert arena.take_client_releases() == [(7, 3, 1)]
    assert arena.stats()["views"] == 0


def test_each_mention_of_a_client_block_is_given_back_once(make_arena: MakeArena) -> None:
    arena = make_arena(8192, 4096)
    views = [arena.open_client(0, 0, 0, 64) for _ in range(3)]
    other = arena.open_client(1, 0, 64, 64)
    views.clear()
    assert arena.take_client_releases() == [(0, 0, 3)]
    del other
    arena.give_back(1, 0)
    assert arena.take_client_releases() == [(1, 0, 2)]


def test_no_more_blocks_go_back_at_once_than_a_message_holds(make_arena: MakeArena) -> None:
    arena = make_arena(8192, 4096)
    for block in range(MAX_RELEASES + 2):
        arena.give_back(block, 0)
    first, second = arena.take_client_releases(), arena.take_client_releases()
    assert (len(first), len(second)) == (MAX_RELEASES, 2)
    assert {block for block, _, _ in first + second} == set(range(MAX_RELEASES + 2))
    assert not arena.has_client_releases


def test_both_sides_see_the_same_bytes(make_arena: MakeArena) -> None:
    arena = make_arena(8192, 4096)
    memory = arena.allocate(16)
    tensor = _tensor(memory)
    tensor.fill_(1.5)
    place = arena.mention(tensor.data_ptr(), 16)
    assert place is not None
    again = arena.open_worker(place.block, place.generation, place.offset, place.bytes)
    assert _tensor(again).tolist() == [1.5] * 4
    assert _tensor(again).data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("local_first", [True, False])
def test_a_worker_block_lives_until_both_sides_let_go(
    make_arena: MakeArena, local_first: bool
) -> None:
    arena = make_arena(8192, 4096)
    tensor = _tensor(arena.allocate(4096))
    place = arena.mention(tensor.data_ptr(), 4096)
    assert place is not None

    def let_go_locally() -> None:
        nonlocal tensor
        tensor = torch.empty(0)

    def let_go_remotely() -> None:
        arena.release(place.block, place.generation, 1)

    first, second = let_go_locally, let_go_remotely
    if not local_first:
        first, second = second, first
    first()
    assert arena.stats()["blocks"] == 1
    with pytest.raises(ArenaFullError):
        arena.allocate(64)
    second()
    assert arena.stats() == {"blocks": 0, "bytes_used": 0, "largest_free": 4096, "views": 0}
    with pytest.raises(StaleTensorError):
        arena.open_worker(place.block, place.generation, place.offset, place.bytes)


def test_the_last_view_may_die_just_before_the_client_lets_go(make_arena: MakeArena) -> None:
    arena = make_arena(8192, 4096)
    tensor = _tensor(arena.allocate(64))
    place = arena.mention(tensor.data_ptr(), 64)
    assert place is not None
    del tensor
    arena.release(place.block, place.generation, 1)
    assert arena.stats()["blocks"] == 0


def test_a_view_made_from_a_mention_of_our_block_keeps_it(make_arena: MakeArena) -> None:
    arena = make_arena(8192, 4096)
    tensor = _tensor(arena.allocate(128))
    place = arena.mention(tensor.data_ptr(), 128)
    assert place is not None
    del tensor
    again = arena.open_worker(place.block, place.generation, place.offset, 64)
    arena.release(place.block, place.generation, 1)
    assert arena.stats()["blocks"] == 1
    del again
    assert arena.stats()["blocks"] == 0


def test_a_slice_is_named_inside_its_block(make_arena: MakeArena) -> None:
    arena = make_arena(8192, 4096)
    tensor = _tensor(arena.allocate(256))
    whole = arena.mention(tensor.data_ptr(), 256)
    half = arena.mention(tensor[32:].data_ptr(), 128)
    assert whole is not None
    assert half is not None
    assert (half.block, half.offset) == (whole.block, whole.offset + 128)
    # Typed arrays of the client must fit on what is named.
    assert arena.mention(tensor[1:].data_ptr(), 4) is None
    arena.release(whole.block, whole.generation, 2)


def test_client_memory_is_named_only_as_the_client_named_it(make_arena: MakeArena) -> None:
    arena = make_arena(8192, 4096)
    tensor = _tensor(arena.open_client(5, 2, 128, 256))
    place = arena.mention(tensor.data_ptr(), 256)
    assert place is not None
    assert (place.owner, place.block, place.generation) == ("client", 5, 2)
    assert arena.mention(tensor.data_ptr(), 128) is None
    assert arena.mention(torch.empty(64).data_ptr(), 256) is None


def test_memory_in_a_reference_cycle_is_found_when_room_is_needed(make_arena: MakeArena) -> None:
    arena = make_arena(8192, 4096)
    gc.disable()
    try:
        cycle: list[object] = [_tensor(arena.allocate(4096))]
        cycle.append(cycle)
        del cycle
        assert len(arena.allocate(4096)) == 4096
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("offset", "nbytes"),
    [(4096, 1), (0, 4097), (4032, 128), (2**63 - 1, 2), (2**64 - 1, 2**64 - 1)],
)
def test_refuses_client_memory_beyond_the_partition(
    make_arena: MakeArena, offset: int, nbytes: int
) -> None:
    with pytest.raises(ProtocolError, match="must end within its 4096 bytes"):
        make_arena(8192, 4096).open_client(0, 0, offset, nbytes)


@pytest.mark.parametrize(("shift", "nbytes"), [(-64, 64), (64, 128), (0, 129), (128, 1)])
def test_refuses_worker_memory_beyond_the_block(
    make_arena: MakeArena, shift: int, nbytes: int
) -> None:
    arena = make_arena(8192, 4096)
    tensor = _tensor(arena.allocate(128))
    place = arena.mention(tensor.data_ptr(), 128)
    assert place is not None
    with pytest.raises(ProtocolError, match="must lie within its 128 bytes"):
        arena.open_worker(place.block, place.generation, place.offset + shift, nbytes)


def test_refuses_to_take_back_more_than_was_given(make_arena: MakeArena) -> None:
    arena = make_arena(8192, 4096)
    tensor = _tensor(arena.allocate(64))
    place = arena.mention(tensor.data_ptr(), 64)
    assert place is not None
    with pytest.raises(ProtocolError, match="gives back 2 references to block 0, which has 1"):
        arena.release(place.block, place.generation, 2)
    with pytest.raises(StaleTensorError):
        arena.release(place.block, place.generation + 1, 1)
    arena.release(place.block, place.generation, 1)


def test_forgets_what_a_client_held(make_arena: MakeArena) -> None:
    arena = make_arena(8192, 4096)
    tensor = _tensor(arena.allocate(64))
    arena.mention(tensor.data_ptr(), 64)
    arena.give_back(0, 0)
    del tensor
    arena.forget_client()
    assert arena.stats()["blocks"] == 0
    assert arena.take_client_releases() == []


def test_refuses_a_descriptor_that_is_not_the_memory() -> None:
    fd = os.memfd_create("test")
    os.ftruncate(fd, 4096)
    with pytest.raises(InvalidArgumentError, match="`--arena-bytes` must be the size"):
        Arena(fd, 8192, 0, lambda: None)
    with pytest.raises(InvalidArgumentError, match=r"`--arena-client-bytes` must lie in 0\.\.4096"):
        Arena(fd, 4096, 4097, lambda: None)
    os.close(fd)
    with pytest.raises(InvalidArgumentError, match="must be an open descriptor"):
        Arena(fd, 4096, 0, lambda: None)
