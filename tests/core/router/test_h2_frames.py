"""HTTP/2 frames as RFC 9113 section 6 writes them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_router.core.h2 import frames
from tidegate_router.core.h2.frames import Code, ConnectionFault


def take_apart(data):
    """Return (kind, flags, stream, payload) of every frame."""
    found = []
    while data:
        high, low, kind, flags, stream = frames.unpack_head(data)
        size = high << 8 | low
        found.append((kind, flags, stream, data[9 : 9 + size]))
        data = data[9 + size :]
    return found


@given(st.integers(0, 9), st.integers(0, 255), st.integers(0, 2**31 - 1), st.binary(max_size=16384))
def test_what_is_built_is_read(kind, flags, stream, payload):
    assert take_apart(frames.frame(kind, flags, stream, payload)) == [
        (kind, flags, stream, payload)
    ]


@pytest.mark.parametrize(("size", "count"), [(0, 1), (16384, 1), (16385, 2), (40000, 3)])
def test_a_block_longer_than_a_frame_continues(size, count):
    made = take_apart(frames.head_frames(7, bytes(size), end=True))
    assert len(made) == count
    assert [one[0] for one in made] == [frames.HEADERS, *[frames.CONTINUATION] * (count - 1)]
    assert made[0][1] & frames.END_STREAM
    assert [bool(one[1] & frames.END_HEADERS) for one in made] == [*[False] * (count - 1), True]
    assert b"".join(one[3] for one in made) == bytes(size)


def test_known_frames_are_the_rfcs_bytes():
    assert bytes(frames.SETTINGS_ACK) == bytes.fromhex("000000040100000000")
    assert frames.window_update(3, 256) == bytes.fromhex("00000408000000000300000100")
    assert frames.rst_stream(5, Code.CANCEL) == bytes.fromhex("00000403000000000500000008")
    assert frames.ping(b"12345678", ack=True) == bytes.fromhex("000008060100000000") + b"12345678"
    assert frames.goaway(9, Code.ENHANCE_YOUR_CALM, "x") == bytes.fromhex(
        "000009070000000000000000090000000b78"
    )
    assert frames.settings({4: 65536}) == bytes.fromhex("000006040000000000000400010000")


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\0\4\0\0", Code.FRAME_SIZE_ERROR),
        (b"\0\2\0\0\0\2", Code.PROTOCOL_ERROR),
        (b"\0\4\x80\0\0\0", Code.FLOW_CONTROL_ERROR),
        (b"\0\5\0\0\0\1", Code.PROTOCOL_ERROR),
        (b"\0\5\x01\0\0\0", Code.PROTOCOL_ERROR),
    ],
    ids=["cut", "push", "window", "frame-small", "frame-large"],
)
def test_settings_out_of_range_end_the_connection(payload, code):
    with pytest.raises(ConnectionFault) as caught:
        frames.read_settings(payload)
    assert caught.value.code is code


def test_unknown_settings_are_read_and_mean_nothing():
    assert frames.read_settings(b"\xff\xff\0\0\0\7") == [(0xFFFF, 7)]


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 255))
def test_padding_is_taken_away(data, padding):
    assert frames.without_padding(bytes((padding,)) + data + bytes(padding)) == data


@pytest.mark.parametrize("payload", [b"", b"\x05abcd", b"\x01"])
def test_padding_longer_than_its_frame_is_a_fault(payload):
    with pytest.raises(ConnectionFault):
        frames.without_padding(payload)
