"""Asynchronous copies: which bytes arrive, and when."""

from __future__ import annotations

import numpy as np
import pytest
from ptxsim import Options
from snippets import run

LANES = 32
COPIES = [("ca", 4), ("ca", 8), ("ca", 16), ("cg", 16)]
BUFFER = ".shared .align 16 .b8 buffer[512];"


def copy_body(how: str, size: int, *, source_size: str = "", before: str = "", wait: str) -> str:
    return f"""
      mad.wide.u32 %rd1, %t, {size}, %values;
      mad.wide.u32 %rd2, %t, {size}, %result;
      mov.u32 %r1, buffer;
      mad.lo.s32 %r1, %t, {size}, %r1;
      {before}
      cp.async.{how}.shared.global [%r1], [%rd1], {size}{source_size};
      {wait}
      {
        "".join(
            f"ld.shared.b32 %r3, [%r1+{n}]; st.global.b32 [%rd2+{n}], %r3;"
            for n in range(0, size, 4)
        )
    }
    """


WAITS = {
    "group": "cp.async.commit_group; cp.async.wait_group 0;",
    "all": "cp.async.wait_all;",
    "group and all": "cp.async.commit_group; cp.async.wait_all;",
}


@pytest.mark.parametrize(("how", "size"), [*COPIES, ("cg", 16), ("ca.shared.global.L2::128B", 16)])
@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("copies_late", [True, False])
def test_copies_arrive(how: str, size: int, wait: str, copies_late: bool) -> None:
    values = np.arange(LANES * size, dtype="u1")
    body = copy_body(how, size, wait=WAITS[wait])
    if "L2" in how:
        body = body.replace(f"{how}.shared.global", how)
    options = Options(copies_late=copies_late)
    buffers = {"values": values, "result": values.size}
    ran = run(body, buffers, declared=BUFFER, options=options)
    ran.report.raise_if_found()
    assert (ran.read("result", "u1") == values).all()


@pytest.mark.parametrize(("how", "size"), COPIES)
@pytest.mark.parametrize("copied", [0, 1, 3, 4, 7, 8, 12, 16])
def test_the_rest_of_a_copy_becomes_zero(how: str, size: int, copied: int) -> None:
    values = np.arange(1, 1 + LANES * size, dtype="u2").astype("u1") | 1
    body = copy_body(
        how, size, source_size=", %r4", before=f"mov.u32 %r4, {copied};", wait=WAITS["all"]
    )
    ran = run(body, {"values": values, "result": values.size}, declared=BUFFER)
    if copied > size:
        assert ran.kinds == {"bad_copy"}
        return
    ran.report.raise_if_found()
    expected = values.reshape(LANES, size).copy()
    expected[:, copied:] = 0
    assert (ran.read("result", "u1").reshape(LANES, size) == expected).all()


def test_a_copy_of_nothing_reads_nothing() -> None:
    """Its address may point anywhere, as the addresses of masked rows do."""
    ran = run(
        """
        mov.u32 %r1, buffer;
        mov.u64 %rd1, 12345;
        cp.async.cg.shared.global [%r1], [%rd1], 16, 0;
        cp.async.wait_all;
        ld.shared.b64 %rd2, [buffer+8];
        st.global.b64 [%result], %rd2;
        """,
        {"result": 8},
        block=1,
        declared=BUFFER,
    )
    ran.report.raise_if_found()
    assert ran.read("result", "u8")[0] == 0


@pytest.mark.parametrize(
    ("copies_late", "seen"), [(True, [1, 1, 9, 9]), (False, [1, 1, 1, 1])], ids=["late", "at once"]
)
def test_waiting_leaves_the_youngest_groups(copies_late: bool, seen: list[int]) -> None:
    """Four groups, of which the last two may be under way: that they are read is a race."""
    one = np.ones(4, "u4")
    ran = run(
        f"""
        st.shared.v4.b32 [buffer], {{%r0, %r1, %r2, %r3}};
        {"".join(f"mov.u32 %r{n}, 9; st.shared.b32 [buffer+{4 * n}], %r{n};" for n in range(4))}
        {
            "".join(
                f"cp.async.ca.shared.global [buffer+{4 * n}], [%values+{4 * n}], 4;"
                "cp.async.commit_group;"
                for n in range(4)
            )
        }
        cp.async.wait_group 2;
        ld.shared.v2.b32 {{%r4, %r5}}, [buffer];
        ld.shared.v2.b32 {{%r6, %r7}}, [buffer+8];
        st.global.v4.b32 [%result], {{%r4, %r5, %r6, %r7}};
        """,
        {"values": one, "result": 16},
        block=1,
        declared=BUFFER,
        options=Options(copies_late=copies_late),
    )
    assert ran.read("result", "u4").tolist() == seen
    assert [(finding.kind, finding.opcode) for finding in ran.report.findings] == [
        ("race", "ld.shared.v2.b32")
    ]


@pytest.mark.parametrize("copies_late", [True, False])
def test_an_empty_group_counts(copies_late: bool) -> None:
    ran = run(
        """
        cp.async.ca.shared.global [buffer], [%values], 4;
        cp.async.commit_group;
        cp.async.commit_group;
        cp.async.wait_group 1;
        ld.shared.b32 %r1, [buffer];
        st.global.b32 [%result], %r1;
        """,
        {"values": np.array([5], "u4"), "result": 4},
        block=1,
        declared=BUFFER,
        options=Options(copies_late=copies_late),
    )
    ran.report.raise_if_found()
    assert ran.read("result", "u4")[0] == 5


@pytest.mark.parametrize(
    ("wait", "kinds"),
    [
        ("", {"unfinished_copy"}),
        ("cp.async.commit_group;", {"unfinished_copy"}),
        ("cp.async.commit_group; cp.async.wait_group 1;", {"unfinished_copy"}),
        ("cp.async.commit_group; cp.async.wait_group 0;", set()),
        ("cp.async.wait_all;", set()),
    ],
)
@pytest.mark.parametrize("copies_late", [True, False])
def test_a_thread_that_ends_has_waited_for_its_copies(
    wait: str, kinds: set[str], copies_late: bool
) -> None:
    """Nothing says what becomes of those that arrive when its shared memory is another block's."""
    ran = run(
        f"""
        cp.async.ca.shared.global [buffer], [%values], 4;
        {wait}
        exit;
        """,
        {"values": np.ones(4, "u4")},
        block=1,
        declared=BUFFER,
        options=Options(copies_late=copies_late),
    )
    assert ran.kinds == kinds
