"""Activation order: from `g_idx` to sorted rows and back, and a `g_idx` that is refused."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from marlin import act_order, primitives
from marlin.errors import InvalidArgumentError


def shuffled_groups(size_k: int, num_groups: int) -> Tensor:
    rows = torch.arange(size_k) // (size_k // num_groups)
    return rows[torch.randperm(size_k)].int()


def test_the_order_is_stable() -> None:
    perm = act_order.group_order(torch.tensor([1, 0, 1, 0, 2], dtype=torch.int32))
    assert perm.tolist() == [1, 3, 0, 2, 4]
    assert perm.dtype == torch.int32


@pytest.mark.parametrize("bits", [4, 8])
def test_sorted_rows_stand_for_the_weight_of_the_formula(bits: int) -> None:
    torch.manual_seed(0)
    codes = torch.randint(0, 1 << bits, (64, 8))
    scales, g_idx = torch.rand(2, 8), shuffled_groups(64, 2)
    plain = primitives.pack_codes(codes, bits)
    perm = act_order.group_order(g_idx)
    rows = act_order.sort_rows(plain, perm, bits)
    weight = primitives.dequantize(rows, scales, None, 32, bits=bits, perm=perm)
    expected = (codes - primitives.symmetric_zero(bits)) * scales[g_idx.long()]
    assert torch.equal(weight, expected.t())
    assert torch.equal(act_order.unsort_rows(rows, perm, bits), plain)


@pytest.mark.parametrize(
    ("g_idx", "expected"), [([0, 0, 1, 1], False), ([0, 1, 0, 1], True), ([1, 1, 0, 0], True)]
)
def test_neighbours_in_the_order_of_groups_need_no_order(g_idx: list[int], expected: bool) -> None:
    assert act_order.has_order(torch.tensor(g_idx)) is expected


def test_padding_fills_up_the_last_group() -> None:
    g_idx = torch.tensor([1, 0, 0], dtype=torch.int32)
    assert act_order.pad_g_idx(g_idx, 4, 2).tolist() == [1, 0, 0, 1]
    assert act_order.pad_g_idx(g_idx, 3, 2).tolist() == [1, 0, 0]


GOOD = torch.tensor([0, 1, 0, 1], dtype=torch.int32)


@pytest.mark.parametrize(
    ("g_idx", "message"),
    [
        (GOOD[:3], "`x.g_idx` must be int32 of shape [4], got int32 of shape [3]."),
        (GOOD.long(), "`x.g_idx` must be int32 of shape [4], got int64 of shape [4]."),
        (GOOD + 1, "`x.g_idx` must hold groups in 0..1, got 2 at row 1."),
        (GOOD - 1, "`x.g_idx` must hold groups in 0..1, got -1 at row 0."),
        (GOOD * 0, "`x.g_idx` must put 2 rows in each group, got 4 in group 0."),
    ],
)
def test_a_g_idx_of_nonsense_is_refused(g_idx: Tensor, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{re.escape(message)}$"):
        act_order.check_g_idx(g_idx, 4, 2, owner="x.")


def test_a_good_one_passes_and_on_meta_only_its_shape_counts() -> None:
    act_order.check_g_idx(GOOD, 4, 2)
    act_order.check_g_idx(GOOD.to("meta"), 4, 2)
    with pytest.raises(InvalidArgumentError, match=r"of shape \[5\]"):
        act_order.check_g_idx(GOOD.to("meta"), 5, 2)
