"""The GPU kernel of the gated product: silu(gate) * other of the halves of each row."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from kernels import CUDA, compile_ptx, entry
from products import Scalar, to_bits, to_floats
from ptxsim import Report, Simulator, counted_as

THREADS = 256
RUN = 8  # columns of a thread
SECTOR = 32  # bytes

Floats = npt.NDArray[np.float64]
To = Literal["float16", "bfloat16", "float32"]

# (from, to): how the name of the kernel ends.
KERNELS: dict[tuple[Scalar, To], str] = {
    ("float16", "float16"): "silu_mulI6__halfS",
    ("bfloat16", "float16"): "silu_mulI13__nv_bfloat166__half",
    ("bfloat16", "bfloat16"): "silu_mulI13__nv_bfloat16S",
    ("bfloat16", "float32"): "silu_mulI13__nv_bfloat16f",
}
# Half a step of the last digit, relative to the number, and half the smallest number; arithmetic in
# float32 is off by some steps of its own.
HALF_STEP: dict[To, float] = {"float16": 2**-11, "bfloat16": 2**-8, "float32": 2**-24}
SMALLEST: dict[To, float] = {"float16": 2**-25, "bfloat16": 2**-134, "float32": 2**-150}
LARGEST: dict[To, float] = {
    "float16": float(np.finfo(np.float16).max),
    "bfloat16": float(np.float32(3.3895e38)),
    "float32": float(np.finfo(np.float32).max),
}
ARITHMETIC = 2**-20

EDGES = np.array(
    [
        *(0.0, -0.0, 1.0, -1.0, 0.5, -1.278),
        *(2**-24, -(2**-24), 6.1e-5, -6.1e-5, 11.0, -11.0, 40.0, -40.0),
        *(86.9, -86.9, 88.0, -88.0, 104.0, -104.0, 300.0, -300.0, 65504.0, -65504.0),
        *(np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-30),
    ]
)


def launch(
    halves: npt.NDArray[np.uint16], source: Scalar, to: To, rows_of_grid: int
) -> tuple[Floats, Report]:
    """Runs the kernel on [m][2 n] bits with `rows_of_grid` blocks in y."""
    m, n = halves.shape[0], halves.shape[1] // 2
    simulator = Simulator(compile_ptx(CUDA / "silu_mul.cu", "sm_80"))
    out = simulator.buffer("out", size=m * n * (4 if to == "float32" else 2))
    with counted_as("silu_mul"):
        report = simulator.launch(
            entry(simulator, KERNELS[source, to]),
            (-(-n // (THREADS * RUN)), rows_of_grid),
            THREADS,
            [simulator.buffer("halves", halves, read_only=True), m, n, out],
        )
    report.raise_if_found()
    assert out.written().all()
    if to == "float32":
        return out.read(np.float32, (m, n)).astype(np.float64), report
    return to_floats(out.read(np.uint16, (m, n)), to), report


def exact(gate: Floats, other: Floats) -> Floats:
    bounded = np.where(gate < -87, -87, gate)
    with np.errstate(over="ignore", invalid="ignore"):
        return bounded / (1 + np.exp(-bounded)) * other


def check(got: Floats, wanted: Floats, to: To) -> None:
    with np.errstate(invalid="ignore"):
        wanted = np.where(np.abs(wanted) > LARGEST[to], np.sign(wanted) * np.inf, wanted)
        bound = (HALF_STEP[to] + ARITHMETIC) * np.abs(wanted) + SMALLEST[to]
        good = (got == wanted) | (np.abs(got - wanted) <= bound)
    good |= np.isnan(got) & np.isnan(wanted)
    # Up to half a step beyond the largest number either may come.
    near_the_end = np.abs(np.abs(wanted) - LARGEST[to]) <= HALF_STEP[to] * LARGEST[to]
    good |= near_the_end & np.isinf(got)
    assert good.all(), (got[~good][:4], wanted[~good][:4])


@pytest.mark.parametrize(("source", "to"), KERNELS)
@pytest.mark.parametrize(("m", "n", "rows"), [(1, 64, 1), (5, 192, 2), (2, 2112, 2), (3, 4160, 3)])
def test_rows_and_tails_of_every_type(m: int, n: int, rows: int, source: Scalar, to: To) -> None:
    values = 3 * np.random.default_rng(n).standard_normal((m, 2 * n))
    halves = to_bits(values, source)
    rounded = to_floats(halves, source)
    wanted = exact(rounded[:, :n], rounded[:, n:])
    check(launch(halves, source, to, rows)[0], wanted, to)


@pytest.mark.parametrize(("source", "to"), KERNELS)
def test_edge_values_against_each_other(source: Scalar, to: To) -> None:
    with np.errstate(over="ignore"):
        edges = to_bits(EDGES, source)
    pairs = np.array(list(itertools.product(edges, edges)), np.uint16).T  # (2, pairs)
    halves = np.pad(pairs, ((0, 0), (0, -pairs.shape[1] % 64))).reshape(1, -1)
    n = halves.shape[1] // 2
    values = to_floats(halves, source)
    check(launch(halves, source, to, 1)[0], exact(values[:, :n], values[:, n:]), to)


@pytest.mark.parametrize(("source", "to"), KERNELS)
def test_memory_is_read_and_written_once_in_whole_sectors(source: Scalar, to: To) -> None:
    m, n = 4, 2048
    halves = to_bits(np.random.default_rng(0).standard_normal((m, 2 * n)), source)
    traffic = launch(halves, source, to, m)[1].traffic
    read, written = traffic["halves"], traffic["out"]
    assert read.read_bytes == read.read_sectors * SECTOR == read.size
    assert written.written_bytes == written.size
    # A lane's eight results of 32 bits are two stores into one sector.
    assert written.written_sectors * SECTOR == written.size * (2 if to == "float32" else 1)
