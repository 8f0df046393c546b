"""The kernels of csrc/cuda/repack.cu and dequantize.cu, run as PTX: values, bytes and sectors."""

from __future__ import annotations

import itertools
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import packed_layout
import pytest
from kernels import CUDA, compile_ptx, entry
from ptxsim import Options, Report, Simulator, counted_as
from ptxsim.build import ROOT

sys.path.insert(0, str(ROOT / "python"))

import torch

from marlin import primitives

ARCHITECTURE = "sm_80"  # the one whose PTX serves every newer GPU, too
SECTOR = 32

# As launched: lanes and warps of a block.
REPACK_BLOCK = (32, 8)
REPACK_STEPS = 8
DEQUANTIZE_BLOCK = 128
DEQUANTIZE_ROWS = 64

MAX_SCALE = 65504  # of float16

# (K, N): whole blocks and tiles, single steps, and tails of 8 to 56 columns.
SHAPES = [(32, 8), (32, 64), (64, 56), (96, 72), (160, 128), (224, 104), (256, 120), (512, 328)]
BITS = [4, 8]

Words = npt.NDArray[np.uint32]


@pytest.fixture(autouse=True)
def _family() -> Iterator[None]:
    with counted_as("repack, unpack, dequantize"):
        yield


def random_codes(size_k: int, size_n: int, seed: int, bits: int = 4) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 2**bits, (size_k, size_n), dtype=np.uint8)


def plain_words(codes: npt.NDArray[np.uint8], bits: int = 4) -> Words:
    """Codes (K, N) in the plain layout, (K * bits / 32, N)."""
    return primitives.pack_codes(torch.from_numpy(codes), bits).numpy().view(np.uint32)


