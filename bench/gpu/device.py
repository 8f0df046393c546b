"""What the device is and what it can do: name, caches, clocks, and the two ceilings, measured."""

from __future__ import annotations

import re
import subprocess

import torch
from bench.gpu.limits import Ceilings
from bench.gpu.timer import Timer, interleave_cases

__all__ = ["cache_bytes", "clocks", "describe_device", "device_slug", "measure_ceilings"]

COPY_BYTES = 1 << 30  # of each of the two buffers
COPY_CALLS = 8
PEAK_SIZE = 8192  # m, n and k
PEAK_CALLS = 4
PROBE_ROUNDS = 5
# A run on the CPU is there to try the bench: it takes no time.
CPU_COPY_BYTES = 1 << 22
CPU_PEAK_SIZE = 128
CPU_CACHE_BYTES = 0  # two copies

QUERY = (
    "driver_version",
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "clocks.max.mem",
    "power.draw",
    "power.limit",
    "temperature.gpu",
)


def cache_bytes(device: torch.device) -> int:
    """The L2 cache, which the copies of a weight must outgrow."""
    if device.type != "cuda":
        return CPU_CACHE_BYTES
    return int(torch.cuda.get_device_properties(device).L2_cache_size)


def describe_device(device: torch.device) -> dict[str, object]:
    """Name, size and versions, for the JSON."""
    if device.type != "cuda":
        return {"name": "cpu", "cuda": torch.version.cuda}
    facts = torch.cuda.get_device_properties(device)
    return {
        "name": facts.name,
        "compute_capability": f"{facts.major}.{facts.minor}",
        "multiprocessors": facts.multi_processor_count,
        "memory_bytes": facts.total_memory,
        "cache_bytes": cache_bytes(device),
        "cuda": torch.version.cuda,
        "cublas_fp16_reduced_precision_reduction": (
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction
        ),
    }


def clocks(device: torch.device) -> dict[str, str] | None:
    """What nvidia-smi says of clocks, power and heat at this moment; None without it."""
    if device.type != "cuda":
        return None
    uuid = torch.cuda.get_device_properties(device).uuid
    command = ("nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader")
    try:
        done = subprocess.run(
            (*command, f"--id=GPU-{uuid}"), capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return dict(zip(QUERY, values, strict=False))


def device_slug(name: str) -> str:
    """The name for a file: `NVIDIA H100 80GB HBM3` is `h100-80gb-hbm3`."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    return "-".join(word for word in words if word != "nvidia") or "unknown"


def measure_ceilings(device: torch.device, timer: Timer) -> Ceilings:
    """A large copy on the device, bytes read and written; a large float16 product of cuBLAS.

    The product is of random numbers: of zeros it would be faster.
    """
    is_gpu = device.type == "cuda"
    count = COPY_BYTES if is_gpu else CPU_COPY_BYTES
    size = PEAK_SIZE if is_gpu else CPU_PEAK_SIZE
    source = torch.ones(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    left, right = (torch.randn(size, size, device=device, dtype=torch.float16) for _ in range(2))
    timings = interleave_cases(
        {
            "copy": timer.queue(lambda _: target.copy_(source), COPY_CALLS),
            "product": timer.queue(lambda _: left @ right, PEAK_CALLS),
        },
        PROBE_ROUNDS,
    )
    return Ceilings(
        bytes_per_second=2 * count / timings.spread("copy").median,
        operations_per_second=2 * size**3 / timings.spread("product").median,
    )
