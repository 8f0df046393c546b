"""The shared memory of a worker and the client that spawned it: views, blocks, foreign references.

A view keeps its block alive: when the last torch storage (or numpy array) on it dies, the block's
reference is given back. Knows no message and no tensor shape.
"""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import stat
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import torch

from marlin.errors import ArenaFullError, InvalidArgumentError, ProtocolError
from marlin.worker.allocator import ALIGNMENT, Block, Partition

__all__ = ["MAX_RELEASES", "Arena", "Mention", "Owner"]

# Blocks that go back in one message; a reply has room for so many beside its value.
MAX_RELEASES: Final = 64
Owner: TypeAlias = Literal["client", "worker"]


@dataclass(frozen=True, slots=True)
class Mention:
    """A range of the arena as a message names it."""

    owner: Owner
    block: int
    generation: int
    offset: int
    bytes: int


class _View(weakref.ref[memoryview]):
    """Weak reference to the memory of one view, with the name of what it keeps alive."""

    __slots__ = ("mention", "worker_block")

    mention: Mention
    worker_block: Block | None


class Arena:
    """Mapping of the inherited descriptor; `[0, client_bytes)` is the client's, the rest ours.

    Safe to use from the I/O thread and the executor. Views die in whichever thread drops them, even
    inside the collector while a lock is held, so their end only appends to a queue.
    """

    def __init__(
        self, fd: int, nbytes: int, client_bytes: int, on_release: Callable[[], None]
    ) -> None:
        """Maps `fd`; raises InvalidArgumentError when it is not a memory of `nbytes` bytes.

        `on_release` is called, from any thread, when a view of the client's memory has died, unless
        a reply is about to take its reference along (`hold_releases`).
        """
        try:
            status = os.fstat(fd)
        except OSError as error:
            raise InvalidArgumentError(
                f"`--arena-fd` must be an open descriptor, got {fd}: {error.strerror}."
            ) from error
        if not stat.S_ISREG(status.st_mode) or status.st_size != nbytes:
            raise InvalidArgumentError(
                f"`--arena-bytes` must be the size of the memory behind `--arena-fd`, got {nbytes} "
                f"for {status.st_size}."
            )
        if not 0 <= client_bytes <= nbytes:
            raise InvalidArgumentError(
                f"`--arena-client-bytes` must lie in 0..{nbytes}, got {client_bytes}."
            )
        self.bytes = nbytes
        self.client_bytes = client_bytes
        # The client has touched every page; mapping them now spares each its fault later.
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        self._memory = memoryview(mmap.mmap(fd, nbytes, flags=flags))
        os.close(fd)
        self._address = torch.frombuffer(self._memory, dtype=torch.uint8).data_ptr()
        self._partition = Partition("worker", client_bytes, nbytes - client_bytes)
        self._lock = threading.Lock()
        self._views: dict[int, _View] = {}
        self._dead_local: deque[Block] = deque()
        self._client_releases: deque[tuple[int, int]] = deque()
        self._on_release = on_release
        # While set, nobody is told of a release: who set it sends something soon.
        self.hold_releases = False

    # Views

    def open_client(self, block: int, generation: int, offset: int, nbytes: int) -> memoryview:
        """View of the client's memory. Takes the reference that came with the mention."""
        if offset + nbytes > self.client_bytes:
            raise ProtocolError(
                f"A tensor in the client's partition must end within its {self.client_bytes} "
                f"bytes, got offset {offset} and {nbytes} bytes."
            )
        return self._view(Mention("client", block, generation, offset, nbytes), None)

    def open_worker(self, block: int, generation: int, offset: int, nbytes: int) -> memoryview:
        """View of our own memory, named by the client; raises StaleTensorError. Takes nothing."""
        with self._lock:
            self._collect()
            own = self._partition.lookup(block, generation)
            if offset < own.offset or offset + nbytes > own.offset + own.size:
                raise ProtocolError(
                    f"A tensor in block {block} must lie within its {own.size} bytes at offset "
                    f"{own.offset}, got offset {offset} and {nbytes} bytes."
                )
            own.local += 1
        return self._view(Mention("worker", block, generation, offset, nbytes), own)

    def allocate(self, nbytes: int) -> memoryview:
        """View of `nbytes` fresh bytes (any content) of our partition; raises ArenaFullError."""
        try:
            block = self._allocate(nbytes)
        except ArenaFullError:
            # Tensors in reference cycles (exceptions keep their frames) still hold their blocks.
            gc.collect()
            block = self._allocate(nbytes)
        mention = Mention("worker", block.id, block.generation, block.offset, nbytes)
        return self._view(mention, block)

    # Messages

    def mention(self, address: int, nbytes: int) -> Mention | None:
        """Names the memory at `address` to the client, or None when it cannot be named.

        Memory of our partition gets a foreign reference; only aligned memory is named, so that any
        typed array fits on it. Memory of the client's can be named only as the client named it.
        The caller keeps the tensor alive until the message is sent.
        """
        offset = address - self._address
        if not 0 <= offset <= self.bytes - nbytes or offset % ALIGNMENT:
            return None
        if offset < self.client_bytes:
            for view in list(self._views.values()):
                known = view.mention
                if known.owner == "client" and (known.offset, known.bytes) == (offset, nbytes):
                    return known
            return None
        with self._lock:
            block = self._partition.containing(offset, nbytes)
            if block is None:
                return None
            block.foreign += 1
            return Mention("worker", block.id, block.generation, offset, nbytes)

    def release(self, block: int, generation: int, count: int) -> None:
        """The client gives back `count` references to a block of ours."""
        with self._lock:
            # First: a block must not be freed under our hands.
            self._collect()
            own = self._partition.lookup(block, generation)
            if count > own.foreign:
                raise ProtocolError(
                    f"`release` gives back {count} references to block {block}, which has "
                    f"{own.foreign}."
                )
            own.foreign -= count
            self._free_if_unused(own)

    def give_back(self, block: int, generation: int) -> None:
        """Gives back a reference to a client's block of which no view was made."""
        self._client_releases.append((block, generation))

    def take_client_releases(self) -> list[tuple[int, int, int]]:
        """What the client gets back now: `(block, generation, count)`, each block once.

        At most `MAX_RELEASES` blocks, so that a message holds them; the others stay.
        """
        counts: Counter[tuple[int, int]] = Counter()
        # Both threads take from here, so that what was there may be gone.
        with contextlib.suppress(IndexError):
            while self._client_releases and len(counts) < MAX_RELEASES:
                counts[self._client_releases.popleft()] += 1
        return [(block, generation, count) for (block, generation), count in counts.items()]

    @property
    def has_client_releases(self) -> bool:
        return bool(self._client_releases)

    def forget_client(self) -> None:
        """The client is gone: it holds nothing any more, and is owed nothing."""
        with self._lock:
            self._collect()
            for block in self._partition.blocks():
                block.foreign = 0
                self._free_if_unused(block)
        self._client_releases.clear()

    def stats(self) -> dict[str, int]:
        """`{blocks, bytes_used, largest_free, views}`; `views` lie on the client's memory."""
        with self._lock:
            self._collect()
            return {
                "blocks": len(self._partition),
                "bytes_used": self._partition.used,
                "largest_free": self._partition.largest_free,
                "views": sum(view.mention.owner == "client" for view in list(self._views.values())),
            }

    # Inside

    def _allocate(self, nbytes: int) -> Block:
        with self._lock:
            self._collect()
            block = self._partition.allocate(nbytes)
            block.local = 1
            return block

    def _view(self, mention: Mention, worker_block: Block | None) -> memoryview:
        memory = self._memory[mention.offset : mention.offset + mention.bytes]
        view = _View(memory, self._ended)
        view.mention = mention
        view.worker_block = worker_block
        # Keyed by identity: a weak reference to writable memory has no hash.
        self._views[id(view)] = view
        return memory

    def _ended(self, view: weakref.ref[memoryview]) -> None:
        ended = self._views.pop(id(view))
        if ended.worker_block is not None:
            self._dead_local.append(ended.worker_block)
            return
        self._client_releases.append((ended.mention.block, ended.mention.generation))
        if not self.hold_releases:
            self._on_release()

    def _collect(self) -> None:
        """Lets go of the blocks whose views have died. The lock is held."""
        while self._dead_local:
            block = self._dead_local.popleft()
            block.local -= 1
            self._free_if_unused(block)

    def _free_if_unused(self, block: Block) -> None:
        if block.local == 0 and block.foreign == 0:
            self._partition.free(block)
