"""Codes in words: 8 bits, and what belongs to a width. test_primitives.py has 4 bits."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marlin import codes
from marlin.errors import InvalidArgumentError, UnsupportedError


@pytest.mark.parametrize("bits", codes.CODE_BITS)
@given(words=st.integers(1, 9), columns=st.integers(1, 9), seed=st.integers(0, 1000))
def test_unpacking_is_the_inverse_of_packing(
    bits: int, words: int, columns: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (codes.codes_per_word(bits) * words, columns)
    given_codes = torch.randint(0, 1 << bits, shape, generator=generator, dtype=torch.uint8)
    packed = codes.pack_codes(given_codes, bits)
    assert packed.shape == (words, columns)
    assert torch.equal(codes.unpack_codes(packed, bits), given_codes)


def test_byte_i_of_a_word_is_row_i_of_its_four() -> None:
    packed = codes.pack_codes(torch.tensor([[0x11], [0x22], [0x33], [0xF4]]), 8)
    assert int(packed) % 2**32 == 0xF4332211


@given(word=st.integers(-(2**31), 2**31 - 1))
def test_every_word_is_the_packing_of_its_bytes(word: int) -> None:
    packed = torch.tensor([[word]], dtype=torch.int32)
    assert torch.equal(codes.pack_codes(codes.unpack_codes(packed, 8), 8), packed)


@pytest.mark.parametrize(
    ("bits", "per_word", "largest", "zero", "word"),
    [(4, 8, 15, 8, 0x88888888), (8, 4, 255, 128, 0x80808080)],
)
def test_a_width_has_its_numbers(
    bits: int, per_word: int, largest: int, zero: int, word: int
) -> None:
    assert codes.codes_per_word(bits) == per_word
    assert codes.max_code(bits) == largest
    assert codes.symmetric_zero(bits) == zero
    assert codes.zero_word(bits) == word - 2**32
    words = torch.tensor([[codes.zero_word(bits)]], dtype=torch.int32)
    assert set(codes.unpack_codes(words, bits).flatten().tolist()) == {zero}


REFUSALS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: codes.check_bits(3), UnsupportedError, "`bits` must be 4 or 8, got 3."),
    (lambda: codes.check_bits(4.0), UnsupportedError, "`bits` must be 4 or 8, got 4.0."),  # type: ignore[arg-type]
    (lambda: codes.check_bits(True), UnsupportedError, "`bits` must be 4 or 8, got True."),
    (
        lambda: codes.check_symmetric(False, 8, owner="x."),
        UnsupportedError,
        "`x.symmetric` must be true with 8 bits, got False.",
    ),
    (
        lambda: codes.pack_codes(torch.full((4, 1), 256), 8),
        InvalidArgumentError,
        "`codes` must lie in 0..255, got values in 256..256.",
    ),
    (
        lambda: codes.pack_codes(torch.zeros(6, 1, dtype=torch.int32), 8),
        InvalidArgumentError,
        "`codes` must have a multiple of 4 rows, got shape [6, 1].",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS)
def test_refuses(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
