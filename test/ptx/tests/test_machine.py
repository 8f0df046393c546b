"""Threads on their way through a program, launches, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from ptxsim import Options, Simulator, SimulatorError
from snippets import module, run

SEEDS = range(8)


def collatz(value: int) -> int:
    steps = 0
    while value != 1:
        value = value // 2 if value % 2 == 0 else 3 * value + 1
        steps += 1
    return steps


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("max_quantum", [1, 64])
def test_loops_of_different_lengths_with_branches_inside(seed: int, max_quantum: int) -> None:
    ran = run(
        """
        add.u32 %r1, %i, 1;
        mov.u32 %r2, 0;
        LOOP:
        setp.eq.u32 %p1, %r1, 1;
        @%p1 bra END;
        and.b32 %r3, %r1, 1;
        setp.ne.u32 %p2, %r3, 0;
        @%p2 bra ODD;
        shr.u32 %r1, %r1, 1;
        bra NEXT;
        ODD:
        mad.lo.u32 %r1, %r1, 3, 1;
        NEXT:
        add.u32 %r2, %r2, 1;
        bra.uni LOOP;
        END:
        mad.wide.u32 %rd1, %i, 4, %result;
        st.global.u32 [%rd1], %r2;
        """,
        {"result": 4 * 2 * 80},
        grid=2,
        block=80,
        options=Options(seed=seed, max_quantum=max_quantum),
    )
    ran.report.raise_if_found()
    assert ran.read("result", "u4").tolist() == [collatz(n + 1) for n in range(160)]


@pytest.mark.parametrize("seed", SEEDS)
def test_nested_loops_meet_again(seed: int) -> None:
    """sum over x < t % 5 of sum over y < (t + x) % 7 of x y, and a vote of all afterwards."""
    ran = run(
        """
        rem.u32 %r1, %t, 5; mov.u32 %r2, 0; mov.u32 %r3, 0;
        OUTER:
        setp.ge.u32 %p1, %r2, %r1;
        @%p1 bra DONE;
        add.u32 %r4, %t, %r2; rem.u32 %r4, %r4, 7; mov.u32 %r5, 0;
        INNER:
        setp.ge.u32 %p2, %r5, %r4;
        @%p2 bra NEXT;
        mad.lo.u32 %r3, %r2, %r5, %r3;
        add.u32 %r5, %r5, 1;
        bra INNER;
        NEXT:
        add.u32 %r2, %r2, 1;
        bra OUTER;
        DONE:
        redux.sync.add.u32 %r6, %r3, -1;
        mad.wide.u32 %rd1, %t, 8, %result;
        st.global.v2.u32 [%rd1], {%r3, %r6};
        """,
        {"result": 256},
        options=Options(seed=seed),
    )
    ran.report.raise_if_found()
    sums = [sum(x * y for x in range(t % 5) for y in range((t + x) % 7)) for t in range(32)]
    got = ran.read("result", "u4").reshape(32, 2)
    assert got[:, 0].tolist() == sums
    assert (got[:, 1] == sum(sums)).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("grid", "block"), [(1, 32), (2, 48)])
def test_a_spin_lock_between_lanes(seed: int, grid: int, block: int) -> None:
    """Every lane takes the lock once and adds to a plain counter."""
    ran = run(
        """
        TRY:
        atom.acquire.gpu.global.cas.b32 %r1, [%lock], 0, 1;
        setp.ne.u32 %p1, %r1, 0;
        @%p1 bra TRY;
        ld.global.u32 %r2, [%counter];
        add.u32 %r2, %r2, 1;
        st.global.u32 [%counter], %r2;
        atom.release.gpu.global.exch.b32 %r3, [%lock], 0;
        """,
        {"lock": np.zeros(1, "u4"), "counter": np.zeros(1, "u4")},
        grid=grid,
        block=block,
        options=Options(seed=seed, patience=10000),
    )
    ran.report.raise_if_found()
    assert ran.read("counter", "u4")[0] == grid * block


def test_places_in_grids_of_three_dimensions() -> None:
    grid, block = (3, 2, 2), (4, 3, 2)
    axes = [f"{name}.{axis}" for name in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"]
    threads = 24
    ran = run(
        f"""
        {" ".join(f"mov.u32 %r{n}, %{axis};" for n, axis in enumerate(axes))}
        mad.lo.u32 %r20, %r2, 3, %r1; mad.lo.u32 %r20, %r20, 4, %r0;
        mad.lo.u32 %r21, %r8, 2, %r7; mad.lo.u32 %r21, %r21, 3, %r6;
        mad.lo.u32 %r20, %r21, {threads}, %r20;
        mad.wide.u32 %rd1, %r20, 48, %result;
        {" ".join(f"st.global.u32 [%rd1+{4 * n}], %r{n};" for n in range(12))}
        """,
        {"result": 48 * 12 * threads},
        grid=grid,
        block=block,
    )
    ran.report.raise_if_found()
    got = ran.read("result", "u4").reshape(*reversed(grid), *reversed(block), 12)
    for at in np.ndindex(got.shape[:-1]):
        block_zyx, thread_zyx = at[:3], at[3:]
        expected = [*reversed(thread_zyx), *block, *reversed(block_zyx), *grid]
        assert got[at].tolist() == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_wait_for_each_other(seed: int) -> None:
    """All blocks are resident: a barrier of the grid, made of an atomic, ends."""
    ran = run(
        """
        atom.acq_rel.gpu.global.add.u32 %r1, [%arrived], 1;
        SPIN:
        ld.acquire.gpu.global.u32 %r2, [%arrived];
        setp.lt.u32 %p1, %r2, 16;
        @%p1 bra SPIN;
        """,
        {"arrived": np.zeros(1, "u4")},
        grid=16,
        block=1,
        options=Options(seed=seed, patience=10000),
    )
    ran.report.raise_if_found()


def test_a_seed_says_everything() -> None:
    def order(seed: int) -> list[int]:
        ran = run(
            """
            atom.global.add.u32 %r1, [%counter], 1;
            mad.wide.u32 %rd1, %i, 4, %result;
            st.global.u32 [%rd1], %r1;
            """,
            {"counter": np.zeros(1, "u4"), "result": 4 * 256},
            grid=2,
            block=128,
            options=Options(seed=seed),
        )
        return ran.read("result", "u4").tolist()

    assert order(3) == order(3)
    assert len({tuple(order(seed)) for seed in range(8)}) > 1


@pytest.mark.parametrize("end", ["ret;", "exit;", "ret.uni;"])
def test_threads_that_end_early(end: str) -> None:
    ran = run(
        f"""
        setp.ge.u32 %p1, %t, 40;
        @%p1 {end}
        bar.sync 0;
        add.s64 %rd1, %result, %t4;
        st.global.u32 [%rd1], %t;
        """,
        {"result": np.full(64, 99, "u4")},
        block=64,
    )
    ran.report.raise_if_found()
    assert ran.read("result", "u4").tolist() == [*range(40), *[99] * 24]


def test_clocks_go_forward() -> None:
    ran = run(
        """
        mov.u64 %rd1, %clock64; mov.u32 %r1, %clock; mov.u64 %rd2, %globaltimer;
        mov.u64 %rd3, %clock64;
        setp.lt.u64 %p1, %rd1, %rd3;
        selp.u32 %r2, 1, 0, %p1;
        st.global.u32 [%result], %r2;
        """,
        {"result": 4},
        block=1,
    )
    assert ran.read("result", "u4")[0] == 1


LAUNCHES = [
    ({"arguments": 0}, "expected 1 for `snippet`, got 0"),
    ({"arguments": 2}, "expected 1 for `snippet`, got 2"),
    ({"entry": "other"}, "no entry `other`, only snippet"),
    ({"block": 1025}, "1 to 1024 threads"),
    ({"block": 0}, "1 to 1024 threads"),
    ({"grid": 0}, "1 to 1024 threads"),
    ({"block": 128}, "allows 64 threads in a block, got 128"),
    ({}, ""),
]


@pytest.mark.parametrize(("change", "message"), LAUNCHES)
def test_launches_that_do_not_suit(change: dict[str, object], message: str) -> None:
    text = module("", ["out"]).replace(") {", ")\n.maxntid 64, 1, 1\n{", 1)
    simulator = Simulator(text)
    plan = {"entry": "snippet", "grid": 1, "block": 32, "arguments": 1, **change}
    arguments = [simulator.buffer("out", size=4)] * int(str(plan["arguments"]))
    if not message:
        simulator.launch(plan["entry"], plan["grid"], plan["block"], arguments).raise_if_found()
        return
    with pytest.raises(SimulatorError, match=message):
        simulator.launch(plan["entry"], plan["grid"], plan["block"], arguments)


def test_launches_of_a_required_size() -> None:
    simulator = Simulator(module("").replace(") {", ")\n.reqntid 64, 1, 1\n{", 1))
    simulator.launch("snippet", 1, 64, []).raise_if_found()
    with pytest.raises(SimulatorError, match="requires 64 threads in a block, got 32"):
        simulator.launch("snippet", 1, 32, [])


def test_a_turn_has_an_instruction() -> None:
    with pytest.raises(SimulatorError, match="`max_quantum`: expected at least 1, got 0"):
        run("", options=Options(max_quantum=0))


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        ("frobnicate.b32 %r1, %r2;", "`frobnicate.b32`: the instruction is not known"),
        ("add.f32.shiny %f1, %f2, %f3;", "`.shiny` is not known there"),
        ("mul.wide.u64 %rd1, %rd2, %rd3;", "128 bits"),
        ("ld.global.b32 %r1, %rd1;", "expected an address in brackets"),
        ("ld.global.v2.b32 %r1, [%rd1];", "as many registers as elements"),
        ("mov.u32 %r1, %smem_of_mars;", "smem_of_mars"),
        ("cp.async.cg.shared.global [%r1], [%rd1], 8;", "16 bytes"),
        ("cp.async.ca.shared.global [%r1], [%rd1], 12;", "4, 8 or 16 bytes"),
        ("cp.async.ca.shared.global [%r1], [%rd1], 16, %p1;", "predicate"),
        ("div.rz.f64 %fd1, %fd2, %fd3;", "only rounding to nearest"),
        ("min.xorsign.abs.f32 %f1, %f2, %f3;", "xorsign"),
        ("atom.global.max.f32 %f1, [%rd1], %f2;", "not known"),
        ("mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%f1}, {%r1}, {%r2}, {%f1};", "shape"),
        ("st.param.b32 [p], %r1;", "line"),
    ],
)
def test_what_is_not_known_names_its_line(instruction: str, message: str) -> None:
    text = module(f"\n{instruction}\n")
    line = text[: text.index(instruction)].count("\n") + 1
    with pytest.raises(SimulatorError, match=rf"line {line}\b") as raised:
        Simulator(text).entries()
    assert message in str(raised.value)
