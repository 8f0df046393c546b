"""Integer arithmetic against Python's integers."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import pytest
from snippets import (
    BITS,
    INTEGERS,
    SIXTEEN,
    THIRTY_TWO,
    check_integers,
    combined,
    dtype_of,
    evaluate_all,
    integers,
    kind_of,
    product,
    width_of,
    wrapped,
)


def clamped(value: int, kind: str) -> int:
    limits = np.iinfo(dtype_of(kind))
    return max(int(limits.min), min(int(limits.max), value))


def quotient(a: int, b: int) -> int:
    """Towards zero; PTX leaves b = 0 open, the simulator gives all ones."""
    if b == 0:
        return -1
    return abs(a) // abs(b) * (-1 if (a < 0) != (b < 0) else 1)


def remainder(a: int, b: int) -> int:
    return a if b == 0 else a - b * quotient(a, b)


def low24(value: int) -> int:
    """The lowest 24 bits, signed if the value's type is; told by `signed24`."""
    return value & 0xFFFFFF


def signed24(value: int) -> int:
    return low24(value) - (1 << 24 if value >> 23 & 1 else 0)


BINARY: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul.lo": operator.mul,
    "div": quotient,
    "rem": remainder,
    "min": min,
    "max": max,
}


@pytest.mark.parametrize("opcode", product(BINARY, INTEGERS))
def test_two_operands(opcode: str) -> None:
    kind = kind_of(opcode)
    reference = BINARY[opcode.rsplit(".", 1)[0]]
    check_integers(
        f"{opcode} %d, %a, %b;", kind, reference, a=integers(kind), b=integers(kind, seed=2)
    )


@pytest.mark.parametrize("opcode", product(["mul.hi", "mad.hi"], INTEGERS))
def test_high_halves(opcode: str) -> None:
    kind, width = kind_of(opcode), width_of(opcode)
    few = integers(kind)[::2]
    if opcode.startswith("mul"):
        check_integers(
            f"{opcode} %d, %a, %b;", kind, lambda a, b: a * b >> width, a=few, b=integers(kind)
        )
        return
    check_integers(
        f"{opcode} %d, %a, %b, %c;", kind, lambda a, b, c: (a * b >> width) + c, a=few, b=few, c=few
    )


@pytest.mark.parametrize("opcode", product(["mad.lo"], INTEGERS))
def test_multiply_add(opcode: str) -> None:
    few = integers(kind_of(opcode))[::2]
    check_integers(
        f"{opcode} %d, %a, %b, %c;", kind_of(opcode), lambda a, b, c: a * b + c, a=few, b=few, c=few
    )


@pytest.mark.parametrize("opcode", product(["mul.wide", "mad.wide"], SIXTEEN + THIRTY_TWO))
def test_wide_products(opcode: str) -> None:
    kind = kind_of(opcode)
    wide = f"{kind[0]}{2 * width_of(opcode)}"
    few, addends = integers(kind)[::2], integers(wide)[::2]
    if opcode.startswith("mul"):
        check_integers(f"{opcode} %d, %a, %b;", wide, operator.mul, a=few, b=integers(kind))
        return
    body = f"{opcode} %d, %a, %b, %c;"
    check_integers(body, wide, lambda a, b, c: a * b + c, a=few, b=few, c=addends)


@pytest.mark.parametrize(
    ("opcode", "reference"),
    [("add.sat.s32", lambda a, b: a + b), ("sub.sat.s32", lambda a, b: a - b)],
)
def test_saturated_sums(opcode: str, reference: Callable[[int, int], int]) -> None:
    check_integers(
        f"{opcode} %d, %a, %b;",
        "s32",
        lambda a, b: clamped(reference(a, b), "s32"),
        a=integers("s32"),
        b=integers("s32", seed=2),
    )


def test_saturated_multiply_add() -> None:
    few = integers("s32")[::2]
    check_integers(
        "mad.hi.sat.s32 %d, %a, %b, %c;",
        "s32",
        lambda a, b, c: clamped((a * b >> 32) + c, "s32"),
        a=few,
        b=few,
        c=integers("s32"),
    )


@pytest.mark.parametrize(
    "opcode", [*product(["mul24", "mad24"], ["lo", "hi"], THIRTY_TWO), "mad24.hi.sat.s32"]
)
def test_products_of_24_bits(opcode: str) -> None:
    kind = kind_of(opcode)
    part = signed24 if kind == "s32" else low24
    shift = 16 if ".hi" in opcode else 0
    values = np.array([0, 1, 0x7FFFFF, 0x800000, 0xFFFFFF, 0x12345678, 0xFFFFFFFF], "u4")
    values = values.view(dtype_of(kind))

    def reference(a: int, b: int, c: int = 0) -> int:
        total = wrapped(part(a) * part(b) >> shift, dtype_of(kind)) + c
        return clamped(total, kind) if ".sat" in opcode else total

    if opcode.startswith("mul"):
        check_integers(f"{opcode} %d, %a, %b;", kind, reference, a=values, b=values)
    else:
        check_integers(
            f"{opcode} %d, %a, %b, %c;", kind, reference, a=values, b=values, c=integers(kind)
        )