def convert(
    kernel: str,
    words: Words,
    size_k: int,
    size_n: int,
    bits: int,
    *,
    seed: int = 1,
    grid_y: int | None = None,
) -> tuple[Words, Report]:
    """Runs `repack` or `unpack`, and checks what holds for both."""
    packed_shape = packed_layout.packed_shape(size_k, size_n, bits)
    plain_shape = (size_k * bits // 32, size_n)
    shape = packed_shape if kernel == "repack" else plain_shape
    simulator = Simulator(compile_ptx(CUDA / "repack.cu", ARCHITECTURE))
    source = simulator.buffer("source", words, read_only=True)
    target = simulator.buffer("target", size=4 * int(np.prod(shape)))
    report = simulator.launch(
        entry(simulator, f"{len(kernel)}{kernel}ILi{bits}E"),
        (packed_shape[0], grid_y or -(-packed_shape[1] // REPACK_STEPS)),
        REPACK_BLOCK,
        [source, size_n, size_k, target],
        options=Options(seed=seed),
    )
    report.raise_if_found()
    assert target.written().all()
    return target.read(np.uint32, shape), report


@pytest.mark.parametrize("bits", BITS)
def test_the_numpy_definition_is_that_of_the_header(bits: int) -> None:
    size_k, size_n = 160, 72
    codes = random_codes(size_k, size_n, seed=0, bits=bits)
    packed = packed_layout.pack(codes, bits)
    largest = 2**bits - 1
    for block, step, lane, j, p, odd in itertools.product(*map(range, (2, 16, 32, 4, 4, 2))):
        q, t = divmod(lane, 4)
        column = 64 * block + 8 * q + 2 * p + j % 2
        row = 16 * step + 8 * (j // 2) + 2 * t + odd
        is_inside = column < size_n and row < size_k
        code = int(codes[row, column]) if is_inside else 2 ** (bits - 1)
        complemented = int(step % 8 in (0, 3, 5, 6))  # an even number of ones
        part, place = (0, p + 4 * odd) if bits == 4 else (p // 2, p % 2 + 2 * odd)
        word = int(packed[block, step, 128 * part + 4 * lane + j])
        stored = word >> bits * place & largest
        assert stored == (largest - code if odd == complemented else code)
    np.testing.assert_array_equal(packed_layout.unpack(packed, size_k, size_n, bits), codes)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("size_k", "size_n"), SHAPES)
def test_repack_writes_the_packed_layout(size_k: int, size_n: int, seed: int, bits: int) -> None:
    codes = random_codes(size_k, size_n, seed, bits)
    packed, _ = convert("repack", plain_words(codes, bits), size_k, size_n, bits, seed=seed)
    np.testing.assert_array_equal(packed, packed_layout.pack(codes, bits))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("size_k", "size_n"), SHAPES)
def test_unpack_is_the_inverse_of_repack(size_k: int, size_n: int, seed: int, bits: int) -> None:
    plain = plain_words(random_codes(size_k, size_n, seed, bits), bits)
    packed, _ = convert("repack", plain, size_k, size_n, bits, seed=seed)
    back, _ = convert("unpack", packed, size_k, size_n, bits, seed=seed)
    np.testing.assert_array_equal(back, plain)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("size_n", range(8, 137, 8))
def test_every_tail_of_columns_is_packed_and_unpacked(size_n: int, bits: int) -> None:
    codes = random_codes(32, size_n, seed=size_n, bits=bits)
    packed, _ = convert("repack", plain_words(codes, bits), 32, size_n, bits)
    np.testing.assert_array_equal(packed, packed_layout.pack(codes, bits))
    back, _ = convert("unpack", packed, 32, size_n, bits)
    np.testing.assert_array_equal(back, plain_words(codes, bits))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kernel", ["repack", "unpack"])
@pytest.mark.parametrize("grid_y", [1, 2, 5])
def test_blocks_walk_on_where_the_grid_is_too_short(kernel: str, grid_y: int, bits: int) -> None:
    size_k, size_n = 16 * 37, 72
    codes = random_codes(size_k, size_n, 5, bits)
    plain, packed = plain_words(codes, bits), packed_layout.pack(codes, bits)
    source, target = (plain, packed) if kernel == "repack" else (packed, plain)
    result, _ = convert(kernel, source, size_k, size_n, bits, grid_y=grid_y)
    np.testing.assert_array_equal(result, target)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kernel", ["repack", "unpack"])
@pytest.mark.parametrize(("size_k", "size_n"), SHAPES)
def test_every_sector_is_moved_once_and_whole(
    kernel: str, size_k: int, size_n: int, bits: int
) -> None:
    codes = random_codes(size_k, size_n, 6, bits)
    plain, packed = plain_words(codes, bits), packed_layout.pack(codes, bits)
    source, target = (plain, packed) if kernel == "repack" else (packed, plain)
    _, report = convert(kernel, source, size_k, size_n, bits)
    read, written = report.traffic["source"], report.traffic["target"]
    # Packed steps that fill up the last tile are written, and nobody reads them.
    existing = (
        source.nbytes if kernel == "repack" else packed.nbytes // packed.shape[1] * (size_k // 16)
    )
    assert (read.read_bytes, read.read_sectors) == (existing, existing // SECTOR)
    assert (written.written_bytes, written.written_sectors) == (
        target.nbytes,
        target.nbytes // SECTOR,
    )
    assert read.written_bytes == written.read_bytes == 0


@dataclass(frozen=True)
class Format:
    """A dtype of scales: what it is called in a kernel's name, in weights.h and in bits."""

    dtype: torch.dtype
    mangled: str
    number: int
    bits: torch.dtype


FORMATS = {
    "float16": Format(torch.float16, "6__half", 0, torch.int16),
    "bfloat16": Format(torch.bfloat16, "13__nv_bfloat16", 1, torch.int16),
    "float32": Format(torch.float32, "f", 2, torch.int32),
}


@dataclass(frozen=True)
class Weight:
    """Random plain tensors, as primitives.py describes them."""

    codes: npt.NDArray[np.uint8]
    scales: torch.Tensor
    qzeros: torch.Tensor | None
    group_size: int
    bits: int

    def dequantized(self) -> torch.Tensor:
        qweight = torch.from_numpy(plain_words(self.codes, self.bits).view(np.int32))
        group_size = self.group_size if self.group_size < len(self.codes) else -1
        return primitives.dequantize(qweight, self.scales, self.qzeros, group_size, bits=self.bits)


def random_weight(
    size_k: int,
    size_n: int,
    group_size: int,
    dtype: torch.dtype,
    has_zeros: bool,
    seed: int,
    bits: int = 4,
) -> Weight:
    """Finite scales of both signs, from subnormal ones to those whose products overflow."""
    draw = torch.Generator().manual_seed(seed)
    groups = size_k // group_size
    exponents = torch.randint(-26, 16, (groups, size_n), generator=draw)
    scales = torch.randn((groups, size_n), generator=draw) * torch.exp2(exponents.float())
    zeros = torch.randint(0, 16, (groups, size_n), generator=draw, dtype=torch.uint8)
    return Weight(
        random_codes(size_k, size_n, seed, bits),
        scales.clamp(-MAX_SCALE, MAX_SCALE).to(dtype),
        primitives.pack_zeros(zeros) if has_zeros else None,
        group_size,
        bits,
    )


def dequantize(
    weight: Weight, name: str, *, seed: int = 1, grid_y: int | None = None
) -> tuple[torch.Tensor, Report]:
    """Runs the kernel; its result (N, K) as bits."""
    format_ = FORMATS[name]
    size_k, size_n = weight.codes.shape
    simulator = Simulator(compile_ptx(CUDA / "dequantize.cu", ARCHITECTURE))
    words = simulator.buffer("words", packed_layout.pack(weight.codes, weight.bits), read_only=True)
    scale_bits = weight.scales.view(format_.bits).numpy()
    scales = simulator.buffer("scales", scale_bits, read_only=True)
    zeros = 0
    if weight.qzeros is not None:
        zeros = simulator.buffer("zeros", weight.qzeros.numpy(), read_only=True).address
    out = simulator.buffer("out", size=size_k * size_n * scale_bits.itemsize)
    pointers = (words.address, scales.address, zeros)
    strides = (size_n, packed_layout.COLUMNS)
    sizes = (size_n, size_k, weight.group_size)
    weights = struct.pack("<QQQqqB3xiqqq", *pointers, *strides, format_.number, weight.bits, *sizes)
    report = simulator.launch(
        entry(simulator, f"10dequantizeI{format_.mangled}Li{weight.bits}E"),
        (-(-size_n // packed_layout.COLUMNS), grid_y or -(-size_k // DEQUANTIZE_ROWS)),
        DEQUANTIZE_BLOCK,
        [weights, out],
        options=Options(seed=seed),
    )
    report.raise_if_found()
    assert out.written().all()
    return torch.from_numpy(out.read(scale_bits.dtype, (size_n, size_k))), report


def check_dequantize(weight: Weight, name: str, **options: int) -> Report:
    result, report = dequantize(weight, name, **options)
    expected = weight.dequantized().view(FORMATS[name].bits)
    wrong = (result != expected).nonzero()
    assert len(wrong) == 0, f"{len(wrong)} of {result.numel()} are wrong, the first at {wrong[0]}"
    return report


@pytest.mark.parametrize(("bits", "has_zeros"), [(4, False), (4, True), (8, False)])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("size_k", "size_n", "group_size"),
    [(32, 8, 32), (96, 56, 32), (96, 72, 96), (256, 128, 64), (256, 136, 128), (320, 200, 320)],
)
def test_dequantize_is_exactly_the_definition(
    size_k: int, size_n: int, group_size: int, name: str, bits: int, has_zeros: bool
) -> None:
    for seed in (1, 2, 3):
        dtype = FORMATS[name].dtype
        weight = random_weight(size_k, size_n, group_size, dtype, has_zeros, seed, bits)
        check_dequantize(weight, name, seed=seed)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("grid_y", [1, 2])
def test_blocks_of_dequantize_walk_on_too(name: str, grid_y: int) -> None:
    weight = random_weight(352, 72, 32, FORMATS[name].dtype, True, 4)
    check_dequantize(weight, name, grid_y=grid_y)


@pytest.mark.parametrize(("bits", "has_zeros"), [(4, False), (4, True), (8, False)])
@pytest.mark.parametrize("name", FORMATS)
def test_dequantize_moves_weights_and_results_in_whole_sectors(
    name: str, bits: int, has_zeros: bool
) -> None:
    weight = random_weight(352, 136, 32, FORMATS[name].dtype, has_zeros, 5, bits)
    report = check_dequantize(weight, name)
    words, out = report.traffic["words"], report.traffic["out"]
    existing = words.size // packed_layout.packed_shape(352, 136)[1] * (352 // 16)
    assert words.read_bytes == existing
    assert words.read_sectors == existing // SECTOR
    assert out.written_bytes == out.size
    assert out.written_sectors == out.size // SECTOR
    # Those that threads share come out of the first-level cache.
    assert report.traffic["scales"].read_sectors <= out.written_sectors // 4
    if has_zeros:
        assert report.traffic["zeros"].read_sectors <= out.written_sectors // 4


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("name", "most"), [("float16", 1), ("bfloat16", 1), ("float32", 2)])
def test_threads_of_dequantize_meet_in_few_banks(name: str, most: int, bits: int) -> None:
    weight = random_weight(256, 128, 64, FORMATS[name].dtype, bits == 4, 6, bits)
    report = check_dequantize(weight, name)
    shared = [one for one in report.instructions if one.wavefronts]
    assert shared
    assert all(one.wavefronts <= most * one.ideal_wavefronts for one in shared)


def test_kernels_of_hopper_do_the_same() -> None:
    codes = random_codes(96, 72, seed=7)
    simulator = Simulator(compile_ptx(CUDA / "repack.cu", "sm_90a"))
    plain = simulator.buffer("plain", plain_words(codes), read_only=True)
    packed = simulator.buffer("packed", size=packed_layout.pack(codes).nbytes)
    arguments = [plain, codes.shape[1], codes.shape[0], packed]
    simulator.launch(
        entry(simulator, "6repackILi4E"), (2, 1), REPACK_BLOCK, arguments
    ).raise_if_found()
    np.testing.assert_array_equal(packed.read(np.uint32), packed_layout.pack(codes).ravel())
