"""The one timer: interleaved calls, medians, paired ratios, and what the run was made on.

Everything that is compared runs in turn inside one round, so that what else the machine does meets
all of them alike. A ratio is the median over rounds of the ratio inside a round.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["Timings", "interleave", "machine", "matmul_probe", "read_probe"]

ROOT = Path(__file__).resolve().parents[1]

# Larger than the last-level cache of a desktop or a slice of a server: a slice that is read again
# has left the cache since.
PROBE_BYTES = 256 << 20
PROBE_SLICES = 8
PROBE_MATRIX = 2048  # large enough for a library's best rate, small enough for 20 ms


@dataclass(frozen=True)
class Timings:
    """Seconds of every call, one list per case, with equal indices for equal rounds."""

    seconds: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, baseline: str) -> float:
        """How many times as long `name` takes as `baseline`, paired by round."""
        pairs = zip(self.seconds[name], self.seconds[baseline], strict=True)
        return statistics.median(a / b for a, b in pairs)


def interleave(
    cases: Mapping[str, Callable[[int], object]],
    *,
    budget: float,
    least_rounds: int,
    most_rounds: int,
) -> Timings:
    """Times every case once per round, in rotating order; a case gets the number of its call.

    Before each timed call the same case is called once without the clock: the code of the layer
    before is in the cache of a model too, and here the other cases have driven it out (which cost
    100 us). The numbers differ, so that the data of the timed call is not the one just used.
    The first round is not kept. Rounds go on until `budget` seconds have passed, but at least
    `least_rounds` and at most `most_rounds`.
    """
    names = list(cases)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    started = time.perf_counter()
    for index in range(most_rounds + 1):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            cases[name](2 * index)
            begin = time.perf_counter()
            cases[name](2 * index + 1)
            elapsed = time.perf_counter() - begin
            if index > 0:
                seconds[name].append(elapsed)
        if index >= least_rounds and time.perf_counter() - started > budget:
            break
    return Timings(seconds)


def read_probe() -> tuple[Callable[[int], object], int]:
    """A case that reads memory as fast as torch's threads can, and the bytes of one call."""
    memory = torch.ones(PROBE_BYTES // 4, dtype=torch.float32).chunk(PROBE_SLICES)

    def read(index: int) -> object:
        return memory[index % PROBE_SLICES].sum()

    return read, PROBE_BYTES // PROBE_SLICES


def matmul_probe() -> tuple[Callable[[int], object], int]:
    """A case that multiplies bfloat16 matrices in cache, and the operations of one call."""
    a = torch.randn(PROBE_MATRIX, PROBE_MATRIX).bfloat16()
    return (lambda _: a @ a), 2 * PROBE_MATRIX**3


def machine() -> dict[str, object]:
    """What a reader needs to judge the numbers: processor, load, versions, commit."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": _git("rev-parse", "HEAD"),
        "modified": _git("status", "--porcelain", "--", "csrc", "python", "bench") != "",
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {name.strip(): value.strip() for name, value in facts.items()}
    family = f"family {fields.get('cpu family', '?')} model {fields.get('model', '?')}"
    return f"{fields.get('model name', platform.processor())} ({family})"


def _git(*arguments: str) -> str | None:
    result = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return result.stdout.strip() if result.returncode == 0 else None
