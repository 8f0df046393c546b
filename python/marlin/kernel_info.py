"""Which kernel runs on this machine, and why: what the native libraries say of themselves."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from marlin.errors import InvalidArgumentError, KernelUnavailableError, UnsupportedError
from marlin.library import (
    CPU_LIBRARY,
    CUDA_LIBRARY,
    no_kernels,
    require_cuda_library,
    require_library,
)

__all__ = ["KernelInfo", "kernel_info"]


@dataclass(frozen=True)
class KernelInfo:
    """Which kernel serves a device, and why."""

    device: str
    kernel: str
    reason: str
    available: tuple[str, ...]  # names that this machine can run, best first
    forced: bool  # by MARLIN_CPU_KERNEL
    threads: int  # of the CPU, that torch would use now
    library: Path
    torch_version: str  # of the headers that the library was built with
    gpu: str | None = None  # its name; None for the CPU
    compute_capability: tuple[int, int] | None = None


def kernel_info(device: str | torch.device = "cpu") -> KernelInfo:
    """Tells which kernel `gemm` uses on `device`, and why.

    device: "cpu", "cuda", which is torch's current GPU, or one like "cuda:1".

    Raises:
        KernelUnavailableError: MARLIN_CPU_KERNEL forces a kernel that cannot run here.
        UnsupportedError: there is no kernel for this kind of device; torch is built without CUDA,
            or finds no GPU; the GPU is older than the kernels need.
        InvalidArgumentError: there are not so many GPUs.
        ExtensionMissingError: the library is not built or does not load.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return _cuda_info(device)
    require_library()
    if device.type != "cpu":
        raise no_kernels(device.type)
    info = _ask(CPU_LIBRARY, "marlin_cpu_kernel_info")
    if info.kernel is None:
        raise KernelUnavailableError(info.reason.decode(errors="replace"))
    return _kernel_info("cpu", info, CPU_LIBRARY)


def _cuda_info(device: torch.device) -> KernelInfo:
    # A library that is not built is nothing to repair on a machine without a GPU.
    if torch.version.cuda is not None and not torch.cuda.is_available():
        raise UnsupportedError(f"torch {torch.__version__} finds no CUDA GPU that it can use")
    require_cuda_library()
    index = torch.cuda.current_device() if device.index is None else device.index
    count = torch.cuda.device_count()
    if index >= count:
        raise InvalidArgumentError(
            f"`device`: expected a GPU below cuda:{count}, of which there are {count}, got {device}"
        )
    info = _ask(CUDA_LIBRARY, "marlin_cuda_kernel_info")
    gpu = torch.cuda.get_device_name(index)
    capability = torch.cuda.get_device_capability(index)
    what = f"{gpu} has compute capability {_dotted(capability)}"
    oldest = divmod(info.oldest_architecture, 10)
    if capability < oldest:
        raise UnsupportedError(f"cuda:{index}, {what}, and the kernels need {_dotted(oldest)}")
    known = _kernel_info(f"cuda:{index}", info, CUDA_LIBRARY)
    return replace(known, reason=f"{known.reason}: {what}", gpu=gpu, compute_capability=capability)


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def _kernel_info(device: str, info: _NativeKernelInfo, library: Path) -> KernelInfo:
    assert info.kernel is not None
    return KernelInfo(
        device=device,
        kernel=info.kernel.decode(),
        reason=info.reason.decode(),
        available=tuple(info.available.decode().split(",")),
        forced=bool(info.forced),
        threads=torch.get_num_threads(),
        library=library,
        torch_version=info.torch_version.decode(),
    )


class _NativeKernelInfo(ctypes.Structure):
    """Mirror of MarlinKernelInfo in csrc/kernel_info.h."""

    kernel: bytes | None
    reason: bytes
    available: bytes
    torch_version: bytes
    forced: int
    oldest_architecture: int

    _fields_ = (
        ("kernel", ctypes.c_char_p),
        ("reason", ctypes.c_char_p),
        ("available", ctypes.c_char_p),
        ("torch_version", ctypes.c_char_p),
        ("forced", ctypes.c_int),
        ("oldest_architecture", ctypes.c_int),
    )


def _ask(library: Path, question: str) -> _NativeKernelInfo:
    ask = getattr(ctypes.CDLL(str(library)), question)
    ask.restype = ctypes.POINTER(_NativeKernelInfo)
    info: _NativeKernelInfo = ask().contents
    return info
