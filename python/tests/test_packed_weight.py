"""State dicts and moves of layers with activation order, and of 8 bits; see also test_linear.py."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import Tensor, nn

from marlin import Int4Linear, Int8Linear
from tests.act_order_model import random_layer


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def ordered_layer() -> Int4Linear:
    plain = random_layer(zeros=True)
    return Int4Linear.from_quantized(*plain[:3], group_size=32, g_idx=plain.g_idx)


def fresh_layer(device: str = "cpu") -> Int4Linear:
    return Int4Linear(128, 16, bias=False, group_size=32, symmetric=False, device=device)


A = torch.randn(3, 128)


def test_a_state_dict_has_the_rows_of_the_model_and_g_idx() -> None:
    plain = random_layer(zeros=True)
    state = Int4Linear.from_quantized(*plain[:3], group_size=32, g_idx=plain.g_idx).state_dict()
    assert state.keys() == {"qweight", "scales", "qzeros", "g_idx"}
    assert torch.equal(state["qweight"], plain.qweight)
    assert torch.equal(state["g_idx"], plain.g_idx)


@pytest.mark.parametrize(("device", "assign"), [("cpu", False), ("cpu", True), ("meta", True)])
def test_a_fresh_layer_takes_the_order_of_a_state_dict(device: str, assign: bool) -> None:
    layer, other = ordered_layer(), fresh_layer(device)
    state = layer.state_dict()
    assert other.load_state_dict(state, assign=assign) == ([], [])
    assert torch.equal(other(A), layer(A))
    assert torch.equal(other.dequantize(), layer.dequantize())
    for name, tensor in state.items():
        assert torch.equal(other.state_dict()[name], tensor)
    if not assign:
        state["g_idx"].zero_()
        assert torch.equal(other.dequantize(), layer.dequantize())


def test_another_order_replaces_the_one_there_was() -> None:
    layer, other = ordered_layer(), ordered_layer()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(A), layer(A))


def test_a_g_idx_without_order_is_dropped_as_it_comes() -> None:
    layer = ordered_layer()
    state = fresh_layer().state_dict()
    state["g_idx"] = torch.arange(128, dtype=torch.int32) // 32
    assert layer.load_state_dict(state) == ([], [])
    assert layer.g_idx is None
    assert layer.perm is None
    assert not layer.dequantize().any()
    assert "g_idx" in state


def test_a_state_dict_without_g_idx_lacks_a_key_of_a_layer_with_order() -> None:
    layer = ordered_layer()
    with pytest.raises(RuntimeError, match=re.escape('Missing key(s) in state_dict: "g_idx"')):
        layer.load_state_dict(fresh_layer().state_dict())


def test_tensors_may_come_one_by_one() -> None:
    # As transformers 4 brings them, in any order.
    layer = ordered_layer()
    state = layer.state_dict()
    for names in (list(state), list(state)[::-1]):
        other = fresh_layer("meta")
        other.g_idx = torch.empty(128, dtype=torch.int32, device="meta")
        for name in names:
            other.load_state_dict({name: state[name]}, strict=False, assign=True)
        if not other.is_packed:
            other.load_state_dict(other.state_dict(), assign=True)
        assert torch.equal(other(A), layer(A))


@pytest.mark.parametrize(("out_features", "blocks"), [(16, 1), (64, 1), (72, 2), (130, 3)])
def test_every_tensor_is_packed_in_memory_and_plain_outside(out_features: int, blocks: int) -> None:
    layer = Int4Linear.from_linear(nn.Linear(96, out_features, bias=False), 32, symmetric=False)
    size_n = layer.size_n
    plain = {"qweight": (12, size_n), "scales": (3, size_n), "qzeros": (3, size_n // 8)}
    packed = {"qweight": (blocks, 12, 64), "scales": (blocks, 3, 64), "qzeros": (blocks, 3, 8)}
    assert {name: tuple(tensor.shape) for name, tensor in layer.named_buffers()} == packed
    assert layer.weight_bytes == sum(tensor.nbytes for tensor in layer.buffers())
    state = layer.state_dict()
    assert (
        {name: tuple(tensor.shape) for name, tensor in state.items()} == plain == layer.plain_shapes
    )
    for name, tensor in state.items():
        assert torch.equal(layer.plain_tensor(name), tensor)
        assert tensor.is_contiguous()
    padding = layer.scales.transpose(0, 1).flatten(1)[:, size_n:]
    assert not padding.any()
    expected = layer(A[:, :96])
    layer.to("meta")
    assert {name: tuple(tensor.shape) for name, tensor in layer.named_buffers()} == plain
    layer.to_empty(device="cpu")
    assert {name: tuple(tensor.shape) for name, tensor in layer.named_buffers()} == packed
    layer.load_state_dict(state)
    assert torch.equal(layer(A[:, :96]), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_move_to_another_dtype_stays_packed(dtype: torch.dtype) -> None:
    layer = fresh_layer()
    qweight, plain = layer.qweight, layer.plain_scales()
    layer.to(dtype)
    assert layer.qweight is qweight
    assert (layer.scales.shape, layer.scales.dtype) == ((1, 4, 64), dtype)
    assert torch.equal(layer.plain_scales(), plain.to(dtype))


def test_a_state_dict_shares_no_memory_with_the_layer() -> None:
    layer = Int4Linear.from_linear(nn.Linear(64, 64, bias=False), 32, symmetric=False)
    before = layer.dequantize()
    for tensor in layer.state_dict().values():
        tensor.zero_()
    assert torch.equal(layer.dequantize(), before)


GOOD = torch.arange(128, dtype=torch.int32) % 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"g_idx": GOOD[:96]}, "`0.g_idx` must be int32 of shape [128], got int32 of shape [96]."),
        ({"g_idx": GOOD.long()}, "`0.g_idx` must be int32 of shape [128], got int64 of"),
        ({"g_idx": GOOD + 1}, "`0.g_idx` must hold groups in 0..3, got 4 at row 3."),
        ({"g_idx": GOOD * 0}, "`0.g_idx` must put 32 rows in each group, got 128 in group 0."),
        ({"g_idx": GOOD, "qweight": None}, "`0.g_idx` must come with `0.qweight`"),
        ({"perm": GOOD}, 'Unexpected key(s) in state_dict: "0.perm"'),
    ],
)
def test_refuses_to_load(change: dict[str, Tensor | None], message: str) -> None:
    model = nn.Sequential(ordered_layer())
    before = model(A)
    state = model.state_dict()
    for name, tensor in change.items():
        state.pop(f"0.{name}", None)
        if tensor is not None:
            state[f"0.{name}"] = tensor
    with pytest.raises(RuntimeError, match=re.escape(message)):
        model.load_state_dict(state)
    assert torch.equal(model(A), before)


def test_order_survives_a_move_and_a_copy() -> None:
    layer = ordered_layer()
    expected = layer(A)
    assert torch.equal(copy.deepcopy(layer)(A), expected)
    state = layer.state_dict()
    layer.to("meta")
    assert layer.perm is None
    assert layer.g_idx is not None
    assert layer.g_idx.is_meta
    assert layer(A.to("meta")).shape == (3, 16)
    layer.to_empty(device="cpu")
    layer.load_state_dict(state)
    assert torch.equal(layer(A), expected)
    layer.half()
    assert layer.g_idx.dtype == torch.int32
    assert (layer(A.half()).float() - expected).norm() < 2e-3 * expected.norm()


@pytest.mark.parametrize("assign", [False, True])
def test_bytes_come_back(assign: bool) -> None:
    layer = Int8Linear.from_linear(nn.Linear(100, 30), 64)
    state = layer.state_dict()
    assert state["qweight"].shape == (32, 32)
    other = Int8Linear(100, 30, group_size=64)
    other.load_state_dict(state, assign=assign)
    a = torch.randn(3, 100)
    assert torch.equal(other(a), layer(a))


def test_a_width_takes_no_state_of_another() -> None:
    state = Int8Linear(64, 16).state_dict()
    message = "`qweight` must be int32 of shape [16, 16], got int32 of shape [32, 16]."
    with pytest.raises(RuntimeError, match=re.escape(message)):
        Int4Linear(64, 16).load_state_dict(state)
