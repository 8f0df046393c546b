"""Measures every cell for one number of threads, in a process that bench_linear.py starts.

Takes its settings as one JSON argument, prints lines for people, and writes the run to a file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "python")]

import torch  # noqa: E402
from bench import peer_ort  # noqa: E402
from bench.cells import READ, describe, dot_name, one_row_name, render  # noqa: E402
from bench.implementations import Absent, Implementation, Weight, make  # noqa: E402
from bench.peaks import KINDS, Peaks, last_level_cache  # noqa: E402
from bench.shapes import SETS, LinearShape  # noqa: E402
from bench.timing import interleave, machine  # noqa: E402

from marlin import ops  # noqa: E402
from marlin.errors import MarlinError  # noqa: E402

# Row counts whose time is compared, in the same rounds, with that of one row.
COMPARED_WITH_ONE_ROW = (4,)


@dataclass(frozen=True)
class Settings:
    """What one run measures.

    shapes: a name of `shapes.SETS`; rows: each m; implementations: of `implementations.NAMES`.
    isa: "native", or "avx2": the parent has set the environment that keeps the rest from AVX-512.
    budget: seconds of rounds for each cell, but `least_rounds` rounds at least.
    """

    threads: int
    isa: str
    shapes: str
    rows: tuple[int, ...]
    group_sizes: tuple[int, ...]
    implementations: tuple[str, ...]
    budget: float
    least_rounds: int
    out: str

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The inverse of `json.dumps(asdict(settings))`."""
        values = json.loads(text)
        for name in ("rows", "group_sizes", "implementations"):
            values[name] = tuple(values[name])
        return cls(**values)


def main() -> None:
    settings = Settings.from_json(sys.argv[1])
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    peaks = Peaks(settings.threads, "avx2" if settings.isa == "avx2" else None)
    absent: dict[str, str] = {}
    run: dict[str, Any] = {
        "threads": settings.threads,
        "isa": settings.isa,
        "settings": asdict(settings),
        "machine": _machine(),
        "instructions": {kind: peaks.instruction(kind) for kind in KINDS},
        "absent": absent,
    }
    missing = [kind for kind, name in run["instructions"].items() if name is None]
    if missing:
        print(f"not available on this CPU, so without a share: dot products of {missing}")
    with torch.inference_mode():
        run["cells"] = list(_cells(settings, peaks, absent))
    run["load_average_after"] = os.getloadavg()[0]
    for name, reason in absent.items():
        print(f"absent: {name}: {reason}")
    Path(settings.out).write_text(json.dumps(run), encoding="utf-8")


def _machine() -> dict[str, object]:
    try:
        kernel = ops.kernel_info().kernel
    except MarlinError as error:
        kernel = f"none: {error}"
    return {
        **machine(),
        "kernel": kernel,
        "last_level_cache": last_level_cache(),
        "onnxruntime": peer_ort.version(),
    }


def _cells(settings: Settings, peaks: Peaks, absent: dict[str, str]) -> Iterator[dict[str, Any]]:
    for shape in SETS[settings.shapes]:
        for group_size in settings.group_sizes:
            weight = Weight.random(shape, group_size)
            made = []
            for name in settings.implementations:
                try:
                    made.append(make(name, weight))
                except Absent as error:
                    absent[name] = str(error)
            for m in settings.rows:
                cell = _measure(shape, m, group_size, made, peaks, settings)
                for line in render(cell):
                    print(line, flush=True)
                yield cell


def _measure(
    shape: LinearShape,
    m: int,
    group_size: int,
    implementations: list[Implementation],
    peaks: Peaks,
    settings: Settings,
) -> dict[str, Any]:
    a = torch.randn(m, shape.k).bfloat16()
    read, read_bytes = peaks.read_probe()
    cases: dict[str, Callable[[int], object]] = {READ: read}
    dot_operations = {}
    for kind in sorted({one.measured.dot_kind for one in implementations}):
        probe = peaks.dot_probe(kind)
        if probe is not None:
            cases[dot_name(kind)], dot_operations[kind] = probe
    for one in implementations:
        name = one.measured.name
        cases[name] = one.prepare(a)
        if one.measured.is_ours and m in COMPARED_WITH_ONE_ROW:
            cases[one_row_name(name)] = one.prepare(a[:1].clone())
    timings = interleave(
        cases,
        budget=settings.budget,
        least_rounds=settings.least_rounds,
        most_rounds=100,
    )
    return describe(
        shape,
        m,
        group_size,
        [one.measured for one in implementations],
        timings,
        read_bytes=read_bytes,
        dot_operations=dot_operations,
    )


if __name__ == "__main__":
    main()
