"""Which CPU kernel runs on this machine, and why: what the native library says of itself."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import torch

from marlin.errors import KernelUnavailableError
from marlin.library import CPU_LIBRARY, require_library, unsupported_device

__all__ = ["KernelInfo", "kernel_info"]


@dataclass(frozen=True)
class KernelInfo:
    """Which kernel serves a device, and why."""

    device: str
    kernel: str
    reason: str
    available: tuple[str, ...]  # names that this machine can run, best first
    forced: bool  # by MARLIN_CPU_KERNEL
    threads: int  # that torch would use now
    library: Path
    torch_version: str  # of the headers that the library was built with


def kernel_info(device: str | torch.device = "cpu") -> KernelInfo:
    """Tells which kernel `gemm` uses on `device`, and why.

    Raises:
        KernelUnavailableError: MARLIN_CPU_KERNEL forces a kernel that cannot run here.
        UnsupportedError: there is no kernel for this kind of device.
        ExtensionMissingError: the library is not built or does not load.
    """
    kind = torch.device(device).type
    require_library()
    if kind != "cpu":
        raise unsupported_device(kind)
    info = _native_kernel_info()
    if info.kernel is None:
        raise KernelUnavailableError(info.reason.decode(errors="replace"))
    return KernelInfo(
        device=kind,
        kernel=info.kernel.decode(),
        reason=info.reason.decode(),
        available=tuple(info.available.decode().split(",")),
        forced=bool(info.forced),
        threads=torch.get_num_threads(),
        library=CPU_LIBRARY,
        torch_version=info.torch_version.decode(),
    )


class _NativeKernelInfo(ctypes.Structure):
    """Mirror of MarlinKernelInfo in csrc/kernel_info.cpp."""

    kernel: bytes | None
    reason: bytes
    available: bytes
    torch_version: bytes
    forced: int

    _fields_ = (
        ("kernel", ctypes.c_char_p),
        ("reason", ctypes.c_char_p),
        ("available", ctypes.c_char_p),
        ("torch_version", ctypes.c_char_p),
        ("forced", ctypes.c_int),
    )


def _native_kernel_info() -> _NativeKernelInfo:
    ask = ctypes.CDLL(str(CPU_LIBRARY)).marlin_cpu_kernel_info
    ask.restype = ctypes.POINTER(_NativeKernelInfo)
    info: _NativeKernelInfo = ask().contents
    return info
