"""What a request's and an answer's header blocks say to a gRPC relay.

Both are derived once per block that differs; a field is looked at once as long as it is
remembered. What is forwarded is encoded here, without indexing, ready to be sent.
"""

import re
from dataclasses import dataclass

from tidegate_api import names
from tidegate_router.core import headers
from tidegate_router.core.h2 import status
from tidegate_router.core.h2.hpack import Field, Fields, literal
from tidegate_router.core.pins import Given

_MAX_REMEMBERED = 4096
_MAX_REMEMBERED_BYTES = 256
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\x00\r\n]|\A[ \t]|[ \t]\Z")
_CONNECTION = frozenset({
    b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade",
})  # fmt: skip
_REQUEST_PSEUDO = (b":method", b":scheme", b":path", b":authority")
_PASSED_GRPC = frozenset({
    "grpc-encoding", "grpc-accept-encoding", "grpc-status-details-bin", "grpc-trace-bin",
    "grpc-tags-bin",
})  # fmt: skip
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}

_POOL, _MODEL = names.HEADER_POOL.encode(), names.HEADER_MODEL.encode()
_EXPLAIN, _IDENTITY = names.HEADER_EXPLAIN.encode(), names.HEADER_REQUEST_ID.encode()
_OURS = frozenset({_POOL, _MODEL, _EXPLAIN, _IDENTITY})
_ACTED_ON = _OURS | {b"grpc-timeout", b"te", b"content-length", b"content-type", b"grpc-encoding"}
_UNIQUE = frozenset({_POOL, _MODEL, b"grpc-timeout", b"grpc-encoding", b"content-type"})
_CHANGING = frozenset({b"grpc-timeout", _IDENTITY, b"traceparent"})  # with each request
_ACCEPT = b"grpc-accept-encoding"
Pair = tuple[str, str]


@dataclass(slots=True)
class ClientHead:
    """A request's head.

    `malformed`: no HTTP/2 request at all (the stream is reset). `unusable` says what else makes it
    one that nobody can be asked. `forwarded`: what a worker sees of it, encoded, without
    pseudo-headers, `te`, the deadline and the id. `plain` is the same without
    grpc-accept-encoding. `identity`: the client's id, encoded.
    """

    path: bytes = b""
    usable: bool = False  # nothing of the following is amiss
    malformed: str = ""
    unusable: str = ""
    content_type: bytes = b""
    content_bytes: int | None = None
    encoding: bytes = b""
    timeout_s: float | None = None
    pool: str = ""
    model: str = ""
    identity: bytes = b""
    explain: bool = False
    forwarded: bytes = b""
    plain: bytes = b""
    given: Given = frozenset()


@dataclass(slots=True)
class WorkerHead:
    """The head or the trailers of an answer.

    `code` is None where it does not say: then it is no end. `visible`: what a client sees of it,
    encoded, without :status, grpc-status and grpc-message.
    """

    http_status: int = 0
    code: int | None = None
    message: bytes = b""
    encoding: bytes = b""
    visible: bytes = b""
    block: bytes = b""  # all of it as the head of an answer to a client


class _Known:
    """One regular field: whether it is well-formed, what is forwarded of it, who reads it."""

    __slots__ = ("acts", "literal", "pair", "problem")

    def __init__(self, name: bytes, problem: str, encoded: bytes, pair: Pair | None) -> None:
        self.problem, self.literal, self.pair = problem, encoded, pair
        self.acts = name in _ACTED_ON


class HeadReader:
    """Reads heads of requests, and remembers their fields and the names of these."""

    __slots__ = ("_known", "_names")

    def __init__(self) -> None:
        self._known: dict[Field, _Known] = {}
        self._names: dict[bytes, tuple[str, bool]] = {}  # what is wrong with it, whether it passes

    def read(self, fields: Fields) -> ClientHead:
        """Return what a request's block says."""
        head = ClientHead()
        forwarded: list[bytes] = []
        plain: list[bytes] = []
        given: list[Pair] = []
        acted: dict[bytes, bytes] = {}
        remembered = self._known
        for field in fields[_read_pseudo(head, fields) :]:
            known = remembered.get(field) or self._look_at(field)
            if known.problem:
                head.malformed = known.problem
            if known.pair is not None:
                given.append(known.pair)
            if known.literal:
                forwarded.append(known.literal)
                if field[0] != _ACCEPT:
                    plain.append(known.literal)
            if known.acts:
                if field[0] in acted and field[0] in _UNIQUE:
                    head.unusable = f"metadata {field[0].decode()} is given twice"
                acted[field[0]] = field[1]
        head.forwarded, head.plain = b"".join(forwarded), b"".join(plain)
        head.given = frozenset(given)
        _act(head, acted)
        problems = head.malformed or head.unusable or head.content_bytes is not None
        head.usable = head.content_type.startswith(b"application/grpc") and not problems
        return head

    def _look_at(self, field: Field) -> _Known:
        name, value = field
        problem, passes = self._names.get(name) or self._look_at_name(name)
        if not problem and _BAD_VALUE.search(value):
            problem = "a header value with control characters or spaces around it"
        pair = None if name[-4:] == b"-bin" else (name.decode("latin-1"), value.decode("latin-1"))
        known = _Known(name, problem, literal(name, value) if passes else b"", pair)
        if name not in _CHANGING and len(name) + len(value) <= _MAX_REMEMBERED_BYTES:
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.clear()
            self._known[field] = known
        return known

    def _look_at_name(self, name: bytes) -> tuple[str, bool]:
        problem = _name_problem(name)
        passes = not problem and name != b"te" and _passes(name, request=True)
        if len(name) <= _MAX_REMEMBERED_BYTES:
            if len(self._names) >= _MAX_REMEMBERED:
                self._names.clear()
            self._names[name] = problem, passes
        return problem, passes


