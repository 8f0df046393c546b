"""The devices of tests that hold on each: the CPU, and a CUDA GPU where `npm run test:gpu` runs."""

from __future__ import annotations

import pytest
import torch

__all__ = ["CUDA", "DEVICES", "ON_CUDA"]

ON_CUDA = (
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
)
CUDA = pytest.param("cuda", marks=ON_CUDA)
DEVICES = ["cpu", CUDA]
