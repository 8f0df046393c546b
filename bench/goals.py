"""What the CPU Linear is to reach, as data, and what a run says about it.

A goal is met when every shape of the run meets it. Knows no torch and no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["GOALS", "QUIET", "Goal", "Row", "evaluate", "is_quiet", "render"]

Verdict = Literal["met", "missed", "absent", "disturbed", "no goal"]

QUIET = 0.25  # CPUs that others may keep busy in a cell that is worth a verdict


@dataclass(frozen=True)
class Goal:
    """Bounds of one quantity of one implementation.

    quantity: `read_share` of the bandwidth, `dot_share` of the operations per second of `dot_kind`,
        `time_vs_m1` (time of this row count / time of one row), or the name of a peer: its time /
        ours.
    bounds: for each m.
    threads: "all" cores of the machine, or "one".
    isa: of the run: "native", or "avx2".
    at_most: the bound is the highest that is good, not the lowest.
    dot_kind: the kind of numbers of a `dot_share`; a run that has another one says nothing.
    """

    implementation: str
    quantity: str
    bounds: Mapping[int, float]
    threads: Literal["all", "one"] = "all"
    isa: str = "native"
    at_most: bool = False
    dot_kind: str | None = None


GOALS = (
    Goal("marlin", "read_share", {1: 0.90}),
    Goal("marlin", "read_share", {1: 0.85}, threads="one"),
    Goal("marlin", "time_vs_m1", {4: 1.15}, at_most=True),
    Goal("marlin", "dot_share", {16: 0.75, 128: 0.80, 512: 0.80}, dot_kind="bfloat16"),
    Goal("marlin", "torch-int4", {1: 1.2, 4: 1.9, 16: 2.8, 128: 2.6, 512: 2.5}),
    Goal("marlin", "torch-bf16", {1: 6.0, 4: 5.5, 16: 2.4, 128: 1.05, 512: 1.0}),
    Goal("marlin-int8", "ort-int8", {1: 2.0, 4: 2.0, 16: 2.0, 64: 2.0, 128: 2.0, 512: 2.0}),
    Goal("marlin-int8", "torch-bf16", {512: 1.7}),
    Goal("marlin-int8", "dot_share", {128: 0.73, 512: 0.73}, dot_kind="int8"),
    Goal("marlin", "torch-int4", {1: 3.0}, threads="one", isa="avx2"),
)


@dataclass(frozen=True)
class Row:
    """One goal at one m and group size: the lowest and highest median of the shapes."""

    goal: Goal
    m: int
    group_size: int
    low: float | None
    high: float | None
    verdict: Verdict


def evaluate(run: Mapping[str, Any], goals: Sequence[Goal] = GOALS) -> list[Row]:
    """The rows of one run: what `measure_linear.py` writes, with `threads`, `isa` and `cells`.

    Goals for another number of threads are shown without a verdict, unless the same quantity has a
    goal of its own for this one.
    """
    fitting = [goal for goal in goals if goal.isa == run["isa"]]
    judged = [goal for goal in fitting if _is_for(goal, run)]
    own = {(goal.implementation, goal.quantity) for goal in judged}
    rows = []
    for goal in fitting:
        is_judged = goal in judged
        if not is_judged and (goal.implementation, goal.quantity) in own:
            continue
        for group_size in sorted({cell["group_size"] for cell in run["cells"]}):
            for m, bound in goal.bounds.items():
                cells = [
                    cell
                    for cell in run["cells"]
                    if (cell["m"], cell["group_size"]) == (m, group_size)
                ]
                if not cells:
                    continue
                values = [_value(cell, goal) for cell in cells]
                known = [value for value in values if value is not None]
                verdict = _verdict(known, bound, goal.at_most) if is_judged else "no goal"
                if len(known) < len(values):
                    verdict = "absent"
                elif is_judged and not all(map(is_quiet, cells)):
                    verdict = "disturbed"
                low, high = (min(known), max(known)) if known else (None, None)
                rows.append(Row(goal, m, group_size, low, high, verdict))
    return rows


def is_quiet(cell: Mapping[str, Any]) -> bool:
    """Whether other processes left the machine to the bench, as far as the system tells."""
    return cell["other_cpus"] is None or bool(cell["other_cpus"] <= QUIET)


def render(rows: Sequence[Row]) -> Iterator[str]:
    """One line per row, for people."""
    for row in rows:
        goal = row.goal
        name = f"{goal.implementation} {_QUANTITIES.get(goal.quantity, f'vs {goal.quantity}')}"
        if goal.dot_kind is not None:
            name += f" ({goal.dot_kind})"
        measured = "-" if row.low is None else f"{row.low:.2f} - {row.high:.2f}"
        sign = "<=" if goal.at_most else ">="
        bound = "" if row.verdict == "no goal" else f"{sign} {goal.bounds[row.m]:.2f}"
        yield (
            f"  {name:<38} group {row.group_size:<4} m {row.m:<4} {measured:>13}  {bound:<8}"
            f"{row.verdict}"
        )


_QUANTITIES = {
    "read_share": "share of read bandwidth",
    "dot_share": "share of dot peak",
    "time_vs_m1": "time / time of m 1",
}


def _is_for(goal: Goal, run: Mapping[str, Any]) -> bool:
    threads, cores = run["threads"], run["machine"]["cores"]
    if goal.threads == "one":
        return bool(threads == 1)
    return cores is not None and bool(threads == cores)


def _value(cell: Mapping[str, Any], goal: Goal) -> float | None:
    measured = cell["implementations"].get(goal.implementation)
    if measured is None:
        return None
    if goal.quantity in _QUANTITIES:
        if goal.dot_kind is not None and measured["dot_kind"] != goal.dot_kind:
            return None
        spread = measured[goal.quantity]
    else:
        spread = measured["ratio"].get(goal.quantity)
    return None if spread is None else float(spread["median"])


def _verdict(values: Sequence[float], bound: float, at_most: bool) -> Verdict:
    if not values:
        return "absent"
    is_met = max(values) <= bound if at_most else min(values) >= bound
    return "met" if is_met else "missed"
