"""How a grid is run, what comes of it, and who is told about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

GENERATIONS = ("exact", "ampere", "hopper")


@dataclass(frozen=True)
class Options:
    """How a grid is run.

    Attributes:
        seed: Draws the order in which warps run.
        generation: How tensor cores add: `exact`, `ampere` (sm_80 to sm_89) or `hopper` (sm_90).
        copies_late: Bytes of cp.async arrive when they are waited for; else when committed.
        checks_races: Whether accesses are compared with each other; costs about half of the time.
        reports_equal_writes: Whether unordered writes of the same bytes are findings, too. PTX
            calls them races; Triton relies on the opposite.
        max_quantum: Instructions that a warp runs in a row, at most.
        max_steps: Instructions of warps in all, at most.
        patience: Instructions without any progress after which the grid has livelocked.
    """

    seed: int = 1
    generation: str = "ampere"
    copies_late: bool = True
    checks_races: bool = True
    reports_equal_writes: bool = True
    max_quantum: int = 64
    max_steps: int = 1 << 31
    patience: int = 1 << 20


@dataclass(frozen=True)
class Finding:
    """Something wrong at one instruction: the first case, and the number of cases."""

    kind: str
    message: str
    line: int
    opcode: str
    block: int
    thread: int
    count: int

    def __str__(self) -> str:
        where = f"line {self.line}, `{self.opcode}`, block {self.block}, thread {self.thread}"
        return f"{self.kind} ({where}; {self.count} times): {self.message}"


@dataclass(frozen=True)
class InstructionCount:
    """What one instruction of the text cost.

    Attributes:
        warps: Issue slots: how often a warp ran it.
        wavefronts: Of shared memory; `ideal_wavefronts` of them without a bank conflict.
        sectors: Of 32 bytes of global memory.
        bytes: That lanes asked for.
    """

    line: int
    opcode: str
    warps: int
    lanes: int
    wavefronts: int = 0
    ideal_wavefronts: int = 0
    sectors: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Traffic:
    """What a grid asked of one buffer."""

    name: str
    address: int
    size: int
    read_bytes: int
    written_bytes: int
    read_sectors: int
    written_sectors: int


@dataclass(frozen=True)
class Report:
    """What came of a launch."""

    findings: list[Finding]
    instructions: list[InstructionCount]
    traffic: dict[str, Traffic]
    steps: int
    lane_steps: int

    def raise_if_found(self) -> None:
        """Raises AssertionError with all findings, if there are any."""
        if self.findings:
            raise AssertionError("\n".join(map(str, self.findings)))


@dataclass(frozen=True)
class Launch:
    """A grid that has come to its end.

    Attributes:
        target: Of the module: sm_80 and so on.
        seconds: That the simulator took.
        family: What `counted_as` said; empty if nothing.
    """

    entry: str
    target: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    options: Options
    report: Report
    seconds: float
    family: str = ""


# Called with each launch, in the thread that made it.
OBSERVERS: list[Callable[[Launch], None]] = []

_families: list[str] = []


@contextmanager
def counted_as(family: str) -> Iterator[None]:
    """Gives launches a family, in all threads; inside of another one, it is that of the other."""
    _families.append(family)
    try:
        yield
    finally:
        _families.pop()


def tell_observers(launch: Launch) -> None:
    named = replace(launch, family=_families[0]) if _families else launch
    for observe in OBSERVERS:
        observe(named)
