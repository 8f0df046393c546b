"""What every test of the Python side shares: a seed, and settings of property tests."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, settings

# No deadlines: a busy machine is not a failure. Same examples in every run.
settings.register_profile(
    "marlin",
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("marlin")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
