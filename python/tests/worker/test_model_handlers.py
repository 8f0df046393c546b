from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from marlin.errors import CancelledError, UnknownHandleError
from marlin.models import LoadedModel
from marlin.worker import protocol
from marlin.worker.arena import Arena
from marlin.worker.context import CallContext
from marlin.worker.handlers import model as handlers
from marlin.worker.protocol import Limits
from tests.tiny_model import CONTEXT, write_tiny_model
from tests.worker.wire_client import CallError, Ref, WireClient, frame, ref

TEXT = "The quick brown fox jumps over the lazy dog. " * 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def model(client: WireClient, folder: Path) -> Iterator[Ref]:
    handle = client.call("model.load", str(folder))
    yield handle
    client.call("model.dispose", ref(handle))


def _stream(client: WireClient, *args: object, **kwargs: object) -> tuple[list[Any], Any]:
    """Items and result of a `model.generate`."""
    call = client.start("model.generate", *args, credit=1000, kwargs=kwargs)
    items = []
    while isinstance(message := client.receive(), protocol.Item):
        assert message.id == call
        items.append(message.value)
    if isinstance(message, protocol.ErrorReply):
        raise CallError(message.error)
    assert isinstance(message, protocol.Result)
    return items, message.value


def test_loading_gives_a_handle_that_describes_the_model(
    client: WireClient, folder: Path, model: Ref
) -> None:
    assert model.kind == "model"
    assert model.meta["path"] == str(folder)
    assert model.meta["context_length"] == CONTEXT
    assert model.meta["quantization"] is None
    assert client.call("model.info", ref(model)) == model.meta


def test_loading_reports_progress_of_both_phases(client: WireClient, folder: Path) -> None:
    kwargs: dict[str, object] = {"quantize": {"group_size": 32}, "dtype": "bfloat16"}
    call = client.start("model.load", str(folder), progress=True, kwargs=kwargs)
    handle = client.finish(call)
    assert handle.meta["quantization"]["group_size"] == 32
    assert handle.meta["dtype"] == "bfloat16"
    assert [p.phase for p in client.progress if p.done == p.total] == ["load", "quantize"]
    client.call("model.dispose", ref(handle))


def test_generation_streams_text_and_ends_with_a_summary(client: WireClient, model: Ref) -> None:
    items, summary = _stream(client, ref(model), ["def", "x"], max_new_tokens=20)
    assert {item["index"] for item in items} == {0, 1}
    assert sum(len(item["tokens"]) for item in items) == summary["new_tokens"]
    assert summary["prompt_tokens"] == 4
    endings = [item["finish_reason"] for item in items if item["finish_reason"] is not None]
    assert len(endings) == 2
    again, _ = _stream(client, ref(model), "def", max_new_tokens=20)
    assert "".join(item["text"] for item in again) == "".join(
        item["text"] for item in items if item["index"] == 0
    )


def test_sampling_from_a_4_bit_model_is_equal_from_run_to_run(
    client: WireClient, model: Ref
) -> None:
    client.call("model.quantize", ref(model))
    options: dict[str, object] = {"temperature": 0.9, "top_p": 0.95, "seed": 1}
    first, _ = _stream(client, ref(model), ["def", "class"], max_new_tokens=60, **options)
    second, _ = _stream(client, ref(model), ["def", "class"], max_new_tokens=60, **options)
    assert first == second


def test_a_cancelled_generation_ends_and_the_model_goes_on(client: WireClient, model: Ref) -> None:
    kwargs: dict[str, object] = {"max_new_tokens": 90}
    call = client.start("model.generate", ref(model), "def", credit=1, kwargs=kwargs)
    client.expect(protocol.Item)
    client.send({"type": "cancel", "id": call})
    assert client.expect_error(call).code == "cancelled"
    assert _stream(client, ref(model), "def", max_new_tokens=2)[1]["new_tokens"] == 2


def test_a_model_that_is_disposed_ends_its_streams(client: WireClient, folder: Path) -> None:
    handle = client.call("model.load", str(folder))
    call = client.start("model.generate", ref(handle), "def", credit=1)
    client.expect(protocol.Item)
    client.call("model.dispose", ref(handle))
    client.send({"type": "credit", "id": call, "items": 1000})
    assert client.expect_error(call).code == "unknown_handle"
    with pytest.raises(CallError, match="disposed") as caught:
        client.call("model.info", ref(handle))
    assert caught.value.code == "unknown_handle"
    client.call("model.dispose", ref(handle))


