"""From tokens to text, piece by piece: whole characters, and nothing of a stop string.

Knows a function that decodes tokens, and nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["TextStream"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Tokens of left context that decide how the next one reads (a leading space, a joined word).
_CONTEXT = 4
# A window this long is cut back to its context; until then one decoding serves each token.
_WINDOW = 16


class TextStream:
    """The text of one sequence as its tokens arrive.

    The joined pieces equal the decoded tokens, up to the first stop string and without an
    incomplete character at the end. A stop string is found wherever the token borders fall; of
    several, the first to be complete counts.

    decode: gives the text of a list of tokens, U+FFFD for bytes that are no character.
    prompt: the tokens before the first one; only the last few matter.
    stop: non-empty strings.
    """

    def __init__(
        self, decode: Callable[[list[int]], str], prompt: Sequence[int], stop: Sequence[str]
    ) -> None:
        self._decode = decode
        self._stop = tuple(stop)
        self._window = list(prompt[-_CONTEXT:])
        self._read = len(decode(self._window))  # characters of the window that were passed on
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Take the next token; returns what text is certain by now, and may set `stopped`."""
        self._window.append(token)
        text = self._decode(self._window)
        # U+FFFD at the end may be the first bytes of a character that is still to come.
        whole = text.rstrip(_REPLACEMENT)
        piece = whole[self._read :]
        self._read = max(self._read, len(whole))
        if len(whole) == len(text) and len(self._window) >= _WINDOW:
            self._window = self._window[-_CONTEXT:]
            self._read = len(self._decode(self._window))
        return self._before_stop(piece)

    def finish(self) -> str:
        """The sequence has ended: the text that was held back and is no stop string."""
        piece, self._held = self._held, ""
        return piece

    def _before_stop(self, piece: str) -> str:
        if not self._stop or not piece:
            return piece
        text = self._held + piece
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)[1]]
        certain = len(text) - max(_overlap(text, stop) for stop in self._stop)
        self._held = text[certain:]
        return text[:certain]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
