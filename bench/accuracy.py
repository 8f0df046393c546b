"""What the formats of weights and activations cost: the tables of docs/quantization.md.

Errors are relative, |x - x'| / |x| in the Frobenius norm: first of a weight in 8 bits; then of a
product, against the float64 product with the same rounded weight, so that only the format of the
activations counts. Last the perplexity of the bundled model.

    python bench/accuracy.py [--tokens 59178]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "python"))

from marlin import Int8Linear, kernel_info  # noqa: E402
from marlin.errors import UnsupportedError  # noqa: E402
from marlin.linear import linear_class  # noqa: E402
from marlin.models import load_model  # noqa: E402
from marlin.perplexity import measure_perplexity  # noqa: E402
from marlin.primitives import GROUP_SIZES, dequantize  # noqa: E402

MODEL = ROOT / "models" / "stdlib-6m"
SIZE_K, SIZE_N, ROWS = 4096, 512, 64
SHOWN_GROUPS = (32, 128)
OUTLIER_SHARE = 0.002  # of the input channels; what is known of large language models
OUTLIER_FACTORS = (1, 30, 100)
ACTIVATIONS = ("int16", "bfloat16", "int8")
WIDTHS = (4, 8)


def inputs(factor: int) -> Tensor:
    """Gaussian (m, k) with a share of the channels larger by `factor`."""
    a = torch.randn(ROWS, SIZE_K)
    outliers = torch.randperm(SIZE_K)[: round(OUTLIER_SHARE * SIZE_K)]
    a[:, outliers] *= factor
    return a


def weight_errors() -> None:
    print("| group size | bits per weight | without search | with search |\n|---|---|---|---|")
    linear = torch.nn.Linear(SIZE_K, SIZE_N, bias=False)
    torch.nn.init.normal_(linear.weight)
    weight = linear.weight.detach()
    for group_size in GROUP_SIZES:
        errors = []
        for search in (False, True):
            layer = Int8Linear.from_linear(
                linear, group_size, search=search, scale_dtype=torch.float16
            )
            error = (layer.dequantize().float() - weight).norm() / weight.norm()
            errors.append(f"{float(error):.5f}")
        bits = 8 * layer.weight_bytes / weight.numel()
        print(f"| {group_size} | {bits:.3f} | {' | '.join(errors)} |")


def product_errors() -> None:
    names = ["gaussian", *(f"0.2 % of channels x{factor}" for factor in OUTLIER_FACTORS[1:])]
    print(f"| bits | group | activation | {' | '.join(names)} |")
    print(f"|---|---|---|{'---|' * len(names)}")
    linear = torch.nn.Linear(SIZE_K, SIZE_N, bias=False)
    torch.nn.init.normal_(linear.weight)
    samples = [inputs(factor) for factor in OUTLIER_FACTORS]
    for bits in WIDTHS:
        for group_size in SHOWN_GROUPS:
            layer = linear_class(bits).from_linear(linear, group_size)
            plain = layer.plain_qweight()
            weight = dequantize(plain, layer.plain_scales(), None, group_size, bits=bits).double()
            for activation in ACTIVATIONS:
                try:
                    layer.activation = activation
                    products = [layer(a).detach().double() for a in samples]
                except UnsupportedError:
                    continue
                exact = [a.double() @ weight.t() for a in samples]
                errors = [
                    float((p - e).norm() / e.norm()) for p, e in zip(products, exact, strict=True)
                ]
                shown = " | ".join(f"{error:.1e}" for error in errors)
                print(f"| {bits} | {group_size} | {activation} | {shown} |")


def perplexities(tokens: int) -> None:
    text = (MODEL / "heldout.txt").read_text(encoding="utf-8")

    def measure(quantize: dict[str, Any] | None) -> float:
        loaded = load_model(MODEL, quantize=quantize)
        result = measure_perplexity(loaded.model, loaded.tokenizer, text, max_tokens=tokens)
        loaded.dispose()
        return result.perplexity

    full = measure(None)
    print("| bits | group | activation | perplexity | change |\n|---|---|---|---|---|")
    print(f"| 16 (bfloat16) | | | {full:.3f} | |")
    for bits in WIDTHS:
        for group_size in SHOWN_GROUPS:
            for activation in ("auto", "int16", "int8"):
                options = {"bits": bits, "group_size": group_size, "activation": activation}
                rounded = measure(options)
                change = f"{100 * (rounded / full - 1):+.2f} %"
                print(f"| {bits} | {group_size} | {activation} | {rounded:.3f} | {change} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=59178, help="of the held-out text")
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"kernel {kernel_info().kernel}\n")
    weight_errors()
    print()
    product_errors()
    print()
    perplexities(options.tokens)


if __name__ == "__main__":
    main()
