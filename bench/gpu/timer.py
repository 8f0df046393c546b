"""The timer of the GPU: graphs of many calls between two events, all cases in turn in every round.

On the CPU the same rounds take the wall clock, to try the bench where there is no GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from bench.timing import Timings

__all__ = ["Case", "ClockTimer", "GraphTimer", "Timer", "interleave_cases", "timer_of"]

Case = Callable[[], float]  # runs, and returns the seconds of one call
WARM_CALLS = 2


class Timer(Protocol):
    """Makes cases of calls, which get the number of the call."""

    def graph(self, call: Callable[[int], object], calls: int) -> Case:
        """`calls` calls as one: nothing of Python, the dispatcher or the launch is timed."""
        ...

    def queue(self, call: Callable[[int], object], calls: int) -> Case:
        """Calls one after the other: for what takes much longer than to launch it."""
        ...


class GraphTimer:
    """A CUDA device's: events on a stream of its own.

    What is timed comes right behind an untimed run of the same, so that it waits for no launch and
    finds the clocks up.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def graph(self, call: Callable[[int], object], calls: int) -> Case:
        self._warm(call)
        graph = torch.cuda.CUDAGraph()
        # On the stream that has run it: what belongs to a stream, as the locks of our kernel and
        # the workspace of cuBLAS, is there already and no part of the graph.
        with torch.cuda.graph(graph, stream=self._stream):
            for number in range(calls):
                call(number)
        return self._case(graph.replay, calls)

    def queue(self, call: Callable[[int], object], calls: int) -> Case:
        self._warm(call)

        def run() -> None:
            for number in range(calls):
                call(number)

        return self._case(run, calls)

    def _warm(self, call: Callable[[int], object]) -> None:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for number in range(WARM_CALLS):
                call(number)
        self._stream.synchronize()

    def _case(self, run: Callable[[], None], calls: int) -> Case:
        begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

        def seconds() -> float:
            with torch.cuda.stream(self._stream):
                run()
                begin.record()
                run()
                end.record()
            end.synchronize()
            return float(begin.elapsed_time(end)) * 1e-3 / calls

        return seconds


class ClockTimer:
    """The CPU's wall clock. Its figures say nothing of a GPU."""

    def graph(self, call: Callable[[int], object], calls: int) -> Case:
        return self.queue(call, calls)

    def queue(self, call: Callable[[int], object], calls: int) -> Case:
        def seconds() -> float:
            begin = time.perf_counter()
            for number in range(calls):
                call(number)
            return (time.perf_counter() - begin) / calls

        return seconds


def timer_of(device: torch.device) -> Timer:
    """The timer for tensors of `device`."""
    return GraphTimer(device) if device.type == "cuda" else ClockTimer()


def interleave_cases(cases: Mapping[str, Case], rounds: int) -> Timings:
    """Every case once per round, in an order that rotates; one more round comes first, unkept."""
    names = list(cases)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds + 1):
        start = index % len(names) if names else 0
        for name in names[start:] + names[:start]:
            measured = cases[name]()
            if index > 0:
                seconds[name].append(measured)
    return Timings(seconds)
