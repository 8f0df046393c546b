"""What is wrong with an access is found where it is, and a right one next to it passes."""

from __future__ import annotations

import numpy as np
import pytest
from snippets import run

WORDS = np.arange(32, dtype="u4")
VARIABLES = """
  .shared .align 16 .b8 in_shared[128];
  .local .align 16 .b8 in_local[128];
"""
# An instruction, and what is found.
OUT_OF_BOUNDS = [
    ("ld.global.b32 %r1, [%words+124];", ""),
    ("ld.global.b32 %r1, [%words+128];", "out_of_bounds"),
    ("ld.global.b32 %r1, [%words-4];", "out_of_bounds"),
    ("ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%words+112];", ""),
    ("ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%words+128];", "out_of_bounds"),
    ("ld.global.b64 %rd1, [%words+124];", "out_of_bounds"),
    ("st.global.b32 [%words+128], 0;", "out_of_bounds"),
    ("atom.global.add.u32 %r1, [%words+128], 1;", "out_of_bounds"),
    ("red.global.add.u32 [%words+124], 1;", ""),
    ("mov.u64 %rd1, 64; ld.global.b32 %r1, [%rd1];", "out_of_bounds"),
    ("mov.u64 %rd1, 0; ld.b32 %r1, [%rd1];", "out_of_bounds"),
    ("st.shared.b32 [in_shared+124], 0;", ""),
    ("st.shared.b32 [in_shared+128], 0;", "out_of_bounds"),
    ("mov.u32 %r1, in_shared; st.shared.b32 [%r1-4], 0;", "out_of_bounds"),
    ("cvta.shared.u64 %rd1, 128; st.b32 [%rd1], 0;", "out_of_bounds"),
    ("cvta.shared.u64 %rd1, 124; st.b32 [%rd1], 0;", ""),
    ("st.local.b32 [in_local+124], 0;", ""),
    ("st.local.b32 [in_local+128], 0;", "out_of_bounds"),
    ("ld.param.b64 %rd1, [words_pointer];", ""),
    ("ld.param.b64 %rd1, [words_pointer+24];", "out_of_bounds"),
    ("cp.async.ca.shared.global [in_shared], [%words+124], 4;", ""),
    ("cp.async.ca.shared.global [in_shared], [%words+128], 4;", "out_of_bounds"),
    ("cp.async.ca.shared.global [in_shared+128], [%words], 4;", "out_of_bounds"),
    ("cp.async.cg.shared.global [in_shared], [%words+112], 16, 8;", ""),
]
MISALIGNED = [
    ("ld.global.b16 %h1, [%words+2];", ""),
    ("ld.global.b16 %h1, [%words+1];", "misaligned"),
    ("ld.global.b32 %r1, [%words+2];", "misaligned"),
    ("ld.global.b64 %rd1, [%words+4];", "misaligned"),
    ("ld.global.v2.b32 {%r1, %r2}, [%words+4];", "misaligned"),
    ("ld.global.v2.b32 {%r1, %r2}, [%words+8];", ""),
    ("ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%words+8];", "misaligned"),
    ("ld.global.v4.b8 {%h1, %h2, %h3, %h4}, [%words+4];", ""),
    ("ld.global.v4.b8 {%h1, %h2, %h3, %h4}, [%words+2];", "misaligned"),
    ("st.shared.b32 [in_shared+1], 0;", "misaligned"),
    ("st.local.b64 [in_local+4], 0;", "misaligned"),
    ("atom.global.add.u32 %r1, [%words+2], 1;", "misaligned"),
    ("ld.param.b32 %r1, [words_pointer+4];", ""),
    ("ld.param.b32 %r1, [words_pointer+2];", "misaligned"),
    ("cp.async.ca.shared.global [in_shared+8], [%words+8], 8;", ""),
    ("cp.async.ca.shared.global [in_shared+8], [%words+4], 8;", "misaligned"),
    ("cp.async.ca.shared.global [in_shared+4], [%words+8], 8;", "misaligned"),
    ("cp.async.cg.shared.global [in_shared], [%words+8], 16, 8;", "misaligned"),
]
UNINITIALISED = [
    ("ld.global.b32 %r1, [%blank];", "uninitialised"),
    ("st.global.b32 [%blank], 1; ld.global.b32 %r1, [%blank];", ""),
    ("st.global.b8 [%blank], %h1; ld.global.b8 %h1, [%blank];", ""),
    ("st.global.b8 [%blank], %h1; ld.global.b8 %h1, [%blank+1];", "uninitialised"),
    ("st.global.b16 [%blank], %h1; ld.global.b32 %r1, [%blank];", "uninitialised"),
    ("atom.global.add.u32 %r1, [%blank], 1;", "uninitialised"),
    ("ld.shared.b32 %r1, [in_shared];", "uninitialised"),
    ("st.shared.b32 [in_shared], 1; ld.shared.b32 %r1, [in_shared];", ""),
    ("st.shared.b32 [in_shared], 1; ld.shared.v2.b32 {%r1, %r2}, [in_shared];", "uninitialised"),
    ("ld.local.b32 %r1, [in_local];", "uninitialised"),
    ("st.local.b32 [in_local+8], 1; ld.local.b32 %r1, [in_local+8];", ""),
    ("cp.async.ca.shared.global [in_shared], [%blank], 4;", "uninitialised"),
    (
        "cp.async.ca.shared.global [in_shared], [%words], 4; cp.async.wait_all;"
        "ld.shared.b32 %r1, [in_shared];",
        "",
    ),
    (
        "cp.async.cg.shared.global [in_shared], [%words], 16, 4; cp.async.wait_all;"
        "ld.shared.b32 %r1, [in_shared+12];",
        "",
    ),
]
READ_ONLY = [
    ("ld.global.b32 %r1, [%fixed];", ""),
    ("st.global.b32 [%fixed], 1;", "read_only"),
    ("atom.global.add.u32 %r1, [%fixed], 1;", "read_only"),
    ("red.global.add.u32 [%fixed], 1;", "read_only"),
    ("ld.const.b32 %r1, [in_const];", ""),
    ("mov.u64 %rd1, in_const; st.b32 [%rd1], 1;", "read_only"),
]


