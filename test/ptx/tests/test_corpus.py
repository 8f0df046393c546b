"""Kernels that Triton and CUB lowered run rightly, and nothing is found in them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from corpus_cases import Case, case_names, find_case, simulate
from ptxsim import Options

TRITON = (
    "matmul_f16",
    "matmul_f16_4_stages",
    "matmul_bf16",
    "matmul_tf32",
    "matmul_s8",
    "attention",
    "softmax",
    "row_reductions",
    "layer_norm",
    "split_k_matmul",
    "histogram",
    "locked_sum",
    "cumulative_sum",
    "sort_rows",
)
CUB = (
    "reduce_warps",
    "reduce_raking",
    "warp_sums",
    "scan_warps",
    "scan_raking",
    "radix_sort",
    "radix_sort_pairs",
    "merge_sort",
    "load_and_store",
    "striped_to_blocked",
    "histogram_atomic",
    "histogram_sort",
)
NAMES = [*(f"triton_{name}" for name in TRITON), *(f"cub_{name}" for name in CUB)]

# The search along merge paths compares with the element behind the last one and then looks whether
# there was one: what was read there is never used.
KNOWN = {"cub_merge_sort": {"uninitialised"}}

# Where several threads hold a value, Triton lets all of them store it when it changes a layout. PTX
# calls that a race; Triton relies on the bytes being the same.
STORES_EQUAL_VALUES = {"triton_attention", "triton_row_reductions"}

OPTIONS = [
    Options(seed=seed, copies_late=copies_late)
    for seed in (1, 2, 3)
    for copies_late in (True, False)
]


@pytest.fixture(params=NAMES, scope="session")
def case(request: pytest.FixtureRequest) -> Case:
    return find_case(str(request.param))


@pytest.mark.parametrize(
    "options", OPTIONS, ids=lambda one: f"seed{one.seed}-{'late' if one.copies_late else 'early'}"
)
def test_runs_rightly_and_without_findings(case: Case, options: Options) -> None:
    if case.name in STORES_EQUAL_VALUES:
        options = replace(options, reports_equal_writes=False)
    report, failures = simulate(case, options)
    assert failures == []
    unknown = [str(f) for f in report.findings if f.kind not in KNOWN.get(case.name, set())]
    assert unknown == []


def test_known_exceptions_are_still_found() -> None:
    for name in ("cub_merge_sort", *STORES_EQUAL_VALUES):
        report, _ = simulate(find_case(name), Options())
        kinds = {finding.kind for finding in report.findings}
        assert kinds == KNOWN.get(name, {"race_of_equal_writes"}), name


@pytest.mark.parametrize("compiler", ["triton", "cub"])
def test_every_case_is_listed(compiler: str) -> None:
    assert case_names(compiler) == [name for name in NAMES if name.startswith(compiler)]
