"""Launches of the kernels in triton_kernels.py, compiled without a GPU, and their results."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import triton
import triton.language as tl
import triton_kernels as kernels
from case import Argument, Case, bfloat16_bits, from_bfloat16, parameter_types
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

__all__ = ["triton_cases"]

_POINTERS = {
    "float16": "*fp16",
    "uint16": "*bf16",  # bits
    "float32": "*fp32",
    "int8": "*i8",
    "int32": "*i32",
}
_SCALARS = {"int32": "i32", "float32": "fp32"}


def triton_cases(capability: int = 80) -> Iterator[Case]:
    """All cases, for sm_80 or another architecture."""
    for make in (_matmuls, _attention, _rows, _atomics, _scans):
        yield from make(capability)


def _case(
    capability: int,
    name: str,
    kernel: triton.JITFunction,
    arguments: dict[str, Argument],
    constants: dict[str, object],
    expected: dict[str, np.ndarray],
    grid: tuple[int, ...],
    *,
    warps: int = 4,
    stages: int = 3,
    tolerance: float = 0.0,
) -> Case:
    types = {}
    hints = {}
    for number, (argument_name, argument) in enumerate(arguments.items()):
        is_array = isinstance(argument, np.ndarray)
        types[argument_name] = (_POINTERS if is_array else _SCALARS)[argument.dtype.name]
        # What Triton's own launcher says of allocations and of such numbers.
        if is_array or (argument.dtype.kind == "i" and argument % 16 == 0):
            hints[(number,)] = [["tt.divisibility", 16]]
    source = ASTSource(
        kernel, {**types, **dict.fromkeys(constants, "constexpr")}, constants, attrs=hints
    )
    compiled = triton.compile(
        source,
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": warps, "num_stages": stages},
    )
    ptx = compiled.asm["ptx"]
    names = list(arguments)
    # Triton appends pointers to scratch memory, which these kernels don't use.
    hidden = len(parameter_types(ptx, compiled.name)) - len(names)
    return Case(
        name=f"triton_{name}",
        ptx=ptx,
        entry=compiled.name,
        grid=(*grid, 1, 1)[:3],
        block=(32 * warps, 1, 1),
        shared_bytes=compiled.metadata.shared,
        arguments=[*arguments.values(), *[np.uint64(0)] * hidden],
        expected={names.index(argument): array for argument, array in expected.items()},
        tolerance=tolerance,
    )


def _matmuls(capability: int) -> Iterator[Case]:
    # Rows beyond m, columns beyond n and a tail of k are masked.
    m, n, k = 120, 80, 208
    generator = np.random.default_rng(1)
    a = generator.standard_normal((m, k), dtype=np.float32)
    b = generator.standard_normal((k, n), dtype=np.float32)
    half_a, half_b = a.astype(np.float16), b.astype(np.float16)
    brain_a, brain_b = bfloat16_bits(a), bfloat16_bits(b)
    codes_a = generator.integers(-128, 128, (m, k), dtype=np.int8)
    codes_b = generator.integers(-128, 128, (k, n), dtype=np.int8)
    integers = codes_a.astype(np.int32) @ codes_b.astype(np.int32)
    exact = half_a.astype(np.float64) @ half_b.astype(np.float64)
    of_brain = from_bfloat16(brain_a).astype(np.float64) @ from_bfloat16(brain_b)
    variants = (
        # name, a, b, c, stages, tolerance
        ("matmul_f16", half_a, half_b, exact.astype(np.float16), 3, 1e-3),
        ("matmul_f16_4_stages", half_a, half_b, exact.astype(np.float32), 4, 1e-5),
        ("matmul_bf16", brain_a, brain_b, of_brain.astype(np.float32), 3, 1e-5),
        ("matmul_tf32", a, b, (a.astype(np.float64) @ b).astype(np.float32), 3, 1e-2),
        ("matmul_s8", codes_a, codes_b, integers, 3, 0.0),
    )
    for name, left, right, c, stages, tolerance in variants:
        yield _case(
            capability,
            name,
            kernels.matmul,
            {
                "a": left,
                "b": right,
                "c": np.zeros_like(c),
                "m": np.int32(m),
                "n": np.int32(n),
                "k": np.int32(k),
            },
            {
                "BLOCK_M": 64,
                "BLOCK_N": 64,
                "BLOCK_K": 32,
                "ACCUMULATOR": tl.int32 if c.dtype == np.int32 else tl.float32,
            },
            {"c": c},
            grid=(2, 2),
            stages=stages,
            tolerance=tolerance,
        )


def _attention(capability: int) -> Iterator[Case]:
    queries, keys, depth = 64, 96, 32
    generator = np.random.default_rng(2)
    q, k, v = (
        generator.standard_normal((rows, depth), dtype=np.float32).astype(np.float16)
        for rows in (queries, keys, keys)
    )
    scale = np.float32(depth**-0.5)
    scores = q.astype(np.float64) @ k.astype(np.float64).T * scale
    weights = np.exp(scores - scores.max(1, keepdims=True))
    expected = weights @ v.astype(np.float64) / weights.sum(1, keepdims=True)
    yield _case(
        capability,
        "attention",
        kernels.attention,
        {
            "q": q,
            "k": k,
            "v": v,
            "out": np.zeros_like(q),
            "keys": np.int32(keys),
            "scale": scale,
        },
        {"BLOCK_Q": 32, "BLOCK_K": 32, "D": depth},
        {"out": expected.astype(np.float16)},
        grid=(queries // 32,),
        tolerance=2e-3,
    )


def _rows(capability: int) -> Iterator[Case]:
    rows, columns = 6, 200
    generator = np.random.default_rng(3)
    x = generator.standard_normal((rows, columns), dtype=np.float32)
    powers = np.exp(x - x.max(1, keepdims=True))
    yield _case(
        capability,
        "softmax",
        kernels.softmax,
        {"x": x, "y": np.zeros_like(x), "columns": np.int32(columns)},
        {"BLOCK": 256},
        {"y": powers / powers.sum(1, keepdims=True)},
        grid=(rows,),
        tolerance=1e-5,
    )

    integers = generator.integers(-1000, 1000, (8, columns), dtype=np.int32)
    none = np.zeros(8, dtype=np.int32)
    yield _case(
        capability,
        "row_reductions",
        kernels.row_reductions,
        {
            "x": integers,
            "sums": none,
            "largest": none.copy(),
            "where": none.copy(),
            "columns": np.int32(columns),
        },
        {"ROWS": 4, "BLOCK": 256},
        {
            "sums": integers.sum(1, dtype=np.int32),
            "largest": integers.max(1),
            "where": integers.argmax(1).astype(np.int32),
        },
        grid=(2,),
    )

    half = x.astype(np.float16)
    weight, bias = generator.standard_normal((2, columns), dtype=np.float32)
    wide = half.astype(np.float64)
    mean = wide.mean(1, keepdims=True)
    normal = (wide - mean) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    yield _case(
        capability,
        "layer_norm",
        kernels.layer_norm,
        {
            "x": half,
            "weight": weight,
            "bias": bias,
            "y": np.zeros_like(half),
            "means": np.zeros(rows, dtype=np.float32),
            "columns": np.int32(columns),
            "epsilon": np.float32(1e-5),
        },
        {"BLOCK": 256},
        {
            "y": (normal * weight + bias).astype(np.float16),
            "means": mean[:, 0].astype(np.float32),
        },
        grid=(rows,),
        tolerance=1e-3,
    )


def _atomics(capability: int) -> Iterator[Case]:
    generator = np.random.default_rng(4)
    k, slices = 256, 4
    # Small integers: their sums are exact in any order.
    a = generator.integers(-4, 5, (16, k)).astype(np.float16)
    b = generator.integers(-4, 5, (k, 32)).astype(np.float16)
    c = a.astype(np.float32) @ b.astype(np.float32)
    yield _case(
        capability,
        "split_k_matmul",
        kernels.split_k_matmul,
        {
            "a": a,
            "b": b,
            "c": np.zeros_like(c),
            "k": np.int32(k),
            "slice_k": np.int32(k // slices),
        },
        {"BLOCK_K": 16},
        {"c": c},
        grid=(slices,),
    )

    x = generator.integers(0, 10, 1000, dtype=np.int32)
    yield _case(
        capability,
        "histogram",
        kernels.histogram,
        {"x": x, "counts": np.zeros(10, dtype=np.int32), "n": np.int32(len(x))},
        {"BLOCK": 256},
        {"counts": np.bincount(x, minlength=10).astype(np.int32)},
        grid=(4,),
    )

    parts = generator.integers(-100, 100, (5, 128), dtype=np.int32)
    yield _case(
        capability,
        "locked_sum",
        kernels.locked_sum,
        {
            "x": parts,
            "total": np.zeros(128, dtype=np.int32),
            "lock": np.zeros(1, dtype=np.int32),
        },
        {"BLOCK": 128},
        {"total": parts.sum(0, dtype=np.int32)},
        grid=(len(parts),),
    )


def _scans(capability: int) -> Iterator[Case]:
    generator = np.random.default_rng(5)
    x = generator.integers(-50, 50, (3, 512), dtype=np.int32)
    yield _case(
        capability,
        "cumulative_sum",
        kernels.cumulative_sum,
        {"x": x, "forward": np.zeros_like(x), "backward": np.zeros_like(x)},
        {"BLOCK": 512},
        {
            "forward": np.cumsum(x, 1, dtype=np.int32),
            "backward": np.cumsum(x[:, ::-1], 1, dtype=np.int32)[:, ::-1],
        },
        grid=(3,),
    )
    x = generator.standard_normal((2, 256), dtype=np.float32)
    yield _case(
        capability,
        "sort_rows",
        kernels.sort_rows,
        {"x": x, "y": np.zeros_like(x)},
        {"BLOCK": 256},
        {"y": np.sort(x, 1)},
        grid=(2,),
    )
