"""Times the 4-bit Linear on the CPU against torch's bfloat16 Linear and torch's own int4 operator.

    python bench/bench_linear.py [--quick] [--threads N] [--out FILE]

One line per shape and row count; the last line is JSON. README.md says how to read them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "bench")]

import torch  # noqa: E402
from shapes import LLAMA_3_8B, ROWS, LinearShape  # noqa: E402
from timing import interleave, machine, matmul_probe, read_probe  # noqa: E402
from torch import Tensor  # noqa: E402

from marlin import ops, primitives  # noqa: E402

GROUP_SIZE = 128
COLD_BYTES = 256 << 20  # the weights of one implementation, all copies together
TOLERANCE = 1e-2  # between the implementations; they round activations and weights differently

OURS, BF16, INT4 = "marlin", "torch bf16", "torch int4"
READ, MATMUL = "read", "matmul"


@dataclass(frozen=True)
class Implementation:
    """One way to multiply, with as many copies of the same weight as leave the cache."""

    name: str
    weight_bytes: int
    call: Callable[[Tensor, int], Tensor]  # activations (m, k) bfloat16, number of the call


def main() -> None:
    options = parse_options()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    shapes = LLAMA_3_8B[:2] if options.quick else LLAMA_3_8B
    rows = (1, 16) if options.quick else ROWS

    info = ops.kernel_info()
    facts = {**machine(), "kernel": info.kernel, "group_size": GROUP_SIZE, "dtype": "bfloat16"}
    print(f"{facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}, {info.kernel}")
    with torch.inference_mode():
        results = [
            cell for shape in shapes for cell in bench_shape(shape, rows, quick=options.quick)
        ]
    report = {"bench": "linear", "date": today(), "machine": facts, "results": results}
    path = options.out
    if path is None and not options.quick:
        path = ROOT / f"bench/results/linear-{today()}.json"
    if path is not None:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two shapes, two row counts, no file")
    parser.add_argument("--threads", type=int, help="default: what torch chooses")
    parser.add_argument("--out", type=Path, help="default: bench/results/linear-DATE.json")
    return parser.parse_args()


def today() -> str:
    return datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat()


def bench_shape(
    shape: LinearShape, rows: tuple[int, ...], *, quick: bool
) -> list[dict[str, object]]:
    implementations = make_implementations(shape)
    check_agreement(shape, implementations)
    return [bench_cell(shape, m, implementations, quick=quick) for m in rows]


def bench_cell(
    shape: LinearShape, m: int, implementations: list[Implementation], *, quick: bool
) -> dict[str, object]:
    a = torch.randn(m, shape.k).bfloat16()
    read, read_bytes = read_probe()
    matmul, matmul_operations = matmul_probe()
    cases: dict[str, Callable[[int], object]] = {READ: read, MATMUL: matmul}
    for implementation in implementations:
        cases[implementation.name] = bind(implementation, a)
    timings = interleave(
        cases,
        budget=1.0 if quick else 3.0,
        least_rounds=5 if quick else 9,
        most_rounds=100,
    )

    bandwidth = read_bytes / timings.median(READ)
    rate = matmul_operations / timings.median(MATMUL)
    operations = 2 * m * shape.k * shape.n
    cell: dict[str, object] = {
        "k": shape.k,
        "n": shape.n,
        "m": m,
        "rounds": len(timings.seconds[READ]),
        "read_gb_per_s": bandwidth / 1e9,
        "matmul_gflop_per_s": rate / 1e9,
    }
    line = f"{shape!s:>10} m {m:<3}"
    for implementation in implementations:
        moved = implementation.weight_bytes + 2 * m * (shape.k + shape.n)
        seconds = timings.median(implementation.name)
        limit = max(moved / bandwidth, operations / rate)
        ratio = timings.ratio(implementation.name, OURS)
        cell[implementation.name] = {
            "us": seconds * 1e6,
            "gb_per_s": moved / seconds / 1e9,
            "gflop_per_s": operations / seconds / 1e9,
            "share_of_limit": limit / seconds,
            "times_ours": ratio,
        }
        line += (
            f" | {implementation.name} {seconds * 1e6:7.0f} us {moved / seconds / 1e9:5.1f} GB/s"
            f" {operations / seconds / 1e9:5.0f} GFLOP/s {100 * limit / seconds:3.0f} %"
        )
        if implementation.name != OURS:
            line += f" x{ratio:.2f}"
    print(line, flush=True)
    return cell


def bind(implementation: Implementation, a: Tensor) -> Callable[[int], object]:
    return lambda index: implementation.call(a, index)


def make_implementations(shape: LinearShape) -> list[Implementation]:
    """The same weight, (code - 8) * scale, for each implementation."""
    groups = shape.k // GROUP_SIZE
    codes = torch.randint(0, 16, (shape.k, shape.n), dtype=torch.int32)
    scales = (0.01 + 0.01 * torch.rand(groups, shape.n)).bfloat16()
    plain = primitives.pack_codes(codes)
    scale_bytes = scales.numel() * 2

    packed = copies(ops.repack(plain, shape.n, shape.k), scales)

    def ours(a: Tensor, index: int) -> Tensor:
        weight, scale = packed[index % len(packed)]
        return ops.gemm(a, weight, scale, None, None, shape.n, shape.k, GROUP_SIZE)

    floats = copies(primitives.dequantize(plain, scales, None, GROUP_SIZE))

    def bf16(a: Tensor, index: int) -> Tensor:
        (weight,) = floats[index % len(floats)]
        return torch.nn.functional.linear(a, weight)

    convert = torch.ops.aten._convert_weight_to_int4pack_for_cpu
    multiply = torch.ops.aten._weight_int4pack_mm_for_cpu
    scales_and_zeros = torch.stack((scales, torch.zeros_like(scales)), dim=-1)  # (groups, n, 2)
    torch_packed = copies(convert(codes.T.contiguous(), 2), scales_and_zeros)

    def int4(a: Tensor, index: int) -> Tensor:
        weight, scale_and_zero = torch_packed[index % len(torch_packed)]
        result: Tensor = multiply(a, weight, GROUP_SIZE, scale_and_zero)
        return result

    code_bytes = shape.k * shape.n // 2
    return [
        Implementation(OURS, code_bytes + scale_bytes, ours),
        Implementation(BF16, shape.k * shape.n * 2, bf16),
        Implementation(INT4, code_bytes + 2 * scale_bytes, int4),
    ]


def copies(*weight: Tensor) -> list[tuple[Tensor, ...]]:
    """So many copies of a weight's tensors that each has left the cache when it is used again."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in weight)
    count = max(2, -(-COLD_BYTES // size))
    return [tuple(tensor.clone() for tensor in weight) for _ in range(count)]


def check_agreement(shape: LinearShape, implementations: list[Implementation]) -> None:
    """A benchmark of a wrong result would be worth nothing."""
    a = torch.randn(3, shape.k).bfloat16()
    results = {one.name: one.call(a, 0).float() for one in implementations}
    for name, result in results.items():
        error = ((result - results[OURS]).norm() / results[OURS].norm()).item()
        if not error < TOLERANCE:
            raise SystemExit(f"{name} and {OURS} differ by {error:.1e} for {shape}")


if __name__ == "__main__":
    main()
