"""Compiles sources to objects and links a library, doing only what changed. Knows no torch."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .errors import BuildError

__all__ = ["Library", "Source", "build_library", "install"]


@dataclass(frozen=True)
class Source:
    """One file, with the command that compiles it up to its `-o OBJECT`."""

    path: Path
    flags: tuple[str, ...]  # the compiler comes first

    @property
    def command(self) -> tuple[str, ...]:
        return (*self.flags, "-c", os.fspath(self.path))


@dataclass(frozen=True)
class Library:
    """A shared library: its sources, and the link command before and after the objects."""

    name: str
    sources: tuple[Source, ...]
    link_command: tuple[str, ...]
    link_libraries: tuple[str, ...]


def build_library(
    library: Library,
    target: Path,
    objects: Path,
    jobs: int,
    report: Callable[[str], None],
) -> None:
    """Writes `target`; objects and their records go to the folder `objects`.

    Reports one line per file that is compiled, and one when there is nothing to do.
    """
    objects.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    steps = [(source, objects / _object_name(source.path)) for source in library.sources]
    stale = [
        (source, output) for source, output in steps if not _is_current(output, source.command)
    ]
    link = (*library.link_command, *(os.fspath(output) for _, output in steps))
    link = (*link, *library.link_libraries)
    if not stale and _is_current(target, link, record=objects / f"{library.name}.link"):
        report(f"{library.name} is up to date")
        return

    started = time.monotonic()
    done = 0

    def compile_one(step: tuple[Source, Path]) -> None:
        nonlocal done
        source, output = step
        output.unlink(missing_ok=True)
        depfile = output.with_suffix(".d")
        _run([*source.command, "-MMD", "-MF", os.fspath(depfile), "-o", os.fspath(output)])
        _write_record(output.with_suffix(".cmd"), source.command)
        done += 1
        report(f"[{done}/{len(stale)}] {source.path.name}")

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        list(pool.map(compile_one, stale))

    _run([*link, "-o", os.fspath(target)])
    _write_record(objects / f"{library.name}.link", link)
    report(f"built {target.name} in {time.monotonic() - started:.1f} s")


def _object_name(source: Path) -> str:
    """Files of one name may stand in two folders of a library."""
    return f"{source.parent.name}-{source.stem}.o"


def install(built: Path, target: Path) -> None:
    """Copies `built` to `target` in one step: a process that has mapped the old file keeps it."""
    if target.is_file() and target.stat().st_mtime_ns >= built.stat().st_mtime_ns:
        return
    # Beside the target, under a name of this process's own, so that the rename is atomic.
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(built, fresh)
        fresh.chmod(0o755)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)


def _run(command: Sequence[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BuildError(f"{shlex.join(command)}\n{result.stdout}{result.stderr}".rstrip())


def _write_record(path: Path, command: Sequence[str]) -> None:
    path.write_text(shlex.join(command), encoding="utf-8")


def _is_current(output: Path, command: Sequence[str], record: Path | None = None) -> bool:
    """True when `output` was made by this very command, from files that have not changed since."""
    recorded = record or output.with_suffix(".cmd")
    if not output.is_file() or not recorded.is_file():
        return False
    if recorded.read_text(encoding="utf-8") != shlex.join(command):
        return False
    built = output.stat().st_mtime_ns
    if record is not None:
        inputs = [Path(part) for part in command if part.endswith(".o")]
    else:
        inputs = _dependencies(output.with_suffix(".d"))
    return bool(inputs) and all(p.is_file() and p.stat().st_mtime_ns <= built for p in inputs)


def _dependencies(depfile: Path) -> list[Path]:
    """Files named by a make rule `object: source header \\ ...`, spaces in names escaped."""
    if not depfile.is_file():
        return []
    text = depfile.read_text(encoding="utf-8").replace("\\\n", " ")
    _, _, names = text.partition(": ")
    marked = names.replace("\\ ", "\0")
    return [Path(name.replace("\0", " ").replace("$$", "$")) for name in marked.split()]
