"""Runs kernels of a PTX module on the CPU and says what is wrong with them."""

from __future__ import annotations

import ctypes
import json
import re
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .build import library
from .report import (
    GENERATIONS,
    Finding,
    InstructionCount,
    Launch,
    Options,
    Report,
    Traffic,
    tell_observers,
)

Dim = int | Sequence[int]
Argument = Any  # a Buffer, an int, a float, or bytes


class SimulatorError(Exception):
    """A module that can't be read, or a launch that is wrong in itself."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of an entry: `offset` and `size` in bytes."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Entry:
    """A kernel of the module."""

    name: str
    parameters: list[Parameter]
    parameter_bytes: int
    static_shared_bytes: int
    local_bytes: int


class _Options(ctypes.Structure):
    _fields_ = [
        ("seed", ctypes.c_uint64),
        ("generation", ctypes.c_uint32),
        ("copies_late", ctypes.c_uint32),
        ("checks_races", ctypes.c_uint32),
        ("reports_equal_writes", ctypes.c_uint32),
        ("max_quantum", ctypes.c_uint32),
        ("max_steps", ctypes.c_uint64),
        ("patience", ctypes.c_uint64),
    ]


class _Plan(ctypes.Structure):
    _fields_ = [
        ("entry", ctypes.c_char_p),
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("dynamic_shared_bytes", ctypes.c_uint64),
        ("parameters", ctypes.c_char_p),
        ("parameter_bytes", ctypes.c_uint64),
    ]


_library: ctypes.CDLL | None = None


def _load() -> ctypes.CDLL:
    global _library
    if _library is None:
        lib = ctypes.CDLL(str(library()))
        pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64
        signatures = {
            "ptxsim_open": (pointer, [text]),
            "ptxsim_close": (None, [pointer]),
            "ptxsim_error": (text, []),
            "ptxsim_describe": (text, [pointer]),
            "ptxsim_add_buffer": (size, [pointer, text, size]),
            "ptxsim_symbol": (size, [pointer, text]),
            "ptxsim_write": (ctypes.c_int, [pointer, size, pointer, size]),
            "ptxsim_read": (ctypes.c_int, [pointer, size, pointer, size]),
            "ptxsim_read_written": (ctypes.c_int, [pointer, size, pointer, size]),
            "ptxsim_set_read_only": (ctypes.c_int, [pointer, size, ctypes.c_int]),
            "ptxsim_launch": (
                text,
                [pointer, ctypes.POINTER(_Plan), ctypes.POINTER(_Options)],
            ),
        }
        for name, (result, arguments) in signatures.items():
            function = getattr(lib, name)
            function.restype = result
            function.argtypes = arguments
        _library = lib
    return _library


@dataclass
class Buffer:
    """A buffer of global memory. Its bytes can be read and written between launches."""

    simulator: Simulator
    name: str
    address: int
    size: int

    def write(self, values: np.ndarray, offset: int = 0) -> None:
        """Copies an array's bytes to `offset` bytes behind the start."""
        values = np.ascontiguousarray(values)
        code = _load().ptxsim_write(
            self.simulator._handle, self.address + offset, values.ctypes.data, values.nbytes
        )
        if code != 0:
            raise ValueError(
                f"`values`: expected at most {self.size - offset} bytes for `{self.name}`, "
                f"got {values.nbytes}."
            )

    def read(
        self, dtype: np.dtype[Any] | type, shape: int | Sequence[int] | None = None
    ) -> np.ndarray:
        """The buffer's bytes as an array; all of them if there is no shape."""
        dtype = np.dtype(dtype)
        values = np.empty(self.size // dtype.itemsize if shape is None else shape, dtype)
        _load().ptxsim_read(self.simulator._handle, self.address, values.ctypes.data, values.nbytes)
        return values

    def written(self) -> np.ndarray:
        """One bool per byte: whether anybody has written it."""
        mask = np.empty(self.size, np.uint8)
        _load().ptxsim_read_written(
            self.simulator._handle, self.address, mask.ctypes.data, self.size
        )
        return mask.astype(bool)


@dataclass
class Simulator:
    """A PTX module with its global memory.

    Args:
        text: The module, as nvcc or Triton writes it.

    Raises:
        SimulatorError: The text is no PTX that the simulator knows.
    """

    text: str
    _handle: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        handle = _load().ptxsim_open(self.text.encode())
        if handle is None:
            raise SimulatorError(_error())
        self._handle = handle

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None and _library is not None:
            _library.ptxsim_close(self._handle)

    def entries(self) -> dict[str, Entry]:
        """The kernels of the module."""
        described = _load().ptxsim_describe(self._handle)
        if described is None:
            raise SimulatorError(_error())
        return {
            one["name"]: Entry(**{**one, "parameters": [Parameter(**p) for p in one["parameters"]]})
            for one in json.loads(described)
        }

    def buffer(
        self,
        name: str,
        values: np.ndarray | None = None,
        *,
        size: int | None = None,
        read_only: bool = False,
    ) -> Buffer:
        """A new buffer: with the bytes of `values`, or `size` bytes that nobody has written."""
        if (values is None) == (size is None):
            raise ValueError("Expected either `values` or `size`.")
        count = values.nbytes if values is not None else int(size or 0)
        address = _load().ptxsim_add_buffer(self._handle, name.encode(), count)
        if address == 0:
            raise SimulatorError(_error())
        made = Buffer(self, name, address, count)
        if values is not None:
            made.write(values)
        if read_only:
            _load().ptxsim_set_read_only(self._handle, address, 1)
        return made

    def launch(
        self,
        entry: str,
        grid: Dim,
        block: Dim,
        arguments: Sequence[Argument],
        *,
        shared_bytes: int = 0,
        options: Options | None = None,
    ) -> Report:
        """Runs a grid to its end.

        Args:
            entry: Name of the kernel.
            grid: Blocks in x, y and z; all are resident together.
            block: Threads in x, y and z.
            arguments: One per parameter: a buffer, an int, a float, or the parameter's bytes.
            shared_bytes: Dynamic shared memory.
            options: How it is run.

        Raises:
            SimulatorError: The launch doesn't suit the kernel.
        """
        options = options or Options()
        known = self.entries()
        if entry not in known:
            raise SimulatorError(f"The module has no entry `{entry}`, only {', '.join(known)}.")
        parameters = _pack(known[entry], arguments)
        plan = _Plan(
            entry.encode(), _dim(grid), _dim(block), shared_bytes, parameters, len(parameters)
        )
        how = _Options(
            options.seed,
            GENERATIONS.index(options.generation),
            options.copies_late,
            options.checks_races,
            options.reports_equal_writes,
            options.max_quantum,
            options.max_steps,
            options.patience,
        )
        began = time.perf_counter()
        text = _load().ptxsim_launch(self._handle, ctypes.byref(plan), ctypes.byref(how))
        seconds = time.perf_counter() - began
        if text is None:
            raise SimulatorError(_error())
        result = json.loads(text)
        report = Report(
            findings=[Finding(**one) for one in result["findings"]],
            instructions=[InstructionCount(**one) for one in result["instructions"]],
            traffic={one["name"]: Traffic(**one) for one in result["buffers"]},
            steps=result["steps"],
            lane_steps=result["lane_steps"],
        )
        target = re.search(r"^\s*\.target\s+(\w+)", self.text, re.MULTILINE)
        tell_observers(
            Launch(
                entry=entry,
                target=target[1] if target is not None else "",
                grid=tuple(plan.grid),
                block=tuple(plan.block),
                options=options,
                report=report,
                seconds=seconds,
            )
        )
        return report


def _error() -> str:
    return str(_load().ptxsim_error().decode())


def _dim(value: Dim) -> ctypes.Array[ctypes.c_uint32]:
    sizes = [value] if isinstance(value, int) else list(value)
    return (ctypes.c_uint32 * 3)(*[*sizes, 1, 1, 1][:3])


def _pack(entry: Entry, arguments: Sequence[Argument]) -> bytes:
    if len(arguments) != len(entry.parameters):
        raise SimulatorError(
            f"`arguments`: expected {len(entry.parameters)} for `{entry.name}`, "
            f"got {len(arguments)}."
        )
    packed = bytearray(entry.parameter_bytes)
    for parameter, argument in zip(entry.parameters, arguments, strict=True):
        packed[parameter.offset : parameter.offset + parameter.size] = _bytes_of(
            parameter, argument
        )
    return bytes(packed)


def _bytes_of(parameter: Parameter, argument: Argument) -> bytes:
    if isinstance(argument, Buffer):
        argument = argument.address
    if isinstance(argument, int | np.integer):
        mask = (1 << (8 * parameter.size)) - 1
        return (int(argument) & mask).to_bytes(parameter.size, "little")
    if isinstance(argument, float | np.floating):
        return struct.pack({2: "<e", 4: "<f", 8: "<d"}[parameter.size], float(argument))
    if isinstance(argument, bytes) and len(argument) == parameter.size:
        return argument
    raise SimulatorError(
        f"`{parameter.name}`: expected a buffer, a number or {parameter.size} bytes, "
        f"got {type(argument).__name__}."
    )
