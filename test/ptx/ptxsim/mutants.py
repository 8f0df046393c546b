"""Makes small errors in PTX text, one at a time: what a test of a kernel, and a checker, must see.

Each mutant differs from the module in one instruction, is valid PTX, and keeps line numbers. Where
an instruction could be changed in many ways, a seed draws a few.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from .edits import OTHERS, SYNCHRONISING, Edits, late_wait
from .statements import Span, Statement, statements

__all__ = ["GROUPS", "KINDS", "SYNCHRONISATION", "Mutant", "mutants"]


@dataclass(frozen=True)
class Mutant:
    """A module with one error: `before` and `after` are the instruction at `line`.

    `opcode` is that of the healthy instruction; with the line it finds its count in a report.
    """

    kind: str
    line: int
    before: str
    after: str
    opcode: str
    entry: str
    module: str = field(repr=False)  # the healthy one
    place: Span = field(repr=False)  # of what is changed in it
    changed: str = field(repr=False)

    @property
    def text(self) -> str:
        return self.with_code(self.changed)

    def with_code(self, code: str) -> str:
        """The module with other code in the place of what is changed, on as many lines."""
        lines = self.place.text.count("\n") - code.count("\n")
        code += "\n" * lines
        return self.module[: self.place.start] + code + self.module[self.place.end :]

    def __str__(self) -> str:
        return f"{self.kind}, line {self.line}: `{self.before}` -> `{self.after or 'nothing'}`"


_LATE_WAIT = "wait after barrier"
_MAKERS = SYNCHRONISING | OTHERS

SYNCHRONISATION = frozenset({*SYNCHRONISING, _LATE_WAIT})
KINDS = frozenset({*_MAKERS, _LATE_WAIT})

# What kinds have in common, for tables.
GROUPS: dict[str, frozenset[str]] = {
    "synchronisation": SYNCHRONISATION,
    "lop3 tables": frozenset({"lop3 table"}),
    "addresses and swizzles": frozenset({"xor removed", "constant", "offset moved"}),
    "operands": frozenset({"prmt selector", "selp exchanged", "mma exchanged"}),
    "predicates": frozenset({"comparison", "guard dropped", "guard negated", "copy size"}),
}


def mutants(
    text: str, entry: str, *, seed: int = 1, kinds: frozenset[str] | None = None
) -> Iterator[Mutant]:
    """All mutants of an entry, instruction by instruction.

    Args:
        text: The module.
        entry: The kernel that is changed.
        seed: Draws the bits, nibbles and registers that are changed.
        kinds: Those of KINDS that are wanted; all if there are none.
    """
    wanted = KINDS if kinds is None else kinds
    found = list(statements(text, entry))
    for number, statement in enumerate(found):
        for kind, make in _MAKERS.items():
            if kind not in wanted:
                continue
            chance = random.Random(f"{seed} {kind} {number}")
            for edits in make(statement, chance):
                yield _mutant(text, entry, kind, statement, edits)
        if _LATE_WAIT in wanted and number + 1 < len(found):
            for edits in late_wait(statement, found[number + 1]):
                yield _mutant(text, entry, _LATE_WAIT, statement, edits)


def _mutant(text: str, entry: str, kind: str, statement: Statement, edits: Edits) -> Mutant:
    start = statement.whole.start
    end = max(statement.whole.end, *(span.end for span, _ in edits))
    changed = ""
    at = start
    for span, new in sorted(edits, key=lambda edit: edit[0].start):
        # Dropped text leaves its line breaks.
        changed += text[at : span.start] + (new or re.sub(r"[^\n]", " ", span.text))
        at = span.end
    changed += text[at:end]
    return Mutant(
        kind=kind,
        line=statement.line,
        before=" ".join(text[start:end].split()),
        after=" ".join(changed.split()),
        opcode=statement.opcode.text,
        entry=entry,
        module=text,
        place=Span(start, end, text[start:end]),
        changed=changed,
    )
