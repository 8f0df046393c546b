"""Save a 4-bit model, look into the file, load it without its float weights ever in memory.

Run: python examples/06-checkpoint.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

import marlin


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(512, 1024), nn.GELU(), nn.Linear(1024, 100)).eval()


def main() -> None:
    torch.manual_seed(0)
    model = build()
    marlin.quantize_(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.safetensors"
        print(marlin.save_checkpoint(model, path))

        with torch.device("meta"):  # shapes only: no memory
            loaded = build()
        marlin.load_checkpoint(loaded, path)

        try:
            marlin.load_checkpoint(nn.Sequential(nn.Linear(512, 7)), path)
        except marlin.errors.CheckpointInvalidError as err:
            print(f"{err.code}: {err}")

    x = torch.randn(2, 512)
    print(f"the same bits out: {torch.equal(loaded(x), model(x))}")


if __name__ == "__main__":
    main()
