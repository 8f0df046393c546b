"""The mutation engine, kind by kind, on snippets."""

from __future__ import annotations

import numpy as np
import pytest
from ptxsim import Options, Report, Simulator
from ptxsim.mutants import KINDS, SYNCHRONISATION, Mutant, mutants
from ptxsim.statements import statements
from ptxsim.survey import Trial, survey

HEAD = ".version 8.4\n.target sm_80\n.address_size 64\n"


def module(body: str) -> str:
    return f"{HEAD}.visible .entry one(.param .u64 out_)\n{{\n{body}\nret;\n}}\n"


def made(body: str, kind: str) -> list[str]:
    """The instructions that stand in the place of those of `body`; - for none."""
    return [one.after or "-" for one in mutants(module(body), "one", kinds=frozenset({kind}))]


EXACT = [
    ("barrier dropped", "bar.sync 0;", ["-"]),
    ("barrier dropped", "barrier.cta.sync.aligned 1, 64;", ["-"]),
    ("barrier dropped", "bar.warp.sync -1;", []),
    ("warp barrier dropped", "bar.warp.sync -1;", ["-"]),
    ("warp barrier dropped", "bar.arrive 1, 64;", []),
    ("wait dropped", "cp.async.wait_group 2;\ncp.async.wait_all;", ["-", "-"]),
    ("wait raised", "cp.async.wait_group 2;", ["cp.async.wait_group 3;"]),
    (
        "wait after barrier",
        "cp.async.wait_group 0; // both\nbar.sync 0;\nmov.u32 %r1, 0;\ncp.async.wait_all;",
        ["bar.sync 0; // both cp.async.wait_group 0;"],
    ),
    ("commit dropped", "cp.async.commit_group;", ["-"]),
    ("fence dropped", "fence.acq_rel.gpu;\nmembar.gl;", ["-", "-"]),
    ("order weakened", "ld.acquire.gpu.b32 %r1, [%a];", ["ld.relaxed.gpu.b32 %r1, [%a];"]),
    ("order weakened", "ld.relaxed.gpu.global.b32 %r1, [%a];", ["ld.weak.global.b32 %r1, [%a];"]),
    ("order weakened", "ld.volatile.shared.b32 %r1, [%a];", ["ld.weak.shared.b32 %r1, [%a];"]),
    ("order weakened", "st.release.sys.b32 [%a], 1;", ["st.relaxed.sys.b32 [%a], 1;"]),
    (
        "order weakened",
        "@%p1 atom.global.gpu.acq_rel.add.u32 %r1, [%a], 1;",
        ["@%p1 atom.global.gpu.relaxed.add.u32 %r1, [%a], 1;"],
    ),
    ("order weakened", "red.release.gpu.add.u32 [%a], 1;", ["red.relaxed.gpu.add.u32 [%a], 1;"]),
    ("order weakened", "atom.add.u32 %r1, [%a], 1;\nld.global.b32 %r1, [%a];", []),
    ("scope narrowed", "atom.add.u32 %r1, [%a], 1;", ["atom.cta.add.u32 %r1, [%a], 1;"]),
    (
        "scope narrowed",
        "atom.acquire.global.cas.b32 %r1, [%a], 0, 1;",
        ["atom.acquire.cta.global.cas.b32 %r1, [%a], 0, 1;"],
    ),
    ("scope narrowed", "ld.acquire.gpu.b32 %r1, [%a];", ["ld.acquire.cta.b32 %r1, [%a];"]),
    (
        "scope narrowed",
        "membar.gl;\nfence.acq_rel.sys;",
        ["membar.cta;", "fence.acq_rel.cta;"],
    ),
    ("scope narrowed", "atom.shared.add.u32 %r1, [%a], 1;\nst.global.b32 [%a], 1;", []),
    ("xor removed", "xor.b32 \t%r1, %r2, 32;", ["mov.b32 %r1, %r2;"]),
    ("constant", "shl.b32 %r1, %r2, 4;", ["shl.b32 %r1, %r2, 5;"]),
    ("constant", "bfe.u32 %r1, %r2, 3, 4;", ["bfe.u32 %r1, %r2, 2, 4;", "bfe.u32 %r1, %r2, 3, 5;"]),
    ("constant", "and.b32 %r1, %r2, 1;", ["and.b32 %r1, %r2, 0;"]),
    ("constant", "shr.u32 %r1, 7, %r2;\nand.b32 %r1, %r2, %r3;", ["shr.u32 %r1, 6, %r2;"]),
    ("comparison", "setp.lt.s32 %p1, %r1, 4;", ["setp.le.s32 %p1, %r1, 4;"]),
    ("comparison", "setp.ge.and.f32 %p1, %f1, %f2, %p2;", ["setp.gt.and.f32 %p1, %f1, %f2, %p2;"]),
    ("comparison", "setp.neu.f32 %p1, %f1, %f2;", ["setp.equ.f32 %p1, %f1, %f2;"]),
    ("comparison", "setp.nan.f32 %p1, %f1, %f2;", []),
    ("selp exchanged", "selp.b32 %r1, 16, 0, %p1;", ["selp.b32 %r1, 0, 16, %p1;"]),
    ("selp exchanged", "selp.b32 %r1, %r2, %r2, %p1;", []),
    ("guard dropped", "@%p1 bra END;\n@!%p1 ret;", ["bra END;", "ret;"]),
    ("guard negated", "@%p1 bra END;\n@!%p1 ret;", ["@!%p1 bra END;", "@%p1 ret;"]),
    (
        "copy size",
        "cp.async.cg.shared.global [ %r1 + 0 ], [ %a + 0 ], 0x10, %r2;",
        [
            "cp.async.cg.shared.global [ %r1 + 0 ], [ %a + 0 ], 0x10, 16;",
            "cp.async.cg.shared.global [ %r1 + 0 ], [ %a + 0 ], 0x10, 0;",
        ],
    ),
    ("copy size", "cp.async.cg.shared.global [%r1], [%a], 16;", []),
    ("offset moved", "ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%a+16];", ["[%a+32];"]),
    ("offset moved", "st.shared.u16 [%r1+-2], %rs1;", ["st.shared.u16 [%r1], %rs1;"]),
    ("offset moved", "st.shared.u16 [%r1 - 4], %rs1;", ["st.shared.u16 [%r1+-2], %rs1;"]),
    ("offset moved", "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [ %r2 + 0 ];", ["[%r2+16];"]),
    (
        "offset moved",
        "cp.async.ca.shared.global [%r1], [%a+4], 4;",
        [
            "cp.async.ca.shared.global [%r1+4], [%a+4], 4;",
            "cp.async.ca.shared.global [%r1], [%a+8], 4;",
        ],
    ),
    ("offset moved", "red.global.add.noftz.f16x2 [%a], %r1;", ["[%a+4], %r1;"]),
    ("offset moved", "ld.param.u64 %a, [out_];\nst.local.u32 [%r1], 1;", []),
]


