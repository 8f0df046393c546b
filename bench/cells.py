"""One cell of the table of bench_linear.py: what the seconds of its rounds say, and its lines.

Knows neither how a product is computed nor what is to be reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.goals import is_quiet
from bench.shapes import LinearShape
from bench.timing import Timings

__all__ = [
    "READ",
    "Measured",
    "describe",
    "dot_name",
    "one_row_name",
    "render",
]

READ = "read"  # the case of the read probe
MOST_ROWS_OF_READING = 4  # up to here memory is the limit, and a line tells the share of it


@dataclass(frozen=True)
class Measured:
    """What is known of an implementation without running it.

    weight_bytes: that one call must read: codes, scales, zero points.
    dot_kind: the kind of numbers it multiplies, one of peaks.KINDS.
    is_ours: ratios are formed from the peers to it.
    """

    name: str
    weight_bytes: int
    dot_kind: str
    is_ours: bool


def dot_name(kind: str) -> str:
    """The case of a dot probe."""
    return f"dot {kind}"


def one_row_name(name: str) -> str:
    """The case of the same implementation with one row."""
    return f"{name} m1"


def describe(
    shape: LinearShape,
    m: int,
    group_size: int,
    measured: Sequence[Measured],
    timings: Timings,
    *,
    read_bytes: int,
    dot_operations: Mapping[str, int],
) -> dict[str, Any]:
    """The cell as it stands in the JSON.

    Times in us, rates in GB/s and Gop/s (a multiplication and its addition are two operations).
    Shares and ratios are formed round by round; of what varies, median, low and high (quartiles).

    read_bytes: of one call of the read probe.
    dot_operations: of one call of each dot probe that is available.
    """
    operations = 2 * m * shape.k * shape.n
    read = timings.spread(READ).median
    rates = {
        kind: count / timings.spread(dot_name(kind)).median / 1e9
        for kind, count in dot_operations.items()
    }
    peers = [one.name for one in measured if not one.is_ours]
    implementations: dict[str, dict[str, Any]] = {}
    for one in measured:
        spread = timings.spread(one.name)
        read_share = timings.ratio(READ, one.name).scaled(one.weight_bytes / read_bytes)
        entry: dict[str, Any] = {
            "us": asdict(spread.scaled(1e6)),
            "weight_bytes": one.weight_bytes,
            "gb_per_s": one.weight_bytes / spread.median / 1e9,
            "gop_per_s": operations / spread.median / 1e9,
            "read_share": asdict(read_share),
            "dot_kind": one.dot_kind,
            "dot_share": None,
            "time_vs_m1": None,
            "ratio": {},
        }
        if one.dot_kind in dot_operations:
            share = timings.ratio(dot_name(one.dot_kind), one.name)
            entry["dot_share"] = asdict(share.scaled(operations / dot_operations[one.dot_kind]))
        if one_row_name(one.name) in timings.seconds:
            entry["time_vs_m1"] = asdict(timings.ratio(one.name, one_row_name(one.name)))
        if one.is_ours:
            entry["ratio"] = {peer: asdict(timings.ratio(peer, one.name)) for peer in peers}
        implementations[one.name] = entry
    return {
        "k": shape.k,
        "n": shape.n,
        "m": m,
        "group_size": group_size,
        "rounds": len(timings.seconds[READ]),
        "other_cpus": timings.other_cpus,
        "read_gb_per_s": read_bytes / read / 1e9,
        "dot_gop_per_s": rates,
        "implementations": implementations,
    }


def render(cell: Mapping[str, Any]) -> Iterator[str]:
    """One line per implementation, for people, and one more if others were at work."""
    where = f"{cell['k']}x{cell['n']} group {cell['group_size']} m {cell['m']}"
    for name, entry in cell["implementations"].items():
        line = f"{where:<29}{name:<12}{entry['us']['median']:9.0f} us  "
        if cell["m"] <= MOST_ROWS_OF_READING:
            share = entry["read_share"]["median"]
            line += f"{entry['gb_per_s']:6.1f} GB/s {100 * share:4.0f} % of reading"
        else:
            line += f"{entry['gop_per_s']:6.0f} Gop/s"
            share = entry["dot_share"]
            if share is not None:
                line += f" {100 * share['median']:3.0f} % of {entry['dot_kind']}"
        ratios = [f"{peer} x{ratio['median']:.2f}" for peer, ratio in entry["ratio"].items()]
        if entry["time_vs_m1"] is not None:
            ratios.append(f"m 1 x{entry['time_vs_m1']['median']:.2f}")
        yield f"{line:<88}{'  '.join(ratios)}".rstrip()
        where = ""
    if not is_quiet(cell):
        yield f"    disturbed: others kept {cell['other_cpus']:.2f} CPUs busy"
