"""What the CUDA kernel is to reach on an H100, and whether a run reached it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.gpu.cells import BEST_DENSE

__all__ = ["GOALS", "GpuGoal", "GpuVerdict", "evaluate_goals", "render_goals"]

IMPLEMENTATION = "marlin-fp16"
COPY_SHARE = "copy_share"


@dataclass(frozen=True)
class GpuGoal:
    """At least `bound` for each of `rows`, on every shape that was measured, or on one alone.

    quantity: `copy_share`, or the peer whose time is compared.
    """

    quantity: str
    rows: tuple[int, ...]
    bound: float
    shape: tuple[int, int] | None = None  # k, n


GOALS = (
    GpuGoal(COPY_SHARE, (1, 2, 4, 8, 16), 0.55, shape=(8192, 8192)),
    GpuGoal(BEST_DENSE, (1, 2, 4, 8, 16), 3.0),
    GpuGoal(BEST_DENSE, (32,), 2.0),
    GpuGoal(BEST_DENSE, (64,), 1.5),
    GpuGoal(BEST_DENSE, (128, 256, 512, 1024, 2048), 0.9),
)


@dataclass(frozen=True)
class GpuVerdict:
    """The lowest and highest of the shapes and rows of a goal, for one group size."""

    goal: GpuGoal
    group_size: int
    lowest: float
    highest: float

    @property
    def is_met(self) -> bool:
        return self.lowest >= self.goal.bound


def evaluate_goals(
    cells: Sequence[Mapping[str, Any]], goals: Sequence[GpuGoal] = GOALS
) -> list[GpuVerdict]:
    """A verdict for each goal and group size of which something was measured."""
    verdicts = []
    for goal in goals:
        for group_size in sorted({cell["group_size"] for cell in cells}, reverse=True):
            values = [
                value
                for cell in cells
                if cell["group_size"] == group_size
                for value in _values(cell, goal)
            ]
            if values:
                verdicts.append(GpuVerdict(goal, group_size, min(values), max(values)))
    return verdicts


def render_goals(verdicts: Sequence[GpuVerdict]) -> Iterator[str]:
    """One line per verdict."""
    for verdict in verdicts:
        goal = verdict.goal
        where = "" if goal.shape is None else f", {goal.shape[0]}x{goal.shape[1]}"
        rows = str(goal.rows[0]) if len(goal.rows) == 1 else f"{goal.rows[0]}-{goal.rows[-1]}"
        subject = f"{goal.quantity}, m {rows}{where}, group {verdict.group_size}"
        yield (
            f"  {subject:<48}{verdict.lowest:6.2f} - {verdict.highest:5.2f}"
            f"  >= {goal.bound:.2f}  {'met' if verdict.is_met else 'missed'}"
        )


def _values(cell: Mapping[str, Any], goal: GpuGoal) -> Iterator[float]:
    """The value of a cell that a goal speaks of, if it does and it was measured."""
    ours = cell["implementations"].get(IMPLEMENTATION)
    is_meant = goal.shape is None or goal.shape == (cell["k"], cell["n"])
    if ours is None or cell["m"] not in goal.rows or not is_meant:
        return
    if goal.quantity == COPY_SHARE:
        yield ours[COPY_SHARE]
    elif goal.quantity in ours["ratio"]:
        yield ours["ratio"][goal.quantity]["median"]
