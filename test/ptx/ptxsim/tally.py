"""Counts what was simulated: launches by family of kernels, and mutants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock

from .mutants import GROUPS
from .report import Launch
from .survey import MUTANTS, VERDICTS, Survey

__all__ = ["Tally"]

_OTHERS = "other tests"
# Of these, findings are what is wanted.
_PROVOKED = (MUTANTS, _OTHERS)


@dataclass
class _Counts:
    """Of one family: what was launched, and what came of it."""

    kernels: set[object] = field(default_factory=set)
    shapes: set[object] = field(default_factory=set)
    schedules: set[object] = field(default_factory=set)
    launches: int = 0
    lanes: int = 0
    seconds: float = 0.0
    findings: Counter[tuple[str, str]] = field(default_factory=Counter)  # entry and kind: launches

    def add(self, launch: Launch) -> None:
        sizes = tuple((one.name, one.size) for one in launch.report.traffic.values())
        self.kernels.add((launch.entry, launch.target))
        self.shapes.add((launch.grid, launch.block, sizes))
        how = launch.options
        self.schedules.add((how.seed, how.copies_late, how.max_quantum, how.generation))
        self.launches += 1
        self.lanes += launch.report.lane_steps
        self.seconds += launch.seconds
        self.findings.update({(launch.entry, one.kind) for one in launch.report.findings})


class Tally:
    """What the launches and surveys that it was told of were."""

    def __init__(self) -> None:
        self._alone = Lock()  # surveys launch in several threads
        self._families: dict[str, _Counts] = {}
        self._verdicts: Counter[tuple[str, str, str]] = Counter()  # family, group, verdict

    def add_launch(self, launch: Launch) -> None:
        with self._alone:
            self._families.setdefault(launch.family or _OTHERS, _Counts()).add(launch)

    def add_survey(self, survey: Survey) -> None:
        for outcome in survey.outcomes:
            group = next(name for name, kinds in GROUPS.items() if outcome.mutant.kind in kinds)
            self._verdicts[survey.family, group, outcome.verdict] += 1

    def lines(self) -> list[str]:
        """The tables; nothing if no family was launched."""
        names = [name for name in self._families if name not in _PROVOKED]
        if not names:
            return []
        names += [name for name in _PROVOKED if name in self._families]
        return [*self._launches(names), *self._findings(names), *self._mutants()]

    def _launches(self, names: Iterable[str]) -> list[str]:
        head = ("kernels", "shapes", "schedules", "launches", "findings")
        rows = [("simulated", *head, "lane-instructions", "million/s")]
        for name in names:
            one = self._families[name]
            sizes = map(len, (one.kernels, one.shapes, one.schedules))
            found = "-" if name in _PROVOKED else str(sum(one.findings.values()))
            speed = f"{one.lanes / 1e6 / one.seconds:.1f}" if one.seconds > 0 else "-"
            rows.append((name, *map(str, sizes), str(one.launches), found, f"{one.lanes:,}", speed))
        return _aligned(rows)

    def _findings(self, names: Iterable[str]) -> list[str]:
        return [
            f"found in {name}: {kind} in {entry}, {launches} launches"
            for name in names
            if name not in _PROVOKED
            for (entry, kind), launches in self._families[name].findings.items()
        ]

    def _mutants(self) -> list[str]:
        rows = [("changed", "of", "mutants", *VERDICTS)]
        for family, group in dict.fromkeys(key[:2] for key in self._verdicts):
            counts = [self._verdicts[family, group, verdict] for verdict in VERDICTS]
            rows.append((group, family, str(sum(counts)), *map(str, counts)))
        if len(rows) == 1:
            return []
        sums = [sum(int(row[i]) for row in rows[1:]) for i in range(2, len(rows[0]))]
        return ["", *_aligned([*rows, ("all", "", *map(str, sums))])]


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns as wide as they must be, numbers to the right."""
    columns = []
    for column in zip(*rows, strict=True):
        width = max(map(len, column))
        is_text = any(cell.strip("-0123456789,.") for cell in column[1:])
        columns.append([cell.ljust(width) if is_text else cell.rjust(width) for cell in column])
    return ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
