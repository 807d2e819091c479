"""The head policy: what it accepts is read the same way by llhttp (httptools) and by h11.

Input: a request as it comes on a connection, head and body. The first CR LF CR LF ends the head.
"""

import h11
import httptools

from tidegate_router.core import head as heads
from tidegate_router.core.chunks import ChunkError, Chunks
from tidegate_router.core.head import Head, HeadBook
from tidegate_router.core.refusal import Refusal

MAX_BYTES = 4096
_END = b"\r\n\r\n"
_MOST_BODY_BYTES = 64 * 1024
_BOOK = HeadBook()  # remembers over all inputs: what it read before must change no reading
_NEVER_FORWARDED = {
    b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect",
    b"keep-alive", b"te", b"trailer", b"proxy-connection", b"http2-settings",
}  # fmt: skip
_INFER = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: a:80\r\n"
SEEDS = [
    _INFER + b"Content-Length: 2\r\nContent-Type: application/json\r\n\r\n{}",
    _INFER + b"Transfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\nA: b\r\n\r\n",
    _INFER + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n0\r\n\r\nGET / HTTP/1.1",
    _INFER + b"x-tidegate-pool: ml/vision\r\nx-tidegate-explain: true\r\n\r\n",
    _INFER + b"Connection: close, x-mine\r\nX-Mine: 1\r\nTE: trailers\r\nA:\tb \t\r\n\r\n",
    _INFER + b"Inference-Header-Content-Length: 1\r\nX-Request-ID: mine\r\nA: \xff\r\n\r\n",
    b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET /v2/models/m/versions/3?a=b HTTP/1.1\r\nHost:\r\nContent-Length: 0\r\n\r\n",
    b"POST /pools/ml/v/v2/models/m/generate_stream HTTP/1.1\r\nhost: [::1]:8\r\n\r\n",
    b"HEAD /v2 HTTP/1.1\r\nHost: a\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST http://a/v2 HTTP/1.1\r\nHost: a\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    _INFER + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    _INFER + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    _INFER + b"Content-Length: +1\r\n\r\nx", _INFER + b"A: b\r\n c\r\n\r\n",
    _INFER + b"A : b\r\n\r\n", _INFER + b"A: b\rC: d\r\n\r\n", _INFER + b"A: b\nC: d\r\n\r\n",
    b"POST /v2/models/m/infer HTTP/1.1\nHost: a\n\n", b"\r\nGET /v2 HTTP/1.1\r\nHost: a\r\n\r\n",
]  # fmt: skip


def check(data: bytes) -> None:
    """Raise AssertionError where a head has two readings, or more of it passes than should."""
    at = data.find(_END) + len(_END)
    if at < len(_END):
        data, at = data + _END, len(data) + len(_END)
    raw, body = data[:at], data[at:]
    found = _BOOK.read(raw)
    assert found == heads.parse(raw), "what was read before changed a reading"
    cut = at - len(_END) - (len(body) * 31 + at) % max(1, at - 3)
    assert heads.unfinished(raw[: max(0, cut)]) is None or isinstance(found, Refusal), (
        "refused while incomplete, accepted when whole"
    )
    if isinstance(found, Head):
        _check_forwarded(found)
        if found.length is not None:
            body = (body * 2 or b"x")[: found.length].ljust(min(found.length, _MOST_BODY_BYTES))
            whole = found.length <= _MOST_BODY_BYTES
        else:
            body, whole = _chunked(body)
        _check_llhttp(found, raw, body, whole=whole)
        _check_h11(found, raw, body, whole=whole)


class _Seen:
    """What llhttp says of the messages in its bytes."""

    def __init__(self):
        self.headers, self.url, self.body, self.complete, self.begun = [], b"", b"", 0, 0
        self.head_done, self.parser, self.keep_alive = False, None, False

    def on_message_begin(self):
        self.begun += 1

    def on_url(self, url):
        self.url += url

    def on_header(self, name, value):
        if not self.head_done:
            self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self):
        self.head_done = True
        self.keep_alive = self.parser is not None and self.parser.should_keep_alive()

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        self.complete += 1


