"""The one timer: interleaved calls, medians, paired ratios, and what the run was made on.

Everything that is compared runs in turn inside one round, so that what else the machine does meets
all of them alike. A ratio is formed inside each round; its median and quartiles are over rounds.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["Seconds", "Spread", "Timings", "interleave", "machine"]

ROOT = Path(__file__).resolve().parents[1]

# What changes how threads wait or which instructions are used.
ENVIRONMENT = (
    "ATEN_CPU_CAPABILITY",
    "GOMP_SPINCOUNT",
    "MARLIN_CPU_KERNEL",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "ONEDNN_MAX_CPU_ISA",
)

WARM_SECONDS = 2e-3
WAIT_STEP = 5e-4
MOST_WAITING = 0.2


class Seconds(float):
    """What a case returns that has a clock of its own: the seconds to keep for this call."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a quantity over the rounds, in its unit."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of at least one value."""
        held = list(values)
        if len(held) == 1:
            return cls(held[0], held[0], held[0])
        low, median, high = statistics.quantiles(held, n=4, method="inclusive")
        return cls(median, low, high)

    def scaled(self, factor: float) -> Spread:
        """The same in another unit, of which `factor` make one of this."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Timings:
    """Seconds of every call, one list per case, with equal indices for equal rounds.

    other_cpus: how many CPUs other processes kept busy meanwhile; None: the system does not tell.
    """

    seconds: Mapping[str, list[float]]
    other_cpus: float | None = None

    def spread(self, name: str) -> Spread:
        """The seconds of a call of `name`."""
        return Spread.of(self.seconds[name])

    def ratio(self, name: str, baseline: str) -> Spread:
        """How many times as long `name` takes as `baseline`, paired by round."""
        pairs = zip(self.seconds[name], self.seconds[baseline], strict=True)
        return Spread.of(a / b for a, b in pairs)


def interleave(
    cases: Mapping[str, Callable[[int], object]],
    *,
    budget: float,
    least_rounds: int,
    most_rounds: int,
) -> Timings:
    """Times every case once per round, in rotating order; a case gets the number of its call.

    Before each timed call the same case is called without the clock for `WARM_SECONDS`: the code of
    the layer before is in the cache of a model too, and here the other cases have driven it out;
    and threads that slept may wake on one core and be moved apart only after a millisecond. The
    numbers differ, so that the data of the timed call is not the one just used.
    The first round is not kept. Rounds go on until `budget` seconds have passed, but at least
    `least_rounds` and at most `most_rounds`.
    """
    names = list(cases)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    calls = dict.fromkeys(names, 0)
    started = time.perf_counter()
    busy = _other_seconds()
    for index in range(most_rounds + 1):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            calls[name] = _warm(cases[name], calls[name])
            begin = time.perf_counter()
            result = cases[name](calls[name])
            elapsed = time.perf_counter() - begin
            calls[name] += 1
            if index > 0:
                seconds[name].append(result if isinstance(result, Seconds) else elapsed)
            _wait_for_threads()
        if index >= least_rounds and time.perf_counter() - started > budget:
            break
    elapsed = time.perf_counter() - started
    busy_after = _other_seconds()
    if busy is None or busy_after is None:
        return Timings(seconds)
    return Timings(seconds, max(0.0, busy_after - busy) / elapsed)


def _warm(case: Callable[[int], object], index: int) -> int:
    """Calls `case`, at least once; returns the number of its next call."""
    end = time.perf_counter() + WARM_SECONDS
    while True:
        case(index)
        index += 1
        if time.perf_counter() >= end:
            return index


def _wait_for_threads() -> None:
    """Returns when no other thread of this process runs.

    A pool goes on looking for work for a while (ONNX Runtime's for 30 ms), and the next case would
    find fewer cores. It waits awake: after a sleep the first threads to wake share a core.
    """
    end = time.perf_counter() + MOST_WAITING
    while time.perf_counter() < end:
        used = time.process_time() - time.thread_time()
        begin = time.perf_counter()
        while time.perf_counter() < begin + WAIT_STEP:
            pass
        if time.process_time() - time.thread_time() - used < WAIT_STEP / 10:
            return


def _other_seconds() -> float | None:
    """CPU seconds that other processes, and other guests of the host, have used so far."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, line.split()[1:9])
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq + steal) / ticks - time.process_time()


def machine() -> dict[str, object]:
    """What a reader needs to judge the numbers: processor, load, versions, commit."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
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
    try:
        result = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None
