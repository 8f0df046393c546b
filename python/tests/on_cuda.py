"""Tensors that are on a GPU, but for the GPU: the dispatcher takes them to the CUDA operators.

They have no memory, so that an operator gets as far as the first look at it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

__all__ = ["OnCuda", "on_cuda"]

_PYTHON = torch._C.DispatchKeySet(torch._C.DispatchKey.Python) | torch._C.DispatchKeySet(
    torch._C.DispatchKey.PythonTLSSnapshot
)


class OnCuda(Tensor):
    """A shape and a dtype on `cuda:0`."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # called on the class
        cls,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        with torch._C._ExcludeDispatchKeyGuard(_PYTHON):
            return func(*args, **(kwargs or {}))


def on_cuda(*shape: int, dtype: torch.dtype) -> OnCuda:
    device = torch.device("cuda:0")
    made = Tensor._make_wrapper_subclass(OnCuda, shape, dtype=dtype, device=device)
    assert isinstance(made, OnCuda)
    return made
