"""allocator.py: blocks never overlap, and what is freed can be used again, joined with its like."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from marlin.errors import ArenaFullError, StaleTensorError
from marlin.worker.allocator import ALIGNMENT, Block, Partition

_START = 128
_SIZE = 64 * 100


class _PartitionMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.partition = Partition("worker", _START, _SIZE)
        self.live: list[Block] = []
        self.names: set[tuple[int, int]] = set()

    def _gaps(self) -> list[int]:
        edges = [(_START, 0), *sorted((b.offset, b.size) for b in self.live), (_START + _SIZE, 0)]
        return [after[0] - before[0] - before[1] for before, after in itertools.pairwise(edges)]

    @rule(nbytes=st.integers(0, 64 * 30))
    def allocate(self, nbytes: int) -> None:
        size = max(ALIGNMENT, -(-nbytes // ALIGNMENT) * ALIGNMENT)
        if max(self._gaps()) < size:
            with pytest.raises(ArenaFullError) as caught:
                self.partition.allocate(nbytes)
            assert caught.value.details == {
                "requested": nbytes,
                "largest_free": max(self._gaps()),
                "partition": "worker",
            }
            return
        block = self.partition.allocate(nbytes)
        assert block.size == size
        assert block.offset % ALIGNMENT == 0
        assert (block.id, block.generation) not in self.names
        self.names.add((block.id, block.generation))
        self.live.append(block)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        block = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
        self.partition.free(block)
        with pytest.raises(StaleTensorError):
            self.partition.lookup(block.id, block.generation)

    @invariant()
    def agrees_with_the_model(self) -> None:
        # A negative gap would be an overlap.
        assert min(self._gaps()) >= 0
        # Freed neighbours are joined: the largest block is as large as the largest gap.
        assert self.partition.largest_free == max(self._gaps())
        assert len(self.partition) == len(self.live)
        assert self.partition.used == sum(block.size for block in self.live)
        for block in self.live:
            assert self.partition.lookup(block.id, block.generation) is block
            assert self.partition.containing(block.offset, block.size) is block
            assert self.partition.containing(block.offset + block.size - 1, 2) is None


TestPartition = _PartitionMachine.TestCase
TestPartition.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_an_id_comes_back_with_the_next_generation() -> None:
    partition = Partition("worker", 0, 64)
    first = partition.allocate(1)
    partition.free(first)
    second = partition.allocate(1)
    assert (second.id, second.generation) == (first.id, first.generation + 1)
    with pytest.raises(StaleTensorError, match="was freed"):
        partition.lookup(first.id, first.generation)


def test_offsets_are_whole_lines_even_when_the_partition_is_not() -> None:
    partition = Partition("worker", 100, 200)
    assert partition.largest_free == 128
    assert partition.allocate(128).offset == 128


def test_a_partition_without_a_whole_line_is_full() -> None:
    with pytest.raises(ArenaFullError, match="no room for 1 bytes"):
        Partition("worker", 0, 63).allocate(1)
