"""Barriers, and threads that never come: each wrong case has a right twin."""

from __future__ import annotations

import pytest
from exchanges import READ_OTHER, SEEDS, WRITE_OWN, found


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("producer", "kinds"),
    [
        ("bar.arrive 1, 128;", set()),
        ("bar.sync 1, 128;", set()),
        ("bar.arrive 2, 128;", {"deadlock"}),
    ],
)
def test_producers_and_consumers(producer: str, kinds: set[str], seed: int) -> None:
    """Two warps write and go on; two wait for them and read."""
    ran = found(
        f"""
        mov.u32 %r1, tile;
        setp.ge.u32 %p1, %t, 64;
        @%p1 bra CONSUME;
        mad.lo.s32 %r2, %t, 4, %r1;
        st.shared.u32 [%r2], %t;
        {producer}
        bra END;
        CONSUME:
        bar.sync 1, 128;
        sub.u32 %r3, 127, %t;
        mad.lo.s32 %r4, %r3, 4, %r1;
        ld.shared.u32 %r5, [%r4];
        add.s64 %rd1, %result, %t4;
        st.global.u32 [%rd1], %r5;
        END:
        """,
        block=128,
        seed=seed,
    )
    assert ran.kinds == kinds
    if not kinds:
        assert ran.read("result", "u4")[64:128].tolist() == list(range(63, -1, -1))


@pytest.mark.parametrize("seed", SEEDS)
def test_halves_of_a_warp_meet_for_themselves(seed: int) -> None:
    """In branches of their own, with bar.warp.sync of their own lanes."""
    half = """
      bar.warp.sync {mask};
      ld.shared.u32 %r5, [%r4];
      bar.warp.sync {mask};
      st.shared.u32 [%r2], %r5;
      bar.warp.sync {mask};
      ld.shared.u32 %r6, [%r4];
    """
    ran = found(
        f"""
        {WRITE_OWN}
        xor.b32 %r3, %t, 1; mad.lo.s32 %r4, %r3, 4, %r1;
        setp.ge.u32 %p1, %t, 16;
        @%p1 bra UPPER;
        {half.format(mask="0xFFFF")}
        bra END;
        UPPER:
        {half.format(mask="0xFFFF0000")}
        END:
        add.s64 %rd1, %result, %t4; st.global.u32 [%rd1], %r6;
        """,
        block=32,
        seed=seed,
    )
    ran.report.raise_if_found()
    assert ran.read("result", "u4")[:32].tolist() == list(range(32))


@pytest.mark.parametrize("seed", SEEDS)
def test_unaligned_barriers_take_a_warp_in_parts(seed: int) -> None:
    ran = found(
        f"""
        {WRITE_OWN}
        and.b32 %r6, %t, 1;
        setp.eq.u32 %p1, %r6, 0;
        @%p1 bra EVEN;
        barrier.sync 0, 64;
        bra NEXT;
        EVEN:
        barrier.sync 0, 64;
        NEXT:
        {READ_OTHER.format(by=33)}
        """,
        seed=seed,
    )
    ran.report.raise_if_found()
    assert ran.read("result", "u4")[:64].tolist() == [t ^ 33 for t in range(64)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("red", ["bar.red", "barrier.cta.red.aligned"])
@pytest.mark.parametrize("least", [0, 1, 70, 96])
@pytest.mark.parametrize("negation", ["", "!"])
@pytest.mark.parametrize("count", ["", "96,"])
def test_barriers_that_reduce(red: str, least: int, negation: str, count: str, seed: int) -> None:
    """Of 96 threads, those from `least` on say yes."""
    ran = found(
        f"""
        setp.ge.u32 %p1, %t, {least};
        {red}.popc.u32 %r1, 0, {count} {negation}%p1;
        {red}.and.pred %p2, 1, {count} {negation}%p1;
        {red}.or.pred %p3, 2, {count} {negation}%p1;
        selp.u32 %r2, 256, 0, %p2; selp.u32 %r3, 512, 0, %p3;
        or.b32 %r1, %r1, %r2; or.b32 %r1, %r1, %r3;
        add.s64 %rd1, %result, %t4; st.global.u32 [%rd1], %r1;
        """,
        block=96,
        seed=seed,
    )
    ran.report.raise_if_found()
    yes = least if negation else 96 - least
    expected = yes + 256 * (yes == 96) + 512 * (yes > 0)
    assert ran.read("result", "u4")[:96].tolist() == [expected] * 96


MATRIX = "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32"
TOGETHER = {
    "bar.sync": "bar.sync 1;",
    "ldmatrix": "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r5}, [tile];",
    "mma": f"{MATRIX} {{%f1, %f2, %f3, %f4}}, {{%r5, %r6}}, {{%r7}}, {{%f1, %f2, %f3, %f4}};",
    "shfl": "shfl.sync.bfly.b32 %r5, %t, 1, 31, -1;",
    "vote": "vote.sync.any.pred %p2, %p3, -1;",
    "match": "match.any.sync.b32 %r5, %t, -1;",
    "redux": "redux.sync.add.u32 %r5, %t, -1;",
}
FILLED = "st.shared.v4.b32 [tile], {%r5, %r5, %r5, %r5}; bar.warp.sync -1;"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize(("first_that_skips", "is_found"), [(16, True), (32, False)])
def test_what_a_warp_runs_together(
    name: str, first_that_skips: int, is_found: bool, seed: int
) -> None:
    ran = found(
        f"""
        {FILLED}
        setp.ge.u32 %p1, %t, {first_that_skips};
        @%p1 bra SKIP;
        {TOGETHER[name]}
        SKIP:
        bar.sync 0;
        """,
        block=32,
        seed=seed,
        reports_equal_writes=0,
    )
    assert ("not_converged" in ran.kinds) == is_found
    assert is_found or not ran.kinds


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize(("below", "kinds"), [(16, {"not_converged"}), (32, set())])
def test_guards_of_what_a_warp_runs_together(name: str, below: int, kinds: set[str]) -> None:
    ran = found(
        f"{FILLED}\nsetp.lt.u32 %p1, %t, {below};\n@%p1 {TOGETHER[name]}",
        block=32,
        reports_equal_writes=0,
    )
    assert ran.kinds - {"deadlock"} == kinds


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        ("shfl.sync.bfly.b32 %r5, %t, 1, 31, 0xFFFF;", {"not_converged"}),
        ("setp.ge.u32 %p1, %t, 32; @%p1 bra.uni END; END:", set()),
        ("setp.ge.u32 %p1, %t, 16; @%p1 bra.uni END; mov.u32 %r1, 0; END:", {"not_converged"}),
    ],
)
def test_other_promises_of_a_warp(body: str, kinds: set[str]) -> None:
    assert found(body, block=32).kinds == kinds


