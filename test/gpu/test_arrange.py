"""The GPU kernel that puts activations in the order and alignment that gemm wants."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from kernels import CUDA, compile_ptx, entry
from ptxsim import Simulator, counted_as

THREADS = 256


def arrange(
    a: npt.NDArray[np.uint16], columns: int, k: int, perm: npt.NDArray[np.int32] | None, rows: int
) -> npt.NDArray[np.uint16]:
    """Runs the kernel with `rows` blocks in y, as the launcher would with many rows."""
    m, stride = a.shape
    simulator = Simulator(compile_ptx(CUDA / "arrange.cu", "sm_80"))
    out = simulator.buffer("out", size=2 * m * k)
    order = 0 if perm is None else simulator.buffer("perm", perm, read_only=True)
    arguments = [simulator.buffer("a", a, read_only=True), stride, columns, order, m, k, out]
    grid = (-(-k // THREADS), rows)
    with counted_as("arrange"):
        report = simulator.launch(entry(simulator, "arrange"), grid, THREADS, arguments)
    report.raise_if_found()
    assert out.written().all()
    return out.read(np.uint16, (m, k))


def test_a_wrong_order_reads_nothing() -> None:
    a = np.ones((2, 64), np.uint16)
    perm = np.full(64, -1, np.int32)
    perm[0], perm[1] = 64, 3
    wanted = np.zeros((2, 64), np.uint16)
    wanted[:, 1] = 1
    assert np.array_equal(arrange(a, 64, 64, perm, 1), wanted)


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize(("columns", "k", "stride"), [(96, 96, 96), (70, 96, 71), (300, 320, 305)])
@pytest.mark.parametrize("is_ordered", [False, True])
def test_columns_are_gathered_and_padded(
    is_ordered: bool, columns: int, k: int, stride: int, rows: int
) -> None:
    rng = np.random.default_rng(columns)
    a = rng.integers(1, 1 << 16, (7, stride), np.uint16)
    perm = rng.permutation(k).astype(np.int32) if is_ordered else None
    padded = np.zeros((7, k), np.uint16)
    padded[:, :columns] = a[:, :columns]
    wanted = padded if perm is None else padded[:, perm]
    assert np.array_equal(arrange(a, columns, k, perm, rows), wanted)
