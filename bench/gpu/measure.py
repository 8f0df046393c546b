"""What bench_gpu.py measures: every cell of the comparison, the fixed costs, the kernels of a call.

A result is checked before it gets a time. Prints lines for people; what it returns is for the JSON.
"""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from bench.gpu.cells import Checked, describe_cell, render_cell, render_heading
from bench.gpu.device import cache_bytes
from bench.gpu.fit import fit_fixed_costs
from bench.gpu.implementations import (
    DENSE,
    OURS,
    Absent,
    GpuImplementation,
    WrongResultError,
    make,
)
from bench.gpu.kernels import profile_call, render_kernels
from bench.gpu.limits import Ceilings, calls_of_graph
from bench.gpu.timer import Case, Timer, interleave_cases, timer_of
from bench.gpu.weight import GpuWeight
from bench.shapes import LinearShape
from bench.timing import Timings
from torch import Tensor

__all__ = ["GpuSettings", "compare", "is_complete", "measure_fixed_costs", "profile_kernels"]


@dataclass(frozen=True)
class GpuSettings:
    """What one run measures.

    rows: each m. group_sizes: -1 is one per column. implementations: of `implementations.NAMES`.
    graph_seconds: how long the calls of a graph take if each takes its least time.
    hang_seconds: a cell that takes longer ends the process, with a traceback; a kernel that waits
        for ever ends no other way.
    """

    device: str
    shapes: tuple[LinearShape, ...]
    rows: tuple[int, ...]
    group_sizes: tuple[int, ...]
    implementations: tuple[str, ...]
    rounds: int
    graph_seconds: float
    hang_seconds: float


def compare(settings: GpuSettings, ceilings: Ceilings) -> Iterator[dict[str, Any]]:
    """Every cell of every implementation, one after the other."""
    timer = timer_of(torch.device(settings.device))
    for weight, made, absent in _weights(settings):
        for line in render_heading(weight.shape, weight.group_size):
            print(line)
        for m in settings.rows:
            with _Watch(settings.hang_seconds):
                cell = _measure_cell(settings, ceilings, timer, weight, made, dict(absent), m)
            for line in render_cell(cell):
                print(line, flush=True)
            yield cell


def measure_fixed_costs(settings: GpuSettings, ceilings: Ceilings) -> dict[str, Any]:
    """The cells of ours over all shapes, and the line through the times of each number of rows."""
    cells = list(compare(settings, ceilings))
    fits = []
    print("\ntime = fixed + bytes / bandwidth")
    for name in settings.implementations:
        for group_size in settings.group_sizes:
            for m in settings.rows:
                held = [
                    cell["implementations"][name]
                    for cell in cells
                    if (cell["m"], cell["group_size"]) == (m, group_size)
                    and name in cell["implementations"]
                ]
                try:
                    fit = fit_fixed_costs(
                        [entry["bytes"] for entry in held],
                        [entry["us"]["median"] / 1e6 for entry in held],
                    )
                except ValueError as error:
                    print(f"  {name}, group {group_size}, m {m}: no line, {error}")
                    continue
                print(
                    f"  {name}, group {group_size}, m {m}: {fit.fixed_seconds * 1e6:.2f} us + "
                    f"bytes / {fit.bytes_per_second / 1e12:.2f} TB/s, "
                    f"no size further off than {100 * fit.worst:.0f} %"
                )
                fits.append(
                    {"implementation": name, "group_size": group_size, "m": m, **asdict(fit)}
                )
    return {"cells": cells, "fits": fits}


def profile_kernels(settings: GpuSettings) -> Iterator[dict[str, Any]]:
    """The kernels that a call of each implementation launches."""
    for weight, made, absent in _weights(settings):
        for m in settings.rows:
            rows = _activations(weight, m)
            for name, one in made.items():
                print(f"\n{weight.shape}, group {weight.group_size}, m {m}, {name}")
                with _Watch(settings.hang_seconds):
                    call = partial(one.multiply, rows[one.dtype])
                    kernels = profile_call(call, weight.codes.device)
                for line in render_kernels(kernels):
                    print(line, flush=True)
                yield {
                    "k": weight.shape.k,
                    "n": weight.shape.n,
                    "m": m,
                    "group_size": weight.group_size,
                    "implementation": name,
                    "kernels": kernels,
                }
        for name, reason in absent.items():
            print(f"{weight.shape}, group {weight.group_size}, {name}: absent, {reason}")


def is_complete(settings: GpuSettings, cells: list[dict[str, Any]]) -> bool:
    """Whether each of ours was right, and timed, in every cell."""
    wanted = [name for name in settings.implementations if name in OURS]
    return all(name in cell["implementations"] for cell in cells for name in wanted)


def _weights(
    settings: GpuSettings,
) -> Iterator[tuple[GpuWeight, dict[str, GpuImplementation], dict[str, str]]]:
    """Each weight, with what can multiply by it, and the reason for what cannot."""
    device = torch.device(settings.device)
    for shape in settings.shapes:
        for group_size in settings.group_sizes:
            weight = GpuWeight.random(shape, group_size, device)
            made: dict[str, GpuImplementation] = {}
            absent: dict[str, str] = {}
            for name in settings.implementations:
                try:
                    with _Watch(settings.hang_seconds):
                        made[name] = make(name, weight, cache_bytes(device))
                except Absent as error:
                    absent[name] = str(error)
            yield weight, made, absent


def _measure_cell(
    settings: GpuSettings,
    ceilings: Ceilings,
    timer: Timer,
    weight: GpuWeight,
    made: dict[str, GpuImplementation],
    absent: dict[str, str],
    m: int,
) -> dict[str, Any]:
    rows = _activations(weight, m)
    checked: dict[str, Checked] = {}
    cases: dict[str, Case] = {}
    for name, one in made.items():
        a = rows[one.dtype]
        try:
            error = one.error(weight, a)
        except (Absent, WrongResultError) as reason:
            absent[name] = str(reason)
            continue
        traffic = one.traffic(m)
        least = ceilings.least_seconds(traffic)
        calls = calls_of_graph(one.copies, least, settings.graph_seconds)
        checked[name] = Checked(traffic, error, one.is_ours, name in DENSE)
        cases[name] = timer.graph(partial(one.multiply, a), calls)
    timings = interleave_cases(cases, settings.rounds) if cases else Timings({})
    return describe_cell(weight.shape, m, weight.group_size, checked, absent, timings, ceilings)


def _activations(weight: GpuWeight, m: int) -> dict[torch.dtype, Tensor]:
    """The same gaussian numbers (m, k) in both types."""
    a = torch.randn(m, weight.shape.k, device=weight.codes.device).bfloat16()
    return {torch.bfloat16: a, torch.float16: a.half()}


class _Watch:
    """Ends the process, with a traceback, if its body takes longer than `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        faulthandler.dump_traceback_later(self._seconds, exit=True)

    def __exit__(self, *_: object) -> None:
        faulthandler.cancel_dump_traceback_later()
