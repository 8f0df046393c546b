"""What the original package asked of its kernel, asked of ours: its sizes, tiles and tolerance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import marlin
from marlin import ops
from marlin.errors import InvalidArgumentError, UnsupportedError
from tests.devices import CUDA, DEVICES, ON_CUDA

TOLERANCE = 1e-3  # mean error over mean magnitude
MAX_PAR = 16
SMALL_TILE, WIDE_TILE = (128, 128), (64, 256)  # k, n

TILES = [
    *((m, WIDE_TILE) for m in (1, 2, 3, 4, 8, 12, 16, 24, 32, 48, 64, 118, 128, 152, 768, 1024)),
    *((m, SMALL_TILE) for m in (1, 2, 3, 4, 8, 12, 16)),
]
# (k, n) of the fused layers of a block.
LLAMA = {
    "7B": [(4096, 12288), (4096, 4096), (4096, 21504), (10752, 4096)],
    "13B": [(5120, 15360), (5120, 5120), (5120, 27136), (13568, 5120)],
    "33B": [(6656, 19968), (6656, 6656), (6656, 35328), (17664, 6656)],
    "70B": [(8192, 24576), (8192, 8192), (8192, 43520), (21760, 8192)],
}


def workspace(n: int, device: str) -> Tensor:
    return torch.zeros(n // 128 * MAX_PAR, dtype=torch.int32, device=device)


def random_weight(k: int, n: int, group_rows: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """The rounded weight (k, n) in fp16, and `B` and `s` as `Layer.pack` makes them of it."""
    weight = torch.randn(k, n, dtype=torch.float16, device=device)
    grouped = weight.view(k // group_rows, group_rows, n)
    scales = grouped.abs().amax(1, keepdim=True) * (2 / 15)
    rounded = ((grouped / scales).round().clamp(-8, 7) * scales).view(k, n)
    linear = nn.Linear(k, n, bias=False, device="meta")
    linear.weight = nn.Parameter(rounded.t(), requires_grad=False)
    # A layer refuses some of the sizes that `mul` takes.
    layer = marlin.Layer(256, 256)
    layer.k, layer.n, layer.groupsize = k, n, group_rows
    layer.B = torch.empty(k // 16, 2 * n, dtype=torch.int32, device=device)
    layer.s = torch.empty(k // group_rows, n, dtype=torch.float16, device=device)
    layer.pack(linear, scales[:, 0].t())
    return rounded, layer.B, layer.s


def check(
    m: int, n: int, k: int, tile: tuple[int, int], device: str, group_rows: int | None = None
) -> None:
    a = torch.randn(m, k, dtype=torch.float16, device=device)
    weight, words, scales = random_weight(k, n, group_rows or k, device)
    c = torch.full((m, n), torch.nan, dtype=torch.float16, device=device)
    marlin.mul(a, words, c, scales, workspace(n, device), *tile)
    exact = a.float() @ weight.float()
    error = ((c - exact).abs().mean() / exact.abs().mean()).item()
    assert error < TOLERANCE, f"mean error {error:.2e}"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("m", "tile"), TILES)
def test_every_tile(m: int, tile: tuple[int, int], device: str) -> None:
    check(m, 512, 1024, tile, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("k", [768, 832, 896])
def test_a_depth_that_is_no_multiple_of_the_stages(k: int, device: str) -> None:
    check(16, 512, k, WIDE_TILE, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("k", [64, 128, 192])
def test_fewer_tiles_than_stages(k: int, device: str) -> None:
    check(16, 512, k, WIDE_TILE, device)


@pytest.mark.parametrize("tile", [SMALL_TILE, WIDE_TILE])
@pytest.mark.parametrize(
    ("n", "k", "device"),
    [
        *((256, k, "cpu") for k in (512, 1024)),
        *(
            pytest.param(n, k, "cuda", marks=ON_CUDA)
            for n, k in ((256, 512), (256, 1024), (32768, 1024))
        ),
    ],
)
def test_groups(n: int, k: int, tile: tuple[int, int], device: str) -> None:
    check(16, n, k, tile, device, 128)


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("m", [1, 16])
@pytest.mark.parametrize(("k", "n"), sorted({size for layers in LLAMA.values() for size in layers}))
def test_layers_of_llama(k: int, n: int, m: int, device: str) -> None:
    check(m, n, k, SMALL_TILE, device)


@pytest.mark.parametrize("device", DEVICES)
def test_errors(device: str) -> None:
    m, n, k = 16, 256, 64
    a = torch.randn(m, k, dtype=torch.float16, device=device)
    c = torch.zeros(m, n, dtype=torch.float16, device=device)
    _, words, scales = random_weight(k, n, k, device)
    with pytest.raises(InvalidArgumentError, match="multiples of 128 and 128, got 64 and 256"):
        marlin.mul(a, words, c, scales, workspace(n, device), *SMALL_TILE)
    with pytest.raises(UnsupportedError, match="got 256 and 256"):
        marlin.mul(a, words, c, scales, workspace(n, device), 256, 256)
    with pytest.raises(InvalidArgumentError, match="`s` must have 256 columns and 1 row, got"):
        marlin.mul(a, words, c, scales.repeat(2, 1), workspace(n, device), *WIDE_TILE)
    with pytest.raises(InvalidArgumentError, match="`workspace` must have at least 32 items"):
        marlin.mul(a, words, c, scales, workspace(n, device)[1:], *WIDE_TILE)
    assert not c.any()


@pytest.mark.parametrize("device", DEVICES)
def test_a_workspace_of_another_dtype_serves(device: str) -> None:
    a = torch.randn(2, 128, dtype=torch.float16, device=device)
    _, words, scales = random_weight(128, 256, 128, device)
    results = [torch.empty(2, 256, dtype=torch.float16, device=device) for _ in range(2)]
    for result, dtype in zip(results, (torch.int32, torch.float32), strict=True):
        marlin.mul(a, words, result, scales, workspace(256, device).to(dtype))
    assert torch.equal(*results)


@pytest.mark.parametrize("device", DEVICES)
def test_a_weight_is_converted_at_its_first_product(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = torch.randn(2, 128, dtype=torch.float16, device=device)
    _, words, scales = random_weight(128, 256, 128, device)
    c = torch.empty(2, 256, dtype=torch.float16, device=device)
    marlin.mul(a, words, c, scales, workspace(256, device))
    monkeypatch.setattr(ops, "repack", None)
    monkeypatch.setattr(ops, "groups_of_device", None)
    marlin.mul(a, words, c, scales, workspace(256, device))


@pytest.mark.parametrize("device", DEVICES)
def test_a_layer_moves_and_packs_on_its_device(device: str) -> None:
    linear = nn.Linear(256, 512, bias=False, device=device, dtype=torch.float16)
    layer = marlin.Layer(256, 512, 128).to(device)
    scales = linear.weight.detach().view(512, 2, 128).abs().amax(-1) / 7
    layer.pack(linear, scales)
    here = marlin.Layer(256, 512, 128)
    here.pack(linear.cpu(), scales.cpu())
    for name, buffer in layer.named_buffers():
        assert buffer.device.type == device
        assert torch.equal(buffer.cpu(), here.get_buffer(name))
    a = torch.randn(3, 256, dtype=torch.float16)
    result, wanted = layer(a.to(device)).cpu().float(), here(a).float()
    assert (result - wanted).abs().mean() < TOLERANCE * wanted.abs().mean()
