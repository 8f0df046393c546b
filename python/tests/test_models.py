from __future__ import annotations

import gc
import json
import os
import re
import shutil
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

import marlin
from marlin import Int4Linear, Int8Linear, kernel_info
from marlin.errors import (
    CancelledError,
    CheckpointInvalidError,
    CheckpointNotFoundError,
    CheckpointUnsafeError,
    InvalidArgumentError,
    MarlinError,
    ModuleNotFound,
    UnknownHandleError,
    UnsupportedError,
)
from marlin.fusing import JoinedLinear
from marlin.generation import generate
from marlin.models import LoadedModel, load_model
from tests.tiny_model import CONTEXT, write_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A folder to damage."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def _text(loaded: LoadedModel) -> str:
    chunks = generate(loaded.model, loaded.tokenizer, "def", max_new_tokens=30)
    return "".join(chunk.text for chunk in chunks)


def _rotary_bytes(loaded: LoadedModel) -> int:
    """Of the 16 float32 frequencies, which some versions of transformers hold twice."""
    buffers = loaded.model.get_submodule("model.rotary_emb").buffers()
    return 4 * 16 * len({buffer.data_ptr() for buffer in buffers})


def _rewrite(path: Path, **changes: object) -> None:
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps(values))


def test_a_folder_loads_in_the_dtype_of_its_weights(folder: Path) -> None:
    loaded = load_model(folder)
    assert loaded.info() == {
        "path": str(folder),
        "architecture": "LlamaForCausalLM",
        "dtype": "float32",
        "device": "cpu",
        "parameters": 328_448,
        "weight_bytes": 4 * 328_448 + _rotary_bytes(loaded),
        "float_weight_bytes": 4 * 328_448 + _rotary_bytes(loaded),
        "quantization": None,
        "kernel": None,
        "context_length": CONTEXT,
        "vocab_size": 257,
    }
    assert not loaded.model.training


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16])
def test_dtype_is_that_of_all_float_weights(folder: Path, dtype: str | torch.dtype) -> None:
    loaded = load_model(folder, dtype=dtype)
    wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {wanted}


def test_quantizing_while_loading_counts_what_is_held(folder: Path) -> None:
    loaded = load_model(folder, quantize={"group_size": 32})
    info = loaded.info()
    layers = [m for m in loaded.model.modules() if isinstance(m, Int4Linear)]
    assert len(layers) == 14
    assert info["quantization"] == {
        "bits": 4,
        "group_size": 32,
        "symmetric": True,
        "layers": 14,
    }
    assert isinstance(info["kernel"], dict)
    assert info["kernel"]["kernel"] in kernel_info().available
    assert info["parameters"] == 328_448
    float_bytes = 4 * 328_448 + _rotary_bytes(loaded)
    assert info["float_weight_bytes"] == float_bytes
    rounded = sum(layer.in_features * layer.out_features for layer in layers)
    # Half a byte for a code, and a float32 scale for 32 of them.
    assert info["weight_bytes"] == float_bytes - 4 * rounded + rounded // 2 + 4 * rounded // 32


def test_quantizing_later_equals_quantizing_while_loading(folder: Path) -> None:
    later = load_model(folder)
    later.quantize(group_size=64)
    assert _text(later) == _text(load_model(folder, quantize={"group_size": 64}))


@pytest.mark.parametrize(
    "options", [None, {"group_size": 32}, {"symmetric": False}, {"bits": 8, "group_size": 64}]
)
def test_a_saved_model_loads_again_and_says_the_same(
    folder: Path, tmp_path: Path, options: dict[str, object] | None
) -> None:
    loaded = load_model(folder, dtype="bfloat16", quantize=options)
    size = loaded.save(tmp_path / "saved")
    files = list((tmp_path / "saved").iterdir())
    assert size == sum(file.stat().st_size for file in files)
    assert len({file.stat().st_mode for file in files}) == 1
    again = load_model(tmp_path / "saved")
    assert again.info() == {**loaded.info(), "path": str(tmp_path / "saved")}
    assert _text(again) == _text(loaded)
    expected, got = loaded.model.state_dict(), again.model.state_dict()
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name


