"""Lets transformers' `from_pretrained` load the folders of quantised models (method "marlin").

Linears become empty quantised ones before the weights are read, so float weights never exist.
Importing this module registers the method, once. Knows no paths.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from marlin.errors import CheckpointInvalidError
from marlin.quantization_config import swap_for_config
from marlin.quantized_linear import QuantizedLinear

__all__ = ["MarlinConfig", "MarlinQuantizer", "pack_loaded"]


@register_quantization_config("marlin")
class MarlinConfig(QuantizationConfigMixin):
    """The `quantization_config` of config.json, kept as it is; swap_for_config checks it."""

    def __init__(self, quant_method: str = "marlin", **settings: object) -> None:
        # Declared as an enum of transformers' own methods; a registered one is its plain name.
        self.quant_method = quant_method  # type: ignore[assignment]
        self.settings = settings

    def to_dict(self) -> dict[str, Any]:
        """As in config.json."""
        return {"quant_method": self.quant_method, **self.settings}


@register_quantizer("marlin")
class MarlinQuantizer(HfQuantizer):
    """transformers' view of a quantised checkpoint."""

    requires_calibration = True  # so: only for checkpoints that are quantized already
    serialized_names: dict[str, list[str]] = {}  # noqa: RUF012  # as the base declares it

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, **kwargs: object
    ) -> PreTrainedModel:
        swap_for_config(model, self.quantization_config.to_dict())
        return model

    def _process_model_after_weight_loading(
        self, model: PreTrainedModel, **kwargs: object
    ) -> PreTrainedModel:
        pack_loaded(model)
        return model

    def is_serializable(self) -> bool:
        """Saving goes through `marlin.models.save_model`, and transformers' own way works, too."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Adapters may train on top: gradients reach the input."""
        return True


def pack_loaded(model: nn.Module) -> None:
    """Packs the codes of every `QuantizedLinear` whose tensors arrived in the plain layout.

    Raises CheckpointInvalidError when a tensor is missing or does not fit.
    """
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear):
            _pack(name, module)


def _pack(name: str, module: QuantizedLinear) -> None:
    # transformers 5 puts the file's tensors in place; 4 loads them as a state dict, which packs.
    if module.is_packed:
        return
    arrived = module.state_dict(keep_vars=True)
    missing = [key for key, tensor in arrived.items() if tensor.is_meta]
    if missing:
        raise CheckpointInvalidError(f"The checkpoint has no `{name}.{missing[0]}`.")
    try:
        module.load_state_dict(arrived, assign=True)
    except RuntimeError as err:
        raise CheckpointInvalidError(f"Layer `{name}` does not fit: {err}") from err
