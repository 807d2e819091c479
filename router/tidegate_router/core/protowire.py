"""Protobuf's wire format, as far as routing needs it. Pure.

Every request of inference.GRPCInferenceService that names a model has its name in field 1 and its
version in field 2, both strings; ModelStreamInferResponse has its error's text in field 1. Fields
come in any order and the last value wins.
https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

SCAN_BYTES = 64 * 1024  # the names must begin within this much
MAX_NAME_BYTES = 256
MAX_ERROR_BYTES = 16 * 1024  # of a stream's answer that says that nothing ran
_NAME, _VERSION, _ERROR = 1, 2, 1
_PARAMETERS, _KEY, _VALUE, _SEQUENCE = 4, 1, 2, b"sequence_id"
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


class WireError(ValueError):
    """The bytes are no protobuf message."""


@dataclass(frozen=True, slots=True)
class Named:
    """The model that a message is about; empty where the message does not say."""

    model: str = ""
    version: str = ""


def scan(message: bytes, following_bytes: int = 0) -> Named:
    """Return the model that a request names; WireError for what is no protobuf, or no name.

    `following_bytes`: how much of the message comes after `message`, which is its beginning.
    """
    found = _fields(message, (_NAME, _VERSION), following_bytes)
    if found and max(map(len, found.values())) > MAX_NAME_BYTES:
        raise WireError(f"a name is longer than {MAX_NAME_BYTES} bytes")
    try:
        return Named(found.get(_NAME, b"").decode(), found.get(_VERSION, b"").decode())
    except UnicodeDecodeError:
        raise WireError("a name is no UTF-8") from None


def stream_error(message: bytes) -> str:
    """Return the error that a stream's answer carries, empty if it is none."""
    try:
        return _fields(message, (_ERROR,)).get(_ERROR, b"").decode("utf-8", "replace")
    except WireError:
        return ""


def sequence(message: bytes) -> str:
    """Return the id of the sequence that an inference request is part of, empty if of none.

    It is parameter `sequence_id` (Triton's sequence extension), a number or a text; 0 is none.
    """
    if message.find(_SEQUENCE, 0, SCAN_BYTES) < 0:
        return ""
    found = ""
    try:
        for one in fields(message):
            if one.number == _PARAMETERS and one.is_bytes:
                found = _sequence_value(one.data) or found
    except WireError:
        return found
    return found


def _sequence_value(entry: bytes) -> str:
    parts = {one.number: one for one in fields(entry)}
    key, value = parts.get(_KEY), parts.get(_VALUE)
    if key is None or value is None or key.data != _SEQUENCE:
        return ""
    for one in fields(value.data):
        if one.is_bytes:
            return one.data[:MAX_NAME_BYTES].decode("utf-8", "replace")
        return str(one.varint) if one.varint else ""
    return ""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: the value of a varint, else the bytes; `raw` is all of it."""

    number: int
    kind: int
    varint: int
    data: bytes
    raw: bytes

    @property
    def is_bytes(self) -> bool:
        """Whether it is length-delimited: a string, bytes, a message, packed numbers."""
        return self.kind == _LENGTH


def fields(message: bytes) -> Iterator[Field]:
    """Yield every field of a message in its order; WireError for what is no protobuf."""
    at, end = 0, len(message)
    while at < end:
        start = at
        tag, at = _varint(message, at)
        number, kind, value = tag >> 3, tag & 7, 0
        if number == 0:
            raise WireError("field number 0")
        begin = at
        if kind == _LENGTH:
            size, begin = _varint(message, at)
            at = begin + size
        elif kind == _VARINT:
            value, at = _varint(message, at)
        else:
            at = _skip(message, at, kind)
        if at > end:
            raise WireError("a field is longer than its message")
        yield Field(number, kind, value, message[begin:at], message[start:at])


def varints(data: bytes) -> list[int]:
    """Return packed varints."""
    found: list[int] = []
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        found.append(value)
    return found


def bytes_field(number: int, data: bytes) -> bytes:
    """Return one length-delimited field."""
    return encode_varint(number << 3 | _LENGTH) + encode_varint(len(data)) + data


def string_field(number: int, text: str) -> bytes:
    """Return one length-delimited field."""
    return bytes_field(number, text.encode())


def bool_message(*, value: bool) -> bytes:
    """Return a message whose field 1 is a bool; false is proto3's default and takes no bytes."""
    return b"\x08\x01" if value else b""


def encode_varint(value: int) -> bytes:
    """Return a base-128 varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(message: bytes, numbers: Collection[int], following_bytes: int = 0) -> dict[int, bytes]:
    """Return the length-delimited fields of these numbers that begin within SCAN_BYTES.

    Every request is read here: numbers of one byte are taken without a call.
    """
    found: dict[int, bytes] = {}
    at, end = 0, len(message)
    stop, last = min(end, SCAN_BYTES), end + following_bytes
    while at < stop:
        tag = message[at]
        at += 1
        if tag > 0x7F:
            tag, at = _varint(message, at - 1)
        if tag < 8:
            raise WireError("field number 0")
        if tag & 7 != _LENGTH:
            at = _skip(message, at, tag & 7)
            continue
        if at < end and message[at] < 0x80:
            size = message[at]
            at += 1
        else:
            size, at = _varint(message, at)
        begin, at = at, at + size
        if at > last:
            raise WireError("a field is longer than its message")
        if tag >> 3 in numbers:
            found[tag >> 3] = message[begin:at]
            if at > end:
                raise WireError("a name goes on beyond what is read")
    if at > last:
        raise WireError("the message ends inside a field")
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(_MAX_VARINT_BYTES):
        if at >= len(message):
            raise WireError("the message ends inside a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, at
    raise WireError("a number is longer than 10 bytes")


def _skip(message: bytes, at: int, kind: int) -> int:
    if kind == _VARINT:
        return _varint(message, at)[1]
    if kind in {_FIXED64, _FIXED32}:
        return at + (8 if kind == _FIXED64 else 4)
    raise WireError(f"wire type {kind}")
