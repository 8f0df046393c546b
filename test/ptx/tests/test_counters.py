"""What a program cost: issue slots, lanes, sectors of global memory, shared wavefronts."""

from __future__ import annotations

import numpy as np
import pytest
from snippets import Ran, run

BUFFER = 1 << 15
OPERANDS = {4: "%r1", 8: "%rd3", 16: "{%r1, %r2, %r3, %r4}"}
TYPES = {4: "b32", 8: "b64", 16: "v4.b32"}


def in_global(opcode: str, size: int, stride: int, offset: int = 0) -> Ran:
    return run(
        f"""
        mul.lo.u32 %r9, %t, {stride};
        add.u32 %r9, %r9, {offset};
        cvt.u64.u32 %rd2, %r9;
        add.s64 %rd2, %values, %rd2;
        {opcode.replace("OPERAND", OPERANDS[size])}
        """,
        {"values": np.zeros(BUFFER, "u1")},
    )


@pytest.mark.parametrize(
    ("size", "stride", "offset", "sectors"),
    [
        (4, 4, 0, 4),
        (4, 4, 4, 5),
        (4, 8, 0, 8),
        (4, 32, 0, 32),
        (4, 128, 0, 32),
        (4, 0, 0, 1),
        (8, 8, 0, 8),
        (8, 8, 16, 9),
        (8, 16, 0, 16),
        (16, 16, 0, 16),
        (16, 16, 16, 17),
        (16, 64, 0, 32),
    ],
)
def test_sectors(size: int, stride: int, offset: int, sectors: int) -> None:
    for name, operands in (("ld", "OPERAND, [%rd2]"), ("st", "[%rd2], OPERAND")):
        opcode = f"{name}.global.{TYPES[size]}"
        ran = in_global(f"{opcode} {operands};", size, stride, offset)
        count = ran.count(opcode)
        assert (count.sectors, count.bytes) == (sectors, 32 * size)
        assert (count.warps, count.lanes, count.wavefronts) == (1, 32, 0)
        traffic = ran.report.traffic["values"]
        read, written = (
            (traffic.read_bytes, traffic.read_sectors),
            (
                traffic.written_bytes,
                traffic.written_sectors,
            ),
        )
        assert (read, written) == (
            ((32 * size, sectors), (0, 0)) if name == "ld" else ((0, 0), (32 * size, sectors))
        )


def test_lanes_that_do_not_load_cost_nothing() -> None:
    ran = in_global("setp.lt.u32 %p1, %t, 8;\n@%p1 ld.global.b32 %r1, [%rd2];", 4, 4)
    count = ran.count("ld.global.b32")
    assert (count.warps, count.lanes, count.sectors, count.bytes) == (1, 8, 1, 32)


def in_shared(instruction: str, stride: int, swizzle: str = "") -> Ran:
    """Each lane at `stride` bytes times its number; memory is filled first."""
    return run(
        f"""
        .shared .align 16 .b8 tile[8192];
        mov.u32 %r8, %t;
        FILL:
        mul.lo.u32 %r9, %r8, 4; st.shared.u32 [%r9], 0;
        add.u32 %r8, %r8, 32; setp.lt.u32 %p1, %r8, 2048; @%p1 bra FILL;
        bar.sync 0;
        mul.lo.u32 %r9, %t, {stride};
        {swizzle}
        {instruction}
        """,
    )


@pytest.mark.parametrize(
    ("size", "stride", "wavefronts", "ideal"),
    [
        (4, 4, 1, 1),
        (4, 8, 2, 1),
        (4, 12, 1, 1),
        (4, 16, 4, 1),
        (4, 64, 16, 1),
        (4, 128, 32, 1),
        (4, 132, 1, 1),
        (4, 0, 1, 1),
        # 8 bytes: half a warp at a time.
        (8, 8, 2, 2),
        (8, 16, 4, 2),
        (8, 128, 32, 2),
        (8, 136, 2, 2),
        (8, 0, 2, 2),
        # 16 bytes: a quarter at a time.
        (16, 16, 4, 4),
        (16, 32, 8, 4),
        (16, 128, 32, 4),
        (16, 144, 4, 4),
        (16, 0, 4, 4),
    ],
)
def test_wavefronts(size: int, stride: int, wavefronts: int, ideal: int) -> None:
    for name, operands in (("ld", "OPERAND, [%r9]"), ("st", "[%r9], OPERAND")):
        opcode = f"{name}.shared.{TYPES[size]}"
        ran = in_shared(f"{opcode} {operands.replace('OPERAND', OPERANDS[size])};", stride)
        count = ran.count(opcode)
        assert (count.wavefronts, count.ideal_wavefronts) == (wavefronts, ideal)
        assert (count.bytes, count.sectors) == (32 * size, 0)


@pytest.mark.parametrize("matrices", [1, 2, 4])
@pytest.mark.parametrize(
    ("stride", "swizzle", "of_each"),
    [
        (16, "", 1),
        (32, "", 2),
        (64, "", 4),
        (128, "", 8),
        (144, "", 1),
        # Rows of 128 bytes whose 16-byte parts are permuted by the row.
        (128, "and.b32 %r10, %t, 7; shl.b32 %r10, %r10, 4; xor.b32 %r9, %r9, %r10;", 1),
    ],
)
def test_wavefronts_of_ldmatrix(matrices: int, stride: int, swizzle: str, of_each: int) -> None:
    results = ", ".join(f"%r{n}" for n in range(matrices))
    opcode = f"ldmatrix.sync.aligned.m8n8.x{matrices}.shared.b16"
    count = in_shared(f"{opcode} {{{results}}}, [%r9];", stride, swizzle).count(opcode)
    assert (count.wavefronts, count.ideal_wavefronts) == (matrices * of_each, matrices)
    assert count.bytes == 128 * matrices


def test_copies_count_at_both_ends() -> None:
    ran = run(
        """
        .shared .align 16 .b8 tile[512];
        mul.lo.u32 %r9, %t, 16;
        mad.wide.u32 %rd1, %t, 16, %values;
        cp.async.cg.shared.global [%r9], [%rd1], 16;
        cp.async.wait_all;
        """,
        {"values": np.zeros(512, "u1")},
    )
    count = ran.count("cp.async.cg.shared.global")
    assert (count.sectors, count.wavefronts, count.ideal_wavefronts) == (16, 4, 4)
    traffic = ran.report.traffic["values"]
    assert (traffic.read_bytes, traffic.read_sectors) == (512, 16)


def test_issue_slots_of_divided_warps() -> None:
    """Three warps, of which the last has 8 lanes; a branch runs for one lane in two."""
    ran = run(
        """
        and.b32 %r1, %t, 1;
        setp.eq.u32 %p1, %r1, 0;
        @%p1 bra EVEN;
        mul.hi.u32 %r2, %r1, 3;
        EVEN:
        popc.b32 %r3, %r1;
        """,
        block=72,
    )
    assert (ran.count("and.b32").warps, ran.count("and.b32").lanes) == (3, 72)
    assert (ran.count("mul.hi.u32").warps, ran.count("mul.hi.u32").lanes) == (3, 36)
    assert ran.count("popc.b32").lanes == 72
    report = ran.report
    assert report.steps == sum(one.warps for one in report.instructions)
    assert report.lane_steps == sum(one.lanes for one in report.instructions)
