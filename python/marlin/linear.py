"""`Int4Linear`: `nn.Linear` with its weight in 4 bits. Knows no model, file or calibration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import Self

from marlin import ops
from marlin.errors import InvalidArgumentError
from marlin.layouts import pad_plain
from marlin.primitives import (
    CODES_PER_WORD,
    EMPTY_SCALE,
    FLOAT_DTYPES,
    ZERO_WORD,
    check_group_size,
    check_layout,
    check_scales,
    dtype_name,
    group_rows,
    pack_codes,
    pack_zeros,
    padded_in_features,
    padded_out_features,
)
from marlin.rounding import quantize

__all__ = ["Int4Linear"]


class Int4Linear(nn.Module):
    """`y = x W^T + b` with W in 4 bits; takes and returns what `nn.Linear` of this shape does.

    With K = in_features and N = out_features, both padded inside (see primitives.py), and
    G = K / group_size groups (1 for group_size -1):

    | tensor    | dtype     | shape in a state dict | shape in the module                     |
    |-----------|-----------|-----------------------|-----------------------------------------|
    | `qweight` | int32     | (K / 8, N)            | the device's packed one, see `ops.repack` |
    | `scales`  | `dtype`   | (G, N)                | (G, N)                                  |
    | `qzeros`  | int32     | (G, N / 8)            | (G, N / 8); None when symmetric         |
    | `bias`    | `dtype`   | (out_features,)       | a Parameter; None without bias          |

    A state dict always has the plain layout, so it moves between kernels and devices. On the meta
    device `qweight` is plain, too. The weight is fixed: gradients flow to the input and the bias.

    in_features, out_features, bias, device, dtype: as for `nn.Linear`; dtype float16, bfloat16 or
        float32 is that of scales and bias, activations may have any of the three.
    group_size: rows that share a scale: 32, 64, 128, or -1 for a whole column.
    symmetric: every zero point is 8; otherwise each group has its own in `qzeros`.

    A fresh module holds a weight of zeros; `from_linear` and `from_quantized` make a useful one.
    """

    in_features: int
    out_features: int
    group_size: int
    symmetric: bool
    qweight: Tensor
    scales: Tensor
    qzeros: Tensor | None
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        group_size: int = 128,
        symmetric: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidArgumentError(f"`{name}` must be a positive integer, got {value!r}.")
        check_group_size(group_size)
        dtype = torch.get_default_dtype() if dtype is None else dtype
        if dtype not in FLOAT_DTYPES:
            raise InvalidArgumentError(
                f"`dtype` must be float16, bfloat16 or float32, got {dtype_name(dtype)}."
            )
        self.in_features = in_features
        self.out_features = out_features
        self.group_size = group_size
        self.symmetric = symmetric
        scales_shape = (self.num_groups, self.size_n)
        zeros_shape = (self.num_groups, self.size_n // CODES_PER_WORD)
        qweight = torch.full(self.plain_shape, ZERO_WORD, dtype=torch.int32, device=device)
        scales = torch.full(scales_shape, EMPTY_SCALE, dtype=dtype, device=device)
        qzeros = None if symmetric else qweight.new_full(zeros_shape, ZERO_WORD)
        self.register_buffer("qweight", self._pack(qweight))
        self.register_buffer("scales", scales)
        self.register_buffer("qzeros", qzeros)
        parameter = nn.Parameter(scales.new_zeros(out_features)) if bias else None
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
    ) -> Self:
        """Rounds the weight of `linear` to 4 bits, on its device; shares its bias Parameter.

        search, importance, scale_dtype: see `rounding.quantize`.
        """
        codes, scales, zeros = quantize(
            linear.weight,
            group_size,
            symmetric=symmetric,
            search=search,
            importance=importance,
            scale_dtype=scale_dtype,
        )
        layer = cls.from_quantized(
            pack_codes(codes),
            scales,
            None if zeros is None else pack_zeros(zeros),
            linear.bias,
            group_size=group_size,
            in_features=linear.in_features,
            out_features=linear.out_features,
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
    ) -> Self:
        """A layer of tensors in the plain layout (the table above), which are checked.

        Sizes that the kernels cannot take are padded. in_features and out_features are those of the
        tensors by default; smaller ones say which rows and columns are padding. A `bias` that is a
        Parameter is shared.
        """
        check_group_size(group_size)
        in_features = qweight.shape[0] * CODES_PER_WORD if in_features is None else in_features
        out_features = qweight.shape[-1] if out_features is None else out_features
        qweight, scales, qzeros = pad_plain(qweight, scales, qzeros, group_size)
        size_n, size_k = check_layout(qweight, scales, qzeros, group_size)
        check_scales(scales)
        layer = cls(
            in_features,
            out_features,
            bias is not None,
            group_size=group_size,
            symmetric=qzeros is None,
            device="meta",
            dtype=scales.dtype,
        )
        if layer.plain_shape != qweight.shape:
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
        layer.qweight = layer._pack(qweight)
        layer.scales = scales
        layer.qzeros = qzeros
        return layer

    @property
    def size_k(self) -> int:
        """K: `in_features` with the padding."""
        return padded_in_features(self.in_features, self.group_size)

    @property
    def size_n(self) -> int:
        """N: `out_features` with the padding."""
        return padded_out_features(self.out_features)

    @property
    def num_groups(self) -> int:
        """G, the scales of one column."""
        return self.size_k // group_rows(self.size_k, self.group_size)

    @property
    def plain_shape(self) -> tuple[int, int]:
        """(K / 8, N), the shape of `qweight` in a state dict."""
        return self.size_k // CODES_PER_WORD, self.size_n

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weight takes in memory: codes, scales and zero points, with padding."""
        tensors = (self.qweight, self.scales, self.qzeros)
        return sum(t.nbytes for t in tensors if t is not None)

    def plain_qweight(self) -> Tensor:
        """`qweight` int32 (K / 8, N) in the plain layout."""
        if self.qweight.is_meta:
            return self.qweight
        return ops.unpack(self.qweight, self.size_n, self.size_k)

    def dequantize(self) -> Tensor:
        """The weight (out_features, in_features) that the layer multiplies by, in its dtype."""
        weight = ops.dequantize(
            self.qweight, self.scales, self.qzeros, self.size_n, self.size_k, self.group_size
        )
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
        output = ops.gemm(
            input,
            self.qweight,
            self.scales,
            self.qzeros,
            bias,
            self.size_n,
            self.size_k,
            self.group_size,
        )
        return output[..., : self.out_features].contiguous() if padding else output

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, group_size={self.group_size}, "
            f"symmetric={self.symmetric}"
        )

    def _pack(self, qweight: Tensor) -> Tensor:
        return qweight if qweight.is_meta else ops.repack(qweight, self.size_n, self.size_k)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.qweight.device
        after = fn(torch.empty(0, dtype=torch.int32, device=before)).device
        # Each type of device has a packed layout of its own.
        moves = after.type != before.type
        if moves:
            self.qweight = self.plain_qweight()
        try:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        finally:
            if moves:
                self.qweight = self._pack(self.qweight)
        return self

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "qweight"] = self.plain_qweight()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        assign = bool(local_metadata.get("assign_to_params_buffers", False))
        try:
            self._check_arriving(state_dict, prefix, assign)
        except InvalidArgumentError as err:
            error_msgs.append(str(err))
            return
        qweight = state_dict.get(prefix + "qweight")
        if isinstance(qweight, Tensor):
            qweight = self._pack(qweight if assign else qweight.to(self.qweight.device))
            state_dict = {**state_dict, prefix + "qweight": qweight}
            if assign:  # the layout, and with it the shape, is that of the arriving device
                self.qweight = torch.empty_like(qweight, device="meta")
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )

    def _check_arriving(self, state_dict: dict[str, Any], prefix: str, assign: bool) -> None:
        size_n, groups = self.size_n, self.num_groups
        wanted: dict[str, tuple[tuple[torch.dtype, ...], tuple[int, ...]]] = {
            "qweight": ((torch.int32,), self.plain_shape),
            "scales": (FLOAT_DTYPES, (groups, size_n)),
        }
        if not self.symmetric:
            wanted["qzeros"] = ((torch.int32,), (groups, size_n // CODES_PER_WORD))
        for name, (dtypes, shape) in wanted.items():
            tensor = state_dict.get(prefix + name)
            if not isinstance(tensor, Tensor):
                continue  # the base class reports it as missing
            if tensor.dtype not in dtypes or tensor.shape != shape:
                raise InvalidArgumentError(
                    f"`{prefix}{name}` must be {' or '.join(map(dtype_name, dtypes))} of shape "
                    f"{list(shape)}, got {dtype_name(tensor.dtype)} of shape {list(tensor.shape)}."
                )
            if name == "scales" and not tensor.is_meta:
                # As they will be stored: a scale may fit float32 and not float16.
                check_scales(tensor if assign else tensor.to(self.scales.dtype), owner=prefix)
