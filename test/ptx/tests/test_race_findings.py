"""Races and copies that nobody waits for: each wrong case has a right twin."""

from __future__ import annotations

import pytest
from exchanges import READ_OTHER, SEEDS, WRITE_OWN, found


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("barrier", "by", "kinds"),
    [
        ("bar.sync 0;", 32, set()),
        ("barrier.sync 3;", 32, set()),
        ("barrier.cta.sync.aligned 15;", 32, set()),
        ("bar.sync 1, 64;", 32, set()),
        ("", 32, {"race"}),
        ("bar.warp.sync -1;", 1, set()),
        ("bar.warp.sync -1;", 32, {"race"}),
        ("", 1, {"race"}),
        ("shfl.sync.bfly.b32 %r6, %t, 1, 31, -1;", 1, {"race"}),
        ("vote.sync.any.pred %p1, %p2, -1;", 1, {"race"}),
        ("membar.gl;", 1, {"race"}),
    ],
)
def test_exchange_through_shared_memory(barrier: str, by: int, kinds: set[str], seed: int) -> None:
    ran = found(WRITE_OWN + barrier + READ_OTHER.format(by=by), seed=seed)
    assert ran.kinds - {"uninitialised"} == kinds
    if not kinds:
        assert ran.read("result", "u4")[:64].tolist() == [t ^ by for t in range(64)]


def test_races_are_not_looked_for_if_not_wanted() -> None:
    ran = found(WRITE_OWN + READ_OTHER.format(by=1), checks_races=False)
    assert ran.kinds == set()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        ("mad.wide.u32 %rd1, %i, 4, %result; st.global.u32 [%rd1], %i;", set()),
        ("st.global.u32 [%result], %i;", {"race"}),
        ("ld.global.u32 %r1, [%words];", set()),
        ("atom.global.add.u32 %r1, [%result], 1;", set()),
        ("atom.global.add.u32 %r1, [%result], 1; ld.global.u32 %r2, [%result];", {"race"}),
        ("atom.global.add.u32 %r1, [%result], 1; ld.relaxed.gpu.global.u32 %r2, [%result];", set()),
        ("st.volatile.global.u32 [%result], %i;", set()),
        ("atom.cta.global.add.u32 %r1, [%result], 1;", {"race"}),
        (
            "mov.u32 %r1, %ctaid.x; mad.wide.u32 %rd1, %r1, 4, %result; st.global.u32 [%rd1], 7;",
            set(),
        ),
    ],
)
def test_blocks_in_global_memory(body: str, kinds: set[str], seed: int) -> None:
    assert found(body, grid=4, block=1, seed=seed).kinds == kinds


@pytest.mark.parametrize(("reports", "kinds"), [(1, {"race_of_equal_writes"}), (0, set())])
def test_writes_of_what_is_there(reports: int, kinds: set[str]) -> None:
    ran = found("st.global.u32 [%result], 7;", grid=2, block=1, reports_equal_writes=reports)
    assert ran.kinds == kinds


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("store", "load", "kinds"),
    [
        ("st.release.gpu", "ld.acquire.gpu", set()),
        ("fence.acq_rel.gpu; st.relaxed.gpu", "ld.acquire.gpu", set()),
        ("membar.gl; st.volatile", "ld.acquire.gpu", set()),
        ("st.relaxed.gpu", "ld.acquire.gpu", {"race"}),
        ("st.release.gpu", "ld.relaxed.gpu", {"race"}),
        ("st.release.cta", "ld.acquire.gpu", {"race"}),
    ],
)
def test_messages_between_blocks(store: str, load: str, kinds: set[str], seed: int) -> None:
    """Block 0 writes a value and raises a flag; block 1 spins for it."""
    ran = found(
        f"""
        mov.u32 %r1, %ctaid.x;
        setp.eq.u32 %p1, %r1, 0;
        @%p1 bra SEND;
        SPIN:
        {load}.global.u32 %r2, [%flags];
        setp.eq.u32 %p2, %r2, 0;
        @%p2 bra SPIN;
        ld.global.u32 %r3, [%result];
        st.global.u32 [%result+4], %r3;
        ret;
        SEND:
        st.global.u32 [%result], 42;
        {store}.global.u32 [%flags], 1;
        """,
        grid=2,
        block=1,
        seed=seed,
    )
    assert ran.kinds == kinds
    assert ran.read("result", "u4")[1] == 42


COPY = "cp.async.ca.shared.global [%r2], [%rd1], 4;"
COMMIT = "cp.async.commit_group;"
WAIT = "cp.async.wait_group 0;"


@pytest.mark.parametrize("copies_late", [0, 1])
@pytest.mark.parametrize(
    ("steps", "by", "kinds"),
    [
        ((COPY, COMMIT, WAIT, "bar.sync 0;"), 32, set()),
        ((COPY, COMMIT, WAIT), 0, set()),
        ((COPY, COMMIT), 0, {"race"}),
        ((COPY, COMMIT, "bar.sync 0;"), 32, {"race"}),
        ((COPY, COMMIT, WAIT), 32, {"race"}),
        ((COPY, COMMIT, "bar.sync 0;", WAIT), 32, {"race"}),
        ((COPY, COMMIT, "cp.async.wait_group 1;", "bar.sync 0;"), 32, {"race"}),
        ((COPY, WAIT, "bar.sync 0;"), 32, {"race"}),
        ((COPY, "cp.async.wait_all;", "bar.sync 0;"), 32, set()),
    ],
)
def test_copies_have_to_be_waited_for(
    steps: tuple[str, ...], by: int, kinds: set[str], copies_late: int
) -> None:
    body = (
        "mov.u32 %r1, tile; mad.lo.s32 %r2, %t, 4, %r1; add.s64 %rd1, %words, %t4;"
        + "".join(steps)
        + READ_OTHER.format(by=by)
    )
    ran = found(body, copies_late=copies_late)
    assert ran.kinds - {"uninitialised"} == kinds
    if not kinds:
        assert ran.read("result", "u4")[:64].tolist() == [t ^ by for t in range(64)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("barrier", "kinds"), [("bar.sync 0;", set()), ("", {"race"})])
@pytest.mark.parametrize("refill", [COPY + COMMIT + WAIT, "st.shared.u32 [%r2], %r9;"])
def test_a_buffer_that_is_still_read_is_not_refilled(
    refill: str, barrier: str, kinds: set[str], seed: int
) -> None:
    """Four rounds of fill, barrier, read; without a second barrier the next fill is early."""
    ran = found(
        f"""
        mov.u32 %r1, tile; mad.lo.s32 %r2, %t, 4, %r1; mov.u32 %r9, 0;
        add.s64 %rd1, %words, %t4;
        xor.b32 %r3, %t, 32; mad.lo.s32 %r4, %r3, 4, %r1;
        LOOP:
        {refill}
        bar.sync 0;
        ld.shared.u32 %r5, [%r4];
        {barrier}
        add.u32 %r9, %r9, 1;
        setp.lt.u32 %p1, %r9, 4;
        @%p1 bra LOOP;
        """,
        seed=seed,
        reports_equal_writes=1,
    )
    assert ran.kinds - {"race_of_equal_writes"} == kinds
