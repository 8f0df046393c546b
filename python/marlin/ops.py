"""The compiled operators `torch.ops.marlin.*`: typed functions, fake kernels, autograd.

Shapes, with K = size_k, N = size_n, G = K / group_size (1 for group_size -1); docs/architecture.md
defines the plain and the packed layout.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from marlin.errors import (
    InternalError,
    InvalidArgumentError,
    KernelUnavailableError,
    MarlinError,
    UnsupportedError,
)
from marlin.kernel_info import KernelInfo, kernel_info
from marlin.library import is_loaded, no_kernels, require_library

__all__ = [
    "KernelInfo",
    "dequantize",
    "gemm",
    "groups_of_device",
    "join",
    "kernel_info",
    "pack_groups",
    "repack",
    "unpack",
    "unpack_groups",
]

_BLOCK_COLUMNS = 64
_WORD_BITS = 32
_CUDA_TILE_ROWS = 128  # csrc/cuda/layout.h
_CUDA_TILE_STEPS = 8

# Errors of csrc arrive as RuntimeError("marlin:<code>: <sentence>").
_NATIVE_ERROR = re.compile(r"marlin:(\w+): (.*)", re.DOTALL)
_NATIVE_CODES: dict[str, type[MarlinError]] = {
    error.code: error for error in (InvalidArgumentError, KernelUnavailableError, UnsupportedError)
}


def gemm(
    a: Tensor,
    qweight: Tensor,
    scales: Tensor,
    qzeros: Tensor | None,
    bias: Tensor | None,
    size_n: int,
    size_k: int,
    group_size: int,
    *,
    perm: Tensor | None = None,
    bits: int = 4,
    activation: str = "auto",
    epilogue: str = "none",
) -> Tensor:
    """Multiplies activations with packed weights: a @ w.T + bias.

    Args:
        a: (..., k) float16, bfloat16 or float32, k <= K; missing columns count as zero.
        qweight: int32, packed by `repack`, with the same `bits`, for the device of `a`.
        scales: float16, bfloat16 or float32, packed by `pack_groups` or plain, (G, N): slower, as
            each group of a block of columns then lies on a page of its own.
        qzeros: int32, packed as the scales are or plain, (G, N / 8), or None: symmetric, every
            zero point is 2^(bits - 1). None with 8 bits.
        bias: (N,) float16, bfloat16 or float32, or None.
        size_n: N, a multiple of 8.
        size_k: K, a multiple of 32 and of group_size.
        group_size: a multiple of 32, or -1 for one group over all of K.
        perm: (K,) int32, values in 0 .. K - 1, or None: row i of the weights meets column perm[i]
            of `a` (act-order). That it names each column once is left to the caller.
        bits: of a code, 4 or 8.
        activation: the number format in which `a` is multiplied; docs/quantization.md has the
            errors. "auto" keeps the precision: bfloat16 as it is where the CPU can multiply it by
            codes of 4 bits, everything else as "int16". "int16": integers with a scale per stretch
            of at most 64 rows of K, off by less than 1e-4. "int8": of at most 128, about 1e-2.
            "bfloat16": rounded, about 2e-3; 4 bits only, on a CPU with bfloat16 dot products.
            On CUDA "auto" is float16 where `a`, `scales` and `bias` all are, and "bfloat16", for
            activations below 2^28, where one is not; the integers are not there. What has another
            dtype is converted in each call.
        epilogue: "none", or "silu_mul": the first half of the columns gates the other half,
            silu(gate) * other, in float32. N is then a multiple of 128. On CUDA both halves are
            rounded to the dtype of the product before.

    Returns:
        (..., N), or (..., N / 2) with "silu_mul", in the dtype of `a`; differentiable in `a` and
        `bias` without an epilogue.

    Raises:
        InvalidArgumentError: an argument has another type, shape, dtype, device or value.
        UnsupportedError: no kernel for this device or format; a gradient of the scales, or through
            an epilogue, is asked for.
        KernelUnavailableError: MARLIN_CPU_KERNEL forces a kernel that cannot run here.
        ExtensionMissingError: the library is not built or does not load.
    """
    return _call(
        "gemm",
        a,
        qweight,
        scales,
        qzeros,
        bias,
        perm,
        size_n,
        size_k,
        group_size,
        bits,
        activation,
        epilogue,
    )


def repack(qweight: Tensor, size_n: int, size_k: int, bits: int = 4) -> Tensor:
    """Turns plain codes (K * bits / 32, N) int32 into the packed layout of their device.

    Raises the errors of `gemm`.
    """
    return _call("repack", qweight, size_n, size_k, bits)


def unpack(qweight: Tensor, size_n: int, size_k: int, bits: int = 4) -> Tensor:
    """Turns packed codes back into the plain layout (K * bits / 32, N): the inverse of `repack`.

    Raises the errors of `gemm`.
    """
    return _call("unpack", qweight, size_n, size_k, bits)


def join(parts: Sequence[Tensor]) -> Tensor:
    """Packed tensors of one K and one dtype, (blocks, rows, columns), one after the other.

    What `torch.cat` gives along the first dimension, in memory as `repack` allocates it: in huge
    pages where the system grants them. Not differentiable. Raises the errors of `gemm`.
    """
    if not parts:
        raise InvalidArgumentError("`parts`: expected at least one tensor, got none")
    return _call("join", list(parts))


def pack_groups(plain: Tensor, size_n: int) -> Tensor:
    """Packs plain scales (G, N), or zero points (G, N / 8), into new memory.

    Returns (ceil(N / 64), G, 64) or (ceil(N / 64), G, 8): what belongs to the columns of a block
    of `repack` stands together. Padding is zero. Not an operator; any device.
    """
    groups, width = plain.shape
    blocks = -(-size_n // _BLOCK_COLUMNS)
    columns = _BLOCK_COLUMNS * width // size_n
    padded = functional.pad(plain, (0, blocks * columns - width))
    return padded.reshape(groups, blocks, columns).transpose(0, 1).contiguous()


def groups_of_device(plain: Tensor, size_n: int) -> Tensor:
    """Plain scales or zero points as the kernels of their device like them.

    Packed (see `pack_groups`) on the CPU, plain elsewhere.
    """
    return pack_groups(plain, size_n) if plain.device.type == "cpu" else plain


def unpack_groups(packed: Tensor, size_n: int) -> Tensor:
    """Plain scales (G, N) or zero points (G, N / 8) in new memory: the inverse of `pack_groups`."""
    _, groups, columns = packed.shape
    rows = packed.transpose(0, 1).clone(memory_format=torch.contiguous_format)
    return rows.view(groups, -1)[:, : columns * size_n // _BLOCK_COLUMNS].contiguous()


def dequantize(
    qweight: Tensor,
    scales: Tensor,
    qzeros: Tensor | None,
    size_n: int,
    size_k: int,
    group_size: int,
    bits: int = 4,
) -> Tensor:
    """Turns packed weights into (N, K) floating point, in the dtype of `scales`.

    Columns are in the order of the packed rows: a `perm` is the caller's to undo. Arguments
    and errors are those of `gemm`; not differentiable.
    """
    return _call("dequantize", qweight, scales, qzeros, size_n, size_k, group_size, bits)


_Argument = Tensor | list[Tensor] | int | str | None


def _call(name: str, *arguments: _Argument) -> Tensor:
    require_library()
    op = getattr(torch.ops.marlin, name).default
    if torch.compiler.is_compiling():
        return op(*arguments)  # type: ignore[no-any-return]
    try:
        if torch.is_grad_enabled() or torch.is_inference_mode_enabled():
            return op(*arguments)  # type: ignore[no-any-return]
        # What the autograd of a custom operator does without gradients, in Python: 8 us later.
        with torch._C._AutoDispatchBelowAutograd():
            return op(*arguments)  # type: ignore[no-any-return]
    except (RuntimeError, TypeError) as error:
        _raise_typed(name, arguments, error)


def _raise_typed(
    name: str, arguments: tuple[_Argument, ...], error: RuntimeError | TypeError
) -> NoReturn:
    """Raises the typed error for one that came out of `torch.ops.marlin.<name>`."""
    native = _NATIVE_ERROR.search(str(error))
    if native is not None:
        code, sentence = native.groups()
        raise _NATIVE_CODES.get(code, InternalError)(sentence) from None

    schema = getattr(torch.ops.marlin, name).default._schema
    tensors: dict[str, Tensor] = {}
    for parameter, value in zip(schema.arguments, arguments, strict=True):
        kind = str(parameter.type)
        expected = {"int": int, "str": str}.get(kind, Tensor)
        items: dict[str, Any] = {parameter.name: value}
        if kind == "List[Tensor]" and isinstance(value, list):
            kind, items = "Tensor", _numbered(parameter.name, value)
        for item, held in items.items():
            if isinstance(held, Tensor):
                tensors[item] = held
            allowed = isinstance(held, expected) or (held is None and kind.startswith("Optional"))
            if not allowed:
                raise InvalidArgumentError(
                    f"`{item}`: expected {kind}, got {type(held).__name__}"
                ) from error
    _require_one_device(**tensors)
    if isinstance(error, NotImplementedError):
        raise no_kernels(next(iter(tensors.values())).device.type) from error
    raise error


def _numbered(name: str, tensors: list[Tensor]) -> dict[str, Tensor]:
    return {f"{name}[{at}]": tensor for at, tensor in enumerate(tensors)}


def _require_one_device(**tensors: Tensor | None) -> None:
    devices = {name: tensor.device for name, tensor in tensors.items() if tensor is not None}
    if len(set(devices.values())) > 1:
        got = ", ".join(f"`{name}` on {device}" for name, device in devices.items())
        raise InvalidArgumentError(f"expected all tensors on one device, got {got}")


def _fake_gemm(
    a: Tensor,
    qweight: Tensor,
    scales: Tensor,
    qzeros: Tensor | None,
    bias: Tensor | None,
    perm: Tensor | None,
    size_n: int,
    size_k: int,
    group_size: int,
    bits: int,
    activation: str,
    epilogue: str,
) -> Tensor:
    _require_one_device(a=a, qweight=qweight, scales=scales, qzeros=qzeros, bias=bias, perm=perm)
    return a.new_empty((*a.shape[:-1], size_n // 2 if epilogue == "silu_mul" else size_n))


def _fake_repack(qweight: Tensor, size_n: int, size_k: int, bits: int) -> Tensor:
    blocks = (size_n + _BLOCK_COLUMNS - 1) // _BLOCK_COLUMNS
    if qweight.device.type == "cuda":
        steps = -(-size_k // _CUDA_TILE_ROWS) * _CUDA_TILE_STEPS
        return qweight.new_empty((blocks, steps, 32 * bits))
    return qweight.new_empty((blocks, size_k * bits // _WORD_BITS, _BLOCK_COLUMNS))


def _fake_unpack(qweight: Tensor, size_n: int, size_k: int, bits: int) -> Tensor:
    return qweight.new_empty((size_k * bits // _WORD_BITS, size_n))


def _fake_join(parts: list[Tensor]) -> Tensor:
    _require_one_device(**_numbered("parts", parts))
    first = parts[0]
    return first.new_empty((sum(part.shape[0] for part in parts), *first.shape[1:]))


def _fake_dequantize(
    qweight: Tensor,
    scales: Tensor,
    qzeros: Tensor | None,
    size_n: int,
    size_k: int,
    group_size: int,
    bits: int,
) -> Tensor:
    _require_one_device(qweight=qweight, scales=scales, qzeros=qzeros)
    return scales.new_empty((size_n, size_k))


_GemmInputs = tuple[
    Tensor,
    Tensor,
    Tensor,
    Tensor | None,
    Tensor | None,
    Tensor | None,
    int,
    int,
    int,
    int,
    str,
    str,
]


class _GemmContext(Protocol):
    """What autograd hands from forward to backward, as far as it is used here."""

    saved_tensors: tuple[Tensor, Tensor, Tensor | None, Tensor | None]
    needs_input_grad: tuple[bool, ...]
    columns: int
    sizes: tuple[int, int, int, int]

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...


def _setup_gemm_context(
    ctx: _GemmContext,
    inputs: _GemmInputs,
    output: Tensor,
) -> None:
    a, qweight, scales, qzeros, bias, perm, size_n, size_k, group_size, bits, _, epilogue = inputs
    if scales.requires_grad:
        raise UnsupportedError("`scales`: expected no gradient, got requires_grad=True")
    if epilogue != "none" and (a.requires_grad or (bias is not None and bias.requires_grad)):
        raise UnsupportedError(f"`epilogue`: expected `none` for a gradient, got `{epilogue}`")
    ctx.save_for_backward(qweight, scales, qzeros, perm)
    ctx.columns = a.shape[-1]
    ctx.sizes = (size_n, size_k, group_size, bits)


def _backward_gemm(ctx: _GemmContext, grad: Tensor) -> tuple[Tensor | None, ...]:
    qweight, scales, qzeros, perm = ctx.saved_tensors
    grad_a = grad_bias = None
    if ctx.needs_input_grad[0]:
        # In the wider dtype the product code * scale is rounded once, to the dtype of the gradient.
        wide = torch.promote_types(scales.dtype, grad.dtype)
        weight = torch.ops.marlin.dequantize(qweight, scales.to(wide), qzeros, *ctx.sizes)
        grad_a = grad @ weight.to(grad.dtype)
        if perm is not None:
            grad_a = grad_a.new_zeros(grad_a.shape).index_add_(-1, perm, grad_a)
        grad_a = grad_a[..., : ctx.columns]
    if ctx.needs_input_grad[4]:
        grad_bias = grad.reshape(-1, grad.shape[-1]).sum(0)
    return grad_a, None, None, None, grad_bias, *(None,) * 7


def _register() -> None:
    torch.library.register_fake("marlin::gemm", _fake_gemm)
    torch.library.register_fake("marlin::repack", _fake_repack)
    torch.library.register_fake("marlin::unpack", _fake_unpack)
    torch.library.register_fake("marlin::join", _fake_join)
    torch.library.register_fake("marlin::dequantize", _fake_dequantize)
    torch.library.register_autograd(
        "marlin::gemm", _backward_gemm, setup_context=_setup_gemm_context
    )


if is_loaded():
    _register()
