"""The errors that are made in one instruction: for each kind, the edits of the text."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

from .statements import Span, Statement

__all__ = ["OTHERS", "SYNCHRONISING", "Edits", "late_wait"]

# A place of the text and what is put there.
_Edit = tuple[Span, str]
Edits = list[_Edit]
Maker = Callable[[Statement, random.Random], Iterator[Edits]]


def _modifiers(statement: Statement, modifiers: list[str]) -> _Edit:
    return statement.opcode, ".".join([statement.name, *modifiers])


def _with(statement: Statement, old: str, new: str) -> Edits:
    return [_modifiers(statement, [new if m == old else m for m in statement.modifiers])]


def _exchanged(a: Span, b: Span) -> Edits:
    return [(a, b.text), (b, a.text)]


def _dropped(statement: Statement) -> Iterator[Edits]:
    yield [(statement.whole, "")]


# Synchronisation.


def _is_barrier(s: Statement) -> bool:
    return s.name == "barrier" or (s.name == "bar" and s.modifiers[0] != "warp")


def _is_wait(s: Statement) -> bool:
    return s.opcode.text in ("cp.async.wait_group", "cp.async.wait_all")


def late_wait(s: Statement, following: Statement) -> Iterator[Edits]:
    """Each thread waits for its own copies and for nobody's after the barrier."""
    if _is_wait(s) and _is_barrier(following):
        yield _exchanged(s.whole, following.whole)


def _drop_barrier(s: Statement, _: random.Random) -> Iterator[Edits]:
    if _is_barrier(s):
        yield from _dropped(s)


def _drop_warp_barrier(s: Statement, _: random.Random) -> Iterator[Edits]:
    if s.name == "bar" and s.modifiers[0] == "warp":
        yield from _dropped(s)


def _drop_wait(s: Statement, _: random.Random) -> Iterator[Edits]:
    if _is_wait(s):
        yield from _dropped(s)


def _raise_wait(s: Statement, _: random.Random) -> Iterator[Edits]:
    if s.opcode.text == "cp.async.wait_group":
        yield [(s.operands[0], str(_integer(s.operands[0].text) + 1))]


def _drop_commit(s: Statement, _: random.Random) -> Iterator[Edits]:
    if s.opcode.text == "cp.async.commit_group":
        yield from _dropped(s)


def _drop_fence(s: Statement, _: random.Random) -> Iterator[Edits]:
    if s.name in ("fence", "membar"):
        yield from _dropped(s)


_ACCESSES = ("ld", "st", "atom", "red")
_ORDERS = ("acquire", "release", "acq_rel")
_SCOPES = ("cta", "cluster", "gpu", "sys")


def _weaken_order(s: Statement, _: random.Random) -> Iterator[Edits]:
    if s.name not in _ACCESSES:
        return
    for order in _ORDERS:
        if order in s.modifiers:
            yield _with(s, order, "relaxed")
    if s.name in ("ld", "st") and {"relaxed", "volatile"} & set(s.modifiers):
        left = [m for m in s.modifiers if m not in ("relaxed", "volatile", *_SCOPES)]
        yield [_modifiers(s, ["weak", *left])]


def _narrow_scope(s: Statement, _: random.Random) -> Iterator[Edits]:
    is_fence = s.name == "membar" or (s.name == "fence" and "proxy" not in s.modifiers)
    is_strong = s.name in ("atom", "red") or {"relaxed", *_ORDERS} & set(s.modifiers)
    # Shared memory is that of the block anyway.
    if not is_fence and (s.name not in _ACCESSES or not is_strong or "shared" in s.modifiers):
        return
    for scope in ("cluster", "gpu", "gl", "sys"):
        if scope in s.modifiers:
            yield _with(s, scope, "cta")
            return
    if s.name in ("atom", "red") and "cta" not in s.modifiers:
        order = [m for m in s.modifiers if m in ("relaxed", *_ORDERS)]
        yield [_modifiers(s, [*order, "cta", *[m for m in s.modifiers if m not in order]])]


# Arithmetic of addresses and values.


def _flip_lop3(s: Statement, chance: random.Random) -> Iterator[Edits]:
    if s.name == "lop3":
        table = s.operands[4]
        for bit in chance.sample(range(8), 2):
            yield [(table, hex(_integer(table.text) ^ 1 << bit))]


def _remove_xor(s: Statement, _: random.Random) -> Iterator[Edits]:
    if s.name == "xor":
        result, first, _second = s.operands
        rest = Span(result.start, s.operands[2].end, "")
        yield [(s.opcode, f"mov.{s.modifiers[0]}"), (rest, f"{result.text}, {first.text}")]


_MASK_BITS = 12  # of a mask that is longer, the lowest: those are addresses in shared memory


def _change_constant(s: Statement, chance: random.Random) -> Iterator[Edits]:
    if s.name not in ("and", "shl", "shr", "bfe"):
        return
    for operand in s.operands[1:]:
        if _is_integer(operand.text):
            value = _integer(operand.text)
            is_mask = s.name == "and"
            bits = min(max(abs(value).bit_length(), 1), _MASK_BITS) if is_mask else 1
            yield [(operand, str(value ^ 1 << chance.randrange(bits)))]


