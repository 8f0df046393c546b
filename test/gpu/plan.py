"""The launch plan of gemm and the shapes of its tiles: the very functions that the CUDA library
asks."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache

from buildtools.cuda import opening_defines
from host_library import load

__all__ = ["IS_MAGIC", "Plan", "TileShape", "plan_gemm", "tile_shape", "tolerance"]

# Whether MARLIN_OPENING asks for kernels that open codes as digits of ordinary numbers.
IS_MAGIC = opening_defines(os.environ) != ()


@dataclass(frozen=True)
class Plan:
    """See Launch in csrc/cuda/gemm_plan.h."""

    rows: int
    group_rows: int
    scales_weights: int  # 1: in float16, as they are opened
    blocks: int
    threads: int
    shared_bytes: int
    tiles_k: int
    tiles_n: int
    tiles_m: int
    tiles_of_block: int
    partial_bytes: int
    counter_count: int


@dataclass(frozen=True)
class TileShape:
    """See TileShape in csrc/cuda/gemm_plan.h. The bytes of operands are those of a stage."""

    warp_columns: int
    row_warps: int
    warps: int
    slices: int
    weight_bytes: int
    activation_bytes: int
    scale_bytes: int
    stages: int
    shared_bytes: int
    scales_weights: int


class _PlanNumbers(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in list(Plan.__dataclass_fields__)[:10]),
        ("partial_bytes", ctypes.c_int64),
        ("counter_count", ctypes.c_int64),
    ]


class _ShapeNumbers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in TileShape.__dataclass_fields__]


@cache
def _library() -> ctypes.CDLL:
    files = ("csrc/cuda/gemm_plan.cpp", "test/gpu/plan_api.cpp")
    library = load("gemm_plan", files, opening_defines(os.environ))
    library.marlin_plan_gemm.argtypes = (
        *(ctypes.c_int64,) * 4,
        *(ctypes.c_int,) * 5,
        ctypes.POINTER(_PlanNumbers),
    )
    library.marlin_plan_gemm.restype = None
    library.marlin_tile_shape.argtypes = (*(ctypes.c_int,) * 5, ctypes.POINTER(_ShapeNumbers))
    library.marlin_tile_shape.restype = None
    return library


def plan_gemm(
    m: int,
    n: int,
    k: int,
    group_size: int,
    *,
    bits: int = 4,
    has_zeros: bool,
    is_bfloat16: bool,
    architecture: int,
    multiprocessors: int,
) -> Plan:
    """The plan for `m` rows of activations; a `group_size` of k is one group."""
    numbers = _PlanNumbers()
    _library().marlin_plan_gemm(
        *(m, n, k, group_size),
        *(bits, has_zeros, is_bfloat16, architecture, multiprocessors),
        ctypes.byref(numbers),
    )
    return Plan(*(getattr(numbers, name) for name, *_ in _PlanNumbers._fields_))


def tile_shape(
    bits: int, rows: int, group_rows: int, *, has_zeros: bool = False, is_bfloat16: bool = False
) -> TileShape:
    """How a kernel of gemm shares a tile out over its warps, and what it keeps of it."""
    numbers = _ShapeNumbers()
    _library().marlin_tile_shape(
        *(bits, rows, group_rows, has_zeros, is_bfloat16), ctypes.byref(numbers)
    )
    return TileShape(*(getattr(numbers, name) for name, *_ in _ShapeNumbers._fields_))


def tolerance(plan: Plan) -> float:
    """Mean error over mean magnitude: less where scales meet sums in float32, and no weights."""
    return 3e-4 if plan.scales_weights else 1e-4
