"""Bodies in which threads of a block hand numbers to each other."""

from __future__ import annotations

import numpy as np
from ptxsim import Options
from snippets import Ran, run

SHARED = ".shared .align 16 .b8 tile[1024];"
SEEDS = range(6)
WORDS = np.arange(256, dtype="u4")


def found(body: str, *, seed: int = 1, grid: int = 1, block: int = 64, **options: int) -> Ran:
    return run(
        body,
        {"words": WORDS, "result": np.zeros(256, "u4"), "flags": np.zeros(4, "u4")},
        grid=grid,
        block=block,
        declared=SHARED,
        options=Options(seed=seed, **options),
    )


WRITE_OWN = "mov.u32 %r1, tile; mad.lo.s32 %r2, %t, 4, %r1; st.shared.u32 [%r2], %t;"
READ_OTHER = """
  xor.b32 %r3, %t, {by}; mad.lo.s32 %r4, %r3, 4, %r1; ld.shared.u32 %r5, [%r4];
  add.s64 %rd1, %result, %t4; st.global.u32 [%rd1], %r5;
"""
