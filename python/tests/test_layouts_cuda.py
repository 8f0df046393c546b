"""Layouts are converted where the tensors are: on a GPU as on the CPU, without a wait for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from marlin import layouts, ops
from marlin.act_order import group_order, sort_rows, unsort_rows
from tests.devices import CUDA, no_waiting

Made = tuple[Tensor, ...]

K, N, GROUPS = 96, 192, 3


def words(*shape: int) -> Tensor:
    return torch.randint(-(2**31), 2**31, shape, dtype=torch.int64).int()


def padded(qweight: Tensor, scales: Tensor, qzeros: Tensor) -> Made:
    *grown, zeros = layouts.pad_plain(qweight, scales, qzeros, 32)
    assert zeros is not None
    return (*grown, zeros)


def in_order(qweight: Tensor, g_idx: Tensor) -> Made:
    perm = group_order(g_idx)
    return perm, sort_rows(qweight, perm, 4), unsort_rows(qweight, perm, 4)


def packed_groups(scales: Tensor, zeros: Tensor) -> Made:
    packed = ops.pack_groups(scales, N), ops.pack_groups(zeros, N)
    return (*packed, *(ops.unpack_groups(tensor, N) for tensor in packed))


# What a GPTQ checkpoint with activation order needs, one of the published Marlin layout, and
# tensors of any size; each with its operands.
CONVERSIONS: dict[str, tuple[Callable[..., Tensor | Made], Callable[[], Made]]] = {
    "plain_to_marlin": (layouts.plain_to_marlin, lambda: (words(K // 8, N),)),
    "marlin_to_plain": (layouts.marlin_to_plain, lambda: (words(K // 16, 2 * N),)),
    "grouped scales to marlin": (
        layouts.plain_scales_to_marlin,
        lambda: (torch.rand(GROUPS, N),),
    ),
    "grouped scales to plain": (layouts.marlin_scales_to_plain, lambda: (torch.rand(GROUPS, N),)),
    "column scales to marlin": (layouts.plain_scales_to_marlin, lambda: (torch.rand(1, N),)),
    "column scales to plain": (layouts.marlin_scales_to_plain, lambda: (torch.rand(1, N),)),
    "padding": (padded, lambda: (words(10, 11), torch.rand(GROUPS, 11), words(GROUPS, 2))),
    "symmetric padding": (
        lambda qweight, scales: layouts.pad_plain(qweight, scales, None, 32)[:2],
        lambda: (words(10, 11), torch.rand(GROUPS, 11)),
    ),
    "activation order": (in_order, lambda: (words(K // 8, N), torch.randint(0, 3, (K,)).int())),
    "packed groups": (packed_groups, lambda: (torch.rand(GROUPS, N), words(GROUPS, N // 8))),
}


def convert(name: str, operands: Made) -> Made:
    made = CONVERSIONS[name][0](*operands)
    return made if isinstance(made, tuple) else (made,)


@pytest.mark.skipif(torch.version.cuda is None, reason="torch is built without CUDA")
@pytest.mark.parametrize("name", CONVERSIONS)
def test_no_conversion_looks_at_a_value_or_leaves_the_device(name: str) -> None:
    wanted = convert(name, CONVERSIONS[name][1]())
    with FakeTensorMode():
        operands = tuple(operand.to("cuda") for operand in CONVERSIONS[name][1]())
        for got, expected in zip(convert(name, operands), wanted, strict=True):
            assert got.device.type == "cuda"
            assert (got.shape, got.dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize("name", CONVERSIONS)
@pytest.mark.parametrize("device", [CUDA])
def test_a_gpu_gives_the_bits_of_the_cpu(name: str, device: str) -> None:
    operands = CONVERSIONS[name][1]()
    moved = tuple(operand.to(device) for operand in operands)
    with no_waiting():
        converted = convert(name, moved)
    for got, wanted in zip(converted, convert(name, operands), strict=True):
        assert torch.equal(got.cpu(), wanted)
