"""The cases of the corpus by name, each compiled once, and their launches in the simulator."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
for folder in ("csrc", "test/ptx", "test/ptx/corpus"):
    sys.path.append(os.fspath(ROOT / folder))

import ptxsim  # noqa: E402
from case import Case  # noqa: E402

__all__ = ["Case", "case_names", "family", "find_case", "simulate"]

_FAMILIES = {"triton": "Triton corpus", "cub": "CUB corpus"}


def find_case(name: str) -> Case:
    """The case of this name; skips the test where its compiler is missing."""
    return _cases(name.partition("_")[0])[name]


def case_names(compiler: str) -> list[str]:
    """All cases of `triton` or `cub`; skips the test where the compiler is missing."""
    return list(_cases(compiler))


def family(case: Case) -> str:
    """What launches of the case are counted as."""
    return _FAMILIES.get(case.name.partition("_")[0], "handovers")


def simulate(
    case: Case, options: ptxsim.Options, text: str | None = None
) -> tuple[ptxsim.Report, list[str]]:
    """Launches a case, or another text in its place: the report, and what is wrong with results."""
    simulator = ptxsim.Simulator(case.ptx if text is None else text)
    arguments = [
        simulator.buffer(f"argument {number}", argument)
        if isinstance(argument, np.ndarray)
        else argument.tobytes()
        for number, argument in enumerate(case.arguments)
    ]
    with ptxsim.counted_as(family(case)):
        report = simulator.launch(
            case.entry,
            case.grid,
            case.block,
            arguments,
            shared_bytes=case.shared_bytes,
            options=options,
        )
    results = {}
    for number, argument in enumerate(case.arguments):
        buffer = arguments[number]
        if isinstance(argument, np.ndarray) and isinstance(buffer, ptxsim.Buffer):
            results[number] = buffer.read(argument.dtype, argument.shape)
    # Wrong results may be NaN.
    with np.errstate(invalid="ignore"):
        return report, case.failures(results)


def _cases(compiler: str) -> dict[str, Case]:
    cases = _cub_cases() if compiler == "cub" else _triton_cases()
    if isinstance(cases, str):
        pytest.skip(cases)
    return cases


@cache
def _triton_cases() -> dict[str, Case] | str:
    try:
        from triton_cases import triton_cases
    except ImportError as error:
        return f"Triton can't be imported: {error}"
    return {case.name: case for case in triton_cases()}


@cache
def _cub_cases() -> dict[str, Case] | str:
    from buildtools.errors import BuildError
    from cub_cases import cub_cases, toolkit

    try:
        cuda = toolkit()
    except BuildError as error:
        if os.environ.get("MARLIN_REQUIRE_NVCC") == "1":
            raise
        return f"There is no nvcc: {error}"
    return {case.name: case for case in cub_cases(cuda)}
