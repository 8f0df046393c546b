"""Finds the instructions of an entry in PTX text, with the places of their parts.

It knows no types and no registers: what it gives is text and where it stands, so that a part can be
replaced and everything else, line numbers too, stays as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Span", "Statement", "body_start", "one_statement", "statements"]

# What may stand between two instructions: scopes, labels, and directives without a semicolon.
_BEFORE = re.compile(r"(?:\s+|[{}]|\.(?:loc|file)\b[^\n]*|[\w$%]+\s*:(?!:))*")
_HEAD = re.compile(r"(?P<guard>@!?[\w$%]+\s+)?(?P<opcode>[a-z][a-z0-9_]*(?:\.[\w:]+)*)")


@dataclass(frozen=True)
class Span:
    """A piece of the module's text."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Statement:
    """One instruction: `whole` goes from its guard to its semicolon; `line` counts from 1."""

    line: int
    whole: Span
    guard: Span | None  # @%p1 or @!%p1
    opcode: Span
    operands: tuple[Span, ...]  # a vector in braces is one, and so is an address in brackets

    @property
    def name(self) -> str:
        """The opcode without its modifiers."""
        return self.opcode.text.partition(".")[0]

    @property
    def modifiers(self) -> list[str]:
        return self.opcode.text.split(".")[1:]


def statements(text: str, entry: str) -> Iterator[Statement]:
    """The instructions of an entry, in the order of the text.

    Raises:
        ValueError: The text has no such entry.
    """
    plain = _without_comments(text)
    start, end = _body(plain, entry)
    while start < end:
        stop = plain.find(";", start, end)
        if stop < 0:
            return
        before = _BEFORE.match(plain, start, stop)
        at = before.end() if before is not None else start
        head = _HEAD.match(plain, at, stop)
        if head is not None:
            yield _statement(text, plain, head, stop)
        start = stop + 1


def body_start(text: str, entry: str) -> int:
    """The place behind the brace that opens an entry."""
    return _body(_without_comments(text), entry)[0]


def one_statement(text: str) -> Statement | None:
    """The instruction that `text` is, with its semicolon; None if it is none or several."""
    head = _HEAD.match(text)
    if head is None or text.find(";") != len(text) - 1:
        return None
    return _statement(text, text, head, len(text) - 1)


def _statement(text: str, plain: str, head: re.Match[str], stop: int) -> Statement:
    guard = None
    if head["guard"] is not None:
        guard = _span(text, head.start("guard"), head.end("guard"))
    return Statement(
        line=text.count("\n", 0, head.start()) + 1,
        whole=Span(head.start(), stop + 1, text[head.start() : stop + 1]),
        guard=guard,
        opcode=_span(text, *head.span("opcode")),
        operands=tuple(_operands(text, plain, head.end(), stop)),
    )


def _operands(text: str, plain: str, start: int, stop: int) -> Iterator[Span]:
    depth = 0
    first = start
    for at in range(start, stop + 1):
        mark = plain[at] if at < stop else ","
        depth += (mark in "{[") - (mark in "}]")
        if mark == "," and depth == 0:
            span = _span(text, first, at)
            if span.text:
                yield span
            first = at + 1


def _span(text: str, start: int, end: int) -> Span:
    """The text without the white space at its ends."""
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return Span(start, start + len(piece.strip()), piece.strip())


def _without_comments(text: str) -> str:
    """Blanks of the same length in the place of comments."""
    return re.sub(
        r"//[^\n]*|/\*.*?\*/",
        lambda comment: re.sub(r"[^\n]", " ", comment.group()),
        text,
        flags=re.DOTALL,
    )


def _body(plain: str, entry: str) -> tuple[int, int]:
    head = re.search(rf"\.entry\s+{re.escape(entry)}(?![\w$])", plain)
    start = plain.find("{", head.end()) if head is not None else -1
    if start < 0:
        raise ValueError(f"`entry`: expected an entry of the module, got {entry}.")
    depth = 0
    for brace in re.finditer(r"[{}]", plain[start:]):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return start + 1, start + brace.start()
    raise ValueError(f"`text`: expected the end of the body of {entry}, got the end of the text.")
