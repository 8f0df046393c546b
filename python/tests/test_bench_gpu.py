"""The GPU bench without a GPU: its arithmetic, and a whole run with tensors on the CPU."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench.gpu import goals
from bench.gpu.cells import BEST_DENSE, Checked, describe_cell, render_cell
from bench.gpu.device import device_slug
from bench.gpu.fit import fit_fixed_costs
from bench.gpu.implementations import NAMES, OURS, Absent, WrongResultError, make
from bench.gpu.kernels import Kernel, kernels_of_trace, render_kernels
from bench.gpu.limits import (
    Ceilings,
    Traffic,
    calls_of_graph,
    dense_traffic,
    number_of_copies,
    packed_traffic,
)
from bench.gpu.measure import GpuSettings, compare, is_complete
from bench.gpu.timer import interleave_cases
from bench.gpu.weight import GpuWeight, mean_error
from bench.shapes import GPU_ROWS, GPU_SETS, LinearShape
from bench.timing import Timings

from marlin import primitives

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
SHAPE = LinearShape("test", 256, 128)
H100 = Ceilings(bytes_per_second=3.0e12, operations_per_second=798e12)


# Limits: the figures are those of a table that was made by hand, in us.


@pytest.mark.parametrize(
    ("shape", "m", "us"),
    [
        ((4096, 6144), 1, 4.3),
        ((4096, 4096), 64, 3.2),
        ((14336, 4096), 16, 10.3),
        ((8192, 57344), 1, 80.8),
        ((28672, 8192), 128, 75.4),
        ((8192, 8192), 512, 86),
    ],
)
def test_no_kernel_is_faster_than_its_bytes_and_its_operations(
    shape: tuple[int, int], m: int, us: float
) -> None:
    traffic = packed_traffic(LinearShape("", *shape), m, 128, 2)
    assert H100.least_seconds(traffic) * 1e6 == pytest.approx(us, rel=0.02)


def test_a_group_per_column_has_one_scale_per_column() -> None:
    one = packed_traffic(SHAPE, 1, -1, 2)
    assert one == packed_traffic(SHAPE, 1, SHAPE.k, 2)
    assert one.weight_bytes == 256 * 128 // 2 + 128 * 2
    assert one.bytes == one.weight_bytes + 2 * (256 + 128)
    assert dense_traffic(SHAPE, 1).weight_bytes == 2 * 256 * 128


@pytest.mark.parametrize(("size", "copies"), [(8 << 20, 38), (60 << 20, 5), (900 << 20, 2)])
def test_the_copies_of_a_weight_outgrow_the_cache(size: int, copies: int) -> None:
    assert number_of_copies(size, 50 << 20) == copies


def test_a_graph_goes_round_the_copies_in_whole_rounds() -> None:
    assert calls_of_graph(38, 3e-6, 2e-3) == 494  # of 512 at most
    assert calls_of_graph(2, 80e-6, 2e-3) == 24
    assert calls_of_graph(2, 1.0, 2e-3) == 2
    assert calls_of_graph(700, 3e-6, 2e-3) == 700
    assert calls_of_graph(2, 1.0, 0.0) == 2


def test_every_gpu_shape_fits_every_implementation() -> None:
    for shape in {shape for shapes in GPU_SETS.values() for shape in shapes}:
        assert shape.n % 64 == 0
        assert shape.k % 128 == 0
    assert sorted(set(GPU_ROWS)) == list(GPU_ROWS)


# The line of the fixed costs


def test_a_line_through_times_gives_fixed_costs_and_bandwidth() -> None:
    sizes = [1e6, 1e7, 1e8, 5e8]
    fit = fit_fixed_costs(sizes, [7e-6 + size / 2.5e12 for size in sizes])
    assert fit.fixed_seconds == pytest.approx(7e-6)
    assert fit.bytes_per_second == pytest.approx(2.5e12)
    assert fit.worst == pytest.approx(0, abs=1e-9)


def test_the_distance_of_the_worst_size_is_told() -> None:
    sizes = [1e6, 1e7, 1e8]
    seconds = [7e-6 + size / 2.5e12 for size in sizes]
    fit = fit_fixed_costs(sizes, [seconds[0], seconds[1] * 1.2, seconds[2]])
    assert 0.05 < fit.worst < 0.2


def test_times_that_make_no_line_are_refused() -> None:
    with pytest.raises(ValueError, match="two sizes"):
        fit_fixed_costs([1e6], [1e-6])
    with pytest.raises(ValueError, match="do not grow"):
        fit_fixed_costs([1e6, 1e7], [2e-6, 1e-6])


# Cells


def described(**seconds: list[float]) -> dict[str, Any]:
    traffic = Traffic(weight_bytes=1, bytes=3_000_000, operations=798_000_000)
    checked = {
        name: Checked(traffic, 1e-4, name in OURS, name in ("torch-fp16", "torch-bf16"))
        for name in seconds
    }
    return describe_cell(SHAPE, 16, 128, checked, {"torch-int4": "no"}, Timings(seconds), H100)


def test_a_cell_has_shares_of_the_limits_and_ratios_round_by_round() -> None:
    cell = described(
        **{"marlin-fp16": [2e-6, 4e-6, 4e-6], "torch-fp16": [4e-6, 8e-6, 16e-6]},
        **{"torch-bf16": [9e-6, 9e-6, 9e-6]},
    )
    ours = cell["implementations"]["marlin-fp16"]
    assert ours["us"]["median"] == pytest.approx(4.0)
    assert ours["limit_us"] == pytest.approx(1.0)
    assert ours["tb_per_s"] == pytest.approx(0.75)
    assert ours["copy_share"] == ours["peak_share"] == pytest.approx(0.25)
    assert ours["ratio"]["torch-fp16"]["median"] == pytest.approx(2.0)
    assert ours["ratio"][BEST_DENSE] == ours["ratio"]["torch-fp16"]
    assert cell["implementations"]["torch-fp16"]["ratio"] == {}


def test_a_line_has_the_figures_and_the_reason_of_what_is_absent() -> None:
    lines = list(render_cell(described(**{"marlin-fp16": [4e-6], "torch-bf16": [8e-6]})))
    wanted = "16 marlin-fp16 4.0 1.0 0.75 25% 199.5 25% torch-bf16 x2.00 dense x2.00"
    assert " ".join(lines[0].split()) == wanted
    assert lines[-1].split() == ["torch-int4", "absent:", "no"]


def test_cases_take_turns_and_the_first_round_is_not_kept() -> None:
    order: list[str] = []

    def case(name: str) -> float:
        order.append(name)
        return float(len(order))

    held = interleave_cases({name: functools.partial(case, name) for name in "ab"}, rounds=2)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert held.seconds == {"a": [4.0, 5.0], "b": [3.0, 6.0]}


# Goals


def goal_cell(m: int, share: float, ratio: float, k: int = 8192) -> dict[str, Any]:
    ours = {"copy_share": share, "ratio": {BEST_DENSE: {"median": ratio}}}
    return {
        "k": k,
        "n": 8192,
        "m": m,
        "group_size": 128,
        "implementations": {"marlin-fp16": ours},
    }


def test_a_gpu_goal_is_met_when_every_shape_and_row_count_meets_it() -> None:
    goal = goals.GpuGoal(BEST_DENSE, (1, 16), 3.0)
    (row,) = goals.evaluate_goals([goal_cell(1, 0, 3.5), goal_cell(16, 0, 3.0)], [goal])
    assert (row.is_met, row.lowest, row.highest) == (True, 3.0, 3.5)
    (row,) = goals.evaluate_goals([goal_cell(1, 0, 3.5), goal_cell(16, 0, 2.9)], [goal])
    assert not row.is_met
    assert next(goals.render_goals([row])).endswith("missed")


def test_a_gpu_goal_may_be_about_one_shape_and_what_was_not_measured_has_no_verdict() -> None:
    goal = goals.GpuGoal("copy_share", (1,), 0.55, shape=(8192, 8192))
    assert goals.evaluate_goals([goal_cell(1, 0.9, 1, k=4096), goal_cell(2, 0.9, 1)], [goal]) == []
    (row,) = goals.evaluate_goals([goal_cell(1, 0.9, 1), goal_cell(1, 0.1, 1, k=4096)], [goal])
    assert row.lowest == 0.9


def test_the_gpu_goals_are_about_what_is_measured() -> None:
    for goal in goals.GOALS:
        assert set(goal.rows) <= set(GPU_ROWS)
        assert goal.shape in {None, *((shape.k, shape.n) for shape in GPU_SETS["llama"])}


# Kernels of a trace


def test_launches_of_one_kernel_are_one_line_with_their_median() -> None:
    facts = {"grid": [132, 1, 1], "block": [256, 1, 1], "registers per thread": 190}
    events: list[dict[str, Any]] = [
        {"ph": "X", "cat": "kernel", "name": "gemm", "ts": ts, "dur": dur, "args": facts}
        for ts, dur in ((5, 4.0), (1, 2.0), (9, 9.0))
    ]
    events += [
        {"ph": "X", "cat": "gpu_memset", "name": "Memset", "ts": 0, "dur": 1, "args": {}},
        {"ph": "X", "cat": "cpu_op", "name": "aten::empty", "ts": 0, "dur": 1},
        {"ph": "i", "cat": "kernel", "name": "mark", "ts": 0},
    ]
    assert kernels_of_trace({"traceEvents": events}) == [
        Kernel("Memset", 1, 1.0, None, None, None, None),
        Kernel("gemm", 3, 4.0, (132, 1, 1), (256, 1, 1), 190, None),
    ]


def test_kernels_read_as_lines() -> None:
    kernel = Kernel("gemm", 20, 4.25, (132, 1, 1), (256, 1, 1), 190, 99 * 1024)
    line = list(render_kernels([dataclasses.asdict(kernel)]))[1]
    assert line.split() == ["4.2", "20", "132x1x1", "256x1x1", "190", "101376", "gemm"]
    assert "no kernel" in list(render_kernels([]))[1]


# Weights and results


def test_a_gpu_weight_has_the_layout_and_the_value_that_the_package_defines() -> None:
    weight = GpuWeight.random(SHAPE, 64, CPU)
    wanted = primitives.dequantize(weight.plain(), weight.scales.float(), None, 64)
    assert torch.equal(weight.exact, wanted)
    assert torch.equal(weight.scales.half().float(), weight.scales.float())


@pytest.mark.parametrize("group_size", [128, -1])
@pytest.mark.parametrize("name", NAMES)
def test_every_copy_gives_the_product(name: str, group_size: int) -> None:
    weight = GpuWeight.random(SHAPE, group_size, CPU)
    made = make(name, weight, cache_bytes=1 << 17)
    assert made.copies * made.traffic(1).weight_bytes > 1 << 17
    for m in (1, 20):
        a = torch.randn(m, SHAPE.k).to(made.dtype)
        assert made.error(weight, a) <= made.tolerance
        assert torch.equal(made.multiply(a, 1), made.multiply(a, made.copies + 1))


def test_a_wrong_result_is_an_error_and_so_is_nan() -> None:
    weight = GpuWeight.random(SHAPE, 128, CPU)
    made = make("marlin-fp16", weight, cache_bytes=0)
    a = torch.randn(3, SHAPE.k).half()

    def multiply(factor: float, a: torch.Tensor, number: int) -> torch.Tensor:
        return made.multiply(a, number) * factor

    for wrong in (0.99, float("nan")):
        broken = dataclasses.replace(made, multiply=functools.partial(multiply, wrong))
        with pytest.raises(WrongResultError, match="marlin-fp16 is wrong by"):
            broken.error(weight, a)
    assert mean_error(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 4.0])) == pytest.approx(0.2)


def test_what_an_operator_refuses_is_absent_with_its_own_words() -> None:
    weight = GpuWeight.random(LinearShape("test", 512, 128), -1, CPU)
    with pytest.raises(Absent, match="qGroupSize"):
        make("torch-int4", weight, 0).error(weight, torch.randn(1, 512).bfloat16())


@pytest.mark.parametrize(
    ("name", "slug"), [("NVIDIA H100 80GB HBM3", "h100-80gb-hbm3"), ("NVIDIA H200", "h200")]
)
def test_a_device_has_a_name_for_files(name: str, slug: str) -> None:
    assert device_slug(name) == slug


# A whole run


def test_a_kernel_of_ours_that_is_wrong_gets_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = GpuSettings("cpu", (SHAPE,), (1,), (128,), ("marlin-fp16", "torch-fp16"), 1, 0, 60)
    monkeypatch.setattr(GpuWeight, "product", lambda weight, a: a.float() @ weight.exact.T * 1.01)
    (cell,) = compare(settings, H100)
    assert "is wrong by" in cell["absent"]["marlin-fp16"]
    assert "marlin-fp16" not in cell["implementations"]
    assert not is_complete(settings, [cell])


@pytest.mark.parametrize("mode", [[], ["--fixed-costs"], ["--profile"]])
def test_the_bench_runs_on_the_cpu(mode: list[str], tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    small = ["--layers", "256x128", "512x256", "--rows", "1", "9", "--rounds", "2"]
    options = ["--device", "cpu", *small, *mode, "--out", str(out), "--commit", "abc"]
    done = subprocess.run(
        [sys.executable, ROOT / "bench/bench_gpu.py", *options],
        env={**os.environ, "GOMP_SPINCOUNT": "1000"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report == json.loads(out.read_text(encoding="utf-8"))
    assert report["machine"]["commit"] == "abc"
    if "--profile" in mode:
        names = [profile["kernels"][0]["name"] for profile in report["profiles"]]
        assert names == ["marlin::gemm"] * 8
        return
    assert {(cell["k"], cell["m"]) for cell in report["cells"]} == {
        (k, m) for k in (256, 512) for m in (1, 9)
    }
    assert [fit["m"] for fit in report.get("fits", [])] == ([1, 9] * 2 if mode else [])
    for cell in report["cells"]:
        assert set(OURS) <= set(cell["implementations"])
