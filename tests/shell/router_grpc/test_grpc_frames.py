"""Abuse, frame by frame, of a real lane on a real socket; others are served meanwhile."""

import asyncio
from types import SimpleNamespace

import pytest

from tidegate_router.core.h2 import frames, limits
from tidegate_router.core.h2.frames import Code
from tidegate_router.core.h2.hpack import encode

PATH = b"/inference.GRPCInferenceService/ModelInfer"


def head(*more, path=PATH):
    pairs = [
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x"),
        (b"content-type", b"application/grpc"), (b"te", b"trailers"),
    ]  # fmt: skip
    return encode([*pairs, *more])


def opened(stream_id, block=None, *, end=False):
    return frames.head_frames(stream_id, head() if block is None else block, end=end)


def data(stream_id, payload, flags=frames.END_STREAM):
    return frames.frame(frames.DATA, flags, stream_id, payload)


def message(kit, **fields):
    raw = kit.request(**fields)
    return b"\0" + len(raw).to_bytes(4, "big") + raw


class Raw:
    """A client that sends what it wants and reads frames."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def send(self, *parts):
        self.writer.write(b"".join(parts))

    async def frame(self):
        """Return the next frame, None at the end."""
        try:
            first = await self.reader.readexactly(9)
            high, low, kind, flags, stream = frames.unpack_head(first)
            payload = await self.reader.readexactly(high << 8 | low)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return SimpleNamespace(kind=kind, flags=flags, stream=stream, payload=payload)

    async def until(self, kind, stream=None):
        """Return the next frame of a kind; None if the connection ends before."""
        async with asyncio.timeout(5):
            while (one := await self.frame()) is not None:
                if one.kind == kind and stream in {None, one.stream}:
                    return one
        return None

    async def answer(self, stream):
        """Return everything of a stream's answer up to its end."""
        found = b""
        async with asyncio.timeout(5):
            while (one := await self.frame()) is not None:
                if one.stream == stream:
                    found += one.payload
                    if one.flags & frames.END_STREAM and one.kind in {frames.DATA, frames.HEADERS}:
                        return found
        return found

    async def goaway(self):
        """Return why the connection ended: the code of its GOAWAY, after which it is closed."""
        one = await self.until(frames.GOAWAY)
        async with asyncio.timeout(5):
            while one is not None and await self.frame() is not None:
                pass
        return None if one is None else int.from_bytes(one.payload[4:8])


@pytest.fixture
async def connect(router, worker):
    router.serve(worker.routed(limit=200))
    writers = []

    async def start(*, greet=True):
        reader, writer = await asyncio.open_connection("127.0.0.1", router.lane.port)
        writers.append(writer)
        raw = Raw(reader, writer)
        if greet:
            raw.send(frames.PREFACE, frames.settings({}))
        return raw

    yield start
    for writer in writers:
        writer.transport.abort()


@pytest.fixture
async def raw(connect):
    return await connect()


async def test_a_request_in_plain_frames_is_answered(raw, kit):
    raw.send(opened(1), data(1, message(kit)))
    assert kit.echo(kit.request(), "w1") in await raw.answer(1)


async def test_a_request_in_the_smallest_pieces_is_answered(raw, kit):
    block, sent = head(), message(kit)
    raw.send(frames.frame(frames.HEADERS, 0, 1, block[:9]))
    raw.send(frames.frame(frames.CONTINUATION, 4, 1, block[9:]))
    for at in range(len(sent)):
        padded = bytes((3,)) + sent[at : at + 1] + bytes(3)
        raw.send(data(1, padded, frames.PADDED))
    raw.send(data(1, b""))
    assert kit.echo(kit.request(), "w1") in await raw.answer(1)


async def test_a_request_with_trailers_of_its_own_is_answered(raw, kit):
    raw.send(opened(1), data(1, message(kit), 0), opened(1, encode([(b"x-t", b"1")]), end=True))
    assert kit.echo(kit.request(), "w1") in await raw.answer(1)


