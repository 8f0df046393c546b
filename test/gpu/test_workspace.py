"""Whose counters a launch takes: csrc/cuda/workspace.cpp, with a runtime that needs no GPU."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from itertools import count

import numpy as np
import pytest
from buildtools.cuda import find_any_cuda
from buildtools.errors import BuildError
from host_library import load

_streams = count(1)  # each test has its own: counters live as long as the process
_graphs = count(1)


@dataclass(frozen=True)
class Runtime:
    library: ctypes.CDLL

    def counters(self, stream: int, least: int = 1, device: int = 0) -> int:
        address = self.library.runtime_counters(device, stream, least)
        if address is None:
            raise RuntimeError(self.library.runtime_last_error().decode())
        return int(address)

    def values(self, address: int, number: int) -> np.ndarray:
        return np.ctypeslib.as_array((ctypes.c_int32 * number).from_address(address))

    def capture(self, stream: int) -> int:
        graph = next(_graphs)
        self.library.runtime_capture(stream, graph)
        return graph

    def captured(self, stream: int, least: int = 1) -> tuple[int, int]:
        """A graph of one launch, and its counters."""
        graph = self.capture(stream)
        address = self.counters(stream, least)
        self.library.runtime_end_capture(stream)
        return graph, address

    def clears(self) -> tuple[int, int]:
        """Done at once, and recorded in graphs."""
        return self.library.runtime_clears_at_once(), self.library.runtime_clears_of_graphs()


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    try:
        include = find_any_cuda(os.environ).nvcc.parents[1] / "include"
    except BuildError as error:
        pytest.skip(str(error))
    files = ("csrc/cuda/workspace.cpp", "test/gpu/workspace_runtime.cpp")
    # -Bsymbolic: in a process that has loaded a real runtime its functions would be called.
    loaded = load("workspace", files, ("-isystem", str(include)), ("-Wl,-Bsymbolic",))
    loaded.runtime_counters.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64)
    loaded.runtime_counters.restype = ctypes.c_void_p
    loaded.runtime_last_error.restype = ctypes.c_char_p
    loaded.runtime_capture.argtypes = (ctypes.c_int, ctypes.c_ulonglong)
    loaded.runtime_destroy_graph.argtypes = (ctypes.c_ulonglong,)
    return Runtime(loaded)


@pytest.fixture
def stream() -> int:
    return next(_streams)


def test_a_stream_has_the_same_counters_for_all_launches(runtime: Runtime, stream: int) -> None:
    before, _ = runtime.clears()
    first = runtime.counters(stream, 100)
    assert not runtime.values(first, 100).any()
    assert runtime.counters(stream, 7) == runtime.counters(stream, 4096) == first
    assert runtime.clears()[0] == before + 1


def test_streams_and_devices_have_their_own(runtime: Runtime, stream: int) -> None:
    other = next(_streams)
    assert len({runtime.counters(s, device=d) for s in (stream, other) for d in (0, 1)}) == 4


def test_a_larger_product_gets_more_and_leaves_the_old_ones_alone(
    runtime: Runtime, stream: int
) -> None:
    old = runtime.counters(stream)
    runtime.values(old, 4096)[:] = 1  # as a launch under way has them
    new = runtime.counters(stream, 5000)
    assert new != old
    assert not runtime.values(new, 8192).any()
    assert runtime.values(old, 4096).all()
    assert runtime.counters(stream, 8192) == new


def test_a_graph_has_counters_of_its_own_and_clears_them_once(
    runtime: Runtime, stream: int
) -> None:
    eager = runtime.counters(stream)
    at_once, in_graphs = runtime.clears()
    runtime.capture(stream)
    first = runtime.counters(stream)
    assert first != eager
    assert [runtime.counters(stream) for _ in range(3)] == [first] * 3
    runtime.library.runtime_end_capture(stream)
    assert runtime.clears() == (at_once, in_graphs + 1)
    assert runtime.counters(stream) == eager
    assert runtime.library.runtime_is_strict_again()


def test_graphs_of_one_stream_and_streams_of_one_graph_have_their_own(
    runtime: Runtime, stream: int
) -> None:
    _, first = runtime.captured(stream)
    graph, second = runtime.captured(stream)
    branch = next(_streams)
    runtime.library.runtime_capture(branch, graph)
    third = runtime.counters(branch)
    runtime.library.runtime_end_capture(branch)
    assert len({first, second, third}) == 3


def test_a_graph_that_needs_more_gets_more_and_keeps_both(runtime: Runtime, stream: int) -> None:
    graph = runtime.capture(stream)
    small = runtime.counters(stream)
    large = runtime.counters(stream, 10_000)
    runtime.library.runtime_end_capture(stream)
    assert large != small
    others = {runtime.captured(stream)[1] for _ in range(3)}
    assert not others & {small, large}
    runtime.library.runtime_destroy_graph(graph)
    assert runtime.captured(stream)[1] in {small, large}


def test_the_next_graph_gets_what_a_destroyed_one_had(runtime: Runtime, stream: int) -> None:
    graph, address = runtime.captured(stream, 50_000)
    runtime.library.runtime_destroy_graph(graph)
    other = next(_streams)
    assert runtime.counters(other, 50_000) != address  # eager ones are never given back
    again, same = runtime.captured(other, 50_000)
    assert same == address
    _, third = runtime.captured(other, 50_000)
    assert third != address
    runtime.library.runtime_destroy_graph(again)


def test_no_memory_is_an_error_and_the_next_call_tries_again(runtime: Runtime, stream: int) -> None:
    runtime.library.runtime_run_out_of_memory(1)
    with pytest.raises(
        RuntimeError, match="internal: no counters for the gemm kernel: out of memory"
    ):
        runtime.counters(stream)
    runtime.library.runtime_run_out_of_memory(0)
    assert runtime.library.runtime_is_strict_again()
    assert not runtime.values(runtime.counters(stream), 4096).any()
