"""Chunked bodies: any split of the bytes gives the same body, and nothing else passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_router.core.chunks import LAST, ChunkError, Chunks, chunk


def decoded(*pieces):
    chunks = Chunks()
    return b"".join([chunks.feed(piece) for piece in pieces]), chunks


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.data())
def test_any_split_gives_the_body_and_the_rest(parts, data):
    raw = b"".join([chunk(part) for part in parts]) + LAST + b"NEXT"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    chunks, found, rest = Chunks(), b"", b""
    for piece in pieces:
        if chunks.done:
            rest += piece
        else:
            found += chunks.feed(piece)
    assert found == b"".join(parts)
    assert chunks.done
    assert chunks.rest + rest == b"NEXT"


def test_extensions_and_trailers_are_dropped():
    body, chunks = decoded(b'2;a="b" ; c\r\n{}\r\n0;x\r\nX-Checksum: 1\r\nY: 2\r\n\r\n')
    assert body == b"{}"
    assert chunks.done


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"zz\r\n", id="no-number"),
        pytest.param(b"\r\n", id="nothing"),
        pytest.param(b"-1\r\n", id="minus"),
        pytest.param(b"0x2\r\n{}\r\n", id="prefix"),
        pytest.param(b" 2\r\n{}\r\n", id="leading-space"),
        pytest.param(b"2 \r\n{}\r\n", id="trailing-space"),
        pytest.param(b"1" * 20 + b"\r\n", id="twenty-digits"),
        pytest.param(b"2\n{}\n", id="line-feeds-only"),
        pytest.param(b"2\r\n{}x\r\n", id="longer-than-stated"),
        pytest.param(b"2\r\n{}0\r\n\r\n", id="no-end-of-chunk"),
        pytest.param(b"2\r\n{}\n0\r\n\r\n", id="bare-end-of-chunk"),
        pytest.param(b"2;" + b"a" * 300 + b"\r\n", id="long-extension"),
        pytest.param(b"2;a\x00\r\n", id="nul-in-extension"),
        pytest.param(b"2" * 300, id="a-size-without-end"),
        pytest.param(b"0\r\nno colon\r\n\r\n", id="trailer-without-colon"),
        pytest.param(b"0\r\n a: b\r\n\r\n", id="folded-trailer"),
        pytest.param(b"0\r\n" + b"a: b\r\n" * 2000, id="endless-trailers"),
        pytest.param(b"0\r\n" + b"a" * 9000, id="a-trailer-without-end"),
    ],
)
def test_what_is_no_chunk_is_an_error_at_once_and_byte_by_byte(raw):
    with pytest.raises(ChunkError):
        decoded(raw)
    with pytest.raises(ChunkError):
        decoded(*[raw[at : at + 1] for at in range(len(raw))])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_body_or_an_error(raw):
    try:
        body, chunks = decoded(raw)
    except ChunkError:
        return
    assert len(body) <= len(raw)
    assert chunks.done or len(chunks.rest) <= len(raw)
