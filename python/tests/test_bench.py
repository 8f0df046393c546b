"""The pure parts of bench/: shapes, shares and ratios, the goals. Nothing here is about speed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench import goals, implementations, peaks
from bench.cells import (
    READ,
    Measured,
    describe,
    dot_name,
    one_row_name,
    render,
)
from bench.shapes import GROUP_SIZES, ROWS, SETS, LinearShape
from bench.timing import Seconds, Spread, Timings, interleave

from marlin import primitives

SHAPE = LinearShape("test", 4096, 1024)
OURS = Measured("marlin", 2_000, "bfloat16", is_ours=True)
PEER = Measured("torch-int4", 3_000, "float32", is_ours=False)


def timings(**other: list[float]) -> Timings:
    """Three rounds in which the machine slows down to half its speed."""
    return Timings(
        {
            READ: [1.0, 2.0, 2.0],
            dot_name("bfloat16"): [0.5, 1.0, 1.0],
            "marlin": [4.0, 8.0, 8.0],
            "torch-int4": [8.0, 16.0, 32.0],
            **other,
        },
        other_cpus=0.0,
    )


def cell(m: int = 1, **other: list[float]) -> dict[str, Any]:
    return describe(
        SHAPE,
        m,
        128,
        [OURS, PEER],
        timings(**other),
        read_bytes=1_000,
        dot_operations={"bfloat16": 2 * SHAPE.k * SHAPE.n},
    )


# Shapes


def test_every_shape_and_row_count_fits_every_implementation() -> None:
    for shape in {shape for shapes in SETS.values() for shape in shapes}:
        assert shape.n % 64 == 0
        assert all(shape.k % group_size == 0 for group_size in GROUP_SIZES)
    assert sorted(set(ROWS)) == list(ROWS)


def test_the_goals_are_about_the_three_large_shapes() -> None:
    assert [str(shape) for shape in SETS["goals"]] == ["4096x4096", "4096x14336", "14336x4096"]
    assert set(SETS["goals"]) < set(SETS["llama"])


def test_a_weight_has_the_layout_and_the_value_that_the_package_defines() -> None:
    weight = implementations.Weight.random(LinearShape("test", 256, 64), 32)
    plain = primitives.pack_codes(weight.codes)
    assert torch.equal(weight.plain(), plain)
    assert torch.equal(weight.dense(), primitives.dequantize(plain, weight.scales, None, 32))


# Shares and ratios


def test_a_share_is_formed_round_by_round() -> None:
    measured = cell()["implementations"]["marlin"]
    # Twice the bytes of the probe in four times its seconds, in every round.
    assert measured["read_share"] == {"median": 0.5, "low": 0.5, "high": 0.5}
    assert measured["dot_share"] == {"median": 0.125, "low": 0.125, "high": 0.125}
    assert cell(m=4)["implementations"]["marlin"]["dot_share"]["median"] == 0.5


def test_rates_are_in_units_of_a_billion() -> None:
    measured = cell(m=2)["implementations"]["marlin"]
    assert measured["us"]["median"] == 8e6
    assert measured["gb_per_s"] == pytest.approx(2_000 / 8 / 1e9)
    assert measured["gop_per_s"] == pytest.approx(2 * 2 * SHAPE.k * SHAPE.n / 8 / 1e9)


def test_a_ratio_is_the_time_of_the_peer_over_ours() -> None:
    implementations = cell()["implementations"]
    assert implementations["marlin"]["ratio"]["torch-int4"] == {"median": 2, "low": 2, "high": 3}
    assert implementations["torch-int4"]["ratio"] == {}


def test_without_a_probe_of_its_kind_there_is_no_share() -> None:
    assert cell()["implementations"]["torch-int4"]["dot_share"] is None


def test_the_time_of_one_row_is_compared_where_it_was_measured() -> None:
    assert cell(4)["implementations"]["marlin"]["time_vs_m1"] is None
    with_one = cell(4, **{one_row_name("marlin"): [2.0, 4.0, 8.0]})
    assert with_one["implementations"]["marlin"]["time_vs_m1"]["median"] == 2.0


def test_a_line_tells_the_share_of_reading_for_few_rows_and_of_the_peak_for_many() -> None:
    assert "50 % of reading" in next(render(cell(1)))
    assert "200 % of bfloat16" in next(render(cell(16)))
    assert "torch-int4 x2.00" in next(render(cell(1)))


def test_a_cell_that_others_disturbed_says_so() -> None:
    disturbed = {**cell(), "other_cpus": 0.9}
    assert goals.is_quiet(cell())
    assert not goals.is_quiet(disturbed)
    assert "0.90 CPUs" in list(render(disturbed))[-1]
    assert goals.is_quiet({"other_cpus": None})


# The timer


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([1.0]) == Spread(1.0, 1.0, 1.0)
    assert Spread(1.0, 0.5, 2.0).scaled(10) == Spread(10.0, 5.0, 20.0)


def test_every_call_of_a_case_has_another_number() -> None:
    calls: dict[str, list[int]] = {"a": [], "b": []}
    cases = {name: numbers.append for name, numbers in calls.items()}
    held = interleave(cases, budget=0.0, least_rounds=2, most_rounds=5)
    for name, numbers in calls.items():
        assert numbers == list(range(len(numbers)))
        assert len(held.seconds[name]) == 2


def test_a_case_may_bring_its_own_clock() -> None:
    held = interleave({"a": lambda _: Seconds(7)}, budget=0.0, least_rounds=1, most_rounds=1)
    assert held.seconds["a"] == [7.0]


# Goals


def run(*cells: dict[str, Any], threads: int = 2, isa: str = "native") -> dict[str, Any]:
    return {"threads": threads, "isa": isa, "machine": {"cores": 2}, "cells": list(cells)}


def measured_cell(m: int = 1, **values: float) -> dict[str, Any]:
    """A cell of `marlin` that has these medians, by the names of `goals.Goal.quantity`."""
    own = {"read_share": None, "dot_share": None, "time_vs_m1": None, "dot_kind": "bfloat16"}
    spreads = {name: {"median": value} for name, value in values.items()}
    entry = {**own, **spreads, "ratio": spreads}
    return {
        "m": m,
        "group_size": 128,
        "other_cpus": 0.0,
        "implementations": {"marlin": entry},
    }


READING = goals.Goal("marlin", "read_share", {1: 0.9})
ONE_THREAD = goals.Goal("marlin", "read_share", {1: 0.85}, threads="one")


def verdicts(measured: dict[str, Any], *held: goals.Goal) -> list[str]:
    return [row.verdict for row in goals.evaluate(measured, held)]


def test_a_goal_is_met_when_every_shape_meets_it() -> None:
    good, better, bad = (measured_cell(read_share=value) for value in (0.9, 0.95, 0.89))
    assert verdicts(run(good, better), READING) == ["met"]
    assert verdicts(run(good, bad), READING) == ["missed"]
    (row,) = goals.evaluate(run(good, bad, better), [READING])
    assert (row.low, row.high) == (0.89, 0.95)


def test_no_verdict_comes_from_a_disturbed_cell() -> None:
    quiet = measured_cell(read_share=1.0)
    assert verdicts(run(quiet, {**quiet, "other_cpus": 0.5}), READING) == ["disturbed"]
    assert verdicts(run({**quiet, "other_cpus": None}), READING) == ["met"]


def test_a_goal_may_be_an_upper_bound() -> None:
    goal = goals.Goal("marlin", "time_vs_m1", {4: 1.15}, at_most=True)
    assert verdicts(run(measured_cell(4, time_vs_m1=1.1)), goal) == ["met"]
    assert verdicts(run(measured_cell(4, time_vs_m1=1.2)), goal) == ["missed"]


def test_what_was_not_measured_is_absent_and_other_row_counts_are_no_rows() -> None:
    other = goals.Goal("marlin", "ort-int8", {1: 2.0, 64: 2.0})
    assert verdicts(run(measured_cell()), other) == ["absent"]
    one_of_two = run(measured_cell(read_share=1.0), measured_cell())
    assert verdicts(one_of_two, READING) == ["absent"]


def test_a_share_of_another_kind_of_numbers_does_not_count() -> None:
    goal = goals.Goal("marlin", "dot_share", {16: 0.75}, dot_kind="int8")
    assert verdicts(run(measured_cell(16, dot_share=0.9)), goal) == ["absent"]


def test_a_number_of_threads_takes_its_own_goal() -> None:
    measured = measured_cell(1, read_share=0.87, **{"torch-int4": 5.0})
    speed = goals.Goal("marlin", "torch-int4", {1: 1.2})
    held = (READING, ONE_THREAD, speed)
    rows = goals.evaluate(run(measured, threads=1), held)
    assert [(row.goal, row.verdict) for row in rows] == [(ONE_THREAD, "met"), (speed, "no goal")]
    rows = goals.evaluate(run(measured, threads=2), held)
    assert [(row.goal, row.verdict) for row in rows] == [(READING, "missed"), (speed, "met")]


def test_a_run_without_avx512_has_its_own_goals() -> None:
    measured = run(measured_cell(1, **{"torch-int4": 3.5}), threads=1, isa="avx2")
    (row,) = goals.evaluate(measured)
    assert (row.verdict, row.goal.bounds[row.m]) == ("met", 3.0)


def test_every_group_size_has_its_own_row() -> None:
    other = {**measured_cell(read_share=0.5), "group_size": 32}
    rows = goals.evaluate(run(measured_cell(read_share=1.0), other), [READING])
    assert [(row.group_size, row.verdict) for row in rows] == [(32, "missed"), (128, "met")]


def test_a_row_reads_as_a_line() -> None:
    (line,) = goals.render(goals.evaluate(run(measured_cell(read_share=0.95)), [READING]))
    assert "0.95 - 0.95" in line
    assert ">= 0.90" in line
    assert line.endswith("met")


def test_the_goals_name_what_is_measured() -> None:
    own = {"read_share", "dot_share", "time_vs_m1"}
    for goal in goals.GOALS:
        assert goal.implementation in implementations.DEFAULT_NAMES
        assert goal.quantity in own or goal.quantity in implementations.DEFAULT_NAMES
        assert set(goal.bounds) <= set(ROWS)
        assert goal.dot_kind is None or goal.dot_kind in peaks.KINDS
