"""The launch plan of gemm: every tile is somebody's, nobody idles, everything fits."""

from __future__ import annotations

import pytest
from plan import IS_MAGIC, Plan, plan_gemm, tile_shape

# Shared memory that a block may have, KiB (CUDA C++ Programming Guide, technical specifications).
SHARED_KIB = {80: 163, 86: 99, 89: 99, 90: 227}
MULTIPROCESSORS = {80: 108, 86: 72, 89: 142, 90: 132}

SHAPES = [(64, 32), (256, 256), (4096, 4096), (14336, 4096), (4096, 14336), (8, 32), (72, 96)]


def plan_of(
    m: int,
    n: int,
    k: int,
    group_size: int,
    architecture: int,
    *,
    bits: int = 4,
    has_zeros: bool = False,
    is_bfloat16: bool = False,
) -> Plan:
    return plan_gemm(
        *(m, n, k, group_size),
        bits=bits,
        has_zeros=has_zeros,
        is_bfloat16=is_bfloat16,
        architecture=architecture,
        multiprocessors=MULTIPROCESSORS[architecture],
    )


@pytest.mark.parametrize("architecture", SHARED_KIB)
@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("m", [1, 8, 9, 16, 17, 33, 512, 8192])
def test_stripes_cover_all_tiles_and_are_equal(m: int, n: int, k: int, architecture: int) -> None:
    plan = plan_of(m, n, k, k, architecture)
    assert plan.tiles_m * plan.rows >= m > (plan.tiles_m - 1) * plan.rows
    assert plan.tiles_n * 256 >= n > (plan.tiles_n - 1) * 256
    assert plan.tiles_k * 128 >= k > (plan.tiles_k - 1) * 128
    tiles = plan.tiles_m * plan.tiles_n * plan.tiles_k
    places = MULTIPROCESSORS[architecture] * resident_blocks(plan, architecture)
    assert plan.blocks <= places
    assert (plan.blocks - 1) * plan.tiles_of_block < tiles <= plan.blocks * plan.tiles_of_block
    # No other number of blocks would be done with fewer tiles each.
    assert plan.tiles_of_block == -(-tiles // min(tiles, places))


def resident_blocks(plan: Plan, architecture: int) -> int:
    """Two, where both fit: each may take 255 registers, and 1 KiB more than it asks for."""
    kib = -(-plan.shared_bytes // 1024) + 1
    fits = 2 * kib <= SHARED_KIB[architecture] + 1 and 2 * plan.threads * 255 <= 65536
    return 2 if fits else 1


@pytest.mark.parametrize("architecture", SHARED_KIB)
@pytest.mark.parametrize("group_size", [32, 64, 96, 128, 384, 4096 * 3])
@pytest.mark.parametrize(("bits", "has_zeros"), [(4, False), (4, True), (8, False)])
@pytest.mark.parametrize("m", [1, 16, 32, 64, 128])
def test_stages_fit_the_shared_memory(
    m: int, bits: int, has_zeros: bool, group_size: int, architecture: int
) -> None:
    options = {"bits": bits, "has_zeros": has_zeros}
    plan = plan_of(m, 4096, 4096 * 3, group_size, architecture, **options)
    assert plan.shared_bytes <= SHARED_KIB[architecture] * 1024
    shape = tile_shape(bits, plan.rows, plan.group_rows, has_zeros=has_zeros)
    assert plan.shared_bytes == shape.shared_bytes
    assert plan.threads == 32 * shape.warps
    assert shape.stages >= 2
    # Of the stages that are under way each slice of a tile has as many.
    assert (shape.stages - 1) % shape.slices == 0


@pytest.mark.parametrize(
    ("group_size", "rows"), [(32, 32), (64, 64), (96, 32), (128, 128), (192, 64), (256, 128)]
)
def test_groups_are_scaled_in_the_longest_parts(group_size: int, rows: int) -> None:
    assert plan_of(1, 64, 768, group_size, 80).group_rows == rows


def test_one_group_per_column_is_scaled_at_the_end() -> None:
    """But for magic constants, whose sums would grow too large."""
    assert plan_of(1, 64, 768, 768, 80).group_rows == (128 if IS_MAGIC else 0)


@pytest.mark.parametrize(
    ("m", "rows"), [(1, 8), (8, 8), (9, 16), (16, 16), (17, 32), (32, 32), (33, 64), (512, 128)]
)
def test_rows_of_a_tile_suit_the_batch(m: int, rows: int) -> None:
    assert plan_of(m, 64, 256, 128, 80).rows == rows


@pytest.mark.parametrize(
    ("m", "rows"), [(64, 64), (65, 128), (128, 128), (129, 64), (192, 64), (193, 128), (2048, 128)]
)
def test_many_rows_of_float16_take_tiles_of_128(m: int, rows: int) -> None:
    for group_size in (32, 64, 128, 256):
        for has_zeros in (False, True):
            assert plan_of(m, 64, 256, group_size, 80, has_zeros=has_zeros).rows == rows
        assert plan_of(m, 64, 256, group_size, 80, is_bfloat16=True).rows == 64
        assert plan_of(m, 64, 256, group_size, 80, bits=8).rows == 64


def test_tiles_of_128_rows_are_filled_up_no_further_than_those_of_64() -> None:
    for m in range(65, 1025):
        plan = plan_of(m, 64, 256, 256, 80)
        assert plan.tiles_m * plan.rows == -(-m // 64) * 64


def test_the_workspace_holds_two_places_and_counters_of_a_column_for_every_block() -> None:
    plan = plan_of(33, 520, 256, 128, 80)
    assert plan.counter_count == plan.blocks * 16
    assert plan.partial_bytes == plan.blocks * 2 * plan.rows * 256 * 4
