"""gRPC's status codes and how they travel (gRPC over HTTP/2, "Responses")."""

import re
from urllib.parse import unquote_to_bytes

NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
NUMBERS = {name: number for number, name in enumerate(NAMES)}
_UNKNOWN = 2
_OF_HTTP = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
_PLAIN = re.compile(rb"[\x20-\x24\x26-\x7e]*")


def name_of(number: int) -> str:
    """Return a code's name; one that gRPC does not know is UNKNOWN."""
    return NAMES[number] if 0 <= number < len(NAMES) else NAMES[_UNKNOWN]


def of_http(status: int) -> int:
    """Return the code of an answer that has none of its own."""
    return _OF_HTTP.get(status, _UNKNOWN)


def encode_message(text: bytes) -> bytes:
    """Return a text as `grpc-message` carries it, percent-encoded."""
    if _PLAIN.fullmatch(text):
        return text
    return b"".join(
        bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte
        for byte in text
    )


def decode_message(value: bytes) -> str:
    """Return the text of a `grpc-message`."""
    plain = unquote_to_bytes(value) if b"%" in value else value
    return plain.decode("utf-8", "replace")
