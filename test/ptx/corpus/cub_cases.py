"""Launches of the kernels in cub_kernels.cu, and their results."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from case import Argument, Case

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, os.fspath(ROOT / "csrc"))

from buildtools.cuda import CudaToolkit, find_cuda  # noqa: E402
from buildtools.torch_install import find_torch  # noqa: E402

__all__ = ["compile_to_ptx", "cub_cases", "toolkit"]

_THREADS = 128
_ITEMS = 4
_TILE = _THREADS * _ITEMS
_BLOCKS = 2

# Where one of two runs has ended, a merge still reads the element behind it, and drops it.
_KNOWN_FINDINGS = {"merge_sort": ("uninitialised",)}


def toolkit() -> CudaToolkit:
    """The nvcc that the CUDA library of this project is built with."""
    return find_cuda(os.environ, find_torch())


def compile_to_ptx(cuda: CudaToolkit, source: Path, architecture: str) -> str:
    """Runs `nvcc -ptx -arch=sm_80`."""
    command = [os.fspath(cuda.nvcc), "-ptx", f"-arch={architecture}", "-std=c++17"]
    command += ["-o", "-", os.fspath(source)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def cub_cases(cuda: CudaToolkit, architecture: str = "sm_80") -> Iterator[Case]:
    """All cases; they share one PTX module."""
    ptx = compile_to_ptx(cuda, Path(__file__).with_name("cub_kernels.cu"), architecture)
    for make in (_reductions, _scans, _sorts, _exchanges, _histograms):
        for entry, arguments, expected, tolerance in make():
            yield Case(
                name=f"cub_{entry}",
                ptx=ptx,
                entry=entry,
                grid=(_BLOCKS, 1, 1),
                block=(_THREADS, 1, 1),
                shared_bytes=0,
                arguments=arguments,
                expected=expected,
                tolerance=tolerance,
                known_findings=_KNOWN_FINDINGS.get(entry, ()),
            )


# entry, arguments, expected arguments, tolerance
_Launch = tuple[str, list[Argument], dict[int, np.ndarray], float]


def _reductions() -> Iterator[_Launch]:
    generator = np.random.default_rng(1)
    x = generator.integers(-(2**20), 2**20, (_BLOCKS, _TILE), dtype=np.int32)
    expected = np.stack([x.sum(1, dtype=np.int32), x.max(1)], 1)
    for entry in ("reduce_warps", "reduce_raking"):
        yield entry, [x, np.zeros_like(expected)], {1: expected}, 0.0
    floats = generator.standard_normal((_BLOCKS, _THREADS // 32, 32), dtype=np.float32)
    sums = floats.astype(np.float64).sum(2).astype(np.float32)
    yield "warp_sums", [floats, np.zeros_like(sums)], {1: sums}, 1e-5


def _scans() -> Iterator[_Launch]:
    x = np.random.default_rng(2).integers(-1000, 1000, (_BLOCKS, _TILE), dtype=np.int32)
    through = np.cumsum(x, 1, dtype=np.int32)
    for entry in ("scan_warps", "scan_raking"):
        totals = np.zeros(_BLOCKS, dtype=np.int32)
        yield entry, [x, np.zeros_like(x), totals], {1: through - x, 2: through[:, -1]}, 0.0


def _sorts() -> Iterator[_Launch]:
    generator = np.random.default_rng(3)
    x = generator.integers(0, 2**32, (_BLOCKS, _TILE), dtype=np.uint32)
    yield "radix_sort", [x, np.zeros_like(x)], {1: np.sort(x, 1)}, 0.0

    # Few different keys, so that the order of equal ones shows. 0 and -0 would be equal to CUB.
    keys = generator.choice(np.array([-2.5, -1, 0.5, 3, 1e30], np.float32), (_BLOCKS, _TILE))
    order = np.argsort(-keys, 1, kind="stable").astype(np.int32)
    expected = {1: np.take_along_axis(keys, order, 1), 2: order}
    yield "radix_sort_pairs", [keys, np.zeros_like(keys), np.zeros_like(order)], expected, 0.0

    wide = generator.integers(-(2**50), 2**50, (_BLOCKS, _TILE), dtype=np.int64)
    yield "merge_sort", [wide, np.zeros_like(wide)], {1: np.sort(wide, 1)}, 0.0


def _exchanges() -> Iterator[_Launch]:
    generator = np.random.default_rng(4)
    x = generator.integers(0, 1000, _BLOCKS * _TILE, dtype=np.int32)
    valid = len(x) - 100
    threads = (np.arange(len(x)) % _TILE // _ITEMS).astype(np.int32)
    expected = np.where(np.arange(len(x)) < valid, x + 1000 * threads, 0).astype(np.int32)
    yield "load_and_store", [x, np.zeros_like(x), np.int32(valid)], {1: expected}, 0.0

    doubles = generator.standard_normal((_BLOCKS, _TILE))
    # Element i of thread t is number i * threads + t before, and number t * items + i after.
    striped = doubles.reshape(_BLOCKS, _THREADS, _ITEMS).transpose(0, 2, 1).reshape(_BLOCKS, _TILE)
    yield "striped_to_blocked", [doubles, np.zeros_like(doubles)], {1: striped}, 0.0


def _histograms() -> Iterator[_Launch]:
    x = np.random.default_rng(5).integers(0, 64, (_BLOCKS, _TILE)).astype(np.uint8)
    counts = np.stack([np.bincount(row, minlength=64) for row in x]).astype(np.uint32)
    for entry in ("histogram_atomic", "histogram_sort"):
        yield entry, [x, np.zeros_like(counts)], {1: counts}, 0.0