@pytest.mark.parametrize(("kind", "body", "wanted"), EXACT)
def test_changes_just_this(kind: str, body: str, wanted: list[str]) -> None:
    found = made(body, kind)
    assert len(found) == len(wanted)
    for after, end in zip(found, wanted, strict=True):
        assert after.endswith(end)


def test_two_bits_of_a_lop3_table_are_flipped_one_at_a_time() -> None:
    tables = [
        int(one.removesuffix(";").split(", ")[-1], 0)
        for one in made("lop3.b32 %r1, %r2, %r3, %r4, 0xea;", "lop3 table")
    ]
    assert len(set(tables)) == 2
    assert all((table ^ 0xEA).bit_count() == 1 for table in tables)


def test_one_nibble_of_a_selector_changes_within_three_bits() -> None:
    (one,) = made("prmt.b32 %r1, %r2, %r3, 0x5410U;", "prmt selector")
    nibbles = [(int(one[-7:-1], 0) ^ 0x5410) >> 4 * n & 15 for n in range(4)]
    assert sorted(nibbles)[:3] == [0, 0, 0]
    assert 0 < sum(nibbles) < 8
    assert made("prmt.b32 %r1, %r2, %r3, %r4;", "prmt selector") == []


def test_registers_of_a_and_of_b_are_exchanged_where_they_differ() -> None:
    opcode = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
    accumulators = "{%f1, %f2, %f3, %f4}"
    first, second = made(
        f"{opcode} {accumulators}, {{%r1, %r1, %r1, %r2}}, {{ %r3, %r4 }}, {accumulators};",
        "mma exchanged",
    )
    assert sorted(first.split("{")[2].split("}")[0].split(", ")) == ["%r1", "%r1", "%r1", "%r2"]
    assert "{%r1, %r1, %r1, %r2}" not in first
    assert "{%r4, %r3}" in second


def test_every_kind_is_tested_here() -> None:
    others = {"lop3 table", "prmt selector", "mma exchanged"}
    assert {kind for kind, _, wanted in EXACT if wanted} | others == KINDS
    assert KINDS > SYNCHRONISATION


SCATTERED = """.reg .b32 %r<9>; // a comment; with semicolons: bar.sync 0;
{ .reg .pred p; shfl.sync.up.b32 %r1|p, %r2, 1, 0, -1; @p add.s32 %r1, %r1,
  %r2; mov.u32 %r3, %tid.x;}
.loc 1 22 0 /* bar.sync 1;
*/ $L__1: // label
  @!%p2
  ld.shared.v2.u32 {%r4,
  %r5}, [%r6+8];
.pragma "nounroll";
"""


def test_instructions_are_found_wherever_they_stand() -> None:
    first = module("").count("\n", 0, module("").index("{")) + 2
    found = [
        (s.line - first, s.name, len(s.operands)) for s in statements(module(SCATTERED), "one")
    ]
    assert found == [(1, "shfl", 5), (1, "add", 3), (2, "mov", 2), (5, "ld", 2), (10, "ret", 0)]


def test_mutants_keep_line_numbers_and_all_else() -> None:
    text = module(SCATTERED)
    found = list(mutants(text, "one"))
    assert {one.kind for one in found} == {"guard dropped", "guard negated", "offset moved"}
    for one in found:
        assert one.text.count("\n") == text.count("\n")
        line = text.split("\n")[one.line - 1]
        assert line.strip()
        assert str(one).startswith(f"{one.kind}, line {one.line}: `{one.before}` -> `")


