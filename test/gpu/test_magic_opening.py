"""Kernels that open codes by magic constants (csrc/cuda/gemm_opening_magic.cuh) are right, too.

Some products of test_gemm.py in a process of their own, since MARLIN_OPENING is read when modules
are loaded. `npm run test:ptx` runs all of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from buildtools.cuda import opening_defines
from buildtools.errors import BuildError
from kernels import CUDA, compile_ptx

SOME = "test_every_row_count or test_no_pattern_of_activations or test_every_stripe"


def test_products_with_magic_constants_are_right() -> None:
    environ = os.environ | {"MARLIN_OPENING": "magic"}
    compile_ptx(CUDA / "gemm.cu", "sm_80", opening_defines(environ))  # skips where nvcc is missing
    file = Path(__file__).with_name("test_gemm.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", SOME, str(file)],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_an_opening_that_nobody_knows_is_refused() -> None:
    with pytest.raises(BuildError, match="`MARLIN_OPENING`: expected `subnormal` or `magic`"):
        opening_defines({"MARLIN_OPENING": "normal"})