@pytest.mark.parametrize(
    ("body", "kind"), [*OUT_OF_BOUNDS, *MISALIGNED, *UNINITIALISED, *READ_ONLY]
)
def test_accesses(body: str, kind: str) -> None:
    ran = run(
        body,
        {"words": WORDS, "blank": 64, "fixed": WORDS},
        block=1,
        read_only=["fixed"],
        declared=VARIABLES,
        before=".const .align 4 .b32 in_const[1] = {7};",
    )
    assert ran.kinds == ({kind} if kind else set()), ran.report.findings
    assert (ran.read("fixed", "u4") == WORDS).all()


@pytest.mark.parametrize("access", ["ld.global.b32 %r1, [%rd1];", "st.global.b32 [%rd1], %r1;"])
def test_lanes_are_counted_and_the_first_is_named(access: str) -> None:
    """Lanes 28 .. 31 of every warp of two blocks miss the buffer."""
    ran = run(
        f"""
        mov.u32 %r2, %laneid;
        mul.wide.u32 %rd1, %r2, 4;
        add.s64 %rd1, %words, %rd1;
        add.s64 %rd1, %rd1, 16;
        {access}
        """,
        {"words": WORDS},
        grid=2,
        block=64,
    )
    (finding,) = (f for f in ran.report.findings if f.kind == "out_of_bounds")
    assert finding.count == 16
    assert finding.thread % 32 == 28
    assert finding.opcode == access.split()[0]
    assert "words: 128 bytes behind its start, and it has 128." in finding.message


def test_what_cannot_be_done_is_left_out() -> None:
    """A load gives zero, a store nothing, and the others go on."""
    ran = run(
        """
        add.s64 %rd1, %words, %t4;
        ld.global.b32 %r1, [%rd1+64];
        add.s64 %rd2, %result, %t4;
        st.global.b32 [%rd2], %r1;
        """,
        {"words": WORDS, "result": 128},
    )
    assert ran.kinds == {"out_of_bounds"}
    assert ran.read("result", "u4").tolist() == [*range(16, 32), *[0] * 16]


def test_ldmatrix_rows_are_accesses() -> None:
    """The third row is misaligned, the last lies outside."""
    ran = run(
        """
        mad.lo.s32 %r1, %t, 16, 0;
        setp.eq.u32 %p1, %t, 0; @%p1 st.shared.v4.b32 [in_shared], {%r1, %r1, %r1, %r1};
        bar.warp.sync -1;
        setp.eq.u32 %p1, %t, 2; @%p1 add.u32 %r1, %r1, 2;
        setp.eq.u32 %p1, %t, 7; @%p1 add.u32 %r1, %r1, 16;
        ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r2}, [%r1];
        """,
        declared=VARIABLES,
    )
    found = {f.kind: f.thread for f in ran.report.findings if f.opcode.startswith("ldmatrix")}
    assert found == {"uninitialised": 1, "misaligned": 2, "out_of_bounds": 7}


def test_written_bytes() -> None:
    ran = run(
        "st.global.b16 [%blank+2], %h1;\nst.global.b64 [%blank+8], %rd1;", {"blank": 16}, block=1
    )
    assert np.flatnonzero(ran.buffers["blank"].written()).tolist() == [2, 3, *range(8, 16)]
