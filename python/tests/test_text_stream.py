from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marlin.text_stream import TextStream


def _decode(tokens: list[int]) -> str:
    """One byte a token."""
    return bytes(tokens).decode("utf-8", "replace")


def _pieces(text: bytes, stop: tuple[str, ...] = (), prompt: bytes = b"") -> list[str]:
    stream = TextStream(_decode, list(prompt), stop)
    pieces = []
    for byte in text:
        pieces.append(stream.push(byte))
        if stream.stopped:
            return pieces
    return [*pieces, stream.finish()]


@given(st.text(), st.text())
def test_the_pieces_join_to_the_text(text: str, prompt: str) -> None:
    assert "".join(_pieces(text.encode(), prompt=prompt.encode())) == text.rstrip("\ufffd")


def test_a_character_comes_whole_with_its_last_byte() -> None:
    assert _pieces("a€b".encode()) == ["a", "", "", "€", "b", ""]


def test_an_incomplete_character_at_the_end_is_left_out() -> None:
    assert "".join(_pieces("a€".encode()[:-1])) == "a"


def test_bytes_that_are_no_character_are_replaced_once_that_is_certain() -> None:
    assert _pieces(b"\x80a") == ["", "\ufffda", ""]


def test_the_prompt_is_context_and_not_text() -> None:
    def words(tokens: list[int]) -> str:
        return " ".join("abc"[token] for token in tokens)

    alone, after = TextStream(words, [], ()), TextStream(words, [0], ())
    assert alone.push(1) == "b"
    assert after.push(1) == " b"


def _char_by_char(text: str, stops: list[str]) -> str:
    """The definition: the text up to the first moment at which it ends with a stop string."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)]
    return text


@given(
    st.lists(st.text("ab", max_size=5), max_size=12),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_stop_strings_are_found_wherever_the_token_borders_fall(
    tokens: list[str], stops: list[str]
) -> None:
    def decode(ids: list[int]) -> str:
        return "".join(tokens[index] for index in ids)

    stream = TextStream(decode, [], stops)
    text = ""
    for index in range(len(tokens)):
        text += stream.push(index)
        if stream.stopped:
            break
        # Nothing that was given out may turn out to be the beginning of a stop string.
        assert _char_by_char("".join(tokens), stops).startswith(text)
    if not stream.stopped:
        text += stream.finish()
    assert text == _char_by_char("".join(tokens), stops)


@pytest.mark.parametrize("text", [b"one two STOP three", b"STOP", b"xSTSTOP"])
def test_no_part_of_a_stop_string_is_given_out(text: bytes) -> None:
    assert "".join(_pieces(text, ("STOP",))) == text.decode().partition("STOP")[0]


def test_text_held_back_for_a_stop_string_is_given_out_at_the_end() -> None:
    assert "".join(_pieces(b"one ST", ("STOP",))) == "one ST"
