"""Saving and loading models: round trips, ties, memory, shards, and checkpoints that do not fit."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from marlin import Int4Linear, inspect_checkpoint, load_checkpoint, quantize_, save_checkpoint
from marlin.errors import (
    CheckpointInvalidError,
    CheckpointNotFoundError,
    CheckpointUnsafeError,
    InvalidArgumentError,
    UnsupportedError,
)
from marlin.quantization_config import quantization_config, swap_for_config


class Net(nn.Module):
    """Ties, a shared module, buffers of both kinds, and sizes that need padding."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 100)
        self.up = nn.Linear(100, 300)
        self.norm = nn.BatchNorm1d(300)
        self.down = nn.Linear(300, 100, bias=False)
        self.again = self.up
        self.lm_head = nn.Linear(100, 50, bias=False)
        self.lm_head.weight = self.embed.weight
        self.register_buffer("table", torch.arange(3.0, device="cpu"), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        x = x + self.down(self.norm(self.up(x)))
        x = self.down(self.again(x)) * self.table.sum()
        return self.lm_head(x)  # type: ignore[no-any-return]


IDS = torch.arange(7)


def meta_net() -> Net:
    with torch.device("meta"):
        return Net().eval()


@pytest.fixture
def model() -> Net:
    model = Net().eval()
    quantize_(model, group_size=64, symmetric=False, include="up")
    quantize_(model, group_size=32, include="down")
    return model


@pytest.fixture
def saved(model: Net, tmp_path: Path) -> Path:
    save_checkpoint(model, tmp_path / "net")
    return tmp_path / "net" / "model.safetensors"


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(IDS)  # type: ignore[no-any-return]


def test_a_meta_model_becomes_the_saved_one(model: Net, saved: Path) -> None:
    loaded = meta_net()
    assert load_checkpoint(loaded, saved) is loaded
    assert torch.equal(logits(loaded), logits(model))
    assert isinstance(loaded.up, Int4Linear)
    assert (loaded.up.group_size, loaded.up.symmetric) == (64, False)
    assert isinstance(loaded.down, Int4Linear)
    assert (loaded.down.group_size, loaded.down.symmetric) == (32, True)
    assert not loaded.up.training


def test_ties_and_shared_modules_come_back(saved: Path) -> None:
    loaded = meta_net()
    load_checkpoint(loaded, saved)
    assert loaded.lm_head.weight is loaded.embed.weight
    assert isinstance(loaded.lm_head.weight, nn.Parameter)
    assert loaded.again is loaded.up
    names = [tensor.name for tensor in inspect_checkpoint(saved).tensors]
    assert "embed.weight" in names
    assert not any(name.startswith(("lm_head", "again")) for name in names)


@pytest.mark.parametrize("prepare", [lambda: Net().eval(), lambda: Net().half().eval()])
def test_a_real_model_takes_the_checkpoint_too(
    prepare: Callable[[], Net], model: Net, saved: Path
) -> None:
    loaded = load_checkpoint(prepare(), saved)
    assert torch.equal(logits(loaded), logits(model))


def test_a_quantised_model_takes_a_checkpoint_of_its_own_shape(model: Net, saved: Path) -> None:
    other = Net().eval()
    quantize_(other, group_size=64, symmetric=False, include="up")
    quantize_(other, group_size=32, include="down")
    up = other.up
    load_checkpoint(other, saved)
    assert other.up is up
    assert torch.equal(logits(other), logits(model))


def test_saving_a_loaded_model_gives_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(meta_net(), saved)
    save_checkpoint(loaded, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_a_folder_a_file_and_a_lone_file_in_a_folder_are_checkpoints(
    model: Net, saved: Path
) -> None:
    assert torch.equal(logits(load_checkpoint(meta_net(), saved.parent)), logits(model))
    saved.rename(saved.with_name("other.safetensors"))
    assert torch.equal(logits(load_checkpoint(meta_net(), saved.parent)), logits(model))


def test_dtype_casts_floating_tensors_only(saved: Path) -> None:
    loaded = meta_net()
    load_checkpoint(loaded, saved, dtype=torch.bfloat16)
    assert loaded.embed.weight.dtype == torch.bfloat16
    assert isinstance(loaded.up, Int4Linear)
    assert loaded.up.scales.dtype == torch.bfloat16
    assert loaded.up.qweight.dtype == torch.int32
    assert loaded.norm.num_batches_tracked is not None
    assert loaded.norm.num_batches_tracked.dtype == torch.int64


def test_a_float_model_comes_back_as_it_was(tmp_path: Path) -> None:
    model = Net().eval()
    info = save_checkpoint(model, tmp_path / "float.safetensors")
    assert info.quantization is None
    loaded = load_checkpoint(meta_net(), tmp_path / "float.safetensors")
    assert torch.equal(logits(loaded), logits(model))


def test_the_file_is_readable_by_the_format_s_own_library(model: Net, saved: Path) -> None:
    tensors = load_file(saved)
    state = model.state_dict()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, state[name])
    with safe_open(saved, "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    assert json.loads(metadata["tied"]) == {
        "again.qweight": "up.qweight",
        "again.scales": "up.scales",
        "again.qzeros": "up.qzeros",
        "again.bias": "up.bias",
        "lm_head.weight": "embed.weight",
    }
    assert json.loads(metadata["quantization_config"]) == quantization_config(model)


def test_the_config_describes_each_layer(model: Net) -> None:
    up = {"in_features": 100, "out_features": 300}
    assert quantization_config(model) == {
        "quant_method": "marlin",
        "bits": 4,
        "group_size": 64,
        "symmetric": False,
        "checkpoint_format": "gptq_v2",
        "modules": {
            "up": up,
            "again": up,
            "down": {"in_features": 300, "out_features": 100, "group_size": 32, "symmetric": True},
        },
    }
    assert quantization_config(Net()) is None


def test_inspect_counts_bytes_and_parameters(saved: Path) -> None:
    info = inspect_checkpoint(saved.parent)
    header = saved.stat().st_size - info.bytes
    assert 0 < header < 5000
    float_model = Net()
    persistent = sum(b.numel() for name, b in float_model.named_buffers() if name != "table")
    assert info.parameters == sum(p.numel() for p in float_model.parameters()) + persistent
    assert info.files == ("model.safetensors",)
    assert info.quantization is not None
    assert json.loads(json.dumps(info.to_dict()))["bytes"] == info.bytes
    assert "quantization: marlin, 4 bits, group size 64" in str(info)


def test_progress_counts_bytes(model: Net, tmp_path: Path) -> None:
    for work in (
        lambda p: save_checkpoint(model, tmp_path / "m.safetensors", progress=p),
        lambda p: load_checkpoint(meta_net(), tmp_path / "m.safetensors", progress=p),
    ):
        seen: list[tuple[int, int, str]] = []
        work(lambda done, total, name, seen=seen: seen.append((done, total, name)))
        assert [done for done, _, _ in seen] == sorted({done for done, _, _ in seen})
        assert seen[-1][0] == seen[-1][1] == inspect_checkpoint(tmp_path / "m.safetensors").bytes


# Memory


def test_saving_unpacks_one_layer_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Sequential(*[nn.Linear(64, 64) for _ in range(6)])
    quantize_(model)
    unpacked: list[weakref.ref[Tensor]] = []
    original = Int4Linear.plain_qweight

    def watched(layer: Int4Linear) -> Tensor:
        assert sum(ref() is not None for ref in unpacked) <= 1
        plain = original(layer)
        unpacked.append(weakref.ref(plain))
        return plain

    monkeypatch.setattr(Int4Linear, "plain_qweight", watched)
    save_checkpoint(model, tmp_path / "model.safetensors")
    assert len(unpacked) == 6


RSS_PROGRAM = """
import resource, sys, torch
from torch import nn
from marlin import load_checkpoint
with torch.device("meta"):
    model = nn.Sequential(*[nn.Linear(4096, 4096, bias=False) for _ in range(4)])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_checkpoint(model, sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_loading_never_holds_the_float_weights(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = nn.Sequential(*[nn.Linear(4096, 4096, bias=False) for _ in range(4)])
        config = quantization_config(nn.Sequential(*[Int4Linear(4096, 4096, False)] * 4))
    assert config is not None
    swap_for_config(model, config)
    model.to_empty(device="cpu")
    layers = [module for module in model.modules() if isinstance(module, Int4Linear)]
    for layer in layers:
        layer.scales.fill_(1)
    save_checkpoint(model, tmp_path / "model.safetensors")
    result = subprocess.run(
        [sys.executable, "-c", RSS_PROGRAM, str(tmp_path / "model.safetensors")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    grown = int(result.stdout) << 10  # ru_maxrss is in KiB
    packed = sum(layer.weight_bytes for layer in layers)
    one_layer = packed // 4
    # All packed layers, one more while it is repacked, and room for the allocator; in float32 a
    # single layer alone would take 8 layers' worth.
    assert grown < packed + 3 * one_layer


# Writing


def test_an_existing_checkpoint_is_kept_unless_told(model: Net, saved: Path) -> None:
    before = saved.read_bytes()
    for path in (saved, saved.parent):
        with pytest.raises(InvalidArgumentError, match="pass `overwrite=True` to replace it"):
            save_checkpoint(Net(), path)
    assert saved.read_bytes() == before
    save_checkpoint(Net(), saved, overwrite=True)
    assert saved.read_bytes() != before
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]


def test_a_save_that_is_cancelled_leaves_what_was_there(model: Net, saved: Path) -> None:
    before = saved.read_bytes()

    class Stop(Exception):
        pass

    def progress(done: int, total: int, name: str) -> None:
        raise Stop

    with pytest.raises(Stop):
        save_checkpoint(model, saved, overwrite=True, progress=progress)
    assert saved.read_bytes() == before
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]


def test_a_meta_model_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"got `embed.weight` on the meta device"):
        save_checkpoint(meta_net(), tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_extra_state_is_refused(tmp_path: Path) -> None:
    class Stateful(nn.Linear):
        def get_extra_state(self) -> object:
            return {"step": 1}

    with pytest.raises(UnsupportedError, match="Module `0` has extra state"):
        save_checkpoint(nn.Sequential(Stateful(2, 2)), tmp_path / "model.safetensors")


# Shards


@pytest.fixture
def sharded(saved: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    tensors = load_file(saved)
    with safe_open(saved, "pt") as file:
        metadata = file.metadata()
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file_name, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file_name, metadata)
    weight_map = {name: file_name for file_name, part in parts.items() for name in part}
    write_index(folder, weight_map)
    return folder


def write_index(folder: Path, weight_map: object) -> None:
    text = json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(text)


def test_shards_are_read_by_their_index(model: Net, sharded: Path) -> None:
    loaded = load_checkpoint(meta_net(), sharded)
    assert torch.equal(logits(loaded), logits(model))
    assert inspect_checkpoint(sharded).files == ("a.safetensors", "b.safetensors")


@pytest.mark.parametrize(
    ("file_name", "message"),
    [
        ("../net/model.safetensors", "must be the name of a safetensors file beside it"),
        ("/etc/passwd", "must be the name of a safetensors file beside it"),
        ("a.bin", "must be the name of a safetensors file beside it"),
        (7, "must be the name of a safetensors file beside it"),
        ("b.safetensors", "must hold tensor `up.bias` as the index says, and does not"),
    ],
)
def test_an_index_that_points_elsewhere_is_refused(
    sharded: Path, file_name: object, message: str
) -> None:
    index = sharded / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    weight_map["up.bias"] = file_name
    if file_name == "b.safetensors":
        assert json.loads(index.read_text())["weight_map"]["up.bias"] == "a.safetensors"
    write_index(sharded, weight_map)
    with pytest.raises(CheckpointInvalidError, match=message):
        inspect_checkpoint(sharded)


@pytest.mark.parametrize("stem", ["a" * 300, "a\0", "\ud800"], ids=["long", "zero", "surrogate"])
def test_a_name_that_no_file_can_have_is_not_found(sharded: Path, stem: str) -> None:
    write_index(sharded, {"up.bias": f"{stem}.safetensors"})
    with pytest.raises(CheckpointNotFoundError, match="cannot be looked at"):
        inspect_checkpoint(sharded)
    with pytest.raises(CheckpointNotFoundError):
        inspect_checkpoint(sharded / stem)


@pytest.mark.parametrize("key", ["quantization_config", "tied"])
def test_metadata_that_is_no_text_is_refused(tmp_path: Path, key: str) -> None:
    header = json.dumps({"__metadata__": {key: "\ud800"}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointInvalidError, match="holds JSON that cannot be read"):
        inspect_checkpoint(path)


def test_a_missing_shard_is_not_found(sharded: Path) -> None:
    (sharded / "a.safetensors").unlink()
    with pytest.raises(CheckpointNotFoundError, match=r"a.safetensors` does not exist"):
        load_checkpoint(meta_net(), sharded)


# Checkpoints that do not fit


Change = Callable[[dict[str, Tensor], dict[str, Any]], object]


def rewritten(path: Path, change: Change) -> None:
    """Writes the file again after `change` of its tensors and its quantization_config."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    config = json.loads(metadata["quantization_config"])
    change(tensors, config)
    save_file(tensors, path, {**metadata, "quantization_config": json.dumps(config)})


MISFITS: list[tuple[str, Change, type[Exception], str]] = [
    (
        "a missing tensor",
        lambda t, c: t.pop("down.scales"),
        CheckpointInvalidError,
        "must have tensor `down.scales` for this model, and has not",
    ),
    (
        "an extra tensor",
        lambda t, c: t.update(other=torch.zeros(1)),
        CheckpointInvalidError,
        "has 1 others, the first of which is `other`",
    ),
    (
        "another shape",
        lambda t, c: t.update({"up.qweight": t["up.qweight"][:8].clone()}),
        CheckpointInvalidError,
        "`up.qweight` must have shape [16, 304] for this model, and has [8, 304]",
    ),
    (
        "another dtype",
        lambda t, c: t.update({"up.qweight": t["up.qweight"].float()}),
        CheckpointInvalidError,
        "`up.qweight` must be int32 for this model, and is float32",
    ),
    (
        "an integer where floats belong",
        lambda t, c: t.update({"embed.weight": t["embed.weight"].int()}),
        CheckpointInvalidError,
        "`embed.weight` must be float32 for this model, and is int32",
    ),
    (
        "a NaN scale",
        lambda t, c: t["up.scales"].fill_(torch.nan),
        CheckpointInvalidError,
        "`up.scales` must be finite, got nan at group 0, column 0.",
    ),
    (
        "another method",
        lambda t, c: c.update(quant_method="awq"),
        UnsupportedError,
        "`quantization_config.quant_method` must be 'marlin' to be read, got 'awq'.",
    ),
    (
        "other bits",
        lambda t, c: c.update(bits=3),
        UnsupportedError,
        "`quantization_config.bits` must be 4 or 8 to be read, got 3.",
    ),
    (
        "zero points with 8 bits",
        lambda t, c: c["modules"]["down"].update(bits=8, symmetric=False),
        UnsupportedError,
        "`quantization_config.modules.down.symmetric` must be true with 8 bits, got False.",
    ),
    (
        "a group size of nonsense",
        lambda t, c: c.update(group_size="64"),
        CheckpointInvalidError,
        "`quantization_config.group_size` must be 32, 64, 128 or -1, got '64'.",
    ),
    (
        "a group size that is no integer",
        lambda t, c: c["modules"]["down"].update(group_size=64.0),
        CheckpointInvalidError,
        "`quantization_config.modules.down.group_size` must be 32, 64, 128 or -1, got 64.0.",
    ),
    (
        "bits that are no integer",
        lambda t, c: c.update(bits=4.0),
        UnsupportedError,
        "`quantization_config.bits` must be 4 or 8 to be read, got 4.0.",
    ),
    (
        "a flag of nonsense",
        lambda t, c: c["modules"]["down"].update(symmetric=1),
        CheckpointInvalidError,
        "`quantization_config.modules.down.symmetric` must be true or false, got 1.",
    ),
    (
        "no modules",
        lambda t, c: c.pop("modules"),
        CheckpointInvalidError,
        "`quantization_config.modules` must map names to sizes.",
    ),
    (
        "a layer that the model has not",
        lambda t, c: c["modules"].update(gone={"in_features": 1, "out_features": 1}),
        CheckpointInvalidError,
        "The checkpoint has a quantized layer `gone`, and the model has no such module there.",
    ),
    (
        "a layer that is no Linear",
        lambda t, c: c["modules"].update(embed={"in_features": 1, "out_features": 1}),
        CheckpointInvalidError,
        "The checkpoint has a quantized layer `embed`, and the model has Embedding there.",
    ),
    (
        "a layer of another size",
        lambda t, c: c["modules"]["down"].update(in_features=10**9),
        CheckpointInvalidError,
        "Layer `down` has 300 -> 100 features in the model, and 1000000000 -> 100 in the",
    ),
    (
        "a shared layer described twice",
        lambda t, c: c["modules"]["again"].update(group_size=32),
        CheckpointInvalidError,
        "Layer `again` must be Int4Linear(in_features=100, out_features=300, bias=True, group_",
    ),
]


@pytest.mark.parametrize(
    ("change", "error", "message"), [m[1:] for m in MISFITS], ids=[m[0] for m in MISFITS]
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    saved: Path, change: Change, error: type[Exception], message: str
) -> None:
    rewritten(saved, change)
    model = meta_net()
    with pytest.raises(error, match=re.escape(message)):
        load_checkpoint(model, saved)
    if "NaN" not in message and "finite" not in message:
        assert type(model.up) is nn.Linear  # checked before the model was touched


def test_ties_of_nonsense_are_refused(saved: Path) -> None:
    save_file({"a": torch.zeros(1)}, saved, {"tied": json.dumps({"b": "c"})})
    with pytest.raises(CheckpointInvalidError, match="ties `b` to 'c', which must be a tensor"):
        inspect_checkpoint(saved)


def test_a_non_persistent_buffer_on_meta_is_named(saved: Path) -> None:
    model = meta_net()
    model.table = model.table.to("meta")
    with pytest.raises(InvalidArgumentError, match=r"got `table` on the meta device"):
        load_checkpoint(model, saved)


# Folders of other kinds


def test_the_config_of_a_model_folder_counts(model: Net, saved: Path) -> None:
    config = quantization_config(model)
    tensors = load_file(saved)
    tensors["lm_head.weight"] = tensors["embed.weight"].clone()
    save_file(tensors, saved)
    (saved.parent / "config.json").write_text(json.dumps({"quantization_config": config}))
    with pytest.raises(CheckpointInvalidError, match=r"must have tensor `up.weight`"):
        load_checkpoint(meta_net(), saved)
    loaded = load_checkpoint(meta_net(), saved.parent)
    assert torch.equal(logits(loaded), logits(model))


def test_a_missing_path_is_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "none.safetensors"):
        with pytest.raises(CheckpointNotFoundError, match=re.escape(str(path))):
            load_checkpoint(meta_net(), path)


def test_an_empty_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="has no safetensors file"):
        inspect_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.PTH", "last.ckpt"])
def test_a_folder_of_pickles_is_unsafe(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(b"whatever")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(CheckpointUnsafeError, match="convert it on a machine you trust"):
            inspect_checkpoint(path)


def test_several_files_without_an_index_are_refused(saved: Path) -> None:
    saved.rename(saved.with_name("a.safetensors"))
    saved.with_name("b.safetensors").write_bytes(saved.with_name("a.safetensors").read_bytes())
    with pytest.raises(CheckpointInvalidError, match="for its 2 safetensors files"):
        inspect_checkpoint(saved.parent)
