from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, MistralConfig
from transformers.cache_utils import DynamicLayer

from marlin.kv_cache import GrowingLayer, decoding_cache

_DynamicLayer: Any = DynamicLayer  # its constructor is not annotated


def _states(batch: int, new: int) -> tuple[Tensor, Tensor]:
    # Values are wider than keys in some architectures.
    return torch.randn(batch, 2, new, 8), torch.randn(batch, 2, new, 12)


@pytest.mark.parametrize("limit", [1, 40, 1000])
def test_it_holds_what_a_concatenating_layer_holds(limit: int) -> None:
    ours, reference = GrowingLayer(limit), _DynamicLayer()
    for step in range(200):
        keys, values = _states(3, 30 if step == 0 else 1)
        got, expected = ours.update(keys, values), reference.update(keys, values)
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])
        assert ours.get_seq_length() == reference.get_seq_length() == 30 + step


@pytest.mark.parametrize("change", ["batch_select_indices", "reorder_cache"])
def test_rows_can_change_while_it_grows(change: str) -> None:
    ours, reference = GrowingLayer(100), _DynamicLayer()
    index = torch.tensor([2, 0])
    for step in range(40):
        keys, values = _states(3 if step < 20 else 2, 1)
        got, expected = ours.update(keys, values), reference.update(keys, values)
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])
        if step == 19:
            getattr(ours, change)(index)
            getattr(reference, change)(index)


def test_a_step_within_the_buffer_moves_nothing_that_is_held() -> None:
    layer = GrowingLayer(100)
    before = layer.update(*_states(1, 5))[0].data_ptr()
    for _ in range(60):
        assert layer.update(*_states(1, 1))[0].data_ptr() == before


def test_sliding_windows_stay_as_transformers_makes_them() -> None:
    full = decoding_cache(LlamaConfig(num_hidden_layers=2), 10)
    assert [type(layer) for layer in full.layers] == [GrowingLayer, GrowingLayer]
    sliding = decoding_cache(MistralConfig(num_hidden_layers=1, sliding_window=4), 10)
    assert not isinstance(sliding.layers[0], GrowingLayer)
