"""HPACK against the `hpack` package, and the memo against a decoder without one."""

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_router.core.h2.frames import Code, ConnectionFault
from tidegate_router.core.h2.hpack import MAX_LIST_BYTES, STATIC, Decoder, Memo, encode, literal

NAMES = st.sampled_from([b":path", b"content-type", b"x-request-id", b"te", b"a" * 200, b"x"])
VALUES = st.one_of(
    st.sampled_from([b"", b"/m", b"application/grpc", b"trailers", b"v" * 127, b"v" * 700]),
    st.binary(max_size=40),
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=8)
MODES = st.booleans()


def plain(fields):
    return tuple((bytes(name), bytes(value)) for name, value in fields)


@settings(deadline=None)
@given(FIELDS)
def test_what_we_encode_the_package_reads_and_keeps_nothing(fields):
    decoder = hpack.Decoder()
    assert plain(decoder.decode(encode(fields), raw=True)) == plain(fields)
    assert not decoder.header_table.dynamic_entries


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(FIELDS, MODES, MODES), max_size=6))
def test_what_the_package_encodes_we_read_block_by_block(blocks):
    """Its encoder indexes, and codes by Huffman if asked: tables on both sides stay equal."""
    encoder, decoder, memo = hpack.Encoder(), Decoder(), Memo(lambda fields: fields)
    for fields, huffman, sensitive in blocks:
        given_fields = [hpack.HeaderTuple(*one) for one in fields]
        if sensitive:
            given_fields = [hpack.NeverIndexedHeaderTuple(*one) for one in fields]
        block = encoder.encode(given_fields, huffman=huffman)
        assert decoder.decode(block) == plain(fields)
        assert memo.read(block) == plain(fields)
        assert memo.read(encode(fields)) == plain(fields)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_as_the_package_reads_them_or_refused(block):
    theirs = hpack.Decoder()
    theirs.max_allowed_table_size = 4096
    try:
        expected = plain(theirs.decode(block, raw=True))
    except (hpack.HPACKError, IndexError, UnicodeDecodeError):
        expected = None
    try:
        found = Decoder().decode(block)
    except ConnectionFault:
        found = None
    if found != expected:  # only where we are stricter
        assert found is None


def test_a_block_means_another_thing_after_the_table_moved():
    memo = Memo(lambda fields: fields)
    last = b"\xbe"  # index 62: the newest entry
    memo.read(b"\x40\x01a\x01x")
    assert memo.read(last) == ((b"a", b"x"),)
    assert memo.read(last) == ((b"a", b"x"),)
    memo.read(b"\x40\x01b\x01y")
    assert memo.read(last) == ((b"b", b"y"),)


def test_a_block_is_derived_once_while_the_table_rests():
    seen = []
    memo = Memo(lambda fields: seen.append(fields) or len(seen))
    block = literal(b"a", b"b")
    assert [memo.read(block) for _ in range(3)] == [1, 1, 1]
    memo.read(b"\x40\x01c\x01d")
    assert memo.read(block) == 3


def test_a_smaller_table_forgets():
    decoder = Decoder()
    decoder.decode(b"\x40\x01a\x01x")
    assert decoder.decode(b"\x20") == ()
    with pytest.raises(ConnectionFault):
        decoder.decode(b"\xbe")


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",
        b"\xff\xff\xff\xff\xff\xff\x0f",
        b"\xbe",
        b"\x00\x05ab",
        b"\x00",
        b"\x40\x01a",
        b"\x3f\xe2\x1f",
        b"\x88\x20",
        b"\x00\x81\xff\x00",
        b"\x7f",
    ],
    ids=[
        "index-0", "endless", "beyond", "cut-name", "nothing", "no-value", "table-4097",
        "late-size", "huffman", "cut-number",
    ],
)  # fmt: skip
def test_what_is_no_block_ends_the_connection(block):
    with pytest.raises(ConnectionFault) as caught:
        Decoder().decode(block)
    assert caught.value.code is Code.COMPRESSION_ERROR


def test_a_small_block_that_unfolds_into_a_large_list_is_stopped():
    """An entry of 4 KiB named 32 000 times would be 128 MiB."""
    decoder = Decoder()
    decoder.decode(b"\x40" + literal(b"x-long", b"v" * 4000)[1:])
    with pytest.raises(ConnectionFault) as caught:
        decoder.decode(b"\xbe" * 32000)
    assert caught.value.code is Code.ENHANCE_YOUR_CALM
    assert MAX_LIST_BYTES == 65536


def test_the_static_table_is_the_rfcs():
    assert (len(STATIC), STATIC[1], STATIC[8]) == (62, (b":authority", b""), (b":status", b"200"))
    assert STATIC[61] == (b"www-authenticate", b"")
