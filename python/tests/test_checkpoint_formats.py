"""Checkpoints of 8 bits, of several widths, and with activation order; test_checkpoint.py has 4."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from marlin import (
    Int4Linear,
    Int8Linear,
    inspect_checkpoint,
    load_checkpoint,
    quantize_,
    save_checkpoint,
)
from marlin.errors import CheckpointInvalidError, UnsupportedError
from marlin.quantization_config import quantization_config
from tests.act_order_model import PlainLayer, random_layer


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(128, 96)
        self.second = nn.Linear(96, 128, bias=False)

    def forward(self, a: Tensor) -> Tensor:
        return self.second(self.first(a).relu())  # type: ignore[no-any-return]


def meta_net() -> Net:
    with torch.device("meta"):
        return Net()


A = torch.randn(3, 128)


def outputs(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(A)  # type: ignore[no-any-return]


# Widths


def test_8_bits_come_back(tmp_path: Path) -> None:
    model = Net()
    report = quantize_(model, bits=8, group_size=32, activation="int8")
    assert report.bits == 8
    assert isinstance(model.first, Int8Linear)
    assert model.first.activation == "int8"
    info = save_checkpoint(model, tmp_path)
    assert info.parameters == 2 * 128 * 96 + 96
    assert "quantization: marlin, 8 bits, group size 32" in str(info)
    assert quantization_config(model) == {
        "quant_method": "marlin",
        "bits": 8,
        "group_size": 32,
        "symmetric": True,
        "checkpoint_format": "gptq_v2",
        "modules": {
            "first": {"in_features": 128, "out_features": 96},
            "second": {"in_features": 96, "out_features": 128},
        },
    }
    loaded = load_checkpoint(meta_net(), tmp_path)
    assert isinstance(loaded.first, Int8Linear)
    assert loaded.first.activation == "auto"
    assert isinstance(loaded.second, Int8Linear)
    loaded.first.activation = loaded.second.activation = "int8"
    assert torch.equal(outputs(loaded), outputs(model))


def test_layers_of_both_widths_live_in_one_checkpoint(tmp_path: Path) -> None:
    model = Net()
    quantize_(model, bits=8, include="first")
    quantize_(model, bits=4, include="second", symmetric=False, group_size=32)
    config = quantization_config(model)
    assert config is not None
    assert (config["bits"], config["symmetric"]) == (8, True)
    assert config["modules"]["second"] == {
        "in_features": 96,
        "out_features": 128,
        "bits": 4,
        "group_size": 32,
        "symmetric": False,
    }
    info = save_checkpoint(model, tmp_path)
    assert info.parameters == 2 * 128 * 96 + 96
    loaded = load_checkpoint(meta_net(), tmp_path)
    assert (type(loaded.first), type(loaded.second)) == (Int8Linear, Int4Linear)
    assert torch.equal(outputs(loaded), outputs(model))


def test_parameters_are_counted_without_the_sizes_of_modules(tmp_path: Path) -> None:
    model = Net()
    quantize_(model, bits=8, group_size=32)
    save_checkpoint(model, tmp_path)
    rewritten(tmp_path, lambda t, c: c.pop("modules"))
    assert inspect_checkpoint(tmp_path).parameters == 2 * 128 * 96 + 96


# Activation order


@pytest.fixture
def plain() -> PlainLayer:
    torch.manual_seed(0)
    return random_layer(128, 96, 32, zeros=True)


@pytest.fixture
def saved(plain: PlainLayer, tmp_path: Path) -> Path:
    """A checkpoint with one layer of GPTQ with `desc_act`, and one without."""
    net = Net()
    ordered = nn.Parameter(net.first.bias.detach().clone())
    quantize_(net, group_size=32, symmetric=False)
    net.first = Int4Linear.from_quantized(  # type: ignore[assignment]
        *plain[:3], ordered, group_size=32, g_idx=plain.g_idx
    )
    save_checkpoint(net, tmp_path / "net")
    return tmp_path / "net"


Change = Callable[[dict[str, Tensor], dict[str, Any]], object]


def rewritten(folder: Path, change: Change) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    config = json.loads(metadata["quantization_config"])
    change(tensors, config)
    save_file(tensors, path, {**metadata, "quantization_config": json.dumps(config)})


def test_the_file_holds_the_tensors_of_gptq(saved: Path, plain: PlainLayer) -> None:
    tensors = load_file(saved / "model.safetensors")
    assert torch.equal(tensors["first.qweight"], plain.qweight)
    assert torch.equal(tensors["first.g_idx"], plain.g_idx)
    assert "second.g_idx" not in tensors
    assert not any(name.endswith("perm") for name in tensors)
    config = inspect_checkpoint(saved).quantization
    assert config is not None
    assert {name: entry.get("desc_act") for name, entry in config["modules"].items()} in (
        {"first": True, "second": None},
        {"first": None, "second": False},
    )


def test_a_layer_with_order_multiplies_by_the_weight_of_gptq(
    saved: Path, plain: PlainLayer
) -> None:
    loaded = load_checkpoint(meta_net(), saved)
    assert isinstance(loaded.first, Int4Linear)
    assert torch.equal(loaded.first.dequantize(), plain.weight)
    product = loaded.first(A) - loaded.first.bias
    expected = A @ plain.weight.t()
    assert (product - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize("prepare", [meta_net, Net], ids=["meta", "real"])
def test_loading_and_saving_gives_the_same_bytes(
    prepare: Callable[[], Net], saved: Path, tmp_path: Path
) -> None:
    save_checkpoint(load_checkpoint(prepare(), saved), tmp_path / "again")
    file = "model.safetensors"
    assert (tmp_path / "again" / file).read_bytes() == (saved / file).read_bytes()


def test_a_loaded_model_takes_the_checkpoint_again(saved: Path) -> None:
    model = load_checkpoint(meta_net(), saved)
    before, first = outputs(model), model.first
    load_checkpoint(model, saved)
    assert model.first is first
    assert torch.equal(outputs(model), before)


def test_order_everywhere_is_said_once(saved: Path, plain: PlainLayer, tmp_path: Path) -> None:
    model = load_checkpoint(meta_net(), saved)
    model.second = model.first
    config = quantization_config(model)
    assert config is not None
    assert config["desc_act"] is True
    assert not any("desc_act" in entry for entry in config["modules"].values())


def test_a_g_idx_that_orders_nothing_is_dropped(saved: Path, tmp_path: Path) -> None:
    rewritten(saved, lambda t, c: t.update({"first.g_idx": torch.arange(128).int() // 32}))
    loaded = load_checkpoint(meta_net(), saved)
    assert isinstance(loaded.first, Int4Linear)
    assert loaded.first.g_idx is None
    assert loaded.first.perm is None
    save_checkpoint(loaded, tmp_path / "again")
    assert "first.g_idx" not in load_file(tmp_path / "again" / "model.safetensors")
    assert torch.equal(outputs(load_checkpoint(meta_net(), tmp_path / "again")), outputs(loaded))


GOOD = torch.arange(128, dtype=torch.int32) % 4


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda t, c: t.pop("first.g_idx"),
            CheckpointInvalidError,
            "must have tensor `first.g_idx` for this model, and has not",
        ),
        (
            lambda t, c: t.update({"first.g_idx": GOOD[:64].clone()}),
            CheckpointInvalidError,
            "`first.g_idx` must have shape [128] for this model, and has [64]",
        ),
        (
            lambda t, c: t.update({"first.g_idx": GOOD.long()}),
            CheckpointInvalidError,
            "`first.g_idx` must be int32 for this model, and is int64",
        ),
        (
            lambda t, c: t.update({"first.g_idx": GOOD + 1}),
            CheckpointInvalidError,
            "`first.g_idx` must hold groups in 0..3, got 4 at row 3.",
        ),
        (
            lambda t, c: t.update({"first.g_idx": GOOD.clamp(min=1)}),
            CheckpointInvalidError,
            "`first.g_idx` must put 32 rows in each group, got 0 in group 0.",
        ),
        (
            lambda t, c: t.update({"second.g_idx": GOOD[:96].clone()}),
            CheckpointInvalidError,
            "has 1 others, the first of which is `second.g_idx`",
        ),
        (
            lambda t, c: c["modules"]["first"].update(desc_act=1),
            CheckpointInvalidError,
            "`quantization_config.modules.first.desc_act` must be true or false, got 1.",
        ),
        (
            lambda t, c: c["modules"]["first"].update(bits=2),
            UnsupportedError,
            "`quantization_config.modules.first.bits` must be 4 or 8 to be read, got 2.",
        ),
        (
            lambda t, c: c["modules"]["first"].update(bits=8, symmetric=True),
            CheckpointInvalidError,
            "`first.qweight` must have shape [32, 96] for this model, and has [16, 96]",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    saved: Path, change: Change, error: type[Exception], message: str
) -> None:
    rewritten(saved, change)
    with pytest.raises(error, match=re.escape(message)):
        load_checkpoint(meta_net(), saved)


def test_a_model_of_another_width_is_refused(saved: Path) -> None:
    model = Net()
    quantize_(model, bits=8, group_size=32)
    message = r"Layer `first` must be Int4Linear\(.*and is Int8Linear\(.*already"
    with pytest.raises(CheckpointInvalidError, match=message):
        load_checkpoint(model, saved)
