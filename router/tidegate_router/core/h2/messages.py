"""gRPC's messages in their 5-byte prefix: read, inflated within bounds, changed on their way.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import zlib
from collections.abc import Callable
from struct import Struct

from tidegate_router.core.protowire import SCAN_BYTES

PREFIX_BYTES = 5
MAX_INFLATION = 10  # times what came
_PREFIX = Struct(">BL")
_EITHER_FORMAT = 47  # zlib's wbits for gzip and zlib, told apart by their heads
_INFLATED = frozenset({b"gzip", b"deflate"})
unpack_prefix = _PREFIX.unpack_from


class MessageError(ValueError):
    """The bytes are no message that can be read here; the text says why."""


def wrap(message: bytes) -> bytes:
    """Return an uncompressed message with its prefix."""
    return _PREFIX.pack(0, len(message)) + message


def unwrap(data: bytes) -> bytes | None:
    """Return the only message of `data`; None if that is not one uncompressed message."""
    if len(data) < PREFIX_BYTES:
        return None
    flag, size_bytes = unpack_prefix(data)
    return data[PREFIX_BYTES:] if not flag and size_bytes == len(data) - PREFIX_BYTES else None


def inflate(data: bytes, encoding: bytes, limit_bytes: int) -> tuple[bytes, bool]:
    """Return the beginning of a compressed message, and whether that is all of it."""
    if encoding not in _INFLATED:
        raise MessageError(f"compressed by an unknown method ({len(encoding)} bytes of name)")
    inflater = zlib.decompressobj(_EITHER_FORMAT)
    try:
        plain = inflater.decompress(data, limit_bytes)
    except zlib.error:
        raise MessageError("the compressed message is broken") from None
    return plain, inflater.eof and not inflater.unconsumed_tail


def head_of(data: bytes, encoding: bytes, *, compressed: bool) -> tuple[bytes, bool]:
    """Return what a message's name is read from, and whether that is all of the message.

    A small message may be packed better than MAX_INFLATION allows; SCAN_BYTES are always read.
    """
    if not compressed:
        return data, True
    return inflate(data, encoding, max(MAX_INFLATION * len(data), SCAN_BYTES))


class Splitter:
    """Changes every message of one direction: holds it until it is whole.

    `encoding` is what compressed ones are compressed by; they come out uncompressed, at most
    `limit_bytes` each.
    """

    __slots__ = ("_change", "_held", "_limit_bytes", "encoding")

    def __init__(
        self, change: Callable[[bytes], bytes], limit_bytes: int, encoding: bytes = b""
    ) -> None:
        self._change, self._limit_bytes, self.encoding = change, limit_bytes, encoding
        self._held = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Return what can be passed on; MessageError."""
        held = self._held
        held += data
        made: list[bytes] = []
        while len(held) >= PREFIX_BYTES:
            flag, size_bytes = unpack_prefix(held)
            if size_bytes > self._limit_bytes:
                raise MessageError(f"a message beyond {self._limit_bytes} bytes")
            if len(held) < PREFIX_BYTES + size_bytes:
                break
            message = bytes(held[PREFIX_BYTES : PREFIX_BYTES + size_bytes])
            del held[: PREFIX_BYTES + size_bytes]
            made.append(wrap(self._change(self._plain(message, flag))))
        return b"".join(made)

    def _plain(self, message: bytes, flag: int) -> bytes:
        if not flag:
            return message
        plain, whole = inflate(message, self.encoding, self._limit_bytes)
        if not whole:
            raise MessageError(f"a message beyond {self._limit_bytes} bytes")
        return plain
