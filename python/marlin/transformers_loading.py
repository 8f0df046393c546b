"""Reads a model's folder with transformers' own classes, quietly, and says in Marlin's errors what
was wrong with it.

Knows one folder; where it came from, and that its weight files are whole, is settled before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from marlin import transformers_plugin  # noqa: F401  # registers the 4-bit checkpoints
from marlin.errors import (
    CheckpointInvalidError,
    MarlinError,
    ModuleNotFound,
    UnsupportedError,
)

__all__ = ["read_model", "read_tokenizer"]

_logging: Any = logging  # without annotations of its own

_SHOWN_NAMES = 3


def read_model(
    folder: Path, dtype: torch.dtype | None, progress: Callable[[int, int], None]
) -> PreTrainedModel:
    """The causal LM of `folder`, on the CPU, in eval mode.

    progress: called with (done, total) tensors; what it raises ends the loading.
    """
    _check_architecture(folder)
    with _quiet(), _watched(progress), _named_failures(folder):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype="auto" if dtype is None else dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            # Misfits are reported below, by name, rather than raised as a list of text.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    model, report = loaded
    _refuse_misfits(folder, report)
    assert isinstance(model, PreTrainedModel)
    model.train(False)
    return model


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of `folder`."""
    with _quiet(), _named_failures(folder):
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def _check_architecture(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise CheckpointInvalidError(f"`{folder}` has no config.json, and so is no model's folder.")
    with _quiet():
        try:
            AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except OSError as err:
            raise CheckpointInvalidError(
                f"`{folder}` has no readable config.json: {_first_line(err)}"
            ) from err
        except (KeyError, ValueError) as err:
            raise UnsupportedError(
                f"`{folder}` is of a kind that the installed transformers does not know: "
                f"{_first_line(err)}"
            ) from err


def _refuse_misfits(folder: Path, report: dict[str, Any]) -> None:
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointInvalidError(f"`{folder}` lacks weights of the model: {_names(missing)}.")
    # Names in transformers 4, names with both shapes in 5.
    mismatched = sorted(
        entry if isinstance(entry, str) else str(entry[0]) for entry in report["mismatched_keys"]
    )
    if mismatched:
        raise CheckpointInvalidError(
            f"`{folder}` has weights of other shapes than the model: {_names(mismatched)}."
        )


def _names(names: list[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    text = ", ".join(names[:_SHOWN_NAMES])
    return f"{text} and {more} more" if more > 0 else text


@contextmanager
def _named_failures(folder: Path) -> Iterator[None]:
    try:
        yield
    except MarlinError:  # some are OSErrors or ValueErrors, too
        raise
    except ImportError as err:
        raise ModuleNotFound(
            f"Loading `{folder}` needs a package that is missing: {_first_line(err)}"
        ) from err
    except RuntimeError as err:  # of torch; an allocation that failed is one, too
        if not str(err).startswith("Error(s) in loading state_dict"):
            raise
        raise CheckpointInvalidError(f"`{folder}` does not fit its model: {err}") from err
    except (KeyError, OSError, ValueError) as err:
        raise CheckpointInvalidError(f"`{folder}` could not be loaded: {_first_line(err)}") from err


def _first_line(error: Exception) -> str:
    """What is wrong; advice on how to use transformers follows in the lines after it."""
    return str(error).strip().partition("\n")[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no advice on a worker's output; as it was, afterwards."""
    verbosity = _logging.get_verbosity()
    bars = _logging.is_progress_bar_enabled()
    _logging.set_verbosity_error()
    _logging.disable_progress_bar()
    try:
        yield
    finally:
        _logging.set_verbosity(verbosity)
        if bars:
            _logging.enable_progress_bar()


@contextmanager
def _watched(progress: Callable[[int, int], None]) -> Iterator[None]:
    """Reports the loader's loop over tensors, which newer transformers let one hook into."""
    set_hook = getattr(_logging, "set_tqdm_hook", None)
    if set_hook is None:
        progress(0, 1)
        yield
        progress(1, 1)
        return

    def watch(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        return _Watched(args[0], progress) if args else factory(*args, **kwargs)

    previous = set_hook(watch)
    try:
        yield
    finally:
        set_hook(previous)


class _Watched:
    """Stands in for a bar around an iterable."""

    def __init__(self, items: Iterable[object], progress: Callable[[int, int], None]) -> None:
        self._items = list(items)
        self._progress = progress

    def __iter__(self) -> Iterator[object]:
        total = len(self._items)
        for done, item in enumerate(self._items):
            self._progress(done, total)
            yield item
        self._progress(total, total)
