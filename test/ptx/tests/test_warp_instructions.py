"""Shuffles, votes, matches and reductions, by what each lane should see."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import numpy as np
import pytest
from ptxsim import Options
from snippets import product, run

LANES = 32
MASKS = [0xFFFFFFFF, 0x0000FFFF, 0x80000001, 0x55555555]


def members(mask: int) -> list[int]:
    return [lane for lane in range(LANES) if mask >> lane & 1]


def in_lanes(body: str, mask: int, values: np.ndarray, **more: np.ndarray | int) -> np.ndarray:
    """What the lanes of a mask, which alone run the body, leave in {%r1, %r2}; others -1.

    %value holds a lane's element of `values`.
    """
    bits = 8 * values.itemsize
    ran = run(
        f"""
        .reg .b{bits} %value;
        mad.wide.u32 %rd1, %t, {values.itemsize}, %values;
        ld.global.b{bits} %value, [%rd1];
        mad.wide.u32 %rd2, %t, 8, %result;
        mov.u32 %r3, {mask};
        shr.u32 %r3, %r3, %t;
        and.b32 %r3, %r3, 1;
        setp.eq.u32 %p1, %r3, 0;
        @%p1 bra END;
        mov.u32 %r1, 0; mov.u32 %r2, 0;
        {body}
        st.global.v2.b32 [%rd2], {{%r1, %r2}};
        END:
        """,
        {"values": values, "result": np.full(2 * LANES, -1, "i4"), **more},
    )
    ran.report.raise_if_found()
    return ran.read("result", "i4").reshape(LANES, 2)


def source_lane(mode: str, lane: int, by: int, segment: int, clamp: int) -> tuple[int, bool]:
    """By the manual: the lane that is read, and whether it lay in bounds."""
    first = lane & segment
    last = first | (clamp & ~segment & 31)
    by &= 31
    if mode == "up":
        return (lane - by, True) if lane - by >= last else (lane, False)
    wanted = {"down": lane + by, "bfly": lane ^ by, "idx": first | (by & ~segment & 31)}[mode]
    return (wanted, True) if wanted <= last else (lane, False)


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize("width", [32, 16, 8, 4, 2, 1])
def test_shuffles(mode: str, width: int) -> None:
    """Segments as CUDA's `width` makes them, with every distance."""
    segment = 32 - width
    clamp = 0 if mode == "up" else 31
    values = np.arange(100, 132, dtype="i4")
    for by in (*range(0, 33, 3), 1, 2, 31, 32, 63):
        got = in_lanes(
            f"""
            shfl.sync.{mode}.b32 %r1|%p2, %value, {by}, {segment << 8 | clamp}, -1;
            selp.u32 %r2, 1, 0, %p2;
            """,
            0xFFFFFFFF,
            values,
        )
        for lane in range(LANES):
            source, is_inside = source_lane(mode, lane, by, segment, clamp)
            assert got[lane].tolist() == [100 + source, is_inside], (by, lane)


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize("clamp", [0, 5, 20, 31])
def test_clamps(mode: str, clamp: int) -> None:
    values = np.arange(LANES, dtype="i4")
    got = in_lanes(
        f"shfl.sync.{mode}.b32 %r1|%p2, %value, 7, {clamp}, -1;\nselp.u32 %r2, 1, 0, %p2;",
        0xFFFFFFFF,
        values,
    )
    expected = [source_lane(mode, lane, 7, 0, clamp) for lane in range(LANES)]
    assert got.tolist() == [list(map(int, pair)) for pair in expected]


def test_a_shuffle_by_a_distance_of_each_lane() -> None:
    order = np.random.default_rng(3).permutation(LANES).astype("i4")
    got = in_lanes("shfl.sync.idx.b32 %r1, %t, %value, 31, -1;", 0xFFFFFFFF, order)
    assert got[:, 0].tolist() == order.tolist()


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("negation", ["", "!"])
@pytest.mark.parametrize("yes", [0, 1, 0x80000001, 0xFFFFFFFF, 0x1234ABCD])
def test_votes(mask: int, negation: str, yes: int) -> None:
    values = np.array([yes >> lane & 1 for lane in range(LANES)], "i4")
    got = in_lanes(
        f"""
        setp.ne.s32 %p2, %value, 0;
        vote.sync.ballot.b32 %r1, {negation}%p2, {mask};
        vote.ballot.sync.b32 %r7, {negation}%p2, {mask};
        and.b32 %r1, %r1, %r7;
        vote.sync.all.pred %p3, {negation}%p2, {mask}; selp.u32 %r4, 1, 0, %p3;
        vote.sync.any.pred %p4, {negation}%p2, {mask}; selp.u32 %r5, 2, 0, %p4;
        vote.sync.uni.pred %p5, {negation}%p2, {mask}; selp.u32 %r6, 4, 0, %p5;
        or.b32 %r2, %r4, %r5; or.b32 %r2, %r2, %r6;
        """,
        mask,
        values,
    )
    ballot = (~yes if negation else yes) & mask
    uniform = ballot in (0, mask)
    for lane in members(mask):
        assert int(got[lane, 0]) & 0xFFFFFFFF == ballot
        assert got[lane, 1] == (ballot == mask) + 2 * (ballot != 0) + 4 * uniform


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", ["u4", "u8"])
@pytest.mark.parametrize("kinds", [1, 3, 32])
def test_matches(mask: int, dtype: str, kinds: int) -> None:
    values = (np.arange(LANES) % kinds).astype(dtype) << np.dtype(dtype).type(8 * int(dtype[1]) - 6)
    bits = 8 * values.itemsize
    got = in_lanes(
        f"""
        match.any.sync.b{bits} %r1, %value, {mask};
        match.all.sync.b{bits} %r2|%p2, %value, {mask};
        @!%p2 add.u32 %r2, %r2, 1;
        """,
        mask,
        values,
    ).astype("u4")
    for lane in members(mask):
        same = sum(1 << other for other in members(mask) if values[other] == values[lane])
        assert got[lane].tolist() == [same, mask if same == mask else 1]


