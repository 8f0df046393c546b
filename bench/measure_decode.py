"""Measures decoding for one number of threads, in a process that bench_decode.py starts.

Takes its settings as one JSON argument, prints lines for people, and writes the run to a file.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "python")]

import torch  # noqa: E402
from bench.goals import QUIET  # noqa: E402
from bench.peaks import Peaks  # noqa: E402
from bench.timing import Timings, interleave, machine  # noqa: E402

from marlin import ops  # noqa: E402

READ, BASELINE = "read", "bf16"
PROMPT = 32  # tokens


@dataclass(frozen=True)
class Settings:
    """What one run measures: a model's sizes, what is done to it, and how long.

    steps: tokens of one timed call. fuse: calls `marlin.fuse_` on the 4-bit model.
    budget: seconds of rounds, but `least_rounds` rounds at least.
    """

    threads: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocab: int
    group_size: int
    activation: str
    is_compiled: bool
    fuse: bool
    steps: int
    budget: float
    least_rounds: int
    out: str


def main() -> None:
    settings = Settings(**json.loads(sys.argv[1]))
    try:
        import transformers
    except ImportError as error:
        raise SystemExit(f"decoding needs `pip install transformers`: {error}") from error
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    run: dict[str, Any] = {
        "threads": settings.threads,
        "settings": asdict(settings),
        "prompt_tokens": PROMPT,
        "machine": {
            **machine(),
            "kernel": ops.kernel_info().kernel,
            "transformers": transformers.__version__,
        },
    }
    with torch.inference_mode():
        run |= _measure(settings)
    run["load_average_after"] = os.getloadavg()[0]
    Path(settings.out).write_text(json.dumps(run), encoding="utf-8")


def _measure(settings: Settings) -> dict[str, Any]:
    from bench.decode_model import Decoder, fused, make_model, quantized, weight_bytes

    model = make_model(
        layers=settings.layers,
        hidden=settings.hidden,
        intermediate=settings.intermediate,
        heads=settings.heads,
        kv_heads=settings.kv_heads,
        vocab=settings.vocab,
    )
    options = {} if settings.activation == "auto" else {"activation": settings.activation}
    small = quantized(model, settings.group_size, **options)
    not_fused = fused(small) if settings.fuse else "not asked for"
    if settings.fuse and not_fused is not None:
        print(f"absent: --fuse: {not_fused}")
    sizes = {BASELINE: weight_bytes(model), "marlin": weight_bytes(small)}
    print(
        "read per token: " + ", ".join(f"{name} {size >> 20} MiB" for name, size in sizes.items())
    )

    prompt = torch.randint(0, settings.vocab, (PROMPT,)).tolist()
    decoders: dict[str, Decoder] = {}
    compile_seconds: dict[str, float] = {}
    for name, one in ((BASELINE, model), ("marlin", small)):
        decoders[name] = Decoder(one, one, prompt, settings.steps)
        if settings.is_compiled:
            forward: Callable[..., Any] = torch.compile(one, dynamic=False)
            compiled = Decoder(one, forward, prompt, settings.steps)
            started = time.perf_counter()
            compiled.decode()
            compile_seconds[name] = time.perf_counter() - started
            decoders[f"{name} compiled"] = compiled
            sizes[f"{name} compiled"] = sizes[name]
    read, read_bytes = Peaks(settings.threads).read_probe()
    cases: dict[str, Callable[[int], object]] = {READ: read}
    for name, decoder in decoders.items():
        cases[name] = _case(decoder)
    timings = interleave(
        cases, budget=settings.budget, least_rounds=settings.least_rounds, most_rounds=50
    )
    results = {
        name: _describe(name, timings, settings.steps, sizes[name], read_bytes) for name in decoders
    }
    for name, result in results.items():
        print(
            f"{name:<16}{result['tokens_per_s']:7.2f} tokens/s"
            f" {100 * result['read_share']['median']:4.0f} % of reading"
            f"  x{result['speedup']['median']:.2f} of {BASELINE}",
            flush=True,
        )
    if timings.other_cpus is not None and timings.other_cpus > QUIET:
        print(f"disturbed: others kept {timings.other_cpus:.2f} CPUs busy")
    return {
        "rounds": len(timings.seconds[READ]),
        "other_cpus": timings.other_cpus,
        "read_gb_per_s": read_bytes / timings.spread(READ).median / 1e9,
        "is_fused": not_fused is None,
        "compile_seconds": compile_seconds,
        "results": results,
        # Compiled code rounds otherwise, and a random model is soon of another opinion.
        "tokens": {name: decoder.decode() for name, decoder in decoders.items()},
    }


def _case(decoder: Any) -> Callable[[int], object]:  # noqa: ANN401  # imported when it is needed
    return lambda _: decoder.decode()


def _describe(
    name: str, timings: Timings, steps: int, size: int, read_bytes: int
) -> dict[str, Any]:
    """size: bytes of weight that a token reads; read_bytes: of one call of the read probe."""
    spread = timings.spread(name)
    return {
        "ms_per_token": asdict(spread.scaled(1e3 / steps)),
        "tokens_per_s": steps / spread.median,
        "weight_bytes": size,
        "read_share": asdict(timings.ratio(READ, name).scaled(size * steps / read_bytes)),
        "speedup": asdict(timings.ratio(BASELINE, name)),
    }


if __name__ == "__main__":
    main()
