"""Hands out blocks of one partition of the arena: best fit, freed neighbours are joined.

Pure bookkeeping on offsets: knows no memory, no thread and no reference count. The table is private
to this process; nothing in shared memory is ever parsed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from typing import Final

from marlin.errors import ArenaFullError, StaleTensorError

__all__ = ["ALIGNMENT", "Block", "Partition"]

# One cache line, and the widest vector load: a tensor at a block's start is aligned for any kernel.
ALIGNMENT: Final = 64


@dataclass(slots=True, eq=False)
class Block:
    """A range of the arena: `size` bytes (a multiple of 64) at `offset` from the arena's start."""

    id: int
    generation: int
    offset: int
    size: int
    local: int = 0  # views of this process on the block
    foreign: int = 0  # mentions to the peer that it has not given back


class Partition:
    """The blocks of `[start, start + size)`."""

    def __init__(self, name: str, start: int, size: int) -> None:
        self._name = name
        # Only whole lines are handed out, so that every offset is a multiple of 64.
        first = -(-start // ALIGNMENT) * ALIGNMENT
        last = (start + size) // ALIGNMENT * ALIGNMENT
        self._free: dict[int, int] = {}  # offset -> size
        self._free_ends: dict[int, int] = {}  # end -> offset
        self._by_size: list[tuple[int, int]] = []  # sorted (size, offset)
        self._blocks: dict[int, Block] = {}
        self._offsets: list[int] = []  # sorted offsets of live blocks
        self._at: dict[int, Block] = {}  # offset -> live block
        self._generations: list[int] = []  # by block id; the next one to use
        self._idle_ids: list[int] = []
        if last > first:
            self._add_free(first, last - first)

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def used(self) -> int:
        """Bytes in live blocks."""
        return sum(block.size for block in self._blocks.values())

    @property
    def largest_free(self) -> int:
        """Bytes of the largest block that could be allocated now."""
        return self._by_size[-1][0] if self._by_size else 0

    def allocate(self, nbytes: int) -> Block:
        """A new block of at least `nbytes` bytes, at least one line; raises ArenaFullError."""
        size = max(ALIGNMENT, -(-nbytes // ALIGNMENT) * ALIGNMENT)
        found = bisect_left(self._by_size, (size, 0))
        if found == len(self._by_size):
            raise ArenaFullError(
                f"The {self._name}'s partition of the shared memory has no room for {nbytes} "
                f"bytes; the largest free range has {self.largest_free}.",
                requested=nbytes,
                largest_free=self.largest_free,
                partition=self._name,
            )
        free_size, offset = self._by_size[found]
        self._remove_free(offset, free_size)
        if free_size > size:
            self._add_free(offset + size, free_size - size)
        if self._idle_ids:
            block_id = self._idle_ids.pop()
        else:
            block_id = len(self._generations)
            self._generations.append(0)
        block = Block(block_id, self._generations[block_id], offset, size)
        self._blocks[block_id] = block
        self._at[offset] = block
        insort(self._offsets, offset)
        return block

    def free(self, block: Block) -> None:
        """Takes `block` back; its id may be used again with the next generation."""
        del self._blocks[block.id]
        del self._at[block.offset]
        del self._offsets[bisect_left(self._offsets, block.offset)]
        self._generations[block.id] += 1
        self._idle_ids.append(block.id)
        offset, size = block.offset, block.size
        if (after := self._free.get(offset + size)) is not None:
            self._remove_free(offset + size, after)
            size += after
        if (before := self._free_ends.get(offset)) is not None:
            self._remove_free(before, offset - before)
            offset, size = before, size + offset - before
        self._add_free(offset, size)

    def lookup(self, block_id: int, generation: int) -> Block:
        """The live block of that name; raises StaleTensorError."""
        block = self._blocks.get(block_id)
        if block is None or block.generation != generation:
            raise StaleTensorError(
                f"A tensor names block {block_id} of generation {generation} in the {self._name}'s "
                "partition, but that memory was freed."
            )
        return block

    def containing(self, offset: int, nbytes: int) -> Block | None:
        """The live block that holds all of `[offset, offset + nbytes)`, if there is one."""
        at = bisect_right(self._offsets, offset) - 1
        if at < 0:
            return None
        block = self._at[self._offsets[at]]
        return block if offset + nbytes <= block.offset + block.size else None

    def blocks(self) -> list[Block]:
        """All live blocks."""
        return list(self._blocks.values())

    def _add_free(self, offset: int, size: int) -> None:
        self._free[offset] = size
        self._free_ends[offset + size] = offset
        insort(self._by_size, (size, offset))

    def _remove_free(self, offset: int, size: int) -> None:
        del self._free[offset]
        del self._free_ends[offset + size]
        del self._by_size[bisect_left(self._by_size, (size, offset))]
