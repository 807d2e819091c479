"""HTTP/2 frames: their numbers, how they are read and how they are built (RFC 9113 section 6)."""

from enum import IntEnum
from struct import Struct, error

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES = 9
MAX_FRAME_BYTES = 16384  # what we accept and send: the protocol's initial value, never raised
MAX_WINDOW_BYTES = 2**31 - 1
LAST_STREAM = 2**31 - 1
INITIAL_WINDOW_BYTES = 65535

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE = range(6)
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(6, 10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6

_HEAD = Struct(">HBBBL")  # length (16 + 8 bits), kind, flags, stream
_LONG = Struct(">L")
_SETTING = Struct(">HL")
_PAIR = Struct(">LL")
unpack_head = _HEAD.unpack_from
pack_head = _HEAD.pack
pack_long = _LONG.pack


class Code(IntEnum):
    """Why a stream or a connection ends (RFC 9113 section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class ConnectionFault(Exception):  # noqa: N818  # the protocol's own word is "connection error"
    """The other side broke a rule: GOAWAY with `code`, then the connection is closed."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamFault(Exception):  # noqa: N818  # the same
    """The other side broke a rule of one stream: RST_STREAM with `code`."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame; the payload is at most MAX_FRAME_BYTES."""
    size = len(payload)
    return pack_head(size >> 8, size & 0xFF, kind, flags, stream) + payload


def head_frames(stream: int, block: bytes, *, end: bool) -> bytes:
    """Return HEADERS, followed by CONTINUATION where a block is longer than one frame."""
    flags = END_STREAM if end else 0
    if len(block) <= MAX_FRAME_BYTES:
        return frame(HEADERS, flags | END_HEADERS, stream, block)
    parts = [block[at : at + MAX_FRAME_BYTES] for at in range(0, len(block), MAX_FRAME_BYTES)]
    made = [frame(HEADERS, flags, stream, parts[0])]
    made += [frame(CONTINUATION, 0, stream, part) for part in parts[1:-1]]
    made.append(frame(CONTINUATION, END_HEADERS, stream, parts[-1]))
    return b"".join(made)


def settings(pairs: dict[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in pairs.items()))


SETTINGS_ACK = frame(SETTINGS, ACK, 0)


def ping(opaque: bytes, *, ack: bool) -> bytes:
    """Return a PING with 8 bytes."""
    return frame(PING, ACK if ack else 0, 0, opaque)


def goaway(last: int, code: Code, text: str = "") -> bytes:
    """Return a GOAWAY; `text` is for people."""
    return frame(GOAWAY, 0, 0, _PAIR.pack(last, code) + text.encode()[:256])


def rst_stream(stream: int, code: Code) -> bytes:
    """Return a RST_STREAM."""
    return frame(RST_STREAM, 0, stream, pack_long(code))


def window_update(stream: int, size_bytes: int) -> bytes:
    """Return a WINDOW_UPDATE."""
    return frame(WINDOW_UPDATE, 0, stream, pack_long(size_bytes))


def read_long(payload: bytes, what: str) -> int:
    """Return the number that is all of a payload."""
    if len(payload) != 4:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"{what} of {len(payload)} bytes, expected 4")
    return int.from_bytes(payload, "big")


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return a SETTINGS frame's pairs in their order."""
    try:
        pairs = list(_SETTING.iter_unpack(payload))
    except error:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "SETTINGS is no list of pairs") from None
    for key, value in pairs:
        _check_setting(key, value)
    return pairs


def _check_setting(key: int, value: int) -> None:
    if key == INITIAL_WINDOW_SIZE and value > MAX_WINDOW_BYTES:
        raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE above 2^31-1")
    if key == ENABLE_PUSH and value > 1:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
    if key == MAX_FRAME_SIZE and not MAX_FRAME_BYTES <= value <= 2**24 - 1:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "MAX_FRAME_SIZE out of range")


def read_goaway(payload: bytes) -> tuple[int, int]:
    """Return the last stream that was taken on, and the code."""
    if len(payload) < 8:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "GOAWAY of less than 8 bytes")
    last, code = _PAIR.unpack_from(payload)
    return last & LAST_STREAM, code


def without_padding(payload: bytes) -> bytes:
    """Return what a PADDED frame carries."""
    if not payload:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a padded frame is empty")
    end = len(payload) - payload[0]
    if end < 1:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "padding is longer than its frame")
    return payload[1:end]
