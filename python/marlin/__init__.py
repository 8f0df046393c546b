"""4-bit and 8-bit Linear layers for PyTorch: `quantize_(model)`, and the kernels under them."""

from __future__ import annotations

from marlin import errors
from marlin.checkpoint import inspect_checkpoint, load_checkpoint, save_checkpoint
from marlin.classic import Layer, mul, replace_linear
from marlin.fusing import FuseReport, fuse_
from marlin.linear import Int4Linear, Int8Linear
from marlin.ops import kernel_info
from marlin.quantize import quantize_
from marlin.report import QuantizeReport

__version__ = "0.1.0"
__all__ = [
    "FuseReport",
    "Int4Linear",
    "Int8Linear",
    "Layer",
    "QuantizeReport",
    "__version__",
    "errors",
    "fuse_",
    "inspect_checkpoint",
    "kernel_info",
    "load_checkpoint",
    "mul",
    "quantize_",
    "replace_linear",
    "save_checkpoint",
]
