"""A module with a packed weight: its layout, its moves between devices, its state dict.

The part of `QuantizedLinear` that knows where each code lies; it multiplies nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from marlin import ops
from marlin.act_order import check_g_idx, group_order, has_order, sort_rows, unsort_rows
from marlin.errors import InvalidArgumentError
from marlin.primitives import (
    EMPTY_SCALE,
    FLOAT_DTYPES,
    ZEROS_PER_WORD,
    check_group_size,
    check_scales,
    check_symmetric,
    codes_per_word,
    dtype_name,
    group_rows,
    padded_in_features,
    padded_out_features,
    zero_word,
)

__all__ = ["PackedWeight"]


class PackedWeight(nn.Module):
    """The weight of a Linear in few bits; the table in `QuantizedLinear` has its tensors.

    A fresh one is zero. Arguments: see `QuantizedLinear`.
    """

    bits: ClassVar[int]
    in_features: int
    out_features: int
    group_size: int
    symmetric: bool
    qweight: Tensor
    scales: Tensor
    qzeros: Tensor | None
    g_idx: Tensor | None
    perm: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        group_size: int,
        symmetric: bool,
        device: torch.device | str | int | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidArgumentError(f"`{name}` must be a positive integer, got {value!r}.")
        check_group_size(group_size)
        check_symmetric(symmetric, self.bits)
        dtype = torch.get_default_dtype() if dtype is None else dtype
        if dtype not in FLOAT_DTYPES:
            raise InvalidArgumentError(
                f"`dtype` must be float16, bfloat16 or float32, got {dtype_name(dtype)}."
            )
        self.in_features = in_features
        self.out_features = out_features
        self.group_size = group_size
        self.symmetric = symmetric
        shapes = self.plain_shapes
        word = zero_word(self.bits)
        qweight = torch.full(shapes["qweight"], word, dtype=torch.int32, device=device)
        scales = torch.full(shapes["scales"], EMPTY_SCALE, dtype=dtype, device=device)
        qzeros = None if symmetric else qweight.new_full(shapes["qzeros"], word)
        self.register_buffer("g_idx", None)
        self.register_buffer("perm", None, persistent=False)
        self.register_buffer("qweight", self._pack("qweight", qweight))
        self.register_buffer("scales", self._pack("scales", scales))
        self.register_buffer("qzeros", None if qzeros is None else self._pack("qzeros", qzeros))

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
    def plain_shapes(self) -> dict[str, tuple[int, int]]:
        """Name -> shape in a state dict, of each tensor that is packed."""
        shapes = {
            "qweight": (self.size_k // codes_per_word(self.bits), self.size_n),
            "scales": (self.num_groups, self.size_n),
        }
        if not self.symmetric:
            shapes["qzeros"] = (self.num_groups, self.size_n // ZEROS_PER_WORD)
        return shapes

    @property
    def is_packed(self) -> bool:
        """Whether `qweight` has the packed layout of a device, rather than the plain one."""
        return _is_packed(self.qweight)

    @property
    def weight_bytes(self) -> int:
        """Bytes that the weight takes in memory: codes, scales and zero points, with padding."""
        tensors = (self.qweight, self.scales, self.qzeros, self.g_idx, self.perm)
        return sum(t.nbytes for t in tensors if t is not None)

    def plain_qweight(self) -> Tensor:
        """`qweight` in the plain layout, (K * bits / 32, N), its rows as the model has them."""
        if not self.is_packed:
            return self.qweight
        plain = ops.unpack(self.qweight, self.size_n, self.size_k, self.bits)
        return plain if self.perm is None else unsort_rows(plain, self.perm, self.bits)

    def plain_scales(self) -> Tensor:
        """`scales` in the plain layout, (G, N)."""
        return self._unpack_groups(self.scales)

    def plain_qzeros(self) -> Tensor | None:
        """`qzeros` in the plain layout, (G, N / 8); None when symmetric."""
        return None if self.qzeros is None else self._unpack_groups(self.qzeros)

    def plain_tensor(self, name: str) -> Tensor:
        """The plain form of `name`, one of `plain_shapes`: what a state dict holds."""
        of = {
            "qweight": self.plain_qweight,
            "scales": self.plain_scales,
            "qzeros": self.plain_qzeros,
        }
        plain = of[name]()
        assert plain is not None
        return plain

    def _pack(self, name: str, plain: Tensor) -> Tensor:
        """A tensor of `plain_shapes` as its device holds it; `qweight` sets `perm`, too."""
        if name == "qweight":
            return self._pack_qweight(plain)
        return ops.groups_of_device(plain, self.size_n)

    def _pack_qweight(self, qweight: Tensor) -> Tensor:
        self.perm = None
        # A g_idx on meta is still to come, and the codes wait for it: transformers 4 brings the
        # tensors of a layer one by one.
        if qweight.is_meta or (self.g_idx is not None and self.g_idx.is_meta):
            return qweight
        if self.g_idx is not None:
            self.perm = group_order(self.g_idx)
            qweight = sort_rows(qweight, self.perm, self.bits)
        return ops.repack(qweight, self.size_n, self.size_k, self.bits)

    def _unpack_groups(self, tensor: Tensor) -> Tensor:
        if _is_packed(tensor):
            return ops.unpack_groups(tensor, self.size_n)
        # Of a fused layer: columns of a wider tensor.
        is_part = tensor.nbytes < tensor.untyped_storage().nbytes()
        return tensor.clone(memory_format=torch.contiguous_format) if is_part else tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.qweight.device
        after = fn(torch.empty(0, dtype=torch.int32, device=before)).device
        # Each type of device has a packed layout of its own.
        moves = after.type != before.type
        packed = list(self.plain_shapes) if moves else []
        for name in packed:
            setattr(self, name, self.plain_tensor(name))
        try:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        finally:
            for name in packed:
                setattr(self, name, self._pack(name, getattr(self, name)))
        return self

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in self.plain_shapes:
            destination[prefix + name] = self.plain_tensor(name)

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
        super()._load_from_state_dict(
            self._take_plain(state_dict, prefix, assign),
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )

    def _take_plain(self, state_dict: dict[str, Any], prefix: str, assign: bool) -> dict[str, Any]:
        """`state_dict` with tensors as the module holds them; makes room for what arrives."""
        arriving = dict(state_dict)
        g_idx = state_dict.get(prefix + "g_idx")
        if isinstance(g_idx, Tensor) and isinstance(state_dict.get(prefix + "qweight"), Tensor):
            if not g_idx.is_meta and not has_order(g_idx):
                self.g_idx = None
                del arriving[prefix + "g_idx"]
            else:
                self.g_idx = g_idx if assign else g_idx.to(self.qweight.device, copy=True)
        for name in self.plain_shapes:
            plain = state_dict.get(prefix + name)
            if not isinstance(plain, Tensor):
                continue  # the base class reports it as missing
            held = self._pack(name, plain if assign else plain.to(self.qweight.device))
            arriving[prefix + name] = held
            if assign:  # the layout, and with it the shape, is that of the arriving device
                setattr(self, name, torch.empty_like(held, device="meta"))
        return arriving

    def _check_arriving(self, state_dict: dict[str, Any], prefix: str, assign: bool) -> None:
        for name, shape in self.plain_shapes.items():
            dtypes = FLOAT_DTYPES if name == "scales" else (torch.int32,)
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
        g_idx = state_dict.get(prefix + "g_idx")
        if not isinstance(g_idx, Tensor):
            return
        check_g_idx(g_idx, self.size_k, self.num_groups, owner=prefix)
        if self.is_packed and prefix + "qweight" not in state_dict:
            raise InvalidArgumentError(
                f"`{prefix}g_idx` must come with `{prefix}qweight`, whose rows it orders."
            )


def _is_packed(tensor: Tensor) -> bool:
    """Packed tensors begin with the blocks of columns; plain ones are matrices."""
    return tensor.ndim == 3
