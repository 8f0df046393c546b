"""The two native libraries: which files, with which flags. The one place that lists sources."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path

from .compiler import compile_flags, find_cxx, link_flags
from .cuda import find_cuda, gpu_is_present, opening_defines, wants_cuda
from .errors import BuildError
from .native import Library, Source
from .torch_install import find_torch

__all__ = [
    "TORCH_FREE_SOURCES",
    "cpu_library",
    "cuda_library",
    "jobs",
    "kernel_flags",
    "wanted_cuda",
]

_TORCH_SOURCES = (
    "registration.cpp",
    "kernel_info.cpp",
    "common/arguments.cpp",
    "cpu/ops_gemm.cpp",
    "cpu/ops_layout.cpp",
)

# What the C++ checks compile too, without torch.
TORCH_FREE_SOURCES = (
    "cpu/dispatch.cpp",
    "cpu/gemm.cpp",
    "cpu/plan.cpp",
    "cpu/prepack.cpp",
    "cpu/dequantize.cpp",
    "cpu/path_generic.cpp",
)

_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")
_AVX512_BF16 = (*_AVX512, "-mavx512vnni", "-mavx512bf16")
_AMX = ("-mamx-tile", "-mamx-bf16", "-mamx-int8")

_AVX2 = ("-mavx2", "-mfma", "-mf16c")

# GCC 12's own intrinsics start from a register that they declare uninitialised on purpose.
_INTRINSICS = ("-Wno-uninitialized", "-Wno-maybe-uninitialized")

_X86_KERNELS = {
    "cpu/path_avx2.cpp": _AVX2,
    "cpu/path_avx_vnni.cpp": (*_AVX2, "-mavxvnni"),
    "cpu/path_avx512.cpp": (*_AVX512, *_INTRINSICS),
    "cpu/path_avx512_vnni.cpp": (*_AVX512, "-mavx512vnni", *_INTRINSICS),
    "cpu/path_avx512_bf16.cpp": (*_AVX512_BF16, *_INTRINSICS),
    "cpu/path_amx.cpp": (*_AVX512_BF16, *_AMX, *_INTRINSICS),
}

# Only the multiplications and additions that say so are fused, since results are equal to the bit.
# GCC's scheduler moves loads so far ahead that sums are spilled to memory: without it none is.
# Clang schedules otherwise, and would warn of the flag.
_NEON = ("-ffp-contract=off", "-fno-schedule-insns", "-Wno-ignored-optimization-argument")

_ARM_KERNELS = {
    "cpu/path_neon.cpp": _NEON,
    "cpu/path_neon_dotprod.cpp": ("-march=armv8.2-a+dotprod", *_NEON),
}

# By what platform.machine() calls the architecture: Linux, then Windows and macOS.
_KERNELS = {
    "x86_64": _X86_KERNELS,
    "AMD64": _X86_KERNELS,
    "aarch64": _ARM_KERNELS,
    "arm64": _ARM_KERNELS,
}

_CUDA_SOURCES = (
    "common/arguments.cpp",
    "cuda/registration.cpp",
    "cuda/kernel_info.cpp",
    "cuda/devices.cpp",
    "cuda/gemm_plan.cpp",
    "cuda/workspace.cpp",
    "cuda/ops_gemm.cpp",
    "cuda/ops_layout.cpp",
)
_CUDA_KERNELS = (
    "cuda/dequantize.cu",
    "cuda/arrange.cu",
    "cuda/silu_mul.cu",
    "cuda/gemm.cu",
    "cuda/repack.cu",
)


def kernel_flags(machine: str) -> dict[str, tuple[str, ...]]:
    """Sources compiled for one instruction set of the architecture `machine`, with their flags."""
    return _KERNELS.get(machine, {})


def jobs() -> int:
    """Compilers at a time: MAX_JOBS, or one per core that this process may use."""
    limit = os.environ.get("MAX_JOBS", "")
    if limit.isdecimal() and int(limit) > 0:
        return int(limit)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def wanted_cuda(environ: Mapping[str, str], report: Callable[[str], None]) -> bool:
    """Whether to build the CUDA library. A GPU without nvcc is reported, not an error."""
    torch = find_torch()
    if not wants_cuda(environ, torch, gpu_is_present()):
        return False
    try:
        find_cuda(environ, torch)
    except BuildError as error:
        if environ.get("MARLIN_CUDA") == "1":
            raise
        report(f"a GPU is present, but the CUDA library is left out: {error}")
        return False
    return True


def cpu_library(root: Path, environ: Mapping[str, str]) -> Library:
    """marlin/_C: the schemas and the CPU kernels."""
    torch = find_torch()
    cxx = find_cxx(environ)
    flags = compile_flags(environ, torch)
    everywhere = dict.fromkeys((*_TORCH_SOURCES, *TORCH_FREE_SOURCES), ())
    per_file = everywhere | kernel_flags(platform.machine())
    return Library(
        name="_C",
        sources=tuple(
            Source(root / "csrc" / name, (*cxx, *flags, *extra)) for name, extra in per_file.items()
        ),
        link_command=(*cxx, *link_flags(environ, torch.lib)),
        link_libraries=("-ltorch_cpu",),
    )


def cuda_library(root: Path, environ: Mapping[str, str]) -> Library:
    """marlin/_C_cuda: the CUDA implementations; the only library that names a CUDA symbol."""
    torch = find_torch()
    cuda = find_cuda(environ, torch)
    cxx = find_cxx(environ)
    defines = opening_defines(environ)
    flags = (*compile_flags(environ, torch), "-DUSE_CUDA", *defines, "-isystem", str(cuda.include))
    nvcc = (
        str(cuda.nvcc),
        *("-std=c++20", "-O3", "-ccbin", cxx[0], "-Werror=all-warnings"),
        *("-Xcompiler", "-fPIC,-fvisibility=hidden,-Wall,-Wextra"),
        *cuda.architectures,
        *defines,
    )
    sources = [Source(root / "csrc" / name, (*cxx, *flags)) for name in _CUDA_SOURCES]
    sources += [Source(root / "csrc" / name, nvcc) for name in _CUDA_KERNELS]
    return Library(
        name="_C_cuda",
        sources=tuple(sources),
        link_command=(*cxx, *link_flags(environ, torch.lib), f"-L{cuda.lib}"),
        link_libraries=("-ltorch_cpu", "-ltorch_cuda", f"-l:{cuda.runtime}"),
    )