def test_only_the_entry_that_was_asked_for_is_changed() -> None:
    text = module("bar.sync 0;") + module("bar.sync 1;").removeprefix(HEAD).replace("one(", "one_(")
    (mutant,) = mutants(text, "one_", kinds=SYNCHRONISATION)
    assert mutant.before == "bar.sync 1;"
    with pytest.raises(ValueError, match="expected an entry of the module, got on"):
        list(mutants(text, "on"))


def test_a_seed_draws_the_same_mutants_again() -> None:
    text = module("lop3.b32 %r1, %r2, %r3, %r4, 0xea;\n" * 8)
    texts = [[one.text for one in mutants(text, "one", seed=seed)] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


# The second store is dead, the branch is never taken, and one of 64 threads turns the first pair of
# elements around.
SURVEYED = module("""
.reg .pred %p<4>; .reg .b32 %r<9>; .reg .b64 %a<4>;
.shared .align 4 .b8 smem[256];
ld.param.u64 %a1, [out_];
mov.u32 %r1, %tid.x;
shl.b32 %r2, %r1, 2;
mov.u32 %r3, smem;
add.s32 %r3, %r3, %r2;
st.shared.u32 [%r3], %r1;
bar.sync 0;
setp.gt.u32 %p1, %r1, 63;
@%p1 bra NEVER;
ld.shared.u32 %r4, [%r3];
bar.sync 0;
cvt.u64.u32 %a2, %r2;
add.s64 %a1, %a1, %a2;
st.global.u32 [%a1], %r4;
ret;
NEVER:
xor.b32 %r4, %r1, 1;
st.global.u32 [%a1], %r4;
""")


def simulate(text: str, options: Options) -> tuple[Report, list[str]]:
    simulator = Simulator(text)
    out = simulator.buffer("out", size=256)
    report = simulator.launch("one", 1, 64, [out], options=options)
    is_right = np.array_equal(out.read(np.uint32), np.arange(64))
    return report, [] if is_right else ["the numbers are wrong"]


def test_a_survey_tells_caught_from_survived_and_from_not_executed() -> None:
    result = survey(SURVEYED, mutants(SURVEYED, "one"), [Trial(simulate)])
    verdicts = {(one.mutant.kind, one.mutant.line): one.verdict for one in result.outcomes}
    first = SURVEYED.split("\n").index("st.shared.u32 [%r3], %r1;") + 1
    assert verdicts == {
        ("constant", first - 3): "caught",
        ("offset moved", first): "caught",
        ("barrier dropped", first + 1): "survived",
        ("comparison", first + 2): "caught",
        ("guard dropped", first + 3): "caught",
        ("guard negated", first + 3): "caught",
        ("offset moved", first + 4): "caught",
        ("barrier dropped", first + 5): "survived",
        ("offset moved", first + 8): "caught",
        ("xor removed", first + 11): "not executed",
        ("offset moved", first + 12): "not executed",
    }
    assert result.share_caught() == pytest.approx(7 / 9)
    assert [one.line for one in result.survivors({"barrier dropped"})] == [first + 1, first + 5]
    assert result.table().splitlines()[-1].split() == ["all", "11", "2", "7", "0", "2"]


def test_a_survey_does_not_count_what_is_wrong_with_the_healthy_module() -> None:
    healthy = SURVEYED.replace("st.shared.u32 [%r3], %r1;", "st.shared.u32 [smem], 0;", 1).replace(
        "ld.shared.u32 %r4, [%r3];", "mov.u32 %r4, %r1;", 1
    )
    assert simulate(healthy, Options())[0].findings
    result = survey(healthy, mutants(healthy, "one", kinds=SYNCHRONISATION), [Trial(simulate)])
    assert [one.verdict for one in result.outcomes] == ["survived", "survived"]


def test_a_survey_refuses_a_module_that_is_wrong_from_the_start() -> None:
    wrong = SURVEYED.replace("shl.b32 %r2, %r1, 2;", "mov.u32 %r2, 0;")
    with pytest.raises(ValueError, match="right results, got the numbers are wrong"):
        survey(wrong, [], [Trial(simulate)])


def test_a_mutant_that_never_ends_is_stopped() -> None:
    text = module("""
.reg .pred %p<4>; .reg .b32 %r<9>;
mov.u32 %r1, 4;
AGAIN:
add.s32 %r1, %r1, -1;
setp.ne.s32 %p1, %r1, 0;
@%p1 bra AGAIN;
""")

    def run(text: str, options: Options) -> tuple[Report, list[str]]:
        simulator = Simulator(text)
        out = simulator.buffer("out", size=4)
        return simulator.launch("one", 1, 32, [out], options=options), []

    endless: list[Mutant] = list(mutants(text, "one", kinds=frozenset({"guard dropped"})))
    (outcome,) = survey(text, endless, [Trial(run)]).outcomes
    assert outcome.verdict == "caught"
    assert "too_long" in outcome.by
