"""Runs mutants of a kernel and says which of them are noticed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from threading import Lock

from buildtools.libraries import jobs

from .mutants import Mutant
from .report import Options, Report, counted_as
from .simulator import SimulatorError
from .twins import twin

__all__ = ["MUTANTS", "OBSERVERS", "Outcome", "Simulate", "Survey", "Trial", "survey"]

# Runs a module of this text: its report, and in words what is wrong with its results.
Simulate = Callable[[str, Options], tuple[Report, list[str]]]

# A mutant may run this much longer than the healthy kernel.
_STEPS = 4
_MORE_STEPS = 10_000

# Most mutants are noticed in these; it takes longer to ask what they compute.
_FIRST_TRIALS = 2

# What launches of mutants are counted as.
MUTANTS = "mutants"


@dataclass(frozen=True)
class Trial:
    """A launch that shall show what is wrong with a mutant; its limits come from the healthy one.

    It is called by several threads at a time.
    """

    simulate: Simulate
    options: Options = field(default_factory=Options)


@dataclass(frozen=True)
class Outcome:
    """What came of a mutant.

    `verdict` is `not executed`, `caught`, `equivalent` (twins.py: what it computes otherwise
    reaches nothing, in no trial) or `survived`; `by` the kinds of the findings, `wrong results`,
    or `error` where the simulator refused the launch.
    """

    mutant: Mutant
    verdict: str
    by: tuple[str, ...] = ()


VERDICTS = ("not executed", "caught", "equivalent", "survived")


@dataclass(frozen=True)
class Survey:
    """The outcomes of all mutants of a kernel."""

    family: str
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
        """Of those that were executed and compute something else."""
        verdicts = Counter(outcome.verdict for outcome in self.outcomes)
        return verdicts["caught"] / max(verdicts["caught"] + verdicts["survived"], 1)

    def table(self) -> str:
        """One line per kind, and one for all: mutants, and those of each verdict."""
        counts = Counter((outcome.mutant.kind, outcome.verdict) for outcome in self.outcomes)
        kinds = dict.fromkeys(outcome.mutant.kind for outcome in self.outcomes)
        lines = [f"{'kind':<22}{'mutants':>9}" + "".join(f"{name:>14}" for name in VERDICTS)]
        rows = [(kind, [counts[kind, name] for name in VERDICTS]) for kind in kinds]
        rows.append(("all", [sum(row[1][i] for row in rows) for i in range(len(VERDICTS))]))
        for kind, row in rows:
            lines.append(f"{kind:<22}{sum(row):>9}" + "".join(f"{count:>14}" for count in row))
        return "\n".join(lines)


# Called with each survey that has a family.
OBSERVERS: list[Callable[[Survey], None]] = []


def survey(
    text: str,
    mutants: Iterable[Mutant],
    trials: Sequence[Trial],
    *,
    family: str = "",
    finds_equivalents: bool = False,
) -> Survey:
    """Runs each mutant in all trials, until it is noticed; several mutants at a time.

    Findings that the healthy module has, too, don't count: so all checks can be on, even those that
    a compiler is known to offend.

    Args:
        text: The healthy module, whose results must be right.
        mutants: Of that module.
        trials: What each of them must pass unnoticed to survive.
        family: What the kernel is, for whoever counts; empty if nobody shall.
        finds_equivalents: Whether mutants that nobody notices are asked if what they compute
            otherwise reaches anything. The answer is worth what the trials show of a kernel.
    """
    plans = [_Plan(text, trial) for trial in trials]
    plans[0].healthy()  # complains of a wrong module, even if there are no mutants

    def judge(mutant: Mutant) -> Outcome:
        able = [plan for plan in plans if plan.runs(mutant)]
        if not able:
            return Outcome(mutant, "not executed")
        first, others = able[:_FIRST_TRIALS], able[_FIRST_TRIALS:]
        by = _first_notice(mutant, first)
        if not by and finds_equivalents:
            # Where it computes the same, it need not run.
            text = twin(mutant)
            others = [plan for plan in able if text is None or plan.tells_apart(text)]
            if not others:
                return Outcome(mutant, "equivalent")
        by = by or _first_notice(mutant, others)
        return Outcome(mutant, "caught" if by else "survived", by)

    with counted_as(MUTANTS):
        result = Survey(family, list(_in_threads(judge, mutants)))
    for observe in OBSERVERS if family else ():
        observe(result)
    return result


def _in_threads(judge: Callable[[Mutant], Outcome], mutants: Iterable[Mutant]) -> Iterator[Outcome]:
    """In the order of the mutants. The simulator lets other threads run beside it."""
    left = iter(mutants)
    with ThreadPoolExecutor(jobs()) as pool:
        while some := list(islice(left, 64)):
            yield from pool.map(judge, some)


class _Plan:
    """A trial with what the healthy module does in it, found out when it is first needed."""

    def __init__(self, text: str, trial: Trial) -> None:
        self._text = text
        self._trial = trial
        self._alone = Lock()
        self._healthy: _Healthy | None = None

    def healthy(self) -> _Healthy:
        with self._alone:
            if self._healthy is None:
                self._healthy = _run_healthy(self._text, self._trial)
            return self._healthy

    def runs(self, mutant: Mutant) -> bool:
        # An instruction that no lane ran because of its guard is one that other guards let run.
        place = (mutant.line, mutant.opcode)
        return mutant.kind.startswith("guard") or place in self.healthy().executed

    def notice(self, text: str) -> tuple[str, ...]:
        """What tells another text from the healthy one."""
        try:
            report, failures = self._trial.simulate(text, self.healthy().options)
        except SimulatorError:
            return ("error",)
        return (*self._new_kinds(report), *(["wrong results"] if failures else []))

    def tells_apart(self, text: str) -> bool:
        """Whether a twin traps. It may run long, and whatever else is found is no good sign."""
        report, _ = self._trial.simulate(text, replace(self._trial.options, checks_races=False))
        return bool(self._new_kinds(report))

    def _new_kinds(self, report: Report) -> dict[str, None]:
        known = self.healthy().known
        new = (found for found in report.findings if (found.kind, found.line) not in known)
        return dict.fromkeys(found.kind for found in new)


@dataclass(frozen=True)
class _Healthy:
    options: Options  # with limits
    known: frozenset[tuple[str, int]]  # findings: kind and line
    executed: frozenset[tuple[int, str]]  # line and opcode


def _run_healthy(text: str, trial: Trial) -> _Healthy:
    report, failures = trial.simulate(text, trial.options)
    if failures:
        raise ValueError(f"`text`: expected a module with right results, got {failures[0]}.")
    steps = _STEPS * report.steps + _MORE_STEPS
    return _Healthy(
        replace(trial.options, max_steps=steps, patience=steps),
        frozenset((finding.kind, finding.line) for finding in report.findings),
        frozenset((one.line, one.opcode) for one in report.instructions if one.lanes > 0),
    )


def _first_notice(mutant: Mutant, plans: Iterable[_Plan]) -> tuple[str, ...]:
    return next(filter(None, (plan.notice(mutant.text) for plan in plans)), ())
