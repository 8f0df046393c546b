"""Finds the hot loop of a kernel in its machine code, and the way through it that counts.

The hot loop is the smallest natural loop (a back edge u -> v, where every way to u leads through v)
that holds both matrix products and asynchronous copies. Of its blocks count those that an ordinary
iteration executes: neither the last tiles of a block, which have nothing left to copy, nor the end
of a column of tiles. See `ordinary_way`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.sass.listing import Instruction

__all__ = ["Block", "Loop", "blocks_of", "hot_loop", "loops_of", "ordinary_way", "repeated"]

# Global memory, other than through asynchronous copies: only the end of a column does that.
COLD = frozenset({"LDG", "STG", "LD", "ST", "ATOM", "ATOMG", "RED", "REDG", "MEMBAR"})
PRODUCT = "HMMA"
COPY = "LDGSTS"


@dataclass(frozen=True)
class Block:
    """Instructions that run one after the other, and the numbers of the blocks that may follow."""

    instructions: tuple[Instruction, ...]
    next: tuple[int, ...]

    def count(self, names: Iterable[str]) -> int:
        return sum(one.name in names for one in self.instructions)


@dataclass(frozen=True)
class Loop:
    """A natural loop: its first block, its blocks, and those that jump back to the first."""

    header: int
    blocks: frozenset[int]
    latches: frozenset[int]


def blocks_of(instructions: Sequence[Instruction]) -> list[Block]:
    """The control-flow graph, blocks in the order of their addresses."""
    known = {one.at for one in instructions}
    jumps = {one.at: one.target for one in instructions if one.is_jump and one.target in known}
    starts = set(jumps.values()) | {instructions[0].at}
    for one, after in itertools.pairwise(instructions):
        if one.at in jumps or not one.falls_through or one.name == "EXIT":
            starts.add(after.at)
    order = sorted(starts)
    number = {at: i for i, at in enumerate(order)}
    contents: list[list[Instruction]] = [[] for _ in order]
    for one in instructions:
        if one.at in number:
            current = contents[number[one.at]]
        current.append(one)
    blocks = []
    for i, content in enumerate(contents):
        last = content[-1]
        following = [i + 1] if last.falls_through and i + 1 < len(order) else []
        if last.at in jumps:
            following.append(number[jumps[last.at]])
        blocks.append(Block(tuple(content), tuple(dict.fromkeys(following))))
    return blocks


def loops_of(blocks: Sequence[Block]) -> list[Loop]:
    """The natural loops, one for each first block."""
    dominators = _dominators(blocks)
    before = _predecessors(blocks)
    latches: dict[int, set[int]] = {}
    for i, block in enumerate(blocks):
        for j in block.next:
            if dominators[i] >> j & 1:
                latches.setdefault(j, set()).add(i)
    loops = []
    for header, ends in latches.items():
        inside = {header}
        pending = list(ends)
        while pending:
            one = pending.pop()
            if one not in inside:
                inside.add(one)
                pending.extend(before[one])
        loops.append(Loop(header, frozenset(inside), frozenset(ends)))
    return loops


def hot_loop(blocks: Sequence[Block]) -> Loop:
    """The smallest loop with products and copies."""
    hot = [
        loop
        for loop in loops_of(blocks)
        if all(sum(blocks[i].count([name]) for i in loop.blocks) for name in (PRODUCT, COPY))
    ]
    if not hot:
        raise ValueError(f"no loop holds both {PRODUCT} and {COPY}")
    return min(hot, key=lambda loop: len(loop.blocks))


def ordinary_way(
    blocks: Sequence[Block], loop: Loop, wanted: tuple[int, int], *, longest: bool = False
) -> list[int]:
    """The blocks that an ordinary iteration executes, in order.

    A side of a branch that uses global memory before the sides meet again, and has no product and
    no copy, is the end of a column and is left out. Of the ways that remain those count that have
    as many asynchronous copies and products as a tile needs, `wanted`, or else the next larger
    numbers that there are. Of these the shortest is taken: what it passes by is for the first tile
    of a column, or the `longest`, which is a bound of what can come.
    """
    graph = _forward_edges(blocks, loop)
    for i, sides in _cold_sides(blocks, graph, loop).items():
        graph[i] = tuple(j for j in graph[i] if j not in sides)
    # For each block the best rest of an iteration, by the numbers of copies and products in it.
    sign = 1 if longest else -1
    best: dict[int, dict[tuple[int, int], tuple[int, int | None]]] = {}
    for i in reversed(_topological(graph, loop.header)):
        here = _copies_and_products(blocks[i])
        length = len(blocks[i].instructions)
        ways: dict[tuple[int, int], tuple[int, int | None]] = {}
        if i in loop.latches:
            ways[here] = (length, None)
        for j in graph[i]:
            for (copied, multiplied), (rest, _) in best[j].items():
                total = here[0] + copied, here[1] + multiplied
                known = ways.get(total)
                if known is None or sign * (length + rest) > sign * known[0]:
                    ways[total] = (length + rest, j)
        best[i] = ways
    totals = sorted(best[loop.header])
    total = next((one for one in totals if one >= wanted), totals[-1])
    way = [loop.header]
    while True:
        step = best[way[-1]][total][1]
        if step is None:
            return way
        here = _copies_and_products(blocks[way[-1]])
        total = total[0] - here[0], total[1] - here[1]
        way.append(step)


def _copies_and_products(block: Block) -> tuple[int, int]:
    return block.count([COPY]), block.count([PRODUCT])


def repeated(blocks: Sequence[Block], loop: Loop, way: Sequence[int]) -> list[int]:
    """The blocks of the way that lie in a loop within, which has products: they run several times
    in an iteration. With them those that jump back in it.
    """
    within = [
        one
        for one in loops_of(blocks)
        if one.header != loop.header
        and one.header in way
        and any(blocks[i].count([PRODUCT]) for i in one.blocks)
    ]
    inside = {i for one in within for i in one.blocks}
    return [i for i in range(len(blocks)) if i in inside and (i in way or _only_jumps(blocks[i]))]


def _only_jumps(block: Block) -> bool:
    return len(block.instructions) == 1 and block.instructions[0].is_jump


def _cold_sides(
    blocks: Sequence[Block], graph: dict[int, tuple[int, ...]], loop: Loop
) -> dict[int, set[int]]:
    """For each branch the sides that are no part of an ordinary iteration."""
    meets = _meeting_points(graph, loop)
    cold: dict[int, set[int]] = {}
    for i, following in graph.items():
        if len(following) < 2:
            continue
        sides = set()
        for j in following:
            region = [blocks[k] for k in _region(graph, j, meets[i])]
            is_cold = any(block.count(COLD) for block in region)
            if is_cold and not any(block.count((PRODUCT, COPY)) for block in region):
                sides.add(j)
        if len(sides) < len(following):
            cold[i] = sides
    return cold


def _region(graph: dict[int, tuple[int, ...]], start: int, stop: int | None) -> set[int]:
    """The blocks that can be reached from `start` without passing `stop`."""
    seen: set[int] = set()
    pending = [start]
    while pending:
        one = pending.pop()
        if one != stop and one not in seen:
            seen.add(one)
            pending.extend(graph[one])
    return seen


def _meeting_points(graph: dict[int, tuple[int, ...]], loop: Loop) -> dict[int, int | None]:
    """For each block the first that every way from it to the end of the iteration passes."""
    after: dict[int, set[int]] = {}
    for i in reversed(_topological(graph, loop.header)):
        rests = [after[j] for j in graph[i]]
        if i in loop.latches:
            rests.append(set())
        after[i] = {i} | set.intersection(*rests) if rests else {i}
    return {
        i: max(others - {i}, key=lambda j: len(after[j]), default=None)
        for i, others in after.items()
    }


def _forward_edges(blocks: Sequence[Block], loop: Loop) -> dict[int, tuple[int, ...]]:
    """The edges inside the loop without those that jump back, in it or in loops within.

    Blocks that do nothing but jump back in a loop within are left out.
    """
    dominators = _dominators(blocks)
    graph = {
        i: [j for j in blocks[i].next if j in loop.blocks and not dominators[i] >> j & 1]
        for i in loop.blocks
    }
    while ends := {i for i, following in graph.items() if not following} - loop.latches:
        graph = {
            i: [j for j in following if j not in ends]
            for i, following in graph.items()
            if i not in ends
        }
    return {i: tuple(following) for i, following in graph.items()}


def _topological(graph: dict[int, tuple[int, ...]], start: int) -> list[int]:
    order: list[int] = []
    seen = {start}
    pending = [(start, iter(graph[start]))]
    while pending:
        one, following = pending[-1]
        step = next((j for j in following if j not in seen), None)
        if step is None:
            order.append(one)
            pending.pop()
        else:
            seen.add(step)
            pending.append((step, iter(graph[step])))
    return order[::-1]


def _predecessors(blocks: Sequence[Block]) -> list[list[int]]:
    before: list[list[int]] = [[] for _ in blocks]
    for i, block in enumerate(blocks):
        for j in block.next:
            before[j].append(i)
    return before


def _dominators(blocks: Sequence[Block]) -> list[int]:
    """For each block, as bits, the blocks that every way from the first to it passes."""
    before = _predecessors(blocks)
    everything = (1 << len(blocks)) - 1
    dominators = [everything] * len(blocks)
    dominators[0] = 1
    changed = True
    while changed:
        changed = False
        for i in range(1, len(blocks)):
            common = everything
            for j in before[i]:
                common &= dominators[j]
            common |= 1 << i
            changed |= common != dominators[i]
            dominators[i] = common
    return dominators
