"""The limits that a Linear is judged by: bytes read per second, and operations per second by kind.

The loops are C++ (peaks.cpp), compiled at the first use into build/bench. A limit is asked for in
the same rounds as what it judges (see timing.py): both then meet the same machine.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from bench.timing import Seconds

__all__ = ["ISAS", "KINDS", "Peaks", "last_level_cache"]

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (ROOT / "bench/peaks.cpp", ROOT / "bench/peaks_dot.h")
FOLDER = ROOT / "build/bench"

# Kinds of numbers and sets of instructions, numbered as in peaks_dot.h.
KINDS = ("bfloat16", "int16", "int8", "float32")
ISAS = ("portable", "avx2", "avx512")

SLICE_BYTES = 32 << 20  # one call of the read probe: 0.8 ms at 40 GB/s
LEAST_BYTES = 512 << 20  # all slices together
DOT_SECONDS = 5e-4  # about one call of a dot probe
STEP_BYTES = 512  # each thread's part of a slice is a multiple of it


class Peaks:
    """The probes of this machine for one number of threads.

    threads: how many read and multiply at once.
    isa: the best set of instructions the probes may use; None takes what the CPU has.
    """

    def __init__(self, threads: int, isa: str | None = None) -> None:
        self._library = _library()
        self._threads = threads
        best: int = self._library.marlin_peaks_level()
        self._level = best if isa is None else min(best, ISAS.index(isa))
        self.isa = ISAS[self._level]

    def instruction(self, kind: str) -> str | None:
        """What multiplies numbers of `kind`; None: not available on this CPU."""
        name: bytes | None = self._library.marlin_peaks_instruction(KINDS.index(kind), self._level)
        return None if name is None else name.decode()

    def read_probe(self) -> tuple[Callable[[int], Seconds], int]:
        """A case that reads a slice of memory, another one each time; and the bytes of a call."""
        part = SLICE_BYTES // self._threads // STEP_BYTES * STEP_BYTES
        size = part * self._threads
        count = -(-max(LEAST_BYTES, 4 * last_level_cache()) // SLICE_BYTES)
        memory = _memory(self._library, count * SLICE_BYTES)

        def read(index: int) -> Seconds:
            start = memory + index % count * SLICE_BYTES
            return Seconds(self._library.marlin_peaks_read(start, size, self._threads, self._level))

        return read, size

    def dot_probe(self, kind: str) -> tuple[Callable[[int], Seconds], int] | None:
        """A case that multiplies in registers, and the operations of a call; None: not available.

        A multiplication and its addition are two operations.
        """
        if self.instruction(kind) is None:
            return None
        operations: int = self._library.marlin_peaks_operations(KINDS.index(kind), self._level)

        def run(turns: int) -> float:
            seconds: float = self._library.marlin_peaks_dot(
                KINDS.index(kind), self._level, self._threads, turns
            )
            return seconds

        few = 10_000
        turns = max(few, int(few * DOT_SECONDS / min(run(few) for _ in range(5))))
        return lambda _: Seconds(run(turns)), operations * turns * self._threads


def last_level_cache() -> int:
    """Bytes of the largest cache that the system tells of; 0: it tells of none."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text(encoding="ascii").strip()
        sizes.append(int(text.rstrip("K")) << 10 if text.endswith("K") else int(text))
    return max(sizes, default=0)


@cache
def _memory(library: ctypes.CDLL, size: int) -> int:
    memory: int | None = library.marlin_peaks_memory(size)
    if memory is None:
        raise MemoryError(f"no {size} bytes for the read probe")
    return memory


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(_compile()))
    address, number = ctypes.c_void_p, ctypes.c_int
    signatures: dict[str, tuple[type, list[type]]] = {
        "level": (number, []),
        "memory": (address, [ctypes.c_size_t]),
        "read": (ctypes.c_double, [address, ctypes.c_size_t, number, number]),
        "instruction": (ctypes.c_char_p, [number, number]),
        "operations": (ctypes.c_int64, [number, number]),
        "dot": (ctypes.c_double, [number, number, number, ctypes.c_int64]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"marlin_peaks_{name}")
        function.restype, function.argtypes = result, arguments
    return library


def _compile() -> Path:
    """The library of these sources and this compiler; compiled if it is not there yet."""
    sys.path.append(str(ROOT / "csrc"))
    from buildtools.compiler import find_cxx, warning_flags

    command = [*find_cxx(os.environ), "-std=c++20", "-O3", "-fPIC", "-shared", "-pthread"]
    command += warning_flags()
    text = b"".join(source.read_bytes() for source in SOURCES) + " ".join(command).encode()
    path = FOLDER / f"peaks-{hashlib.sha256(text).hexdigest()[:16]}.so"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        subprocess.run([*command, str(SOURCES[0]), "-o", str(unfinished)], check=True)
        unfinished.replace(path)
    return path
