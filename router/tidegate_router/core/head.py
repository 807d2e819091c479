"""Which request heads are understood, and what they ask for (router.md section 9).

The whole head is split at once, by rules that leave one reading: what two programs could read
differently is refused before anything of it reaches a worker. The upstream head is written from
the parsed parts only (`Head.block`).
https://www.rfc-editor.org/rfc/rfc9112
"""

import re
from dataclasses import dataclass, field
from http import HTTPStatus

from tidegate_api import names
from tidegate_api.names import DroppedReason
from tidegate_router.core import headers, path
from tidegate_router.core.path import Parsed, Target
from tidegate_router.core.pins import Given
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Ask, Call

MAX_LINE_BYTES = 8 * 1024
MAX_HEADERS = 64
MAX_HEAD_BYTES = 32 * 1024
Pairs = tuple[tuple[bytes, bytes], ...]

_LINE = re.compile(rb"(GET|POST|PUT|DELETE|HEAD|PATCH|OPTIONS) ([\x21-\x7e]+) HTTP/1\.([01])")
_FIELD = re.compile(  # of a text whose only line ends are CRLF
    rb"^([!#$%&'*+\-.^`|~0-9A-Za-z]+):([^\x00-\x08\x0a-\x1f\x7f]*)\r\n", re.MULTILINE
)
_LENGTH = re.compile(rb"[0-9]{1,15}")
_HOST = re.compile(rb"[0-9A-Za-z._~:\[\]-]*")
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_KEPT_FROM_WORKERS = frozenset(name.encode() for name in headers.KEPT_FROM_WORKERS)
_ONCE = frozenset(name.encode() for name in headers.ONCE)
_PROTOCOL_PREFIX = headers.PROTOCOL_PREFIX.encode()
_POOL, _EXPLAIN, _ID = (
    name.encode() for name in (names.HEADER_POOL, names.HEADER_EXPLAIN, names.HEADER_REQUEST_ID)
)
_MAX_KNOWN = 512
_MAX_KNOWN_BYTES = 2048
_RELAYED = path.POST_TARGETS | {Target.INQUIRY}
_CALLS = {Target.INQUIRY: Call.INQUIRY, Target.GENERATE_STREAM: Call.STREAM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A request's head with one meaning.

    `length` of the body in bytes, None if it comes in chunks. `pairs` are the headers that a
    worker may see, `block` the same as lines; framing, Host and the request's id are added by
    whoever sends. `refusal`: understood, but not to be served; the connection can go on.
    `foreign`: no path of the inference protocol. `ask` is of a body that may be sent again.
    """

    method: bytes
    target: bytes  # path and query for a worker
    parsed: Parsed | None
    pairs: Pairs
    block: bytes
    length: int | None
    http11: bool
    keep_alive: bool
    expects: bool
    explain: bool
    request_id: bytes  # empty: none that can be used
    ask: Ask
    relayed: bool  # a worker answers it
    refusal: Refusal | None = None

    @property
    def foreign(self) -> bool:
        """Whether another program than the inference lane answers this path."""
        return self.parsed is None and self.refusal is None

    @property
    def has_body(self) -> bool:
        """Whether bytes of a body follow."""
        return self.length is None or self.length > 0


@dataclass(slots=True)
class HeadBook:
    """Heads by their bytes: a client that keeps its connection repeats them to the letter.

    Bounded by count and size; what is not known is parsed, which gives the same.
    """

    _known: dict[bytes, Head] = field(default_factory=dict)

    def read(self, raw: bytes) -> Head | Refusal:
        """Return what `parse` returns."""
        found = self._known.get(raw)
        if found is not None:
            return found
        head = parse(raw)
        if isinstance(head, Head) and len(raw) <= _MAX_KNOWN_BYTES:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[raw] = head
        return head


@dataclass(slots=True)
class _Fields:
    """Header fields of one head: `values` by lower-case name, the last one of each."""

    pairs: Pairs
    values: dict[bytes, bytes]
    tokens: frozenset[bytes]  # of Connection, in lower case
    http11: bool


def unfinished(raw: bytes) -> Refusal | None:
    """Refuse the beginning of a head that can become none that is understood."""
    line_end = raw.find(b"\r\n")
    if line_end > MAX_LINE_BYTES or (line_end < 0 and len(raw) > MAX_LINE_BYTES):
        return _bad(f"a request line is at most {MAX_LINE_BYTES} bytes")
    if len(raw) > MAX_HEAD_BYTES:
        return _bad(f"a head is at most {MAX_HEAD_BYTES} bytes")
    if b"\n\n" in raw or raw.count(b"\r\n") > MAX_HEADERS + 1:
        return _bad(f"a head is at most {MAX_HEADERS} headers, each ended by CR LF")
    return None


def parse(raw: bytes) -> Head | Refusal:
    """Parse a head that ends with its empty line, and nothing behind it."""
    if len(raw) > MAX_HEAD_BYTES:
        return _bad(f"a head is at most {MAX_HEAD_BYTES} bytes")
    line_end = raw.find(b"\r\n")
    line = _LINE.fullmatch(raw, 0, line_end) if line_end <= MAX_LINE_BYTES else None
    if line is None:
        return _bad("the first line must be METHOD /path HTTP/1.1 or 1.0")
    fields = _fields(raw[line_end + 2 : -2], http11=line[3] == b"1")
    if isinstance(fields, Refusal):
        return fields
    length = _length(fields, line[1])
    if isinstance(length, Refusal):
        return length
    return _head(line[1], line[2], fields, length)


def _fields(lines: bytes, *, http11: bool) -> _Fields | Refusal:
    """Split header lines; whatever is no "name: value" makes the counts differ."""
    found = _FIELD.findall(lines)
    count = lines.count(b"\n")
    if len(found) != count or lines.count(b"\r") != count:
        return _bad("a header is no 'name: value' on a line of its own")
    if count > MAX_HEADERS:
        return _bad(f"a head is at most {MAX_HEADERS} headers")
    pairs: list[tuple[bytes, bytes]] = []
    values: dict[bytes, bytes] = {}
    tokens: set[bytes] = set()
    for name, padded in found:
        value, key = padded.strip(b" \t"), name.lower()
        if b"_" in key:
            return _bad("header names with an underscore are refused")
        if key in values and key in _ONCE:
            return _bad(f"header {key.decode()} occurs twice")
        if len(padded) > MAX_LINE_BYTES:
            return _bad(f"a header is at most {MAX_LINE_BYTES} bytes")
        values[key] = value
        if key == b"connection":
            tokens.update(token.strip(b" \t") for token in value.lower().split(b","))
        pairs.append((name, value))
    return _judged(_Fields(tuple(pairs), values, frozenset(tokens), http11))


def _judged(fields: _Fields) -> _Fields | Refusal:
    values = fields.values
    host = values.get(b"host")
    if host is None and fields.http11:
        return _bad("header Host is missing")
    if host and not _HOST.fullmatch(host):
        return _bad("header Host is no name or address with a port")
    if b"upgrade" in values:
        return _bad("Upgrade is refused")
    if fields.tokens & _ONCE:
        return _bad("Connection names a header that is not of the connection")
    if values.get(b"expect", b"100-continue").lower() != b"100-continue":
        return _bad("Expect: only 100-continue is understood")
    return fields


def _length(fields: _Fields, method: bytes) -> int | Refusal | None:
    """Return the body's length; None for chunks."""
    coding = fields.values.get(b"transfer-encoding")
    stated = fields.values.get(b"content-length")
    if coding is not None:
        if not fields.http11 or stated is not None:
            return _bad("Transfer-Encoding is refused on HTTP/1.0 and beside Content-Length")
        if coding.lower() != b"chunked":
            return _bad("Transfer-Encoding: only chunked is understood")
    elif stated is not None and not _LENGTH.fullmatch(stated):
        return _bad("Content-Length is no number")
    length = None if coding is not None else int(stated or 0)
    if method in {b"GET", b"HEAD"} and length != 0:
        return _bad(f"a {method.decode()} carries no body")
    return length


def _head(method: bytes, target: bytes, fields: _Fields, length: int | None) -> Head:
    where, _, query = target.partition(b"?")
    values = fields.values
    found = path.parse(where.decode("ascii"))
    parsed = found if isinstance(found, Parsed) else None
    pool = values.get(_POOL, b"").decode("latin-1")
    refusal = _not_served(method, found, pool if _POOL in values else None)
    if b"#" in query:
        refusal = _bad("a fragment is refused")
    kept = _kept(fields)
    upstream = parsed.upstream.encode("ascii") if parsed is not None else where
    given = values.get(_ID, b"")
    ask = _ask(parsed, pool, fields.pairs) if parsed is not None else Ask(model="")
    expects = b"expect" in values and fields.http11
    return Head(
        method=method,
        target=b"%b?%b" % (upstream, query) if query else upstream,
        parsed=parsed,
        pairs=kept,
        block=b"".join([b"%b: %b\r\n" % pair for pair in kept]),
        length=length,
        http11=fields.http11,
        keep_alive=b"close" not in fields.tokens
        and (fields.http11 or b"keep-alive" in fields.tokens),
        expects=expects,
        relayed=refusal is None and parsed is not None and parsed.target in _RELAYED,
        explain=values.get(_EXPLAIN) == b"true",
        request_id=given if _REQUEST_ID.fullmatch(given) else b"",
        ask=ask,
        refusal=refusal,
    )


def _not_served(method: bytes, found: Parsed | Refusal, pool: str | None) -> Refusal | None:
    """Refuse what a path or a header rules out; an unknown path may be somebody else's."""
    if isinstance(found, Refusal):
        return None if found.http_status == HTTPStatus.NOT_FOUND else found
    wanted = "POST" if found.target in path.POST_TARGETS else "GET"
    if method.decode() != wanted:
        text = f"{found.target.value} is a {wanted}"
        return Refusal(DroppedReason.BAD_REQUEST, text, http_override=405)
    named = path.pool_name(pool) if pool is not None else ""
    return named if isinstance(named, Refusal) else None


def _ask(parsed: Parsed, pool: str, pairs: Pairs) -> Ask:
    return Ask(
        model=parsed.model,
        version=parsed.version,
        pool=parsed.pool or pool,
        call=_CALLS.get(parsed.target, Call.INFER),
        given=_given(pairs),
    )


def _given(pairs: Pairs) -> Given:
    return frozenset(
        (name.lower().decode("ascii"), value.decode("latin-1")) for name, value in pairs
    )


def _kept(fields: _Fields) -> Pairs:
    """Return the headers that a worker may see."""
    gone = _KEPT_FROM_WORKERS | fields.tokens
    return tuple(
        pair
        for pair in fields.pairs
        if (key := pair[0].lower()) not in gone and not key.startswith(_PROTOCOL_PREFIX)
    )


def _bad(text: str) -> Refusal:
    return Refusal(DroppedReason.BAD_REQUEST, text)