@pytest.mark.parametrize(("by", "kinds"), [(8, set()), (16, {"bad_shuffle"})])
def test_shuffles_from_lanes_that_take_no_part(by: int, kinds: set[str]) -> None:
    ran = found(
        f"""
        setp.ge.u32 %p1, %t, 16;
        @%p1 bra END;
        shfl.sync.bfly.b32 %r5, %t, {by}, 31, 0xFFFF;
        END:
        """,
        block=32,
    )
    assert ran.kinds == kinds


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        ("bar.sync 15;", set()),
        ("mov.u32 %r1, 16; bar.sync %r1;", {"bad_barrier"}),
        ("bar.sync 0, 33;", {"bad_barrier"}),
        ("bar.warp.sync 0xFFFF;", {"bad_barrier"}),
    ],
)
def test_barriers_that_are_none(body: str, kinds: set[str]) -> None:
    assert found(body, block=32).kinds - {"deadlock"} == kinds


def test_warps_that_expect_different_numbers_of_threads() -> None:
    ran = found("setp.lt.u32 %p1, %t, 32; selp.u32 %r1, 64, 96, %p1; bar.sync 0, %r1;")
    assert "bad_barrier" in ran.kinds


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        ("setp.ge.u32 %p1, %t, 32; @%p1 ret; bar.sync 0;", set()),
        ("setp.ge.u32 %p1, %t, 32; @%p1 ret; bar.sync 0, 64;", {"deadlock"}),
        ("setp.ge.u32 %p1, %t, 32; selp.u32 %r1, 1, 0, %p1; bar.sync %r1;", {"deadlock"}),
        ("setp.ge.u32 %p1, %t, 32; selp.u32 %r1, 1, 0, %p1; bar.sync %r1, 32;", set()),
    ],
)
def test_warps_that_never_arrive(body: str, kinds: set[str], seed: int) -> None:
    ran = found(body, seed=seed)
    assert ran.kinds == kinds
    if kinds:
        assert "`bar.sync`" in ran.report.findings[0].message


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("flag", "kinds"), [(0, set()), (4, {"livelock"})])
def test_flags_that_nobody_raises(flag: int, kinds: set[str], seed: int) -> None:
    ran = found(
        f"""
        mov.u32 %r1, %ctaid.x;
        setp.eq.u32 %p1, %r1, 0;
        @%p1 bra SEND;
        SPIN:
        ld.acquire.gpu.global.u32 %r2, [%flags];
        setp.eq.u32 %p2, %r2, 0;
        @%p2 bra SPIN;
        ret;
        SEND:
        st.release.gpu.global.u32 [%flags+{flag}], 1;
        """,
        grid=2,
        block=1,
        seed=seed,
        patience=2000,
    )
    assert ran.kinds == kinds


@pytest.mark.parametrize(("rounds", "kinds"), [(50, set()), (5000, {"too_long"})])
def test_programs_that_run_too_long(rounds: int, kinds: set[str]) -> None:
    ran = found(
        f"""
        mov.u32 %r1, 0;
        LOOP:
        st.shared.u32 [tile], %r1;
        add.u32 %r1, %r1, 1;
        setp.lt.u32 %p1, %r1, {rounds};
        @%p1 bra LOOP;
        """,
        block=1,
        max_steps=1000,
    )
    assert ran.kinds == kinds


@pytest.mark.parametrize(("first", "kinds"), [(32, set()), (7, {"trap"})])
def test_programs_that_stop_themselves(first: int, kinds: set[str]) -> None:
    ran = found(f"setp.ge.u32 %p1, %t, {first}; @%p1 trap;", block=32)
    assert ran.kinds == kinds
    assert [finding.thread for finding in ran.report.findings] == ([7] if kinds else [])