def _check_forwarded(found: Head) -> None:
    """What a worker sees of a head is one request, with nothing that frames or steers it."""
    assert found.block == b"".join(b"%b: %b\r\n" % pair for pair in found.pairs)
    for name, value in found.pairs:
        key = name.lower()
        assert key not in _NEVER_FORWARDED, key
        assert not key.startswith((b"triton-grpc-protocol-", b"x-tidegate-restricted")), key
        assert b"\r" not in value, value
        assert b"\n" not in value, value
    if found.relayed:
        seen = _Seen()
        parser = httptools.HttpRequestParser(seen)
        parser.feed_data(
            b"%b %b HTTP/1.1\r\nHost: w\r\n%bContent-Length: 0\r\n\r\n"
            % (found.method, found.target, found.block)
        )
        assert (seen.begun, seen.complete, seen.url) == (1, 1, found.target)
        kept = [(name.lower(), value) for name, value in found.pairs]
        assert seen.headers == [(b"host", b"w"), *kept, (b"content-length", b"0")]


def _chunked(data: bytes) -> tuple[bytes, bool]:
    """Return the part of `data` that our decoder takes for the body, and whether it is whole."""
    chunks, cut = Chunks(), len(data) // 2
    try:
        payload = chunks.feed(data[:cut])
        if not chunks.done:
            payload += chunks.feed(data[cut:])
            at = len(data) - len(chunks.rest)
        else:
            at = cut - len(chunks.rest)
    except ChunkError:
        return b"", False
    if not chunks.done:
        return b"", False
    again = Chunks()
    assert (again.feed(data), again.done) == (payload, True), "pieces change a chunked body"
    return data[:at], True


def _payload(found: Head, body: bytes) -> bytes:
    return body if found.length is not None else Chunks().feed(body)


def _check_llhttp(found: Head, raw: bytes, body: bytes, *, whole: bool) -> None:
    seen = _Seen()
    parser = seen.parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserInvalidURLError:
        assert found.refusal is not None, "a target that llhttp refuses is served"
        return
    lines = raw.split(b"\r\n")
    target = lines[0].split(b" ")[1]
    assert parser.get_method() == found.method
    assert (seen.url, seen.begun) == (target, 1)
    assert parser.get_http_version() == ("1.1" if found.http11 else "1.0")
    assert seen.headers == _reference(lines[1:-2]), "llhttp reads other headers"
    assert seen.keep_alive or not found.keep_alive, "llhttp ends the connection"
    if body:
        assert not seen.complete, "llhttp sees no body"
        try:
            parser.feed_data(body[:-1])
            assert not seen.complete, "llhttp's body is shorter"
            parser.feed_data(body[-1:])
        except httptools.HttpParserError:  # its right: it is stricter with extensions and trailers
            assert found.length is None, "llhttp refuses a body"
            return
    if whole:
        assert seen.complete == 1, "llhttp's body is longer"
        assert seen.body == _payload(found, body), "llhttp reads another body"


def _check_h11(found: Head, raw: bytes, body: bytes, *, whole: bool) -> None:
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=2 * heads.MAX_HEAD_BYTES)
    server.receive_data(raw)
    event = server.next_event()
    lines = raw.split(b"\r\n")
    assert isinstance(event, h11.Request), event
    assert event.method == found.method
    assert event.target == lines[0].split(b" ")[1]
    assert event.http_version == (b"1.1" if found.http11 else b"1.0")
    assert (
        list(event.headers)
        == [
            (name, value.lower() if name == b"transfer-encoding" else value)  # which h11 changes
            for name, value in _reference(lines[1:-2])
        ]
    ), "h11 reads other headers"
    if body:
        server.receive_data(body)
    payload = b""
    try:
        while isinstance(event := server.next_event(), h11.Data):
            payload += bytes(event.data)
    except h11.RemoteProtocolError:  # as llhttp's
        assert found.length is None, "h11 refuses a body"
        return
    if whole:
        assert isinstance(event, h11.EndOfMessage), "h11's body is longer"
        assert payload == _payload(found, body), "h11 reads another body"
        assert server.trailing_data == (b"", False), "h11's body is shorter"


def _reference(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Header lines read in the plainest way."""
    pairs = (line.split(b":", 1) for line in lines)
    return [(name.lower(), value.strip(b" \t")) for name, value in pairs]
