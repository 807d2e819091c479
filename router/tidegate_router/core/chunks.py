"""Chunked bodies, piece by piece (RFC 9112 section 7.1), stricter than the standard's minimum.

Extensions and trailers are read and dropped: bodies are framed anew for whoever gets them.
"""

import re
from dataclasses import dataclass

_MAX_LINE_BYTES = 256
_MAX_TRAILER_BYTES = 8 * 1024
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,12})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*")
LAST = b"0\r\n\r\n"


class ChunkError(ValueError):
    """No chunked body."""


def chunk(data: bytes) -> bytes:
    """Return data as one chunk; it must not be empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(slots=True)
class Chunks:
    """Decoder of one body; `done` once its end was read, `rest` is what came behind that."""

    done: bool = False
    rest: bytes = b""
    _left: int = 0  # bytes of the current chunk that are still to come
    _ends: bool = False  # the current chunk's CRLF is due
    _last: bool = False  # the chunk of size 0 was read
    _trailer_bytes: int = 0

    def feed(self, data: bytes) -> bytes:
        """Return the payload in these bytes; raises ChunkError."""
        data, at = self.rest + data if self.rest else data, 0
        pieces: list[bytes] = []
        while not self.done:
            if self._left:
                piece = data[at : at + self._left]
                if not piece:
                    break
                pieces.append(piece)
                self._left -= len(piece)
                at += len(piece)
                self._ends = not self._left
                continue
            end = data.find(b"\r\n", at)
            if end < 0 or end - at > _MAX_TRAILER_BYTES:
                _check_unfinished(data, at, self._longest())
                break
            self._line(data[at:end])
            at = end + 2
        self.rest = data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _longest(self) -> int:
        if self._ends:
            return 0
        return _MAX_TRAILER_BYTES if self._last else _MAX_LINE_BYTES

    def _line(self, line: bytes) -> None:
        if self._ends:
            if line:
                raise ChunkError("a chunk is longer than its size")
            self._ends = False
        elif self._last:
            self._trailer(line)
        else:
            size = _SIZE.fullmatch(line) if len(line) <= _MAX_LINE_BYTES else None
            if size is None:
                raise ChunkError("a chunk's size is no number")
            self._left = int(size[1], 16)
            self._last = self._left == 0

    def _trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        if not line:
            self.done = True
        elif self._trailer_bytes > _MAX_TRAILER_BYTES or not _TRAILER.fullmatch(line):
            raise ChunkError("trailers are too long or no 'name: value'")


def _check_unfinished(data: bytes, at: int, longest: int) -> None:
    """A line end that never comes must not be waited for."""
    left = len(data) - at
    if left > longest + 1 or b"\n" in data[at:] or (longest == 0 and left and data[at] != 13):
        raise ChunkError("a line of the body's framing does not end")