def test_perplexity_takes_a_string_or_its_bytes(client: WireClient, model: Ref) -> None:
    from_string = client.call("model.perplexity", ref(model), TEXT, stride=32)
    data = TEXT.encode()
    from_bytes = client.call(
        "model.perplexity", ref(model), frame("uint8", [len(data)]), frames=(data,), stride=32
    )
    assert from_string["tokens"] == len(TEXT) - 1
    assert {**from_string, "seconds": 0} == {**from_bytes, "seconds": 0}


def test_bits_and_activation_are_options_of_quantizing(client: WireClient, folder: Path) -> None:
    options: dict[str, Any] = {"bits": 8, "group_size": 32, "activation": "int8"}
    handle = client.call("model.load", str(folder), quantize=options)
    assert handle.meta["quantization"]["bits"] == 8
    client.call("model.dispose", ref(handle))
    handle = client.call("model.load", str(folder))
    assert client.call("model.quantize", ref(handle), **options)["bits"] == 8
    client.call("model.dispose", ref(handle))


def test_quantize_save_and_load_again(client: WireClient, model: Ref, tmp_path: Path) -> None:
    report = client.call("model.quantize", ref(model), group_size=32, exclude=["lm_head", "*_proj"])
    assert report["layers"] == []
    report = client.call("model.quantize", ref(model), group_size=32)
    assert len(report["layers"]) == 14
    path = str(tmp_path / "saved")
    saved = client.call("model.save", ref(model), path)
    assert saved["path"] == path
    described = client.call("checkpoint.inspect", path)
    assert described["quantization"]["group_size"] == 32
    assert described["bytes"] < saved["bytes"]
    again = client.call("model.load", path)
    assert {**again.meta, "path": ""} == {**client.call("model.info", ref(model)), "path": ""}
    items, _ = _stream(client, ref(again), "def", max_new_tokens=20)
    assert items == _stream(client, ref(model), "def", max_new_tokens=20)[0]
    client.call("model.dispose", ref(again))


@pytest.mark.parametrize(
    ("method", "args", "kwargs", "code", "named"),
    [
        ("model.load", ["/nowhere/at/all"], {}, "checkpoint_not_found", "/nowhere/at/all"),
        ("model.load", [7], {}, "invalid_argument", "`path`"),
        ("model.load", ["FOLDER"], {"dtype": "int8"}, "invalid_argument", "`dtype`"),
        ("model.load", ["FOLDER"], {"colour": "red"}, "invalid_argument", "colour"),
        ("model.load", ["FOLDER"], {"quantize": {"group": 32}}, "invalid_argument", "group"),
        ("model.load", ["FOLDER"], {"quantize": {"method": []}}, "invalid_argument", "`method`"),
        ("model.load", ["FOLDER"], {"quantize": {"bits": 3}}, "unsupported", "`bits`"),
        (
            "model.load",
            ["FOLDER"],
            {"quantize": {"activation": "int7"}},
            "invalid_argument",
            "`activation`",
        ),
        (
            "model.load",
            ["FOLDER"],
            {"quantize": {"activation": 8}},
            "invalid_argument",
            "`activation`",
        ),
        (
            "model.quantize",
            ["MODEL"],
            {"activation": "int7"},
            "invalid_argument",
            "`activation`",
        ),
        (
            "model.quantize",
            ["MODEL"],
            {"bits": 8, "symmetric": False},
            "unsupported",
            "`symmetric`",
        ),
        ("model.generate", ["MODEL", []], {}, "invalid_argument", "`prompts`"),
        ("model.generate", ["MODEL", "a"], {"top_p": 2.0}, "invalid_argument", "`top_p`"),
        ("model.generate", ["MODEL", "a"], {"seed": "x"}, "invalid_argument", "`seed`"),
        ("model.generate", ["MODEL", "a" * 500], {}, "invalid_argument", "`prompts[0]`"),
        ("model.perplexity", ["MODEL", ""], {}, "invalid_argument", "`text`"),
        ("model.perplexity", ["MODEL", TEXT], {"stride": 0}, "invalid_argument", "`stride`"),
        ("model.quantize", ["MODEL"], {"method": "magic"}, "invalid_argument", "`method`"),
        ("model.quantize", ["MODEL"], {"include": "nothing"}, "invalid_argument", "`include`"),
        ("model.save", ["MODEL", "FOLDER"], {}, "invalid_argument", "`overwrite`"),
        ("model.info", ["FOLDER"], {}, "invalid_argument", "`model`"),
        ("checkpoint.inspect", ["/nowhere/at/all"], {}, "checkpoint_not_found", "/nowhere"),
    ],
)
def test_a_bad_call_is_a_clear_error_and_the_worker_goes_on(
    client: WireClient,
    folder: Path,
    model: Ref,
    method: str,
    args: list[object],
    kwargs: dict[str, object],
    code: str,
    named: str,
) -> None:
    known: dict[object, object] = {"FOLDER": str(folder), "MODEL": ref(model)}
    filled = [known.get(arg, arg) if isinstance(arg, str) else arg for arg in args]
    call = client.start(method, *filled, credit=1, kwargs=kwargs)
    error = client.expect_error(call)
    assert error.code == code
    assert named in error.message
    assert client.call("model.info", ref(model))["path"] == str(folder)


