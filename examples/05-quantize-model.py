"""A model in 4 bits, in place: choose layers by name, watch the progress, read the report.

Run: python examples/05-quantize-model.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import marlin


class Block(nn.Module):
    """The feed-forward half of a transformer layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(width, 4 * width)
        self.down_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down_proj(nn.functional.gelu(self.up_proj(x)))


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), *[Block(256) for _ in range(3)], nn.Linear(256, 10))
    x = torch.randn(8, 64)
    before = model(x)

    report = marlin.quantize_(
        model,
        group_size=64,
        include="*_proj",  # the first and the last layer stay as they are
        progress=lambda done, total, name: print(f"{done}/{total} {name}"),
    )
    print(report)

    after = model(x)
    print(f"relative change of the output: {float((after - before).norm() / before.norm()):.4f}")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    print(f"compiled equals eager: {torch.allclose(compiled(x), after, atol=1e-5)}")


if __name__ == "__main__":
    main()
