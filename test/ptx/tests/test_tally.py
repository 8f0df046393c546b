"""The table at the end of a run is made of what ran."""

from __future__ import annotations

import numpy as np
import pytest
from ptxsim import Options, Simulator, counted_as, report
from ptxsim import survey as survey_module
from ptxsim.mutants import mutants
from ptxsim.report import Launch, Report
from ptxsim.survey import Trial, survey
from ptxsim.tally import Tally

# 64 threads store a number each; a load of what nobody has written is a finding.
TEXT = """.version 8.4
.target sm_80
.address_size 64
.visible .entry one(.param .u64 out_)
{
.reg .b32 %r<4>; .reg .b64 %a<4>;
ld.param.u64 %a1, [out_];
mov.u32 %r1, %tid.x;
mul.wide.u32 %a2, %r1, 4;
add.s64 %a1, %a1, %a2;
LOAD
st.global.u32 [%a1], %r1;
ret;
}
"""
GOOD, BAD = TEXT.replace("LOAD", ""), TEXT.replace("LOAD", "ld.global.u32 %r2, [%a1];")


def run(text: str, options: Options | None = None) -> tuple[Report, list[str]]:
    simulator = Simulator(text)
    out = simulator.buffer("out", size=256)
    done = simulator.launch("one", 1, 64, [out], options=options)
    is_right = np.array_equal(out.read(np.uint32), np.arange(64))
    return done, [] if is_right else ["the numbers are wrong"]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """The launches of a test, of which the table of the whole run does not hear."""
    launches: list[Launch] = []
    monkeypatch.setattr(report, "OBSERVERS", [launches.append])
    monkeypatch.setattr(survey_module, "OBSERVERS", [])
    return launches


def cells(tally: Tally, first: str) -> list[str]:
    (line,) = (line for line in tally.lines() if line.startswith(first))
    return line[len(first) :].split()


def test_a_launch_says_its_family_kernel_and_work(seen: list[Launch]) -> None:
    with counted_as("stores"):
        run(GOOD)
    (launch,) = seen
    assert (launch.family, launch.entry, launch.target) == ("stores", "one", "sm_80")
    assert launch.report.lane_steps == 64 * 6
    assert launch.seconds > 0


def test_the_outermost_family_counts(seen: list[Launch]) -> None:
    with counted_as("outer"), counted_as("inner"):
        run(GOOD)
    run(GOOD)
    assert [launch.family for launch in seen] == ["outer", ""]


def table(launches: list[Launch]) -> Tally:
    tally = Tally()
    for launch in launches:
        tally.add_launch(launch)
    return tally


def test_the_table_has_kernels_shapes_schedules_launches_and_lanes(seen: list[Launch]) -> None:
    with counted_as("stores"):
        for seed in range(3):
            run(GOOD, Options(seed=seed))
            run(GOOD.replace("sm_80", "sm_90"), Options(seed=seed))
    tally = table(seen)
    assert cells(tally, "stores")[:6] == ["2", "1", "3", "6", "0", f"{6 * 64 * 6:,}"]
    assert len(tally.lines()) == 2


def test_findings_are_counted_and_named(seen: list[Launch]) -> None:
    with counted_as("stores"):
        run(BAD)
        run(BAD)
        run(GOOD)
    tally = table(seen)
    assert cells(tally, "stores")[4] == "2"
    assert tally.lines()[-1] == "found in stores: uninitialised in one, 2 launches"


def test_mutants_are_counted_by_group_and_their_findings_are_none(seen: list[Launch]) -> None:
    with counted_as("stores"):
        run(GOOD)
    result = survey(GOOD, mutants(GOOD, "one"), [Trial(run)], family="stores")
    tally = table(seen)
    tally.add_survey(result)
    assert cells(tally, "stores")[3:5] == ["1", "0"]
    assert cells(tally, "mutants")[3:5] == ["1", "-"]
    assert cells(tally, "addresses and swizzles") == ["stores", "1", "0", "1", "0", "0"]
    assert cells(tally, "all") == ["1", "0", "1", "0", "0"]


def test_without_a_family_there_is_no_table(seen: list[Launch]) -> None:
    run(GOOD)
    assert table(seen).lines() == []