async def test_trailers_with_a_pseudo_header_are_reset(raw, kit):
    raw.send(opened(1), data(1, message(kit), 0), opened(1, head(), end=True))
    reset = await raw.until(frames.RST_STREAM, 1)
    assert int.from_bytes(reset.payload) == Code.PROTOCOL_ERROR


async def goes_on(router, kit):
    """Others are served."""
    assert kit.answered_by(await router.call()) == "w1"


def rapid_reset(_kit):
    return b"".join(
        opened(number) + frames.rst_stream(number, Code.CANCEL) for number in range(1, 401, 2)
    )


def settings_flood(_kit):
    return frames.settings({}) * 200


def ping_flood(_kit):
    return frames.ping(bytes(8), ack=False) * 200


def huge_block(_kit):
    field = b"\x00\x01a\x7f\x81\x7e" + bytes(16256)
    return frames.frame(frames.HEADERS, 0, 1, head()) + b"".join(
        frames.frame(frames.CONTINUATION, 0, 1, field[:16000]) for _ in range(3)
    )


def continuation_flood(_kit):
    return frames.frame(frames.HEADERS, 0, 1, head()) + (
        frames.frame(frames.CONTINUATION, 0, 1) * 20
    )


def bomb(_kit):
    """A block that unfolds to a hundred megabytes."""
    entry = b"\x40" + encode([(b"x-long", b"v" * 3900)])[1:]
    return opened(1, head() + entry) + opened(3, head() + b"\xbe" * 16000)


def empty_flood(_kit):
    return opened(1) + data(1, b"", 0) * 2000


@pytest.mark.parametrize(
    "abuse",
    [rapid_reset, settings_flood, ping_flood, huge_block, continuation_flood, bomb, empty_flood],
)
async def test_abuse_is_told_to_calm_down_and_harms_nobody(router, raw, kit, abuse):
    raw.send(abuse(kit))
    assert await raw.goaway() == Code.ENHANCE_YOUR_CALM
    await goes_on(router, kit)
    await kit.eventually(lambda: router.in_flight() == 0)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x05ab", Code.PROTOCOL_ERROR),
        (b"", Code.FRAME_SIZE_ERROR),
    ],
)
async def test_bad_padding_ends_the_connection(router, raw, kit, sent, code):
    raw.send(opened(1), data(1, sent, frames.PADDED))
    assert await raw.goaway() == code
    await goes_on(router, kit)


async def test_data_on_a_closed_stream_is_reset_and_the_connection_lives(raw, kit):
    raw.send(opened(1), data(1, message(kit)))
    await raw.answer(1)
    raw.send(data(1, b"more"))
    reset = await raw.until(frames.RST_STREAM, 1)
    assert int.from_bytes(reset.payload) == Code.STREAM_CLOSED
    raw.send(opened(3), data(3, message(kit)))
    assert kit.echo(kit.request(), "w1") in await raw.answer(3)


@pytest.mark.parametrize(
    "block",
    [
        encode([(b":method", b"POST"), (b":scheme", b"http")]),
        head((b"connection", b"close")),
        head((b"te", b"gzip")),
        head((b"X-Upper", b"1")),
        head((b"x-late", b"1"), (b":authority", b"y")),
        head((b"x-value", b"a\r\nb")),
        encode([(b":method", b"POST"), (b":method", b"POST"), (b":path", PATH)]),
        head((b"content-length", b"3")),
    ],
    ids=["path", "connection", "te", "upper", "late", "newline", "twice", "length"],
)
async def test_what_is_no_http_2_request_is_reset(raw, kit, block):
    raw.send(opened(1, block), data(1, message(kit)))
    reset = await raw.until(frames.RST_STREAM, 1)
    assert int.from_bytes(reset.payload) == Code.PROTOCOL_ERROR