def _flip_prmt(s: Statement, chance: random.Random) -> Iterator[Edits]:
    if s.name == "prmt" and _is_integer(s.operands[3].text):
        selector = s.operands[3]
        change = chance.randrange(1, 8) << 4 * chance.randrange(4)
        yield [(selector, hex(_integer(selector.text) ^ change))]


_COMPARISONS = {"lt": "le", "gt": "ge", "eq": "ne", "lo": "ls", "hi": "hs"}
_COMPARISONS |= {f"{a}u": f"{b}u" for a, b in _COMPARISONS.items() if a in ("lt", "gt", "eq")}
_COMPARISONS |= {b: a for a, b in _COMPARISONS.items()}


def _change_comparison(s: Statement, _: random.Random) -> Iterator[Edits]:
    if s.name in ("setp", "set") and s.modifiers[0] in _COMPARISONS:
        yield [_modifiers(s, [_COMPARISONS[s.modifiers[0]], *s.modifiers[1:]])]


def _exchange_selp(s: Statement, _: random.Random) -> Iterator[Edits]:
    if s.name == "selp" and s.operands[1].text != s.operands[2].text:
        yield _exchanged(s.operands[1], s.operands[2])


def _exchange_mma(s: Statement, chance: random.Random) -> Iterator[Edits]:
    if s.name == "mma":
        for vector in s.operands[1:3]:
            registers = [register.strip() for register in vector.text.strip("{} ").split(",")]
            pairs = [
                (a, b)
                for b in range(len(registers))
                for a in range(b)
                if registers[a] != registers[b]
            ]
            if pairs:
                a, b = chance.choice(pairs)
                registers[a], registers[b] = registers[b], registers[a]
                yield [(vector, "{" + ", ".join(registers) + "}")]


# Predicates.


def _drop_guard(s: Statement, _: random.Random) -> Iterator[Edits]:
    if s.guard is not None:
        yield [(s.guard, "")]


def _negate_guard(s: Statement, _: random.Random) -> Iterator[Edits]:
    if s.guard is not None:
        name = s.guard.text.lstrip("@!")
        yield [(s.guard, f"@{name}" if "!" in s.guard.text else f"@!{name}")]


def _is_copy(s: Statement) -> bool:
    return s.opcode.text.startswith(("cp.async.ca", "cp.async.cg"))


def _replace_copy_size(s: Statement, _: random.Random) -> Iterator[Edits]:
    if _is_copy(s) and len(s.operands) > 3 and s.operands[3].text.startswith("%"):
        size = _integer(s.operands[2].text)
        yield [(s.operands[3], str(size))]
        yield [(s.operands[3], "0")]


# Addresses.


_ADDRESS = re.compile(r"\[\s*(?P<base>[^\s+-]+)\s*(?:(?P<sign>\+\s*-?|-)\s*(?P<offset>\w+))?\s*\]")


def _move_offset(s: Statement, _: random.Random) -> Iterator[Edits]:
    size = _access_size(s)
    for operand in s.operands if size else ():
        address = _ADDRESS.fullmatch(operand.text)
        if address is None:
            continue
        offset = _integer(address["offset"] or "0")
        moved = (-offset if "-" in (address["sign"] or "") else offset) + size
        yield [(operand, f"[{address['base']}+{moved}]" if moved else f"[{address['base']}]")]


def _access_size(s: Statement) -> int:
    """Bytes that a lane reads or writes; 0 of what is no access to global or shared memory."""
    if _is_copy(s):
        return _integer(s.operands[2].text)
    if s.name in ("ldmatrix", "stmatrix"):
        return 16
    if s.name not in _ACCESSES or "param" in s.modifiers or "local" in s.modifiers:
        return 0
    elements = [int(m[1:]) for m in s.modifiers if re.fullmatch(r"v[248]", m)]
    is_pair = s.modifiers[-1].endswith("x2")
    width = re.fullmatch(r"[a-z]+(\d+)(x2)?", s.modifiers[-1])
    bits = int(width[1]) * (2 if is_pair else 1) if width is not None else 0
    return bits // 8 * (elements[0] if elements else 1)


def _is_integer(text: str) -> bool:
    return re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|0|[1-9]\d*)U?", text) is not None


def _integer(text: str) -> int:
    return int(text.rstrip("U"), 0)


SYNCHRONISING: dict[str, Maker] = {
    "barrier dropped": _drop_barrier,
    "warp barrier dropped": _drop_warp_barrier,
    "wait dropped": _drop_wait,
    "wait raised": _raise_wait,
    "commit dropped": _drop_commit,
    "fence dropped": _drop_fence,
    "order weakened": _weaken_order,
    "scope narrowed": _narrow_scope,
}

OTHERS: dict[str, Maker] = {
    "lop3 table": _flip_lop3,
    "xor removed": _remove_xor,
    "constant": _change_constant,
    "prmt selector": _flip_prmt,
    "comparison": _change_comparison,
    "selp exchanged": _exchange_selp,
    "mma exchanged": _exchange_mma,
    "guard dropped": _drop_guard,
    "guard negated": _negate_guard,
    "copy size": _replace_copy_size,
    "offset moved": _move_offset,
}