@pytest.mark.parametrize(
    ("opcode", "reference"),
    [
        *((f"neg.{kind}", operator.neg) for kind in ("s16", "s32", "s64")),
        *((f"abs.{kind}", abs) for kind in ("s16", "s32", "s64")),
        *((f"not.{kind}", operator.inv) for kind in BITS),
        *((f"cnot.{kind}", lambda a: a == 0) for kind in BITS),
        *((f"mov.{kind}", lambda a: a) for kind in (*BITS, *INTEGERS)),
    ],
)
def test_one_operand(opcode: str, reference: Callable[[int], int]) -> None:
    kind = kind_of(opcode)
    check_integers(f"{opcode} %d, %a;", kind, reference, a=integers(kind))


@pytest.mark.parametrize("opcode", product(["sad"], INTEGERS))
def test_sum_of_a_difference(opcode: str) -> None:
    few = integers(kind_of(opcode))[::2]
    body = f"{opcode} %d, %a, %b, %c;"
    check_integers(body, kind_of(opcode), lambda a, b, c: abs(a - b) + c, a=few, b=few, c=few)


def parts(word: int, bits: int, kind: str) -> list[int]:
    dtype = np.dtype(f"{'i' if kind == 's32' else 'u'}{bits // 8}")
    return [wrapped(word >> bits * n, dtype) for n in range(32 // bits)]


@pytest.mark.parametrize(
    "opcode",
    product(["dp4a", "dp2a.lo", "dp2a.hi"], THIRTY_TWO, THIRTY_TWO),
)
def test_dot_products(opcode: str) -> None:
    of_a, of_b = opcode.split(".")[-2:]

    def reference(a: int, b: int, c: int) -> int:
        left = parts(a, 8 if "dp4a" in opcode else 16, of_a)
        right = parts(b, 8, of_b)[2 if ".hi" in opcode else 0 :]
        return sum(x * y for x, y in zip(left, right, strict=False)) + c

    words = np.array([0, 0x01020304, 0x80808080, 0x7F7F7F7F, 0xFFFFFFFF, 0x80FF7F01], "u4")
    check_integers(f"{opcode} %d, %a, %b, %c;", "u32", reference, a=words, b=words, c=words)


@pytest.mark.parametrize(
    ("kind", "op", "reference"),
    [
        (f"u{w}", op, f)
        for w in (32, 64)
        for op, f in (("add", operator.add), ("sub", operator.sub))
    ],
)
def test_carries_of_three_words(kind: str, op: str, reference: Callable[[int, int], int]) -> None:
    dtype, width = dtype_of(kind), int(kind[1:])
    edges = np.array([0, 1, (1 << width) - 1, 1 << (width - 1)], dtype)
    inputs = dict(zip("abcefg", combined(*[edges] * 6), strict=True))
    got = evaluate_all(
        f"{op}.cc.{kind} %x, %a, %e;\n{op}c.cc.{kind} %y, %b, %f;\n{op}c.{kind} %z, %c, %g;",
        dict.fromkeys("xyz", dtype),
        **inputs,
    )

    def joined(words: str, source: dict[str, np.ndarray]) -> np.ndarray:
        return sum(source[w].astype(object) << width * n for n, w in enumerate(words))

    expected = reference(joined("abc", inputs), joined("efg", inputs)) % (1 << 3 * width)
    assert (joined("xyz", got) == expected).all()


@pytest.mark.parametrize("kind", ["u32", "u64"])
def test_carries_of_products(kind: str) -> None:
    """{y, x} = a b + {f, e}"""
    dtype, width = dtype_of(kind), int(kind[1:])
    inputs = dict(zip("abef", combined(*[integers(kind)[::3]] * 4), strict=True))
    got = evaluate_all(
        f"mad.lo.cc.{kind} %x, %a, %b, %e;\nmadc.hi.{kind} %y, %a, %b, %f;",
        dict.fromkeys("xy", dtype),
        **inputs,
    )
    a, b, e, f = (inputs[name].astype(object) for name in "abef")
    expected = (a * b + (f << width) + e) % (1 << 2 * width)
    assert ((got["y"].astype(object) << width) + got["x"].astype(object) == expected).all()