async def test_what_is_no_grpc_is_told_so_in_http(raw):
    block = encode([(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")])
    raw.send(opened(1, block, end=True))
    answer = await raw.until(frames.HEADERS, 1)
    assert (answer.flags & frames.END_STREAM, b"415" in answer.payload) == (1, True)


@pytest.mark.parametrize(
    "sent",
    [
        b"\0\0\0\0\x09\x0a\x01m",
        b"\0\0\0\0\x03\x0a\x01m" * 2,
        b"\0\0",
        b"",
        b"\x01\0\0\0\x03\x0a\x01m",
    ],
    ids=["cut", "two", "no-prefix", "nothing", "compressed-by-nothing"],
)
async def test_a_unary_call_that_is_not_one_message_is_refused(raw, worker, sent):
    raw.send(opened(1), data(1, sent))
    assert b"grpc-status\x013" in await raw.answer(1)
    assert worker.seen == []


async def test_the_101st_stream_at_once_is_refused_and_may_be_sent_again(raw, worker):
    worker.infer = worker.hang
    raw.send(*(opened(2 * number + 1) for number in range(limits.MAX_STREAMS + 1)))
    reset = await raw.until(frames.RST_STREAM)
    assert (reset.stream, int.from_bytes(reset.payload)) == (201, Code.REFUSED_STREAM)


async def test_a_client_that_reads_no_answers_is_not_answered_without_end(router, raw, kit):
    """Its window is closed: nothing but the head leaves, and its end frees everything."""
    raw.send(frames.settings({4: 0}), opened(1), data(1, message(kit)))
    assert (await raw.until(frames.HEADERS, 1)).flags & frames.END_STREAM == 0
    raw.send(frames.ping(b"12345678", ack=False))
    assert (await raw.until(frames.PING)).payload == b"12345678"
    raw.send(frames.window_update(1, 1000))
    assert (await raw.until(frames.DATA, 1)).payload.endswith(kit.echo(kit.request(), "w1"))
    assert router.in_flight() == 0


async def test_a_connection_that_breaks_cancels_its_requests(router, raw, worker, kit):
    worker.infer = worker.hang
    raw.send(opened(1), data(1, message(kit)))
    await worker.arrived.wait()
    raw.writer.transport.abort()
    await asyncio.wait_for(worker.cancelled.wait(), 1)
    await kit.eventually(lambda: router.in_flight() == 0)
    assert router.attempts() == {"cancelled": 1}


async def test_a_drain_ends_a_connection_when_its_last_request_did(router, raw, worker, kit):
    go = asyncio.Event()

    async def slow(sent, _context):
        await go.wait()
        return kit.echo(sent, "w1")

    worker.infer = slow
    raw.send(opened(1), data(1, message(kit)))
    await worker.arrived.wait()
    for connection in router.lane.connections:
        connection.drain()
    first = await raw.until(frames.GOAWAY)
    assert int.from_bytes(first.payload[:4]) == 2**31 - 1
    raw.send(opened(3), data(3, message(kit)))
    last = await raw.until(frames.GOAWAY)
    assert int.from_bytes(last.payload[:4]) == 3
    raw.send(opened(5), data(5, message(kit)))
    go.set()
    assert kit.echo(kit.request(), "w1") in await raw.answer(1)
    assert await raw.until(frames.HEADERS, 5) is None


async def test_a_stranger_is_cut_off(connect, kit, router):
    stranger = await connect(greet=False)
    stranger.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await stranger.goaway() == Code.PROTOCOL_ERROR
    await goes_on(router, kit)


async def test_a_cancel_while_waiting_for_a_slot_leaves_the_queue(router, worker, kit, raw):
    worker.infer = worker.hang
    router.serve(worker.routed(limit=1), policy={"timeoutSeconds": 20})
    raw.send(opened(1), data(1, message(kit)))
    await worker.arrived.wait()
    raw.send(opened(3), data(3, message(kit)))
    holds = router.lane.dispatcher.holds
    await kit.eventually(lambda: holds.anyone(("p", "r1", "m")))
    raw.send(frames.rst_stream(3, Code.CANCEL))
    await kit.eventually(lambda: not holds.anyone(("p", "r1", "m")))
    assert router.lane.dispatcher.pools["p"].in_flight == 1


async def test_a_deadline_that_is_no_time_is_refused(raw, kit):
    raw.send(opened(1, head((b"grpc-timeout", b"soon"))), data(1, message(kit)))
    assert b"grpc-status\x013" in await raw.answer(1)
