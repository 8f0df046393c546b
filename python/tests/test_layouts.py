"""Padding, and the published Marlin layout in both directions."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from marlin.errors import InvalidArgumentError
from marlin.layouts import (
    marlin_scales_to_plain,
    marlin_to_plain,
    pad_plain,
    plain_scales_to_marlin,
    plain_to_marlin,
)
from marlin.primitives import dequantize, pack_codes, pack_zeros, unpack_codes


def random_qweight(size_k: int, size_n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return pack_codes(torch.randint(0, 16, (size_k, size_n), generator=generator))


def codes_by_the_published_rule(packed: Tensor) -> Tensor:
    """Codes (K, N) of `B`, nibble by nibble, as the layout is described."""
    size_k, size_n = packed.shape[0] * 16, packed.shape[1] // 2
    codes = torch.full((size_k, size_n), -1)
    for row_block in range(size_k // 16):
        for column_block in range(size_n // 64):
            for lane in range(32):
                for tile in range(4):
                    word = int(packed[row_block, 128 * column_block + 4 * lane + tile])
                    row, column = 2 * (lane % 4), lane // 4
                    places = [
                        (row, column),
                        (row + 8, column),
                        (row, column + 8),
                        (row + 8, column + 8),
                        (row + 1, column),
                        (row + 9, column),
                        (row + 1, column + 8),
                        (row + 9, column + 8),
                    ]
                    for nibble, (r, c) in enumerate(places):
                        k, n = 16 * row_block + r, 64 * column_block + 16 * tile + c
                        codes[k, n] = word >> (4 * nibble) & 15
    return codes


def test_marlin_words_hold_the_codes_of_the_published_layout() -> None:
    qweight = random_qweight(32, 128)
    packed = plain_to_marlin(qweight)
    assert packed.shape == (2, 256)
    assert torch.equal(codes_by_the_published_rule(packed), unpack_codes(qweight).long())


@given(k=st.integers(1, 5), n=st.integers(1, 4), seed=st.integers(0, 100))
def test_marlin_to_plain_is_the_inverse(k: int, n: int, seed: int) -> None:
    qweight = random_qweight(16 * k, 64 * n, seed)
    packed = plain_to_marlin(qweight)
    assert packed.shape == (k, 128 * n)
    assert torch.equal(marlin_to_plain(packed), qweight)
    assert torch.equal(plain_to_marlin(marlin_to_plain(qweight.view(k, -1))), qweight.view(k, -1))


def test_grouped_scales_are_transposed_in_blocks_of_64() -> None:
    scales = torch.arange(256.0).view(2, 128)
    permuted = plain_scales_to_marlin(scales)
    for column in range(64):
        assert permuted[1, 64 + column] == scales[1, 64 + column // 8 + 8 * (column % 8)]


def test_channel_scales_are_permuted_in_blocks_of_32() -> None:
    scales = torch.arange(128.0).view(1, 128)
    permuted = plain_scales_to_marlin(scales)
    assert permuted[0, 32:48].tolist() == [
        *[32, 33, 40, 41, 48, 49, 56, 57],
        *[34, 35, 42, 43, 50, 51, 58, 59],
    ]


@given(groups=st.integers(1, 4), n=st.integers(1, 4))
def test_scales_come_back_as_they_were(groups: int, n: int) -> None:
    scales = torch.arange(float(groups * 64 * n)).view(groups, 64 * n)
    assert torch.equal(marlin_scales_to_plain(plain_scales_to_marlin(scales)), scales)
    assert torch.equal(plain_scales_to_marlin(marlin_scales_to_plain(scales)), scales)


@pytest.mark.parametrize("with_zeros", [False, True])
def test_padding_keeps_the_weights_and_adds_zeros(with_zeros: bool) -> None:
    qweight, scales = random_qweight(40, 11), torch.rand(2, 11)
    # Zero points come packed in whole words, also where the columns are not a multiple of 8.
    zeros = torch.randint(0, 16, (2, 16)) if with_zeros else None
    qzeros = None if zeros is None else pack_zeros(zeros)
    grown, grown_scales, grown_zeros = pad_plain(qweight, scales, qzeros, 32)
    assert grown.shape == (8, 16)
    weight = dequantize(grown, grown_scales, grown_zeros, 32)  # (n, k)
    assert not weight[11:].any()
    assert not weight[:, 40:].any()
    zero = 8 if zeros is None else zeros[:, :11].repeat_interleave(32, 0)[:40]
    expected = (unpack_codes(qweight).int() - zero) * scales.repeat_interleave(32, 0)[:40]
    torch.testing.assert_close(weight[:11, :40], expected.t())


def test_padding_leaves_what_fits_as_it_is() -> None:
    qweight, scales = random_qweight(64, 16), torch.rand(2, 16)
    grown, grown_scales, grown_zeros = pad_plain(qweight, scales, None, 32)
    assert grown is qweight
    assert grown_scales is scales
    assert grown_zeros is None


@pytest.mark.parametrize(
    ("packed", "got"),
    [
        (torch.zeros(2, 100, dtype=torch.int32), "int32 of shape [2, 100]"),
        (torch.zeros(2, 128), "float32 of shape [2, 128]"),
        (torch.zeros(128, dtype=torch.int32), "int32 of shape [128]"),
    ],
)
def test_other_words_are_refused(packed: Tensor, got: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^`B` must be .*{re.escape(got)}.$"):
        marlin_to_plain(packed)


def test_scales_that_fill_no_block_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"multiple of 64, got shape \[1, 96\]"):
        plain_scales_to_marlin(torch.ones(1, 96))