def test_a_4_bit_folder_is_read_without_its_float_weights(folder: Path, tmp_path: Path) -> None:
    load_model(folder, quantize={}).save(tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    # The weights that are left: embedding, norms.
    names = [name for name, _ in again.model.named_parameters()]
    assert [name for name in names if "proj" in name] == []
    assert all(not tensor.is_meta for tensor in again.model.state_dict().values())


def test_transformers_itself_loads_a_4_bit_folder(folder: Path, tmp_path: Path) -> None:
    loaded = load_model(folder, quantize={})
    loaded.save(tmp_path / "saved")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    marlin.fuse_(model)  # as Marlin's own loading does: the gated product is rounded once
    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        assert torch.equal(model(ids).logits, loaded.model(ids).logits)


def test_bits_and_activation_reach_the_layers(folder: Path) -> None:
    loaded = load_model(folder, quantize={"bits": 8, "activation": "int8"})
    layers = [m for m in loaded.model.modules() if isinstance(m, Int8Linear)]
    assert len(layers) == 14
    assert {layer.activation for layer in layers} == {"int8"}
    quantization = loaded.info()["quantization"]
    assert isinstance(quantization, dict)
    assert quantization["bits"] == 8


def test_layers_of_several_widths_have_no_common_one(folder: Path) -> None:
    loaded = load_model(folder)
    loaded.quantize(bits=8, include="*_proj", exclude="down_proj")
    loaded.quantize(bits=4)
    quantization = loaded.info()["quantization"]
    assert quantization == {"bits": None, "group_size": 128, "symmetric": True, "layers": 14}


def test_a_folder_with_activation_order_loads_again(folder: Path, tmp_path: Path) -> None:
    loaded = load_model(folder, quantize={"group_size": 32})
    name, layer = next(
        (name, m) for name, m in loaded.model.named_modules() if isinstance(m, Int4Linear)
    )
    g_idx = (torch.arange(layer.size_k, dtype=torch.int32) // 32)[torch.randperm(layer.size_k)]
    ordered = Int4Linear.from_quantized(
        layer.plain_qweight(), layer.plain_scales(), group_size=32, g_idx=g_idx
    )
    parent, _, attribute = name.rpartition(".")
    setattr(loaded.model.get_submodule(parent), attribute, ordered)
    loaded.save(tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    found = again.model.get_submodule(name)
    assert isinstance(found, Int4Linear)
    assert torch.equal(found.dequantize(), ordered.dequantize())
    assert _text(again) == _text(loaded)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g + 1, r"`g_idx` must hold groups in 0..3, got 4 at row "),
        (lambda g: g * 0, r"`g_idx` must put 32 rows in each group, got 128 in group 0"),
        (lambda g: g[:64].clone(), r"g_idx"),
        (None, r"g_idx"),
    ],
    ids=["out of range", "uneven", "short", "missing"],
)
def test_a_folder_with_a_g_idx_of_nonsense_is_refused(
    folder: Path, tmp_path: Path, change: Callable[[Tensor], Tensor] | None, message: str
) -> None:
    loaded = load_model(folder, quantize={"group_size": 32})
    attention = loaded.model.get_submodule("model.layers.0.self_attn")
    layer = attention.get_submodule("q_proj")
    assert isinstance(layer, Int4Linear)
    attention.q_proj = Int4Linear.from_quantized(
        layer.plain_qweight(),
        layer.plain_scales(),
        group_size=32,
        g_idx=torch.arange(128).int() % 4,
    )
    loaded.save(tmp_path / "saved")
    file = tmp_path / "saved" / "model.safetensors"
    tensors = load_file(file)
    g_idx = tensors.pop("model.layers.0.self_attn.q_proj.g_idx")
    if change is not None:
        tensors["model.layers.0.self_attn.q_proj.g_idx"] = change(g_idx)
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(CheckpointInvalidError, match=message):
        load_model(tmp_path / "saved")


def test_saving_onto_a_folder_needs_overwrite(folder: Path, tmp_path: Path) -> None:
    loaded = load_model(folder)
    loaded.save(tmp_path / "saved")
    with pytest.raises(InvalidArgumentError, match="`overwrite`"):
        loaded.save(tmp_path / "saved")
    loaded.quantize()
    loaded.save(tmp_path / "saved", overwrite=True)
    assert load_model(tmp_path / "saved").info()["quantization"] is not None
    assert [entry.name for entry in tmp_path.iterdir()] == ["saved"]


