"""Asks whether what a mutant computes otherwise reaches anything.

The twin of a mutant is the healthy module, with a second set of registers for the values that the
error can change. Wherever they leave the registers - as an address, as what is stored, as a branch
- it traps if they differ from the healthy ones. A mutant whose twin never traps does the same as
the healthy module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .mutants import Mutant
from .statements import Statement, body_start, one_statement, statements

__all__ = ["twin"]

# Their first operand is their result, which depends on the others alone, of all lanes.
_ARITHMETIC = {"abs", "add", "div", "fma", "mad", "max", "min", "mma", "mul", "neg", "rem", "sub"}
_BITS = {"and", "bfe", "bfi", "lop3", "not", "or", "prmt", "shl", "shr", "xor"}
_PURE = _ARITHMETIC | _BITS | {"cvt", "cvta", "mov", "selp", "setp", "shfl"}

_COPIES = {"cp", "prefetch", "red", "st", "stmatrix"}
_CONTROL = {"bar", "barrier", "bra", "exit", "fence", "membar", "ret", "trap"}
_WITHOUT_RESULT = _COPIES | _CONTROL

_REGISTER = re.compile(r"%[A-Za-z_]+\d+\b")


def twin(mutant: Mutant) -> str | None:
    """The text of the twin; None if the mutant can't be compared in this way."""
    before, after = one_statement(mutant.before), one_statement(mutant.after)
    if before is None or after is None:
        return None
    if before.guard is not None:
        return None if after.guard is not None else _of_a_lost_guard(mutant, before)
    if before.name in _PURE and after.name in _PURE:
        return _of_another_value(mutant, after)
    return _of_other_operands(mutant, before, after)


def _of_a_lost_guard(mutant: Mutant, before: Statement) -> str:
    """It is the same where it always holds."""
    return mutant.with_code(f"{_opposite(before)} trap; {before.whole.text}")


def _opposite(s: Statement) -> str:
    """The guard that holds where that of an instruction fails."""
    guard = "" if s.guard is None else s.guard.text
    return guard.replace("@!", "@") if "!" in guard else guard.replace("@", "@!")


def _of_other_operands(mutant: Mutant, before: Statement, after: Statement) -> str | None:
    """Registers of 32 bits in the place of others are the same where they hold the same."""
    if before.opcode.text != after.opcode.text:
        return None
    pairs = [
        (old, new)
        for a, b in zip(before.operands, after.operands, strict=True)
        for old, new in zip(_parts(a.text), _parts(b.text), strict=True)
        if old != new
    ]
    if any("[" in old for old, _ in pairs):  # addresses differ whatever they hold
        return None
    checks = " ".join(f"setp.ne.b32 %differs, {old}, {new}; @%differs trap;" for old, new in pairs)
    return mutant.with_code(f"{{ .reg .pred %differs; {checks} {before.whole.text} }}")


def _parts(operand: str) -> list[str]:
    return [part.strip() for part in operand.strip("{} ").split(",")]


def _of_another_value(mutant: Mutant, after: Statement) -> str:
    code = list(statements(mutant.module, mutant.entry))
    doubled = _reached(code, _results(after))
    types = _types(mutant.module)
    at = body_start(mutant.module, mutant.entry)
    pieces = [mutant.module[:at]]
    pieces += [f" .reg .{types[_prefix(name)]} {_second(name)};" for name in sorted(doubled)]
    pieces.append(" .reg .pred %differs;")
    for statement in code:
        is_mutated = statement.whole.start == mutant.place.start
        first, last = _around(statement, after if is_mutated else statement, doubled, types)
        pieces += [mutant.module[at : statement.whole.start], first, statement.whole.text, last]
        at = statement.whole.end
    return "".join([*pieces, mutant.module[at:]])


def _reached(code: list[Statement], start: Iterable[str]) -> set[str]:
    """The registers that pure instructions compute from others of them."""
    reached: set[str] = set()
    fresh = set(start)
    while fresh:
        reached |= fresh
        fresh = {
            result
            for one in code
            if one.name in _PURE and reached.intersection(_sources(one))
            for result in _results(one)
        } - reached
    return reached


def _around(
    healthy: Statement, second: Statement, doubled: set[str], types: dict[str, str]
) -> tuple[str, str]:
    """What is done before and after an instruction for the second registers."""
    guard = healthy.guard.text + " " if healthy.guard is not None else ""
    checks = "".join(_check(healthy, name, types) for name in _uses(healthy) if name in doubled)
    results = [name for name in _results(healthy) if name in doubled]
    if healthy.name in _PURE and results:
        operands = ", ".join(operand.text for operand in second.operands)
        code = _REGISTER.sub(
            lambda name: _second(name[0]) if name[0] in doubled else name[0], operands
        )
        return f"{checks}{guard}{second.opcode.text} {code}; ", ""
    copies = (f" {guard}mov.{types[_prefix(name)]} {_second(name)}, {name};" for name in results)
    return checks, "".join(copies)


def _uses(s: Statement) -> Iterator[str]:
    """Registers of which others than registers depend."""
    if s.guard is not None:
        yield from _REGISTER.findall(s.guard.text)
    if s.name not in _PURE:
        yield from _sources(s)


def _check(s: Statement, name: str, types: dict[str, str]) -> str:
    """Traps if the second register has another value, and that matters."""
    kind = types[_prefix(name)]
    differ = "xor.pred" if kind == "pred" else f"setp.ne.{kind}"
    code = f"{differ} %differs, {name}, {_second(name)}; "
    if s.name == "cp" and len(s.operands) > 3 and name in s.operands[1].text:
        # Where it copies no byte, nobody looks at the address.
        code += f"setp.ne.and.b32 %differs, {s.operands[3].text}, 0, %differs; "
    if s.guard is not None and name not in s.guard.text:
        # Where its guard fails, nothing leaves.
        code += f"{_opposite(s)} setp.ne.b32 %differs, 0, 0; "
    return f"{code}@%differs trap; "


def _results(s: Statement) -> list[str]:
    return [] if s.name in _WITHOUT_RESULT else _REGISTER.findall(s.operands[0].text)


def _sources(s: Statement) -> list[str]:
    first = 0 if s.name in _WITHOUT_RESULT else 1
    return [name for operand in s.operands[first:] for name in _REGISTER.findall(operand.text)]


def _types(module: str) -> dict[str, str]:
    """The type of registers by their name without its number."""
    found = re.findall(r"\.reg\s+\.(\w+)\s+(%[A-Za-z_]+)<", module)
    return {name: "pred" if kind == "pred" else f"b{kind[1:]}" for kind, name in found}


def _prefix(name: str) -> str:
    return name.rstrip("0123456789")


def _second(name: str) -> str:
    return f"{name}_second"
