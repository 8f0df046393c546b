"""`model.*` and `checkpoint.inspect`: language models that live in the worker.

Turns arguments of the wire into those of marlin.models and its neighbours, and their results into
plain values. Cancellation and progress of a call reach every layer, batch and token there.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict
from typing import Any

import torch

from marlin import generation
from marlin.checkpoint import inspect_checkpoint
from marlin.errors import InvalidArgumentError
from marlin.models import LoadedModel, Progress, load_model
from marlin.perplexity import measure_perplexity
from marlin.worker.binding import ArgumentChecker
from marlin.worker.handlers import CallContext, handler, stream_handler
from marlin.worker.handles import Handle

__all__ = ["dispose", "generate", "info", "inspect", "load", "perplexity", "quantize", "save"]


@handler("model.load")
def load(
    context: CallContext,
    path: str,
    *,
    dtype: str | None = None,
    device: str | None = None,
    quantize: dict[str, Any] | None = None,
    revision: str | None = None,
) -> Handle:
    """A handle on a `LoadedModel`; `quantize` holds the options of `model.quantize`."""
    if quantize is not None:
        _quantize_options.check([], quantize)
    loaded = load_model(
        path,
        dtype=dtype,
        device=device,
        quantize=quantize,
        revision=revision,
        progress=_progress(context),
    )
    context.check()
    return context.export(loaded, "model", meta=loaded.info())


@handler("model.info")
def info(context: CallContext, model: LoadedModel) -> dict[str, object]:
    """What the model is."""
    return model.info()


@stream_handler("model.generate")
def generate(
    context: CallContext,
    model: LoadedModel,
    prompts: str | list[str],
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
    stop: str | list[str] | None = None,
) -> Generator[dict[str, object], None, dict[str, object]]:
    """Streams the text of each prompt as it comes; ends when the model is disposed of meanwhile."""
    chunks = generation.generate(
        model.model,
        model.tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        stop=stop,
        check=context.check,
    )
    while True:
        # Another call may have disposed of the model since the last item.
        model.check_alive()
        try:
            chunk = next(chunks)
        except StopIteration as end:
            return asdict(end.value)
        yield {
            "index": chunk.index,
            "text": chunk.text,
            "tokens": list(chunk.tokens),
            "finish_reason": chunk.finish_reason,
        }


@handler("model.perplexity")
def perplexity(
    context: CallContext,
    model: LoadedModel,
    text: str | torch.Tensor,
    *,
    context_length: int | None = None,
    stride: int | None = None,
    max_tokens: int | None = None,
) -> dict[str, object]:
    """How well the model predicts `text`, a string or its UTF-8 bytes."""

    def on_window(done: int, total: int) -> None:
        context.check()
        context.progress("perplexity", done, total)

    result = measure_perplexity(
        model.model,
        model.tokenizer,
        text if isinstance(text, str) else _utf8(text),
        context_length=context_length,
        stride=stride,
        max_tokens=max_tokens,
        progress=on_window,
    )
    return asdict(result)


@handler("model.quantize")
def quantize(
    context: CallContext,
    model: LoadedModel,
    *,
    method: str = "rtn",
    bits: int = 4,
    group_size: int = 128,
    symmetric: bool = True,
    activation: str = "auto",
    include: str | list[str] | None = None,
    exclude: str | list[str] | None = None,
) -> dict[str, object]:
    """Rounds the Linears to few bits, in place. Cancelled, it keeps the layers it has done."""
    options = {} if exclude is None else {"exclude": exclude}
    report = model.quantize(
        method,
        bits,
        group_size,
        symmetric,
        activation=activation,
        include=include,
        progress=_progress(context),
        **options,
    )
    return report.to_dict()


@handler("model.save")
def save(
    context: CallContext, model: LoadedModel, path: str, *, overwrite: bool = False
) -> dict[str, object]:
    """Writes the model to a folder that `model.load` reads."""
    size = model.save(path, overwrite=overwrite, progress=_progress(context))
    return {"path": path, "bytes": size}


@handler("model.dispose")
def dispose(context: CallContext, model: LoadedModel) -> None:
    """Frees the model at once, whatever handles exist on it."""
    model.dispose()


@handler("checkpoint.inspect")
def inspect(context: CallContext, path: str) -> dict[str, object]:
    """What a safetensors file or a model's folder holds; reads headers only."""
    return inspect_checkpoint(path).to_dict()


def _quantize_signature(
    context: CallContext,
    *,
    method: str = "",
    bits: int = 0,
    group_size: int = 0,
    symmetric: bool = True,
    activation: str = "",
    include: str | list[str] | None = None,
    exclude: str | list[str] | None = None,
) -> None:
    """The options of `model.quantize`, where `model.load` takes them as a map."""


_quantize_options = ArgumentChecker("model.load quantize", _quantize_signature)


def _progress(context: CallContext) -> Progress:
    def report(phase: str, done: int, total: int, text: str) -> None:
        context.check()
        context.progress(phase, done, total, text)

    return report


def _utf8(tensor: torch.Tensor) -> str:
    if tensor.dtype != torch.uint8 or tensor.ndim != 1:
        raise InvalidArgumentError(
            f"`text` must be a string or a uint8 tensor of one dimension, got {tensor.dtype} of "
            f"shape {list(tensor.shape)}."
        )
    try:
        return tensor.numpy(force=True).tobytes().decode()
    except UnicodeDecodeError as err:
        raise InvalidArgumentError(f"`text` must be UTF-8, got bytes that are not: {err}.") from err