def test_overwrite_replaces_nothing_but_a_model(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("dear diary")
    with pytest.raises(InvalidArgumentError, match="holds no model"):
        load_model(folder).save(tmp_path, overwrite=True)
    assert (tmp_path / "diary.txt").read_text() == "dear diary"


@pytest.mark.parametrize("at_the_end", [False, True])
def test_saving_that_is_cancelled_leaves_nothing(
    folder: Path, tmp_path: Path, at_the_end: bool
) -> None:
    def cancel(phase: str, done: int, total: int, text: str) -> None:
        if done == total or not at_the_end:
            raise CancelledError("The call was cancelled.")

    for loaded in (load_model(folder), load_model(folder, quantize={})):
        with pytest.raises(CancelledError):
            loaded.save(tmp_path / "saved", progress=cancel)
    assert list(tmp_path.iterdir()) == []


def test_progress_tells_of_every_phase(folder: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    load_model(
        folder,
        quantize={},
        progress=lambda phase, done, total, text: seen.append((phase, done, total)),
    )
    assert list(dict.fromkeys(phase for phase, _, _ in seen)) == ["load", "quantize"]
    for phase in ("load", "quantize"):
        steps = [(done, total) for name, done, total in seen if name == phase]
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1]


@pytest.mark.parametrize("phase", ["load", "quantize"])
def test_loading_can_be_cancelled_in_every_phase(folder: Path, phase: str) -> None:
    def cancel(current: str, done: int, total: int, text: str) -> None:
        if current == phase and done > 0:
            raise CancelledError("The call was cancelled.")

    with pytest.raises(CancelledError):
        load_model(folder, quantize={}, progress=cancel)


def test_loading_that_is_cancelled_keeps_no_weights_while_the_error_is_kept(folder: Path) -> None:
    def cancel(phase: str, done: int, total: int, text: str) -> None:
        if phase == "quantize":
            raise CancelledError("The call was cancelled.")

    def holding() -> int:
        models = [item for item in gc.get_objects() if type(item) is LlamaForCausalLM]
        return sum(any(True for _ in model.parameters()) for model in models)

    before = holding()
    with pytest.raises(CancelledError) as kept:
        load_model(folder, quantize={}, progress=cancel)
    assert holding() == before
    assert kept.value.code == "cancelled"


def test_quantizing_that_is_cancelled_leaves_a_model_that_runs(folder: Path) -> None:
    loaded = load_model(folder)

    def cancel(phase: str, done: int, total: int, text: str) -> None:
        if done == 3:
            raise CancelledError("The call was cancelled.")

    with pytest.raises(CancelledError):
        loaded.quantize(progress=cancel)
    quantization = loaded.info()["quantization"]
    assert isinstance(quantization, dict)
    assert quantization["layers"] == 3
    assert _text(loaded)
    loaded.quantize()
    assert _text(loaded)


def test_loading_leaves_the_settings_of_transformers_as_they_were(folder: Path) -> None:
    before = (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    load_model(folder)
    with pytest.raises(CheckpointNotFoundError):
        load_model("./nowhere")
    assert before == (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )


def test_loading_prints_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_model(folder, quantize={})
    assert capfd.readouterr() == ("", "")


def test_a_disposed_model_is_refused_and_its_memory_is_free(folder: Path) -> None:
    loaded = load_model(folder)
    modules = [weakref.ref(module) for module in loaded.model.modules()]
    loaded.dispose()
    loaded.dispose()
    assert [module for module in modules if module() is not None] == []
    with pytest.raises(UnknownHandleError, match="disposed"):
        loaded.info()
    with pytest.raises(UnknownHandleError, match="disposed"):
        _ = loaded.tokenizer


def test_disposing_frees_the_weights_of_modules_that_are_still_held(folder: Path) -> None:
    loaded = load_model(folder, quantize={})
    layer = loaded.model.get_submodule("model.layers.0")
    weights = [weakref.ref(t) for t in (*layer.parameters(), *layer.buffers())]
    assert len(weights) > 10
    loaded.dispose()
    assert [weight for weight in weights if weight() is not None] == []
    assert list(layer.parameters()) == []


def test_a_path_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="no folder"):
        load_model(tmp_path / "nowhere")


def test_a_hub_id_that_is_not_in_the_cache_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointNotFoundError, match="hub id"):
        load_model("nobody/nothing-of-this-name", local_files_only=True)


def test_without_transformers_it_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(marlin, "transformers_loading", raising=False)
    monkeypatch.setitem(sys.modules, "marlin.transformers_loading", None)
    with pytest.raises(ModuleNotFound, match="pip install transformers"):
        load_model(folder)


def test_a_file_is_not_a_folder(folder: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="`path`"):
        load_model(folder / "config.json")


def test_an_empty_folder_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError):
        load_model(tmp_path)