REDUCTIONS: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "min": min,
    "max": max,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    "opcode",
    [
        *product(["redux.sync"], ["add", "min", "max"], ["u32", "s32"]),
        *product(["redux.sync"], ["and", "or", "xor"], ["b32"]),
    ],
)
def test_reductions(opcode: str, mask: int) -> None:
    dtype = "i4" if opcode.endswith("s32") else "u4"
    values = np.random.default_rng(5).integers(0, 1 << 32, LANES, dtype="u8").astype("u4")
    values = values.view(dtype)
    got = in_lanes(f"{opcode} %r1, %value, {mask};", mask, values).astype("u4")
    among = [int(values[lane]) for lane in members(mask)]
    expected = functools.reduce(REDUCTIONS[opcode.split(".")[2]], among) & 0xFFFFFFFF
    assert {int(got[lane, 0]) for lane in members(mask)} == {expected}


@pytest.mark.parametrize("mask", MASKS)
def test_election(mask: int) -> None:
    got = in_lanes(
        f"elect.sync %r1|%p2, {mask};\nselp.u32 %r2, 1, 0, %p2;",
        mask,
        np.zeros(LANES, "i4"),
    )
    first = members(mask)[0]
    for lane in members(mask):
        assert got[lane].tolist() == [first, lane == first]


@pytest.mark.parametrize("mask", MASKS)
def test_active_lanes(mask: int) -> None:
    """Lanes that are together: some of the mask, the lane itself among them."""
    got = in_lanes("activemask.b32 %r1;", mask, np.zeros(LANES, "i4")).astype("u4")
    for lane in members(mask):
        assert int(got[lane, 0]) & ~mask == 0
        assert int(got[lane, 0]) >> lane & 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("late", [0, 3, 17, 31])
def test_tiles_of_a_warp_at_one_instruction(seed: int, late: int) -> None:
    """Each names its own lanes, as tiles of cooperative groups do; one lane comes late."""
    ran = run(
        f"""
        shr.u32 %r1, %t, 3; shl.b32 %r1, %r1, 3;
        mov.u32 %r2, 255; shl.b32 %r2, %r2, %r1;
        mov.u32 %r5, 0;
        setp.ne.u32 %p2, %t, {late};
        @%p2 bra TOGETHER;
        LOOP:
        add.u32 %r5, %r5, 1; setp.lt.u32 %p3, %r5, 20; @%p3 bra LOOP;
        TOGETHER:
        setp.gt.u32 %p1, %t, 10;
        vote.sync.ballot.b32 %r3, %p1, %r2;
        redux.sync.add.u32 %r4, %t, %r2;
        mad.wide.u32 %rd1, %t, 8, %result;
        st.global.v2.b32 [%rd1], {{%r3, %r4}};
        """,
        {"result": 256},
        options=Options(seed=seed),
    )
    ran.report.raise_if_found()
    got = ran.read("result", "u4").reshape(4, 8, 2)
    for tile in range(4):
        lanes = range(8 * tile, 8 * tile + 8)
        ballot = sum(1 << lane for lane in lanes if lane > 10)
        assert (got[tile] == [ballot, sum(lanes)]).all()


COMPARED = ("eq", "lt", "le", "gt", "ge")


def test_special_registers() -> None:
    names = ["laneid", "warpid", "nwarpid", *(f"lanemask_{how}" for how in COMPARED)]
    stores = "\n".join(
        f"mov.u32 %r{n}, %{name}; st.global.u32 [%rd1+{4 * n}], %r{n};"
        for n, name in enumerate(names)
    )
    ran = run(f"mad.wide.u32 %rd1, %i, 32, %result;\n{stores}", {"result": 32 * 96}, block=96)
    ran.report.raise_if_found()
    for thread, row in enumerate(ran.read("result", "u4").reshape(96, 8).tolist()):
        lane = thread % LANES
        bit, below = 1 << lane, (1 << lane) - 1
        above = 0xFFFFFFFF - bit - below
        expected = [lane, thread // LANES, 3, bit, below, below + bit, above, above + bit]
        assert row == expected, thread
