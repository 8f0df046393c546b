"""The base of `Int4Linear` and `Int8Linear`. Knows no model, file or calibration."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import Self

from marlin import ops
from marlin.act_order import check_g_idx, has_order, pad_g_idx
from marlin.activations import check_activation
from marlin.errors import InvalidArgumentError
from marlin.layouts import pad_plain
from marlin.packed_weight import PackedWeight
from marlin.primitives import (
    FLOAT_DTYPES,
    check_group_size,
    check_layout,
    check_scales,
    codes_per_word,
    pack_codes,
    pack_zeros,
)
from marlin.rounding import quantize

__all__ = ["QuantizedLinear"]


class QuantizedLinear(PackedWeight):
    """`y = x W^T + b` with W in few bits; takes and returns what `nn.Linear` of this shape does.

    With K = in_features and N = out_features, both padded inside (see primitives.py),
    G = K / group_size groups (1 for group_size -1), and w = 32 / bits codes in a word:

    | tensor    | dtype     | shape in a state dict | shape in the module                         |
    |-----------|-----------|-----------------------|---------------------------------------------|
    | `qweight` | int32     | (K / w, N)            | the device's packed one, see `ops.repack`   |
    | `scales`  | `dtype`   | (G, N)                | on the CPU (ceil(N / 64), G, 64)            |
    | `qzeros`  | int32     | (G, N / 8)            | (ceil(N / 64), G, 8); None when symmetric   |
    | `bias`    | `dtype`   | (out_features,)       | a Parameter; None without bias              |
    | `g_idx`   | int32     | (K,)                  | (K,); None where groups are neighbours      |
    | `perm`    | int32     | absent                | (K,); None without `g_idx`, and on meta     |

    A state dict always has the plain layout, so it moves between kernels and devices; on the meta
    device the tensors are plain, too. `plain_qweight`, `plain_scales` and `plain_qzeros` give the
    plain form of what a module holds; see `ops.pack_groups` for that of scales. The weight is
    fixed: gradients flow to the input and the bias. With activation order (`g_idx`, see
    act_order.py) the packed rows are sorted into groups.

    in_features, out_features, bias, device, dtype: as for `nn.Linear`; dtype float16, bfloat16 or
        float32 is that of scales and bias, activations may have any of the three.
    group_size: rows that share a scale: 32, 64, 128, or -1 for a whole column.
    symmetric: every zero point is 2^(bits - 1); otherwise each group has its own in `qzeros`, which
        is for 4 bits only.
    activation: the number format that inputs are multiplied in, see `ops.gemm`. May be set later,
        and is not part of the state dict.

    A fresh module holds a weight of zeros; `from_linear` and `from_quantized` make a useful one.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        group_size: int = 128,
        symmetric: bool = True,
        activation: str = "auto",
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            group_size=group_size,
            symmetric=symmetric,
            device=device,
            dtype=dtype,
        )
        self.activation = activation
        parameter = nn.Parameter(self.scales.new_zeros(out_features)) if bias else None
        self.register_parameter("bias", parameter)

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        group_size: int = 128,
        symmetric: bool = True,
        *,
        search: bool = True,
        importance: Tensor | None = None,
        scale_dtype: torch.dtype | None = None,
        activation: str = "auto",
    ) -> Self:
        """Rounds the weight of `linear`, on its device; shares its bias Parameter.

        search, importance, scale_dtype: see `rounding.quantize`.
        """
        check_activation(activation, cls.bits)
        codes, scales, zeros = quantize(
            linear.weight,
            group_size,
            symmetric=symmetric,
            search=search,
            importance=importance,
            scale_dtype=scale_dtype,
            bits=cls.bits,
        )
        layer = cls.from_quantized(
            pack_codes(codes, cls.bits),
            scales,
            None if zeros is None else pack_zeros(zeros),
            linear.bias,
            group_size=group_size,
            in_features=linear.in_features,
            out_features=linear.out_features,
            activation=activation,
        )
        return layer.train(linear.training)

    @classmethod
    def from_quantized(
        cls,
        qweight: Tensor,
        scales: Tensor,
        qzeros: Tensor | None = None,
        bias: Tensor | None = None,
        *,
        group_size: int = 128,
        in_features: int | None = None,
        out_features: int | None = None,
        g_idx: Tensor | None = None,
        activation: str = "auto",
    ) -> Self:
        """A layer of tensors in the plain layout (the table above), which are checked.

        Sizes that the kernels cannot take are padded. in_features and out_features are those of the
        tensors by default; smaller ones say which rows and columns are padding. A `bias` that is a
        Parameter is shared.
        """
        check_group_size(group_size)
        rows = qweight.shape[0] * codes_per_word(cls.bits)
        in_features = rows if in_features is None else in_features
        out_features = qweight.shape[-1] if out_features is None else out_features
        qweight, scales, qzeros = pad_plain(qweight, scales, qzeros, group_size, cls.bits)
        size_n, size_k = check_layout(qweight, scales, qzeros, group_size, bits=cls.bits)
        check_scales(scales)
        layer = cls(
            in_features,
            out_features,
            bias is not None,
            group_size=group_size,
            symmetric=qzeros is None,
            activation=activation,
            device="meta",
            dtype=scales.dtype,
        )
        if layer.plain_shapes["qweight"] != qweight.shape:
            raise InvalidArgumentError(
                f"`qweight` must hold {layer.size_k} rows and {layer.size_n} columns for "
                f"{in_features} -> {out_features} features, got {size_k} and {size_n}."
            )
        if bias is not None:
            if bias.shape != (out_features,):
                raise InvalidArgumentError(
                    f"`bias` must have shape [{out_features}], got {list(bias.shape)}."
                )
            layer.bias = bias if isinstance(bias, nn.Parameter) else nn.Parameter(bias)
        if g_idx is not None:
            g_idx = pad_g_idx(g_idx, size_k, layer.num_groups)
            check_g_idx(g_idx, size_k, layer.num_groups)
            layer.g_idx = g_idx if has_order(g_idx) else None
        layer.qweight = layer._pack("qweight", qweight)
        layer.scales = layer._pack("scales", scales)
        layer.qzeros = None if qzeros is None else layer._pack("qzeros", qzeros)
        return layer

    @property
    def activation(self) -> str:
        """The number format that inputs are multiplied in."""
        return self._activation

    @activation.setter
    def activation(self, activation: str) -> None:
        check_activation(activation, self.bits)
        self._activation = activation

    def dequantize(self) -> Tensor:
        """The weight (out_features, in_features) that the layer multiplies by, in its dtype."""
        weight = ops.dequantize(
            self.qweight,
            self.scales,
            self.qzeros,
            self.size_n,
            self.size_k,
            self.group_size,
            self.bits,
        )
        if self.perm is not None:
            weight = weight[:, self.perm.argsort()]
        return weight[: self.out_features, : self.in_features]

    def forward(self, input: Tensor) -> Tensor:
        """input: (..., in_features); returns (..., out_features) in its dtype, or in autocast's."""
        if input.ndim == 0 or input.shape[-1] != self.in_features:
            raise InvalidArgumentError(
                f"`input` must have {self.in_features} columns, got shape {list(input.shape)}."
            )
        device = input.device.type
        # torch refuses to be asked about autocast on the meta device.
        autocast = not input.is_meta and torch.is_autocast_enabled(device)
        if autocast and input.dtype in FLOAT_DTYPES:
            input = input.to(torch.get_autocast_dtype(device))
        padding = self.size_n - self.out_features
        bias: Tensor | None = self.bias
        if bias is not None and padding:
            bias = functional.pad(bias, (0, padding))
        tensors = self._buffers  # as attributes they would take half a microsecond each
        output = ops.gemm(
            input,
            tensors["qweight"],  # type: ignore[arg-type]  # never None
            tensors["scales"],  # type: ignore[arg-type]
            tensors["qzeros"],
            bias,
            self.size_n,
            self.size_k,
            self.group_size,
            perm=tensors["perm"],
            bits=self.bits,
            activation=self._activation,
        )
        return output[..., : self.out_features].contiguous() if padding else output

    def format_repr(self) -> str:
        """What two layers must share to hold the same tensors."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, group_size={self.group_size}, "
            f"symmetric={self.symmetric}"
        )

    def extra_repr(self) -> str:
        order = ", act_order=True" if self.g_idx is not None else ""
        activation = f", activation={self.activation!r}" if self.activation != "auto" else ""
        return self.format_repr() + order + activation
