"""What heads say, what crosses the router, and gRPC's messages (router.md 8, 10, 12)."""

import gzip
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_router.core import protowire
from tidegate_router.core.h2 import messages, status
from tidegate_router.core.h2.heads import HeadReader, encode_timeout, read_answer, timeout_s
from tidegate_router.core.h2.hpack import Decoder, literal
from tidegate_router.core.h2.messages import MessageError, Splitter

BASE = (
    (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/s/m"), (b":authority", b"a"),
    (b"content-type", b"application/grpc"), (b"te", b"trailers"),
)  # fmt: skip


def read(*more):
    return HeadReader().read((*BASE, *more))


def forwarded(head):
    return dict(Decoder().decode(head.forwarded))


def test_a_head_says_where_it_goes_and_who_asks():
    head = read(
        (b"x-tidegate-pool", b"ns/p"), (b"x-tidegate-model", b"m"), (b"x-request-id", b"7"),
        (b"x-tidegate-explain", b"true"), (b"grpc-timeout", b"250m"), (b"grpc-encoding", b"gzip"),
        (b"x-canary", b"yes"), (b"trace-bin", b"AP8"),
    )  # fmt: skip
    assert (head.usable, head.path, head.pool, head.model) == (True, b"/s/m", "ns/p", "m")
    assert (head.timeout_s, head.encoding, head.explain) == (0.25, b"gzip", True)
    assert head.identity == literal(b"x-request-id", b"7")
    assert ("x-canary", "yes") in head.given
    assert not [name for name, _ in head.given if name == "trace-bin"]


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        (b"authorization", True), (b"user-agent", True), (b"trace-bin", True),
        (b"grpc-encoding", True), (b"grpc-accept-encoding", True), (b"traceparent", True),
        (b"x-tidegate-restricted-key", False), (b"x-tidegate-drain-ack", False),
        (b"triton-grpc-protocol-x", False), (b"grpc-previous-rpc-attempts", False),
        (b"x-tidegate-worker", False), (b"x-request-id", False), (b"te", False),
        (b"host", False), (b"grpc-timeout", False),
    ],
)  # fmt: skip
def test_what_of_a_request_reaches_a_worker(name, passes):
    value = b"trailers" if name == b"te" else b"1S"
    reader = HeadReader()
    for _ in range(2):  # the second time it is remembered
        head = reader.read((*BASE[:5], (name, value)))
        assert (name in forwarded(head)) is passes


@pytest.mark.parametrize(
    "fields",
    [
        BASE[1:],
        (*BASE[:2], *BASE[3:]),
        ((b":path", b""), *BASE[:2], *BASE[3:]),
        (*BASE, (b":path", b"/late")),
        (*BASE[:3], BASE[2], *BASE[3:]),
        ((b":status", b"200"), *BASE),
        (*BASE, (b"X", b"1")),
        (*BASE, (b"", b"1")),
        (*BASE, (b"connection", b"x")),
        (*BASE, (b"transfer-encoding", b"chunked")),
        (*BASE, (b"x", b"a\nb")),
        (*BASE, (b"x", b" a")),
        (*BASE[:5], (b"te", b"gzip")),
    ],
)
def test_what_is_malformed_is_said_to_be(fields):
    head = HeadReader().read(fields)
    assert head.malformed
    assert not head.usable


PARTS = st.sampled_from([
    *BASE, (b"x-request-id", b"7"), (b"x-request-id", b"a b"), (b"x-request-id", b""),
    (b"x-tidegate-pool", b"a/b"), (b"x", b"1"), (b"grpc-timeout", b"1S"),
])  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(PARTS, max_size=9), max_size=3), st.booleans())
def test_what_is_remembered_changes_nothing(blocks, good):
    reader = HeadReader()
    for block in blocks:
        fields = (*BASE, *block) if good else tuple(block)
        for _ in range(2):
            assert reader.read(fields) == HeadReader().read_all(fields)


@pytest.mark.parametrize(
    "more",
    [
        ((b"grpc-timeout", b"1"),),
        ((b"grpc-timeout", b"1S"), (b"grpc-timeout", b"2S")),
        ((b"x-tidegate-pool", b"a/b"), (b"x-tidegate-pool", b"a/c")),
    ],
)
def test_what_is_ambiguous_is_not_usable(more):
    assert read(*more).unusable


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"4m", 0.004), (b"5u", 5e-6), (b"6n", 6e-9),
     (b"99999999S", 99999999), (b"", None), (b"S", None), (b"123456789S", None), (b"-1S", None)],
)  # fmt: skip
def test_a_timeout_is_read_as_grpc_writes_it(value, seconds):
    assert timeout_s(value) == (None if seconds is None else pytest.approx(seconds))


