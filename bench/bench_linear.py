"""Times the 4-bit Linear on the CPU against torch's, ONNX Runtime's, and the machine's limits.

    python bench/bench_linear.py [--quick] [--threads N ...] [--group-size N ...] [--isa avx2]

One line per shape, row count and implementation, then the goals; the last line is JSON. README.md
says how to read them.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "python")]

from bench import goals  # noqa: E402
from bench.children import cores, run_child, today  # noqa: E402
from bench.implementations import DEFAULT_NAMES, NAMES  # noqa: E402
from bench.measure_linear import Settings  # noqa: E402
from bench.shapes import GROUP_SIZES, ROWS, SETS  # noqa: E402

# Keeps what is measured from AVX-512. ONNX Runtime takes no such wish, so it is left out.
AVX2_ENVIRONMENT = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MARLIN_CPU_KERNEL": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
AVX2_NAMES = tuple(name for name in DEFAULT_NAMES if name not in ("torch-bf16", "ort-int8"))

QUICK_ROWS = (1, 4, 16, 128)


def main() -> None:
    options = parse_options()
    runs = [measure(options, threads) for threads in options.threads]
    for run in runs:
        print(f"\ngoals, {run['threads']} threads, {run['isa']}:")
        for line in goals.render(goals.evaluate(run)):
            print(line)
        disturbed = sum(not goals.is_quiet(cell) for cell in run["cells"])
        if disturbed:
            print(f"  {disturbed} of {len(run['cells'])} cells were disturbed: measure them again")
    report = {
        "bench": "linear",
        "date": today(),
        "command": " ".join(["python", "bench/bench_linear.py", *sys.argv[1:]]),
        "runs": runs,
        "goals": [asdict(row) for run in runs for row in goals.evaluate(run)],
    }
    path = options.out
    if path is None and not options.quick:
        suffix = "" if options.isa == "native" else f"-{options.isa}"
        path = ROOT / f"bench/results/linear-{today()}{suffix}.json"
    if path is not None:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one shape, few rows, no file")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[cores()], help="each in turn; default: all"
    )
    parser.add_argument("--shapes", choices=SETS, help="default: goals")
    parser.add_argument("--rows", type=int, nargs="+", help="m; default: all of shapes.py")
    parser.add_argument("--group-size", type=int, nargs="+", choices=GROUP_SIZES, default=[128])
    parser.add_argument("--isa", choices=("native", "avx2"), default="native")
    parser.add_argument("--implementations", nargs="+", choices=NAMES, help="default: all")
    parser.add_argument("--out", type=Path, help="default: bench/results/linear-DATE.json")
    options = parser.parse_args()
    if min(options.threads) < 1 or min(options.rows or [1]) < 1:
        parser.error("`--threads` and `--rows` must be 1 or more")
    return options


def measure(options: argparse.Namespace, threads: int) -> dict[str, Any]:
    """One run of the options."""
    is_avx2 = options.isa == "avx2"
    names = options.implementations or (AVX2_NAMES if is_avx2 else DEFAULT_NAMES)
    print(f"{threads} threads, {options.isa}", flush=True)
    settings = Settings(
        threads=threads,
        isa=options.isa,
        shapes=options.shapes or ("quick" if options.quick else "goals"),
        rows=tuple(options.rows or (QUICK_ROWS if options.quick else ROWS)),
        group_sizes=tuple(options.group_size),
        implementations=tuple(names),
        budget=1.0 if options.quick else 4.0,
        least_rounds=5 if options.quick else 9,
        out="",
    )
    environ = AVX2_ENVIRONMENT if is_avx2 else {}
    return run_child("measure_linear.py", asdict(settings), environ)


if __name__ == "__main__":
    main()