def _read_pseudo(head: ClientHead, fields: Fields) -> int:
    """Read the pseudo-headers, which come first (RFC 9113 section 8.3.1)."""
    seen: dict[bytes, bytes] = {}
    at = 0
    for name, value in fields:
        if name[:1] != b":":
            break
        if name in seen or name not in _REQUEST_PSEUDO:
            head.malformed = "a pseudo-header that is unknown or came twice"
        seen[name] = value
        at += 1
    head.path = seen.get(b":path", b"")
    if not (head.path and seen.get(b":scheme") and seen.get(b":method")):
        head.malformed = "a pseudo-header is missing"
    elif seen[b":method"] != b"POST":
        head.unusable = "gRPC uses POST"
    return at


def _act(head: ClientHead, acted: dict[bytes, bytes]) -> None:
    """Take what the router itself reads."""
    get = acted.get
    head.content_type = get(b"content-type", b"")
    head.encoding = get(b"grpc-encoding", b"")
    head.pool = get(_POOL, b"").decode("latin-1")
    head.model = get(_MODEL, b"").decode("utf-8", "replace")
    head.explain = get(_EXPLAIN) == b"true"
    identity = get(_IDENTITY, b"")
    if identity and _REQUEST_ID.fullmatch(identity):
        head.identity = literal(_IDENTITY, identity)
    if get(b"te", b"trailers") != b"trailers":
        head.malformed = "te: only trailers is allowed"
    timeout = get(b"grpc-timeout")
    if timeout is not None:
        head.timeout_s = timeout_s(timeout)
        if head.timeout_s is None:
            head.unusable = "metadata grpc-timeout is no time"
    size = get(b"content-length")
    if size is not None:
        head.content_bytes = int(size) if size.isdigit() and len(size) < 16 else -1


def timeout_s(value: bytes) -> float | None:
    """Return the seconds of a `grpc-timeout`; None if it is none."""
    found = _TIMEOUT.fullmatch(value)
    return int(found[1]) * _UNIT_S[found[2]] if found else None


def encode_timeout(seconds: float) -> bytes:
    """Return a `grpc-timeout` of so many seconds, rounded up to a millisecond."""
    milliseconds = int(seconds * 1000) + 1
    if milliseconds < 10**8:
        return b"%dm" % milliseconds
    return b"%dS" % min(milliseconds // 1000, 10**8 - 1)


def _name_problem(name: bytes) -> str:
    """Say what makes a regular field malformed (RFC 9113 sections 8.2.1 and 8.2.2)."""
    if not _NAME.fullmatch(name):
        return "a header name is not in lower case, or no token"
    return "a header of HTTP/1.1 connections" if name in _CONNECTION else ""


def _passes(name: bytes, *, request: bool) -> bool:
    """Whether a field crosses the router."""
    text = name.decode("latin-1")
    if text.startswith("grpc-"):
        return text in _PASSED_GRPC
    strip = headers.strip_request if request else headers.strip_response
    return bool(strip([(text, "")]))


def read_answer(fields: Fields) -> WorkerHead:
    """Return what a worker's block says."""
    head = WorkerHead()
    visible: list[bytes] = []
    for name, value in fields:
        if name == b":status":
            head.http_status = int(value) if value.isdigit() and len(value) == 3 else 0
        elif name == b"grpc-status":
            head.code = (
                int(value) if value.isdigit() and len(value) <= 3 else status.NUMBERS["UNKNOWN"]
            )
        elif name == b"grpc-message":
            head.message = value
        elif not _name_problem(name) and _passes(name, request=False):
            visible.append(literal(name, value))
            if name == b"grpc-encoding":
                head.encoding = value
    head.visible = b"".join(visible)
    head.block = b"\x88" + head.visible
    return head
