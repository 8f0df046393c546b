"""limits.py: nothing that exceeds a limit gets past, and everything within does."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marlin.errors import MarlinError, MessageTooLargeError, ProtocolError
from marlin.worker.limits import check_control
from marlin.worker.protocol import DEFAULT_LIMITS, Limits

# What a frame decodes to.
Plain: TypeAlias = Any

_SMALL = Limits(max_control_bytes=4096, max_depth=5, max_elements=40)
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=300)
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=3), inner, max_size=18)
    ),
    max_leaves=60,
)


def _count(value: Plain) -> int:
    if isinstance(value, list):
        return 1 + sum(map(_count, value))
    if isinstance(value, dict):
        return 1 + sum(1 + _count(entry) for entry in value.values())
    return 1


def _depth(value: Plain) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


@given(_VALUES)
def test_agrees_with_counting_the_decoded_value(value: Plain) -> None:
    control = msgspec.msgpack.encode(value)
    fits = (
        len(control) <= _SMALL.max_control_bytes
        and _count(value) <= _SMALL.max_elements
        and _depth(value) <= _SMALL.max_depth
    )
    if fits:
        check_control(control, _SMALL)
    else:
        with pytest.raises(MessageTooLargeError):
            check_control(control, _SMALL)


def test_an_extension_and_what_is_in_its_payload_count() -> None:
    payload = msgspec.msgpack.encode(["float32", [2, 3], ["frame", 1]])
    control = msgspec.msgpack.encode(msgspec.msgpack.Ext(2, payload))
    # The extension, its array, the dtype, and two arrays of two: 1 + 1 + 1 + 3 + 3. Three levels.
    check_control(control, Limits(max_elements=9, max_depth=3))
    with pytest.raises(MessageTooLargeError, match="8 values"):
        check_control(control, Limits(max_elements=8, max_depth=3))
    with pytest.raises(MessageTooLargeError, match="2 levels"):
        check_control(control, Limits(max_elements=9, max_depth=2))


@pytest.mark.parametrize(
    ("control", "error"),
    [
        pytest.param(b"\x91" * 100_000, MessageTooLargeError, id="100000 nested arrays"),
        pytest.param(b"\xdc\xff\xff" * 24_000, MessageTooLargeError, id="arrays of 65535 arrays"),
        pytest.param(b"\x81\xa0" * 40_000, MessageTooLargeError, id="40000 nested maps"),
        pytest.param(b"\xdd\xff\xff\xff\xff" + b"\xc0" * 70_000, MessageTooLargeError, id="array"),
        pytest.param(b"\xdf\xff\xff\xff\xff" + b"\xc0" * 70_000, MessageTooLargeError, id="map"),
        pytest.param(bytes(2**20 + 1), MessageTooLargeError, id="one byte too many"),
        pytest.param(b"\xc1" * 70_000, ProtocolError, id="reserved byte"),
        pytest.param(b"\xdb\xff\xff\xff\xff" + bytes(70_000), ProtocolError, id="cut string"),
        pytest.param(b"\xc9\xff\xff\xff\xff\x01" + bytes(70_000), ProtocolError, id="cut ext"),
        pytest.param(b"\x92" * 33 + bytes(10), MessageTooLargeError, id="33 levels"),
        pytest.param(b"\xdc\x00\x28" + b"\x90" * 39, ProtocolError, id="cut array"),
    ],
)
def test_refuses(control: bytes, error: type[MarlinError]) -> None:
    with pytest.raises(error):
        check_control(control, DEFAULT_LIMITS)


@given(st.binary(max_size=400))
def test_any_bytes_are_either_refused_or_left_to_the_decoder(control: bytes) -> None:
    try:
        check_control(control, _SMALL)
    except (MessageTooLargeError, ProtocolError):
        return
