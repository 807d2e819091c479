"""Which request heads are understood, and what they ask for (router.md section 9).

The whole head is split at once, by rules that leave one reading: what two programs could read
differently is refused before anything of it reaches a worker. The upstream head is written from
the parsed parts only (`Head.block`).

Clients repeat themselves: whole heads, first lines and header lines are kept by their bytes, within
bounds, so that a head is parsed only where it is new (measured: docs/adr/0019).
https://www.rfc-editor.org/rfc/rfc9112
"""

import re
from dataclasses import dataclass, field
from http import HTTPStatus

from tidegate_api import names
from tidegate_api.names import DroppedReason
from tidegate_router.core import headers, path, sequence_ids
from tidegate_router.core.path import Parsed, Target
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Ask, Call

MAX_LINE_BYTES = 8 * 1024
MAX_HEADERS = 64
MAX_HEAD_BYTES = 32 * 1024
Pairs = tuple[tuple[bytes, bytes], ...]

_LINE = re.compile(rb"(GET|POST|PUT|DELETE|HEAD|PATCH|OPTIONS) ([\x21-\x7e]+) HTTP/1\.([01])")
_OTHER_METHOD = re.compile(rb"([A-Z]{1,20}) (/[\x21-\x7e]*) HTTP/1\.[01]")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\x00-\x08\x0a-\x1f\x7f]*)")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_HOST = re.compile(rb"[0-9A-Za-z._~:\[\]-]*")
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_KEPT_FROM_WORKERS = frozenset(name.encode() for name in headers.KEPT_FROM_WORKERS)
_ONCE = frozenset(name.encode() for name in headers.ONCE)
_PROTOCOL_PREFIX = headers.PROTOCOL_PREFIX.encode()
_POOL, _EXPLAIN, _ID = (
    name.encode() for name in (names.HEADER_POOL, names.HEADER_EXPLAIN, names.HEADER_REQUEST_ID)
)
_TRACEPARENT, _TRACESTATE = names.HEADER_TRACEPARENT.encode(), names.HEADER_TRACESTATE.encode()
_TRACE = frozenset({_TRACEPARENT, _TRACESTATE})
_JSON_SIZE = b"inference-header-content-length"
_TIER = names.HEADER_TIER.encode()
_MAX_HEADS, _MAX_LINES = 512, 4096
_MAX_HEAD_KNOWN_BYTES, _MAX_LINE_KNOWN_BYTES = 2048, 512
_RELAYED = path.POST_TARGETS | {Target.INQUIRY}
_NOTHING = Ask(model="")
_CALLS = {Target.INQUIRY: Call.INQUIRY, Target.GENERATE_STREAM: Call.STREAM}


@dataclass(slots=True, kw_only=True)  # never changed; freezing it would double what it costs
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
    traceparents: tuple[str, ...] = ()  # as given; whoever sends writes the next one
    tracestate: bytes = b""  # lines, for the worker if the trace goes on
    refusal: Refusal | None = None

    @property
    def foreign(self) -> bool:
        """Whether another program than the inference lane answers this path."""
        return self.parsed is None and self.refusal is None

    @property
    def has_body(self) -> bool:
        """Whether bytes of a body follow."""
        return self.length is None or self.length > 0


@dataclass(frozen=True, slots=True)
class _First:
    """What a request's first line says."""

    method: bytes
    target: bytes
    http11: bool
    parsed: Parsed | None
    refusal: Refusal | None


@dataclass(slots=True)
class _Line:
    """A header line, whatever stands beside it. `text` is the line as we write it."""

    key: bytes
    value: bytes
    text: bytes
    pair: tuple[bytes, bytes]
    given: tuple[str, str]
    once: bool
    kept: bool  # a worker may see it, unless Connection names it


@dataclass(slots=True)
class _Fields:
    """The header lines of one head: `values` by lower-case name, the last one of each."""

    lines: list[_Line]
    values: dict[bytes, bytes]
    tokens: set[bytes]  # of Connection, in lower case


