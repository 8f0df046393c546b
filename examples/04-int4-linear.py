"""One Linear in 4 bits: how far its weight is off, for every group size, and what it weighs.

Prints the table of docs/quantization.md. Run: python examples/04-int4-linear.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import marlin
from marlin.primitives import GROUP_SIZES


def relative_error(weight: Tensor, layer: marlin.Int4Linear) -> float:
    return float((layer.dequantize().float() - weight).norm() / weight.norm())


def main() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(4096, 512, bias=False)
    nn.init.normal_(linear.weight)
    weight = linear.weight.detach()

    print("| group size | bits per weight | symmetric | + search | zero points | + search |")
    print("|---|---|---|---|---|---|")
    for group_size in GROUP_SIZES:
        errors = []
        bits = []
        for symmetric in (True, False):
            for search in (False, True):
                layer = marlin.Int4Linear.from_linear(
                    linear, group_size, symmetric, search=search, scale_dtype=torch.float16
                )
                errors.append(f"{relative_error(weight, layer):.4f}")
            bits.append(f"{8 * layer.weight_bytes / weight.numel():.3f}")
        print(f"| {group_size} | {' / '.join(bits)} | {' | '.join(errors)} |")

    layer = marlin.Int4Linear.from_linear(linear.bfloat16(), group_size=128)
    x = torch.randn(1, 4096, dtype=torch.bfloat16)
    print(f"\n{layer}\n{layer.weight_bytes} bytes instead of {linear.weight.nbytes}")
    print(f"y = {layer(x)[0, :4].tolist()}")
    print(f"by the {marlin.kernel_info().kernel} kernel; nn.Linear: {linear(x)[0, :4].tolist()}")


if __name__ == "__main__":
    main()