def test_text_must_be_utf_8(client: WireClient, model: Ref) -> None:
    with pytest.raises(CallError, match="UTF-8"):
        client.call("model.perplexity", ref(model), frame("uint8", [2]), frames=(b"\xff\xfe",))
    with pytest.raises(CallError, match="`text`"):
        client.call("model.perplexity", ref(model), frame("int8", [2]), frames=(b"ab",))


class _NoClient:
    """For calls that are made here, and not over the wire."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.arena: Arena | None = None

    def stats(self) -> dict[str, int]:
        return {}


def _context() -> CallContext:
    return CallContext(_NoClient(), None)


def _cancelling(phase: str) -> CallContext:
    """A context whose call is cancelled by the first progress of `phase`."""

    def on_progress(data: protocol.ProgressData) -> None:
        if data.phase == phase:
            context.cancel()

    context = CallContext(_NoClient(), on_progress)
    return context


def _loaded(folder: Path) -> LoadedModel:
    handle = handlers.load(_context(), str(folder))
    assert isinstance(handle.value, LoadedModel)
    return handle.value


@pytest.mark.parametrize("phase", ["load", "quantize"])
def test_a_load_is_cancelled_in_every_phase(folder: Path, phase: str) -> None:
    with pytest.raises(CancelledError):
        handlers.load(_cancelling(phase), str(folder), quantize={})


@pytest.mark.parametrize(
    ("phase", "call"),
    [
        ("quantize", handlers.quantize),
        ("perplexity", lambda context, model: handlers.perplexity(context, model, TEXT * 4)),
    ],
)
def test_a_cancelled_call_leaves_a_model_that_works(
    folder: Path, phase: str, call: Callable[[CallContext, LoadedModel], object]
) -> None:
    loaded = _loaded(folder)
    with pytest.raises(CancelledError):
        call(_cancelling(phase), loaded)
    assert handlers.perplexity(_context(), loaded, TEXT)["tokens"] == len(TEXT) - 1


def test_a_cancelled_save_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    loaded = _loaded(folder)
    handlers.quantize(_context(), loaded)
    with pytest.raises(CancelledError):
        handlers.save(_cancelling("save"), loaded, str(tmp_path / "saved"))
    assert list(tmp_path.iterdir()) == []


def test_a_disposed_model_is_refused_by_every_method(folder: Path, tmp_path: Path) -> None:
    loaded = _loaded(folder)
    context = _context()
    handlers.dispose(context, loaded)
    calls: list[Callable[[], object]] = [
        lambda: handlers.info(context, loaded),
        lambda: next(handlers.generate(context, loaded, "a")),
        lambda: handlers.perplexity(context, loaded, TEXT),
        lambda: handlers.quantize(context, loaded),
        lambda: handlers.save(context, loaded, str(tmp_path / "saved")),
    ]
    for call in calls:
        with pytest.raises(UnknownHandleError, match="disposed"):
            call()
