"""What a worker's answer head means, and what a client sees of it (router.md section 9)."""

import re
from dataclasses import dataclass, field
from http import HTTPStatus

from tidegate_router.core import headers

MAX_HEAD_BYTES = 32 * 1024
_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\x00-\x08\x0a-\x1f\x7f]*)?")
_FIELD = re.compile(
    rb"^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\x00-\x08\x0a-\x1f\x7f]*)\r\n", re.MULTILINE
)
_LENGTH = re.compile(rb"[0-9]{1,15}")
_KEPT_FROM_CLIENTS = frozenset(name.encode() for name in headers.KEPT_FROM_CLIENTS)
_PROTOCOL_PREFIX = headers.PROTOCOL_PREFIX.encode()
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
_BODILESS = frozenset({204, 304})
_MAX_KNOWN = 512
_MAX_KNOWN_BYTES = 2048
_CHUNKED = -1
UNTIL_CLOSE = -2


class AnswerError(ValueError):
    """A worker's answer is no HTTP/1.x that has one reading. The text quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """A worker's answer head.

    `length` of the body in bytes; CHUNKED or UNTIL_CLOSE otherwise. `pairs` are the headers that a
    client may see; `block` is the status line and those as lines, without framing.
    """

    status: int
    length: int
    pairs: tuple[tuple[bytes, bytes], ...]
    block: bytes
    reusable: bool  # the connection, after this answer
    bodiless: bool = False  # has neither a body nor a length for the client

    @property
    def chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return self.length == _CHUNKED


@dataclass(slots=True)
class AnswerBook:
    """Answer heads by their bytes: a worker repeats them to the letter. Bounded."""

    _known: dict[bytes, AnswerHead] = field(default_factory=dict)

    def read(self, raw: bytes) -> AnswerHead:
        """Return what `parse` returns."""
        found = self._known.get(raw)
        if found is None:
            found = parse(raw)
            if len(raw) <= _MAX_KNOWN_BYTES:
                if len(self._known) >= _MAX_KNOWN:
                    self._known.clear()
                self._known[raw] = found
        return found


def parse(raw: bytes) -> AnswerHead:
    """Parse a head that ends with its empty line; raises AnswerError."""
    if len(raw) > MAX_HEAD_BYTES:
        raise AnswerError("a head is too long")
    line_end = raw.find(b"\r\n")
    line = _LINE.fullmatch(raw, 0, line_end)
    if line is None:
        raise AnswerError("no HTTP status line")
    lines = raw[line_end + 2 : -2]
    found = _FIELD.findall(lines)
    if len(found) != lines.count(b"\n") or len(found) != lines.count(b"\r"):
        raise AnswerError("a header is no 'name: value'")
    pairs = [(name, value.strip(b" \t")) for name, value in found]
    status = int(line[2])
    length = 0 if status in _BODILESS or status < 200 else _length(pairs)
    tokens = _tokens(pairs)
    kept = tuple(pair for pair in pairs if _visible(pair[0].lower(), tokens))
    said = b"close" not in tokens and (line[1] == b"1" or b"keep-alive" in tokens)
    return AnswerHead(
        status=status,
        length=length,
        pairs=kept,
        block=status_line(status) + block(kept),
        reusable=said and length != UNTIL_CLOSE,
        bodiless=status in _BODILESS,
    )


def status_line(status: int) -> bytes:
    """Return our own status line."""
    return b"HTTP/1.1 %d %b\r\n" % (status, _PHRASES.get(status, b"Status"))


def block(pairs: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Return headers as lines."""
    return b"".join([b"%b: %b\r\n" % pair for pair in pairs])


def _tokens(pairs: list[tuple[bytes, bytes]]) -> frozenset[bytes]:
    return frozenset(
        token.strip(b" \t")
        for name, value in pairs
        if name.lower() == b"connection"
        for token in value.lower().split(b",")
    )


def _visible(key: bytes, tokens: frozenset[bytes]) -> bool:
    return (
        key not in _KEPT_FROM_CLIENTS and key not in tokens and not key.startswith(_PROTOCOL_PREFIX)
    )


def _length(pairs: list[tuple[bytes, bytes]]) -> int:
    codings = [value.lower() for name, value in pairs if name.lower() == b"transfer-encoding"]
    stated = {value for name, value in pairs if name.lower() == b"content-length"}
    if codings:
        if codings != [b"chunked"] or stated:
            raise AnswerError("Transfer-Encoding other than chunked alone")
        return _CHUNKED
    if not stated:
        return UNTIL_CLOSE
    value = stated.pop()
    if stated or not _LENGTH.fullmatch(value):
        raise AnswerError("Content-Length is no number")
    return int(value)
