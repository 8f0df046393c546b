"""The launch plan of gemm: the very function that the CUDA library asks."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache

from buildtools.compiler import find_cxx, warning_flags
from buildtools.native import Library, Source, build_library
from ptxsim.build import BUILT, ROOT

__all__ = ["Plan", "plan_gemm"]


@dataclass(frozen=True)
class Plan:
    """See Launch in csrc/cuda/gemm_plan.h."""

    rows: int
    group_rows: int
    blocks: int
    threads: int
    shared_bytes: int
    tiles_k: int
    tiles_n: int
    tiles_m: int
    tiles_of_block: int
    partial_bytes: int
    lock_count: int


class _Numbers(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in list(Plan.__dataclass_fields__)[:9]),
        ("partial_bytes", ctypes.c_int64),
        ("lock_count", ctypes.c_int64),
    ]


@cache
def _library() -> ctypes.CDLL:
    cxx = find_cxx(os.environ)
    command = (*cxx, "-std=c++20", "-fPIC", "-O1", *warning_flags())
    files = (ROOT / "csrc/cuda/gemm_plan.cpp", ROOT / "test/gpu/plan_api.cpp")
    output = BUILT / f"libgemm_plan-{os.getpid()}.so"
    sources = tuple(Source(file, command) for file in files)
    link = (*cxx, "-shared")
    build_library(Library("plan", sources, link, ()), output, output.with_suffix(".o"), 1, str)
    library = ctypes.CDLL(os.fspath(output))
    output.unlink()
    library.marlin_plan_gemm.argtypes = (
        *(ctypes.c_int64,) * 4,
        *(ctypes.c_int,) * 4,
        ctypes.POINTER(_Numbers),
    )
    library.marlin_plan_gemm.restype = None
    return library


def plan_gemm(
    m: int,
    n: int,
    k: int,
    group_size: int,
    *,
    has_zeros: bool,
    is_bfloat16: bool,
    architecture: int,
    multiprocessors: int,
) -> Plan:
    """The plan for `m` rows of activations; a `group_size` of k is one group."""
    numbers = _Numbers()
    _library().marlin_plan_gemm(
        *(m, n, k, group_size),
        *(has_zeros, is_bfloat16, architecture, multiprocessors),
        ctypes.byref(numbers),
    )
    return Plan(*(getattr(numbers, name) for name, *_ in _Numbers._fields_))
