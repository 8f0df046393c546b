"""The kernels of a call as torch's profiler saw them: name, time, grid, block, registers.

Reads the trace that `export_chrome_trace` writes: the table of `key_averages` has no launches.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ["Kernel", "kernels_of_trace", "profile_call", "render_kernels"]

KINDS = ("kernel", "gpu_memset", "gpu_memcpy")
CPU_KINDS = ("cpu_op",)
PROFILED_CALLS = 20
NAME_WIDTH = 72
HEADING = (
    f"{'us':>9}{'launches':>10}{'grid':>14}{'block':>12}{'registers':>11}{'shared':>9}  kernel"
)


@dataclass(frozen=True)
class Kernel:
    """Launches of one kernel with one configuration.

    us: median duration; launches: in all profiled calls. The rest is None where the trace has none.
    """

    name: str
    launches: int
    us: float
    grid: tuple[int, ...] | None
    block: tuple[int, ...] | None
    registers: int | None
    shared_bytes: int | None


def kernels_of_trace(trace: Mapping[str, Any], kinds: Sequence[str] = KINDS) -> list[Kernel]:
    """What a Chrome trace of the profiler holds, in the order of the first launch."""
    durations: dict[tuple[Any, ...], list[float]] = {}
    for event in sorted(trace["traceEvents"], key=lambda event: event.get("ts", 0)):
        if event.get("ph") != "X" or event.get("cat") not in kinds:
            continue
        facts = event.get("args", {})
        key = (
            event["name"],
            _numbers(facts.get("grid")),
            _numbers(facts.get("block")),
            facts.get("registers per thread"),
            facts.get("shared memory"),
        )
        durations.setdefault(key, []).append(float(event["dur"]))
    return [
        Kernel(name, len(held), statistics.median(held), grid, block, registers, shared)
        for (name, grid, block, registers, shared), held in durations.items()
    ]


def profile_call(call: Callable[[int], object], device: torch.device) -> list[dict[str, Any]]:
    """The kernels of PROFILED_CALLS calls, as they stand in the JSON."""
    is_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if is_gpu else [])
    call(0)
    with profile(activities=activities) as profiler:
        for number in range(PROFILED_CALLS):
            call(number)
        if is_gpu:
            torch.cuda.synchronize(device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        trace = json.loads(path.read_text(encoding="utf-8"))
    return [asdict(kernel) for kernel in kernels_of_trace(trace, KINDS if is_gpu else CPU_KINDS)]


def render_kernels(kernels: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One line per kernel."""
    yield HEADING
    for kernel in kernels:
        yield (
            f"{kernel['us']:9.1f}{kernel['launches']:10}{_size(kernel['grid']):>14}"
            f"{_size(kernel['block']):>12}{_or_dash(kernel['registers']):>11}"
            f"{_or_dash(kernel['shared_bytes']):>9}  {kernel['name'][:NAME_WIDTH]}"
        )
    if not kernels:
        yield "  none: the profiler saw no kernel"


def _numbers(values: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(int(value) for value in values)


def _size(values: Sequence[int] | None) -> str:
    return "-" if values is None else "x".join(str(value) for value in values)


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)
