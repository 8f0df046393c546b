"""What the GPU kernel of gemm asks of the memories, against the arithmetic of its design."""

from __future__ import annotations

import itertools

import pytest
from plan import IS_MAGIC, tile_shape
from products import Scalar, make_product
from simulated import Run, Simulated

SECTOR = 32  # bytes
TILE_COLUMNS = 256

# Rows and group sizes: a kernel for each number of rows in a tile, and more.
BY_ROWS = [*((m, 128) for m in (8, 16, 32, 64, 128)), (128, -1)]
ALL = [*itertools.product((8, 16, 32, 64, 128), (-1, 32, 64, 128))]


def run(
    m: int,
    n: int,
    k: int,
    group_size: int,
    *,
    bits: int = 4,
    has_zeros: bool = False,
    scalar: Scalar = "float16",
) -> Run:
    product = make_product(m, n, k, group_size, bits=bits, has_zeros=has_zeros, scalar=scalar)
    done = Simulated(product, multiprocessors=4).launch()
    done.report.raise_if_found()
    return done


@pytest.mark.parametrize(("m", "group_size"), ALL)
def test_every_weight_and_scale_is_read_once(m: int, group_size: int) -> None:
    traffic = run(m, 512, 1024, group_size).report.traffic
    # Those of whole columns are loaded again by each lane, or tile, that needs them.
    for name in ("weights",) if group_size == -1 else ("weights", "scales"):
        assert traffic[name].read_bytes == traffic[name].size
        assert traffic[name].read_sectors * SECTOR == traffic[name].size


@pytest.mark.parametrize(("m", "group_size"), BY_ROWS)
def test_activations_are_read_once_per_column_of_tiles(m: int, group_size: int) -> None:
    traffic = run(m, 768, 1024, group_size).report.traffic
    columns = 768 // TILE_COLUMNS
    assert traffic["a"].read_bytes == columns * traffic["a"].size
    assert traffic["a"].read_sectors * SECTOR == columns * traffic["a"].size


@pytest.mark.parametrize(("m", "group_size"), BY_ROWS)
def test_every_part_of_a_shared_column_passes_through_memory_once(m: int, group_size: int) -> None:
    done = run(m, 512, 1024, group_size)
    tiles = done.plan.tiles_k * done.plan.tiles_n
    blocks = [
        len({tile // done.plan.tiles_of_block for tile in range(first, first + done.plan.tiles_k)})
        for first in range(0, tiles, done.plan.tiles_k)
    ]
    parts = sum(number for number in blocks if number > 1)
    assert parts > 0
    partial = done.report.traffic["partial"]
    assert partial.written_bytes == partial.read_bytes == parts * 4 * m * TILE_COLUMNS
    assert partial.written_sectors * SECTOR == partial.read_sectors * SECTOR == partial.read_bytes


@pytest.mark.parametrize(("m", "group_size"), ALL)
@pytest.mark.parametrize("scalar", ["float16", "bfloat16"])
@pytest.mark.parametrize(("bits", "has_zeros"), [(4, False), (4, True), (8, False)])
def test_no_access_to_shared_memory_has_a_bank_conflict(
    m: int, bits: int, has_zeros: bool, scalar: Scalar, group_size: int
) -> None:
    done = run(m, 512, 256, group_size, bits=bits, has_zeros=has_zeros, scalar=scalar)
    for count in done.report.instructions:
        assert count.wavefronts == count.ideal_wavefronts, f"line {count.line}: {count.opcode}"


@pytest.mark.parametrize(("m", "group_size"), BY_ROWS)
def test_tensor_cores_do_no_more_than_the_product_and_its_constants(
    m: int, group_size: int
) -> None:
    n, k = 512, 1024
    done = run(m, n, k, group_size)
    mma = sum(c.warps for c in done.report.instructions if c.opcode.startswith("mma."))
    shape = tile_shape(4, done.plan.rows, done.plan.group_rows)
    columns = 16 if m == 8 else 8
    row_tiles = max(1, m // 16)
    products = n // columns * (k // 16) * row_tiles
    # Those of whole columns the warps share out.
    constant_tiles = row_tiles if done.plan.group_rows else 1
    constants = n // shape.warp_columns * (k // 16) * constant_tiles
    kinds = 0 if shape.scales_weights else 2 if IS_MAGIC else 1
    assert mma == products + constants * kinds
