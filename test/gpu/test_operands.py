"""What the tests of a GPU share, as far as it needs none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from operands import MIB, Operands, free_pieces, operands_of
from products import make_product

CPU = torch.device("cpu")


def segment(kind: str, *blocks: tuple[int, str], **more: object) -> dict[str, Any]:
    held = [{"size": size, "state": state} for size, state in blocks]
    return {"segment_type": kind, "device": 0, "stream": 0, "blocks": held, **more}


def test_free_memory_is_taken_in_the_pieces_that_its_pool_gives() -> None:
    segments = [
        segment("small", (512, "active_allocated"), (2 * MIB - 512, "inactive")),
        segment("small", (2 * MIB, "inactive")),
        segment("large", (12 * MIB, "active_allocated"), (8 * MIB, "inactive")),
        segment("large", (MIB - 512, "inactive"), (MIB + 512, "active_pending_free")),
    ]
    assert free_pieces(segments, 0, 0) == [8 * MIB, MIB, MIB, MIB, MIB - 512]


def test_memory_of_graphs_of_other_streams_and_devices_is_not_taken() -> None:
    free = (2 * MIB, "inactive")
    segments = [
        segment("large", free, stream=7, segment_pool_id=(0, 0)),
        segment("large", free, segment_pool_id=(0, 3)),
        segment("large", (4 * MIB, "inactive"), device=1),
    ]
    assert free_pieces(segments, 0, 0) == []
    assert free_pieces(segments, 0, 7) == [2 * MIB]
    assert free_pieces(segments, 1, 0) == [4 * MIB]


@pytest.fixture
def case() -> Operands:
    return operands_of(make_product(3, 64, 128, 32, has_zeros=True, has_bias=True), CPU)


def test_a_wrong_result_is_no_product(case: Operands) -> None:
    right = case.exact.half()
    assert case.error(right) == 0
    case.check(right)
    for wrong in (right * 1.01, right.roll(1, 0), torch.full_like(right, float("nan"))):
        with pytest.raises(AssertionError, match="mean error"):
            case.check(wrong)
