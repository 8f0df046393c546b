"""ldmatrix, stmatrix and mma, by the places of their elements."""

from __future__ import annotations

import numpy as np
import pytest
from formats import FORMATS
from snippets import run

LANES = 32
TILES = ".shared .align 16 .b8 tiles[512];"


def registers(count: int, first: int = 0) -> str:
    return f"{{{', '.join(f'%r{first + n}' for n in range(count))}}}"


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("trans", ["", ".trans"])
@pytest.mark.parametrize("space", [".shared", ""])
def test_matrices_loaded(count: int, trans: str, space: str) -> None:
    """Lane 8 j + r names row r of matrix j; rows lie in any order."""
    rows = np.arange(LANES * 8, dtype="u2").reshape(LANES, 8)
    order = np.random.default_rng(count).permutation(LANES).astype("u4")
    ran = run(
        f"""
        mad.wide.u32 %rd1, %t, 16, %rows;
        ld.global.v4.b32 {registers(4)}, [%rd1];
        mov.u32 %r8, tiles;
        mad.lo.s32 %r9, %t, 16, %r8;
        st.shared.v4.b32 [%r9], {registers(4)};
        bar.warp.sync -1;
        add.s64 %rd2, %order, %t4;
        ld.global.b32 %r10, [%rd2];
        mad.lo.s32 %r9, %r10, 16, %r8;
        cvt.u64.u32 %rd3, %r9;
        {"" if space else "cvta.shared.u64 %rd3, %rd3;"}
        ldmatrix.sync.aligned.m8n8.x{count}{trans}{space}.b16 {registers(count)}, [%rd3];
        mad.wide.u32 %rd4, %t, {4 * count}, %result;
        {"".join(f"st.global.b32 [%rd4+{4 * n}], %r{n};" for n in range(count))}
        """,
        {"rows": rows, "order": order, "result": 4 * count * LANES},
        declared=TILES,
    )
    ran.report.raise_if_found()
    got = ran.read("result", "u2").reshape(LANES, count, 2)
    for j in range(count):
        matrix = rows[order[8 * j : 8 * j + 8]]
        if trans:
            matrix = matrix.T
        for lane in range(LANES):
            at = 2 * (lane % 4)
            assert (got[lane, j] == matrix[lane // 4, at : at + 2]).all(), (j, lane)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("trans", ["", ".trans"])
def test_matrices_stored(count: int, trans: str) -> None:
    fragments = np.arange(LANES * count * 2, dtype="u2").reshape(LANES, count, 2)
    order = np.random.default_rng(count).permutation(8 * count).astype("u4")
    ran = run(
        f"""
        mad.wide.u32 %rd1, %t, {4 * count}, %fragments;
        {"".join(f"ld.global.b32 %r{n}, [%rd1+{4 * n}];" for n in range(count))}
        mov.u32 %r8, tiles;
        rem.u32 %r10, %t, {8 * count};
        mad.wide.u32 %rd2, %r10, 4, %order;
        ld.global.b32 %r10, [%rd2];
        mad.lo.s32 %r9, %r10, 16, %r8;
        stmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 [%r9], {registers(count)};
        bar.warp.sync -1;
        setp.ge.u32 %p1, %t, {8 * count};
        @%p1 ret;
        mad.lo.s32 %r9, %t, 16, %r8;
        ld.shared.v4.b32 {registers(4)}, [%r9];
        mad.wide.u32 %rd3, %t, 16, %result;
        st.global.v4.b32 [%rd3], {registers(4)};
        """,
        {"fragments": fragments, "order": order, "result": 128 * count},
        declared=TILES,
    )
    ran.report.raise_if_found()
    got = ran.read("result", "u2").reshape(8 * count, 8)
    for j in range(count):
        matrix = got[order[8 * j : 8 * j + 8]]
        if trans:
            matrix = matrix.T
        for lane in range(LANES):
            at = 2 * (lane % 4)
            assert (matrix[lane // 4, at : at + 2] == fragments[lane, j]).all(), (j, lane)


BITS = {"f16": 16, "bf16": 16, "tf32": 32, "s8": 8, "u8": 8, "s4": 4, "u4": 4}


def encoded(values: np.ndarray, kind: str) -> np.ndarray:
    """Small integers as bits of a type, in uint32."""
    if kind == "f32":
        return values.astype("f4").view("u4")
    if kind == "s32":
        return values.astype("i4").view("u4")
    if kind == "tf32":
        return values.astype("f4").view("u4")
    if kind in FORMATS:
        form = FORMATS[kind]
        return np.vectorize(form.bits_of, otypes=["u4"])(values.astype(float))
    return values.astype("i8").astype("u4") & np.uint32((1 << BITS[kind]) - 1)


def words(elements: np.ndarray, bits: int) -> np.ndarray:
    """Elements packed along the last axis, the first lowest."""
    per_word = 32 // bits
    parts = elements.reshape(*elements.shape[:-1], -1, per_word).astype("u4")
    shifts = (np.arange(per_word) * bits).astype("u4")
    return np.bitwise_or.reduce(parts << shifts, -1)


def rows_fragment(matrix: np.ndarray, bits: int) -> np.ndarray:
    """Of a (m, k), or of b transposed (n, k): registers by lane. (32, registers)

    A word holds neighbours along k; four lanes share 4 words of a row; registers go through rows
    8 apart first, then along k.
    """
    packed = words(matrix, bits)  # (m, words of k)
    groups = packed.reshape(
        -1, 8, packed.shape[1] // 4, 4
    )  # (rows / 8, row, blocks of k, lane % 4)
    return groups.transpose(1, 3, 2, 0).reshape(LANES, -1)


def sums_fragment(matrix: np.ndarray, bits: int) -> np.ndarray:
    """Of c or d (m, 8): two neighbours per lane, rows 8 apart after each other. (32, registers)"""
    groups = matrix.reshape(-1, 8, 4, 2)  # (rows / 8, row, lane % 4, neighbour)
    return words(groups.transpose(1, 2, 0, 3).reshape(LANES, -1), bits)


FLOATS = [
    ((16, 8, 8), ("f16", "f32")),
    ((16, 8, 8), ("f16", "f16")),
    ((16, 8, 16), ("f16", "f32")),
    ((16, 8, 16), ("f16", "f16")),
    ((16, 8, 8), ("bf16", "f32")),
    ((16, 8, 16), ("bf16", "f32")),
    ((16, 8, 4), ("tf32", "f32")),
    ((16, 8, 8), ("tf32", "f32")),
]
BYTES = [
    (shape, (a, b))
    for shape in [(8, 8, 16), (16, 8, 16), (16, 8, 32)]
    for a in ("s8", "u8")
    for b in ("s8", "u8")
]
NIBBLES = [
    (shape, (a, b))
    for shape in [(8, 8, 32), (16, 8, 32), (16, 8, 64)]
    for a in ("s4", "u4")
    for b in ("s4", "u4")
]


def multiplied(
    opcode: str, a: np.ndarray, b: np.ndarray, c: np.ndarray, kinds: tuple[str, str, str, str]
) -> np.ndarray:
    """d of an mma as registers of lanes, from integer matrices."""
    d_kind, a_kind, b_kind, c_kind = kinds
    of_c, of_d = ({"f16": 16}.get(kind, 32) for kind in (c_kind, d_kind))
    fragments = [
        rows_fragment(encoded(a, a_kind), BITS[a_kind]),
        rows_fragment(encoded(b.T, b_kind), BITS[b_kind]),
        sums_fragment(encoded(c, c_kind), of_c),
    ]
    counts = [fragment.shape[1] for fragment in fragments]
    of_results = a.shape[0] * 8 * of_d // 32 // LANES
    first, loads, operands = 0, [], []
    for count in counts:
        operands.append(registers(count, first))
        first += count
    loads = [f"ld.global.b32 %r{n}, [%rd1+{4 * n}];" for n in range(first)]
    stores = [f"st.global.b32 [%rd2+{4 * n}], %r{32 + n};" for n in range(of_results)]
    ran = run(
        f"""
        mad.wide.u32 %rd1, %t, {4 * first}, %fragments;
        mad.wide.u32 %rd2, %t, {4 * of_results}, %result;
        {" ".join(loads)}
        {opcode} {registers(of_results, 32)}, {", ".join(operands)};
        {" ".join(stores)}
        """,
        {"fragments": np.concatenate(fragments, 1), "result": 4 * of_results * LANES},
    )
    ran.report.raise_if_found()
    return ran.read("result", "u4").reshape(LANES, of_results)


def small_integers(kind: str, shape: tuple[int, int], seed: int) -> np.ndarray:
    low = 0 if kind[0] == "u" else -8
    high = 16 if kind[0] == "u" else 8
    return np.random.default_rng(seed).integers(low, high, shape)


@pytest.mark.parametrize(("shape", "kinds"), FLOATS)
def test_products_of_floats(shape: tuple[int, int, int], kinds: tuple[str, str]) -> None:
    """Small integers, whose sums are exact in any order."""
    (m, n, k), (kind, total) = shape, kinds
    a, b, c = (small_integers(kind, s, i) for i, s in enumerate([(m, k), (k, n), (m, n)]))
    opcode = f"mma.sync.aligned.m{m}n{n}k{k}.row.col.{total}.{kind}.{kind}.{total}"
    got = multiplied(opcode, a, b, c, (total, kind, kind, total))
    expected = sums_fragment(encoded(a @ b + c, total), 16 if total == "f16" else 32)
    assert (got == expected).all()


@pytest.mark.parametrize(("shape", "kinds"), [*BYTES, *NIBBLES])
@pytest.mark.parametrize("saturates", ["", "satfinite."])
def test_products_of_integers(
    shape: tuple[int, int, int], kinds: tuple[str, str], saturates: str
) -> None:
    m, n, k = shape
    a, b = (
        small_integers(kind, s, i)
        for i, (kind, s) in enumerate(zip(kinds, [(m, k), (k, n)], strict=True))
    )
    c = np.random.default_rng(7).integers(-1000, 1000, (m, n))
    c[0] = 2**31 - 1
    c[1] = -(2**31)
    opcode = f"mma.sync.aligned.m{m}n{n}k{k}.row.col.{saturates}s32.{'.'.join(kinds)}.s32"
    got = multiplied(opcode, a, b, c, ("s32", *kinds, "s32"))
    exact = a @ b + c
    result = np.clip(exact, -(2**31), 2**31 - 1) if saturates else exact.astype("u4").view("i4")
    assert (got == sums_fragment(encoded(result, "s32"), 32)).all()
