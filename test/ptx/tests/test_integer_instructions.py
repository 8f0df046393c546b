"""Integers, logic, comparisons and selections, against Python's integers."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import pytest
from snippets import (
    assert_same_bits,
    check_integers,
    combined,
    dtype_of,
    evaluate,
    evaluate_all,
    integers,
    product,
    wrapped,
)

SIXTEEN = ("u16", "s16")
THIRTY_TWO = ("u32", "s32")
SIXTY_FOUR = ("u64", "s64")
INTEGERS = SIXTEEN + THIRTY_TWO + SIXTY_FOUR
BITS = ("b16", "b32", "b64")
FEW = np.array([0, 1, 2, 5, 8, 15, 16, 17, 30, 31, 32, 33, 63, 64, 65, 255, 256, 0xFFFFFFFF], "u4")


def kind_of(opcode: str) -> str:
    return opcode.rsplit(".", 1)[1]


def width_of(opcode: str) -> int:
    return int(kind_of(opcode)[1:])


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


@pytest.mark.parametrize(
    ("opcode", "reference"),
    [
        *((f"and.{kind}", operator.and_) for kind in BITS),
        *((f"or.{kind}", operator.or_) for kind in BITS),
        *((f"xor.{kind}", operator.xor) for kind in BITS),
    ],
)
def test_logic(opcode: str, reference: Callable[[int, int], int]) -> None:
    kind = kind_of(opcode)
    check_integers(f"{opcode} %d, %a, %b;", kind, reference, a=integers(kind), b=integers(kind, 2))


@pytest.mark.parametrize(
    ("opcode", "reference"),
    [("and", operator.and_), ("or", operator.or_), ("xor", operator.xor)],
)
def test_logic_of_predicates(opcode: str, reference: Callable[[int, int], int]) -> None:
    bits = np.array([0, 1], "u4")
    check_integers(
        f"""
        setp.ne.u32 %p1, %a, 0;
        setp.ne.u32 %p2, %b, 0;
        {opcode}.pred %p3, %p1, %p2;
        not.pred %p4, %p3;
        mov.pred %p5, %p3;
        selp.u32 %r1, 1, 0, %p5;
        selp.u32 %r2, 2, 0, %p4;
        or.b32 %d, %r1, %r2;
        """,
        "u32",
        lambda a, b: 1 if reference(a, b) else 2,
        a=bits,
        b=bits,
    )


@pytest.mark.parametrize("opcode", [*product(["shl"], BITS), *product(["shr"], INTEGERS + BITS)])
def test_shifts(opcode: str) -> None:
    kind = kind_of(opcode)
    width = width_of(opcode)

    def reference(a: int, by: int) -> int:
        by = min(by, width)
        return a << by if opcode.startswith("shl") else a >> by

    check_integers(f"{opcode} %d, %a, %b;", kind, reference, a=integers(kind), b=FEW)


@pytest.mark.parametrize("opcode", product(["shf"], "lr", ["wrap", "clamp"], ["b32"]))
def test_funnel_shifts(opcode: str) -> None:
    def reference(low: int, high: int, by: int) -> int:
        by = min(by, 32) if "clamp" in opcode else by & 31
        both = high << 32 | low
        return both << by >> 32 if ".l." in opcode else both >> by

    few = integers("u32")[::3]
    check_integers(f"{opcode} %d, %a, %b, %c;", "u32", reference, a=few, b=few, c=FEW)


@pytest.mark.parametrize("first", range(0, 256, 32))
def test_lop3_of_all_tables(first: int) -> None:
    """The 8 combinations of bits, shuffled over a word; 32 tables at a time."""
    a, b, c = (np.array([word], "u4") for word in (0xF0F00FF0, 0xCCCC3333, 0xAAAAAA55))
    tables = range(first, first + 32)
    got = evaluate_all(
        "\n".join(f"lop3.b32 %d{table}, %a, %b, %c, {table};" for table in tables),
        {f"d{table}": "u4" for table in tables},
        a=a,
        b=b,
        c=c,
    )
    for table in tables:
        expected = 0
        for bit in range(32):
            entry = sum((int(x[0]) >> bit & 1) << n for n, x in enumerate((c, b, a)))
            expected |= (table >> entry & 1) << bit
        assert int(got[f"d{table}"][0]) == expected, table


def test_prmt_of_all_selectors() -> None:
    a, b = 0x83828100, 0x7F06FF84
    every = np.arange(1 << 16, dtype="u4")
    got = evaluate(f"prmt.b32 %d, {a}, {b}, %a;", "u4", a=every)
    source = np.array([(b << 32 | a) >> 8 * n & 255 for n in range(8)], "u4")
    expected = np.zeros_like(every)
    for n in range(4):
        nibble = every >> (4 * n) & 15
        byte = source[nibble & 7]
        byte = np.where(nibble & 8, np.where(byte & 128, 255, 0), byte).astype("u4")
        expected |= byte << np.uint32(8 * n)
    assert_same_bits(got, expected, every)


# Bytes of {b, a} from the highest of the result on, by the selector's two lowest bits.
PERMUTATIONS = {
    "f4e": ("3210", "4321", "5432", "6543"),
    "b4e": ("5670", "6701", "7012", "0123"),
    "rc8": ("0000", "1111", "2222", "3333"),
    "ecl": ("3210", "3211", "3222", "3333"),
    "ecr": ("0000", "1110", "2210", "3210"),
    "rc16": ("1010", "3232", "1010", "3232"),
}


@pytest.mark.parametrize("mode", PERMUTATIONS)
def test_prmt_modes(mode: str) -> None:
    source = 0x8F7E6D5C4B3A2918
    selectors = np.array([0, 1, 2, 3, 4, 0xFFFFFFFF], "u4")
    got = evaluate(
        f"prmt.b32.{mode} %d, {source & 0xFFFFFFFF}, {source >> 32}, %a;", "u4", a=selectors
    )
    for selector, result in zip(selectors.tolist(), got.tolist(), strict=True):
        places = PERMUTATIONS[mode][selector & 3]
        expected = int("".join(f"{source >> 8 * int(p) & 255:02x}" for p in places), 16)
        assert result == expected, (hex(result), hex(expected))


def field(kind: str) -> Callable[[int, int, int], int]:
    """bfe: bits beyond the top repeat the top bit of a signed one."""
    signed = kind[0] == "s"
    width = int(kind[1:])

    def extract(a: int, position: int, length: int) -> int:
        position, length = position & 255, length & 255
        if length == 0:
            return 0
        a = a if signed else a & (1 << width) - 1
        part = a >> position  # Python's shift spreads the sign
        if length >= width:
            return part
        part &= (1 << length) - 1
        return part - (1 << length) if signed and part >> (length - 1) else part

    return extract


@pytest.mark.parametrize("opcode", product(["bfe"], THIRTY_TWO + SIXTY_FOUR))
def test_bit_fields_out(opcode: str) -> None:
    kind = kind_of(opcode)
    check_integers(
        f"{opcode} %d, %a, %b, %c;", kind, field(kind), a=integers(kind)[::2], b=FEW, c=FEW
    )


@pytest.mark.parametrize("opcode", ["bfi.b32", "bfi.b64"])
def test_bit_fields_in(opcode: str) -> None:
    kind = kind_of(opcode)
    few = integers(kind)[::4]

    def insert(a: int, b: int, position: int, length: int) -> int:
        position, length = position & 255, length & 255
        mask = ((1 << length) - 1) << position
        return b & ~mask | a << position & mask

    check_integers(f"{opcode} %d, %a, %b, %c, %e;", kind, insert, a=few, b=few, c=FEW, e=FEW)


def highest(kind: str, *, from_top: bool) -> Callable[[int], int]:
    width = int(kind[1:])

    def find(a: int) -> int:
        bits = (~a if a < 0 else a).bit_length()
        return -1 if bits == 0 else width - bits if from_top else bits - 1

    return find


@pytest.mark.parametrize(
    ("opcode", "result", "reference"),
    [
        *((f"popc.{kind}", "u32", int.bit_count) for kind in ("b32", "b64")),
        *((f"clz.b{w}", "u32", lambda a, w=w: w - a.bit_length()) for w in (32, 64)),
        *((f"brev.b{w}", f"b{w}", lambda a, w=w: int(f"{a:0{w}b}"[::-1], 2)) for w in (32, 64)),
        *(
            (f"bfind.{kind}", "u32", highest(kind, from_top=False))
            for kind in THIRTY_TWO + SIXTY_FOUR
        ),
        *(
            (f"bfind.shiftamt.{kind}", "u32", highest(kind, from_top=True))
            for kind in THIRTY_TWO + SIXTY_FOUR
        ),
    ],
)
def test_bits_counted(opcode: str, result: str, reference: Callable[[int], int]) -> None:
    check_integers(f"{opcode} %d, %a;", result, reference, a=integers(kind_of(opcode)))


@pytest.mark.parametrize("opcode", product(["bmsk"], ["wrap", "clamp"], ["b32"]))
def test_masks(opcode: str) -> None:
    def reference(position: int, length: int) -> int:
        limit = (lambda n: min(n, 32)) if "clamp" in opcode else (lambda n: n & 31)
        return ((1 << limit(length)) - 1) << limit(position)

    check_integers(f"{opcode} %d, %a, %b;", "b32", reference, a=FEW, b=FEW)


@pytest.mark.parametrize("opcode", product(["szext"], ["wrap", "clamp"], THIRTY_TWO))
def test_extension_from_a_width(opcode: str) -> None:
    kind = kind_of(opcode)

    def reference(a: int, length: int) -> int:
        length = min(length & 0xFFFFFFFF, 32) if "clamp" in opcode else length & 31
        part = a & (1 << length) - 1
        is_negative = kind == "s32" and length > 0 and part >> (length - 1)
        return part - (1 << length) if is_negative else part

    check_integers(
        f"{opcode} %d, %a, %b;", kind, reference, a=integers(kind), b=FEW.view(dtype_of(kind))
    )


def test_nth_set_bit() -> None:
    def reference(bits: int, base: int, offset: int) -> int:
        if offset == 0:
            return base if bits >> base & 1 else -1
        places = range(base, 32) if offset > 0 else range(base, -1, -1)
        found = [place for place in places if bits >> place & 1]
        return found[abs(offset) - 1] if abs(offset) <= len(found) else -1

    check_integers(
        "fns.b32 %d, %a, %b, %c;",
        "u32",
        reference,
        a=integers("b32"),
        b=np.array([0, 1, 15, 31], "u4"),
        c=np.array([0, 1, 2, 3, 16, 32, -1, -2, -16, -40, -(1 << 31)], "i4"),
    )


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


def test_packing_of_registers() -> None:
    (a,) = combined(integers("b64"))
    got = evaluate_all(
        """
        mov.b64 {%r1, %r2}, %a;
        mov.b32 {%h1, %h2}, %r1;
        mov.b64 %x, {%r2, %r1};
        mov.b32 %y, {%h2, %h1};
        mov.b64 {_, %z}, %a;
        mov.b64 {%h3, %h4, %h5, %h6}, %a;
        mov.b64 %v, {%h6, %h5, %h4, %h3};
        """,
        {"x": "u8", "y": "u4", "z": "u4", "v": "u8"},
        a=a,
    )
    words = a.view("u4").reshape(-1, 2)
    halves = a.view("u2").reshape(-1, 4)
    assert_same_bits(got["x"], words[:, ::-1].copy().view("u8").ravel(), a)
    assert_same_bits(got["y"], halves[:, 1::-1].copy().view("u4").ravel(), a)
    assert_same_bits(got["z"], words[:, 1].copy(), a)
    assert_same_bits(got["v"], halves[:, ::-1].copy().view("u8").ravel(), a)
