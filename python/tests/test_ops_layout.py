"""The packed layout of scales and zero points, joined tensors, and the memory that they get."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from marlin import ops
from marlin.errors import InvalidArgumentError

MIB = 2**20
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SMAPS = Path("/proc/self/smaps")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("size_n", [8, 64, 72, 200])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_packed_scales_are_those_of_a_block_in_a_row(size_n: int, dtype: torch.dtype) -> None:
    plain = torch.rand(3, size_n).to(dtype)
    packed = ops.pack_groups(plain, size_n)
    assert packed.shape == (-(-size_n // 64), 3, 64)
    assert packed.dtype == dtype
    assert packed.is_contiguous()
    for column in range(size_n):
        assert torch.equal(packed[column // 64, :, column % 64], plain[:, column])
    assert not packed.transpose(0, 1).flatten(1)[:, size_n:].any()
    assert torch.equal(ops.unpack_groups(packed, size_n), plain)


@pytest.mark.parametrize("size_n", [8, 64, 72, 200])
def test_packed_zero_points_are_eight_words_a_block(size_n: int) -> None:
    plain = torch.randint(-(2**31), 2**31, (3, size_n // 8), dtype=torch.int64).int()
    packed = ops.pack_groups(plain, size_n)
    assert packed.shape == (-(-size_n // 64), 3, 8)
    for word in range(size_n // 8):
        assert torch.equal(packed[word // 8, :, word % 8], plain[:, word])
    assert not packed.transpose(0, 1).flatten(1)[:, size_n // 8 :].any()
    assert torch.equal(ops.unpack_groups(packed, size_n), plain)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("size_n", [64, 72, 128])
def test_packing_takes_new_memory_and_strided_tensors(size_n: int, groups: int) -> None:
    plain = torch.rand(size_n, groups).t()
    packed = ops.pack_groups(plain, size_n)
    back = ops.unpack_groups(packed, size_n)
    assert torch.equal(back, plain)
    assert len({tensor.untyped_storage().data_ptr() for tensor in (plain, packed, back)}) == 3


def test_packing_keeps_a_tensor_on_its_device() -> None:
    packed = ops.pack_groups(torch.empty(3, 72, device="meta"), 72)
    assert (packed.is_meta, packed.shape) == (True, (2, 3, 64))
    assert ops.unpack_groups(packed, 72).shape == (3, 72)


@pytest.mark.parametrize("dtype", [torch.int32, torch.bfloat16])
def test_joined_tensors_follow_each_other(dtype: torch.dtype) -> None:
    parts = [torch.randint(0, 99, (blocks, 6, 64)).to(dtype) for blocks in (3, 1, 0, 20)]
    whole = ops.join(parts)
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(ops.join(parts[:1]), parts[0])
    assert ops.join(parts[:1]).data_ptr() != parts[0].data_ptr()
    strided = parts[3].transpose(1, 2)
    assert torch.equal(ops.join([strided, strided]), torch.cat([strided, strided]))


PART = torch.zeros(2, 3, 64)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "`parts`: expected at least one tensor, got none"),
        ([PART[0]], r"`parts`: expected packed tensors of 3 dimensions, got shape \(3, 64\)"),
        ([PART, PART[:, :2]], r"`parts`: expected shape \(2, 3, 64\), got \(2, 2, 64\)"),
        ([PART, PART.half()], "`parts`: expected one dtype, got Float and Half"),
        ([PART, None], r"`parts\[1\]`: expected Tensor, got NoneType"),
        ([PART, PART.to("meta")], r"one device, got `parts\[0\]` on cpu, `parts\[1\]` on meta"),
    ],
)
def test_join_names_what_is_wrong(parts: list[Tensor], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        ops.join(parts)


def test_join_gives_shapes_on_meta_and_compiles() -> None:
    assert ops.join([PART.to("meta"), PART.to("meta")]).shape == (4, 3, 64)
    torch.compiler.reset()
    compiled = torch.compile(ops.join, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled([PART + 1, PART]), torch.cat([PART + 1, PART]))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("size_k", "steps"), [(64, 8), (128, 8), (160, 16)])
def test_shapes_of_a_gpu_are_known_without_one(size_k: int, steps: int, bits: int) -> None:
    with FakeTensorMode():
        plain = torch.empty(size_k * bits // 32, 72, dtype=torch.int32, device="cuda:0")
        packed = ops.repack(plain, 72, size_k, bits)
        assert packed.shape == (2, steps, 32 * bits)
        assert ops.unpack(packed, 72, size_k, bits).shape == plain.shape
        assert ops.join([packed, packed]).shape == (4, steps, 32 * bits)


def flags_of_memory(address: int) -> list[str]:
    """The kernel's flags of the mapping that holds `address`; "hg": huge pages are asked for."""
    inside = False
    for line in SMAPS.read_text().splitlines():
        first, _, rest = line.partition(" ")
        if not first.endswith(":"):
            begin, _, end = first.partition("-")
            inside = int(begin, 16) <= address < int(end, 16)
        elif inside and first == "VmFlags:":
            return rest.split()
    raise AssertionError("the address is not mapped")


@pytest.mark.skipif(
    not (HUGE_PAGES.is_file() and SMAPS.is_file()), reason="the system has no huge pages to grant"
)
def test_packed_and_joined_weights_ask_for_huge_pages() -> None:
    plain = torch.zeros(512, 4096, dtype=torch.int32)
    packed = ops.repack(plain, 4096, 4096)
    for tensor in (packed, ops.join([packed, packed])):
        assert "hg" in flags_of_memory(tensor.data_ptr() + 4 * MIB)
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("word_rows", [8, 16, 24, 40])
def test_a_wide_weight_is_its_blocks_packed_one_by_one(word_rows: int, bits: int) -> None:
    size_n, size_k = 2568, word_rows * 32 // bits
    plain = torch.randint(-(2**31), 2**31, (word_rows, size_n), dtype=torch.int64).int()
    packed = ops.repack(plain, size_n, size_k, bits)
    for block, columns in enumerate(plain.split(64, dim=1)):  # type: ignore[no-untyped-call]
        expected = ops.repack(columns, columns.shape[1], size_k, bits)
        assert torch.equal(packed[block], expected[0])
    assert torch.equal(ops.unpack(packed, size_n, size_k, bits), plain)
