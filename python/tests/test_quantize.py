"""`quantize_`: what it swaps, what it leaves and why, its report, its memory, and cancelling."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from marlin import Int4Linear, Int8Linear, quantize_
from marlin.errors import InvalidArgumentError, UnsupportedError
from marlin.quantize import MethodSettings, register_method


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(64, 64, bias=False)
        self.up_proj = nn.Linear(64, 200)
        self.down_proj = nn.Linear(200, 64)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down_proj(torch.relu(self.up_proj(self.q_proj(x))))  # type: ignore[no-any-return]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 64)
        self.layers = nn.ModuleList([Block(), Block()])
        self.lm_head = nn.Linear(64, 50, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(x)  # type: ignore[no-any-return]


NAMES = [f"layers.{i}.{name}" for i in range(2) for name in ("q_proj", "up_proj", "down_proj")]


def reasons(report_skipped: Sequence[object]) -> dict[str, str]:
    return {s.name: s.reason for s in report_skipped}  # type: ignore[attr-defined]


def test_replaces_every_linear_but_the_head_and_reports_each() -> None:
    model = Net()
    ids = torch.arange(10)
    before = model(ids)
    report = quantize_(model, group_size=32)
    assert [layer.name for layer in report.layers] == NAMES
    assert all(isinstance(model.get_submodule(name), Int4Linear) for name in NAMES)
    assert type(model.lm_head) is nn.Linear
    assert reasons(report.skipped) == {"lm_head": "matched by `exclude`"}
    for layer in report.layers:
        module = model.get_submodule(layer.name)
        assert isinstance(module, Int4Linear)
        assert layer.shape == (module.out_features, module.in_features)
        assert layer.bytes_before == layer.shape[0] * layer.shape[1] * 4
        assert layer.bytes_after == module.weight_bytes
        assert 0.05 < layer.relative_error < 0.08  # uniform weights, groups of 32
    assert (model(ids) - before).norm() < 0.15 * before.norm()


@pytest.mark.parametrize("activation", ["auto", "int8"])
def test_8_bits_make_layers_of_8_bits(activation: str) -> None:
    model = Net()
    report = quantize_(model, bits=8, group_size=32, activation=activation)
    layers = [model.get_submodule(name) for name in NAMES]
    assert all(type(layer) is Int8Linear for layer in layers)
    assert {layer.activation for layer in layers} == {activation}
    assert report.bits == 8
    assert str(report).startswith("rtn, 8 bits, group size 32, symmetric: 6 layers")
    for reported, layer in zip(report.layers, layers, strict=True):
        assert isinstance(layer, Int8Linear)
        assert reported.bytes_after == layer.weight_bytes
        assert reported.relative_error < 0.006


def test_the_relative_error_is_that_of_the_dequantised_weight() -> None:
    model = nn.Sequential(nn.Linear(600, 300))
    weight = model.get_parameter("0.weight").detach().clone()
    report = quantize_(model, group_size=64, symmetric=False)
    layer = model[0]
    assert isinstance(layer, Int4Linear)
    expected = (layer.dequantize() - weight).norm() / weight.norm()
    assert report.layers[0].relative_error == pytest.approx(float(expected), rel=1e-4)
    assert report.mean_relative_error == pytest.approx(float(expected), rel=1e-4)


def test_the_report_is_plain_data_and_a_table() -> None:
    report = quantize_(Net(), group_size=32, symmetric=False)
    data = json.loads(json.dumps(report.to_dict()))
    assert data["parameters"] == sum(a * b for a, b in (r["shape"] for r in data["layers"]))
    assert data["bytes_before"] == 4 * data["parameters"]
    assert data["bytes_after"] == sum(r["bytes_after"] for r in data["layers"])
    assert data["skipped"] == [{"name": "lm_head", "reason": "matched by `exclude`"}]
    lines = str(report).splitlines()
    assert lines[0] == (
        "rtn, 4 bits, group size 32, with zero points: 6 layers replaced, 1 left as they are"
    )
    assert lines[1].split()[:4] == ["layers.0.q_proj", "64", "x", "64"]
    assert lines[-2].split()[0] == "total"
    assert lines[-1] == "  left: lm_head: matched by `exclude`"


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (None, (), [*NAMES, "lm_head"]),
        (None, "layers", ["lm_head"]),
        ("*_proj", ("lm_head", "down_proj"), [n for n in NAMES if "down" not in n]),
        (["layers.1"], ("lm_head",), NAMES[3:]),
        ("layers.0.q_proj", ("lm_head",), NAMES[:1]),
        (["layers.*.up_proj", "lm_head"], (), [NAMES[1], NAMES[4], "lm_head"]),
    ],
)
def test_patterns_choose_layers_by_components_of_their_names(
    include: Sequence[str] | str | None, exclude: Sequence[str] | str, expected: list[str]
) -> None:
    report = quantize_(Net(), group_size=32, include=include, exclude=exclude)
    assert [layer.name for layer in report.layers] == expected


def test_a_filter_sees_names_and_modules() -> None:
    report = quantize_(Net(), group_size=32, filter=lambda _, linear: linear.bias is None)
    assert [layer.name for layer in report.layers] == [NAMES[0], NAMES[3]]
    assert reasons(report.skipped)[NAMES[1]] == "left out by `filter`"


class OtherLinear(nn.Linear):
    pass


def hooked() -> nn.Linear:
    linear = nn.Linear(64, 64)
    linear.register_forward_hook(lambda *_: None)
    return linear


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (OtherLinear(64, 64), "a subclass of nn.Linear, OtherLinear, which may compute otherwise"),
        (weight_norm(nn.Linear(64, 64)), "a subclass of nn.Linear, ParametrizedLinear"),
        (nn.Linear(64, 64, device="meta"), "its weight is on the meta device"),
        (nn.Linear(64, 64).double(), "its weight is float64, not float16"),
        (hooked(), "it has hooks or a forward of its own"),
        (Int4Linear(64, 64), "already in 4 bits"),
        (Int8Linear(64, 64), "already in 8 bits"),
        (nn.Linear(3, 2), "4 bits with padding would take 4128 bytes, and it takes 24"),
    ],
)
def test_leaves_what_cannot_be_replaced_and_says_why(module: nn.Module, reason: str) -> None:
    model = nn.Sequential(module, nn.Linear(64, 64))
    report = quantize_(model)
    assert model[0] is module
    assert reasons(report.skipped)["0"].startswith(reason)
    assert [layer.name for layer in report.layers] == ["1"]


def test_8_bits_of_a_half_float_may_be_no_gain() -> None:
    linear = nn.Linear(40, 60, dtype=torch.float16)
    reason = reasons(quantize_(nn.Sequential(linear), bits=8).skipped)["0"]
    assert reason == "8 bits with padding would take 8320 bytes, and it takes 4800"
    assert reasons(quantize_(nn.Sequential(linear), bits=4).skipped) == {}


def test_a_weight_that_a_hook_computes_is_left() -> None:
    linear = nn.Linear(64, 64)
    weight = linear.weight.detach()
    del linear.weight
    linear.weight = weight
    report = quantize_(nn.Sequential(linear))
    assert reasons(report.skipped)["0"].startswith("its weight is computed by a hook")


def test_a_tied_weight_is_left() -> None:
    model = Net()
    model.lm_head.weight = model.embed.weight
    report = quantize_(model, exclude=())
    assert reasons(report.skipped) == {
        "lm_head": "its weight is tied to `embed.weight`, which stays as it is"
    }
    assert model.lm_head.weight is model.embed.weight


def test_a_shared_linear_stays_shared() -> None:
    linear = nn.Linear(64, 64)
    model = nn.Sequential(linear, nn.ReLU(), linear)
    report = quantize_(model)
    assert [layer.name for layer in report.layers] == ["0"]
    assert isinstance(model[0], Int4Linear)
    assert model[0] is model[2]


def test_modules_that_read_the_weight_of_a_linear_still_run() -> None:
    model = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), 1, enable_nested_tensor=False
    ).eval()
    report = quantize_(model)
    assert report.layers == ()
    assert len(report.skipped) == 3
    with torch.no_grad():
        assert model(torch.randn(1, 5, 64)).shape == (1, 5, 64)


def test_quantising_twice_leaves_the_layers_as_they_are() -> None:
    model = Net()
    quantize_(model)
    layer = model.get_submodule(NAMES[0])
    report = quantize_(model)
    assert report.layers == ()
    assert model.get_submodule(NAMES[0]) is layer
    assert "0 layers replaced" in str(report)


def test_layers_keep_dtype_bias_and_training_flag() -> None:
    model = Net().bfloat16().eval()
    bias = model.get_submodule(NAMES[1]).bias
    quantize_(model)
    layer = model.get_submodule(NAMES[1])
    assert isinstance(layer, Int4Linear)
    assert layer.scales.dtype == torch.bfloat16
    assert layer.bias is bias
    assert not layer.training


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"bits": 3}, UnsupportedError, "`bits` must be 4 or 8, got 3"),
        ({"bits": 8, "symmetric": False}, UnsupportedError, "`symmetric` must be true with 8 bits"),
        ({"activation": "int7"}, InvalidArgumentError, "`activation` must be one of .*'int7'"),
        (
            {"bits": 8, "activation": "bfloat16"},
            UnsupportedError,
            "`activation` must be auto, int16 or int8 for weights of 8 bits",
        ),
        ({"group_size": 100}, InvalidArgumentError, "`group_size` must be 32, 64, 128 or -1"),
        ({"method": "magic"}, InvalidArgumentError, "`method` must be one of .*rtn.*, got 'magic'"),
        ({"calibration": [1]}, InvalidArgumentError, "`calibration` must be None for method"),
        ({"include": ""}, InvalidArgumentError, "`include` must be non-empty patterns"),
        ({"include": "k_proj"}, InvalidArgumentError, "'k_proj' matches none of the 7"),
    ],
)
def test_refuses_bad_settings_before_any_work(
    arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    model = Net()
    with pytest.raises(error, match=message):
        quantize_(model, **arguments)  # type: ignore[arg-type]
    assert not any(isinstance(module, Int4Linear) for module in model.modules())


def test_refuses_a_model_that_is_a_linear() -> None:
    with pytest.raises(InvalidArgumentError, match=r"use `Int4Linear.from_linear`"):
        quantize_(nn.Linear(64, 64))
    with pytest.raises(InvalidArgumentError, match=r"use `Int8Linear.from_linear`"):
        quantize_(nn.Linear(64, 64), bits=8)


def test_a_nan_weight_is_refused_with_its_layer_and_place() -> None:
    model = Net()
    with torch.no_grad():
        model.get_parameter(NAMES[2] + ".weight")[5, 7] = float("nan")
    message = f"Layer `{NAMES[2]}`: `weight` must be finite, got nan at row 5, column 7."
    with pytest.raises(InvalidArgumentError, match=f"^{re.escape(message)}$") as caught:
        quantize_(model, group_size=32)
    assert caught.value.details == {"layer": NAMES[2], "row": 5, "column": 7}
    assert isinstance(model.get_submodule(NAMES[1]), Int4Linear)
    assert type(model.get_submodule(NAMES[2])) is nn.Linear


# Progress and memory


def test_progress_counts_layers_that_are_in_their_place() -> None:
    model = Net()
    seen: list[tuple[int, int, str]] = []

    def progress(done: int, total: int, name: str) -> None:
        assert isinstance(model.get_submodule(name), Int4Linear)
        seen.append((done, total, name))

    quantize_(model, progress=progress)
    assert seen == [(i + 1, 6, name) for i, name in enumerate(NAMES)]


def test_cancelling_from_progress_leaves_whole_layers() -> None:
    model = Net()

    class Stop(Exception):
        pass

    def progress(done: int, total: int, name: str) -> None:
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        quantize_(model, progress=progress)
    kinds = [type(model.get_submodule(name)) for name in NAMES]
    assert kinds == [Int4Linear] * 2 + [nn.Linear] * 4
    assert model(torch.arange(3)).shape == (3, 50)
    report = quantize_(model)
    assert [layer.name for layer in report.layers] == NAMES[2:]


def test_float_weights_are_let_go_one_by_one() -> None:
    model = Net()
    weights = {name: weakref.ref(model.get_parameter(name + ".weight")) for name in NAMES}
    alive: list[int] = []

    def progress(done: int, total: int, name: str) -> None:
        alive.append(sum(ref() is not None for ref in weights.values()))

    quantize_(model, progress=progress)
    # Each layer's float weight may live until the next is asked for, and no longer.
    assert all(count <= len(NAMES) - i for i, count in enumerate(alive))
    assert [ref() for ref in weights.values()] == [None] * len(NAMES)


RSS_PROGRAM = """
import resource, torch
from torch import nn
from marlin import quantize_
model = nn.Sequential(*[nn.Linear(4096, 1024, bias=False) for _ in range(12)])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
quantize_(model)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_never_holds_the_model_twice() -> None:
    result = subprocess.run(
        [sys.executable, "-c", RSS_PROGRAM],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    grown = int(result.stdout) << 10  # ru_maxrss is in KiB
    model = 12 * 4096 * 1024 * 4
    assert grown < model / 2


# The plug for other methods


def test_a_registered_method_is_told_the_bits() -> None:
    def method(
        model: nn.Module, names: Sequence[str], settings: MethodSettings
    ) -> Iterator[tuple[str, Int8Linear]]:
        assert settings.bits == 8
        for name in names:
            linear = model.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            yield name, Int8Linear.from_linear(linear)

    register_method("bytes", method)
    model = Net()
    quantize_(model, "bytes", bits=8, activation="int16")
    layer = model.get_submodule(NAMES[0])
    assert isinstance(layer, Int8Linear)
    assert layer.activation == "int16"


def test_a_registered_method_sees_the_model_as_it_becomes() -> None:
    seen: list[tuple[str, int]] = []

    def method(
        model: nn.Module, names: Sequence[str], settings: MethodSettings
    ) -> Iterator[tuple[str, Int4Linear]]:
        assert settings == MethodSettings(64, False, "data")
        for name in reversed(names):
            done = sum(isinstance(module, Int4Linear) for module in model.modules())
            seen.append((name, done))
            linear = model.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            yield name, Int4Linear.from_linear(linear, 64, False, search=False)

    register_method("backwards", method)
    report = quantize_(Net(), "backwards", group_size=64, symmetric=False, calibration="data")
    assert seen == [(name, i) for i, name in enumerate(reversed(NAMES))]
    assert report.method == "backwards"
    with pytest.raises(InvalidArgumentError, match="'backwards' is registered"):
        register_method("backwards", method)
