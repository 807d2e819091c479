"""Heads of workers' answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_router.core.answer import UNTIL_CLOSE, AnswerBook, AnswerError, parse

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("raw", "status", "length", "reusable"),
    [
        pytest.param(OK + b"Content-Length: 5\r\n\r\n", 200, 5, True, id="length"),
        pytest.param(
            OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 200, 5, True, id="same-twice"
        ),
        pytest.param(OK + b"Transfer-Encoding: Chunked\r\n\r\n", 200, -1, True, id="chunked"),
        pytest.param(OK + b"\r\n", 200, UNTIL_CLOSE, False, id="until-close"),
        pytest.param(
            OK + b"Connection: close\r\nContent-Length: 5\r\n\r\n", 200, 5, False, id="close"
        ),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", 200, 5, False, id="1.0"),
        pytest.param(
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n",
            200, 5, True, id="1.0-keep-alive",
        ),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 204, 0, True, id="no-content"),
        pytest.param(b"HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n", 304, 0, True, id="304"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", 100, 0, True, id="interim"),
        pytest.param(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, 0, True, id="no-phrase"),
    ],
)  # fmt: skip
def test_how_an_answer_ends(raw, status, length, reusable):
    head = parse(raw)
    assert (head.status, head.length, head.reusable) == (status, length, reusable)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"no HTTP\r\n\r\n", id="no-http"),
        pytest.param(b"HTTP/2 200 OK\r\n\r\n", id="http-2"),
        pytest.param(b"HTTP/1.1 20 OK\r\n\r\n", id="two-digits"),
        pytest.param(b"HTTP/1.1 600 OK\r\n\r\n", id="600"),
        pytest.param(OK + b"Content-Length: -1\r\n\r\n", id="minus"),
        pytest.param(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", id="two-lengths"),
        pytest.param(
            OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", id="two-framings"
        ),
        pytest.param(OK + b"Transfer-Encoding: gzip\r\n\r\n", id="another-coding"),
        pytest.param(OK + b"A: b\r\n c\r\n\r\n", id="folded"),
        pytest.param(OK + b"A: b\nC: d\r\n\r\n", id="bare-lf"),
        pytest.param(OK + b"A: " + b"a" * 40_000 + b"\r\n\r\n", id="40-KB"),
    ],
)
def test_what_has_no_single_reading_is_an_error_that_quotes_nothing(raw):
    with pytest.raises(AnswerError) as error:
        parse(raw)
    assert len(str(error.value)) < 80


def test_a_client_sees_neither_the_hop_nor_what_only_the_router_may_say():
    head = parse(
        OK + b"Connection: X-Hop\r\nX-Hop: 1\r\nDate: x\r\nServer: y\r\nKeep-Alive: 5\r\n"
        b"x-tidegate-worker: forged\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 3\r\n\r\n"
    )
    assert head.pairs == ((b"X-A", b"1"), (b"X-A", b"2"))
    assert head.block == b"HTTP/1.1 200 OK\r\nX-A: 1\r\nX-A: 2\r\n"


def test_a_book_gives_what_parsing_gives_and_stays_small():
    book = AnswerBook()
    for number in range(1500):
        raw = OK + b"Content-Length: %d\r\n\r\n" % number
        assert book.read(raw) == book.read(raw) == parse(raw)
    assert len(book._known) <= 512


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_an_error(raw):
    try:
        head = parse(OK + raw + b"\r\n\r\n")
    except AnswerError:
        return
    assert head.block.count(b"\r\n") == len(head.pairs) + 1
