"""Single safetensors files: every way to lie in one, and writing that is all or nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from marlin.errors import (
    CheckpointInvalidError,
    CheckpointNotFoundError,
    CheckpointUnsafeError,
    MarlinError,
    UnsupportedError,
)
from marlin.safetensors_reader import DTYPES, open_safetensors, read_header
from marlin.safetensors_writer import PendingTensor, write_safetensors


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def file_bytes(header: object, data: bytes = bytes(8), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def pending(name: str, tensor: Tensor) -> PendingTensor:
    return PendingTensor(name, tensor.dtype, tuple(tensor.shape), lambda: tensor)


HOSTILE: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "it has 0 bytes, and the length of the header alone takes 8"),
    ("a short length", b"\1\0\0", "it has 3 bytes"),
    ("a truncated header", file_bytes({"a": entry()})[:20], "its header claims"),
    ("a header beyond the file", file_bytes(b"{}", b"", 3), "its header claims 3 bytes, and 2"),
    ("a header of 2**64 - 1", file_bytes(b"{}", b"", 2**64 - 1), "and 2 follow"),
    ("no JSON", file_bytes(b"hello"), "holds JSON that cannot be read"),
    ("no UTF-8", file_bytes(b'{"\xff": 1}'), "holds JSON that cannot be read"),
    ("UTF-16", file_bytes("{}".encode("utf-16")), "holds JSON that cannot be read"),
    ("a JSON list", file_bytes([]), "must be an object, got list"),
    ("deep JSON", file_bytes(b"[" * 200_000), "holds JSON that cannot be read"),
    ("a number without end", file_bytes(b'{"a":' + b"9" * 5000 + b"}"), "cannot be read"),
    ("NaN", file_bytes(b'{"a": NaN}'), "NaN is not JSON"),
    (
        "a name twice",
        file_bytes(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}', b""),
        "the name 'a' occurs twice",
    ),
    ("an entry that is a number", file_bytes({"a": 1}), "tensor `a` must have exactly dtype"),
    ("a missing field", file_bytes({"a": {"dtype": "F32"}}), "tensor `a` must have exactly dtype"),
    ("an extra field", file_bytes({"a": {**entry(), "b": 1}}), "tensor `a` must have exactly"),
    ("an unknown dtype", file_bytes({"a": entry("Q4")}), "has dtype 'Q4', which is not known"),
    ("a dtype that is a list", file_bytes({"a": entry([])}), "has dtype [], which is not known"),
    ("a negative size", file_bytes({"a": entry(shape=[-2, -1])}), "the shape of tensor `a`"),
    ("a size that is a float", file_bytes({"a": entry(shape=[2.0])}), "the shape of tensor `a`"),
    ("a size that is true", file_bytes({"a": entry(shape=[2, True])}), "the shape of tensor `a`"),
    ("a size of 2**64", file_bytes({"a": entry(shape=[2**64, 0])}), "the shape of tensor `a`"),
    ("nine dimensions", file_bytes({"a": entry(shape=[1] * 8 + [2])}), "at most 8 sizes"),
    ("sizes that overflow", file_bytes({"a": entry(shape=[2**62, 4])}), "and its data_offsets"),
    ("a shape that is larger", file_bytes({"a": entry(shape=[3])}), "takes 12 bytes, and its"),
    ("a dtype that is larger", file_bytes({"a": entry("F64")}), "takes 16 bytes, and its"),
    ("offsets backwards", file_bytes({"a": entry(offsets=[8, 0])}), "must be [begin, end]"),
    ("three offsets", file_bytes({"a": entry(offsets=[0, 4, 8])}), "must be [begin, end]"),
    ("negative offsets", file_bytes({"a": entry(offsets=[-8, 0])}), "must be [begin, end]"),
    (
        "offsets beyond the file",
        file_bytes({"a": entry(shape=[2**40], offsets=[0, 2**42])}),
        "its tensors end at byte",
    ),
    (
        "overlap",
        file_bytes({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)),
        "tensor `b` overlaps the one before it",
    ),
    (
        "the same bytes twice",
        file_bytes({"a": entry(), "b": entry()}),
        "overlaps the one before it",
    ),
    (
        "a hole",
        file_bytes({"a": entry(), "b": entry(offsets=[12, 20])}, bytes(20)),
        "tensor `b` leaves a hole after the one before it",
    ),
    ("bytes behind the tensors", file_bytes({"a": entry()}, bytes(9)), "its tensors end at byte"),
    ("truncated tensors", file_bytes({"a": entry()}, bytes(7)), "its tensors end at byte"),
    ("metadata that is a list", file_bytes({"__metadata__": []}, b""), "an object of strings"),
    (
        "metadata of numbers",
        file_bytes({"__metadata__": {"a": 1}}, b""),
        "`__metadata__` must hold strings, got int",
    ),
]


@pytest.mark.parametrize(
    ("content", "message"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE]
)
def test_refuses(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointInvalidError, match=re.escape(message)) as caught:
        read_header(path)
    assert str(path) in str(caught.value)


def test_a_header_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:  # sparse: it takes no room
        file.write((1 << 30).to_bytes(8, "little"))
        file.truncate(2 << 30)
    with pytest.raises(CheckpointInvalidError, match="claims 1073741824 bytes, and at most"):
        read_header(path)


@given(content=st.binary(max_size=64), cut=st.integers(0, 200), place=st.integers(0, 199))
def test_no_bytes_get_past_the_typed_errors(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, cut: int, place: int
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a.safetensors"
    whole = file_bytes({"a": entry(), "b": entry("U8", [3], [8, 11])}, bytes(11))
    damaged = whole[:place] + content + whole[place + len(content) :]
    path.write_bytes(damaged[: max(0, len(damaged) - cut)])
    try:
        with open_safetensors(path) as file:
            for name in file.tensors:
                assert file.read(name).nbytes == file.tensors[name].nbytes
    except MarlinError as err:
        assert str(path) in str(err)  # noqa: PT017


def test_a_file_that_shrinks_while_it_is_open_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(file_bytes({"a": entry()}))
    with open_safetensors(path) as file:
        os.truncate(path, path.stat().st_size - 4)
        with pytest.raises(CheckpointInvalidError, match="ended inside of tensor `a`"):
            file.read("a")


def test_pickles_are_unsafe_whatever_their_name(tmp_path: Path) -> None:
    archive = tmp_path / "zip.safetensors"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}.")
    legacy = tmp_path / "legacy.safetensors"
    legacy.write_bytes(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.")
    for path in (archive, legacy):
        with pytest.raises(CheckpointUnsafeError, match="is a pickle, which can run any code"):
            read_header(path)


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    header = json.dumps({"a": entry()}).encode()
    path.write_bytes(file_bytes(header.ljust(0x0280)))
    assert path.read_bytes().startswith(b"\x80\x02")
    assert list(read_header(path)[0]) == ["a"]


def test_what_is_no_file_is_refused_without_blocking(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError):
        read_header(tmp_path / "none")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path, pipe):
        with pytest.raises(CheckpointInvalidError, match="and is no file at all"):
            read_header(path)


def test_bytes_that_are_no_bools_become_bools(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(file_bytes({"a": entry("BOOL", [3], [0, 3])}, bytes([0, 1, 7])))
    with open_safetensors(path) as file:
        assert file.read("a").view(torch.uint8).tolist() == [0, 1, 1]


# Writing


def samples() -> dict[str, Tensor]:
    tensors = {name: torch.ones(3, 2).to(dtype) for name, dtype in DTYPES.items()}
    return {
        **tensors,
        "scalar": torch.tensor(5.0),
        "empty": torch.empty(0, 4),
        "transposed": torch.arange(6.0).view(2, 3).t(),
        "a name with é and \n": torch.zeros(1),
    }


def test_every_dtype_and_shape_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, [pending(n, t) for n, t in samples().items()], {"key": "värde"})
    theirs = load_file(path)
    tensors, metadata = read_header(path)
    assert metadata == {"key": "värde"}
    assert set(tensors) == set(theirs) == set(samples())
    with open_safetensors(path) as file:
        for name, tensor in samples().items():
            ours = file.read(name)
            assert ours.dtype == theirs[name].dtype == tensor.dtype
            assert ours.shape == theirs[name].shape == tensor.shape
            raw = tensor.contiguous().reshape(-1).view(torch.uint8)
            assert torch.equal(ours.reshape(-1).view(torch.uint8), raw)
            assert torch.equal(theirs[name].reshape(-1).view(torch.uint8), raw)
            assert tensors[name].offset % tensor.dtype.itemsize == 0


def test_files_of_the_format_s_own_library_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({n: t.contiguous() for n, t in samples().items()}, path)
    with open_safetensors(path) as file:
        assert torch.equal(file.read("transposed"), samples()["transposed"])


def test_a_dtype_that_the_format_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"Tensor `a` has dtype torch.complex128"):
        write_safetensors(
            tmp_path / "a.safetensors", [pending("a", torch.ones(1, dtype=torch.complex128))], {}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_the_format_reserves_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(UnsupportedError, match="`__metadata__`"):
        write_safetensors(path, [pending("__metadata__", torch.ones(1))], {})
    assert not path.exists()


def test_a_tensor_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> Tensor:
        raise RuntimeError("no tensor")

    good, bad = torch.zeros(1000), PendingTensor("bad", torch.uint8, (4,), fail)
    with pytest.raises(RuntimeError, match="no tensor"):
        write_safetensors(tmp_path / "a.safetensors", [pending("good", good), bad], {})
    assert list(tmp_path.iterdir()) == []


FULL_DISK_PROGRAM = """
import resource, signal, sys, torch
from pathlib import Path
from marlin.safetensors_writer import PendingTensor, write_safetensors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
tensor = torch.zeros(100_000)
pending = PendingTensor("a", tensor.dtype, tuple(tensor.shape), lambda: tensor)
try:
    write_safetensors(Path(sys.argv[1]), [pending], {}, overwrite=True)
except OSError as err:
    print(type(err).__name__, err.errno)
"""


def test_a_disk_without_room_leaves_what_was_there(tmp_path: Path) -> None:
    # A limit on the size of files makes write() fail half way, like a full disk.
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"before")
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK_PROGRAM, str(path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.startswith("OSError")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"before"


def test_a_file_has_the_mode_that_the_umask_asks_for(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_safetensors(tmp_path / "a.safetensors", [], {})
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o640
