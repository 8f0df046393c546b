"""The choice of the CPU kernel: the operators' tests with each forced, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from marlin import ops

HERE = Path(__file__).parent


def run_python(*arguments: str, kernel: str | None) -> subprocess.CompletedProcess[str]:
    """Runs this Python with MARLIN_CPU_KERNEL set, which the library reads once per process."""
    # One thread: on a busy machine two mostly wait for each other. Values do not depend on it.
    environ = {**os.environ, "PYTHONPATH": os.fspath(HERE.parent), "OMP_NUM_THREADS": "1"}
    environ.pop("MARLIN_CPU_KERNEL", None)
    if kernel is not None:
        environ["MARLIN_CPU_KERNEL"] = kernel
    return subprocess.run(
        [sys.executable, *arguments], env=environ, capture_output=True, text=True, check=False
    )


def test_the_best_available_kernel_runs_when_none_is_forced() -> None:
    program = "from marlin import ops; i = ops.kernel_info(); print(i.kernel, i.forced, i.reason)"
    result = run_python("-c", program, kernel=None)
    kernel, forced, reason = result.stdout.strip().split(" ", 2)
    assert kernel == ops.kernel_info().available[0]
    assert forced == "False"
    assert reason.startswith("the best one")


@pytest.mark.parametrize("kernel", ops.kernel_info().available)
def test_every_kernel_passes_the_tests_of_the_operators(kernel: str) -> None:
    program = (
        "import sys, pytest; from marlin import ops; info = ops.kernel_info(); "
        f"assert (info.kernel, info.forced) == ({kernel!r}, True), info; "
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-m', 'not slow', "
        "'-k', 'not opcheck and not compile and not gradient', "
        f"{os.fspath(HERE / 'test_ops.py')!r}, {os.fspath(HERE / 'test_ops_formats.py')!r}]))"
    )
    result = run_python("-c", program, kernel=kernel)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert " passed" in result.stdout


@pytest.mark.parametrize("kernel", ["avx9000", "AVX512", "with\nnewline"])
def test_an_unknown_kernel_is_refused_at_the_first_call(kernel: str) -> None:
    program = (
        "import torch\n"
        "from marlin import ops\n"
        "from marlin.errors import KernelUnavailableError\n"
        "packed = ops.repack(torch.zeros(4, 8, dtype=torch.int32), 8, 32)\n"
        "for call in (ops.kernel_info, lambda: ops.gemm(\n"
        "    torch.ones(1, 32), packed, torch.ones(1, 8), None, None, 8, 32, 32)):\n"
        "    try: call()\n"
        "    except KernelUnavailableError as error: print(repr(str(error)))\n"
    )
    result = run_python("-c", program, kernel=kernel)
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert "MARLIN_CPU_KERNEL" in first
    assert "generic" in first
    assert first == second
