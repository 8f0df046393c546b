"""Comparisons and selections of integers."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from snippets import (
    BITS,
    INTEGERS,
    check_integers,
    evaluate,
    integers,
    kind_of,
    product,
    width_of,
)

COMPARISONS = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "lo": operator.lt,
    "ls": operator.le,
    "hi": operator.gt,
    "hs": operator.ge,
}
COMPARED = [
    *product(["setp"], ["eq", "ne"], BITS),
    *product(["setp"], ["eq", "ne", "lt", "le", "gt", "ge"], INTEGERS),
    *product(["setp"], ["lo", "ls", "hi", "hs"], ["u16", "u32", "u64"]),
]


@pytest.mark.parametrize("opcode", COMPARED)
def test_comparisons(opcode: str) -> None:
    kind = kind_of(opcode)
    check_integers(
        f"{opcode} %p1|%p2, %a, %b;\nselp.u32 %d, 1, 0, %p1;\n@%p2 add.u32 %d, %d, 2;",
        "u32",
        lambda a, b: 1 if COMPARISONS[opcode.split(".")[1]](a, b) else 2,
        a=integers(kind),
        b=integers(kind),
    )


@pytest.mark.parametrize("combination", ["and", "or", "xor"])
@pytest.mark.parametrize("negation", ["", "!"])
def test_comparisons_combined(combination: str, negation: str) -> None:
    combine = {"and": operator.and_, "or": operator.or_, "xor": operator.xor}[combination]

    def reference(a: int, b: int, c: int) -> int:
        other = bool(c) != (negation == "!")
        return combine(a < b, other) + 2 * combine(a >= b, other) + 4 * combine(a < b, other)

    few = np.array([-1, 0, 1], "i4")
    check_integers(
        f"""
        setp.ne.s32 %p3, %c, 0;
        setp.lt.{combination}.s32 %p1|%p2, %a, %b, {negation}%p3;
        set.lt.{combination}.s32.s32 %r3, %a, %b, {negation}%p3;
        selp.u32 %r1, 1, 0, %p1;
        selp.u32 %r2, 2, 0, %p2;
        and.b32 %r3, %r3, 4;
        or.b32 %d, %r1, %r2;
        or.b32 %d, %d, %r3;
        """,
        "u32",
        reference,
        a=few,
        b=few,
        c=few,
    )


def test_only_one_of_two_predicates() -> None:
    few = np.array([-1, 0, 1], "i4")
    check_integers(
        "setp.lt.s32 _|%p2, %a, %b;\nselp.s32 %d, 1, 0, %p2;", "s32", operator.ge, a=few, b=few
    )


@pytest.mark.parametrize(
    ("opcode", "result", "true"),
    [
        ("set.lt.u32.s32", "u32", 0xFFFFFFFF),
        ("set.lt.s32.s32", "s32", -1),
        ("set.lt.f32.s32", "u32", 0x3F800000),
    ],
)
def test_comparisons_as_values(opcode: str, result: str, true: int) -> None:
    check_integers(
        f"{opcode} %d, %a, %b;",
        result,
        lambda a, b: true if a < b else 0,
        a=integers("s32"),
        b=integers("s32"),
    )


@pytest.mark.parametrize("opcode", product(["selp"], [*BITS, *INTEGERS, "f32", "f64"]))
def test_choice_by_a_predicate(opcode: str) -> None:
    kind = f"b{width_of(opcode)}"
    check_integers(
        f"setp.ne.s32 %p1, %c, 0;\n{opcode} %d, %a, %b, %p1;",
        kind,
        lambda a, b, c: a if c else b,
        a=integers(kind),
        b=integers(kind),
        c=np.array([0, 1], "i4"),
    )


@pytest.mark.parametrize("opcode", product(["slct"], [*BITS, *INTEGERS, "f32", "f64"], ["s32"]))
def test_choice_by_a_sign(opcode: str) -> None:
    kind = f"b{opcode.split('.')[1][1:]}"
    check_integers(
        f"{opcode} %d, %a, %b, %c;",
        kind,
        lambda a, b, c: a if c >= 0 else b,
        a=integers(kind)[::4],
        b=integers(kind)[::4],
        c=integers("s32"),
    )


@pytest.mark.parametrize(
    ("opcode", "firsts"),
    [("slct.b32.f32", "1 0 1 1 0"), ("slct.ftz.b32.f32", "1 0 1 1 1")],
)
def test_choice_by_the_sign_of_a_float(opcode: str, firsts: str) -> None:
    """Of 1, NaN, -0, 1e-40 and -1e-40."""
    values = np.array([1, np.nan, -0.0, 1e-40, -1e-40], "f4")
    got = evaluate(f"{opcode} %d, 1, 0, %a;", "u4", a=values)
    assert got.tolist() == [int(first) for first in firsts.split()]
