"""Refuses control frames that are too large, too deep or too numerous, before anything is decoded.

Knows msgpack's headers and nothing of what the values mean.
"""

from __future__ import annotations

from typing import Final

from marlin.errors import MessageTooLargeError, ProtocolError
from marlin.worker.protocol import HANDLE_CODE, TENSOR_CODE, Limits

__all__ = ["check_control"]

# Headers that open a level: maps, arrays and extensions.
_OPENERS: Final = frozenset(
    (*range(0x80, 0xA0), *range(0xDC, 0xE0), 0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9))
)
_NOT_OPENERS: Final = bytes(b for b in range(256) if b not in _OPENERS)

# Header byte -> (width of the length field that follows, fixed bytes that follow).
_SCALARS: Final = {
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8,
    0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
}  # fmt: skip
_TEXTS: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_CONTAINERS: Final = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
_FIXED_EXTENSIONS: Final = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_EXTENSIONS: Final = {0xC7: 1, 0xC8: 2, 0xC9: 4}
# msgpack's own timestamps, which the decoder would take for dates without asking us.
_TIMESTAMPS: Final = (b"\xd6\xff", b"\xd7\xff", b"\xc7\x0c\xff")


def check_control(control: bytes, limits: Limits) -> None:
    """Raises MessageTooLargeError or ProtocolError when `control` exceeds a limit.

    A value takes at least a byte, and a level at least one opening byte. So a short frame with few
    such bytes cannot exceed a limit, which passes in C show (0.3 us for an ordinary call); only the
    others are walked value by value (about 0.15 us each).
    """
    size = len(control)
    if size > limits.max_control_bytes:
        raise MessageTooLargeError(
            f"The control frame must have at most {limits.max_control_bytes} bytes, got {size}."
        )
    if (
        size > limits.max_elements
        or len(control.translate(None, _NOT_OPENERS)) > limits.max_depth
        or any(mark in control for mark in _TIMESTAMPS)
    ):
        _walk(control, 0, size, limits, 0, 0)


def _walk(data: bytes, start: int, end: int, limits: Limits, count: int, depth: int) -> int:
    """Walks the one value in data[start:end], which lies inside `depth` open levels.

    Returns `count` plus the number of values met.
    """
    position = start
    open_levels = [1]  # values still missing in each open level; the outermost holds one value
    while open_levels:
        if open_levels[-1] == 0:
            open_levels.pop()
            continue
        open_levels[-1] -= 1
        count += 1
        if count > limits.max_elements:
            raise MessageTooLargeError(
                f"The control frame must have at most {limits.max_elements} values, got more."
            )
        if position >= end:
            raise ProtocolError("The control frame ends in the middle of a value.")
        head = data[position]
        position += 1
        if head <= 0x7F or head >= 0xE0:
            continue
        children = -1
        if head <= 0x8F:
            children = 2 * (head & 0x0F)
        elif head <= 0x9F:
            children = head & 0x0F
        elif head <= 0xBF:
            position += head & 0x1F
        elif head in _SCALARS:
            position += _SCALARS[head]
        elif head in _TEXTS:
            width = _TEXTS[head]
            position += width + int.from_bytes(data[position : position + width], "big")
        elif head in _CONTAINERS:
            width, per_entry = _CONTAINERS[head]
            children = per_entry * int.from_bytes(data[position : position + width], "big")
            position += width
        elif head in _FIXED_EXTENSIONS or head in _EXTENSIONS:
            length = _FIXED_EXTENSIONS.get(head)
            if length is None:
                width = _EXTENSIONS[head]
                length = int.from_bytes(data[position : position + width], "big")
                position += width
            payload = position + 1  # after the extension's code
            position = payload + length
            if position > end:
                raise ProtocolError("The control frame ends in the middle of an extension.")
            inside = depth + len(open_levels)
            _check_depth(inside, limits)
            if data[payload - 1] not in (HANDLE_CODE, TENSOR_CODE):
                raise ProtocolError("The control frame uses an extension other than 1 and 2.")
            count = _walk(data, payload, position, limits, count, inside)
        else:
            raise ProtocolError("The control frame is not msgpack: it uses the reserved byte 0xc1.")
        if children >= 0:
            _check_depth(depth + len(open_levels), limits)
            open_levels.append(children)
    if position != end:
        raise ProtocolError("The control frame or an extension in it is not exactly one value.")
    return count


def _check_depth(depth: int, limits: Limits) -> None:
    if depth > limits.max_depth:
        raise MessageTooLargeError(
            f"The control frame must nest at most {limits.max_depth} levels deep, got more."
        )
