"""A connection without a socket: windows, limits, what follows which frame (router.md 10)."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_router.core.h2 import frames, limits
from tidegate_router.core.h2.ends import ClientLink, ServerLink
from tidegate_router.core.h2.frames import Code, ConnectionFault
from tidegate_router.core.h2.hpack import encode
from tidegate_router.core.h2.stream import Stream

HEAD = encode([(b":method", b"POST"), (b":path", b"/x")])
GREETING = frames.PREFACE + frames.settings({})


class Heard(Stream):
    """A stream that remembers what came."""

    def __init__(self):
        super().__init__()
        self.data, self.ended, self.resets, self.sent = b"", False, [], 0

    def on_data(self, data, *, end):
        self.data += data
        self.ended = end

    def on_reset(self, code):
        self.resets.append(code)
        return True

    def on_sent(self, size_bytes):
        self.sent += size_bytes


class Server(ServerLink):
    def __init__(self):
        self.now_s = 1000.0
        super().__init__(lambda: self.now_s, lambda fields: fields)
        self.got = {}

    def opened(self, head, stream_id, *, end):
        assert head
        stream = self.got[stream_id] = Heard()
        self.adopt(stream, stream_id)
        if end:
            stream.receiving = False


class Client(ClientLink):
    def __init__(self):
        super().__init__(lambda: 0.0, lambda fields: fields)
        self.heads, self.away = [], []

    def answered(self, stream, head, *, end):
        self.heads.append((stream.id, head, end))

    def went_away(self, last, code):
        self.away.append((last, code))


def taken(link):
    """Return and forget what was put out, as (kind, flags, stream, payload)."""
    data, found = b"".join(link.out), []
    link.out.clear()
    while data:
        high, low, kind, flags, stream = frames.unpack_head(data)
        size = high << 8 | low
        found.append((kind, flags, stream, data[9 : 9 + size]))
        data = data[9 + size :]
    return found


@pytest.fixture
def server():
    link = Server()
    link.receive(GREETING)
    taken(link)
    return link


def fault(link, data):
    with pytest.raises(ConnectionFault) as caught:
        link.receive(data)
    return caught.value.code


def opened(stream_id, *, end=False):
    return frames.head_frames(stream_id, HEAD, end=end)


def data(stream_id, payload, flags=0):
    return frames.frame(frames.DATA, flags, stream_id, payload)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 40), max_size=40))
def test_frames_are_the_same_however_they_are_cut(cuts):
    whole = GREETING + opened(1) + data(1, b"abc") + data(1, b"def", 1) + opened(3, end=True)
    link = Server()
    for size in [*cuts, len(whole)]:
        link.receive(whole[:size])
        whole = whole[size:]
    assert (link.got[1].data, link.got[1].ended, sorted(link.got)) == (b"abcdef", True, [1, 3])


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=400))
def test_any_bytes_after_the_greeting_are_taken_or_end_the_connection(noise):
    link = Server()
    link.receive(GREETING)
    with contextlib.suppress(ConnectionFault):
        link.receive(noise)
    assert len(link.streams) <= limits.MAX_STREAMS


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (data(0, b"x"), Code.PROTOCOL_ERROR),
        (data(1, b"x"), Code.PROTOCOL_ERROR),
        (opened(2), Code.PROTOCOL_ERROR),
        (opened(0), Code.PROTOCOL_ERROR),
        (opened(5) + opened(3), Code.STREAM_CLOSED),
        (frames.frame(frames.CONTINUATION, 4, 1, HEAD), Code.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, 0, 1, HEAD) + data(1, b""), Code.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, 0, 1, HEAD) + opened(3), Code.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, 4 | 8, 1, b"\xff" + HEAD), Code.PROTOCOL_ERROR),
        (opened(1) + data(1, b"\x09abc", 8), Code.PROTOCOL_ERROR),
        (opened(1) + data(1, b"", 8), Code.FRAME_SIZE_ERROR),
        (frames.frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\2"), Code.PROTOCOL_ERROR),
        (frames.frame(frames.PING, 0, 0, b"1234567"), Code.FRAME_SIZE_ERROR),
        (frames.frame(frames.PING, 0, 1, b"12345678"), Code.PROTOCOL_ERROR),
        (frames.frame(frames.SETTINGS, 1, 0, b"\0\4\0\0\0\0"), Code.FRAME_SIZE_ERROR),
        (frames.frame(frames.SETTINGS, 0, 1), Code.PROTOCOL_ERROR),
        (frames.frame(frames.GOAWAY, 0, 0, b"1234567"), Code.FRAME_SIZE_ERROR),
        (frames.frame(frames.GOAWAY, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
        (frames.frame(frames.RST_STREAM, 0, 1, b"\0\0\0\0"), Code.PROTOCOL_ERROR),
        (opened(1) + frames.frame(frames.RST_STREAM, 0, 1, b"\0"), Code.FRAME_SIZE_ERROR),
        (frames.window_update(0, 0), Code.PROTOCOL_ERROR),
        (frames.window_update(1, 1), Code.PROTOCOL_ERROR),
        (frames.window_update(0, 2**31 - 1), Code.FLOW_CONTROL_ERROR),
        (frames.frame(frames.WINDOW_UPDATE, 0, 0, b"\0"), Code.FRAME_SIZE_ERROR),
        (frames.pack_head(65, 0, frames.DATA, 0, 1), Code.FRAME_SIZE_ERROR),
        (frames.frame(frames.HEADERS, 4, 1, b"\xff"), Code.COMPRESSION_ERROR),
        (frames.frame(frames.PRIORITY, 0, 0, bytes(5)), Code.PROTOCOL_ERROR),
    ],
)
def test_a_broken_rule_ends_the_connection(server, sent, code):
    assert fault(server, sent) is code


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (data(1, b"x", 1) + data(1, b"y"), Code.STREAM_CLOSED),
        (data(1, b"x", 1) + opened(1, end=True), Code.STREAM_CLOSED),
        (opened(1), Code.PROTOCOL_ERROR),
        (frames.window_update(1, 0), Code.PROTOCOL_ERROR),
        (frames.window_update(1, 2**31 - 1), Code.FLOW_CONTROL_ERROR),
        (data(1, bytes(16384)) * 5, Code.FLOW_CONTROL_ERROR),
    ],
    ids=["data-after-end", "head-after-end", "second-head", "by-0", "window", "beyond-window"],
)
def test_a_broken_rule_of_one_stream_ends_that_stream(server, sent, code):
    server.receive(opened(1) + sent)
    assert (frames.RST_STREAM, 0, 1, frames.pack_long(code)) in taken(server)
    assert 1 not in server.streams
    server.receive(opened(3))
    assert 3 in server.streams


def test_unknown_frames_and_settings_are_nothing(server):
    server.receive(frames.frame(0xF0, 7, 9, b"what") + opened(1, end=True))
    assert 1 in server.got


def test_a_connection_that_does_not_begin_well_ends():
    assert fault(Server(), b"GET / HTTP/1.1\r\n") is Code.PROTOCOL_ERROR
    assert fault(Server(), frames.PREFACE + opened(1)) is Code.PROTOCOL_ERROR
    assert fault(Server(), frames.PREFACE + frames.SETTINGS_ACK) is Code.PROTOCOL_ERROR


def flood(kind):
    """Return one of the frames whose number is limited."""
    return {
        "ping": frames.ping(bytes(8), ack=False),
        "settings": frames.settings({}),
    }[kind]


@pytest.mark.parametrize("kind", ["ping", "settings"])
def test_more_than_100_of_a_kind_in_10_s_are_too_many(server, kind):
    count = limits.MAX_CONTROLS - (kind == "settings") - (kind == "ping")
    server.receive(flood(kind) * count)
    server.now_s += limits.PERIOD_S
    server.receive(flood(kind) * limits.MAX_CONTROLS)
    assert fault(server, flood(kind)) is Code.ENHANCE_YOUR_CALM


def test_a_ping_after_data_of_ours_is_free(server):
    """grpc-go measures the round trip with one for each that it gets."""
    server.receive(opened(1) + frames.window_update(0, 10000))
    for _ in range(1000):
        server.send_data(server.streams[1], b"x", None)
        server.receive(frames.ping(bytes(8), ack=False))
        server.out.clear()
        server.control_count = 0


def test_100_resets_are_suffered_and_no_more(server):
    """Rapid reset, CVE-2023-44487."""
    for number in range(limits.MAX_RESETS):
        server.receive(opened(2 * number + 1) + frames.rst_stream(2 * number + 1, Code.CANCEL))
    assert fault(server, opened(999) + frames.rst_stream(999, Code.CANCEL)) is (
        Code.ENHANCE_YOUR_CALM
    )
    assert all(stream.resets == [Code.CANCEL] for stream in server.got.values())


def test_the_101st_stream_is_refused_and_its_block_is_read(server):
    server.receive(b"".join(opened(2 * number + 1) for number in range(limits.MAX_STREAMS)))
    indexed = frames.head_frames(201, b"\x40\x01a\x01b", end=False)
    server.receive(indexed)
    assert (frames.RST_STREAM, 0, 201, frames.pack_long(Code.REFUSED_STREAM)) in taken(server)
    server.receive(data(201, b"on its way"))
    assert taken(server) == []
    server.receive(data(1, b"", 1))
    server.send_head(server.streams[1], HEAD, end=True)
    server.receive(frames.head_frames(203, b"\xbe", end=True))  # what the refused one put there
    assert 203 in server.got


def block_frames(parts):
    """Return a header block in so many CONTINUATION frames."""
    made = frames.frame(frames.HEADERS, 0, 1, parts[0])
    made += b"".join(frames.frame(frames.CONTINUATION, 0, 1, part) for part in parts[1:-1])
    return made + frames.frame(frames.CONTINUATION, 4, 1, parts[-1])


def test_a_block_may_be_in_9_frames_and_32_kib_and_not_more(server):
    field = b"\x00\x01a" + b"\x7f\x81\x1d" + bytes(b"v" * 3840)
    server.receive(block_frames([HEAD, *[field[at : at + 600] for at in range(0, 4200, 600)]]))
    assert len(server.got) == 1
    assert fault(Server_started(), block_frames([HEAD, *[b""] * 9])) is Code.ENHANCE_YOUR_CALM
    big = [b"\x00" * 16384] * 3
    assert fault(Server_started(), block_frames(big)) is Code.ENHANCE_YOUR_CALM


def Server_started():  # noqa: N802  # a fixture's value, made twice
    link = Server()
    link.receive(GREETING)
    return link


def test_empty_data_that_ends_nothing_is_limited(server):
    server.receive(opened(1) + data(1, b"") * limits.MAX_EMPTY)
    assert fault(server, data(1, b"")) is Code.ENHANCE_YOUR_CALM


def test_answers_to_control_frames_do_not_pile_up(server):
    server.receive(opened(1))
    server.window_bytes = 10**6
    server.streams[1].window_bytes = 10**6
    for _ in range(limits.MAX_QUEUED_CONTROLS - server.control_count):
        server.send_data(server.streams[1], b"x", None)
        server.receive(frames.ping(bytes(8), ack=False))
    server.send_data(server.streams[1], b"x", None)
    assert fault(server, frames.ping(bytes(8), ack=False)) is Code.ENHANCE_YOUR_CALM


def test_the_connections_window_is_credited_on_receipt_the_streams_when_it_went_on(server):
    server.receive(opened(1) + opened(3))
    got = server.got[1]
    for _ in range(4):
        server.receive(data(1, bytes(16384)))
    assert taken(server) == []
    for stream_id in (5, 7, 9):
        server.receive(opened(stream_id) + data(stream_id, bytes(16384)) * 4)
    assert [one[:3] for one in taken(server)] == [(frames.WINDOW_UPDATE, 0, 0)]
    got.credit(65536)
    [(kind, _, stream_id, payload)] = taken(server)
    assert (kind, stream_id, int.from_bytes(payload)) == (frames.WINDOW_UPDATE, 1, 65536)
    server.receive(data(1, bytes(16384), 1))
    assert len(got.data) == 5 * 16384


def test_padding_counts_and_is_credited_at_once(server):
    server.receive(opened(1))
    padded = bytes((255,)) + b"x" + bytes(255)
    server.receive(data(1, padded, 8) * 70)
    assert server.got[1].data == b"x" * 70
    credited = [int.from_bytes(one[3]) for one in taken(server) if one[2] == 1]
    assert sum(credited) + server.streams[1].owed_bytes == 70 * 256


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(1, 60_000), min_size=1, max_size=6),
    st.integers(0, 70_000), st.integers(0, 70_000), st.booleans(),
)  # fmt: skip
def test_data_never_exceeds_a_window_and_all_of_it_leaves(sizes, window, connection, trailers):
    link = Server()
    link.receive(frames.PREFACE + frames.settings({4: window}) + opened(1, end=True))
    link.receive(frames.window_update(0, connection + 1))
    room = {0: 65535 + connection + 1, 1: window}
    taken(link)
    stream = link.streams[1]
    for number, size in enumerate(sizes):
        tail = (HEAD if trailers else b"") if number == len(sizes) - 1 else None
        link.send_data(stream, bytes(size), tail)
    got, ended = 0, False
    for _ in range(200):
        for kind, flags, _, payload in taken(link):
            assert not ended
            ended = bool(flags & frames.END_STREAM)
            if kind == frames.DATA:
                got += len(payload)
                room[0] -= len(payload)
                room[1] -= len(payload)
        assert min(room.values()) >= 0
        if ended:
            break
        link.receive(frames.window_update(0, 9000) + frames.window_update(1, 9000))
        room = {key: value + 9000 for key, value in room.items()}
    assert (got, ended, stream.sent) == (sum(sizes), True, sum(sizes))
    assert 1 not in link.streams


def test_a_smaller_initial_window_may_make_a_stream_owe(server):
    server.receive(opened(1, end=True))
    stream = server.streams[1]
    server.send_data(stream, bytes(16000), None)
    server.receive(frames.settings({4: 10}))
    assert stream.window_bytes == 10 - 16000
    taken(server)
    server.send_data(stream, b"x", b"")
    assert taken(server) == []
    server.receive(frames.window_update(1, 15991))
    assert [one[3] for one in taken(server)] == [b"x", b""]


def test_streams_share_a_narrow_connection_in_turns(server):
    server.receive(opened(1, end=True) + opened(3, end=True))
    server.window_bytes = 0
    for stream_id in (1, 3):
        server.send_data(server.streams[stream_id], bytes(40000), b"")
    taken(server)
    server.receive(frames.window_update(0, 65536))
    order = [one[2] for one in taken(server) if one[0] == frames.DATA]
    assert order == [1, 3, 1, 3]


def test_nothing_of_a_stream_leaves_while_the_socket_is_full(server):
    server.receive(opened(1, end=True))
    server.blocked = True
    server.send_data(server.streams[1], b"x", b"")
    assert taken(server) == []
    server.blocked = False
    server.pump()
    assert [one[3] for one in taken(server)] == [b"x", b""]


def test_a_client_that_keeps_no_table_is_told_that_we_use_none(server):
    """RFC 7541 section 4.2: a smaller limit must be acknowledged in the next block."""
    server.receive(frames.settings({1: 0}) + opened(1, end=True) + opened(3, end=True))
    taken(server)
    for stream_id in (1, 3):
        server.send_head(server.streams[stream_id], b"\x88", end=True)
    assert [one[3] for one in taken(server)] == [b"\x20\x88", b"\x88"]


def test_an_answer_that_comes_first_ends_its_request(server):
    server.receive(opened(1))
    server.send_head(server.streams[1], b"\x88", end=True)
    kinds = [(one[0], one[3]) for one in taken(server)]
    assert kinds == [(frames.HEADERS, b"\x88"), (frames.RST_STREAM, frames.pack_long(0))]
    server.receive(data(1, b"on its way", 1))
    assert taken(server) == []


def test_what_is_sent_to_a_reset_stream_is_suffered_up_to_its_window(server):
    server.receive(opened(1))
    server.drop(server.streams[1], Code.CANCEL)
    taken(server)
    server.receive(data(1, bytes(16384)) * 4)
    assert taken(server) == []
    server.receive(data(1, b"x"))
    assert taken(server) == [(frames.RST_STREAM, 0, 1, frames.pack_long(Code.STREAM_CLOSED))]


def test_after_the_final_goaway_new_streams_are_passed_over(server):
    server.receive(opened(1))
    server.announce_end()
    server.receive(opened(3))
    server.refuse_new()
    server.receive(opened(5) + opened(7, end=True))
    assert sorted(server.got) == [1, 3]
    lasts = [int.from_bytes(one[3][:4]) for one in taken(server) if one[0] == frames.GOAWAY]
    assert lasts == [2**31 - 1, 3]


def test_a_workers_answer_goes_to_its_stream_and_late_ones_nowhere():
    link = Client()
    link.receive(frames.settings({3: 1}))
    first, second = Heard(), Heard()
    link.open(first)
    assert not link.room()
    link.max_streams = 2
    link.open(second)
    link.drop(first, Code.CANCEL)
    answer = frames.head_frames(1, b"\x88", end=False) + data(1, b"late")
    link.receive(answer + frames.head_frames(3, b"\x88", end=False) + data(3, b"now"))
    assert [one[0] for one in link.heads] == [3]
    assert (first.data, second.data) == (b"", b"now")
    assert fault(link, frames.head_frames(5, b"\x88", end=True)) is Code.PROTOCOL_ERROR


def test_a_worker_says_what_it_took():
    link = Client()
    link.receive(frames.settings({}) + frames.goaway(7, Code.NO_ERROR))
    assert link.away == [(7, 0)]
