"""transformers models as Marlin holds them: load, quantize, describe, save, let go.

Weights come from safetensors files only, code only from the installed transformers. Knows no wire.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from marlin.checkpoint import inspect_checkpoint
from marlin.errors import (
    InvalidArgumentError,
    ModuleNotFound,
    UnknownHandleError,
    UnsupportedError,
)
from marlin.fusing import fuse_, release
from marlin.generation import context_length
from marlin.model_source import find_folder
from marlin.ops import kernel_info
from marlin.options import shown
from marlin.primitives import FLOAT_DTYPES, dtype_name
from marlin.quantize import quantize_
from marlin.quantized_linear import QuantizedLinear
from marlin.report import QuantizeReport

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["LoadedModel", "Progress", "load_model"]

# Called with (phase, done, total, text). Phases: `files`, `download`, `load`, `quantize`, `save`;
# `total` is 0 where it is not known. What it raises ends the work and comes out.
Progress = Callable[[str, int, int, str], None]


class LoadedModel:
    """A causal LM in eval mode with its tokenizer. After `dispose` every use is an error.

    path: the folder or hub id it was loaded from.
    """

    def __init__(
        self, path: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.path = path
        self._parts: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = (model, tokenizer)

    @property
    def model(self) -> PreTrainedModel:
        """The model; raises UnknownHandleError after `dispose`."""
        return self._parts_if_alive()[0]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer; raises UnknownHandleError after `dispose`."""
        return self._parts_if_alive()[1]

    def check_alive(self) -> None:
        """Raises UnknownHandleError after `dispose`."""
        self._parts_if_alive()

    def quantize(
        self,
        method: str = "rtn",
        bits: int = 4,
        group_size: int = 128,
        symmetric: bool = True,
        *,
        progress: Progress | None = None,
        **options: Any,  # noqa: ANN401  # `include`, `exclude`, ... of quantize_
    ) -> QuantizeReport:
        """`marlin.quantize_` on this model, then `marlin.fuse_`.

        When `progress` raises, the layers done so far stay.
        """

        def on_layer(done: int, total: int, name: str) -> None:
            if progress is not None:
                progress("quantize", done, total, name)

        report = quantize_(
            self.model, method, bits, group_size, symmetric, progress=on_layer, **options
        )
        fuse_(self.model)
        return report

    def info(self) -> dict[str, object]:
        """What the model is, in plain values: the result of `model.info` in docs/protocol.md.

        weight_bytes counts the memory that parameters and buffers really take;
        float_weight_bytes what they would take with every quantised weight in the model's dtype.
        """
        model = self.model
        layers = _quantized_layers(model)
        dtype = model.dtype
        held = _held_bytes(model)
        unrounded = sum(layer.in_features * layer.out_features for layer in layers)
        rounded_bytes = sum(layer.weight_bytes for layer in layers)
        device = _device(model)
        return {
            "path": self.path,
            "architecture": type(model).__name__,
            "dtype": dtype_name(dtype),
            "device": str(device),
            "parameters": sum(p.numel() for p in model.parameters()) + unrounded,
            "weight_bytes": held,
            "float_weight_bytes": held - rounded_bytes + unrounded * dtype.itemsize,
            "quantization": _quantization(layers),
            "kernel": _kernel(device) if layers else None,
            "context_length": context_length(model),
            "vocab_size": model.config.get_text_config(decoder=True).vocab_size,
        }

    def save(
        self, path: str | Path, *, overwrite: bool = False, progress: Progress | None = None
    ) -> int:
        """Write a folder with weights, configuration and tokenizer that `load_model` reads.

        The folder appears whole or not at all. Returns its bytes. overwrite: replaces a model's
        folder that is there. Raises InvalidArgumentError when `path` may not be replaced.
        """
        from marlin.model_saving import write_folder

        return write_folder(
            self.model,
            self.tokenizer,
            Path(path),
            overwrite=overwrite,
            progress=progress if progress is not None else _silent,
        )

    def dispose(self) -> None:
        """Frees the weights, whoever still holds this object or a module; may be called again."""
        if self._parts is None:
            return
        for module in self._parts[0].modules():
            release(module)
            for held in (module._parameters, module._buffers):
                held.update(dict.fromkeys(held))
        self._parts = None
        # Modules of transformers refer to each other in cycles.
        gc.collect()

    def _parts_if_alive(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if self._parts is None:
            raise UnknownHandleError(f"The model of `{self.path}` was disposed.")
        return self._parts


def load_model(
    path: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    quantize: Mapping[str, Any] | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    progress: Progress | None = None,
) -> LoadedModel:
    """Load a causal LM of transformers and its tokenizer; a quantised checkpoint stays as it is.

    path: a folder, or a hub id.
    dtype: float16, bfloat16 or float32 for the float weights; None takes the checkpoint's.
    device: where the model goes; None is the CPU.
    quantize: options of `LoadedModel.quantize`; None leaves the weights as they are.
    revision: branch, tag or commit of a hub id.
    local_files_only: looks for a hub id in the local cache only.
    progress: see `Progress`.

    Raises CheckpointNotFoundError, CheckpointUnsafeError (the weights are pickles),
    CheckpointInvalidError (files are truncated or do not fit each other), UnsupportedError (an
    architecture or a quantization that is not served, a device that is not there) and
    InvalidArgumentError.
    """
    report = progress if progress is not None else _silent
    wanted_dtype = _checked_dtype(dtype)
    wanted_device = _checked_device(device)
    folder = find_folder(
        path, revision=revision, local_files_only=local_files_only, progress=report
    )
    _check_quantization(folder, inspect_checkpoint(folder).quantization, quantize)
    try:
        # transformers takes seconds to import; `import marlin` must not.
        from marlin import transformers_loading
    except ImportError as err:
        raise ModuleNotFound(
            f"Loading a model needs transformers, `pip install transformers`: {err}"
        ) from err

    model = transformers_loading.read_model(
        folder, wanted_dtype, lambda done, total: report("load", done, total, "")
    )
    tokenizer = transformers_loading.read_tokenizer(folder)
    loaded = LoadedModel(str(path), model, tokenizer)
    try:
        if quantize is not None:
            # On the CPU, before the move: the device then never holds the float weights.
            loaded.quantize(progress=report, **quantize)
        nn.Module.to(model, wanted_device)
        fuse_(model)
    except BaseException:
        # The traceback refers to the model for as long as somebody keeps the error.
        loaded.dispose()
        raise
    return loaded


def _silent(phase: str, done: int, total: int, text: str) -> None:
    return


def _check_quantization(
    folder: Path, described: Mapping[str, Any] | None, quantize: Mapping[str, Any] | None
) -> None:
    if described is None:
        return
    if described.get("quant_method") != "marlin":
        raise UnsupportedError(
            f"`{folder}` is quantized by {described.get('quant_method')!r}; float and marlin "
            "checkpoints are served."
        )
    if quantize is not None:
        raise InvalidArgumentError(
            f"`quantize` must be None for a model that is quantized already, as `{folder}` is."
        )


def _checked_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None:
        return None
    known = {dtype_name(value): value for value in FLOAT_DTYPES}
    value = known.get(dtype) if isinstance(dtype, str) else dtype
    if value not in FLOAT_DTYPES:
        raise InvalidArgumentError(
            f"`dtype` must be None or one of {', '.join(known)}, got {shown(dtype)}."
        )
    return value


def _checked_device(device: str | torch.device | None) -> torch.device:
    try:
        wanted = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as err:
        raise InvalidArgumentError(
            f'`device` must be a device of torch such as "cpu" or "cuda:0", got {shown(device)}.'
        ) from err
    if wanted.type == "cpu":
        return wanted
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    count = torch.accelerator.device_count()
    if accelerator is None or accelerator.type != wanted.type or (wanted.index or 0) >= count:
        raise UnsupportedError(f"`device` {wanted} is not there on this machine.")
    return wanted


def _quantized_layers(model: nn.Module) -> list[QuantizedLinear]:
    return [module for module in model.modules() if isinstance(module, QuantizedLinear)]


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _held_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers; what several share is counted once."""
    return sum(
        {
            storage.data_ptr(): storage.nbytes()
            for storage in (tensor.untyped_storage() for tensor in _tensors(model))
        }.values()
    )


def _device(model: nn.Module) -> torch.device:
    return next(_tensors(model)).device


def _kernel(device: torch.device) -> dict[str, object]:
    info = kernel_info(device)
    return {"kernel": info.kernel, "reason": info.reason}


def _quantization(layers: list[QuantizedLinear]) -> dict[str, object] | None:
    """The format of the layers; None for what layers differ in."""
    if not layers:
        return None

    def common(attribute: str) -> object:
        values = {getattr(layer, attribute) for layer in layers}
        return values.pop() if len(values) == 1 else None

    settings = {name: common(name) for name in ("bits", "group_size", "symmetric")}
    return {**settings, "layers": len(layers)}