@dataclass(slots=True)
class HeadBook:
    """Reads heads and remembers what it read. Bounded by count and size."""

    _heads: dict[bytes, Head] = field(default_factory=dict)
    _firsts: dict[bytes, _First] = field(default_factory=dict)
    _lines: dict[bytes, _Line] = field(default_factory=dict)

    def read(self, raw: bytes) -> Head | Refusal:
        """Parse a head that ends with its empty line, and nothing behind it."""
        found = self._heads.get(raw)
        if found is not None:
            return found
        head = self._parse(raw)
        if isinstance(head, Head) and len(raw) <= _MAX_HEAD_KNOWN_BYTES:
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            self._heads[raw] = head
        return head

    def _parse(self, raw: bytes) -> Head | Refusal:
        if len(raw) > MAX_HEAD_BYTES:
            return _bad(f"a head is at most {MAX_HEAD_BYTES} bytes")
        lines = raw.split(b"\r\n")
        first = self._first(lines[0])
        if isinstance(first, Refusal):
            return first
        del lines[0], lines[-2:]
        fields = self._fields(lines)
        if isinstance(fields, Refusal):
            return fields
        problem = _problem(fields, first.http11)
        if problem is not None:
            return problem
        length = _length(fields, first)
        return length if isinstance(length, Refusal) else _head(first, fields, length)

    def _first(self, line: bytes) -> _First | Refusal:
        first = self._firsts.get(line)
        if first is not None:
            return first
        found = _first(line)
        if isinstance(found, _First) and len(line) <= _MAX_LINE_KNOWN_BYTES:
            if len(self._firsts) >= _MAX_HEADS:
                self._firsts.clear()
            self._firsts[line] = found
        return found

    def _line(self, raw: bytes) -> _Line | Refusal:
        found = _line(raw)
        if isinstance(found, _Line) and len(raw) <= _MAX_LINE_KNOWN_BYTES:
            if len(self._lines) >= _MAX_LINES:
                self._lines.clear()
            self._lines[raw] = found
        return found

    def _fields(self, lines: list[bytes]) -> _Fields | Refusal:
        if len(lines) > MAX_HEADERS:
            return _bad(f"a head is at most {MAX_HEADERS} headers")
        known, fields = self._lines, _Fields([], {}, set())
        values = fields.values
        for raw in lines:
            line = known.get(raw) or self._line(raw)
            if isinstance(line, Refusal):
                return line
            key = line.key
            if line.once and key in values:
                return _bad(f"header {key.decode()} occurs twice")
            values[key] = line.value
            if key == b"connection":
                fields.tokens.update(_tokens(line.value))
            fields.lines.append(line)
        return fields


def parse(raw: bytes) -> Head | Refusal:
    """Return what a book that knows nothing reads."""
    return HeadBook().read(raw)


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


def _first(line: bytes) -> _First | Refusal:
    found = _LINE.fullmatch(line) if len(line) <= MAX_LINE_BYTES else None
    if found is None:
        other = _OTHER_METHOD.fullmatch(line) if len(line) <= MAX_LINE_BYTES else None
        if other is not None:
            return _no_method(other[1], path.parse(other[2].partition(b"?")[0].decode("ascii")))
        return _bad("the first line must be METHOD /path HTTP/1.1 or 1.0")
    method, target, minor = found.groups()
    where, _, query = target.partition(b"?")
    known = path.parse(where.decode("ascii"))
    parsed = known if isinstance(known, Parsed) and known.target is not Target.API else None
    upstream = where if parsed is None else parsed.upstream.encode("ascii")
    return _First(
        method=method,
        target=b"%b?%b" % (upstream, query) if query else upstream,
        http11=minor == b"1",
        parsed=parsed,
        refusal=_bad("a fragment is refused") if b"#" in query else _not_served(method, known),
    )


def _line(raw: bytes) -> _Line | Refusal:
    found = _FIELD.fullmatch(raw) if len(raw) <= MAX_LINE_BYTES else None
    if found is None:
        return _bad(f"a header is no 'name: value' of at most {MAX_LINE_BYTES} bytes on one line")
    name, value = found[1], found[2].strip(b" \t")
    key = name.lower()
    if b"_" in key:
        return _bad("header names with an underscore are refused")
    return _Line(
        key=key,
        value=value,
        text=b"%b: %b\r\n" % (name, value),
        pair=(name, value),
        given=(key.decode("ascii"), value.decode("latin-1")),
        once=key in _ONCE,
        kept=key not in _KEPT_FROM_WORKERS and not key.startswith(_PROTOCOL_PREFIX),
    )


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip(b" \t") for token in value.lower().split(b",")]


