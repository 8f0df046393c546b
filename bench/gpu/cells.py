"""One cell of the table of bench_gpu.py: a shape, a group size, a number of rows; and its lines.

Knows neither how a product is computed nor how it was timed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bench.gpu.limits import Ceilings, Traffic
from bench.shapes import LinearShape
from bench.timing import Timings

__all__ = ["BEST_DENSE", "Checked", "describe_cell", "render_cell", "render_heading"]

BEST_DENSE = "dense"  # the faster of the dense products
HEADING = (
    f"{'m':>5}  {'':<12}{'us':>9}{'limit':>9}{'TB/s':>7}{'copy':>6}{'TFLOP/s':>9}{'peak':>6}"
    "   times as long as ours"
)


@dataclass(frozen=True)
class Checked:
    """An implementation whose result was right: what it must do, and how far off it is."""

    traffic: Traffic
    error: float
    is_ours: bool
    is_dense: bool


def describe_cell(
    shape: LinearShape,
    m: int,
    group_size: int,
    checked: Mapping[str, Checked],
    absent: Mapping[str, str],
    timings: Timings,
    ceilings: Ceilings,
) -> dict[str, Any]:
    """The cell as it stands in the JSON.

    Times in us with quartiles over the rounds; `limit_us` is the least time that the bytes and the
    operations allow (limits.py). Ratios are formed inside each round: above 1 ours is faster.

    checked: what was timed. absent: what could not run, and why.
    """
    dense = [name for name, one in checked.items() if one.is_dense]
    best = min(dense, key=lambda name: timings.spread(name).median, default=None)
    peers = {name: name for name, one in checked.items() if not one.is_ours}
    if best is not None:
        peers[BEST_DENSE] = best
    implementations: dict[str, dict[str, Any]] = {}
    for name, one in checked.items():
        spread = timings.spread(name)
        rate = one.traffic.bytes / spread.median
        operations = one.traffic.operations / spread.median
        implementations[name] = {
            "us": asdict(spread.scaled(1e6)),
            "limit_us": ceilings.least_seconds(one.traffic) * 1e6,
            "bytes": one.traffic.bytes,
            "tb_per_s": rate / 1e12,
            "copy_share": rate / ceilings.bytes_per_second,
            "tflop_per_s": operations / 1e12,
            "peak_share": operations / ceilings.operations_per_second,
            "mean_error": one.error,
            "ratio": {label: asdict(timings.ratio(peer, name)) for label, peer in peers.items()}
            if one.is_ours
            else {},
        }
    return {
        "layer": shape.layer,
        "k": shape.k,
        "n": shape.n,
        "m": m,
        "group_size": group_size,
        "implementations": implementations,
        "absent": dict(absent),
    }


def render_heading(shape: LinearShape, group_size: int) -> Iterator[str]:
    """What stands above the lines of one shape."""
    groups = "one group per column" if group_size == -1 else f"group {group_size}"
    yield ""
    yield f"{shape.layer}, {shape}, {groups}"
    yield HEADING


def render_cell(cell: Mapping[str, Any]) -> Iterator[str]:
    """One line per implementation, and one for each that is absent."""
    label = str(cell["m"])
    for name, entry in cell["implementations"].items():
        ratios = "  ".join(
            f"{peer} x{ratio['median']:.2f}" for peer, ratio in entry["ratio"].items()
        )
        line = (
            f"{label:>5}  {name:<12}{entry['us']['median']:9.1f}{entry['limit_us']:9.1f}"
            f"{entry['tb_per_s']:7.2f}{100 * entry['copy_share']:5.0f}%"
            f"{entry['tflop_per_s']:9.1f}{100 * entry['peak_share']:5.0f}%   {ratios}"
        )
        yield line.rstrip()
        label = ""
    for name, reason in cell["absent"].items():
        yield f"{label:>5}  {name:<12}absent: {reason}"
        label = ""