@settings(max_examples=40, deadline=None)
@given(st.floats(0.0001, 10**7))
def test_a_timeout_is_told_to_workers_rounded_up(seconds):
    told = timeout_s(encode_timeout(seconds))
    assert told is not None
    assert seconds <= told + 1e-9
    assert told <= seconds + max(0.002, 1.0 if seconds >= 10**5 else 0)


def test_an_answer_says_how_it_ended_and_what_a_client_sees():
    head = read_answer((
        (b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-status", b"3"),
        (b"grpc-message", b"bad"), (b"x-mine", b"1"), (b"x-tidegate-worker", b"forged"),
        (b"grpc-encoding", b"gzip"), (b"server", b"x"), (b"x-tidegate-restricted-key", b"k"),
    ))  # fmt: skip
    assert (head.http_status, head.code, head.message, head.encoding) == (200, 3, b"bad", b"gzip")
    assert dict(Decoder().decode(head.visible)) == {
        b"content-type": b"application/grpc", b"x-mine": b"1", b"grpc-encoding": b"gzip",
    }  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60))
def test_a_message_travels_percent_encoded(text):
    raw = text.encode("utf-8", "replace")
    encoded = status.encode_message(raw)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert status.decode_message(encoded) == raw.decode()


@pytest.mark.parametrize(("http", "name"), [(401, "UNAUTHENTICATED"), (503, "UNAVAILABLE"),
                                            (404, "UNIMPLEMENTED"), (418, "UNKNOWN")])  # fmt: skip
def test_an_http_status_has_a_code(http, name):
    assert status.name_of(status.of_http(http)) == name
    assert status.name_of(99) == "UNKNOWN"


def test_a_compressed_head_is_read_within_bounds():
    bomb = gzip.compress(b"\x0a\x01m" + bytes(3_000_000))
    plain, whole = messages.head_of(bomb, b"gzip", compressed=True)
    assert len(plain) <= max(messages.MAX_INFLATION * len(bomb), protowire.SCAN_BYTES)
    assert not whole
    assert protowire.scan(b"\x0a\x01m\x3a" + protowire.encode_varint(10**6), 10**6).model == "m"
    assert messages.head_of(zlib.compress(b"x"), b"deflate", compressed=True) == (b"x", True)


@pytest.mark.parametrize(
    ("data", "encoding"), [(b"not packed", b"gzip"), (b"x", b"snappy"), (b"x", b"")]
)
def test_what_cannot_be_inflated_is_said(data, encoding):
    with pytest.raises(MessageError):
        messages.head_of(data, encoding, compressed=True)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=50), st.booleans()), max_size=6), st.integers(1, 30))
def test_messages_are_changed_one_by_one_however_they_are_cut(sent, step):
    splitter = Splitter(lambda one: one + b"!", 1000, b"gzip")
    raw = b"".join(
        b"\x01" + len(gzip.compress(one)).to_bytes(4, "big") + gzip.compress(one)
        if packed
        else messages.wrap(one)
        for one, packed in sent
    )
    got = b"".join(splitter.feed(raw[at : at + step]) for at in range(0, len(raw), step))
    assert got == b"".join(messages.wrap(one + b"!") for one, _ in sent)


@pytest.mark.parametrize("sent", [b"\0\xff\xff\xff\xff", b"\x01\0\0\0\x01x"])
def test_a_message_that_cannot_be_changed_is_said(sent):
    with pytest.raises(MessageError):
        Splitter(bytes, 1000, b"gzip").feed(sent)


def parameter(key, value):
    entry = protowire.string_field(1, key) + protowire.bytes_field(2, value)
    return protowire.string_field(1, "m") + protowire.bytes_field(4, entry)


@pytest.mark.parametrize(
    ("message", "sequence"),
    [
        (parameter("sequence_id", b"\x10\x2a"), "42"),
        (parameter("sequence_id", protowire.string_field(3, "abc")), "abc"),
        (parameter("sequence_id", b"\x10\x00"), ""),
        (parameter("priority", b"\x10\x01"), ""),
        (protowire.string_field(3, "sequence_id"), ""),
        (parameter("sequence_id", b"\x10"), ""),
    ],
    ids=["number", "text", "none", "other", "elsewhere", "broken"],
)
def test_the_sequence_of_a_request_is_its_parameter(message, sequence):
    assert protowire.sequence(message) == sequence
