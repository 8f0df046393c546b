"""Runs mutants of a kernel and says which of them are noticed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from .mutants import Mutant
from .simulator import Options, Report, SimulatorError

__all__ = ["Outcome", "Simulate", "Survey", "survey"]

# Runs a module of this text: its report, and in words what is wrong with its results.
Simulate = Callable[[str, Options], tuple[Report, list[str]]]

# A mutant may run this much longer than the healthy kernel.
_STEPS = 4
_MORE_STEPS = 10_000


@dataclass(frozen=True)
class Outcome:
    """What came of a mutant.

    `verdict` is `not executed`, `caught` or `survived`, `by` the kinds of the findings, `wrong
    results`, or `error` where the simulator refused the launch.
    """

    mutant: Mutant
    verdict: str
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Survey:
    """The outcomes of all mutants of a kernel."""

    outcomes: list[Outcome]

    def survivors(self, kinds: Iterable[str] | None = None) -> list[Mutant]:
        """Mutants that ran and that nobody noticed, of some kinds or of all."""
        wanted = None if kinds is None else set(kinds)
        return [
            outcome.mutant
            for outcome in self.outcomes
            if outcome.verdict == "survived" and (wanted is None or outcome.mutant.kind in wanted)
        ]

    def share_caught(self) -> float:
        """Of those that were executed."""
        verdicts = Counter(outcome.verdict for outcome in self.outcomes)
        return verdicts["caught"] / max(verdicts["caught"] + verdicts["survived"], 1)

    def table(self) -> str:
        """One line per kind, and one for all: mutants, not executed, caught, survived."""
        counts = Counter((outcome.mutant.kind, outcome.verdict) for outcome in self.outcomes)
        kinds = dict.fromkeys(outcome.mutant.kind for outcome in self.outcomes)
        columns = ("not executed", "caught", "survived")
        lines = [f"{'kind':<22}{'mutants':>9}" + "".join(f"{name:>14}" for name in columns)]
        rows = [(kind, [counts[kind, name] for name in columns]) for kind in kinds]
        rows.append(("all", [sum(row[1][i] for row in rows) for i in range(len(columns))]))
        for kind, row in rows:
            lines.append(f"{kind:<22}{sum(row):>9}" + "".join(f"{count:>14}" for count in row))
        return "\n".join(lines)


def survey(
    simulate: Simulate,
    text: str,
    mutants: Iterable[Mutant],
    options: Sequence[Options] = (Options(),),
) -> Survey:
    """Runs each mutant under all options, until it is noticed.

    Findings that the healthy module has, too, don't count: so all checks can be on, even those that
    a compiler is known to offend.

    Args:
        simulate: Runs the launch with another text.
        text: The healthy module, whose results must be right.
        mutants: Of that module.
        options: How they run; their limits are set from the healthy launch.
    """
    plans = [_plan(simulate, text, one) for one in options]
    executed = set[tuple[int, str]]().union(*(plan.executed for plan in plans))
    outcomes = []
    for mutant in mutants:
        if not _may_matter(mutant, executed):
            outcomes.append(Outcome(mutant, "not executed"))
            continue
        by: tuple[str, ...] = ()
        for plan in plans:
            by = by or _noticed(simulate, mutant, plan)
        outcomes.append(Outcome(mutant, "caught" if by else "survived", by))
    return Survey(outcomes)


@dataclass(frozen=True)
class _Plan:
    options: Options
    known: frozenset[tuple[str, int]]  # findings of the healthy module: kind and line
    executed: frozenset[tuple[int, str]]  # line and opcode


def _plan(simulate: Simulate, text: str, options: Options) -> _Plan:
    report, failures = simulate(text, options)
    if failures:
        raise ValueError(f"`text`: expected a module with right results, got {failures[0]}.")
    steps = _STEPS * report.steps + _MORE_STEPS
    return _Plan(
        replace(options, max_steps=steps, patience=steps),
        frozenset((finding.kind, finding.line) for finding in report.findings),
        frozenset((one.line, one.opcode) for one in report.instructions if one.lanes > 0),
    )


def _may_matter(mutant: Mutant, executed: set[tuple[int, str]]) -> bool:
    # An instruction that no lane ran because of its guard is one that other guards let run.
    return mutant.kind.startswith("guard") or (mutant.line, mutant.opcode) in executed


def _noticed(simulate: Simulate, mutant: Mutant, plan: _Plan) -> tuple[str, ...]:
    try:
        report, failures = simulate(mutant.text, plan.options)
    except SimulatorError:
        return ("error",)
    new = (found for found in report.findings if (found.kind, found.line) not in plan.known)
    kinds = dict.fromkeys(found.kind for found in new)
    return (*kinds, *(["wrong results"] if failures else []))
