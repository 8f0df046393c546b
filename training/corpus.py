"""The training text: the sources of this Python's standard library, split by whole files.

Knows no tokenizer and no model. The same Python version gives the same corpus, in the same order,
byte for byte.
"""

from __future__ import annotations

import hashlib
import re
import sysconfig
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Corpus", "Document", "collect", "license_text"]

# Not library text: installed packages, tests and their data, generated tables, bundled wheels.
_SKIPPED_FOLDERS = frozenset(
    {
        "__pycache__",
        "_bundled",
        "encodings",
        "idle_test",
        "lib-dynload",
        "msilib",
        "pydoc_data",
        "site-packages",
        "test",
        "tests",
    }
)
# Tables in the shape of source code; learning them teaches nothing but numbers and names.
_SKIPPED_FILES = frozenset({"html/entities.py", "re/_casefix.py", "stringprep.py", "this.py"})
_GENERATED = re.compile(
    r"auto-?generated|generated (by|from|automatically)|do not edit", re.IGNORECASE
)
_GENERATED_HEAD = 600  # characters in which such a notice counts

_HELD_OUT_BYTES = 200_000
_HELD_OUT_FILE = range(
    4_000, 40_000
)  # bytes: no stubs, and no single module that is the whole split
# A line this long that stands in two files is a copy rather than an idiom.
_COPY_LINE = 30
_COPY_SHARE = (
    0.1  # of a held-out file's long lines; a training file that holds more of them is dropped
)
_SPLIT_SALT = b"marlin-held-out-1"


@dataclass(frozen=True)
class Document:
    """One source file: its path below the standard library, and its text."""

    path: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """Documents to train on and held out, sorted by path; `dropped` are in neither, as copies."""

    train: tuple[Document, ...]
    held_out: tuple[Document, ...]
    dropped: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Digest over the paths and texts of both splits."""
        digest = hashlib.sha256()
        for document in (*self.train, *self.held_out):
            digest.update(f"{document.path}\0{document.text}\0".encode())
        return digest.hexdigest()


def collect(root: Path | None = None) -> Corpus:
    """Read the library below `root` (default: the running Python's) and split it.

    The split hashes the path alone, so a change in one file moves no other between the splits.
    """
    root = Path(sysconfig.get_path("stdlib")) if root is None else root
    documents = _read(root)
    held_out: list[Document] = []
    size = 0
    for document in sorted(documents, key=_split_key):
        length = len(document.text.encode())
        if length in _HELD_OUT_FILE and size < _HELD_OUT_BYTES:
            held_out.append(document)
            size += length
    chosen = {document.path for document in held_out}
    copies = [_long_lines(document) for document in held_out]
    train: list[Document] = []
    dropped: list[str] = []
    for document in documents:
        if document.path in chosen:
            continue
        lines = _long_lines(document)
        leaks = any(len(lines & copy) > _COPY_SHARE * len(copy) for copy in copies)
        if leaks:
            dropped.append(document.path)
        else:
            train.append(document)
    held_out.sort(key=lambda document: document.path)
    return Corpus(tuple(train), tuple(held_out), tuple(dropped))


def license_text(root: Path | None = None) -> str:
    """The licence that the standard library's sources carry (PSF-2.0 and its history)."""
    root = Path(sysconfig.get_path("stdlib")) if root is None else root
    return (root / "LICENSE.txt").read_text(encoding="utf-8")


def _read(root: Path) -> list[Document]:
    """All eligible files, sorted by path; of files with equal text, the first."""
    documents: list[Document] = []
    seen: set[str] = set()
    for file in sorted(root.rglob("*.py")):
        path = file.relative_to(root)
        if _SKIPPED_FOLDERS.intersection(path.parts) or path.as_posix() in _SKIPPED_FILES:
            continue
        if path.name.startswith("_sysconfigdata"):
            continue
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # the few files in another encoding
        if not text.strip() or _GENERATED.search(text[:_GENERATED_HEAD]) or text in seen:
            continue
        seen.add(text)
        documents.append(Document(path.as_posix(), text))
    return documents


def _split_key(document: Document) -> bytes:
    return hashlib.sha256(_SPLIT_SALT + document.path.encode()).digest()


def _long_lines(document: Document) -> frozenset[str]:
    lines = (line.strip() for line in document.text.splitlines())
    return frozenset(line for line in lines if len(line) >= _COPY_LINE)
