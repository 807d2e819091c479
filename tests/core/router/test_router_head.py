"""Request heads: what is understood has one meaning, everything else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_router.core import head as heads
from tidegate_router.core.head import Head, HeadBook, parse
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Call

LINE = b"POST /v2/models/m/infer HTTP/1.1\r\n"
HOST = b"Host: a\r\n"
END = b"\r\n"


def made(*lines, first=LINE, host=HOST):
    return first + host + b"".join(line + b"\r\n" for line in lines) + END


def test_a_plain_request_is_taken_apart():
    head = parse(
        made(
            b"Content-Length: 12", b"X-Request-ID: mine", b"Content-Type:application/json \t",
            b"x-tidegate-pool: ml/vision", b"x-tidegate-explain: true",
            first=b"POST /v2/models/m/versions/3/infer?a=b//c HTTP/1.1\r\n",
        )
    )  # fmt: skip
    assert isinstance(head, Head)
    assert (head.method, head.target) == (b"POST", b"/v2/models/m/versions/3/infer?a=b//c")
    assert (head.length, head.keep_alive, head.expects, head.explain) == (12, True, False, True)
    assert (head.request_id, head.relayed, head.foreign) == (b"mine", True, False)
    ask = head.ask
    assert (ask.model, ask.version, ask.pool, ask.call) == ("m", "3", "ml/vision", Call.INFER)
    assert ("content-type", "application/json") in ask.given
    assert head.pairs == ((b"Content-Type", b"application/json"),)
    assert head.block == b"Content-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        pytest.param(b"POST /v2/models/m/infer HTTP/0.9", 400, id="0.9"),
        pytest.param(b"POST /v2/models/m/infer HTTP/2.0", 400, id="2.0"),
        pytest.param(b"POST /v2/models/m/infer HTTP/1.2", 400, id="1.2"),
        pytest.param(b"POST /v2/models/m/infer http/1.1", 400, id="lower-case-version"),
        pytest.param(b"POST /v2/models/m/infer RTSP/1.0", 400, id="rtsp"),
        pytest.param(b"POST /v2/models/m/infer", 400, id="no-version"),
        pytest.param(b"POST  /v2/models/m/infer HTTP/1.1", 400, id="two-spaces"),
        pytest.param(b"POST /v2/models/m/infer  HTTP/1.1", 400, id="two-spaces-before-version"),
        pytest.param(b"POST\t/v2/models/m/infer HTTP/1.1", 400, id="tab"),
        pytest.param(b"POST /v2/models/m/infer HTTP/1.1 ", 400, id="trailing-space"),
        pytest.param(b" POST /v2/models/m/infer HTTP/1.1", 400, id="leading-space"),
        pytest.param(b"POST /v2/models/m/in fer HTTP/1.1", 400, id="space-in-target"),
        pytest.param(b"POST /v2/models/m\x00/infer HTTP/1.1", 400, id="nul"),
        pytest.param(b"POST /v2/models/\xc3\xa9/infer HTTP/1.1", 400, id="utf-8-target"),
        pytest.param(b"post /v2/models/m/infer HTTP/1.1", 400, id="lower-case-method"),
        pytest.param(b"SOURCE /v2/models/m/infer HTTP/1.1", 405, id="odd-method"),
        pytest.param(b"CONNECT a:80 HTTP/1.1", 400, id="connect"),
        pytest.param(b"TRACE /v2/models/m HTTP/1.1", 405, id="trace"),
        pytest.param(b"PRI * HTTP/2.0", 400, id="http-2-preface"),
        pytest.param(b"", 400, id="nothing"),
        pytest.param(b"POST /" + b"a" * 9000 + b" HTTP/1.1", 400, id="9-KB-line"),
        pytest.param(b"OPTIONS * HTTP/1.1", 403, id="asterisk"),
        pytest.param(b"POST http://a/v2/models/m/infer HTTP/1.1", 403, id="absolute-form"),
        pytest.param(b"POST /v2/models/m/infer?x=#y HTTP/1.1", 400, id="fragment-in-query"),
        pytest.param(b"POST /v2/models/m/infer#y HTTP/1.1", 403, id="fragment"),
        pytest.param(b"POST /v2/models/m%2finfer HTTP/1.1", 403, id="encoded-slash"),
        pytest.param(b"POST /v2//models/m/infer HTTP/1.1", 403, id="two-slashes"),
        pytest.param(b"GET /v2/models/m/infer HTTP/1.1", 405, id="get-of-infer"),
        pytest.param(b"HEAD /v2/models/m HTTP/1.1", 405, id="head"),
        pytest.param(b"DELETE /v2/models/m HTTP/1.1", 405, id="delete"),
    ],
)
def test_first_lines_that_are_refused(line, status):
    found = parse(line + b"\r\n" + HOST + END)
    refusal = found if isinstance(found, Refusal) else found.refusal
    assert refusal is not None
    assert refusal.http_status == status


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(LINE + END, id="no-host"),
        pytest.param(made(HOST[:-2]), id="two-hosts"),
        pytest.param(LINE + b"Host: a, b\r\n\r\n", id="host-list"),
        pytest.param(LINE + b"Host: a/b\r\n\r\n", id="host-with-path"),
        pytest.param(LINE + b"Host: u@a\r\n\r\n", id="host-with-user"),
        pytest.param(made(b"Transfer-Encoding: chunked", b"Content-Length: 1"), id="two-framings"),
        pytest.param(made(b"Transfer-Encoding: gzip, chunked"), id="te-list"),
        pytest.param(made(b"Transfer-Encoding: chunked, chunked"), id="te-twice-in-one"),
        pytest.param(
            made(b"Transfer-Encoding: chunked", b"transfer-encoding: chunked"), id="te-twice"
        ),
        pytest.param(made(b"Transfer-Encoding: identity"), id="te-identity"),
        pytest.param(made(b"Transfer-Encoding: \x0bchunked"), id="te-vertical-tab"),
        pytest.param(made(b"Transfer-Encoding:"), id="te-empty"),
        pytest.param(made(b"Transfer-Encoding : chunked"), id="space-before-colon"),
        pytest.param(made(b"Transfer_Encoding: chunked"), id="underscore"),
        pytest.param(
            made(b"Transfer-Encoding: chunked", first=LINE.replace(b"1.1", b"1.0")), id="te-on-1.0"
        ),
        pytest.param(made(b"Content-Length: +1"), id="plus"),
        pytest.param(made(b"Content-Length: -1"), id="minus"),
        pytest.param(made(b"Content-Length: 0x1"), id="hex"),
        pytest.param(made(b"Content-Length: 1, 1"), id="length-list"),
        pytest.param(made(b"Content-Length: 1 1"), id="length-with-space"),
        pytest.param(made(b"Content-Length:"), id="length-empty"),
        pytest.param(made(b"Content-Length: 1e3"), id="length-with-exponent"),
        pytest.param(made(b"Content-Length: 1_0"), id="length-with-underscore"),
        pytest.param(made(b"Content-Length: " + b"9" * 30), id="length-of-30-digits"),
        pytest.param(made("Content-Length: \u0661".encode()), id="length-in-arabic"),
        pytest.param(made(b"Content-Length: 1", b"content-length: 1"), id="length-twice"),
        pytest.param(made(b"Content-Type: a", b"Content-Type: b"), id="type-twice"),
        pytest.param(made(b"Upgrade: h2c"), id="upgrade"),
        pytest.param(made(b"Expect: 200-ok"), id="expect-else"),
        pytest.param(made(b"Connection: close, content-length"), id="hop-by-hop-length"),
        pytest.param(made(b"Connection: host"), id="hop-by-hop-host"),
        pytest.param(made(b"A: b", b" c"), id="folded"),
        pytest.param(made(b"A: b", b"\tc"), id="folded-by-tab"),
        pytest.param(made(b": x"), id="no-name"),
        pytest.param(made(b"A"), id="no-colon"),
        pytest.param(made(b"A b: c"), id="space-in-name"),
        pytest.param(made(b"A: b\x00c"), id="nul-in-value"),
        pytest.param(made(b"A: b\x7fc"), id="delete-in-value"),
        pytest.param(made(b"A: b\rc"), id="bare-cr"),
        pytest.param(made(b"A: b\nContent-Length: 5"), id="bare-lf"),
        pytest.param(made(b"A: b\r\r\nC: d"), id="two-cr"),
        pytest.param(made("Ä: b".encode()), id="name-not-ascii"),
        pytest.param(made(*[b"A%d: b" % n for n in range(70)]), id="70-headers"),
        pytest.param(made(b"A: " + b"b" * 9000), id="9-KB-header"),
        pytest.param(made(*[b"A%d: " % n + b"b" * 4000 for n in range(9)]), id="36-KB-head"),
        pytest.param(
            made(b"Content-Length: 1", first=b"GET /v2/models/m HTTP/1.1\r\n"), id="get-with-body"
        ),
        pytest.param(
            made(b"Transfer-Encoding: chunked", first=b"GET /v2/models/m HTTP/1.1\r\n"),
            id="get-with-chunks",
        ),
    ],
)
def test_heads_with_two_readings_are_refused(raw):
    found = parse(raw)
    assert isinstance(found, Refusal)
    assert found.http_status == 400


@pytest.mark.parametrize(
    ("raw", "keep_alive"),
    [
        pytest.param(made(), True, id="1.1"),
        pytest.param(made(b"Connection: close"), False, id="1.1-close"),
        pytest.param(made(b"Connection: x, CLOSE"), False, id="1.1-close-in-a-list"),
        pytest.param(made(b"Connection: x", b"Connection: close"), False, id="1.1-second-line"),
        pytest.param(made(first=LINE.replace(b"1.1", b"1.0")), False, id="1.0"),
        pytest.param(
            made(b"Connection: Keep-Alive", first=LINE.replace(b"1.1", b"1.0")), True, id="1.0-keep"
        ),
        pytest.param(made(first=LINE.replace(b"1.1", b"1.0"), host=b""), False, id="1.0-no-host"),
    ],
)
def test_whether_a_connection_goes_on(raw, keep_alive):
    found = parse(raw)
    assert isinstance(found, Head)
    assert found.keep_alive is keep_alive


def test_what_is_of_the_connection_or_the_router_reaches_no_worker():
    head = parse(
        made(
            b"Connection: x-mine", b"X-Mine: 1", b"Keep-Alive: 5", b"TE: trailers", b"Trailer: x",
            b"Proxy-Authorization: y", b"Expect: 100-continue", b"x-tidegate-worker: forged",
            b"x-tidegate-restricted-key: guess", b"triton-grpc-protocol-x: guess",
            b"Authorization: kept", b"Content-Length: 3", b"traceparent: kept",
        )
    )  # fmt: skip
    assert isinstance(head, Head)
    assert head.pairs == ((b"Authorization", b"kept"),)
    assert head.expects


@pytest.mark.parametrize("value", [b"", b"a b", b"x" * 129, "é".encode()])
def test_a_request_id_that_cannot_be_used_is_none(value):
    found = parse(made(b"X-Request-ID: " + value))
    assert isinstance(found, Head)
    assert found.request_id == b""


@pytest.mark.parametrize("path", [b"/openapi.json", b"/generate", b"/v1/completions", b"/"])
def test_other_paths_are_somebody_elses(path):
    found = parse(made(first=b"POST " + path + b" HTTP/1.1\r\n"))
    assert isinstance(found, Head)
    assert found.foreign
    assert not found.relayed


@pytest.mark.parametrize(
    ("raw", "refused"),
    [
        pytest.param(b"POST /v2/mod", False, id="half-a-line"),
        pytest.param(LINE + HOST, False, id="half-a-head"),
        pytest.param(b"a" * 9000, True, id="a-line-without-end"),
        pytest.param(LINE + b"A: " + b"b" * 33_000, True, id="a-head-without-end"),
        pytest.param(LINE + b"A: b\r\n" * 70, True, id="headers-without-end"),
        pytest.param(b"POST / HTTP/1.1\nHost: a\n\n", True, id="line-feeds-only"),
    ],
)
def test_beginnings(raw, refused):
    assert (heads.unfinished(raw) is not None) is refused


def test_a_book_gives_what_parsing_gives_and_stays_small():
    book = HeadBook()
    for number in range(2000):
        raw = made(b"X-Request-ID: %d" % number)
        assert book.read(raw) == book.read(raw) == parse(raw)
    assert len(book._heads) <= 512
    assert len(book._lines) <= 4096
    long = made(b"A: " + b"b" * 4000)
    assert book.read(long) == parse(long)
    assert long not in book._heads
    assert book.read(LINE + END) == parse(LINE + END)


@given(st.lists(st.binary(max_size=30), max_size=6), st.lists(st.binary(max_size=30), max_size=6))
def test_what_a_book_has_read_before_changes_no_reading(before, lines):
    book = HeadBook()
    for line in before:
        book.read(made(b"A: " + line, line))
    raw = made(*[b"A: " + line for line in lines])
    assert book.read(raw) == parse(raw)


TOKEN = st.text("abcXYZ019-", min_size=1, max_size=8).map(str.encode)
VALUE = st.binary(max_size=20).map(lambda raw: bytes(c for c in raw if c >= 32 and c != 127))


@given(st.lists(st.tuples(TOKEN, VALUE), max_size=20))
def test_kept_headers_are_a_subsequence_of_the_given_ones_byte_for_byte(pairs):
    found = parse(made(*[name + b": " + value for name, value in pairs]))
    if isinstance(found, Refusal):
        return
    given_pairs = [(name, value.strip(b" \t")) for name, value in pairs]
    rest = iter(given_pairs)
    assert all(pair in rest for pair in found.pairs)


@given(st.binary(max_size=300))
def test_any_bytes_have_one_meaning_or_none(raw):
    found = parse(LINE + HOST + raw + b"\r\n\r\n")
    if isinstance(found, Head):
        assert b"\n" not in found.target
        assert all(b"\r" not in part and b"\n" not in part for pair in found.pairs for part in pair)
        assert found.block.count(b"\r\n") == len(found.pairs)
