"""Times the 4-bit product on a GPU against cuBLAS and torch's int4 operator, and the GPU's limits.

    python bench/bench_gpu.py [--quick] [--shapes llama] [--rows M ...] [--group-size 128 -1]
    python bench/bench_gpu.py --fixed-costs     what a call of ours costs before it moves a byte
    python bench/bench_gpu.py --profile         the kernels of a call: time, grid, registers
    python bench/bench_gpu.py --device cpu --layers 256x128 --rows 1 16     a try without a GPU

Needs torch alone. One table per shape; the last line is JSON. README.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "python")]

import torch  # noqa: E402
from bench.children import today  # noqa: E402
from bench.gpu.device import (  # noqa: E402
    clocks,
    describe_device,
    device_slug,
    measure_ceilings,
)
from bench.gpu.goals import evaluate_goals, render_goals  # noqa: E402
from bench.gpu.implementations import NAMES, OURS  # noqa: E402
from bench.gpu.limits import Ceilings  # noqa: E402
from bench.gpu.measure import (  # noqa: E402
    GpuSettings,
    compare,
    is_complete,
    measure_fixed_costs,
    profile_kernels,
)
from bench.gpu.timer import timer_of  # noqa: E402
from bench.shapes import GPU_ROWS, GPU_SETS, GROUP_SIZES, LinearShape  # noqa: E402
from bench.timing import machine  # noqa: E402

from marlin import ops  # noqa: E402
from marlin.errors import MarlinError  # noqa: E402

QUICK_ROWS = (1, 16, 64, 256)
PROFILED_ROWS = (1, 16, 64)
GRAPH_SECONDS, QUICK_GRAPH_SECONDS = 2e-3, 1e-3
ROUNDS, QUICK_ROUNDS = 9, 5
HANG_SECONDS = 120.0
BUILD = "MARLIN_CUDA=1 python setup.py build_ext --inplace"


def main() -> int:
    options = parse_options()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA GPU; `--device cpu` tries the bench without one", file=sys.stderr)
        return 2
    settings = settings_of(options)
    device = torch.device(settings.device)
    try:
        ops.repack(torch.zeros(4, 8, dtype=torch.int32, device=device), 8, 32)
    except MarlinError as error:
        print(f"{error}; `{BUILD}` builds the library", file=sys.stderr)
        return 2
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest")  # the reference is no tf32
    facts = machine()
    report: dict[str, Any] = {
        "bench": "gpu",
        "mode": options.mode,
        "date": today(),
        "command": " ".join(["python", "bench/bench_gpu.py", *sys.argv[1:]]),
        "settings": asdict(settings),
        "machine": {**facts, "commit": options.commit or facts["commit"]},
        "device": describe_device(device),
    }
    print(f"{report['device']['name']}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    with torch.inference_mode():
        is_right = measure(options.mode, settings, report, path_of(options, report["device"]))
    print(json.dumps(report))
    return 0 if is_right else 1


def measure(mode: str, settings: GpuSettings, report: dict[str, Any], path: Path | None) -> bool:
    """Fills the report, and the file after every cell; whether all of ours was right."""
    device = torch.device(settings.device)
    if mode == "profile":
        report["profiles"] = []
        for profile in profile_kernels(settings):
            report["profiles"].append(profile)
            write(report, path)
        return True
    timer = timer_of(device)
    ceilings = measure_ceilings(device, timer)
    report["ceilings"], report["clocks"] = asdict(ceilings), clocks(device)
    tell("before", ceilings)
    if mode == "fixed-costs":
        report.update(measure_fixed_costs(settings, ceilings))
    else:
        report["cells"] = []
        for cell in compare(settings, ceilings):
            report["cells"].append(cell)
            write(report, path)
        verdicts = evaluate_goals(report["cells"])
        report["goals"] = [asdict(verdict) for verdict in verdicts]
        print("\ngoals, which are those of an H100:")
        for line in render_goals(verdicts):
            print(line)
    after = measure_ceilings(device, timer)
    report["ceilings_after"], report["clocks_after"] = asdict(after), clocks(device)
    tell("after", after)
    write(report, path)
    is_right = is_complete(settings, report["cells"])
    if not is_right:
        print("NOT every product of ours could be timed: see the lines above")
    return is_right


def tell(when: str, ceilings: Ceilings) -> None:
    print(
        f"limits {when}: copies {ceilings.bytes_per_second / 1e12:.2f} TB/s, read and written; "
        f"float16 product {ceilings.operations_per_second / 1e12:.0f} TFLOP/s",
        flush=True,
    )


def write(report: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def path_of(options: argparse.Namespace, facts: dict[str, Any]) -> Path | None:
    """Where the results go: nowhere without `--out` for what is quick or on the CPU."""
    if options.out is not None or options.quick or options.device == "cpu":
        path: Path | None = options.out
        return path
    mode = "" if options.mode == "compare" else f"-{options.mode}"
    return ROOT / f"bench/results/gpu-{today()}-{device_slug(facts['name'])}{mode}.json"


def settings_of(options: argparse.Namespace) -> GpuSettings:
    """The settings that the options and their defaults make."""
    is_compared = options.mode == "compare"
    sets = {"compare": "llama", "fixed-costs": "sizes", "profile": "quick"}
    rows = {"compare": GPU_ROWS, "fixed-costs": (1,), "profile": PROFILED_ROWS}[options.mode]
    if options.quick and is_compared:
        rows = QUICK_ROWS
    groups = (128, -1) if is_compared and not options.quick else (128,)
    shapes = (
        options.layers
        or GPU_SETS[options.shapes or ("quick" if options.quick else sets[options.mode])]
    )
    graph_seconds = QUICK_GRAPH_SECONDS if options.quick else GRAPH_SECONDS
    return GpuSettings(
        device=options.device,
        shapes=tuple(shapes),
        rows=tuple(options.rows or rows),
        group_sizes=tuple(options.group_size or groups),
        implementations=tuple(options.implementations or (NAMES if is_compared else OURS)),
        rounds=options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS),
        graph_seconds=graph_seconds if options.device == "cuda" else 0.0,
        hang_seconds=options.hang_seconds,
    )


def layer(text: str) -> LinearShape:
    """`4096x11008` as a shape."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected KxN, as 4096x11008, got {text}")
    return LinearShape("layer", int(match[1]), int(match[2]))


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    mode = parser.add_mutually_exclusive_group()
    for name, text in (
        ("fixed-costs", "ours alone: fits time = fixed + bytes / bandwidth over sizes"),
        ("profile", "the kernels of each call, from torch's profiler"),
    ):
        mode.add_argument(f"--{name}", dest="mode", action="store_const", const=name, help=text)
    parser.set_defaults(mode="compare")
    parser.add_argument("--quick", action="store_true", help="few shapes and rows, no file")
    parser.add_argument("--shapes", choices=GPU_SETS, help="default: llama")
    parser.add_argument("--layers", nargs="+", type=layer, metavar="KxN", help="other shapes")
    parser.add_argument("--rows", type=int, nargs="+", help="m; default: 1 to 2048")
    parser.add_argument(
        "--group-size", type=int, nargs="+", choices=(-1, *GROUP_SIZES), help="default: 128 -1"
    )
    parser.add_argument("--implementations", nargs="+", choices=NAMES, help="default: all")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, help="default: bench/results/gpu-DATE-GPU.json")
    parser.add_argument("--commit", help="to write down, where this is no git repository")
    parser.add_argument(
        "--hang-seconds", type=float, default=HANG_SECONDS, help="a cell may take; default: 120"
    )
    options = parser.parse_args(arguments)
    if min(options.rows or [1]) < 1 or (options.rounds or 1) < 1:
        parser.error("`--rows` and `--rounds` must be 1 or more")
    return options


if __name__ == "__main__":
    sys.exit(main())
