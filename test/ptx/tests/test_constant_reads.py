"""What ld.global.nc reads must not be written by the same grid, whatever orders the two."""

from __future__ import annotations

import numpy as np
import pytest
from ptxsim import Simulator
from snippets import module, run

READ = "ld.global.nc.b32 %r1, [%rd1];"
MEET = "bar.sync 0;"
PLACE = "xor.b32 %r3, %t, 1;\nmul.wide.u32 %rd1, %r3, 4;\nadd.u64 %rd1, %rd1, %data;"


def kinds(*steps: str) -> set[str]:
    body = "\n".join(["add.u64 %rd2, %data, %t4;", PLACE, *steps])
    return run(body, {"data": np.arange(64, dtype=np.uint32)}).kinds


@pytest.mark.parametrize(
    "write", ["st.global.b32 [%rd2], %t;", "atom.global.add.u32 %r2, [%rd2], 0;"]
)
def test_neither_an_earlier_nor_a_later_write_is_allowed(write: str) -> None:
    assert kinds(write, MEET, READ) == {"not_constant"}
    assert kinds(READ, MEET, write) == {"not_constant"}


def test_a_coherent_load_sees_an_ordered_write() -> None:
    assert kinds("st.global.b32 [%rd2], %t;", MEET, READ.replace(".nc", "")) == set()


def test_bytes_beside_may_be_written() -> None:
    assert kinds(READ, MEET, "st.global.b32 [%rd2+128], %t;") == set()


def test_another_grid_may_write() -> None:
    simulator = Simulator(module(PLACE + READ + "\nst.global.b32 [%rd1+128], %r1;", ["data"]))
    data = simulator.buffer("data", np.arange(96, dtype=np.uint32))
    for start in (0, 32, 0):
        data_from = data.address + 4 * start
        simulator.launch("snippet", 1, 32, [data_from]).raise_if_found()
