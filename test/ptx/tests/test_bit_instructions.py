"""Logic, shifts, permutations and fields of bits against Python's integers."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import pytest
from snippets import (
    BITS,
    INTEGERS,
    SIXTY_FOUR,
    THIRTY_TWO,
    assert_same_bits,
    check_integers,
    combined,
    dtype_of,
    evaluate,
    evaluate_all,
    integers,
    kind_of,
    product,
    width_of,
)

FEW = np.array([0, 1, 2, 5, 8, 15, 16, 17, 30, 31, 32, 33, 63, 64, 65, 255, 256, 0xFFFFFFFF], "u4")


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