def test_pickles_are_never_read(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(CheckpointUnsafeError, match="pickle"):
        load_model(copy)


def test_a_truncated_file_is_invalid(copy: Path) -> None:
    os.truncate(copy / "model.safetensors", (copy / "model.safetensors").stat().st_size - 10)
    with pytest.raises(CheckpointInvalidError, match=r"model\.safetensors"):
        load_model(copy)


def test_missing_weights_are_named(copy: Path) -> None:
    _rewrite(copy / "config.json", num_hidden_layers=3)
    with pytest.raises(CheckpointInvalidError, match=r"lacks .*layers\.2"):
        load_model(copy)


def test_weights_of_other_shapes_are_named(copy: Path) -> None:
    _rewrite(copy / "config.json", intermediate_size=128)
    with pytest.raises(CheckpointInvalidError, match=r"other shapes .*down_proj"):
        load_model(copy)


def test_a_folder_without_a_readable_config_is_invalid(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    with pytest.raises(CheckpointInvalidError):
        load_model(copy)
    (copy / "config.json").unlink()
    with pytest.raises(CheckpointInvalidError, match=r"config\.json"):
        load_model(copy)


def test_a_folder_without_a_tokenizer_is_refused(copy: Path) -> None:
    for file in copy.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(MarlinError, match=re.escape(str(copy))):
        load_model(copy)


def test_an_architecture_that_is_not_known_is_unsupported(copy: Path) -> None:
    _rewrite(copy / "config.json", model_type="not_a_model")
    with pytest.raises(UnsupportedError):
        load_model(copy)


def test_code_in_a_folder_is_not_run(copy: Path) -> None:
    (copy / "evil.py").write_text("raise SystemExit('ran')")
    _rewrite(
        copy / "config.json",
        model_type="evil",
        auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    )
    with pytest.raises(UnsupportedError):
        load_model(copy)


def test_quantization_by_others_is_unsupported(copy: Path) -> None:
    _rewrite(copy / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UnsupportedError, match="gptq"):
        load_model(copy)


def test_a_4_bit_folder_is_not_quantized_again(folder: Path, tmp_path: Path) -> None:
    load_model(folder, quantize={}).save(tmp_path / "saved")
    with pytest.raises(InvalidArgumentError, match="`quantize`"):
        load_model(tmp_path / "saved", quantize={})


def test_a_4_bit_folder_that_lacks_scales_is_invalid(folder: Path, tmp_path: Path) -> None:
    load_model(folder, quantize={"include": "q_proj"}).save(tmp_path / "saved")
    full = load_model(folder, quantize={})
    full.save(tmp_path / "full")
    # A description of more layers than the file holds in 4 bits.
    shutil.copy(tmp_path / "full" / "config.json", tmp_path / "saved" / "config.json")
    with pytest.raises(CheckpointInvalidError):
        load_model(tmp_path / "saved")


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("dtype", "int8", InvalidArgumentError),
        ("dtype", torch.float64, InvalidArgumentError),
        ("dtype", "auto", InvalidArgumentError),
        ("device", "moon", InvalidArgumentError),
        ("device", "cuda:99", UnsupportedError),
        ("quantize", {"bits": 3}, UnsupportedError),
        ("quantize", {"group_size": 100}, InvalidArgumentError),
    ],
)
def test_an_option_that_cannot_be_served_is_named(
    folder: Path, option: str, value: object, error: type[MarlinError]
) -> None:
    name = next(iter(value)) if isinstance(value, dict) else option
    with pytest.raises(error, match=f"`{name}`"):
        load_model(folder, **{option: value})  # type: ignore[arg-type]


def test_what_is_quantised_or_loaded_in_bits_is_fused(folder: Path, tmp_path: Path) -> None:
    loaded = load_model(folder, quantize={"group_size": 32})
    loaded.save(tmp_path / "saved")
    for model in (loaded.model, load_model(tmp_path / "saved").model):
        reasons = {layer.reason for layer in marlin.fuse_(model).skipped}
        assert reasons == {"fused already"}


def test_a_disposed_model_that_was_fused_holds_no_weight(folder: Path) -> None:
    loaded = load_model(folder, quantize={"group_size": 32})
    layer = loaded.model.get_submodule("model.layers.0.self_attn.q_proj")
    assert isinstance(layer, JoinedLinear)
    assert layer._joint.whole is not None
    whole = weakref.ref(layer._joint.whole.qweight)
    loaded.dispose()
    assert whole() is None
