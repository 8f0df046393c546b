"""Times greedy decoding of a Llama on the CPU: bfloat16 against 4 bits, each eager and compiled.

    python bench/bench_decode.py [--quick] [--threads N ...] [--intermediate N] [--fuse]

One line per variant; the last line is JSON. README.md says how to read them.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "python")]

from bench.children import cores, run_child, today  # noqa: E402
from bench.measure_decode import Settings  # noqa: E402
from bench.shapes import GROUP_SIZES  # noqa: E402


def main() -> None:
    options = parse_options()
    print(
        f"{options.layers} layers, hidden {options.hidden}, intermediate {options.intermediate}, "
        f"{options.heads} heads, {options.kv_heads} of keys and values, "
        f"vocabulary {options.vocab}, group {options.group_size}"
    )
    runs = []
    for threads in options.threads:
        print(f"{threads} threads", flush=True)
        settings = Settings(
            threads=threads,
            layers=options.layers,
            hidden=options.hidden,
            intermediate=options.intermediate,
            heads=options.heads,
            kv_heads=options.kv_heads,
            vocab=options.vocab,
            group_size=options.group_size,
            activation=options.activation,
            is_compiled=not options.eager,
            fuse=options.fuse,
            steps=4 if options.quick else 16,
            budget=2.0 if options.quick else 20.0,
            least_rounds=3 if options.quick else 9,
            out="",
        )
        runs.append(run_child("measure_decode.py", asdict(settings), {}))
    report = {
        "bench": "decode",
        "date": today(),
        "command": " ".join(["python", "bench/bench_decode.py", *sys.argv[1:]]),
        "runs": runs,
    }
    path = options.out
    if path is None and not options.quick:
        path = ROOT / f"bench/results/decode-{today()}.json"
    if path is not None:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small model, few rounds, no file")
    parser.add_argument(
        "--threads", type=int, nargs="+", help="each in turn; default: one, and all"
    )
    parser.add_argument("--layers", type=int, help="default: 8")
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--intermediate", type=int, default=5632)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--group-size", type=int, choices=GROUP_SIZES, default=128)
    parser.add_argument(
        "--activation", default="auto", help="of `marlin.quantize_`, where it has that option"
    )
    parser.add_argument("--eager", action="store_true", help="nothing compiled")
    parser.add_argument("--fuse", action="store_true", help="calls `marlin.fuse_` if there is one")
    parser.add_argument("--out", type=Path, help="default: bench/results/decode-DATE.json")
    options = parser.parse_args()
    if options.threads is None:
        options.threads = sorted({1, cores()})
    if options.layers is None:
        options.layers = 2 if options.quick else 8
    return options


if __name__ == "__main__":
    main()
