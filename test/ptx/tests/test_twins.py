"""The twin of a mutant traps where what the mutant computes otherwise reaches something."""

from __future__ import annotations

import numpy as np
import pytest
from ptxsim import Options, Report, Simulator
from ptxsim.mutants import Mutant, mutants
from ptxsim.survey import Trial, survey
from ptxsim.twins import twin

# %r1 is the lane, 0 .. 31; %a1 the place of its word in `out`, %a2 one in `words`, %r3 one in smem.
MODULE = """.version 8.4
.target sm_80
.address_size 64
.visible .entry one(.param .u64 words_, .param .u64 out_)
{{
.reg .pred %p<9>; .reg .b32 %r<99>; .reg .b64 %a<9>; .reg .f32 %f<9>;
.shared .align 16 .b8 smem[512];
ld.param.u64 %a2, [words_];
ld.param.u64 %a1, [out_];
mov.u32 %r1, %tid.x;
mul.wide.u32 %a3, %r1, 4;
add.s64 %a1, %a1, %a3;
mul.wide.u32 %a3, %r1, 16;
add.s64 %a2, %a2, %a3;
cvt.u32.u64 %r3, %a3;
mov.u32 %r4, smem;
add.s32 %r3, %r3, %r4;
// the case
{body}
ret;
}}
"""
STORE = "st.global.u32 [%a1], %r9;"


def run(text: str, options: Options) -> tuple[Report, list[str]]:
    simulator = Simulator(text)
    words = simulator.buffer("words", np.zeros(128, np.uint32))
    out = simulator.buffer("out", size=128)
    return simulator.launch("one", 1, 32, [words, out], options=options), []


def changed(body: str, kind: str) -> list[Mutant]:
    text = MODULE.format(body=body)
    first = text[: text.index("// the case")].count("\n")
    return [one for one in mutants(text, "one", kinds=frozenset({kind})) if one.line > first]


def traps(mutant: Mutant) -> bool:
    text = twin(mutant)
    assert text is not None
    assert text.count("\n") == mutant.module.count("\n")
    kinds = {found.kind for found in run(text, Options())[0].findings}
    assert kinds <= {"trap"}
    return bool(kinds)


SAME = {
    "the bit is zero": ("constant", f"shl.b32 %r8, %r1, 13; and.b32 %r9, %r8, 0x6000; {STORE}"),
    "never equal": (
        "comparison",
        f"setp.lt.s32 %p1, %r1, 32; selp.b32 %r9, 1, 2, %p1; {STORE}",
    ),
    "nobody reads it": ("xor removed", f"xor.b32 %r8, %r1, 1; mov.u32 %r9, 0; {STORE}"),
    "absorbed": ("xor removed", f"xor.b32 %r8, %r1, 1; or.b32 %r9, %r8, 1; {STORE}"),
    "no other lane asks for it": (
        "comparison",
        "setp.lt.s32 %p2, %r1, 31; selp.b32 %r8, 1, 2, %p2;"
        f"shfl.sync.idx.b32 %r9|%p1, %r8, 0, 31, -1; {STORE}",
    ),
    "written anew": (
        "xor removed",
        f"xor.b32 %r8, %r1, 1; setp.ge.s32 %p1, %r1, 0; @%p1 mov.u32 %r8, 7; "
        f"add.s32 %r9, %r8, 1; {STORE}",
    ),
    "no byte is copied from there": (
        "xor removed",
        "mov.u32 %r9, 0; xor.b32 %r8, %r1, 1; mul.wide.u32 %a4, %r8, 16; add.s64 %a4, %a2, %a4;"
        "cp.async.cg.shared.global [%r3], [%a4], 16, %r9; cp.async.wait_all;",
    ),
    "nothing is stored there": (
        "xor removed",
        "setp.gt.s32 %p1, %r1, 99; xor.b32 %r9, %r1, 1; @%p1 " + STORE + "setp.ge.s32 %p1, %r1, 0;"
        "@!%p1 " + STORE,
    ),
    "the size is always 16": (
        "copy size",
        "mov.u32 %r9, 16; cp.async.cg.shared.global [%r3], [%a2], 16, %r9; cp.async.wait_all;",
    ),
    "the guard always holds": (
        "guard dropped",
        f"mov.u32 %r9, 1; setp.lt.s32 %p1, %r1, 32; @%p1 {STORE}",
    ),
}