def _problem(fields: _Fields, http11: bool) -> Refusal | None:
    values = fields.values
    host = values.get(b"host")
    if host is None and http11:
        return _bad("header Host is missing")
    if host and not _HOST.fullmatch(host):
        return _bad("header Host is no name or address with a port")
    if b"upgrade" in values:
        return _bad("Upgrade is refused")
    if not fields.tokens.isdisjoint(_ONCE):
        return _bad("Connection names a header that is not of the connection")
    if values.get(b"expect", b"100-continue").lower() != b"100-continue":
        return _bad("Expect: only 100-continue is understood")
    return None


def _length(fields: _Fields, first: _First) -> int | Refusal | None:
    """Return the body's length; None for chunks."""
    coding = fields.values.get(b"transfer-encoding")
    stated = fields.values.get(b"content-length")
    if coding is not None:
        if not first.http11 or stated is not None:
            return _bad("Transfer-Encoding is refused on HTTP/1.0 and beside Content-Length")
        if coding.lower() != b"chunked":
            return _bad("Transfer-Encoding: only chunked is understood")
    elif stated is not None and not _LENGTH.fullmatch(stated):
        return _bad("Content-Length is no number")
    length = None if coding is not None else int(stated or 0)
    if first.method in {b"GET", b"HEAD"} and length != 0:
        return _bad(f"a {first.method.decode()} carries no body")
    return length


def _head(first: _First, fields: _Fields, length: int | None) -> Head:
    values, tokens, parsed, refusal = fields.values, fields.tokens, first.parsed, first.refusal
    pool = values.get(_POOL)
    if pool is not None and parsed is not None and refusal is None:
        named = path.pool_name(pool.decode("latin-1"))
        refusal = named if isinstance(named, Refusal) else None
    kept = [line for line in fields.lines if line.kept and line.key not in tokens]
    given, states = values.get(_ID, b""), b""
    parents: tuple[str, ...] = ()
    if _TRACEPARENT in values or _TRACESTATE in values:
        parents = tuple([line.given[1] for line in kept if line.key == _TRACEPARENT])
        states = b"".join([line.text for line in kept if line.key == _TRACESTATE])
        kept = [line for line in kept if line.key not in _TRACE]
    return Head(
        method=first.method,
        target=first.target,
        parsed=parsed,
        pairs=tuple([line.pair for line in kept]),
        block=b"".join([line.text for line in kept]),
        length=length,
        http11=first.http11,
        keep_alive=b"close" not in tokens and (first.http11 or b"keep-alive" in tokens),
        expects=b"expect" in values and first.http11,
        relayed=refusal is None and parsed is not None and parsed.target in _RELAYED,
        explain=values.get(_EXPLAIN) == b"true",
        request_id=given if _REQUEST_ID.fullmatch(given) else b"",
        ask=_NOTHING if parsed is None else _ask(parsed, pool or b"", fields),
        traceparents=parents,
        tracestate=states,
        refusal=refusal,
    )


def _not_served(method: bytes, found: Parsed | Refusal) -> Refusal | None:
    """Refuse what a path rules out; an unknown one may be somebody else's."""
    if isinstance(found, Refusal):
        return None if found.http_status == HTTPStatus.NOT_FOUND else found
    wanted = path.method(found)
    if found.target is Target.API or method.decode() == wanted:
        return None
    return _no_method(method, found)


def _no_method(method: bytes, found: Parsed | Refusal) -> Refusal:
    """Refuse a method that no path takes, or not this one."""
    if isinstance(found, Refusal):
        text = f"the method {method.decode()} is refused"
        return Refusal(DroppedReason.BAD_REQUEST, text, http_override=405)
    wanted = path.method(found)
    text = f"{found.target.value} is a {wanted}"
    return Refusal(DroppedReason.BAD_REQUEST, text, http_override=405, allow=wanted)


def _ask(parsed: Parsed, pool: bytes, fields: _Fields) -> Ask:
    return Ask(
        model=parsed.model,
        version=parsed.version,
        pool=parsed.pool or pool.decode("latin-1"),
        call=_CALLS.get(parsed.target, Call.INFER),
        given=frozenset([line.given for line in fields.lines]),
        tier=fields.values.get(_TIER, b"").decode("latin-1"),
    )


def sequence_of(head: Head, body: bytes) -> str:
    """Return the id of the sequence that a request is part of; empty: of none."""
    if body.find(sequence_ids.QUOTED) < 0:  # nearly always; a search costs less than a call
        return ""
    size = [value for name, value in head.pairs if name.lower() == _JSON_SIZE]
    return sequence_ids.of_http(body, size[0].decode("latin-1") if size else "")


def _bad(text: str) -> Refusal:
    return Refusal(DroppedReason.BAD_REQUEST, text)
