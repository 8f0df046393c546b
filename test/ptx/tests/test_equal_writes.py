"""Unordered writes of the same bytes are told from other races, which no option silences."""

from __future__ import annotations

import numpy as np
import pytest
from snippets import Options, run

SILENT = Options(reports_equal_writes=False)

# All threads store to one word; %r1 is the value.
STORE = "mov.u32 %r1, {value};\nst.shared.u32 [smem], %r1;"
SHARED = ".shared .align 16 .b8 smem[512];"


def kinds(body: str, options: Options) -> set[str]:
    source = np.arange(1, 129, dtype=np.uint32)
    return run(body, {"source": source}, declared=SHARED, options=options).kinds


def test_equal_writes_have_a_kind_of_their_own() -> None:
    assert kinds(STORE.format(value=7), Options()) == {"race_of_equal_writes"}
    assert kinds(STORE.format(value=7), SILENT) == set()


def test_different_writes_are_races() -> None:
    assert kinds(STORE.format(value="%t"), SILENT) == {"race"}


def test_a_write_of_what_others_read_is_a_race() -> None:
    body = STORE.format(value=7) + "\nbar.sync 0;\nld.shared.u32 %r2, [smem];\n"
    assert kinds(body, SILENT) == set()
    assert kinds(body + STORE.format(value=7), SILENT) == {"race"}


@pytest.mark.parametrize("copies_late", [True, False])
def test_a_write_over_a_copy_on_its_way_is_a_race(copies_late: bool) -> None:
    # Shared memory holds zeros until the copy has arrived.
    body = """
      setp.ne.u32 %p1, %t, 0;
      @%p1 bra END;
      cp.async.ca.shared.global [smem], [%source], 4;
      mov.u32 %r1, 0;
      st.shared.u32 [smem], %r1;
      cp.async.wait_all;
    END:
    """
    options = Options(copies_late=copies_late, reports_equal_writes=False)
    assert kinds(body, options) == {"race"}


@pytest.mark.parametrize(
    "other",
    [
        "@%p2 ld.shared.u32 %r2, [smem+8];",
        "@%p2 atom.shared.add.u32 %r2, [smem+8], 0;",
        "@%p2 cp.async.ca.shared.global [smem+8], [%source], 4;",
    ],
)
def test_an_equal_write_does_not_hide_another_race(other: str) -> None:
    equal = "@%p1 st.shared.u32 [smem], %r1;"
    row = "st.shared.v4.u32 [smem], {%r1, %r1, %r1, %r1};"
    body = f"""
      mov.u32 %r1, 7;
      setp.eq.u32 %p1, %t, 0;
      setp.eq.u32 %p2, %t, 1;
      setp.eq.u32 %p3, %t, 2;
      @%p1 {row}
      bar.sync 0;
    """
    assert kinds(f"{body}{equal}\n@%p3 {row}", SILENT) == set()
    assert kinds(f"{body}{equal}\n{other}\n@%p3 {row}", SILENT) == {"race"}
    assert kinds(f"{body}{other}\n{equal}\n@%p3 {row}", SILENT) == {"race"}
