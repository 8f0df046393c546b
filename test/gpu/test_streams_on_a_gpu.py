"""Products on a real GPU under graphs, on several streams, from several threads, on two devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from operands import DEVICE, IS_CUDA, Operands, needs_cuda, on_a_gpu, poison, random_operands
from torch import Tensor

pytestmark = on_a_gpu

SMALL = [
    (1, 264, 256),
    (17, 1032, 4096),
    (130, 520, 512),
]  # m, n, k; counters of one and many tiles
REPEATS = 50


def cases_of(sizes: Sequence[tuple[int, int, int]]) -> list[Operands]:
    return [random_operands(m, n, k, 128, seed=seed) for seed, (m, n, k) in enumerate(sizes)]


def capture(
    call: Callable[[], list[Tensor]], stream: torch.cuda.Stream | None = None
) -> tuple[torch.cuda.CUDAGraph, list[Tensor]]:
    """A graph of a call, after a warm-up on the same stream, and its results."""
    warm = stream or torch.cuda.Stream()
    warm.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        results = call()
    return graph, results


def replayed(graph: torch.cuda.CUDAGraph, results: list[Tensor]) -> list[Tensor]:
    """The results of one replay, which begins with none."""
    for result in results:
        result.fill_(float("nan"))
    graph.replay()
    torch.cuda.synchronize()
    return results


@needs_cuda
@pytest.mark.parametrize("is_warm", [False, True])
def test_gemms_of_different_sizes_share_the_counters_of_a_graph(is_warm: bool) -> None:
    """On a stream that has counters already, and on one that has none: the graph brings its own."""
    cases = cases_of(SMALL * 2)
    wanted = [case.gemm() for case in cases]
    stream = torch.cuda.Stream() if is_warm else None
    graph, results = capture(lambda: [case.gemm() for case in cases], stream)
    for _ in range(REPEATS):
        for result, one in zip(replayed(graph, results), wanted, strict=True):
            assert torch.equal(result, one)


@needs_cuda
def test_a_graph_multiplies_what_its_inputs_hold_when_it_is_replayed() -> None:
    case = random_operands(16, 4096, 4096, 128)
    first = case.a.clone()
    graph, (result,) = capture(lambda: [case.gemm()])
    for seed in range(4):
        other = random_operands(16, 8, 4096, 128, seed=seed + 1).a
        case.a.copy_(other)
        wanted = case.gemm()
        assert torch.equal(replayed(graph, [result])[0], wanted)
        assert not torch.equal(wanted, replace(case, a=first).gemm())


@needs_cuda
def test_a_graph_outlives_the_growth_of_the_counters_of_its_stream() -> None:
    stream = torch.cuda.Stream()
    case = random_operands(16, 1032, 4096, 128)
    wanted = case.gemm()
    graph, results = capture(lambda: [case.gemm()], stream)
    # More tiles than a stream first has counters for.
    large = random_operands(20000, 8192, 128, 128)
    with torch.cuda.stream(stream):
        large.gemm()
        torch.cuda.synchronize()
        poison()
        for _ in range(3):
            assert torch.equal(replayed(graph, results)[0], wanted)


@needs_cuda
@pytest.mark.parametrize("is_warm", [False, True])
def test_graphs_of_one_stream_keep_apart_from_each_other_and_from_it(is_warm: bool) -> None:
    """Replayed at once, each on a stream of its own, beside launches on the one they are from."""
    cases = cases_of([(8, 4096, 4096)] * 3)
    wanted = [case.gemm() for case in cases]
    source = torch.cuda.Stream() if is_warm else None
    captured = [capture(lambda case=case: [case.gemm()], source) for case in cases[:2]]
    streams = [torch.cuda.Stream() for _ in captured]
    launched = []
    torch.cuda.synchronize()
    for _ in range(REPEATS):
        for (graph, _), stream in zip(captured, streams, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()
        with torch.cuda.stream(source):
            launched.append(cases[2].gemm())
    torch.cuda.synchronize()
    for (_, (result,)), one in zip(captured, wanted, strict=False):
        assert torch.equal(result, one)
    assert all(torch.equal(result, wanted[2]) for result in launched)


@needs_cuda
def test_streams_do_not_disturb_each_other() -> None:
    cases = cases_of([(8, 4096, 4096), (16, 4096, 4096), (64, 4096, 1024)])
    wanted = [case.gemm() for case in cases]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in cases]
    results: list[list[Tensor]] = [[] for _ in cases]
    for _ in range(REPEATS):
        for case, stream, kept in zip(cases, streams, results, strict=True):
            with torch.cuda.stream(stream):
                kept.append(case.gemm())
    torch.cuda.synchronize()
    for kept, one in zip(results, wanted, strict=True):
        assert all(torch.equal(result, one) for result in kept)


@needs_cuda
def test_a_stream_waits_for_the_event_of_another() -> None:
    """The product comes after what its stream waits for, and on no other stream."""
    case = random_operands(16, 4096, 4096, 128)
    wanted = case.gemm()
    a = torch.full_like(case.a, float("nan"))
    first, second = torch.cuda.Stream(), torch.cuda.Stream()
    torch.cuda.synchronize()
    for _ in range(10):
        event = torch.cuda.Event()
        with torch.cuda.stream(first):
            torch.cuda._sleep(2_000_000)  # cycles: about a millisecond
            a.copy_(case.a)
            event.record()
        with torch.cuda.stream(second):
            second.wait_event(event)
            result = replace(case, a=a).gemm()
            a.fill_(float("nan"))
        torch.cuda.synchronize()
        assert torch.equal(result, wanted)


@pytest.mark.parametrize("has_streams", [False, pytest.param(True, marks=needs_cuda)])
def test_threads_multiply_at_once(has_streams: bool) -> None:
    """On one stream for all, and on one for each."""
    cases = cases_of([(1, 4096, 1024), (16, 1032, 4096), (33, 264, 4096), (100, 520, 512)])
    wanted = [case.gemm() for case in cases]
    if IS_CUDA:
        torch.cuda.synchronize()

    def multiply(case: Operands) -> list[Tensor]:
        if not has_streams:
            return [case.gemm() for _ in range(REPEATS)]
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            results = [case.gemm() for _ in range(REPEATS)]
        stream.synchronize()
        return results

    with ThreadPoolExecutor(len(cases)) as pool:
        results = list(pool.map(multiply, cases))
    for kept, one in zip(results, wanted, strict=True):
        assert all(torch.equal(result, one) for result in kept)


@needs_cuda
def test_a_second_device_has_its_own_everything() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one CUDA GPU")
    case = random_operands(16, 1032, 4096, 128)
    wanted = case.gemm()
    other = torch.device("cuda", 1 - torch.cuda.current_device())
    moved = replace(
        case, **{name: getattr(case, name).to(other) for name in ("a", "qweight", "scales")}
    )
    for _ in range(10):
        result = moved.gemm()  # while the first device is the current one
        assert result.device == other
        assert torch.equal(result.to(DEVICE), wanted)
        assert torch.equal(case.gemm(), wanted)