OTHER = {
    "it is stored": ("xor removed", f"xor.b32 %r9, %r1, 1; {STORE}"),
    "it is stored after all": (
        "xor removed",
        f"xor.b32 %r8, %r1, 1; mul.lo.s32 %r9, %r8, 3; {STORE}",
    ),
    "in one lane": ("comparison", f"setp.lt.s32 %p1, %r1, 31; selp.b32 %r9, 1, 2, %p1; {STORE}"),
    "it is an address": (
        "xor removed",
        "ld.param.u64 %a5, [words_]; xor.b32 %r8, %r1, 1; mul.wide.u32 %a4, %r8, 4;"
        "add.s64 %a4, %a5, %a4; ld.global.u32 %r9, [%a4];",
    ),
    "it is a branch": (
        "comparison",
        f"mov.u32 %r9, 1; setp.lt.s32 %p1, %r1, 31; @%p1 bra END; mov.u32 %r9, 1;\nEND: {STORE}",
    ),
    "another lane stores it": (
        "xor removed",
        f"xor.b32 %r8, %r1, 1; shfl.sync.idx.b32 %r9|%p1, %r8, 0, 31, -1; {STORE}",
    ),
    "some bytes are copied from there": (
        "xor removed",
        "mov.u32 %r9, 4; xor.b32 %r8, %r1, 1; mul.wide.u32 %a4, %r8, 16; add.s64 %a4, %a2, %a4;"
        "cp.async.cg.shared.global [%r3], [%a4], 16, %r9; cp.async.wait_all;",
    ),
    "the next turn reads it": (
        "constant",
        "mov.u32 %r9, 1; mov.u32 %r8, 0;\nAGAIN: add.s32 %r8, %r8, 1; shl.b32 %r9, %r9, 1;"
        f"setp.lt.s32 %p1, %r8, 3; @%p1 bra AGAIN; {STORE}",
    ),
    "the guard fails once": (
        "guard dropped",
        f"mov.u32 %r9, 1; setp.lt.s32 %p1, %r1, 31; @%p1 {STORE}",
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_the_twin_of_what_reaches_nothing_goes_on(name: str) -> None:
    kind, body = SAME[name]
    assert False in {traps(mutant) for mutant in changed(body, kind)}


@pytest.mark.parametrize("name", OTHER)
def test_the_twin_of_what_reaches_something_traps(name: str) -> None:
    kind, body = OTHER[name]
    assert {traps(mutant) for mutant in changed(body, kind)} == {True}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("offset moved", STORE),
        ("barrier dropped", "bar.sync 0;"),
        ("guard negated", f"setp.lt.s32 %p1, %r1, 31; @%p1 {STORE}"),
    ],
)
def test_what_is_no_value_has_no_twin(kind: str, body: str) -> None:
    assert [twin(mutant) for mutant in changed(body, kind)] == [None]


def test_a_survey_tells_what_reaches_nothing_from_what_nobody_noticed() -> None:
    # Nobody looks at `out` here.
    body = "xor.b32 %r8, %r1, 1; xor.b32 %r9, %r1, 2; " + STORE
    made = changed(body, "xor removed")
    for excuses, verdicts in (
        (True, ["equivalent", "survived"]),
        (False, ["survived", "survived"]),
    ):
        result = survey(made[0].module, made, [Trial(run)], finds_equivalents=excuses)
        assert [outcome.verdict for outcome in result.outcomes] == verdicts
